"""What a request holds becomes raw lines or refusals: identity, limits, and every poison that was ever sent."""

import gzip
import json
import zlib
from datetime import date
from ipaddress import ip_network
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.transforms.parse import parse
from ingestion.collector.directory import NotReady
from ingestion.collector.door import MAX_BODY_BYTES, MAX_EVENTS, Door, Opened, Sender, address_of, unpacked
from ingestion.event import RawLine, Reason, Refused
from ingestion.identity import ImportSalts
from ingestion.site_time import HOUR_MS, MINUTE_MS, floor_hour
from tests.ingestion.test_event import ONLY_AT_THE_DOOR

NOW = 1_795_000_000_000
ID = UUID("0192f0c1-2345-7abc-8def-0123456789ab")
SENDER = Sender("198.51.100.23", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
ZONES = {"shop.example": "Europe/Berlin", "other.example": "Asia/Tokyo"}
door = Door(ZONES.get, ImportSalts(b"k"), new_id=lambda: ID)
decode = msgspec.json.Decoder(RawLine).decode


def event(**fields: Any) -> dict[str, Any]:
    return {"domain": "shop.example", "name": "pageview", "url": "https://shop.example/a"} | fields


def sent(content: Any, sender: Sender = SENDER, now: int = NOW) -> Opened:
    return door.open(content if isinstance(content, bytes) else json.dumps(content).encode(), sender, now)


def reason_of(content: Any) -> Reason:
    try:
        ((index, reason),) = sent(content).refused
    except Refused as refused:
        return refused.reason
    assert index == 0
    return reason


def test_an_event_gets_a_time_an_id_and_an_identity_without_the_address() -> None:
    opened = sent(event())
    (line,) = opened.lines
    raw = decode(line)
    assert (opened.accepted, opened.refused) == (1, [])
    assert (raw.domain, raw.timestamp, raw.event_id, raw.ip) == ("shop.example", NOW, ID, "198.51.100.0")
    assert raw.user_agent == SENDER.agent
    assert raw.visitor_hash and len(raw.visitor_hash) == 16
    assert b"198.51.100.23" not in line


def test_the_same_sender_is_the_same_visitor_of_a_site_and_date_and_another_elsewhere() -> None:
    def hash_of(sender: Sender = SENDER, now: int = NOW, **fields: Any) -> str | None:
        return decode(sent(event(**fields), sender, now).lines[0]).visitor_hash

    same = hash_of()
    assert hash_of(now=NOW + MINUTE_MS) == hash_of(url="https://shop.example/b") == same
    others = [
        hash_of(domain="other.example"),
        hash_of(Sender("198.51.100.24", SENDER.agent)),
        hash_of(Sender(SENDER.address, "x")),
    ]
    assert len({same, *others, hash_of(now=NOW + 24 * HOUR_MS)}) == 5


def test_a_supplied_identity_is_kept_and_needs_no_hash() -> None:
    raw = decode(sent(event(visitor_id="v-1", event_id=str(ID), timestamp=NOW - HOUR_MS)).lines[0])
    assert (raw.visitor_id, raw.visitor_hash, raw.event_id, raw.timestamp) == ("v-1", None, ID, NOW - HOUR_MS)


def test_what_only_an_import_may_state_is_not_taken_from_a_visitor() -> None:
    raw = decode(sent(event(ip="203.0.113.9", user_agent="curl", country="XX", source="me", bot=True)).lines[0])
    assert (raw.ip, raw.user_agent, raw.country, raw.source, raw.bot) == (
        "198.51.100.0",
        SENDER.agent,
        None,
        None,
        None,
    )


def test_a_list_of_domains_counts_for_each() -> None:
    opened = sent(event(domain="shop.example,Other.Example,shop.example"))
    assert [decode(line).domain for line in opened.lines] == ["shop.example", "other.example"]
    assert opened.accepted == 1
    assert reason_of(event(domain="shop.example,nobody.example")) == "unknown_site"


def test_an_array_keeps_its_good_events_and_names_the_others() -> None:
    opened = sent([event(), event(url=None), 7, event(name="Signup"), event(domain="nobody.example")])
    assert [decode(line).name for line in opened.lines] == ["pageview", "Signup"]
    assert opened.accepted == 2
    assert opened.refused == [(1, "missing_url"), (2, "not_an_object"), (4, "unknown_site")]


def test_times_at_the_limits() -> None:
    assert sent(event(timestamp=NOW - 72 * HOUR_MS)).accepted == 1
    assert sent(event(timestamp=NOW + MINUTE_MS)).accepted == 1
    assert reason_of(event(timestamp=NOW - 72 * HOUR_MS - 1)) == "too_old"
    assert reason_of(event(timestamp=NOW + MINUTE_MS + 1)) == "too_early"
    late_starter = Door(ZONES.get, ImportSalts(b"k"), start_ms=NOW - HOUR_MS)
    opened = late_starter.open(json.dumps([event(timestamp=NOW - HOUR_MS - at) for at in (0, 1)]).encode(), SENDER, NOW)
    assert opened.refused == [(1, "too_old")]  # there are no partitions for it


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"[{}", "malformed_json"),
        (b"[]", "no_events"),
        (b"7", "not_an_object"),
        (b"\xff\xfe{}", "invalid_utf8"),
        (b'{"domain": "shop.example", "name": "\\ud800", "url": "https://shop.example/"}', "malformed_json"),
        (b'{"domain": "shop.example", "name": "x\\u0000", "url": "https://shop.example/"}', "invalid_name"),
        (b'{"domain": "shop.example", "name": "x", "url": "https://shop.example/", "scroll_depth": NaN}', "malformed_json"),
        (b'{"domain": "shop.example", "name": "x", "url": "https://shop.example/", "scroll_depth": 1e400}', "invalid_scroll_depth"),
        (b'{"domain": "shop.example", "name": "x", "url": "https://shop.example/", "screen_width": 18446744073709551616}', "invalid_screen_width"),
        (b'{"domain": "shop.example", "name": "x", "url": "https://shop.example/", "timestamp": 18446744073709551616}', "invalid_timestamp"),
        (b'{"props": ' + b"[" * 1_500 + b"]" * 1_500 + b"}", "invalid_props"),
        (b"[" * 1_500 + b"]" * 1_500, "nested_too_deep"),
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", "too_many_events"),
    ],
)  # fmt: skip
def test_poison_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    assert reason_of(body) == reason


