"""The embedded event store: two tables in PostgreSQL."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ingestion.event_store import EventStoreUnavailable
from ingestion.ledger import Superseded


class PostgresEventStore:
    """One connection. Use it in one thread."""

    def __init__(self, url: str) -> None:
        with _spoken():
            self._connection = psycopg.connect(
                url, autocommit=True, connect_timeout=10, application_name="footfall events"
            )
            self._connection.execute("set time zone 'UTC'")

    def __enter__(self) -> "PostgresEventStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def replace_hour(self, hour: datetime, version: int, events: Iterator[tuple[pl.DataFrame, pl.DataFrame]]) -> int:
        """In one transaction: readers see the old hour until the new one is whole."""
        with _spoken(), self._connection.transaction():
            self._fence(hour, version)
            for table in ("events", "visitor_hours"):
                self._connection.execute(
                    sql.SQL("delete from store.{} where hour = %s").format(sql.Identifier(table)), [hour]
                )
            return sum(self._copy(hour, stored, visitors) for stored, visitors in events)

    def _fence(self, hour: datetime, version: int) -> None:
        """Writers of an hour wait for each other, and an older version gives up."""
        newer = self._connection.execute(
            """insert into store.hours (hour, version) values (%s, %s)
               on conflict (hour) do update set version = excluded.version where hours.version <= excluded.version""",
            [hour, version],
        )
        if not newer.rowcount:
            raise Superseded(f"stored_events {hour:%Y-%m-%dT%H}: a version newer than this run's {version} is stored")

    def _copy(self, hour: datetime, stored: pl.DataFrame, visitors: pl.DataFrame) -> int:
        for table, rows in (("events", stored), ("visitor_hours", visitors)):
            columns = sql.SQL(", ").join(map(sql.Identifier, ("hour", *rows.columns)))
            statement = sql.SQL("copy store.{} ({}) from stdin (format csv)").format(sql.Identifier(table), columns)
            csv = rows.select(pl.lit(hour).alias("hour"), *rows.columns).write_csv(
                include_header=False, quote_style="non_numeric"
            )
            with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(csv.encode())
        return stored.height

    def visitor_hours(self, site: str, visitor_id: str) -> Sequence[Mapping[str, Any]]:
        """Rows of VISITOR_HOURS and their arrival hours, the earliest first."""
        with _spoken(), self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(
                "select * from store.visitor_hours where site = %s and visitor_id = %s order by hour",
                [site, visitor_id],
            ).fetchall()

    def timeline(self, site: str, visitor_id: str, most: int) -> Sequence[tuple[datetime, str]]:
        """Instants (UTC) and events in JSON, the latest first."""
        with _spoken():
            return self._connection.execute(
                """select occurred_at, event from store.events where site = %s and visitor_id = %s
                   order by occurred_at desc, event_id desc limit %s""",
                [site, visitor_id, most],
            ).fetchall()

    def forget(self, before: datetime) -> int:
        """In one transaction. An hour that is being written is waited for."""
        with _spoken(), self._connection.transaction():
            forgotten = [
                self._connection.execute(
                    sql.SQL("delete from store.{} where hour < %s").format(sql.Identifier(table)), [before]
                ).rowcount
                for table in ("hours", "events", "visitor_hours")
            ]
        return forgotten[1]


@contextmanager
def _spoken() -> Iterator[None]:
    """A connection that cannot be made, or broke."""
    try:
        yield
    except psycopg.OperationalError as problem:
        reason = " ".join(str(problem).split())
        raise EventStoreUnavailable(f"PostgreSQL cannot be used: {reason} (check FOOTFALL_POSTGRES)") from None
