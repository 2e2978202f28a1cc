"""The event: its fields on the wire, its limits, and the reasons for which one is refused.

    Event      the fields, by their long names (they follow the Plausible Events API)
    WireEvent  as sent: POST /api/event, or a line of an import
    RawLine    as kept: a line of a raw object, with identity derived and the address truncated; or a rejection

An event goes  bytes → `decode` → `refusal` → accepted, or refused for an enumerated `Reason`.

Every event passes here, as an object of Python. They hold no cycles, so the garbage collector does not follow them
(`gc=False`): with it, reading raw lines took nearly twice as long.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from ingestion.site_time import HOUR_MS, MINUTE_MS, from_datetime

MAX_LINE_BYTES = 1_000_000
MAX_DOMAIN_BYTES = 2_000
MAX_SITE_BYTES = 253
MAX_NAME_LENGTH = 120
MAX_URL_BYTES = 2_000
MAX_TEXT_LENGTH = 2_000
MAX_ID_LENGTH = 300
MAX_PROPS = 30
MAX_PROP_KEY_BYTES = 300
MAX_PROP_VALUE_BYTES = 2_000
OLDEST_MS = 72 * HOUR_MS
EARLIEST_MS = MINUTE_MS
"""How late an event may come, and how far its sender's clock may be ahead."""

PAGEVIEW = "pageview"
ENGAGEMENT = "engagement"
NO_SITE = "(none)"


class Reason(StrEnum):
    """Why a line was not accepted."""

    MALFORMED_JSON = "malformed_json"
    INVALID_UTF8 = "invalid_utf8"
    NOT_AN_OBJECT = "not_an_object"
    NESTED_TOO_DEEP = "nested_too_deep"
    LINE_TOO_LONG = "line_too_long"
    MISSING_DOMAIN = "missing_domain"
    MISSING_NAME = "missing_name"
    MISSING_URL = "missing_url"
    INVALID_DOMAIN = "invalid_domain"
    INVALID_NAME = "invalid_name"
    INVALID_URL = "invalid_url"
    URL_TOO_LONG = "url_too_long"
    INVALID_REFERRER = "invalid_referrer"
    REFERRER_TOO_LONG = "referrer_too_long"
    INVALID_PROPS = "invalid_props"
    INVALID_REVENUE = "invalid_revenue"
    INVALID_INTERACTIVE = "invalid_interactive"
    INVALID_SCROLL_DEPTH = "invalid_scroll_depth"
    INVALID_ENGAGEMENT_TIME = "invalid_engagement_time"
    INVALID_SCREEN_WIDTH = "invalid_screen_width"
    INVALID_LANGUAGE = "invalid_language"
    INVALID_TITLE = "invalid_title"
    INVALID_EVENT_ID = "invalid_event_id"
    INVALID_TIMESTAMP = "invalid_timestamp"
    INVALID_VISITOR_ID = "invalid_visitor_id"
    INVALID_USER_ID = "invalid_user_id"
    INVALID_STATED_VALUE = "invalid_stated_value"
    UNKNOWN_SITE = "unknown_site"
    TOO_OLD = "too_old"
    TOO_EARLY = "too_early"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_EVENTS = "too_many_events"
    NO_EVENTS = "no_events"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    NOT_A_PAGEVIEW = "not_a_pageview"
    MALFORMED_LINE = "malformed_line"


STATED = (
    "ip", "user_agent", "country", "region", "city", "browser", "browser_version", "os", "os_version", "device",
    "source", "channel", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term",
)  # fmt: skip
"""Text that only a trusted import may state; what is not stated is computed."""


