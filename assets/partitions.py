"""The partitions of all assets: UTC hours with the current one, and dates with one before the first hour's (UTC-12 is late) and
two ahead (UTC+14 is early).

Dagster builds its graph when this is imported, so FOOTFALL_START is read here.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from assets.lineage import HOURLY
from ingestion.settings import Settings, from_environment
from ingestion.site_time import hour_of

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # backfill_policy is one; it bounds the partitions of a run

SLOW_BEYOND_HOURS = 100_000

SETTINGS: Settings = from_environment()

HOURS = dg.HourlyPartitionsDefinition(start_date=SETTINGS.start, fmt="%Y-%m-%dT%H", end_offset=1)
FIRST_DATE = SETTINGS.start - timedelta(days=1)
DATES = dg.DailyPartitionsDefinition(start_date=FIRST_DATE.strftime("%Y-%m-%d"), end_offset=2)

GRAIN_ARRIVAL, GRAIN_HOUR, GRAIN_DATE = ({"grain": grain} for grain in ("arrival_hour", "event_hour", "date"))
"""Tags of assets: what a partition of them is."""

EVERY_HOURS_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=SETTINGS.chunk_hours)
EVERY_DATES_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=SETTINGS.chunk_dates)

if (datetime.now(UTC) - SETTINGS.start).total_seconds() / 3600 > SLOW_BEYOND_HOURS:
    logging.getLogger("footfall").warning(
        "FOOTFALL_START=%s makes more than %s hourly partitions: Dagster's pages will be slow",
        SETTINGS.start.date(), f"{SLOW_BEYOND_HOURS:,}",
    )  # fmt: skip


def chunks(
    asset: str, partitions: Sequence[str], hours: int, dates: int, bridged: int = 1
) -> Iterator[tuple[str, str]]:
    """First and last partition of each Dagster run: runs are contiguous and no longer than `hours` or `dates`. A step of at most
    `bridged` partitions does not begin another run: those between have no inputs, and making them empty costs less."""
    hourly = asset in ("raw_events", *HOURLY)
    most, step = (hours, timedelta(hours=1)) if hourly else (dates, timedelta(days=1))
    moment = hour_of if hourly else date.fromisoformat
    first = last = ""
    for partition in partitions:
        if first and (
            moment(partition) - moment(first) >= most * step or moment(partition) - moment(last) > bridged * step
        ):  # type: ignore[operator]
            yield first, last
            first = ""
        first, last = first or partition, partition
    if first:
        yield first, last
