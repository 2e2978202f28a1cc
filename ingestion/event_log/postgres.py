"""The embedded event log: a table in PostgreSQL, with one partition.

Appends wait for each other on one row, until the commit: so offsets follow the order of commits, and a reader that sees an
offset sees every lower one. The collector appends many events at once, so that waiting costs little.
"""

import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from ingestion.event_log import EventLogUnavailable, LogIdentity, Record

ONLY = 0
EMBEDDED = LogIdentity("table footfall.event_log", "embedded")
READ_AT_ONCE = 200
"""Records: with the largest ones 200 MB."""
PATIENCE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""A server that vanished without a word is noticed within 25 seconds. https://www.postgresql.org/docs/18/libpq-connect.html"""


class PostgresEventLog:
    """One connection, made when it is needed and again when it broke. Use it in one thread at a time."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def __enter__(self) -> "PostgresEventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()

    def append(self, records: Sequence[bytes]) -> None:
        """In one transaction. When the connection breaks in the middle, nobody knows whether it was committed."""
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
                   from taken, unnest(%b::bytea[]) with ordinality as records (lines, number)""",
                [len(records), len(records), list(records)],  # %b: binary is 6 times as fast as hexadecimal
            )

    def identity(self) -> LogIdentity:
        """The only one: it lives in the database of the ledger."""
        return EMBEDDED

    def partitions(self) -> Sequence[int]:
        """The only one."""
        return (ONLY,)

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the next one that will be."""
        with self._connected() as connection:
            row = connection.execute(
                """select coalesce((select min(log_offset) from footfall.event_log), next_offset), next_offset
                   from footfall.event_log_end"""
            ).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def offset_at(self, partition: int, instant_ms: int) -> int | None:
        """The offset of the first record of this instant (ms) or later."""
        with self._connected() as connection:
            row = connection.execute(
                """select log_offset from footfall.event_log where appended_at >= %s
                   order by appended_at, log_offset limit 1""",
                [instant_ms],
            ).fetchone()
        return row[0] if row else None

    def read(self, partition: int, first: int, end: int) -> Iterator[Record]:
        """The records of a range, `READ_AT_ONCE` in memory."""
        while first < end:
            with self._connected() as connection:
                rows = connection.execute(
                    """select log_offset, lines from footfall.event_log where log_offset >= %s and log_offset < %s
                       order by log_offset limit %s""",
                    [first, end, READ_AT_ONCE],
                    binary=True,
                ).fetchall()
            if not rows:
                return
            yield from (Record(offset, bytes(lines)) for offset, lines in rows)
            first = rows[-1][0] + 1

    def forget(self, before_offset: int, before_ms: int) -> int:
        """Deletes records below an offset that the log took before an instant. Returns how many."""
        with self._connected() as connection:
            return connection.execute(
                "delete from footfall.event_log where log_offset < %s and appended_at < %s", [before_offset, before_ms]
            ).rowcount

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection that works, as far as one can know. Whatever PostgreSQL refuses, the next use gets a new one: it may
        have become a standby, or another server."""
        try:
            if self._connection and _has_word_from_server(self._connection):
                self._disconnect()
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._url, autocommit=True, application_name="footfall event log", **PATIENCE
                )
                self._connection.execute(  # what is acknowledged is on disk, also where a database is set up otherwise
                    """select set_config('synchronous_commit', 'on', false)
                       where current_setting('synchronous_commit') = 'off'"""
                )
            yield self._connection
        except psycopg.Error as problem:
            self._disconnect()
            raise EventLogUnavailable(f"PostgreSQL: {what_it_says(problem)}") from problem

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
        self._connection = None


def _has_word_from_server(connection: psycopg.Connection[Any]) -> bool:
    """Whether something came while nobody asked: that the server ends the connection, mostly."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def what_it_says(problem: psycopg.Error) -> str:
    """An error in one line, without the details and parameters that it may quote."""
    return " ".join((problem.diag.message_primary or str(problem)).split())
