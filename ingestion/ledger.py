"""The ledger, in PostgreSQL: what was collected, what each partition was made from, and which lake objects are listed.

A partition is replaced whole, in one transaction (`Ledger.replacing`): its new lake objects become visible, its old ones
invisible, its landing rows change, and `published` says what it was made from. Versions are fencing numbers: an older
one never replaces a newer one.
"""

import importlib.resources
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import Jsonb

from ingestion.event_log import LogIdentity
from ingestion.lake import LakeObject, digest_of

PARTITIONS_A_LOG = 1_000
"""Partition 3 of the first event log is 3 in the ledger, that of the second one 1003."""


class LedgerUnreachable(Exception):
    """PostgreSQL cannot be reached or used. The message says what to check."""


class Superseded(Exception):
    """A newer version of the partition is published already: this run's result is dropped, and nothing was changed."""


class LogReplaced(Exception):
    """The event log has the name of one that was read, but it is another. Nothing was changed."""


class SiteExists(Exception):
    """The site is there already, with other settings."""


@dataclass(frozen=True)
class Published:
    """What a partition was made from, and a digest of what it holds (empty if it holds nothing)."""

    version: int
    code_version: str
    inputs: Mapping[str, str]
    content: str


@dataclass(frozen=True)
class Touch:
    """An arrival hour has events of this event hour and site date."""

    arrival_hour: str
    hour: str
    date: str


@dataclass(frozen=True)
class State:
    """All that decides which partitions there are, and whether each is what its inputs make it."""

    published: Mapping[tuple[str, str], Published]
    touched: Sequence[Touch]
    raw: Mapping[str, str]
    """Digest of the listed raw objects, by arrival hour."""
    sites: Mapping[str, str]
    """Digest of the changed settings of the sites, by arrival hour; hours without a change are left out."""
    first_hours: Mapping[str, str]
    """Digest of the sites whose first hour with traffic it is, by hour."""


@dataclass(frozen=True)
class PartitionObject:
    """A lake object of a date and bucket (both None where an asset has no such split)."""

    object: LakeObject
    day: date | None = None
    bucket: int | None = None
    buckets: int | None = None
    partition: str = ""


@dataclass(frozen=True)
class OffsetRange:
    """What was read of a partition of the event log, for one arrival hour: `end` is excluded. Without an object there were no
    lines, or retention was faster than the reader (`lost`)."""

    log_partition: int
    """Its number in the ledger: that of the log times PARTITIONS_A_LOG, and the log's own."""
    first: int
    end: int
    hour: str
    object: LakeObject | None = None
    lost: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run made of one partition."""

    partition: str
    inputs: Mapping[str, str]
    content: str
    rows: int
    bytes: int
    objects: Sequence[PartitionObject] = ()
    touched: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Rows by (event hour, site date); of arrival hours only."""


