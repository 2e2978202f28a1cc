"""Events in the lake: their columns, and the one way to read them, which drops duplicates."""

from collections.abc import Iterator, Sequence
from math import gcd
from typing import Any

import polars as pl

from ingestion.lake import Lake
from ingestion.ledger import PartitionObject

INSTANT = pl.Datetime("ms", "UTC")

EVENTS: dict[str, Any] = {
    "site": pl.String,
    "date": pl.Date,
    "date_began": INSTANT,
    "date_ended": INSTANT,
    "timestamp": INSTANT,
    "position": pl.Int64,
    "event_id": pl.String,
    "object": pl.String,
    "visitor_id": pl.String,
    "previous_visitor_id": pl.String,
    "cookieless": pl.Boolean,
    "user_id": pl.String,
    "bot": pl.Boolean,
    "name": pl.String,
    "hostname": pl.String,
    "path": pl.String,
    "title": pl.String,
    "interactive": pl.Boolean,
    "scroll_depth": pl.Float64,
    "engagement_time": pl.Float64,
    "revenue_amount": pl.Decimal(38, 6),
    "revenue_currency": pl.String,
    "props": pl.String,
    "referrer": pl.String,
    "source": pl.String,
    "channel": pl.String,
    "utm_source": pl.String,
    "utm_medium": pl.String,
    "utm_campaign": pl.String,
    "utm_content": pl.String,
    "utm_term": pl.String,
    "country": pl.String,
    "region": pl.String,
    "city": pl.String,
    "browser": pl.String,
    "browser_version": pl.String,
    "os": pl.String,
    "os_version": pl.String,
    "device": pl.String,
    "screen_width": pl.Float64,
    "language": pl.String,
}
"""Columns of an event in the lake. `date_began` and `date_ended` bound the site's date (the latter excluded)."""

COPY_KEYS = ("site", "date", "event_id")
COPY_ORDER = ("object", "position")
"""An object's name begins with its arrival hour, so this is the order of arrival hour, object, line."""


def by_bucket(*groups: Sequence[PartitionObject]) -> Iterator[list[list[PartitionObject]]]:
    """The objects of each group, one bucket at a time. Where they were written with different numbers of buckets, they are
    read by the greatest common divisor: sites that share h mod 64 or h mod 16 share h mod 16."""
    every = [item for group in groups for item in group]
    count = gcd(*(item.buckets or 1 for item in every)) if every else 0
    for bucket in range(count):
        yield [[item for item in group if (item.bucket or 0) % count == bucket] for group in groups]


def read_events(
    lake: Lake, objects: Sequence[PartitionObject], columns: Sequence[str], *, site: str | None = None
) -> pl.DataFrame:
    """The events of some objects of one bucket, each once: of copies, the one that came first counts."""
    return read_copies(lake, objects, columns, site=site).filter(~pl.col("is_copy")).select(columns)


def read_copies(
    lake: Lake, objects: Sequence[PartitionObject], columns: Sequence[str], *, site: str | None = None
) -> pl.DataFrame:
    """The same with every copy, and `is_copy` for those that do not count."""
    wanted = list(dict.fromkeys((*columns, *COPY_KEYS, *COPY_ORDER)))
    if not objects:
        return pl.DataFrame(schema={**{name: EVENTS[name] for name in wanted}, "is_copy": pl.Boolean})
    where = None if site is None else pl.col("site") == site
    return mark_copies(lake.read_parquet([item.object.name for item in objects], wanted, where))


def read_arrivals(lake: Lake, objects: Sequence[PartitionObject], hour: str, columns: Sequence[str]) -> pl.DataFrame:
    """The events of some objects of one bucket that arrived in an hour, without copies of events that came before: of the other
    objects only what tells copies is read."""
    line = ("site", *COPY_ORDER)  # of an import, a line that names two sites is an event of each
    copies = read_copies(lake, objects, ()).filter(pl.col("is_copy")).select(line)
    arrived = [item for item in objects if item.partition == hour]
    if not arrived:
        return pl.DataFrame(schema={name: EVENTS[name] for name in columns})
    wanted = list(dict.fromkeys((*columns, *line)))
    events = lake.read_parquet([item.object.name for item in arrived], wanted)
    return events.join(copies, on=line, how="anti", maintain_order="left").select(columns)


def mark_copies(events: pl.DataFrame) -> pl.DataFrame:
    """Adds `is_copy`: true for each event that has the site, event id and date of one that came before it."""
    rows = events.with_row_index("row")
    suspects = rows.filter(pl.col("event_id").is_duplicated()).sort(COPY_ORDER)
    copies = suspects.filter(~pl.struct(COPY_KEYS).is_first_distinct())["row"]
    return events.with_columns(is_copy=pl.int_range(pl.len(), dtype=pl.UInt32).is_in(copies.implode()))
