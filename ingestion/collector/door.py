"""One request to raw lines, or to refusals with a reason. No clock, no network: both are given."""

import ipaddress
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec

from ingestion.event import (
    STATED,
    RawLine,
    Reason,
    Refused,
    WireEvent,
    decode,
    encode,
    instant_of,
    refusal,
    sites_in,
)
from ingestion.identity import Salts, identified
from ingestion.site_time import HOUR_MS, MINUTE_MS

MAX_BODY_BYTES = 1_000_000
"""On the wire, and unpacked."""
MAX_EVENTS = 1_000
MAX_AGENT_LENGTH = 1_000
OLDEST_MS = 72 * HOUR_MS
EARLIEST_MS = MINUTE_MS
"""How far a sender's clock may be ahead."""

_split = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Sender:
    """Who sends: the address that it came from, and what it calls itself."""

    address: str
    agent: str


@dataclass
class Opened:
    """What a request held: raw lines to append, how many events that are, and by index what was refused."""

    lines: list[bytes] = field(default_factory=list)
    accepted: int = 0
    refused: list[tuple[int, Reason]] = field(default_factory=list)


@dataclass(frozen=True)
class Door:
    """Lets events in. `time_zone` gives a site's, or None for a site that is not measured here."""

    time_zone: Callable[[str], str | None]
    salts: Salts
    new_id: Callable[[], UUID] = uuid4

    def open(self, body: bytes, sender: Sender, now_ms: int) -> Opened:
        """Takes a body of one event, or of an array of them. Raises Refused where the body as a whole is not readable."""
        opened = Opened()
        for index, event in enumerate(_events_in(body)):
            try:
                opened.lines += self._raw_lines(event, sender, now_ms)
                opened.accepted += 1
            except Refused as refused:
                opened.refused.append((index, refused.reason))
        return opened

    def _raw_lines(self, line: bytes, sender: Sender, now_ms: int) -> list[bytes]:
        """An event, once for each site that it names. Raises Refused."""
        event = decode(line, WireEvent)
        reason = refusal(event)
        if reason:
            raise Refused(reason)
        instant = now_ms if event.timestamp is None else instant_of(event.timestamp)
        assert instant is not None
        assert event.domain is not None
        if instant < now_ms - OLDEST_MS:
            raise Refused(Reason.TOO_OLD)
        if instant > now_ms + EARLIEST_MS:
            raise Refused(Reason.TOO_EARLY)
        _state(event, sender)
        event_id = event.event_id or self.new_id()
        return [encode(self._of_site(event, site, instant, event_id)) for site in sites_in(event.domain)]

    def _of_site(self, event: WireEvent, site: str, instant: int, event_id: UUID) -> RawLine:
        time_zone = self.time_zone(site)
        if time_zone is None:
            raise Refused(Reason.UNKNOWN_SITE)
        return identified(event, site, time_zone, instant, event_id, self.salts)


def _state(event: WireEvent, sender: Sender) -> None:
    """Who sent it is what the connection says, never the event; and only a trusted import states what is computed here."""
    for name in STATED:
        setattr(event, name, None)
    event.bot = None
    event.ip, event.user_agent = sender.address, sender.agent.replace("\0", "")[:MAX_AGENT_LENGTH] or None


def _events_in(body: bytes) -> Sequence[bytes]:
    """The bytes of each event. Raises Refused."""
    if not body.lstrip().startswith(b"["):
        return [body]
    try:
        events = _split.decode(body)
    except RecursionError:
        raise Refused(Reason.NESTED_TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(Reason.MALFORMED_JSON) from None
    if not events:
        raise Refused(Reason.NO_EVENTS)
    if len(events) > MAX_EVENTS:
        raise Refused(Reason.TOO_MANY_EVENTS)
    return [bytes(event) for event in events]


def unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its content encoding. Raises Refused."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refused(Reason.UNSUPPORTED_ENCODING)
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # tells gzip and zlib apart by the header
    try:
        data = unpacking.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Refused(Reason.UNSUPPORTED_ENCODING) from None
    if len(data) > MAX_BODY_BYTES:
        raise Refused(Reason.BODY_TOO_LARGE)
    if not unpacking.eof:
        raise Refused(Reason.UNSUPPORTED_ENCODING)
    return data


def address_of(peer: str, forwarded: str, trusted: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    """Where a request came from: the peer, or as far back in `X-Forwarded-For` as proxies are trusted."""
    address = peer
    for hop in [part.strip() for part in reversed(forwarded.split(","))]:
        if not hop or not _is_in(address, trusted):
            break
        address = hop
    return address


def _is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(ip in network for network in networks)
