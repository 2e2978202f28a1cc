"""One request to raw lines, or to refusals with a reason. No clock, no network: both are given."""

import ipaddress
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import msgspec

from ingestion.event import (
    EARLIEST_MS,
    OLDEST_MS,
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

MAX_BODY_BYTES = 1_000_000
"""On the wire, and unpacked."""
MAX_EVENTS = 1_000
MAX_LINES_BYTES = 4_000_000
"""Raw lines of one body. An event becomes a line for each site that it names, and a body could name hundreds in each."""
MAX_AGENT_LENGTH = 1_000

Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

_split = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Sender:
    """Who sends: the address that it came from, and what it calls itself."""

    address: str
    agent: str


@dataclass
class Opened:
    """What a request held: raw lines to append, how many events that are, and by index what was refused."""

    is_array: bool
    lines: list[bytes] = field(default_factory=list)
    accepted: int = 0
    refused: list[tuple[int, Reason]] = field(default_factory=list)


@dataclass(frozen=True)
class Door:
    """Lets events in. `time_zone` gives a site's, or None for a site that is not measured here; before `start_ms` there are no
    partitions."""

    time_zone: Callable[[str], str | None]
    salts: Salts
    start_ms: int = 0
    new_id: Callable[[], UUID] = uuid4

    def open(self, body: bytes, sender: Sender, now_ms: int) -> Opened:
        """Takes a body of one event, or of an array of them. Raises Refused where the body as a whole is not readable."""
        opened = Opened(is_array=body.lstrip()[:1] == b"[")
        size = 0
        for index, event in enumerate(_events_in(body) if opened.is_array else [body]):
            try:
                lines = self._raw_lines(event, sender, now_ms)
            except Refused as refused:
                opened.refused.append((index, refused.reason))
                continue
            size += sum(map(len, lines))
            if size > MAX_LINES_BYTES:
                raise Refused(Reason.BODY_TOO_LARGE)
            opened.lines += lines
            opened.accepted += 1
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
        if instant < max(now_ms - OLDEST_MS, self.start_ms):
            raise Refused(Reason.TOO_OLD)
        if instant > now_ms + EARLIEST_MS:
            raise Refused(Reason.TOO_EARLY)
        sites = sites_in(event.domain)
        if len(line) * len(sites) > MAX_LINES_BYTES:
            raise Refused(Reason.BODY_TOO_LARGE)
        _state(event, sender)
        event_id = event.event_id or self.new_id()
        return [encode(self._of_site(event, site, instant, event_id)) for site in sites]

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
    """The bytes of each event of an array. Raises Refused."""
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
    if not unpacking.eof or unpacking.unused_data:  # what comes after the end would be lost
        raise Refused(Reason.UNSUPPORTED_ENCODING)
    return data


def address_of(peer: str, forwarded: str, trusted: Networks) -> str:
    """Where a request came from, in its usual form: the peer, or as far back in `X-Forwarded-For` as proxies are trusted. Empty
    where that is no address."""
    ip = _ip(peer)
    for hop in reversed(forwarded.split(",")):
        if ip is None or not hop or hop.isspace() or not any(ip in network for network in trusted):
            break
        ip = _ip(hop.strip())
    return str(ip or "")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, also with a port, as some proxies write it, or as IPv6 sees one of IPv4: each visitor has one way to be
    written, or would be several."""
    bracketed, _, _ = text.removeprefix("[").partition("]")
    host, _, port = bracketed.partition(":")
    try:
        ip = ipaddress.ip_address((host if ":" not in port else bracketed).partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip
