"""Replacing partitions of an asset: give a version, make them, publish each whole, and tell Dagster the numbers."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

import dagster as dg
import polars as pl
import psycopg

from assets.lineage import inputs, stale
from ingestion.event_log import EventLogUnavailable
from ingestion.event_store import EventStoreUnavailable
from ingestion.lake import LakeFailed, LakeObject, ListedObjectGone, digest_of
from ingestion.ledger import LedgerUnreachable, LogReplaced, Outcome, PartitionObject, State, Superseded
from ingestion.pull import LogTruncated
from ingestion.stores import Stores

ONLY_STALE = "footfall/only_stale"
"""A run's tag: of its partitions, those that are up to date are left as they are."""
RETRIES, FIRST_WAIT = 4, 2
"""Of a step whose server does not answer: after 2, 4, 8 and 16 seconds."""
PUBLISHED_AT_ONCE = 50
ROWS_AT_ONCE = 200_000


@dataclass(frozen=True)
class Landing:
    """Rows that replace those of some hours or dates in a landing table."""

    table: str
    key: str
    partitions: Sequence[datetime] | Sequence[date]
    rows: pl.DataFrame


@dataclass(frozen=True)
class Made:
    """One partition as it was made, before it is published."""

    partition: str
    objects: Sequence[PartitionObject] = ()
    landing: Sequence[Landing] = ()
    touched: Mapping[tuple[str, str], int] = field(default_factory=dict)
    stored: int = 0
    """Rows written to another store, of which the ledger knows no content: nothing downstream reads them."""

    @property
    def rows(self) -> int:
        """Rows of its objects; without any, rows that landed or were stored."""
        landed = sum(item.rows.height for item in self.landing)
        return sum(item.object.rows for item in self.objects) or landed or self.stored


@dataclass(frozen=True)
class Work:
    """What a step that makes partitions is given."""

    stores: Stores
    state: State
    version: int


@dataclass(frozen=True)
class Refusal:
    """A partition that was left as it is, and why: it cannot be made of what is there now, or a newer version is published."""

    partition: str
    reason: str
    superseded: bool = False


Make = Callable[[Work, Sequence[str]], Iterable[Made | Refusal]]
"""Makes some partitions; may yield each as soon as it is whole. One that cannot be made does not keep others from it."""
Check = Callable[[Stores, Sequence[Refusal]], Sequence[dg.AssetCheckResult]]
"""Checks all partitions that are up to date, so that what failed once fails until it is mended; is told of those that were refused."""


