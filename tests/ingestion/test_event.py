"""The wire format: its fields, its limits, and every reason for which a line is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.event import (
    OPTIONAL_TEXT,
    SHORT_NAMES,
    Event,
    RawLine,
    Reason,
    Refused,
    Revenue,
    WireEvent,
    decode,
    encode,
    instant_of,
    refusal,
    site_name,
    sites_in,
)

GOOD = {"domain": "shop.example", "name": "pageview", "url": "https://shop.example/"}
URL = "https://shop.example/"
LONGEST_URL = URL + "a" * (2_000 - len(URL))
LONGEST_URL_OF_ACCENTS = URL + "a" + "é" * ((1_999 - len(URL)) // 2)
EUROS = {"currency": "EUR", "amount": "12.90"}


def line(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields, ensure_ascii=False).encode()


def with_json(fields: str) -> bytes:
    """A good event and some fields that json.dumps would not write."""
    return line()[:-1] + f", {fields}}}".encode()


def reason_of(sent: bytes) -> Reason | None:
    try:
        return refusal(decode(sent, WireEvent))
    except Refused as refused:
        return refused.reason


ACCEPTED: dict[str, dict[str, Any]] = {
    "no more than is required": {},
    "name of 120": {"name": "x" * 120},
    "name of 120 accents": {"name": "é" * 120},
    "url of 2,000": {"url": LONGEST_URL},
    "url of 2,000 in accents": {"url": LONGEST_URL_OF_ACCENTS},
    "url of an app": {"url": "app://screen/start"},
    "url in capitals": {"url": "HTTPS://SHOP.EXAMPLE"},
    "referrer of 2,000": {"referrer": LONGEST_URL},
    "referrer that is no url": {"referrer": "android-app"},
    "empty referrer": {"referrer": ""},
    "30 props": {"props": {str(n): n for n in range(30)}},
    "props of every scalar": {"props": {"t": "x", "i": 2**64, "f": 0.5, "b": True, "n": None}},
    "prop key of 300": {"props": {"k" * 300: 1}},
    "prop key of 300 in accents": {"props": {"é" * 150: 1}},
    "prop value of 2,000": {"props": {"k": "v" * 2_000}},
    "prop value of 2,000 in emoji": {"props": {"k": "🦊" * 500}},
    "no props": {"props": {}},
    "props of null": {"props": None},
    "revenue": {"revenue": EUROS},
    "revenue as a number": {"revenue": {"currency": "eur", "amount": 12.9}},
    "revenue as a whole number": {"revenue": {"currency": "JPY", "amount": 1200}},
    "refund": {"revenue": {"currency": "EUR", "amount": "-0.000001"}},
    "largest revenue": {"revenue": {"currency": "EUR", "amount": "9" * 15 + ".999999"}},
    "interactive": {"interactive": False},
    "scroll depth 0": {"scroll_depth": 0},
    "scroll depth 100": {"scroll_depth": 100},
    "engagement 0 ms": {"engagement_time": 0},
    "engagement of 2^31-1": {"engagement_time": 2**31 - 1},
    "screen width": {"screen_width": 1_920.5},
    "language of 2,000": {"language": "x" * 2_000},
    "title of 2,000 characters": {"title": "é" * 2_000},
    "event id": {"event_id": "0189f7a5-8d5c-7cc0-a3a5-0123456789ab"},
    "time in ms": {"timestamp": 1_431_857_103_000},
    "time in ms, with a fraction": {"timestamp": 1_431_857_103_000.5},
    "time in ISO 8601": {"timestamp": "2015-05-17T10:05:03.250+05:45"},
    "date": {"timestamp": "2015-05-17"},
    "last ms of the year 9999": {"timestamp": 253_402_300_799_999},
    "visitor id of 300": {"visitor_id": "v" * 300},
    "user id of 300": {"user_id": "u" * 300},
    "bot": {"bot": True},
    "stated values of 2,000": dict.fromkeys(OPTIONAL_TEXT[4:], "x" * 2000),
    "unknown field": {"surprise": {"a": [1, {"b": None}]}},
    "two sites": {"domain": "a.example,b.example"},
    "site of 253": {"domain": "a" * 253},
}

REFUSED: dict[str, tuple[bytes, Reason]] = {
    # what is no event at all
    "nothing": (b"", Reason.MALFORMED_JSON),
    "blanks": (b"   ", Reason.MALFORMED_JSON),
    "half an object": (line()[:-1], Reason.MALFORMED_JSON),
    "two objects": (line() + line(), Reason.MALFORMED_JSON),
    "NaN": (with_json('"scroll_depth": NaN'), Reason.MALFORMED_JSON),
    "infinity": (with_json('"scroll_depth": Infinity'), Reason.MALFORMED_JSON),
    "high surrogate alone": (with_json(r'"title": "\ud800"'), Reason.MALFORMED_JSON),
    "high surrogate, then text": (with_json(r'"title": "\ud800abcdef"'), Reason.MALFORMED_JSON),
    "low surrogate alone": (with_json(r'"title": "\udc00"'), Reason.MALFORMED_JSON),
    "surrogate in the name": (line().replace(b"pageview", rb"\ud800"), Reason.MALFORMED_JSON),
    "NUL as a byte": (line(title="a\1b").replace(rb"\u0001", b"\0"), Reason.MALFORMED_JSON),
    "invalid UTF-8": (line(title="x").replace(b'"x"', b'"\xff"'), Reason.INVALID_UTF8),
    "surrogate in UTF-8": (line(title="x").replace(b'"x"', b'"\xed\xa0\x80"'), Reason.INVALID_UTF8),
    "binary": (bytes(range(128, 256)), Reason.INVALID_UTF8),
    "array": (b"[]", Reason.NOT_AN_OBJECT),
    "array 100,000 deep": (b"[" * 100_000, Reason.NOT_AN_OBJECT),
    "null": (b"null", Reason.NOT_AN_OBJECT),
    "text": (b'"pageview"', Reason.NOT_AN_OBJECT),
    "number": (b"1", Reason.NOT_AN_OBJECT),
    "1,500 deep": (with_json('"x": ' + "[" * 1_500 + "]" * 1_500), Reason.NESTED_TOO_DEEP),
    "1,500 objects deep": (with_json('"x": ' + '{"a":' * 1_500 + "1" + "}" * 1_500), Reason.NESTED_TOO_DEEP),
    "100,000 deep": (with_json('"x": ' + "[" * 100_000 + "]" * 100_000), Reason.NESTED_TOO_DEEP),
    "100,000 deep, broken off": (b'{"a":' * 100_000, Reason.NESTED_TOO_DEEP),
    "1,000,001 bytes": (line().ljust(1_000_001), Reason.LINE_TOO_LONG),
    "10 MB": (line(title="x" * 10_000_000), Reason.LINE_TOO_LONG),
    # what is required
    "no field": (b"{}", Reason.MISSING_DOMAIN),
    "empty domain": (line(domain=""), Reason.MISSING_DOMAIN),
    "domain of null": (line(domain=None), Reason.MISSING_DOMAIN),
    "domain is a number": (line(domain=1), Reason.INVALID_DOMAIN),
    "NUL in the domain": (line(domain="shop\0.example"), Reason.INVALID_DOMAIN),
    "blank in the domain": (line(domain="shop example"), Reason.INVALID_DOMAIN),
    "domain is an address": (line(domain="https://shop.example/"), Reason.INVALID_DOMAIN),
    "domain is blank": (line(domain=" "), Reason.INVALID_DOMAIN),
    "domain of 254": (line(domain="a" * 254), Reason.INVALID_DOMAIN),
    "a second site is missing": (line(domain="a.example,"), Reason.INVALID_DOMAIN),
    "one of two sites is wrong": (line(domain="a.example,b/c"), Reason.INVALID_DOMAIN),
    "domains of 2,001 bytes": (line(domain=",".join(["abcd.efgh"] * 200) + ",x"), Reason.INVALID_DOMAIN),
    "empty name": (line(name=""), Reason.MISSING_NAME),
    "name of null": (line(name=None), Reason.MISSING_NAME),
    "name of 121": (line(name="x" * 121), Reason.INVALID_NAME),
    "name of 121 accents": (line(name="é" * 121), Reason.INVALID_NAME),
    "NUL in the name": (line(name="page\0view"), Reason.INVALID_NAME),
    "name is an array": (line(name=["pageview"]), Reason.INVALID_NAME),
    "empty url": (line(url=""), Reason.MISSING_URL),
    "url of null": (line(url=None), Reason.MISSING_URL),
    "url of 2,001": (line(url=LONGEST_URL + "a"), Reason.URL_TOO_LONG),
    "url of 2,001 in accents": (line(url=LONGEST_URL_OF_ACCENTS + "é"), Reason.URL_TOO_LONG),
    "url without a host": (line(url="https:///path"), Reason.INVALID_URL),
    "url is a path": (line(url="/path"), Reason.INVALID_URL),
    "url is a host": (line(url="shop.example/path"), Reason.INVALID_URL),
    "NUL in the url": (line(url=URL + "\0"), Reason.INVALID_URL),
    "NUL in the host": (line(url="https://\0"), Reason.INVALID_URL),
    "url is a number": (line(url=1), Reason.INVALID_URL),
    # the other fields
    "referrer is a number": (line(referrer=1), Reason.INVALID_REFERRER),
    "referrer of 2,001": (line(referrer=LONGEST_URL + "a"), Reason.REFERRER_TOO_LONG),
    "referrer of 2,001 in accents": (line(referrer=LONGEST_URL_OF_ACCENTS + "é"), Reason.REFERRER_TOO_LONG),
    "31 props": (line(props={str(n): n for n in range(31)}), Reason.INVALID_PROPS),
    "prop key of 301": (line(props={"k" * 301: 1}), Reason.INVALID_PROPS),
    "prop key of 302 in accents": (line(props={"é" * 151: 1}), Reason.INVALID_PROPS),
    "prop value of 2,001": (line(props={"k": "v" * 2_001}), Reason.INVALID_PROPS),
    "prop value of 2,004 in emoji": (line(props={"k": "🦊" * 501}), Reason.INVALID_PROPS),
    "prop is an array": (line(props={"k": [1]}), Reason.INVALID_PROPS),
    "prop is an object": (line(props={"k": {}}), Reason.INVALID_PROPS),
    "prop of 1e400": (with_json('"props": {"k": 1e400}'), Reason.INVALID_PROPS),
    "prop of 5,000 digits": (with_json(f'"props": {{"k": {"9" * 5_000}}}'), Reason.INVALID_PROPS),
    "props are text": (line(props="k=v"), Reason.INVALID_PROPS),
    "short props are text": (line(p="k=v"), Reason.INVALID_PROPS),
    "revenue is a number": (line(revenue=12.9), Reason.INVALID_REVENUE),
    "short revenue is a number": (line(**{"$": 12.9}), Reason.INVALID_REVENUE),
    "revenue without a currency": (line(revenue={"amount": "1"}), Reason.INVALID_REVENUE),
    "revenue without an amount": (line(revenue={"currency": "EUR"}), Reason.INVALID_REVENUE),
    "currency of two letters": (line(revenue=EUROS | {"currency": "EU"}), Reason.INVALID_REVENUE),
    "currency and a line end": (line(revenue=EUROS | {"currency": "EUR\n"}), Reason.INVALID_REVENUE),
    "amount in words": (line(revenue=EUROS | {"amount": "ten"}), Reason.INVALID_REVENUE),
    "amount and a line end": (line(revenue=EUROS | {"amount": "1\n"}), Reason.INVALID_REVENUE),
    "amount of 16 digits": (line(revenue=EUROS | {"amount": "1" * 16}), Reason.INVALID_REVENUE),
    "amount as a number of 16 digits": (line(revenue=EUROS | {"amount": 10**15}), Reason.INVALID_REVENUE),
    "amount of 7 decimals": (line(revenue=EUROS | {"amount": "0.0000001"}), Reason.INVALID_REVENUE),
    "amount of 1e400": (with_json('"revenue": {"currency": "EUR", "amount": 1e400}'), Reason.INVALID_REVENUE),
    "interactive is text": (line(interactive="no"), Reason.INVALID_INTERACTIVE),
    "interactive is 0": (line(i=0), Reason.INVALID_INTERACTIVE),
    "scroll depth 101": (line(scroll_depth=101), Reason.INVALID_SCROLL_DEPTH),
    "scroll depth -1": (line(sd=-1), Reason.INVALID_SCROLL_DEPTH),
    "scroll depth 1e400": (with_json('"scroll_depth": 1e400'), Reason.INVALID_SCROLL_DEPTH),
    "engagement of 2^31": (line(engagement_time=2**31), Reason.INVALID_ENGAGEMENT_TIME),
    "engagement of 2^64": (line(e=2**64), Reason.INVALID_ENGAGEMENT_TIME),
    "engagement of -1": (line(e=-1), Reason.INVALID_ENGAGEMENT_TIME),
    "screen width is text": (line(screen_width="1920"), Reason.INVALID_SCREEN_WIDTH),
    "language of 2,001": (line(language="x" * 2_001), Reason.INVALID_LANGUAGE),
    "title of 2,001 characters": (line(title="é" * 2_001), Reason.INVALID_TITLE),
    "event id is text": (line(event_id="first"), Reason.INVALID_EVENT_ID),
    "event id is a number": (line(event_id=1), Reason.INVALID_EVENT_ID),
    "time is a word": (line(timestamp="now"), Reason.INVALID_TIMESTAMP),
    "time is empty": (line(timestamp=""), Reason.INVALID_TIMESTAMP),
    "time is true": (line(timestamp=True), Reason.INVALID_TIMESTAMP),
    "time of 30 February": (line(timestamp="2015-02-30"), Reason.INVALID_TIMESTAMP),
    "time of -1": (line(timestamp=-1), Reason.INVALID_TIMESTAMP),
    "time of 2^64": (line(timestamp=2**64), Reason.INVALID_TIMESTAMP),
    "time of 1e400": (with_json('"timestamp": 1e400'), Reason.INVALID_TIMESTAMP),
    "time of the year 10,000": (line(timestamp=253_402_300_800_000), Reason.INVALID_TIMESTAMP),
    "time of the year 10,000 in UTC": (line(timestamp="9999-12-31T23:00:00-05:00"), Reason.INVALID_TIMESTAMP),
    "time of the year 0 in UTC": (line(timestamp="0001-01-01T00:00:00+05:00"), Reason.INVALID_TIMESTAMP),
    "empty visitor id": (line(visitor_id=""), Reason.INVALID_VISITOR_ID),
    "visitor id of 301": (line(visitor_id="v" * 301), Reason.INVALID_VISITOR_ID),
    "NUL in the visitor id": (line(visitor_id="a\0b"), Reason.INVALID_VISITOR_ID),
    "visitor id is a number": (line(visitor_id=1), Reason.INVALID_VISITOR_ID),
    "empty user id": (line(user_id=""), Reason.INVALID_USER_ID),
    "user id of 301": (line(user_id="u" * 301), Reason.INVALID_USER_ID),
    "country is a number": (line(country=1), Reason.INVALID_STATED_VALUE),
    "bot is text": (line(bot="yes"), Reason.INVALID_STATED_VALUE),
    "browser of 2,001": (line(browser="x" * 2_001), Reason.INVALID_STATED_VALUE),
}

ONLY_IN_ACCESS_LOGS = {Reason.NOT_A_PAGEVIEW, Reason.MALFORMED_LINE}
ONLY_AT_THE_DOOR = {
    Reason.UNKNOWN_SITE,
    Reason.TOO_OLD,
    Reason.TOO_EARLY,
    Reason.BODY_TOO_LARGE,
    Reason.TOO_MANY_EVENTS,
    Reason.NO_EVENTS,
    Reason.UNSUPPORTED_ENCODING,
}
"""Of a request, a site or a clock; tests/ingestion/collector/test_door.py reaches each."""


@pytest.mark.parametrize("fields", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(fields: dict[str, Any]) -> None:
    event = decode(line(**fields), WireEvent)
    assert refusal(event) is None
    kept = decode(encode(event), RawLine)
    assert refusal(kept) is None, "what was accepted once is accepted when it is read again"
    for name in fields.keys() & set(Event.__struct_fields__):
        assert getattr(kept, name) == getattr(event, name)


@pytest.mark.parametrize(("sent", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused(sent: bytes, reason: Reason) -> None:
    assert reason_of(sent) == reason


def test_every_reason_is_reached() -> None:
    reached = {reason for _, reason in REFUSED.values()}
    assert reached | ONLY_IN_ACCESS_LOGS | ONLY_AT_THE_DOOR == set(Reason)
    assert not reached & (ONLY_IN_ACCESS_LOGS | ONLY_AT_THE_DOOR)


VALUES = {
    "domain": "a.example",
    "name": "signup",
    "url": "https://a.example/x",
    "referrer": "https://b.example/",
    "props": {"k": "v"},
    "revenue": EUROS,
    "interactive": False,
    "scroll_depth": 42.5,
    "engagement_time": 1_500.0,
}


@pytest.mark.parametrize(
    ("short", "long"), [(short.replace("short_revenue", "$"), long) for short, long in SHORT_NAMES.items()]
)
def test_a_short_name_says_what_the_long_one_says(short: str, long: str) -> None:
    rest = {name: value for name, value in VALUES.items() if name != long}
    by_long = decode(json.dumps(rest | {long: VALUES[long]}).encode(), WireEvent)
    by_short = decode(json.dumps(rest | {short: VALUES[long]}).encode(), WireEvent)
    assert getattr(by_long, long) is not None
    assert by_short == by_long


def test_the_long_name_wins() -> None:
    assert decode(line(n="short"), WireEvent).name == "pageview"


def test_a_false_short_name_is_not_lost() -> None:
    event = decode(line(i=False, sd=0, e=0), WireEvent)
    assert (event.interactive, event.scroll_depth, event.engagement_time) == (False, 0, 0)


def test_of_a_key_that_is_sent_twice_the_last_counts() -> None:
    assert decode(with_json('"name": "second", "props": {"k": 1, "k": 2}'), WireEvent).name == "second"
    assert decode(with_json('"props": {"k": 1, "k": 2}'), WireEvent).props == {"k": 2}


@pytest.mark.parametrize("field", OPTIONAL_TEXT)
def test_nul_is_removed_from_optional_text(field: str) -> None:
    event = decode(line(**{field: "a\0b\0"}), WireEvent)
    assert (getattr(event, field), refusal(event)) == ("ab", None)


def test_nul_is_removed_from_props_and_from_short_names() -> None:
    event = decode(line(r="a\0b", p={"k\0": "v\0", "n": 1}), WireEvent)
    assert (event.referrer, event.props) == ("ab", {"k": "v", "n": 1})


@pytest.mark.parametrize("field", OPTIONAL_TEXT)
def test_a_value_of_nul_alone_is_accepted_when_it_is_read_again(field: str) -> None:
    kept = decode(encode(decode(line(**{field: "\0"}), WireEvent)), RawLine)
    assert refusal(kept) is None
    assert not getattr(kept, field)


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert decode(with_json(r'"title": "\\u0000"'), WireEvent).title == r"\u0000"


def test_a_line_of_1_000_000_bytes_is_accepted() -> None:
    assert reason_of(line().ljust(1_000_000)) is None


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(sent: bytes) -> None:
    refused_or_decoded(sent)


FIELDS = st.sampled_from(sorted({*RawLine.__struct_fields__, *WireEvent.__struct_fields__, "$", "other"}))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([*GOOD.values(), "\0", "2015-05-17"])
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | FIELDS, inner, max_size=3)
)


@given(st.dictionaries(FIELDS, JSON, max_size=6), st.integers(0, 400), st.binary(max_size=3))
def test_any_fields_are_decoded_or_refused_also_when_damaged(fields: dict[str, Any], at: int, damage: bytes) -> None:
    sent = json.dumps(GOOD | fields).encode()
    refused_or_decoded(sent)
    refused_or_decoded(sent[:at] + damage + sent[at + len(damage) :])


def refused_or_decoded(sent: bytes) -> None:
    for kind in (WireEvent, RawLine):
        try:
            event = decode(sent, kind)
        except Refused as refused:
            assert refused.reason in Reason
        else:
            assert refusal(event) in {None, *Reason}


NUMBERS = st.floats(0, 2**31 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=120)


@given(
    st.builds(
        RawLine,
        **{
            name: st.none() | WORDS
            for name in ("domain", "name", "url", "visitor_id", "visitor_hash", "rejected", *OPTIONAL_TEXT)
        },
        props=st.none()
        | st.dictionaries(
            WORDS, WORDS | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
        ),
        revenue=st.none() | st.just(Revenue("EUR", "-12.90")) | st.just(Revenue("usd", 3)),
        interactive=st.none() | st.booleans(),
        scroll_depth=st.none() | st.floats(0, 100),
        engagement_time=st.none() | NUMBERS,
        event_id=st.none() | st.uuids(),
        timestamp=st.none() | st.integers(0, 253_402_300_799_999),
        line=st.none() | st.integers(1, 2**40),
    )
)
def test_a_raw_line_is_read_as_it_was_written(raw: RawLine) -> None:
    written = encode(raw)
    assert b"\n" not in written
    assert decode(written, RawLine) == raw


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop.example", "shop.example"),
        (" Shop.Example ", "shop.example"),
        ("localhost:8000", "localhost:8000"),
        ("münchen.example", "münchen.example"),
        ("a" * 253, "a" * 253),
        ("a" * 254, None),
        ("", None),
        (" ", None),
        ("a b", None),
        ("a,b", None),
        ("a/b", None),
        ("a?b", None),
        ("a#b", None),
        ("a\0", None),
        ("a\x7f", None),
    ],
)
def test_site_name(text: str, name: str | None) -> None:
    assert site_name(text) == name


@pytest.mark.parametrize(
    ("domain", "sites"),
    [
        ("a.example", ("a.example",)),
        ("a.example, B.example ,c.example", ("a.example", "b.example", "c.example")),
        ("a.example,A.EXAMPLE", ("a.example",)),
        ("b.example,a.example,b.example", ("b.example", "a.example")),
        (",", ()),
        ("a.example,,b.example", ()),
    ],
)
def test_sites_in(domain: str, sites: tuple[str, ...]) -> None:
    assert sites_in(domain) == sites


@pytest.mark.parametrize(
    ("timestamp", "instant"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00:01", 1_000),
        ("1970-01-01T00:00:00.001999Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00-00:30", 1_800_000),
        ("1969-12-31T23:59:59.999Z", -1),
        (0, 0),
        (1.9, 1),
        (None, None),
        ("2015-05-17T25:00:00", None),
        ("\0", None),
    ],
)
def test_instant_of(timestamp: str | float | None, instant: int | None) -> None:
    assert instant_of(timestamp) == instant
