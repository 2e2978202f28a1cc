"""Raw lines to typed rows: each line is decoded and checked once more, as any producer may have written it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from operator import attrgetter
from typing import Any, BinaryIO

import msgspec
import polars as pl

from ingestion.event import NO_SITE, RawLine, Reason, Refused, StoredLine, decode, instant_of, refusal, sites_in
from ingestion.lake_events import INSTANT

PARSED: dict[str, Any] = {
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

REJECTED: dict[str, Any] = {
    "site": pl.String,
    "reason": pl.String,
    "timestamp": INSTANT,
    "object": pl.String,
    "line": pl.Int64,
}
"""Columns of a rejection: never the content."""

_RENAMED = {"site": "domain", "position": "line", "previous_visitor_id": "previous_visitor_hash"}
_SENT = {
    field: sent for field in PARSED if (sent := _RENAMED.get(field, field)) in StoredLine.__struct_fields__
}  # fmt: skip
"""Columns that are fields of a line, by the field's name."""

_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Parsed:
    """The events (`PARSED`) and the rejections (`REJECTED`) of some raw lines."""

    events: pl.DataFrame
    rejections: pl.DataFrame

    @property
    def lines(self) -> int:
        """Lines read: each is an event or a rejection."""
        return self.events.height + self.rejections.height


def parse(name: str, content: bytes | BinaryIO, hour_ms: int, lines_at_once: int) -> Iterator[Parsed]:
    """The rows of one raw object, some lines at a time: `content` is its NDJSON, unpacked (a stream of it, unpacked as it is
    read, is faster than all of it at once), `hour_ms` its arrival hour."""
    lines = BytesIO(content) if isinstance(content, bytes) else content
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
    while (parsed := _parse_batch(name, islice(numbered, lines_at_once), hour_ms)).lines:
        yield parsed


def _parse_batch(name: str, batch: Iterable[tuple[int, bytes]], hour_ms: int) -> Parsed:
    events: list[StoredLine] = []
    rejections: list[tuple[str, str, int, str, int]] = []
    for number, line in batch:
        read = _read(line)
        if isinstance(read, Reason):
            rejections.append((NO_SITE, read.value, hour_ms, name, number))
        elif read.rejected is None:
            read.line = read.line or number
            events.append(read)
        else:
            rejections.append((read.domain or NO_SITE, read.rejected, hour_ms, name, read.line or number))
    return Parsed(_frame(name, events), pl.DataFrame(rejections, schema=REJECTED, orient="row"))


def _read(line: bytes) -> StoredLine | Reason:
    """An event that keeps all rules, a rejection, or the reason why the line is neither."""
    try:
        raw = _decoded(line)
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
        return StoredLine(rejected=reason.value, domain=_first_site(raw), line=raw.line)
    return raw


_is_usual_id = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def _decoded(line: bytes) -> StoredLine:
    """A line whose event id, if it has one, is a UUID in its usual form. Raises Refused."""
    line = line.rstrip(b"\n")
    try:
        raw = decode(line, StoredLine)
        if raw.event_id is None or _is_usual_id(raw.event_id):
            return raw
    except Refused:
        pass
    checked = decode(line, RawLine)
    raw.event_id = str(checked.event_id)
    return raw


def _first_site(raw: RawLine) -> str | None:
    sites = sites_in(raw.domain) if raw.domain else ()
    return sites[0] if sites else None


def _frame(name: str, events: list[StoredLine]) -> pl.DataFrame:
    """One column a field, and a row of Python never: 50,000 tuples would wake the garbage collector. Text and numbers are
    taken as they are; some fields need a look."""
    columns: dict[str, Any] = {field: list(map(attrgetter(sent), events)) for field, sent in _SENT.items()}
    supplied = pl.Series(columns["visitor_id"], dtype=pl.String)
    hashes = pl.Series(map(attrgetter("visitor_hash"), events), dtype=pl.String)
    columns["timestamp"] = [time if type(time) is int else instant_of(time) for time in columns["timestamp"]]
    columns["object"] = pl.repeat(name, len(events), eager=True)
    columns["visitor_id"] = pl.select(pl.coalesce(supplied, hashes)).to_series()
    columns["cookieless"] = supplied.is_null()
    columns["props"] = [_encode_json(props).decode() if props else None for props in columns["props"]]
    revenues = [event.revenue for event in events]
    columns["revenue_amount"] = [str(revenue.amount) if revenue else None for revenue in revenues]
    columns["revenue_currency"] = [revenue.currency.upper() if revenue else None for revenue in revenues]
    return pl.DataFrame({field: pl.Series(columns[field], dtype=dtype) for field, dtype in PARSED.items()})
