"""The event store at full size: Cassandra.

An arrival hour is written in this order. A run may end anywhere, and the next one makes the hour right:

    hours.version    by LWT: of two writers the newer goes on
    hour_sites       where events of the hour may be
    events           a shard, which is a partition, for each 50,000 of a site
    visitor_hours    what is known of a visitor, and in which shards their events are
    event_hours      how many shards a site has
    hours.visible    by LWT: from here on readers leave out what an older version wrote
    then what older versions left is deleted

Rows are written USING TIMESTAMP = the version and deleted with one below, so an older version's late write changes no newer row,
and no delete does. They expire when their arrival hour is so many days old.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl
from cassandra.query import UNSET_VALUE, Statement

from ingestion.event_store import VISITOR_HOURS
from ingestion.event_store.cassandra_session import CassandraSession
from ingestion.ledger import Superseded
from ingestion.settings import Cluster

SHARD_EVENTS = 50_000
EVENT_BYTES = 1_500
"""A longer event counts as several of its shard's, so that a partition stays under 100 MB whatever the events are."""
ROW_BYTES = 100
"""What an event takes beside its texts: of the batch, roughly."""
BATCH_BYTES = 64_000
BATCHES_AT_ONCE, ROWS_AT_ONCE = 16, 128
"""Statements under way at a time: 1 MB in batches."""
ROWS_A_BATCH = 500
"""Of rows that are all small."""
SLICES = 16
HOURS_A_QUESTION = 100

INSERT_EVENT = """insert into events (site, hour, shard, visitor_id, occurred_at, event_id, event)
                  values (?, ?, ?, ?, ?, ?, ?) using timestamp ? and ttl ?"""
VISITOR_COLUMNS = (*VISITOR_HOURS, "last_event", "first_shard", "last_shard")
INSERT_VISITOR_HOUR = f"""insert into visitor_hours ({", ".join(VISITOR_COLUMNS)}, hour)
                          values ({"?, " * len(VISITOR_COLUMNS)}?) using timestamp ? and ttl ?"""  # noqa: S608
SELECT_VISITOR_HOURS = f"""select {", ".join(VISITOR_COLUMNS)}, hour, writetime(last_event) as version
                           from visitor_hours where site = ? and visitor_id = ?"""  # noqa: S608
SELECT_EVENTS = """select occurred_at, event_id, event, writetime(event) as version
                   from events where site = ? and hour = ? and shard = ? and visitor_id = ?"""
SELECT_OLDEST = """select visitor_id, min(writetime(event)) as version
                   from events where site = ? and hour = ? and shard = ? group by visitor_id"""


@dataclass(frozen=True)
class _Writing:
    """One version of an hour, while it is written."""

    hour: datetime
    version: int
    ttl: int
    """Seconds."""
    again: bool
    """Another version, or this one, has begun to write the hour before."""
    filled: dict[str, int] = field(default_factory=dict)
    """What the events of each site weigh so far."""


