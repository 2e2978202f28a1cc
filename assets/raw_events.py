"""The event log to raw objects: what was not read yet, by arrival hour, byte for byte. It only appends."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg

from assets.checks import TILES, offset_ranges_tile
from assets.partitions import EVERY_HOURS_RUN, GRAIN_ARRIVAL, HOURS
from assets.replace import ONLY_STALE, retried
from ingestion.event_log import open_event_log
from ingestion.lake import ListedObjectGone
from ingestion.pull import pull, unread
from ingestion.site_time import hour_of
from ingestion.stores import Stores


@dg.asset(
    partitions_def=HOURS,
    backfill_policy=EVERY_HOURS_RUN,
    code_version="1",
    group_name="collect",
    owners=["team:footfall"],
    tags=GRAIN_ARRIVAL,
    kinds={"kafka", "file"},
    check_specs=[TILES],
)
def raw_events(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Events as collected: the event log from where the ledger ends to the end of the last hour asked for, each range of offsets
    with its arrival hour. Of hours that were read before, the raw objects are verified."""
    hours = sorted(context.partition_keys)
    started = time.monotonic()
    with retried(context, stores):
        pulled = pull_until(stores, hours[-1], datetime.now(UTC))
        over = [] if ONLY_STALE in context.run.tags else [hour for hour in hours[:-1] if hour not in pulled.hours]
        verified, wrong = _verify(stores, over)
    for problem in wrong:  # `events` refuses its hour, and no other
        context.log.error(problem)
    if pulled.lost:
        context.log.error(f"{pulled.lost} offsets of the event log were gone before they were read: see {TILES.name}")
    return dg.MaterializeResult(
        check_results=[offset_ranges_tile(stores)],
        metadata={
            "dagster/row_count": dg.MetadataValue.int(pulled.lines),
            "bytes": dg.MetadataValue.int(pulled.bytes),
            "seconds": dg.MetadataValue.float(round(time.monotonic() - started, 3)),
            "partitions": dg.MetadataValue.int(len(hours)),
            "objects_verified": dg.MetadataValue.int(verified),
            "objects_wrong": dg.MetadataValue.json(wrong),
        },
    )


def unread_hours(stores: Stores, last: datetime, now: datetime) -> list[str]:
    """The arrival hours, up to the last one wanted, of which the event log holds what was not read yet."""
    with open_event_log(stores.settings, stores.postgres_url) as log:
        number = stores.ledger.log_number(log.identity())
        every = unread(log, stores.ledger.read_until(), stores.settings.start, last, now, number)
        return sorted({read.hour for ranges in every for read in ranges})


@dataclass
class Pulled:
    """What was read of the event log, and for which arrival hours; `lost` are offsets."""

    hours: set[str] = field(default_factory=set)
    lines: int = 0
    bytes: int = 0
    lost: int = 0


def pull_until(stores: Stores, last_hour: str, now: datetime) -> Pulled:
    """Reads what is unread up to an arrival hour. One reader at a time: another waits, and finds less to read."""
    pulled = Pulled()
    with stores.ledger.excluding("raw_events"), open_event_log(stores.settings, stores.postgres_url) as log:
        number = stores.ledger.log_number(log.identity())
        every = unread(log, stores.ledger.read_until(), stores.settings.start, hour_of(last_hour), now, number)
        for read in pull(log, stores.lake, every):
            stores.ledger.log_number(log.identity())  # of a topic that was made anew meanwhile, nothing is listed
            stores.ledger.list_range(read)
            pulled.hours.add(read.hour)
            pulled.lost += read.end - read.first if read.lost else 0
            if read.object:
                pulled.lines, pulled.bytes = pulled.lines + read.object.rows, pulled.bytes + read.object.bytes
    return pulled


def _verify(stores: Stores, hours: Sequence[str]) -> tuple[int, list[str]]:
    """Compares the listed raw objects of some hours with their digests: how many there are, and what is wrong with some. The last
    hour of a run is not among them, as the sweep runs it several times."""
    objects, wrong = [item for hour in hours for item in stores.ledger.raw_objects(hour)], list[str]()
    for item in objects:
        try:
            stores.lake.get_listed(item)
        except ListedObjectGone as problem:
            wrong.append(str(problem))
    return len(objects), wrong
