"""The partitions of all assets: UTC hours with the current one, and dates with two ahead (UTC+14 is early).

Dagster builds its graph when this is imported, so FOOTFALL_START is read here.
"""

import logging
import warnings
from datetime import UTC, datetime

import dagster as dg

from ingestion.settings import Settings, from_environment

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # backfill_policy is one; it bounds the partitions of a run

SLOW_BEYOND_HOURS = 100_000

SETTINGS: Settings = from_environment()

HOURS = dg.HourlyPartitionsDefinition(start_date=SETTINGS.start, fmt="%Y-%m-%dT%H", end_offset=1)
DATES = dg.DailyPartitionsDefinition(start_date=SETTINGS.start.strftime("%Y-%m-%d"), end_offset=2)

EVERY_HOURS_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=SETTINGS.chunk_hours)
EVERY_DATES_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=SETTINGS.chunk_dates)

if (datetime.now(UTC) - SETTINGS.start).total_seconds() / 3600 > SLOW_BEYOND_HOURS:
    logging.getLogger("footfall").warning(
        "FOOTFALL_START=%s makes more than %s hourly partitions: Dagster's pages will be slow",
        SETTINGS.start.date(), f"{SLOW_BEYOND_HOURS:,}",
    )  # fmt: skip
