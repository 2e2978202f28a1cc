"""NDJSON in the wire format: one event a line, with what an import may state besides."""

import msgspec

from ingestion.event import Reason, Refused, WireEvent, decode, instant_of, refusal, sites_in
from ingestion.protocols.line import Line

_any_object = msgspec.json.Decoder(dict[str, object])


def read_line(line: bytes, now: int) -> Line | None:
    """The event of a line, or why it is refused; None for a blank line. An event without a time happened `now`."""
    if not line.strip():
        return None
    try:
        event = decode(line, WireEvent)
    except Refused as refused:
        return _refused_line(line, refused.reason)
    reason = refusal(event)
    if reason:
        return _refused_line(line, reason)
    assert event.domain is not None
    return Line(sites_in(event.domain), now if event.timestamp is None else instant_of(event.timestamp), event)


def _refused_line(line: bytes, reason: Reason) -> Line:
    """The rejection, under the sites and at the time that the line names where these can be read."""
    try:
        sent = _any_object.decode(line)
    except (ValueError, RecursionError):
        return Line((), None, rejected=reason)
    domain, timestamp = sent.get("domain"), sent.get("timestamp")
    if domain is None:
        domain = sent.get("d")
    return Line(
        sites_in(domain) if isinstance(domain, str) else (),
        instant_of(timestamp) if isinstance(timestamp, str | int | float) else None,
        rejected=reason,
    )