def replace_partitions(
    context: dg.AssetExecutionContext, stores: Stores, make: Make, *, check: Check | None = None
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Replaces the partitions of a Dagster run with what `make` makes of them. Where some were refused, a person's run fails
    when the others are published; the sweep's goes on, so that no partition keeps others from the reports."""
    asset = context.asset_key.path[-1]
    code_version = context.assets_def.code_versions_by_key[context.asset_key] or ""
    started = time.monotonic()
    refused: list[Refusal] = []
    with retried(context, stores):
        work = Work(stores, stores.ledger.state(), stores.ledger.next_version())
        partitions = to_make(context, asset, work.state)
        made_from = inputs(asset, work.state, datetime.now(UTC), also=partitions)
        context.log.info(f"{asset} {_span(partitions)}: started, version {work.version}")
        rows = size = 0
        for batch in _batches(_without_refused(make(work, partitions), refused)):
            outcomes = [_outcome(made, made_from[made.partition]) for made in batch]
            try:
                _publish(stores, asset, work.version, code_version, batch, outcomes)
            except Superseded as newer:
                refused += [Refusal(made.partition, str(newer), superseded=True) for made in batch]
                continue
            rows, size = rows + sum(made.rows for made in outcomes), size + sum(made.bytes for made in outcomes)
    seconds = time.monotonic() - started
    context.log.info(f"{asset} {_span(partitions)}: done, {rows} rows, {seconds * 1000:.0f} ms")
    _tell(context, refused)
    made_now = sorted(set(partitions) - {refusal.partition for refusal in refused})
    return dg.MaterializeResult(
        data_version=dg.DataVersion(str(work.version)),
        check_results=list(check(stores, refused)) if check else [],
        metadata={
            "dagster/row_count": dg.MetadataValue.int(rows),
            "bytes": dg.MetadataValue.int(size),
            "seconds": dg.MetadataValue.float(round(seconds, 3)),
            "partitions": dg.MetadataValue.int(len(made_now)),
        },
    )


def _without_refused(every: Iterable[Made | Refusal], refused: list[Refusal]) -> Iterator[Made]:
    for made in every:
        if isinstance(made, Refusal):
            refused.append(made)
        else:
            yield made


def _publish(
    stores: Stores, asset: str, version: int, code_version: str, batch: Sequence[Made], outcomes: Sequence[Outcome]
) -> None:
    """One transaction for all of a batch. Raises Superseded."""
    with stores.ledger.replacing(asset, version, code_version) as replacement:
        replacement.publish(outcomes)
        for landing in _merged([landing for made in batch for landing in made.landing]):
            replacement.land(landing.table, landing.key, landing.partitions, landing.rows)
            if landing.table == "traffic":
                replacement.refresh_first_hours(landing.partitions)  # type: ignore[arg-type]


def _tell(context: dg.AssetExecutionContext, refused: Sequence[Refusal]) -> None:
    """Logs what was refused; fails a run that a person asked for."""
    for refusal in refused:
        context.log.error(refusal.reason)
    if refused and ONLY_STALE not in context.run.tags:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise dg.Failure(f"{refused[0].reason}{more}", allow_retries=False)


@contextmanager
def retried(context: dg.AssetExecutionContext, stores: Stores) -> Iterator[None]:
    """A step's work: tried again when a server did not answer, never when another try cannot help. Raises what Dagster expects."""
    tried: int = context.op_execution_context.retry_number
    try:
        stores.ledger.reconnect()
        yield
    except (Superseded, ListedObjectGone, LogReplaced, LogTruncated) as problem:
        raise dg.Failure(str(problem), allow_retries=False) from problem
    except (
        psycopg.OperationalError,
        LedgerUnreachable,
        EventLogUnavailable,
        EventStoreUnavailable,
        LakeFailed,
    ) as problem:
        raise dg.RetryRequested(RETRIES, FIRST_WAIT * 2**tried) from problem


def to_make(context: dg.AssetExecutionContext, asset: str, state: State) -> list[str]:
    """The partitions of a run that it makes: all of them, unless it was told to leave what is up to date."""
    wanted = sorted(context.partition_keys)
    if ONLY_STALE not in context.run.tags:
        return wanted
    due = set(stale(asset, state, datetime.now(UTC)))
    return [partition for partition in wanted if partition in due]


def _batches(every: Iterable[Made]) -> Iterator[list[Made]]:
    """Partitions that are published in one transaction: a commit each would cost more than making small ones."""
    batch: list[Made] = []
    for made in every:
        batch.append(made)
        if len(batch) == PUBLISHED_AT_ONCE or sum(item.rows for item in batch) >= ROWS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _merged(every: Sequence[Landing]) -> Iterator[Landing]:
    """One landing for each table."""
    tables: dict[str, list[Landing]] = {}
    for landing in every:
        tables.setdefault(landing.table, []).append(landing)
    for table, landings in tables.items():
        filled = [landing.rows for landing in landings if landing.rows.height]
        partitions = [partition for landing in landings for partition in landing.partitions]
        yield Landing(table, landings[0].key, partitions, pl.concat(filled) if filled else pl.DataFrame())  # type: ignore[arg-type]


def _outcome(made: Made, made_from: Mapping[str, str]) -> Outcome:
    """What is published of a partition. Its content is a digest of rows, not of versioned names, so that the same rows made
    again are the same content."""
    digests = sorted(f"{item.day} {item.bucket} {item.object.digest}" for item in made.objects)
    if made.stored:
        digests.append(f"{made.stored} rows stored")
    digests += [f"{item.table} {_digest(item.rows)}" for item in made.landing if item.rows.height]
    landed = sum(item.rows.estimated_size() for item in made.landing)
    return Outcome(
        partition=made.partition,
        inputs=made_from,
        content=digest_of("\n".join(digests).encode()) if digests else "",
        rows=made.rows,
        bytes=sum(item.object.bytes for item in made.objects) or int(landed),
        objects=made.objects,
        touched=made.touched,
    )


def _digest(rows: pl.DataFrame) -> str:
    return digest_of(rows.write_json().encode())


def put_bucket(
    stores: Stores, name: str, rows: pl.DataFrame, *, day: date | None, bucket: tuple[int, int] | None
) -> PartitionObject:
    """Writes one Parquet object of a date and bucket (its number, and of how many)."""
    written: LakeObject = stores.lake.put_parquet(name, rows)
    number, count = bucket or (None, None)
    return PartitionObject(written, day, number, count)


def _span(partitions: Sequence[str]) -> str:
    if not partitions:
        return "nothing"
    return partitions[0] if len(partitions) == 1 else f"{partitions[0]} to {partitions[-1]} ({len(partitions)})"
