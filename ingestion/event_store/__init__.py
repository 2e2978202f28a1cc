"""The event store: each visitor's events, and what is known of the visitor. A port with one adapter for each scheme of its URL.

`stored_events` replaces what an arrival hour brought, whole. What is known of a visitor is the fold of their hours, never a
counter: an hour that is written again counts once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from ingestion.lake_events import INSTANT
from ingestion.settings import Settings

STORED_EVENTS: dict[str, Any] = {
    "site": pl.String,
    "visitor_id": pl.String,
    "occurred_at": INSTANT,
    "event_id": pl.String,
    "event": pl.String,
}
"""Columns of a stored event; `event` is JSON."""

VISITOR_HOURS: dict[str, Any] = {
    "site": pl.String,
    "visitor_id": pl.String,
    "first_seen": INSTANT,
    "last_seen": INSTANT,
    "pageviews": pl.Int64,
    "country": pl.String,
    "device": pl.String,
    "browser": pl.String,
    "language": pl.String,
    "source": pl.String,
}
"""Columns of what one arrival hour says of a visitor: the last of country, device, browser and language, the first source."""


class EventStoreUnavailable(Exception):
    """The event store cannot take or give events now. The message names the server, and what to check."""


@dataclass(frozen=True)
class Visitor:
    """What is known of a visitor: `source` is the first that brought them, `language` the last that was sent, the rest is as
    of the hour in which they were last seen."""

    site: str
    visitor_id: str
    first_seen: datetime
    last_seen: datetime
    pageviews: int
    country: str
    device: str
    browser: str
    language: str | None
    source: str


class EventStore(Protocol):
    """Events by visitor, and visitors. Every method may raise EventStoreUnavailable."""

    def replace_hour(self, hour: datetime, version: int, events: Iterator[tuple[pl.DataFrame, pl.DataFrame]]) -> int:
        """Replaces what an arrival hour brought by some frames of STORED_EVENTS and of VISITOR_HOURS, and returns how many
        events that are. A visitor's rows are all in one of the frames. The same version brings the same rows. What an older
        version writes later changes nothing: raises Superseded, or leaves no trace."""

    def visitor_hours(self, site: str, visitor_id: str) -> Sequence[Mapping[str, Any]]:
        """What each arrival hour says of a visitor, the earliest first; empty if the visitor is not known."""

    def timeline(self, site: str, visitor_id: str, most: int) -> Sequence[tuple[datetime, str]]:
        """The visitor's latest events, at most so many, the latest first: instant and JSON."""

    def forget(self, before: datetime) -> int:
        """Removes what arrival hours before this one brought, and returns how many events that were. A store whose rows expire
        by themselves has nothing to do."""


def find_visitor(store: EventStore, site: str, visitor_id: str) -> Visitor | None:
    """The fold of a visitor's hours; None if there are none."""
    hours = store.visitor_hours(site, visitor_id)
    if not hours:
        return None
    first = min(hours, key=lambda hour: hour["first_seen"])
    seen = sorted(hours, key=lambda hour: hour["last_seen"])  # of hours with the same, the later arrival counts
    last = seen[-1]
    return Visitor(
        site,
        visitor_id,
        first["first_seen"],
        last["last_seen"],
        sum(hour["pageviews"] for hour in hours),
        country=last["country"],
        device=last["device"],
        browser=last["browser"],
        language=next((hour["language"] for hour in reversed(seen) if hour["language"] is not None), None),
        source=first["source"],
    )


def open_event_store(settings: Settings, postgres_url: str) -> AbstractContextManager[EventStore]:
    """The event store that FOOTFALL_EVENT_STORE names: by default tables in PostgreSQL. Cassandra is connected when it is first
    used."""
    if settings.event_store:
        from ingestion.event_store.cassandra import CassandraEventStore

        return CassandraEventStore(settings.event_store, settings.event_store_days, settings.ca)
    from ingestion.event_store.postgres import PostgresEventStore

    return PostgresEventStore(postgres_url)
