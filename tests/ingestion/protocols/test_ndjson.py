"""NDJSON: what a line of an import says, and what is known of a line that is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.event import Reason, refusal
from ingestion.protocols.ndjson import read_line

NOW = 1_795_354_200_000
GOOD = {"domain": "shop.example", "name": "pageview", "url": "https://shop.example/", "timestamp": 1_431_857_103_000}


def read(**fields: Any) -> Any:
    return read_line(json.dumps(GOOD | fields).encode(), NOW)


def test_an_event() -> None:
    found = read(props={"k": "v"})
    assert (found.sites, found.instant, found.rejected) == (("shop.example",), 1_431_857_103_000, None)
    assert found.event.props == {"k": "v"}


@pytest.mark.parametrize(
    ("timestamp", "instant"),
    [
        (None, NOW),
        (0, 0),
        (1_431_857_103_000.9, 1_431_857_103_000),
        ("2015-05-17T10:05:03Z", 1_431_857_103_000),
        ("2015-05-17T10:05:03", 1_431_857_103_000),
        ("2015-05-17T12:05:03+02:00", 1_431_857_103_000),
    ],
)
def test_time(timestamp: object, instant: int) -> None:
    assert read(timestamp=timestamp).instant == instant


@pytest.mark.parametrize("line", [b"", b"\n", b"\r\n", b" \t\r\n"])
def test_a_blank_line_is_none(line: bytes) -> None:
    assert read_line(line, NOW) is None


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b" \r\n"])
def test_line_ends(end: bytes) -> None:
    assert read_line(json.dumps(GOOD).encode() + end, NOW) == read()


def test_a_list_of_sites() -> None:
    assert read(domain="A.example, b.example,a.example").sites == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("fields", "reason", "sites", "instant"),
    [
        ({"name": 1}, Reason.INVALID_NAME, ("shop.example",), 1_431_857_103_000),
        ({"name": ""}, Reason.MISSING_NAME, ("shop.example",), 1_431_857_103_000),
        ({"name": None, "n": 1}, Reason.INVALID_NAME, ("shop.example",), 1_431_857_103_000),
        ({"url": "x", "domain": "a.example,b.example"}, Reason.INVALID_URL, ("a.example", "b.example"), 1_431_857_103_000),
        ({"url": "x", "domain": None, "d": "c.example"}, Reason.INVALID_URL, ("c.example",), 1_431_857_103_000),
        ({"domain": "a b"}, Reason.INVALID_DOMAIN, (), 1_431_857_103_000),
        ({"domain": 1}, Reason.INVALID_DOMAIN, (), 1_431_857_103_000),
        ({"domain": ""}, Reason.MISSING_DOMAIN, (), 1_431_857_103_000),
        ({"timestamp": "never"}, Reason.INVALID_TIMESTAMP, ("shop.example",), None),
        ({"timestamp": [1]}, Reason.INVALID_TIMESTAMP, ("shop.example",), None),
        ({"timestamp": 2**64}, Reason.INVALID_TIMESTAMP, ("shop.example",), None),
        ({"timestamp": "9999-12-31T23:59-01:00"}, Reason.INVALID_TIMESTAMP, ("shop.example",), None),
        ({"timestamp": None, "name": ""}, Reason.MISSING_NAME, ("shop.example",), None),
    ],
)  # fmt: skip
def test_a_refused_line_keeps_its_sites_and_time(
    fields: dict[str, Any], reason: Reason, sites: tuple[str, ...], instant: int | None
) -> None:
    found = read(**fields)
    assert (found.rejected, found.sites, found.instant, found.event) == (reason, sites, instant, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", Reason.MALFORMED_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b'{"domain": "a.example", "title": "\xff"}', Reason.INVALID_UTF8),
        (b'{"domain": "a.example", "x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.NESTED_TOO_DEEP),
        (b'{"domain": "a.example", "timestamp": ' + b"9" * 5_000 + b', "name": 1}', Reason.INVALID_TIMESTAMP),
        (json.dumps(GOOD | {"title": "x" * 10_000_000}).encode()[:1_000_002], Reason.LINE_TOO_LONG),
    ],
)
def test_a_line_that_cannot_be_read_names_no_site(line: bytes, reason: Reason) -> None:
    found = read_line(line, NOW)
    assert found is not None
    assert (found.rejected, found.instant, found.event) == (reason, None, None)
    assert found.sites == ()


FIELDS = st.sampled_from(["domain", "d", "name", "n", "url", "timestamp", "props", "revenue", "visitor_id", "x"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dictionaries(st.text(), st.integers(), max_size=2)
)


@given(st.dictionaries(FIELDS, VALUES, max_size=4), st.binary(max_size=50))
def test_any_line_is_an_event_or_has_a_reason(fields: dict[str, Any], noise: bytes) -> None:
    for line in (json.dumps(GOOD | fields).encode(), json.dumps(fields).encode(), noise):
        found = read_line(line, NOW)
        if found is None:
            assert not line.strip()
        elif found.event is None:
            assert found.rejected in Reason
        else:
            assert (refusal(found.event), found.rejected) == (None, None)
            assert found.sites
            assert found.instant is not None
