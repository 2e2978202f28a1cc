"""What `footfall visitor` prints: what is known of one visitor, and the visitor's latest events."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ingestion.event_store import Visitor
from serving.page import clean

Timeline = Sequence[tuple[datetime, str]]
"""Instants and events in JSON, the latest first."""

KNOWN = ("first_seen", "last_seen", "pageviews", "country", "device", "browser", "language", "source")
DETAILS = (
    "title",
    "referrer",
    "source",
    "props",
    "revenue_amount",
    "revenue_currency",
    "scroll_depth",
    "engagement_time",
)
"""Fields of an event that are shown beside its name and path."""


def visitor_as_json(visitor: Visitor, timeline: Timeline) -> str:
    """One object: what is known, and `events`, the latest first. What could act on a terminal is escaped."""
    known = {name: getattr(visitor, name) for name in ("site", "visitor_id", *KNOWN)}
    events = [{"occurred_at": at, "event": msgspec.Raw(event.encode())} for at, event in timeline]
    text = msgspec.json.encode({**known, "events": events}).decode()
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def print_visitor(visitor: Visitor, timeline: Timeline, console: Console) -> None:
    """The visitor's metadata, and a table of events."""
    console.print(
        Rule(
            Text.assemble((clean(visitor.site), "bold"), "  visitor ", clean(visitor.visitor_id)),
            align="left",
            style="dim",
        )
    )
    known = Table(box=None, show_header=False, pad_edge=False)
    for name in KNOWN:
        value = getattr(visitor, name)
        known.add_row(Text(name.replace("_", " ").capitalize(), style="dim"), Text(_shown(value)))
    console.print(known)
    events = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    for title in ("Time (UTC)", "Event", "Page", "Details"):
        events.add_column(title, overflow="fold", no_wrap=title.startswith("Time"))
    for at, text in timeline:
        event: dict[str, Any] = json.loads(text)
        details = ", ".join(f"{name.replace('_', ' ')} {_shown(event[name])}" for name in DETAILS if name in event)
        events.add_row(_shown(at), *(Text(clean(part)) for part in (event["name"], event.get("path", ""), details)))
    console.print()
    console.print(events)


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return ", ".join(f"{clean(str(key))}={clean(str(held))}" for key, held in value.items())
    return "(not set)" if value is None else f"{value:,}" if isinstance(value, int) else clean(str(value))
