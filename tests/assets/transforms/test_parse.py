"""Raw lines to columns: each line becomes an event or a rejection, whatever lines stand beside it."""

from uuid import UUID

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from assets.transforms.parse import PARSED, Parsed, parse
from ingestion.event import RawLine, Revenue, encode

ID = UUID("0192f0c1-2345-7abc-8def-0123456789ab")
HOUR_MS = 1_772_000_000_000 - 1_772_000_000_000 % 3_600_000


def line(**fields: object) -> bytes:
    usual: dict[str, object] = {"domain": "shop.example", "name": "pageview", "url": "https://shop.example/", "event_id": ID, "timestamp": HOUR_MS, "visitor_hash": "aa"}  # fmt: skip
    return encode(RawLine(**(usual | fields)))  # type: ignore[arg-type]


LINES = (
    line(),
    line(line=77, visitor_id="me", props={"plan": "free", "seats": 3, "note": "é"}),
    line(revenue=Revenue("eur", "12.90"), timestamp="2026-02-25T06:13:20Z"),
    line(interactive=False, scroll_depth=40, previous_visitor_hash="bb", country="DE", bot=True),
    line(event_id=None),
    line(timestamp=None),
    line(domain="a b"),
    b'{"domain": "shop.example"',
    b"",
    b"  ",
    b'{"rejected": "too_old", "domain": "shop.example", "line": 5}',
)  # fmt: skip


def parsed(lines: list[bytes], at_once: int) -> Parsed:
    batches = list(parse("raw/x", b"\n".join(lines) + b"\n", HOUR_MS, at_once))
    frames = [(batch.events, batch.rejections) for batch in batches] or [(pl.DataFrame(schema=PARSED), pl.DataFrame())]
    events, rejections = zip(*frames, strict=True)
    return Parsed(pl.concat(events), pl.concat(rejections))


@given(st.lists(st.sampled_from(LINES), max_size=30), st.integers(1, 40))
def test_how_many_lines_at_once_changes_nothing(lines: list[bytes], at_once: int) -> None:
    some, all_at_once = parsed(lines, at_once), parsed(lines, 1_000)
    assert_frame_equal(some.events, all_at_once.events)
    assert some.rejections.rows() == all_at_once.rejections.rows()
    assert some.lines == sum(bool(content.strip()) for content in lines)


def test_what_an_event_says_is_in_its_columns() -> None:
    events = parsed(list(LINES), 1_000).events
    assert dict(events.schema) == PARSED
    assert events["position"].to_list() == [1, 77, 3, 4]
    assert events["object"].to_list() == ["raw/x"] * 4
    assert events["visitor_id"].to_list() == ["aa", "me", "aa", "aa"]
    assert events["cookieless"].to_list() == [True, False, True, True]
    assert events["previous_visitor_id"].to_list() == [None, None, None, "bb"]
    assert events["props"].to_list() == [None, '{"plan":"free","seats":3,"note":"é"}', None, None]
    assert events["revenue_amount"].to_list() == [None, None, "12.90", None]
    assert events["revenue_currency"].to_list() == [None, None, "EUR", None]
    assert events["timestamp"].dt.epoch("ms").to_list() == [HOUR_MS, HOUR_MS, 1_772_000_000_000, HOUR_MS]
    assert events["bot"].to_list() == [None, None, None, True]


def test_what_is_no_event_is_a_rejection_with_its_reason_and_place() -> None:
    rejections = parsed(list(LINES), 1_000).rejections
    assert rejections.select("site", "reason", "line").rows() == [
        ("shop.example", "invalid_event_id", 5),
        ("shop.example", "invalid_timestamp", 6),
        ("(none)", "invalid_domain", 7),
        ("(none)", "malformed_json", 8),
        ("shop.example", "too_old", 5),
    ]


@pytest.mark.parametrize("sent", [str(ID).upper(), ID.hex, f"{{{ID}}}", f"urn:uuid:{ID}", "x" * 36, ""])
def test_an_event_id_is_in_its_usual_form_or_refused(sent: str) -> None:
    found = parsed([line().replace(str(ID).encode(), sent.encode())], 1)
    try:
        usual = [str(UUID(sent))] if len(sent) in {32, 36} else []
    except ValueError:
        usual = []
    assert found.events["event_id"].to_list() == usual
    assert found.rejections["reason"].to_list() == ([] if usual else ["invalid_event_id"])


@pytest.mark.parametrize("backslashes", ["\\u0000", "a\\u0000b"])
def test_nul_is_removed_from_optional_text(backslashes: str) -> None:
    found = parsed([line(title="TITLE").replace(b"TITLE", backslashes.encode())], 1)
    assert found.events["title"].to_list() == [backslashes.replace("\\u0000", "") or None]


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        (0, None),
        (73 * 3_600_000, None),
        (73 * 3_600_000 + 1, "too_old"),
        (-2 * 3_600_000 + 1, None),
        (-2 * 3_600_000, "too_early"),
        (-(10**14), "too_early"),
    ],
)
def test_a_time_that_no_collector_lets_in_is_rejected(late: int, reason: str | None) -> None:
    read = parsed([line(timestamp=HOUR_MS - late)], 10)
    assert read.rejections["reason"].to_list() == ([reason] if reason else [])


def test_an_event_before_the_first_partition_or_without_a_visitor_is_rejected() -> None:
    (read,) = parse("x", line() + b"\n" + line(timestamp=HOUR_MS - 1), HOUR_MS, 10, start_ms=HOUR_MS)
    assert read.rejections["reason"].to_list() == ["too_old"]
    assert parsed([line(visitor_hash=None)], 10).rejections["reason"].to_list() == ["invalid_visitor_id"]


@pytest.mark.parametrize(
    ("content", "site", "reason"),
    [
        (b'{"rejected": "a\\u0000b", "domain": "shop.example"}', "(none)", "malformed_line"),
        (b'{"rejected": "no reason of ours"}', "(none)", "malformed_line"),
        (b'{"rejected": "too_old", "domain": "a\\u0000b"}', "(none)", "too_old"),
        (b'{"rejected": "too_old", "domain": "Shop.Example"}', "shop.example", "too_old"),
        (line(visitor_hash="x" * 6_000), "(none)", "invalid_stated_value"),
        (line(visitor_hash="\0"), "shop.example", "invalid_visitor_id"),
        (line(domain="\U0001f375" * 200), "(none)", "invalid_domain"),
    ],
)
def test_whoever_wrote_a_line_it_cannot_stop_its_hour(content: bytes, site: str, reason: str) -> None:
    read = parsed([content, line()], 10)
    assert read.events.height == 1
    assert [(row["site"], row["reason"]) for row in read.rejections.iter_rows(named=True)] == [(site, reason)]
