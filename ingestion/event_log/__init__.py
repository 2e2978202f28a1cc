"""The event log: what the collector appends and `raw_events` reads. A port with one adapter for each scheme of its URL.

A record is a micro-batch: one or more lines of NDJSON. Records of a partition have offsets without order lost: who sees one
sees all that come before it. Each has the instant at which the log took it, which never falls with the offset.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from ingestion.settings import Settings

MAX_RECORD_BYTES = 1_000_000


class EventLogUnavailable(Exception):
    """The event log cannot take or give records now. What was to be appended may or may not be there."""


class TopicRefused(EventLogUnavailable):
    """The topic is set up so that events could be lost or come into a wrong hour. The message says how to set it."""


@dataclass(frozen=True)
class LogIdentity:
    """Which log it is: a log that was made anew has the name of the old one, and another id."""

    name: str
    id: str


@dataclass(frozen=True)
class Record:
    """A micro-batch as it lies in the log."""

    offset: int
    lines: bytes


class EventLog(Protocol):
    """An append-only log in partitions. Every method may raise EventLogUnavailable. `append` is for one thread; partitions may be
    read side by side."""

    def identity(self) -> LogIdentity:
        """Which log it is now."""

    def append(self, records: Sequence[bytes]) -> None:
        """Appends records; they are on disk when this returns. Not atomic over several records."""

    def partitions(self) -> Sequence[int]:
        """The numbers of the partitions that there are now. They only become more."""

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that the log still holds, and the one that the next record will get."""

    def offset_at(self, partition: int, instant_ms: int) -> int | None:
        """The offset of the first record that the log took at this instant or later; None where there is none yet."""

    def read(self, partition: int, first: int, end: int) -> Iterator[Record]:
        """The records from `first` to `end` (excluded) in the order of their offsets. Offsets may be missing where a log gives
        some to things that are no records."""


def open_event_log(settings: Settings, postgres_url: str) -> AbstractContextManager[EventLog]:
    """The event log that FOOTFALL_EVENT_LOG names: a topic of Kafka, by default a table in PostgreSQL. It connects when it is
    first used."""
    if settings.event_log:
        from ingestion.event_log.kafka import KafkaEventLog

        return KafkaEventLog(settings.event_log, settings.event_log_partitions, settings.ca)
    from ingestion.event_log.postgres import PostgresEventLog

    return PostgresEventLog(postgres_url)
