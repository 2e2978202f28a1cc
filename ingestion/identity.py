"""Who did it, without keeping who it was: cookieless visitors, truncated addresses, assigned event ids."""

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from uuid import UUID

from ingestion.event import Event, RawLine
from ingestion.site_time import MINUTE_MS, date_bounds, site_date

CARRY_OVER_MS = 30 * MINUTE_MS
"""How long after midnight an event also carries the previous date's hash, so that a visit that crosses keeps its visitor."""


@dataclass(frozen=True)
class Cookieless:
    """A visitor's hash on the site's date, and on the date before where a visit may still be going on."""

    visitor_hash: str
    previous_visitor_hash: str | None


Salts = Callable[[date], bytes]
"""The salt of a site date. Raises KeyError for a date that has none, or none any more."""


@dataclass(frozen=True)
class ImportSalts:
    """One salt per site date, all derived from a random key that is never written and so is gone after the import."""

    key: bytes

    def __call__(self, day: date) -> bytes:
        return hashlib.blake2b(day.isoformat().encode(), key=self.key, digest_size=32).digest()


def cookieless(salts: Salts, site: str, time_zone: str, instant_ms: int, address: str, agent: str) -> Cookieless:
    """The hash, salted per site date, of site, address and agent (64 bits, in hexadecimal)."""
    day = site_date(time_zone, instant_ms)
    began, _ = date_bounds(time_zone, day)
    carried = instant_ms - began < CARRY_OVER_MS
    return Cookieless(
        _visitor_hash(salts(day), site, address, agent),
        _visitor_hash(salts(site_date(time_zone, began - 1)), site, address, agent) if carried else None,
    )


def _visitor_hash(salt: bytes, *parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), key=salt, digest_size=8).hexdigest()


def identified(event: Event, site: str, time_zone: str, instant: int, event_id: UUID, salts: Salts) -> RawLine:
    """An event as it is kept for one of its sites: its address truncated, and unless the site supplied a visitor's id, the
    cookieless hash of address and agent in its place."""
    kept = {name: getattr(event, name) for name in Event.__struct_fields__}
    kept |= {"domain": site, "timestamp": instant, "event_id": event_id, "ip": truncated_address(event.ip)}
    raw = RawLine(**kept)
    if event.visitor_id is None:
        who = cookieless(salts, site, time_zone, instant, event.ip or "", event.user_agent or "")
        raw.visitor_hash, raw.previous_visitor_hash = who.visitor_hash, who.previous_visitor_hash
    return raw


def assigned_event_id(key: bytes, site: str, line: bytes, occurrence: int) -> UUID:
    """The id of an event that came without one: the same line of the same site, for the n-th time in its file, is the same
    event. Keyed, so that nobody can guess an address from it."""
    content = b"\0".join((site.encode(), str(occurrence).encode(), line))
    return UUID(bytes=hashlib.blake2b(content, key=key, digest_size=16).digest())


def truncated_address(address: str | None) -> str | None:
    """The /24 of an IPv4 address, the /48 of an IPv6 one; None for anything else."""
    if not address:
        return None
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])  # a zone id could say anything
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip  # 6to4: its /48 would hold an IPv4 address whole
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False).network_address)
