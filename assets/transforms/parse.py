"""Raw lines to typed rows: each line is decoded and checked once more, as any producer may have written it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import polars as pl

from ingestion.event import NO_SITE, RawLine, Reason, Refused, decode, instant_of, refusal, sites_in
from ingestion.lake_events import INSTANT

PARSED = {
    "site": pl.String,
    "event_id": pl.String,
    "timestamp": INSTANT,
    "object": pl.String,
    "position": pl.Int64,
    "visitor_id": pl.String,
    "previous_visitor_id": pl.String,
    "cookieless": pl.Boolean,
    "user_id": pl.String,
    "name": pl.String,
    "url": pl.String,
    "referrer": pl.String,
    "title": pl.String,
    "props": pl.String,
    "revenue_amount": pl.String,
    "revenue_currency": pl.String,
    "interactive": pl.Boolean,
    "scroll_depth": pl.Float64,
    "engagement_time": pl.Float64,
    "screen_width": pl.Float64,
    "language": pl.String,
    "ip": pl.String,
    "user_agent": pl.String,
    "country": pl.String,
    "region": pl.String,
    "city": pl.String,
    "browser": pl.String,
    "browser_version": pl.String,
    "os": pl.String,
    "os_version": pl.String,
    "device": pl.String,
    "source": pl.String,
    "channel": pl.String,
    "utm_source": pl.String,
    "utm_medium": pl.String,
    "utm_campaign": pl.String,
    "utm_content": pl.String,
    "utm_term": pl.String,
    "bot": pl.Boolean,
}
"""Columns of a parsed event: what was sent, who it was, and where it lies (`object`, `position` in its file or batch)."""

REJECTED = {"site": pl.String, "reason": pl.String, "timestamp": INSTANT, "object": pl.String, "line": pl.Int64}
"""Columns of a rejection: never the content."""

_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Parsed:
    """The events (`PARSED`) and the rejections (`REJECTED`) of some raw lines."""

    events: pl.DataFrame
    rejections: pl.DataFrame


def parse(name: str, content: bytes, hour_ms: int, lines_at_once: int) -> Iterator[Parsed]:
    """The rows of one raw object, some lines at a time: `content` is its NDJSON, unpacked, `hour_ms` its arrival hour."""
    numbered = ((number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip())
    while batch := list(islice(numbered, lines_at_once)):
        yield _parse_batch(name, batch, hour_ms)


def _parse_batch(name: str, batch: Iterable[tuple[int, bytes]], hour_ms: int) -> Parsed:
    events: list[RawLine] = []
    rejections: list[tuple[str, str, int, str, int]] = []
    for number, line in batch:
        read = _read(line)
        if isinstance(read, RawLine) and read.rejected is None:
            read.line = read.line or number
            events.append(read)
        elif isinstance(read, RawLine):
            rejections.append((read.domain or NO_SITE, read.rejected or "", hour_ms, name, read.line or number))
        else:
            rejections.append((NO_SITE, read.value, hour_ms, name, number))
    return Parsed(_frame(name, events), pl.DataFrame(rejections, schema=REJECTED, orient="row"))


def _read(line: bytes) -> RawLine | Reason:
    """An event that keeps all rules, a rejection, or the reason why the line is neither."""
    try:
        raw = decode(line, RawLine)
    except Refused as refused:
        return refused.reason
    if raw.rejected is not None:
        return raw
    reason = refusal(raw)
    if reason is None and raw.event_id is None:
        reason = Reason.INVALID_EVENT_ID
    if reason is None and raw.timestamp is None:
        reason = Reason.INVALID_TIMESTAMP
    if reason is not None:
        return RawLine(rejected=reason.value, domain=_first_site(raw), line=raw.line)
    return raw


def _first_site(raw: RawLine) -> str | None:
    sites = sites_in(raw.domain) if raw.domain else ()
    return sites[0] if sites else None


def _frame(name: str, events: list[RawLine]) -> pl.DataFrame:
    """One column a field. Text and numbers are taken as they are; four fields need a look."""
    columns: dict[str, Any] = {
        field: [getattr(event, field) for event in events] for field in PARSED if field in RawLine.__struct_fields__
    }
    columns["site"] = [event.domain for event in events]
    columns["event_id"] = [str(event.event_id) for event in events]
    columns["timestamp"] = [instant_of(event.timestamp) for event in events]
    columns["object"] = pl.repeat(name, len(events), eager=True)
    columns["position"] = [event.line for event in events]
    columns["visitor_id"] = [event.visitor_id or event.visitor_hash for event in events]
    columns["previous_visitor_id"] = [event.previous_visitor_hash for event in events]
    columns["cookieless"] = [event.visitor_id is None for event in events]
    columns["props"] = [_encode_json(event.props).decode() if event.props else None for event in events]
    columns["revenue_amount"] = [str(event.revenue.amount) if event.revenue else None for event in events]
    columns["revenue_currency"] = [event.revenue.currency.upper() if event.revenue else None for event in events]
    return pl.DataFrame({field: pl.Series(columns[field], dtype=dtype) for field, dtype in PARSED.items()})
