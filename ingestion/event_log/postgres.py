"""The embedded event log: a table in PostgreSQL, with one partition.

Appends wait for each other on one row, until the commit: so offsets follow the order of commits, and a reader that sees an
offset sees every lower one. The collector appends many events at once, so that waiting costs little.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from ingestion.event_log import EventLogUnavailable, Record

ONLY = 0
READ_AT_ONCE = 200
"""Records: with the largest ones 200 MB."""


class PostgresEventLog:
    """One connection, made when it is needed and again when it broke. Use it in one thread."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[tuple[int, ...]] | None = None

    def __enter__(self) -> "PostgresEventLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection:
            self._connection.close()

    def append(self, records: Sequence[bytes]) -> None:
        with self._connected() as connection:
            connection.execute(
                """with taken as (
                       insert into footfall.event_log_end as known (next_offset, appended_at)
                       values (%s, (extract(epoch from clock_timestamp()) * 1000)::bigint)
                       on conflict (one) do update set next_offset = known.next_offset + excluded.next_offset,
                           appended_at = greatest(known.appended_at, excluded.appended_at)
                       returning next_offset - %s as first_offset, appended_at)
                   insert into footfall.event_log (log_offset, appended_at, lines)
                   select first_offset + number - 1, appended_at, lines
                   from taken, unnest(%s::bytea[]) with ordinality as records (lines, number)""",
                [len(records), len(records), list(records)],
            )

    def partitions(self) -> Sequence[int]:
        return (ONLY,)

    def bounds(self, partition: int) -> tuple[int, int]:
        with self._connected() as connection:
            row = connection.execute(
                """select coalesce((select min(log_offset) from footfall.event_log), next_offset), next_offset
                   from footfall.event_log_end"""
            ).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def offset_at(self, partition: int, instant_ms: int) -> int | None:
        with self._connected() as connection:
            row = connection.execute(
                """select log_offset from footfall.event_log where appended_at >= %s
                   order by appended_at, log_offset limit 1""",
                [instant_ms],
            ).fetchone()
        return row[0] if row else None

    def read(self, partition: int, first: int, end: int) -> Iterator[Record]:
        while first < end:
            with self._connected() as connection:
                rows = connection.execute(
                    """select log_offset, lines from footfall.event_log where log_offset >= %s and log_offset < %s
                       order by log_offset limit %s""",
                    [first, end, READ_AT_ONCE],
                ).fetchall()
            if not rows:
                return
            for offset, lines in rows:
                yield Record(offset, bytes(lines))  # type: ignore[call-overload]
            first = rows[-1][0] + 1

    def forget(self, before_offset: int, before_ms: int) -> int:
        """Deletes records below an offset that the log took before an instant. Returns how many."""
        with self._connected() as connection:
            return connection.execute(
                "delete from footfall.event_log where log_offset < %s and appended_at < %s", [before_offset, before_ms]
            ).rowcount

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[tuple[int, ...]]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._url, autocommit=True, connect_timeout=5, application_name="footfall event log"
                )
            yield self._connection
        except psycopg.OperationalError as problem:
            self._connection = None
            raise EventLogUnavailable(f"PostgreSQL: {' '.join(str(problem).split())}") from problem
