"""All that Dagster shows and runs, wired in one place: `dagster` and `workspace.yaml` load this module."""

import dagster as dg

from assets.breakdowns import breakdowns
from assets.checks import newest_hour_is_reported
from assets.events import events
from assets.moving_averages import moving_averages
from assets.raw_events import raw_events
from assets.stored_events import stored_events
from assets.traffic import traffic
from assets.visits import visits
from orchestration.reports import RUN_DATES, reports
from orchestration.resources import dbt, stores
from orchestration.schedules import JOBS, SCHEDULES

ASSETS = [raw_events, events, stored_events, traffic, moving_averages, visits, breakdowns, reports]
RESOURCES = {"stores": stores, "dbt": dbt}

defs = dg.Definitions(
    assets=[*ASSETS, RUN_DATES],
    asset_checks=[newest_hour_is_reported],
    resources=RESOURCES,
    jobs=JOBS,
    schedules=SCHEDULES,
    executor=dg.in_process_executor,
)
