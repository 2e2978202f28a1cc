"""When: the sweep of hours, the sweep of dates a little later, and housekeeping.

An event is pulled by the next sweep of hours, and in the reports after the next sweep of dates that finds that run done. With
the default intervals of 15 and 30 minutes that is at most 50 minutes after it came, late ones included, and the time that
the run of dates takes, as long as a run of hours takes 4 minutes at most; tests/e2e/test_sweep.py steps a clock through it.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from assets.checks import newest_hour_is_reported, what_came_is_reported
from assets.partitions import DATES, HOURS, SETTINGS
from assets.raw_events import unread_hours
from assets.replace import ONLY_STALE
from ingestion.event_log.postgres import PostgresEventLog
from ingestion.event_store import open_event_store
from ingestion.ledger import PARTITIONS_A_LOG
from ingestion.site_time import from_datetime
from ingestion.stores import Stores
from ingestion.sweep import sweep_unlisted
from orchestration.sweep import Range, due_dates, due_hours, ranges

RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
DAILY_AFTER_HOURLY = 5
"""Minutes between the sweep of hours and that of dates, which needs its result."""
DAILY_AT = range(DAILY_AFTER_HOURLY % SETTINGS.daily_minutes, 60, SETTINGS.daily_minutes)
LOG_KEPT = timedelta(hours=72)
"""How long the embedded event log keeps what was read; Kafka has a retention of its own."""

hourly_job = dg.define_asset_job(
    "hourly",
    dg.AssetSelection.groups("collect", "hourly"),
    partitions_def=HOURS,
    description="From the event log to hourly traffic and its averages.",
)
daily_job = dg.define_asset_job(
    "daily",
    dg.AssetSelection.groups("daily", "staging", "reports"),
    partitions_def=DATES,
    description="From events to visits, breakdowns and report tables.",
)

Tick = Iterator[dg.RunRequest | dg.SkipReason]


@dg.schedule(
    job=hourly_job,
    cron_schedule=f"*/{SETTINGS.hourly_minutes} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags={"footfall/sweep": "hours"},
)
def sweep_hours(context: dg.ScheduleEvaluationContext, stores: dg.ResourceParam[Stores]) -> Tick:
    """Runs the hours of which something is unread, missing or stale."""
    now = context.scheduled_execution_time.astimezone(UTC)
    due = due_hours(stores.ledger.state(), unread_hours(stores, now, now), now)
    yield from _requests(ranges("hourly", due, in_flight(context.instance), stores.settings, now))


@dg.schedule(
    job=daily_job,
    cron_schedule=f"{','.join(map(str, DAILY_AT))} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags={"footfall/sweep": "dates"},
)
def sweep_dates(context: dg.ScheduleEvaluationContext, stores: dg.ResourceParam[Stores]) -> Tick:
    """Runs the dates of which something is missing or stale, and checks that what came an hour ago is reported."""
    now = context.scheduled_execution_time.astimezone(UTC)
    _report_check(context.instance, stores, now)
    due = due_dates(stores.ledger.state(), now)
    yield from _requests(ranges("daily", due, in_flight(context.instance), stores.settings, now))


def _requests(wanted: Iterator[Range]) -> Tick:
    requests = [dg.RunRequest(tags=part.tags) for part in wanted]
    yield from requests
    if not requests:
        yield dg.SkipReason("everything is up to date, or in flight")


def _report_check(instance: dg.DagsterInstance, stores: Stores, now: datetime) -> None:
    """Without a run, since it must fail when none succeeds any more."""
    found, (key,) = what_came_is_reported(stores, now), newest_hour_is_reported.check_keys
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(key.asset_key, key.name, passed=found.passed, metadata=found.metadata)
    )


def in_flight(instance: dg.DagsterInstance) -> Sequence[Range]:
    """The partitions of runs that go on, and of the sweep's own that wait. A backfill that waits holds up nothing: it may have many
    runs before the one of today."""
    waiting = instance.get_runs(dg.RunsFilter(statuses=WAITING, tags={ONLY_STALE: "yes"}))
    found = []
    for run in [*waiting, *instance.get_runs(dg.RunsFilter(statuses=RUNNING))]:
        only = run.tags.get("dagster/partition")
        first = run.tags.get("dagster/asset_partition_range_start", only)
        last = run.tags.get("dagster/asset_partition_range_end", only)
        if first and last:
            found.append(Range("hourly" if "T" in first else "daily", first, last))
    return found


@dg.op
def remove_what_nobody_reads(context: dg.OpExecutionContext, stores: dg.ResourceParam[Stores]) -> None:
    """Lake objects that are not listed, after 24 hours; records of the embedded event log that were read, after 72 hours;
    what the embedded event store has of arrival hours older than FOOTFALL_EVENT_STORE_DAYS."""
    now = datetime.now(UTC)
    objects = sweep_unlisted(stores.ledger, stores.lake, now)
    with PostgresEventLog(stores.postgres_url) as log:
        number = stores.ledger.log_number(log.identity())
        until, _ = stores.ledger.read_until().get(number * PARTITIONS_A_LOG, (0, ""))
        records = log.forget(until, from_datetime(now - LOG_KEPT))
    with open_event_store(stores.settings, stores.postgres_url) as store:
        events = store.forget(now - timedelta(days=stores.settings.event_store_days))
    context.log.info(
        f"removed {objects} unlisted objects, {records} records that were read, and {events} events of visitors"
    )


@dg.job(executor_def=dg.in_process_executor, description="Removes what nobody reads any more.")
def housekeeping() -> None:
    """Once a night."""
    remove_what_nobody_reads()


keep_house = dg.ScheduleDefinition(
    name="keep_house",
    job=housekeeping,
    cron_schedule="25 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

JOBS: list[Any] = [hourly_job, daily_job, housekeeping]
SCHEDULES: list[Any] = [sweep_hours, sweep_dates, keep_house]