class Refused(ValueError):
    """A line that cannot be decoded; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
PropKey = Annotated[str, msgspec.Meta(max_length=MAX_PROP_KEY_BYTES)]
PropText = Annotated[str, msgspec.Meta(max_length=MAX_PROP_VALUE_BYTES)]
Props = Annotated[dict[PropKey, PropText | int | float | bool | None], msgspec.Meta(max_length=MAX_PROPS)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Quantity = Annotated[float, msgspec.Meta(ge=0, le=2**31 - 1)]


class Revenue(msgspec.Struct, frozen=True, gc=False):
    """What a sale brought: an ISO 4217 currency, and an amount in it."""

    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z]{3}\Z")]
    amount: Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,15}(\.[0-9]{1,6})?$")] | int | float


class Event(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """One thing that one visitor did."""

    domain: str | None = None
    name: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)] | None = None
    url: str | None = None
    referrer: str | None = None
    props: Props | None = None
    revenue: Revenue | None = None
    interactive: bool | None = None
    scroll_depth: Percent | None = None
    engagement_time: Quantity | None = None
    screen_width: Quantity | None = None
    language: Text | None = None
    title: Text | None = None
    event_id: UUID | None = None
    timestamp: str | int | float | None = None
    visitor_id: Identifier | None = None
    user_id: Identifier | None = None

    # what only an import may state: STATED, and `bot`
    ip: Text | None = None
    user_agent: Text | None = None
    country: Text | None = None
    region: Text | None = None
    city: Text | None = None
    browser: Text | None = None
    browser_version: Text | None = None
    os: Text | None = None
    os_version: Text | None = None
    device: Text | None = None
    source: Text | None = None
    channel: Text | None = None
    utm_source: Text | None = None
    utm_medium: Text | None = None
    utm_campaign: Text | None = None
    utm_content: Text | None = None
    utm_term: Text | None = None
    bot: bool | None = None


class WireEvent(Event, omit_defaults=True, kw_only=True, gc=False):
    """An event as it is sent: also by the short names of the Plausible trackers, which `decode` merges into the long ones."""

    d: str | None = None
    n: Annotated[str, msgspec.Meta(max_length=MAX_NAME_LENGTH)] | None = None
    u: str | None = None
    r: str | None = None
    p: Props | None = None
    short_revenue: Revenue | None = msgspec.field(default=None, name="$")
    i: bool | None = None
    sd: Percent | None = None
    e: Quantity | None = None


class RawLine(Event, omit_defaults=True, kw_only=True, gc=False):
    """A line of a raw object: one site, long names, `timestamp` in ms, the address truncated, identity derived.

    A line that was rejected before it was written carries only `rejected`, `domain`, `timestamp` (its hour) and `line`.
    """

    line: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    visitor_hash: Identifier | None = None
    previous_visitor_hash: Identifier | None = None
    rejected: str | None = None


class StoredLine(RawLine, omit_defaults=True, kw_only=True, gc=False):
    """A raw line as it is read back: its event id stays text, as a UUID made of it and undone again takes 3.7 µs of 25."""

    event_id: str | None = None  # type: ignore[assignment]


SHORT_NAMES = {
    "d": "domain",
    "n": "name",
    "u": "url",
    "r": "referrer",
    "p": "props",
    "short_revenue": "revenue",
    "i": "interactive",
    "sd": "scroll_depth",
    "e": "engagement_time",
}
OPTIONAL_TEXT = ("referrer", "language", "title", "user_id", *STATED)

E = TypeVar("E", bound=Event)

_decoders: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (WireEvent, RawLine, StoredLine)}
_encode = msgspec.json.Encoder().encode
_broken_field = re.compile(r"`\$\.([a-z_$]+)")


def decode(line: bytes, kind: type[E]) -> E:
    """The event that a line of JSON holds, its short names merged into the long ones. Raises Refused."""
    if len(line) > MAX_LINE_BYTES:
        raise Refused(Reason.LINE_TOO_LONG)
    try:
        event: E = _decoders[kind].decode(line)
    except msgspec.ValidationError as problem:
        raise Refused(_reason_of_wrong_type(str(problem))) from None
    except RecursionError:
        raise Refused(Reason.NESTED_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(_reason_of_broken_json(line)) from None
    if kind is WireEvent:  # `isinstance` asks msgspec's metaclass: 0.5 µs
        _merge_short_names(event)
    if b"\\" in line and b"\\u0000" in line:  # one byte is found 20 times as fast
        _remove_nul(event)
    return event


def encode(event: msgspec.Struct) -> bytes:
    """One line of NDJSON, without its line end; fields that hold nothing are left out."""
    return _encode(event)


def _reason_of_wrong_type(message: str) -> Reason:
    found = _broken_field.search(message)
    if not found:
        return Reason.NOT_AN_OBJECT
    field = found[1]
    field = SHORT_NAMES.get("short_revenue" if field == "$" else field, field)
    try:
        return Reason(f"invalid_{field}")
    except ValueError:
        return Reason.INVALID_STATED_VALUE


def _reason_of_broken_json(line: bytes) -> Reason:
    try:
        line.decode()
    except UnicodeDecodeError:
        return Reason.INVALID_UTF8
    return Reason.MALFORMED_JSON


def _merge_short_names(event: Event) -> None:
    for short, long in SHORT_NAMES.items():
        value = getattr(event, short)
        if value is not None:
            if getattr(event, long) is None:
                setattr(event, long, value)
            setattr(event, short, None)


def _remove_nul(event: Event) -> None:
    """Removes NUL from optional text, which PostgreSQL cannot hold; `refusal` refuses it in the required fields."""
    for field in (*OPTIONAL_TEXT, "visitor_hash", "previous_visitor_hash"):
        value = getattr(event, field, None)
        if value is not None:
            setattr(event, field, value.replace("\0", "") or None)
    if event.props:
        event.props = {
            key.replace("\0", ""): value.replace("\0", "") if isinstance(value, str) else value
            for key, value in event.props.items()
        }


def refusal(event: Event) -> Reason | None:
    """The first rule that a decoded event breaks, or None. The clock's rules (too old, too early) are the caller's.

    Types, ranges and lengths in characters were checked by `decode`; here are the required fields, lengths in bytes, and
    what a type cannot say.
    """
    if not event.domain:
        return Reason.MISSING_DOMAIN
    if not sites_in(event.domain):
        return Reason.INVALID_DOMAIN
    if not event.name:
        return Reason.MISSING_NAME
    if "\0" in event.name:
        return Reason.INVALID_NAME
    if not event.url:
        return Reason.MISSING_URL
    if _longer_than(event.url, MAX_URL_BYTES):
        return Reason.URL_TOO_LONG
    if not _absolute_url(event.url) or "\0" in event.url:
        return Reason.INVALID_URL
    if event.referrer and _longer_than(event.referrer, MAX_URL_BYTES):
        return Reason.REFERRER_TOO_LONG
    if event.props and _prop_too_long(event.props):
        return Reason.INVALID_PROPS
    if event.revenue and not _amount(str(event.revenue.amount)):
        return Reason.INVALID_REVENUE
    if event.timestamp is not None and instant_of(event.timestamp) is None:
        return Reason.INVALID_TIMESTAMP
    if event.visitor_id and "\0" in event.visitor_id:
        return Reason.INVALID_VISITOR_ID
    return None


_absolute_url = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#\s\x00-\x1f]").match
_amount = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?").fullmatch


def _longer_than(text: str, most: int) -> bool:
    """More bytes than `most` in UTF-8. Counting characters first spares encoding the usual short text."""
    return len(text) * 4 > most and len(text.encode()) > most


def _prop_too_long(props: dict[str, str | int | float | bool | None]) -> bool:
    """A key or a value has too many bytes; text of a quarter as many characters cannot."""
    for key, value in props.items():
        if len(key) > MAX_PROP_KEY_BYTES // 4 and _longer_than(key, MAX_PROP_KEY_BYTES):
            return True
        if type(value) is str and len(value) > MAX_PROP_VALUE_BYTES // 4 and _longer_than(value, MAX_PROP_VALUE_BYTES):
            return True
    return False


_site = re.compile(rf"[^\s,/?#\x00-\x20\x7f]{{1,{MAX_SITE_BYTES}}}")


def site_name(text: str) -> str | None:
    """A site's name, in lower case; None if it cannot be one."""
    name = text.strip().lower()
    return name if _site.fullmatch(name) and not _longer_than(name, MAX_SITE_BYTES) else None


@lru_cache(maxsize=65_536)
def sites_in(domain: str) -> tuple[str, ...]:
    """The sites for which an event counts, each once, in the order named; empty if one of them cannot be a site."""
    if _longer_than(domain, MAX_DOMAIN_BYTES):
        return ()
    names = [site_name(part) for part in domain.split(",")]
    sites = tuple(dict.fromkeys(name for name in names if name))
    return sites if all(names) else ()


def instant_of(timestamp: str | int | float | None) -> int | None:
    """Whole milliseconds since 1970 of ISO 8601 (UTC where it names no offset) or of a number of ms; None if it is neither,
    or outside of the years 1 to 9999 in UTC."""
    try:
        if isinstance(timestamp, str):
            moment = datetime.fromisoformat(timestamp)
            return from_datetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
        if timestamp is not None and 0 <= timestamp < 253_402_300_800_000:
            return int(timestamp)
    except (ValueError, OverflowError):
        pass
    return None
