"""Events of an arrival hour as the event store keeps them, and what the hour says of each visitor."""

from typing import Any

import msgspec
import polars as pl

from assets.transforms.sessionize import ORDER
from ingestion.event import PAGEVIEW
from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS

KEPT = (
    "name", "hostname", "path", "title", "referrer", "source", "channel", "utm_source", "utm_medium", "utm_campaign",
    "utm_content", "utm_term", "country", "region", "city", "browser", "browser_version", "os", "os_version", "device",
    "screen_width", "language", "scroll_depth", "engagement_time", "interactive", "props", "revenue_amount",
    "revenue_currency", "user_id", "bot",
)  # fmt: skip
"""Fields of a stored event; those that hold nothing are left out."""

COLUMNS = ("site", "visitor_id", "timestamp", "position", "event_id", *KEPT)

_encode = msgspec.json.Encoder().encode


def stored_events(events: pl.DataFrame) -> pl.DataFrame:
    """Events (`COLUMNS`) to STORED_EVENTS, row by row."""
    return events.select(
        "site",
        "visitor_id",
        "event_id",
        occurred_at="timestamp",
        event=pl.Series(map(_json, events.select(KEPT).iter_rows(named=True)), dtype=pl.String),
    ).select(STORED_EVENTS.keys())


def _json(event: dict[str, Any]) -> str:
    kept = {name: value for name, value in event.items() if value is not None}
    if "props" in kept:
        kept["props"] = msgspec.Raw(kept["props"].encode())
    return _encode(kept).decode()


def visitor_hours(events: pl.DataFrame) -> pl.DataFrame:
    """Events (`COLUMNS`) to VISITOR_HOURS, one row a site and visitor; bots are no visitors."""
    return (
        events.filter(~pl.col("bot"))
        .sort(ORDER)
        .group_by("site", "visitor_id", maintain_order=True)
        .agg(
            first_seen=pl.col("timestamp").first(),
            last_seen=pl.col("timestamp").last(),
            pageviews=(pl.col("name") == PAGEVIEW).sum().cast(pl.Int64),
            country=pl.col("country").last(),
            device=pl.col("device").last(),
            browser=pl.col("browser").last(),
            language=pl.col("language").drop_nulls().last(),
            source=pl.col("source").first(),
        )
        .select(VISITOR_HOURS.keys())
    )