class CassandraEventStore:
    """Connects when it is first used. Use it in one thread.

    `now` is the clock, and `shard_events` the weight of a shard.
    """

    def __init__(
        self,
        cluster: Cluster,
        days: int,
        ca: Path | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        shard_events: int = SHARD_EVENTS,
    ) -> None:
        self._session = CassandraSession(cluster, ca)
        self._kept = timedelta(days=days)
        self._now = now
        self._shard_events = shard_events

    def __enter__(self) -> "CassandraEventStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def forget(self, before: datetime) -> int:
        """Nothing: rows expire."""
        return 0

    # Writing

    def replace_hour(self, hour: datetime, version: int, events: Iterator[tuple[pl.DataFrame, pl.DataFrame]]) -> int:
        """Readers see the old hour until the new one is whole, except for rows that the new one has changed already. An hour that
        is older than the store keeps is not written."""
        ttl = int((hour + self._kept - self._now()).total_seconds())
        if ttl <= 0:
            return 0
        writing = _Writing(hour, version, ttl, again=self._fence(hour, version, ttl))
        stored = sum(self._store(writing, *frames) for frames in events)
        self._count_shards(writing)
        self._show(writing)
        if writing.again:
            self._clean(writing)
        return stored

    def _fence(self, hour: datetime, version: int, ttl: int) -> bool:
        """Keeps older versions out; says whether the hour was begun before. Raises Superseded."""
        row = self._session.one(
            "insert into hours (hour, version) values (?, ?) if not exists using ttl ?", (hour, version, ttl)
        )
        if row.applied:
            return False
        while not row.applied:
            if row.version is not None and row.version > version:
                raise _superseded(hour, version)
            row = self._session.one(
                "update hours using ttl ? set version = ? where hour = ? if version = ?",
                (ttl, version, hour, row.version),
            )
        return True

    def _show(self, writing: _Writing) -> None:
        """Raises Superseded, or EventStoreUnavailable where the store has forgotten that it was begun."""
        row = self._session.one(
            "update hours using ttl ? set visible = ? where hour = ? if version = ?",
            (writing.ttl, writing.version, writing.hour, writing.version),
        )
        if not row.applied:
            raise self._not_ours(writing, row)

    def _not_ours(self, writing: _Writing, row: Any) -> Exception:
        """What to raise where the hour's row does not say this version."""
        if getattr(row, "version", None) is None:
            return self._session.unavailable(
                "it has lost writes that it took (of a single node: set commitlog_sync: batch)"
            )
        return _superseded(writing.hour, writing.version)

    def _store(self, writing: _Writing, stored: pl.DataFrame, visitors: pl.DataFrame) -> int:
        """Writes one pair of frames, unless a newer version has begun meanwhile."""
        row = self._session.one("select version from hours where hour = ?", (writing.hour,))
        if row is None or row.version != writing.version:
            raise self._not_ours(writing, row)
        events = sharded(stored, writing.filled, self._shard_events)
        self._session.send(self._places(writing, events), ROWS_AT_ONCE)
        self._session.send(self._events(writing, events), BATCHES_AT_ONCE)
        self._session.send(self._visitors(writing, events, visitors), ROWS_AT_ONCE)
        return stored.height

    def _places(self, writing: _Writing, events: pl.DataFrame) -> Iterator[Statement]:
        slices: list[list[tuple[str, int]]] = [[] for _ in range(SLICES)]
        for site, shard in events.select("site", "shard").unique(maintain_order=True).iter_rows():
            slices[slice_of(site)].append((site, shard))
        for number, places in enumerate(slices):
            for part in _parts(places, ROWS_A_BATCH):
                yield self._session.batch(
                    "insert into hour_sites (hour, slice, site, shard) values (?, ?, ?, ?) using timestamp ? and ttl ?",
                    ((writing.hour, number, *place, writing.version, writing.ttl) for place in part),
                )

    def _events(self, writing: _Writing, events: pl.DataFrame) -> Iterator[Statement]:
        """Batches of one partition each."""
        runs = events.select(pl.struct("site", "shard", "batch").rle().alias("run")).unnest("run")
        rows = events.select("visitor_id", pl.col("occurred_at").to_physical(), "event_id", "event").iter_rows()
        how = (writing.version, writing.ttl)
        for count, run in runs.iter_rows():
            partition = (run["site"], writing.hour, run["shard"])
            yield self._session.batch(INSERT_EVENT, ((*partition, *row, *how) for row in islice(rows, count)))

    def _visitors(self, writing: _Writing, events: pl.DataFrame, visitors: pl.DataFrame) -> Iterator[Statement]:
        """What is missing is only written where there may be something."""
        missing = None if writing.again else UNSET_VALUE
        how = (writing.hour, writing.version, writing.ttl)
        for row in placed(visitors, events).iter_rows():
            values = [missing if value is None else value for value in row]
            yield self._session.bound(INSERT_VISITOR_HOUR, (*values, *how))

    def _count_shards(self, writing: _Writing) -> None:
        counts = ((site, -(-filled // self._shard_events)) for site, filled in writing.filled.items())
        self._session.send(
            (
                self._session.bound(
                    "insert into event_hours (site, hour, shards) values (?, ?, ?) using timestamp ? and ttl ?",
                    (site, writing.hour, shards, writing.version, writing.ttl),
                )
                for site, shards in counts
            ),
            ROWS_AT_ONCE,
        )

    # Cleaning

    def _clean(self, writing: _Writing) -> None:
        """Deletes what older versions wrote and this one did not. What says where to look goes last."""
        for number in range(SLICES):
            places = [
                (row.site, row.shard)
                for row in self._session.rows(
                    "select site, shard from hour_sites where hour = ? and slice = ?", (writing.hour, number)
                )
            ]
            self._delete(writing, "visitor_hours", ("site", "visitor_id", "hour"), self._gone(writing, places))
            self._delete(
                writing, "events", ("site", "hour", "shard"), ((site, writing.hour, shard) for site, shard in places)
            )
            self._delete(writing, "event_hours", ("site", "hour"), {(site, writing.hour) for site, _ in places})
            self._delete(
                writing,
                "hour_sites",
                ("hour", "slice", "site", "shard"),
                ((writing.hour, number, *place) for place in places),
            )

    def _gone(self, writing: _Writing, places: Sequence[tuple[str, int]]) -> Iterator[tuple[str, str, datetime]]:
        """Visitors of whom older versions have left events."""
        questions = (self._session.bound(SELECT_OLDEST, (site, writing.hour, shard)) for site, shard in places)
        answers = self._session.answers(questions, BATCHES_AT_ONCE)
        for (site, _), rows in zip(places, answers, strict=True):
            yield from ((site, row.visitor_id, writing.hour) for row in rows if row.version < writing.version)

    def _delete(self, writing: _Writing, table: str, key: Sequence[str], values: Iterable[tuple[Any, ...]]) -> None:
        cql = f"delete from {table} using timestamp ? where {' and '.join(f'{name} = ?' for name in key)}"  # noqa: S608
        self._session.send((self._session.bound(cql, (writing.version - 1, *value)) for value in values), ROWS_AT_ONCE)

    # Reading

    def visitor_hours(self, site: str, visitor_id: str) -> Sequence[Mapping[str, Any]]:
        """Rows of VISITOR_HOURS and their arrival hours, the earliest first."""
        rows, _ = self._hours(site, visitor_id)
        return [
            {name: _utc(getattr(row, name)) for name in (*VISITOR_HOURS, "hour")}
            for row in rows
            if row.pageviews is not None
        ]

    def timeline(self, site: str, visitor_id: str, most: int) -> Sequence[tuple[datetime, str]]:
        """Instants (UTC) and events in JSON, the latest first. An hour that is shown anew meanwhile is read anew."""
        while True:
            hours, shown = self._hours(site, visitor_id)
            found = self._latest(hours, shown, most) if most else []
            if self._shown(shown) == shown:
                return [(_utc(at), event) for at, _, event in found]

    def _latest(
        self, hours: Sequence[Any], shown: Mapping[datetime, int], most: int
    ) -> list[tuple[datetime, str, str]]:
        """Late events come in a later hour than others of their time: an hour is read if its last event may be among the latest."""
        found: list[tuple[datetime, str, str]] = []
        for hour in sorted(hours, key=lambda row: row.last_event, reverse=True):
            if len(found) == most and hour.last_event < found[-1][0]:
                break
            events = islice(self._events_of(hour, shown[hour.hour], most), most)
            found = sorted([*found, *events], reverse=True)[:most]
        return found

    def _events_of(self, hour: Any, shown: int, most: int) -> Iterator[tuple[datetime, str, str]]:
        """A visitor's events of one hour, the latest first: the last shard has the latest. While an hour is written again, an event
        may be in two shards."""
        if hour.last_shard is None:
            return
        seen = set()
        for shard in range(hour.last_shard, hour.first_shard - 1, -1):
            values = (hour.site, hour.hour, shard, hour.visitor_id)
            for row in self._session.rows(SELECT_EVENTS, values, page=min(most + 1, 1_000)):
                if row.version >= shown and (row.occurred_at, row.event_id) not in seen:
                    seen.add((row.occurred_at, row.event_id))
                    yield row.occurred_at, row.event_id, row.event

    def _hours(self, site: str, visitor_id: str) -> tuple[list[Any], dict[datetime, int]]:
        """A visitor's rows that count, the earliest first, and which version of their hours is shown. If one does not count, a newer
        one may have been written after it was read: all are read again."""
        for _ in range(2):
            rows = list(self._session.rows(SELECT_VISITOR_HOURS, (site, visitor_id)))
            shown = self._shown([row.hour for row in rows])
            counting = [row for row in rows if row.hour in shown and row.version >= shown[row.hour]]
            if len(counting) == len(rows):
                break
        return counting, {row.hour: shown[row.hour] for row in counting}

    def _shown(self, hours: Collection[datetime]) -> dict[datetime, int]:
        """The version that each of some hours is shown in; hours that have never been whole are left out."""
        found = {}
        for part in _parts(list(hours), HOURS_A_QUESTION):
            for row in self._session.rows("select hour, visible from hours where hour in ?", (part,)):
                if row.visible is not None:
                    found[row.hour] = row.visible
        return found


def sharded(stored: pl.DataFrame, filled: dict[str, int], shard_events: int) -> pl.DataFrame:
    """Stored events by site, visitor and time, with `shard` and, of each shard, the number of their `batch`. `filled` says what the
    sites' shards hold so far, and is told what these events add."""
    by_site = stored.sort("site", "visitor_id", "occurred_at", "event_id").with_columns(
        bytes=pl.sum_horizontal(pl.col("visitor_id", "event_id", "event").str.len_bytes().cast(pl.Int64)) + ROW_BYTES
    )
    weight = 1 + pl.col("bytes") // EVENT_BYTES
    added = by_site.group_by("site", maintain_order=True).agg(added=weight.sum())
    before = added.select("site", before=pl.Series([filled.get(site, 0) for site in added["site"]], dtype=pl.Int64))
    filled.update((site, filled.get(site, 0) + more) for site, more in added.iter_rows())
    begins = pl.col("before") + weight.cum_sum().over("site") - weight
    return (
        by_site.join(before, on="site", how="left", maintain_order="left")
        .with_columns(shard=begins // shard_events)
        .with_columns(batch=pl.col("bytes").cum_sum().over("site", "shard") // BATCH_BYTES)
    )


def placed(visitors: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Rows of VISITOR_COLUMNS: what is known of visitors, and where their events are; nothing is known of bots. Instants are ms."""
    places = events.group_by("site", "visitor_id", maintain_order=True).agg(
        last_event=pl.col("occurred_at").max(), first_shard=pl.col("shard").min(), last_shard=pl.col("shard").max()
    )
    return visitors.join(places, on=["site", "visitor_id"], how="full", coalesce=True).select(
        pl.coalesce("last_event", "last_seen").alias(name).to_physical()
        if name == "last_event"
        else pl.col(name).to_physical()
        for name in VISITOR_COLUMNS
    )


def slice_of(site: str) -> int:
    """In which slice of an hour a site is registered."""
    return crc32(site.encode()) % SLICES


def _parts(every: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    return (every[first : first + most] for first in range(0, len(every), most))


def _utc(value: Any) -> Any:
    """Cassandra's instants are UTC and do not say so."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def _superseded(hour: datetime, version: int) -> Superseded:
    return Superseded(f"stored_events {hour:%Y-%m-%dT%H}: a version newer than this run's {version} is stored")
