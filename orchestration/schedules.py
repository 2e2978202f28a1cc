"""When: the sweep of hours, the sweep of dates a little later, and housekeeping.

An event is pulled by the next sweep of hours, and in the reports after the next sweep of dates: with the default intervals of
15 and 30 minutes at most 50 minutes after it came, late ones included, and the time that the runs take.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from assets.partitions import DATES, HOURS, SETTINGS
from assets.raw_events import unread_hours
from ingestion.event_log.postgres import PostgresEventLog
from ingestion.site_time import from_datetime
from ingestion.stores import Stores, open_stores
from ingestion.sweep import sweep_unlisted
from orchestration.sweep import Range, due_dates, due_hours, ranges

IN_FLIGHT = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
FIRST_RUN = {"dagster/priority": "1"}
"""What is new comes before backfills."""
DAILY_AFTER_HOURLY = 5
"""Minutes between the sweep of hours and that of dates, which needs its result."""
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


@dg.schedule(
    job=hourly_job,
    cron_schedule=f"*/{SETTINGS.hourly_minutes} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def sweep_hours(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Runs the hours of which something is unread, missing or stale."""
    yield from _requests(
        context.instance,
        "hourly",
        lambda stores, now: due_hours(stores.ledger.state(), unread_hours(stores, now, now), now),
    )


@dg.schedule(
    job=daily_job,
    cron_schedule=f"{DAILY_AFTER_HOURLY}-59/{SETTINGS.daily_minutes} * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def sweep_dates(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Runs the dates of which something is missing or stale."""
    yield from _requests(context.instance, "daily", lambda stores, now: due_dates(stores.ledger.state(), now))


def _requests(
    instance: dg.DagsterInstance, job: str, due: Callable[[Stores, datetime], set[str]]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    now = datetime.now(UTC)
    busy = in_flight(instance)
    with open_stores(SETTINGS) as stores:
        wanted = list(ranges(job, due(stores, now), busy, SETTINGS, now))
    if not wanted:
        yield dg.SkipReason("everything is up to date, or in flight")
    for part in wanted:
        yield dg.RunRequest(job_name=job, tags={**part.tags, **FIRST_RUN})


def in_flight(instance: dg.DagsterInstance) -> list[Range]:
    """The partitions of runs that are queued or running, whoever launched them."""
    found = []
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT)):
        only = run.tags.get("dagster/partition")
        first = run.tags.get("dagster/asset_partition_range_start", only)
        last = run.tags.get("dagster/asset_partition_range_end", only)
        if first and last:
            found.append(Range("hourly" if "T" in first else "daily", first, last))
    return found


@dg.op
def remove_what_nobody_reads(context: dg.OpExecutionContext) -> None:
    """Lake objects that are not listed, after 24 hours; records of the embedded event log that were read, after 72 hours."""
    now = datetime.now(UTC)
    with open_stores(SETTINGS) as stores:
        objects = sweep_unlisted(stores.ledger, stores.lake, now)
        with PostgresEventLog(stores.postgres_url) as log:
            until, _ = stores.ledger.read_until().get(0, (0, ""))
            records = log.forget(until, from_datetime(now - LOG_KEPT))
    context.log.info(f"removed {objects} unlisted objects, and {records} records that were read")


@dg.job(executor_def=dg.in_process_executor, description="Removes what nobody reads any more.")
def housekeeping() -> None:
    remove_what_nobody_reads()


housekeeping_schedule = dg.ScheduleDefinition(
    name="keep_house",
    job=housekeeping,
    cron_schedule="25 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

JOBS: list[Any] = [hourly_job, daily_job, housekeeping]
SCHEDULES: list[Any] = [sweep_hours, sweep_dates, housekeeping_schedule]