def test_nul_and_large_numbers_in_what_is_optional_are_kept_clean() -> None:
    raw = decode(sent(event(title="a\0b", referrer="\0", props={"k\0": "v\0", "big": 2**64})).lines[0])
    assert (raw.title, raw.referrer, raw.props) == ("ab", None, {"k": "v", "big": 2**64})
    (read,) = parse("x", sent(event(props={"big": 2**64})).lines[0], floor_hour(NOW), 10)
    assert read.events["props"].to_list() == ['{"big":18446744073709551616}']


@pytest.mark.parametrize("agent", ["", "\0", "x" * 100_000, "é" * 3_000])
def test_any_agent_is_accepted(agent: str) -> None:
    (read,) = parse("x", sent(event(), Sender("", agent)).lines[0], floor_hour(NOW), 10)
    assert read.events.height == 1


ANY = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("x" * 2_001)
FIELDS = dict.fromkeys(("domain", "name", "url", "referrer", "props", "revenue", "interactive", "scroll_depth", "event_id", "timestamp", "visitor_id", "user_id", "title", "d", "n", "u", "$", "e"), ANY)  # fmt: skip


@given(
    st.lists(st.fixed_dictionaries({}, optional=FIELDS).map(lambda odd: event() | odd), min_size=1, max_size=5),
    st.text(max_size=50),
    st.text(max_size=20),
)
def test_what_is_accepted_is_an_event_when_it_is_read_again(
    events: list[dict[str, Any]], agent: str, address: str
) -> None:
    body = json.dumps(events, allow_nan=True).encode()
    try:
        opened = door.open(body, Sender(address, agent), NOW)
    except Refused:
        return
    read = list(parse("x", b"\n".join(opened.lines), floor_hour(NOW), 1_000))
    assert sum(part.events.height for part in read) == len(opened.lines)
    assert opened.accepted + len(opened.refused) == len(events)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_packed_bodies_are_unpacked_up_to_the_limit(pack: Any) -> None:
    assert unpacked(pack(b"x" * MAX_BODY_BYTES), "gzip") == b"x" * MAX_BODY_BYTES
    with pytest.raises(Refused, match="body_too_large"):
        unpacked(pack(b"x" * (100 * MAX_BODY_BYTES)), "gzip")
    for broken in (b"", b"no gzip", pack(b"x" * 1_000)[:-9], pack(b"x") + b"y", pack(b"x") + pack(b"y")):
        with pytest.raises(Refused, match="unsupported_encoding"):
            unpacked(broken, "gzip")
    with pytest.raises(Refused, match="unsupported_encoding"):
        unpacked(b"{}", "br")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.1", "", "203.0.113.1"),
        ("203.0.113.1", "192.0.2.1", "203.0.113.1"),  # says it of itself
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),  # what the visitor put there before
        ("10.0.0.1", "192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", "192.0.2.1,", "10.0.0.1"),
        ("10.0.0.1", "192.0.2.1, nonsense", ""),
        ("10.0.0.1", "192.0.2.1, 10.0.0.", ""),
        ("", "192.0.2.1", ""),
        # each visitor has one way to be written
        ("::ffff:10.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),  # of a server that listens at [::]
        ("10.0.0.1", "192.0.2.1:51234", "192.0.2.1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]:51234", "2001:db8::1"),
        ("10.0.0.1", "fe80::1%eth0", "fe80::1"),
    ],
)  # fmt: skip
def test_the_address_is_as_far_back_as_proxies_are_trusted(peer: str, forwarded: str, address: str) -> None:
    assert address_of(peer, forwarded, [ip_network("10.0.0.0/8")]) == address


