"""Identity: what is derived from an address, and that no address is kept whole."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.identity import ImportSalts, assigned_event_id, cookieless, truncated_address
from ingestion.ledger import Ledger
from ingestion.site_time import HOUR_MS, MINUTE_MS, date_bounds, from_datetime

SALTS = ImportSalts(b"k" * 32)
ADDRESS, AGENT = "198.51.100.77", "Mozilla/5.0"


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("198.51.100.77", "198.51.100.0"),
        ("198.51.100.0", "198.51.100.0"),
        ("255.255.255.255", "255.255.255.0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
        ("2001:DB8:1::1", "2001:db8:1::"),
        ("::1", "::"),
        ("::ffff:198.51.100.77", "198.51.100.0"),
        ("::ffff:c633:644d", "198.51.100.0"),
        ("::ffff:198.51.100.77%eth0", "198.51.100.0"),
        ("2002:c633:644d::1", "198.51.100.0"),  # 6to4: the /48 would hold the whole IPv4 address
        ("64:ff9b::198.51.100.77", "64:ff9b::"),
        ("fe80::1%eth0", "fe80::"),
        ("fe80::%eth0", "fe80::"),
        ("2001:db8:1::%198.51.100.77", "2001:db8:1::"),
        ("", None),
        (None, None),
        ("-", None),
        ("unknown", None),
        ("host.example", None),
        ("198.51.100", None),
        ("198.51.100.256", None),
        ("198.51.100.077", None),
        (" 198.51.100.77", None),
        ("198.51.100.77:443", None),
        ("198.51.100.77/32", None),
        ("[2001:db8::1]", None),
        ("198.51.100.77, 10.0.0.1", None),
        ("3325256781", None),
        ("١٩٨.51.100.77", None),
    ],
)
def test_truncated_address(address: str | None, kept: str | None) -> None:
    assert truncated_address(address) == kept


@given(st.ip_addresses())
def test_two_addresses_of_a_network_are_kept_alike(address: object) -> None:
    kept = truncated_address(str(address))
    assert kept is not None
    assert truncated_address(kept) == kept


@given(st.text())
def test_any_text_is_truncated_or_dropped(text: str) -> None:
    kept = truncated_address(text)
    assert kept is None or kept.endswith((".0", "::"))


def at(time_zone: str, day: date, after_ms: int) -> tuple[str | None, str]:
    """The previous date's hash, and this date's, so long after the first instant of a date."""
    found = cookieless(SALTS, "shop.example", time_zone, date_bounds(time_zone, day)[0] + after_ms, ADDRESS, AGENT)
    return found.previous_visitor_hash, found.visitor_hash


@pytest.mark.parametrize(
    ("time_zone", "day", "before"),
    [
        ("UTC", date(2026, 11, 22), date(2026, 11, 21)),
        ("Asia/Kolkata", date(2026, 11, 22), date(2026, 11, 21)),
        ("Asia/Kathmandu", date(2026, 11, 22), date(2026, 11, 21)),
        ("Europe/Berlin", date(2026, 3, 30), date(2026, 3, 29)),  # after a day of 23 hours
        ("America/Havana", date(2024, 3, 10), date(2024, 3, 9)),  # which begins at 01:00
        ("Pacific/Apia", date(2011, 12, 31), date(2011, 12, 29)),  # there was no 30 December
    ],
)
def test_the_first_30_minutes_of_a_date_carry_the_hash_of_the_date_before(
    time_zone: str, day: date, before: date
) -> None:
    last_hash = at(time_zone, before, 12 * HOUR_MS)[1]
    assert at(time_zone, before, date_bounds(time_zone, before)[1] - date_bounds(time_zone, before)[0] - 1) == (
        None,
        last_hash,
    )
    new_hash = at(time_zone, day, 12 * HOUR_MS)[1]
    assert new_hash != last_hash
    assert at(time_zone, day, 0) == (last_hash, new_hash)
    assert at(time_zone, day, 30 * MINUTE_MS - 1) == (last_hash, new_hash)
    assert at(time_zone, day, 30 * MINUTE_MS) == (None, new_hash)


def test_hashes_differ_by_date_site_address_agent_and_import() -> None:
    noon = from_datetime(datetime(2026, 11, 22, 12, tzinfo=UTC))
    usual = ("shop.example", "UTC", noon, ADDRESS, AGENT)
    others = [
        ("other.example", "UTC", noon, ADDRESS, AGENT),
        ("shop.example", "UTC", noon + 24 * HOUR_MS, ADDRESS, AGENT),
        ("shop.example", "UTC", noon, "198.51.100.78", AGENT),
        ("shop.example", "UTC", noon, ADDRESS, "Mozilla/6.0"),
        ("shop.example", "UTC", noon, ADDRESS + "M", "ozilla/5.0"),
    ]
    hashes = {cookieless(SALTS, *visitor).visitor_hash for visitor in (usual, *others)}
    assert len(hashes) == 6
    assert cookieless(SALTS, *usual).visitor_hash in hashes, "it is stable"
    assert cookieless(ImportSalts(b"K" * 32), *usual).visitor_hash not in hashes, "another import has other salts"
    assert all(len(found) == 16 and int(found, 16) >= 0 for found in hashes)


def test_a_date_has_one_salt_of_its_own() -> None:
    assert SALTS(date(2026, 11, 22)) == SALTS(date(2026, 11, 22)) != SALTS(date(2026, 11, 23))
    assert len(SALTS(date(2026, 11, 22))) == 32


def test_an_assigned_id_is_stable_and_keyed() -> None:
    usual = (b"k" * 32, "shop.example", b"line", 1)
    assert assigned_event_id(*usual) == assigned_event_id(*usual) == UUID("cc8c738e-f983-f4c9-1723-d9cbb58d1720")
    others = [
        (b"K" * 32, "shop.example", b"line", 1),
        (b"k" * 32, "other.example", b"line", 1),
        (b"k" * 32, "shop.example", b"LINE", 1),
        (b"k" * 32, "shop.example", b"line", 2),
        (b"k" * 32, "shop.example", b"2\0line", 1),
    ]
    assert len({assigned_event_id(*each) for each in (usual, *others)}) == 6


# What an import leaves

V4, V6, MAPPED = "198.51.100.77", "2001:db8:1:2:3:4:5:6", "::ffff:203.0.113.99"
WHOLE = (V4, V6, MAPPED, "203.0.113.99", "2001:db8:1:2")


def assert_no_address_is_kept(imports: Any) -> None:
    kept = "\n".join(row for rows in imports.everything().values() for row in rows)
    for name in imports.objects():
        kept += imports.unpacked(name).decode()
    assert "198.51.100.0" in kept, "what was read is what was written"
    assert [address for address in WHOLE if address in kept] == []


def test_an_access_log_leaves_no_address_behind(imports: Any) -> None:
    line = '{} - - [17/May/2015:10:05:03 +0000] "{} / HTTP/1.1" 200 1 "-" "Mozilla"'
    imports.log(
        [
            *(line.format(address, "GET") for address in (V4, V6, MAPPED, "host.example")),
            line.format(V4, "POST"),
            f"{V4} malformed",
        ]
    )
    assert_no_address_is_kept(imports)
    raw = imports.raw()
    assert [one.get("ip") for one in raw] == ["198.51.100.0", "2001:db8:1::", "203.0.113.0", None, None, None]
    assert set(raw[4]) == set(raw[5]) == {"rejected", "domain", "timestamp", "line", "hour", "object"}


def test_events_leave_no_address_behind(imports: Any, event: Callable[..., Any]) -> None:
    imports.events([event(ip=V4), event(ip=V6), event(ip=MAPPED), event(ip=V4, visitor_id="v"), event(ip=V4, name="")])
    assert_no_address_is_kept(imports)
    assert [one.get("ip") for one in imports.raw()] == [
        "198.51.100.0",
        "2001:db8:1::",
        "203.0.113.0",
        "198.51.100.0",
        None,
    ]


def test_a_supplied_visitor_has_no_hash(imports: Any, event: Callable[..., Any]) -> None:
    imports.events([event(visitor_id="v", ip=V4), event(user_id="u", ip=V4)])
    supplied, computed = imports.raw()
    assert (supplied["visitor_id"], "visitor_hash" in supplied) == ("v", False)
    assert ("visitor_id" in computed, len(computed["visitor_hash"])) == (False, 16)


def test_the_hash_is_carried_over_at_midnight_of_the_sites_own_zone(imports: Any, event: Callable[..., Any]) -> None:
    imports.stores.ledger.add_site("shop.example", "Asia/Kolkata")  # its midnight is 18:30 UTC
    times = ["18:29:59.999", "18:30", "18:59:59.999", "19:00", "23:59:59", "00:00"]
    imports.events([event(timestamp=f"2015-05-17T{time}Z", ip=V4, user_agent="Mozilla") for time in times])
    raw = {one["timestamp"]: one for one in imports.raw()}
    last, first, still, over, late, early = (
        raw[from_datetime(datetime.fromisoformat(f"2015-05-17T{time}Z"))] for time in times
    )
    assert "previous_visitor_hash" not in last
    assert (
        first["previous_visitor_hash"]
        == still["previous_visitor_hash"]
        == last["visitor_hash"]
        == early["visitor_hash"]
    )
    assert first["visitor_hash"] == over["visitor_hash"] == late["visitor_hash"] != last["visitor_hash"]
    assert not {"previous_visitor_hash"} & (over.keys() | late.keys() | early.keys())


def test_two_imports_give_a_visitor_two_hashes_but_an_event_one_id(imports: Any, event: Callable[..., Any]) -> None:
    imports.events([event(ip=V4)])
    imports.events([event(ip=V4), event(ip=V4, name="signup")])
    first, again, *_ = sorted(imports.raw(), key=lambda one: (one["name"], one["line"], one["object"]))
    assert first["event_id"] == again["event_id"]
    assert first["visitor_hash"] != again["visitor_hash"]


def test_the_key_of_assigned_ids_is_random_and_kept(
    imports: Any, event: Callable[..., Any], new_database: Callable[..., str], migrated: str
) -> None:
    key = imports.stores.ledger.secret("event_id_key")
    with Ledger(imports.stores.postgres_url) as again, Ledger(new_database(migrated)) as other:
        assert again.secret("event_id_key") == key != other.secret("event_id_key")
    assert len(key) == 32
    imports.events([line := event()])
    assert imports.raw()[0]["event_id"] == str(assigned_event_id(key, "shop.example", json.dumps(line).encode(), 1))