class Ledger:
    """One connection to the ledger. Use it in one thread."""

    def __init__(self, url: str) -> None:
        try:
            conninfo_to_dict(url)
        except psycopg.Error:
            raise LedgerUnreachable(
                "FOOTFALL_POSTGRES is not a valid URL (it is not shown: it may hold a password): write it like "
                "postgresql://user:password@host:5432/database, with %20 for a blank and so on"
            ) from None
        self._url = url
        self._connect()

    def _connect(self) -> None:
        try:
            self._connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=10, application_name="footfall"
            )
        except psycopg.Error as problem:
            reason = " ".join(str(problem).split())
            raise LedgerUnreachable(f"PostgreSQL cannot be reached: {reason} (check FOOTFALL_POSTGRES)") from None
        self._connection.execute("set time zone 'UTC'")

    def reconnect(self) -> None:
        """Makes the connection again if it broke. What was locked over the old one is not locked any more."""
        if self._connection.closed:
            self._connect()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # Set-up

    def migrate(self) -> None:
        """Brings the schema to this version of the code."""
        with self.excluding("migrations"), self._connection.transaction():  # the lock outlives the commit
            self._connection.execute("create table if not exists public.footfall_migrations (name text primary key)")
            done = {name for (name,) in self._connection.execute("select name from public.footfall_migrations")}
            for script in sorted(importlib.resources.files("ingestion.schema").iterdir(), key=lambda file: file.name):
                if script.name.endswith(".sql") and script.name not in done:
                    self._connection.execute(script.read_text())  # type: ignore[arg-type]
                    self._connection.execute("insert into public.footfall_migrations values (%s)", [script.name])

    @contextmanager
    def excluding(self, what: str) -> Iterator[None]:
        """Holds a lock that one session at a time can have, until the block ends or the session dies."""
        self._connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [what])
        try:
            yield
        finally:
            self._connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", [what])

    def secret(self, name: str) -> bytes:
        """A random key of 32 bytes that is made once and kept."""
        self._connection.execute(
            "insert into footfall.secrets values (%s, %s) on conflict do nothing", [name, secrets.token_bytes(32)]
        )
        return bytes(self._one("select value from footfall.secrets where name = %s", [name])[0])

    # Sites

    def add_site(self, site: str, time_zone: str) -> bool:
        """Adds a site; False if it is there already with the same settings. Raises SiteExists if they differ."""
        added = self._connection.execute(
            "insert into footfall.sites (site, time_zone) values (%s, %s) on conflict do nothing", [site, time_zone]
        ).rowcount
        (known,) = self._one("select time_zone from footfall.sites where site = %s", [site])
        if known != time_zone:
            raise SiteExists(f"{site} is there already, in {known}")
        return bool(added)

    def time_zones(self) -> dict[str, str]:
        """Every site's time zone."""
        return dict(self._connection.execute("select site, time_zone from footfall.sites order by site").fetchall())

    def time_zone(self, site: str) -> str | None:
        """A site's time zone; None if there is no such site."""
        row = self._connection.execute("select time_zone from footfall.sites where site = %s", [site]).fetchone()
        return row[0] if row else None

    # Raw objects

    def has_import(self, content: str) -> bool:
        """Whether an import of this content is listed."""
        return self._connection.execute("select from footfall.imports where content = %s", [content]).rowcount > 0

    def list_import(
        self,
        content: str,
        kind: str,
        site: str | None,
        sites: Mapping[str, str],
        objects: Mapping[str, list[LakeObject]],
    ) -> None:
        """Makes an import visible: its raw objects by hour, and the sites that it adds."""
        lines = sum(item.rows for items in objects.values() for item in items)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.execute(
                "insert into footfall.imports (content, kind, site, lines) values (%s, %s, %s, %s)",
                [content, kind, site, lines],
            )
            cursor.executemany(
                "insert into footfall.sites (site, time_zone) values (%s, %s) on conflict do nothing",
                list(sites.items()),
            )
            cursor.executemany(
                "insert into footfall.raw_objects (name, hour, lines, bytes, digest, import) values (%s, %s, %s, %s, %s, %s)",
                [
                    (item.name, hour, item.rows, item.bytes, item.digest, content)
                    for hour, items in objects.items()
                    for item in items
                ],
            )

    def raw_objects(self, hour: str) -> list[LakeObject]:
        """The raw objects of an arrival hour, in the order in which their copies of an event count."""
        return [
            LakeObject(*row)
            for row in self._connection.execute(
                'select name, lines, bytes, digest from footfall.raw_objects where hour = %s order by name collate "C"',
                [hour],
            )
        ]

    # What was read of the event log

    def log_number(self, log: LogIdentity) -> int:
        """The number of an event log, which it gets when it is first seen: 0, 1, 2 … Raises LogReplaced."""
        with self._connection.transaction():
            if number := self._known_number(log):
                return int(number[0])
            self._connection.execute("lock table footfall.event_logs in share row exclusive mode")
            number = self._known_number(log) or self._one(
                """insert into footfall.event_logs (number, name, id)
                   select coalesce(max(number) + 1, 0), %s, %s from footfall.event_logs returning number""",
                [log.name, log.id],
            )
            return int(number[0])

    def _known_number(self, log: LogIdentity) -> tuple[Any, ...] | None:
        known = self._connection.execute(
            "select number, id from footfall.event_logs where name = %s", [log.name]
        ).fetchone()
        if known and known[1] != log.id:
            raise LogReplaced(
                f"the event log {log.name} is another one than was read: it has the id {log.id}, the old one had {known[1]}. It was "
                "deleted and made anew, or is one of other servers. Nothing was changed. Bring the old one back, or give the new "
                "one a name that was not used before, and set FOOTFALL_EVENT_LOG to it"
            )
        return known

    def read_until(self) -> dict[int, tuple[int, str]]:
        """For each partition of the event log that was read: the offset where the next reader begins, and the arrival hour of
        the last range."""
        return {
            partition: (end, hour)
            for partition, end, hour in self._connection.execute(
                """select distinct on (log_partition) log_partition, end_offset, hour from footfall.offset_ranges
                   order by log_partition, end_offset desc"""
            )
        }

    def list_range(self, read: OffsetRange) -> None:
        """Makes a range of the event log visible, with its raw object. Raises Superseded unless it begins where the last one
        of its partition ended: ranges tile."""
        with self._connection.transaction():
            self._connection.execute("lock table footfall.offset_ranges in share row exclusive mode")
            until, _ = self.read_until().get(read.log_partition, (0, ""))
            if read.first != until:
                raise Superseded(
                    f"partition {read.log_partition} of the event log is read to {until}, not {read.first}"
                )
            if read.object:
                self._connection.execute(
                    "insert into footfall.raw_objects (name, hour, lines, bytes, digest) values (%s, %s, %s, %s, %s)",
                    [read.object.name, read.hour, read.object.rows, read.object.bytes, read.object.digest],
                )
            self._connection.execute(
                """insert into footfall.offset_ranges (log_partition, first_offset, end_offset, hour, object, lost)
                   values (%s, %s, %s, %s, %s, %s)""",
                [read.log_partition, read.first, read.end, read.hour, read.object and read.object.name, read.lost],
            )

    # What there is, and what it was made from

    def state(self) -> State:
        """The ledger as of one instant."""
        with self._connection.transaction():
            self._connection.execute("set transaction isolation level repeatable read read only")
            return State(
                published={
                    (asset, partition): Published(version, code_version, inputs, content)
                    for asset, partition, version, code_version, inputs, content in self._connection.execute(
                        "select asset, partition, version, code_version, inputs, content from footfall.published"
                    )
                },
                touched=[
                    Touch(*row)
                    for row in self._connection.execute("select arrival_hour, hour, date from footfall.touched")
                ],
                raw=self._digests(
                    "select hour, string_agg(name || digest, ',' order by name collate \"C\") from footfall.raw_objects group by hour"
                ),
                sites=self._digests(
                    """select to_char(hour, 'YYYY-MM-DD"T"HH24'), string_agg(site || ' ' || revision, ',' order by site collate "C")
                       from footfall.sites join landing.arrivals using (site) where revision > 0 group by hour"""
                ),
                first_hours=self._digests(
                    """select to_char(hour, 'YYYY-MM-DD"T"HH24'), string_agg(site, ',' order by site collate "C")
                       from footfall.first_hours group by hour"""
                ),
            )

    def _digests(self, query: str) -> dict[str, str]:
        return {hour: digest_of(text.encode()) for hour, text in self._connection.execute(query)}  # type: ignore[arg-type]

    def objects(self, asset: str, dates: Iterable[date]) -> list[PartitionObject]:
        """The listed objects of some dates, in a stable order."""
        return [
            PartitionObject(LakeObject(name, rows, size, digest), day, bucket, buckets, partition)
            for name, rows, size, digest, day, bucket, buckets, partition in self._connection.execute(
                """select name, rows, bytes, digest, date, bucket, buckets, partition from footfall.lake_objects
                   where asset = %s and date = any(%s) order by name collate "C" """,
                [asset, list(dates)],
            )
        ]

    def landed(self, query: str, parameters: Sequence[Any], schema: Mapping[str, Any]) -> pl.DataFrame:
        """Rows of a query over ledger and landing tables, as a frame of the given schema."""
        rows = self._connection.execute(query, parameters).fetchall()  # type: ignore[arg-type]
        return pl.DataFrame(rows, schema=dict(schema), orient="row")

    def has_table(self, schema: str, table: str) -> bool:
        """Whether a table is there: those of `reports` come with the first run of dbt."""
        return bool(
            self._one("select to_regclass(format('%%I.%%I', %s::text, %s::text)) is not null", [schema, table])[0]
        )

    # Replacing partitions

    def next_version(self) -> int:
        """A fencing number, greater than any given before."""
        return int(self._one("select nextval('footfall.versions')")[0])

    @contextmanager
    def replacing(self, asset: str, version: int, code_version: str) -> "Iterator[Replacement]":
        """One transaction in which partitions of an asset are replaced: all of it becomes visible, or nothing."""
        with self._connection.transaction():
            yield Replacement(self._connection, asset, version, code_version)

    def begin_build(self, dates: Sequence[str]) -> None:
        """Empties the schema `build`, so that nothing of an earlier run can be published, and says which dates this run of
        dbt is about."""
        with self._connection.transaction():
            self._connection.execute("drop schema if exists build cascade")
            self._connection.execute("create schema build")
            self._connection.execute("delete from landing.run_dates")
            self._connection.execute("insert into landing.run_dates select unnest(%s::date[])", [list(dates)])

    def listed_objects(self) -> set[str]:
        """The names of all objects that a reader may see."""
        return {
            name
            for (name,) in self._connection.execute(
                "select name from footfall.lake_objects union all select name from footfall.raw_objects"
            )
        }

    def _one(self, query: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
        row = self._connection.execute(query, parameters).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row


class Replacement:
    """Partitions of one asset being replaced, inside one transaction."""

    def __init__(self, connection: psycopg.Connection, asset: str, version: int, code_version: str) -> None:
        self.connection, self._asset, self._version, self._code_version = connection, asset, version, code_version

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Lists partitions' new objects in place of their old ones, and says which hours and dates they touch now. Raises
        Superseded if a newer version of one is published."""
        partitions = [outcome.partition for outcome in outcomes]
        self._exclude_other_writers(partitions)
        self.connection.execute(
            "delete from footfall.lake_objects where asset = %s and partition = any(%s)", [self._asset, partitions]
        )
        if self._asset == "events":
            self.connection.execute("delete from footfall.touched where arrival_hour = any(%s)", [partitions])
        with self.connection.cursor() as cursor:
            cursor.executemany(
                """insert into footfall.published (asset, partition, version, code_version, inputs, content, rows, bytes)
                   values (%s, %s, %s, %s, %s, %s, %s, %s)
                   on conflict (asset, partition) do update set
                       version = excluded.version, code_version = excluded.code_version, inputs = excluded.inputs,
                       content = excluded.content, rows = excluded.rows, bytes = excluded.bytes, published_at = now()""",
                [
                    (self._asset, made.partition, self._version, self._code_version, Jsonb(dict(made.inputs)))
                    + (made.content, made.rows, made.bytes)
                    for made in outcomes
                ],
            )
            cursor.executemany(
                "insert into footfall.lake_objects values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (item.object.name, self._asset, made.partition, item.day, item.bucket, item.buckets)
                    + (item.object.rows, item.object.bytes, item.object.digest)
                    for made in outcomes
                    for item in made.objects
                ],
            )
            cursor.executemany(
                "insert into footfall.touched values (%s, %s, %s, %s)",
                [(made.partition, hour, day, rows) for made in outcomes for (hour, day), rows in made.touched.items()],
            )

    def land(self, table: str, key: str, partitions: Sequence[datetime] | Sequence[date], rows: pl.DataFrame) -> None:
        """Replaces the landing rows of some hours or dates, also with nothing."""
        relation = sql.Identifier("landing", table)
        self.connection.execute(
            sql.SQL("delete from {} where {} = any(%s)").format(relation, sql.Identifier(key)), [list(partitions)]
        )
        if rows.is_empty():
            return
        columns = sql.SQL(", ").join(map(sql.Identifier, rows.columns))
        statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(relation, columns)
        with self.connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(_csv(rows).encode())

    def refresh_first_hours(self, hours: Sequence[datetime]) -> None:
        """Keeps each site's first hour with traffic right after some hours of landing.traffic were replaced."""
        self._exclude_other_writers(["first hours"])
        self.connection.execute(
            """with concerned as (
                   select site from footfall.first_hours where hour = any(%(hours)s)
                   union select site from landing.traffic where hour = any(%(hours)s)
               ), gone as (
                   delete from footfall.first_hours f using concerned c where f.site = c.site
                   and not exists (select from landing.traffic t where t.site = f.site and t.events > 0)
               )
               insert into footfall.first_hours
               select site, first.hour from concerned, lateral (
                   select min(hour) as hour from landing.traffic t where t.site = concerned.site and t.events > 0
               ) first
               where first.hour is not null
               on conflict (site) do update set hour = excluded.hour where first_hours.hour <> excluded.hour""",
            {"hours": list(hours)},
        )

    def _exclude_other_writers(self, partitions: Sequence[str]) -> None:
        """Writers of one partition wait for each other, in one order; an older version gives up."""
        self.connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(key, 1)) from unnest(%s::text[]) key",
            [sorted(f"{self._asset} {partition}" for partition in partitions)],
        )
        newer = self.connection.execute(
            "select partition, version from footfall.published where asset = %s and partition = any(%s) and version > %s",
            [self._asset, list(partitions), self._version],
        ).fetchone()
        if newer:
            raise Superseded(f"{self._asset} {newer[0]}: version {newer[1]} is newer than this run's {self._version}")


def _csv(rows: pl.DataFrame) -> str:
    """CSV as COPY reads it: lists as PostgreSQL's array literals."""
    lists = [name for name, dtype in rows.schema.items() if isinstance(dtype, pl.List)]
    arrays = (("{" + pl.col(name).cast(pl.List(pl.String)).list.join(",") + "}").alias(name) for name in lists)
    return rows.with_columns(arrays).write_csv(include_header=False, quote_style="non_numeric")