REQUESTS: dict[str, tuple[bytes, str, Reason]] = {
    "no event": (b"[]", "", Reason.NO_EVENTS),
    "1,001 events": (b"[" + b"{}," * MAX_EVENTS + b"{}]", "", Reason.TOO_MANY_EVENTS),
    "10 MB, packed": (gzip.compress(b" " * 10_000_000), "gzip", Reason.BODY_TOO_LARGE),
    "not packed": (b"{}", "gzip", Reason.UNSUPPORTED_ENCODING),
    "unknown site": (json.dumps(event(domain="nobody.example")).encode(), "", Reason.UNKNOWN_SITE),
    "72 hours and 1 ms old": (json.dumps(event(timestamp=NOW - 72 * HOUR_MS - 1)).encode(), "", Reason.TOO_OLD),
    "a minute and 1 ms ahead": (json.dumps(event(timestamp=NOW + MINUTE_MS + 1)).encode(), "", Reason.TOO_EARLY),
}


@pytest.mark.parametrize(("body", "encoding", "reason"), REQUESTS.values(), ids=REQUESTS)
def test_what_only_the_door_refuses(body: bytes, encoding: str, reason: Reason) -> None:
    try:
        assert reason_of(unpacked(body, encoding)) == reason
    except Refused as refused:
        assert refused.reason == reason


def test_every_reason_of_the_door_is_reached() -> None:
    assert {reason for _, _, reason in REQUESTS.values()} == ONLY_AT_THE_DOOR


MANY = [f"{number}.shop" for number in range(190)]


def test_one_body_does_not_become_hundreds_of_megabytes() -> None:
    """An event becomes a line for each site that it names, of a thousand events with a hundred sites each."""
    everywhere = Door(dict.fromkeys(MANY, "UTC").get, ImportSalts(b"k"))
    named = ",".join(MANY)
    opened = everywhere.open(json.dumps(event(domain=named, title="x" * 2_000)).encode(), SENDER, NOW)
    assert (opened.accepted, len(opened.lines)) == (1, len(MANY))
    with pytest.raises(Refused, match="body_too_large"):
        everywhere.open(json.dumps([event(domain=named)] * 400).encode(), SENDER, NOW)
    large = event(domain=named, props={str(number): "x" * 2_000 for number in range(30)})
    assert everywhere.open(json.dumps(large).encode(), SENDER, NOW).refused == [(0, "body_too_large")]


def test_a_thousand_usual_events_fit() -> None:
    opened = sent([event(title="x" * 800)] * MAX_EVENTS, Sender(SENDER.address, "é" * 10_000))
    assert opened.accepted == MAX_EVENTS


def test_a_clock_that_steps_back_is_believed() -> None:
    """An event without a time has the time at which it came; one that says its own may seem early until the clock is right."""
    stepped = NOW - 3 * HOUR_MS
    times = [decode(sent(event(), now=now).lines[0]).timestamp for now in (NOW, stepped, stepped + 1, NOW)]
    assert times == [NOW, stepped, stepped + 1, NOW]
    assert sent(event(timestamp=NOW), now=stepped).refused == [(0, "too_early")]
    assert sent(event(timestamp=stepped), now=NOW).accepted == 1


def test_without_a_salt_nothing_of_the_request_is_kept() -> None:
    def no_salt(day: date) -> bytes:
        raise NotReady(f"there is no salt for {day} yet")

    waiting = Door(ZONES.get, no_salt)
    with pytest.raises(NotReady):
        waiting.open(json.dumps([event(visitor_id="v"), event()]).encode(), SENDER, NOW)
    assert waiting.open(json.dumps(event(visitor_id="v")).encode(), SENDER, NOW).accepted == 1


def test_the_salts_are_of_the_date_of_the_site() -> None:
    asked: list[date] = []

    def salt(day: date) -> bytes:
        asked.append(day)
        return b"salt"

    half_past_midnight_in_tokyo = 1_794_929_400_000 - 1_794_929_400_000 % (24 * HOUR_MS) + 15 * HOUR_MS + 10 * MINUTE_MS
    opened = Door(ZONES.get, salt).open(
        json.dumps(event(domain="other.example")).encode(), SENDER, half_past_midnight_in_tokyo
    )
    today, before = asked
    assert (today - before).days == 1
    assert decode(opened.lines[0]).previous_visitor_hash
