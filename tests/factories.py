"""Events as the lake keeps them, from the naive events of ingestion.simulation.truth; and records of the event log, at any instant."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl
import psycopg

from ingestion.lake_events import EVENTS
from ingestion.simulation.truth import Event
from ingestion.site_time import date_bounds, floor_hour, from_datetime, to_datetime
from ingestion.stores import Stores

CARRIED_MS = 30 * 60 * 1000
FILLED = {"source": "Direct / None", "channel": "Direct"} | dict.fromkeys(
    ("country", "region", "city", "browser", "browser_version", "os", "os_version", "device"), "(not set)"
)


def lake_row(event: Event) -> dict[str, object]:
    """One row of EVENTS. A cookieless visitor's id names the date, so that it differs from date to date."""
    began, ended = date_bounds(event.timezone, event.date)
    who = f"{event.ip}|{event.user_agent}"
    carried = event.timestamp - began < CARRIED_MS
    return {
        **dict.fromkeys(EVENTS),
        **FILLED,
        **event.attributes,
        "site": event.site,
        "date": event.date,
        "date_began": to_datetime(began),
        "date_ended": to_datetime(ended),
        "timestamp": to_datetime(event.timestamp),
        "position": event.line,
        "event_id": event.event_id or f"line-{event.line:06d}",
        "object": f"raw/hour={to_datetime(floor_hour(event.timestamp)):%Y-%m-%dT%H}/import-0001",
        "visitor_id": event.visitor_id or f"{event.date} {who}",
        "previous_visitor_id": None if event.visitor_id or not carried else f"{event.date - timedelta(days=1)} {who}",
        "cookieless": event.visitor_id is None,
        "bot": event.bot,
        "name": event.name,
        "path": event.path,
        "interactive": event.interactive,
    }


def lake_frame(events: Sequence[Event]) -> pl.DataFrame:
    return pl.DataFrame([lake_row(event) for event in events], schema=EVENTS, orient="row")


def append_at(stores: Stores, moment: datetime, *records: bytes) -> None:
    """Appends to the event log as it does itself, at another instant."""
    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        for lines in records:
            connection.execute(
                """with taken as (
                       insert into footfall.event_log_end as known (next_offset, appended_at) values (1, %s)
                       on conflict (one) do update set next_offset = known.next_offset + 1,
                           appended_at = greatest(known.appended_at, excluded.appended_at)
                       returning next_offset - 1 as log_offset, appended_at)
                   insert into footfall.event_log select log_offset, appended_at, %s from taken""",
                [from_datetime(moment), lines],
            )
