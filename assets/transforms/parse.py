"""Raw lines to typed rows: each line is decoded and checked once more, as any producer may have written it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from operator import attrgetter
from typing import Any, BinaryIO
from uuid import UUID

import msgspec
import polars as pl

from ingestion.event import (
    NO_SITE,
    OLDEST_MS,
    RawLine,
    Reason,
    Refused,
    StoredLine,
    decode,
    instant_of,
    refusal,
    sites_in,
)
from ingestion.lake_events import INSTANT
from ingestion.site_time import HOUR_MS

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
    field: sent
    for field in (*PARSED, "revenue")
    if (sent := _RENAMED.get(field, field)) in StoredLine.__struct_fields__
}
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


def parse(
    name: str, content: bytes | BinaryIO, hour_ms: int, lines_at_once: int, *, start_ms: int = 0
) -> Iterator[Parsed]:
    """The rows of one raw object, some lines at a time: `content` is its NDJSON, unpacked (a stream of it, unpacked as it is
    read, is faster than all of it at once), `hour_ms` its arrival hour, `start_ms` the first hour that has a partition."""
    lines = BytesIO(content) if isinstance(content, bytes) else content
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
    times = range(max(start_ms, hour_ms - OLDEST_MS - HOUR_MS), hour_ms + 2 * HOUR_MS)
    while (parsed := _parse_batch(name, islice(numbered, lines_at_once), hour_ms, times)).lines:
        yield parsed


def _parse_batch(name: str, batch: Iterable[tuple[int, bytes]], hour_ms: int, times: range) -> Parsed:
    events: list[StoredLine] = []
    rejections: list[tuple[str, str, int, str, int]] = []
    for number, line in batch:
        read = _read(line, times)
        if isinstance(read, Reason):
            rejections.append((NO_SITE, read.value, hour_ms, name, number))
        elif read.rejected is None:
            read.line = read.line or number
            events.append(read)
        else:
            rejections.append((read.domain or NO_SITE, read.rejected, hour_ms, name, read.line or number))
    return Parsed(_frame(name, events), pl.DataFrame(rejections, schema=REJECTED, orient="row"))


def _read(line: bytes, times: range) -> StoredLine | Reason:
    """An event that keeps all rules, a rejection, or the reason why the line is neither."""
    try:
        raw = decode(line.rstrip(b"\n"), StoredLine)
    except Refused as refused:
        return refused.reason
    if raw.rejected is not None:
        return _rejected_before(raw)
    reason = refusal(raw) or _refusal_of_what_is_assigned(raw)
    if reason is None and (type(raw.timestamp) is not int or raw.timestamp not in times):
        reason = _refusal_of_time(raw, times)
    if reason is not None:
        return StoredLine(rejected=reason.value, domain=_first_site(raw), line=raw.line)
    return raw


def _rejected_before(raw: StoredLine) -> StoredLine | Reason:
    """A line that was rejected when it was written: whoever wrote it, its reason is one of ours, and its site one that can be."""
    if raw.rejected not in set(Reason):
        return Reason.MALFORMED_LINE
    raw.domain = _first_site(raw)
    return raw


_is_usual_id = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


def _refusal_of_what_is_assigned(raw: StoredLine) -> Reason | None:
    """One site, an event id, both in their usual form from here on, a time and a visitor: whoever wrote the line sent or assigned
    them."""
    sites = sites_in(raw.domain or "")
    if len(sites) != 1:
        return Reason.INVALID_DOMAIN
    (raw.domain,) = sites
    if raw.event_id is None:
        return Reason.INVALID_EVENT_ID
    if not _is_usual_id(raw.event_id):
        try:
            raw.event_id = str(msgspec.convert(raw.event_id, UUID))
        except msgspec.ValidationError:
            return Reason.INVALID_EVENT_ID
    if not raw.visitor_id and not raw.visitor_hash:
        return Reason.INVALID_VISITOR_ID
    return Reason.INVALID_TIMESTAMP if raw.timestamp is None else None


def _refusal_of_time(raw: StoredLine, times: range) -> Reason | None:
    """Whoever appended to the event log: what is older or earlier than the collector lets in is of hours and dates that may have no
    partition, and would never be accounted for."""
    instant = raw.timestamp if type(raw.timestamp) is int else instant_of(raw.timestamp)
    assert instant is not None
    if instant in times:
        return None
    return Reason.TOO_OLD if instant < times.start else Reason.TOO_EARLY


def _first_site(raw: RawLine) -> str | None:
    sites = sites_in(raw.domain) if raw.domain else ()
    return sites[0] if sites else None


def _frame(name: str, events: list[StoredLine]) -> pl.DataFrame:
    """One column a field, and a row of Python never: 50,000 tuples would wake the garbage collector. Text and numbers are
    taken as they are; some fields need a look."""
    columns: dict[str, Any] = {field: list(map(attrgetter(sent), events)) for field, sent in _SENT.items()}
    visitor_ids, hashes = columns["visitor_id"], map(attrgetter("visitor_hash"), events)
    columns["visitor_id"] = [supplied or derived for supplied, derived in zip(visitor_ids, hashes, strict=True)]
    columns["cookieless"] = [supplied is None for supplied in visitor_ids]
    columns["timestamp"] = [time if type(time) is int else instant_of(time) for time in columns["timestamp"]]
    if any(columns["props"]):
        columns["props"] = [_encode_json(props).decode() if props else None for props in columns["props"]]
    revenues = columns.pop("revenue")
    if any(revenues):
        columns["revenue_amount"] = [str(revenue.amount) if revenue else None for revenue in revenues]
        columns["revenue_currency"] = [revenue.currency.upper() if revenue else None for revenue in revenues]
    return pl.DataFrame(
        [_series(field, columns.get(field), dtype, len(events)) for field, dtype in PARSED.items()]
    ).with_columns(object=pl.lit(name))


def _series(field: str, values: list[Any] | None, dtype: Any, rows: int) -> pl.Series:
    """A column. Most fields of most events are empty, and Polars would look at each value for the first that is not."""
    if values is None or values.count(None) == rows:
        return pl.Series(field, [None], dtype=dtype).new_from_index(0, rows)
    return pl.Series(field, values, dtype=dtype)
