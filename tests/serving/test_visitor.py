"""`footfall visitor`: what is known of a visitor is printed, and nothing that a visitor typed acts on the terminal."""

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from rich.cells import cell_len
from rich.console import Console

from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS, Visitor
from ingestion.event_store.postgres import PostgresEventStore
from orchestration.cli import footfall
from serving.page import clean
from serving.visitor import print_visitor, visitor_as_json

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
VISITOR = Visitor(
    "shop.example", "v-1", NOON, NOON + timedelta(days=1), 1_234,
    country="DE", device="Desktop", browser="Firefox", language=None, source="google.com",
)  # fmt: skip
PURCHASE = {
    "name": "Purchase",
    "path": "/thanks",
    "props": {"sku": "tea-pot", "gift": True},
    "revenue_amount": "12.900000",
    "revenue_currency": "EUR",
}
TIMELINE = [
    (NOON + timedelta(minutes=2), json.dumps(PURCHASE)),
    (NOON + timedelta(seconds=61), '{"name":"engagement","path":"/tea","scroll_depth":42.5}'),
    (NOON, '{"name":"pageview","path":"/tea","title":"Our teas","source":"google.com","hostname":"shop.example"}'),
]
HOSTILE = ("[red]sale[/red]", "[/]", "\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "two\r\nlines\ttab", "\u202egpj.exe")


def printed(visitor: Visitor = VISITOR, timeline: Any = TIMELINE, width: int = 100, **options: Any) -> str:
    """The page as text, after making sure that no line of it is wider than the console."""
    file = io.StringIO()
    print_visitor(visitor, timeline, Console(file=file, width=width, **options))
    page = file.getvalue()
    assert max(cell_len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in page.splitlines()) <= width
    return page


@pytest.mark.parametrize("width", [80, 100, 200])
def test_what_is_known_and_the_timeline_are_on_the_page(width: int) -> None:
    page = printed(width=width)
    lines = page.splitlines()
    assert lines[0].startswith("shop.example  visitor v-1 ──")
    for known in (
        r"First seen +2026-11-22 12:00:00",
        r"Last seen +2026-11-23 12:00:00",
        r"Pageviews +1,234",
        r"Country +DE",
        r"Device +Desktop",
        r"Browser +Firefox",
        r"Language +\(not set\)",
        r"Source +google\.com",
    ):
        assert re.search(known, page)
    times = [line.split()[1] for line in lines if line.startswith("2026-11-22 ")]
    assert times == ["12:02:00", "12:01:01", "12:00:00"]
    assert re.search(r"2026-11-22 12:02:00 +Purchase +/thanks", page)
    words = re.sub(r"\s+", " ", page)
    assert "title Our teas" in words and "scroll depth 42.5" in words and "sku=tea-pot" in words
    assert "\x1b" not in page


def test_a_visitor_whose_events_are_gone_is_still_known() -> None:
    assert "1,234" in printed(timeline=[])


def hostile(text: str) -> tuple[Visitor, list[tuple[datetime, str]]]:
    """A visitor, and an event, of whom everything says this."""
    everything = {"name": text, "path": text, "title": text, "referrer": text, "source": text, "revenue_currency": text}
    return (
        Visitor(text, text, NOON, NOON, 1, country=text, device=text, browser=text, language=text, source=text),
        [(NOON, json.dumps(everything | {"props": {text: text, "n": None}}))],
    )


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
@pytest.mark.parametrize("colour", [False, True])
def test_what_visitors_typed_is_shown_and_never_obeyed(text: str, colour: bool) -> None:
    page = printed(*hostile(text), force_terminal=colour, color_system="standard" if colour else None)
    own_colours = re.compile(r"\x1b\[(0|1|2)m")
    plain = own_colours.sub("", page)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain)
    assert plain.count(clean(text)) >= 7
    assert colour or plain == page


@pytest.mark.parametrize("text", HOSTILE, ids=repr)
def test_the_json_is_whole_and_harmless(text: str) -> None:
    visitor, timeline = hostile(text)
    said = visitor_as_json(visitor, timeline)
    assert said.isprintable()
    read = json.loads(said)
    assert (read["site"], read["visitor_id"], read["language"], read["events"][0]["event"]["props"][text]) == (
        text,
    ) * 4


def test_the_json_is_what_is_known_and_the_events() -> None:
    assert json.loads(visitor_as_json(VISITOR, TIMELINE)) == {
        "site": "shop.example",
        "visitor_id": "v-1",
        "first_seen": "2026-11-22T12:00:00Z",
        "last_seen": "2026-11-23T12:00:00Z",
        "pageviews": 1_234,
        "country": "DE",
        "device": "Desktop",
        "browser": "Firefox",
        "language": None,
        "source": "google.com",
        "events": [{"occurred_at": f"{at:%Y-%m-%dT%H:%M:%SZ}", "event": json.loads(event)} for at, event in TIMELINE],
    }


def test_the_json_keeps_people_s_writing_readable() -> None:
    assert "über-uns 日本語 🦊" in visitor_as_json(VISITOR, [(NOON, '{"name":"über-uns 日本語 🦊"}')])


# The command


@pytest.fixture
def run(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """`footfall visitor`, on an event store that knows a visitor with three events, and one whose name is an escape sequence."""
    monkeypatch.setenv("FOOTFALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOOTFALL_POSTGRES", database)
    rows = [
        ("shop.example", visitor, at, f"id-{at}", event) for visitor in ("v-1", "\x1b[2J") for at, event in TIMELINE
    ]
    known = {name: getattr(VISITOR, name) for name in VISITOR_HOURS}
    frames = (
        pl.DataFrame(rows, schema=STORED_EVENTS, orient="row"),
        pl.DataFrame([known, known | {"visitor_id": "\x1b[2J"}], schema=VISITOR_HOURS),
    )
    with PostgresEventStore(database) as store:
        store.replace_hour(NOON, 1, iter([frames]))

    def run(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(footfall, ["visitor", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


def test_the_command_prints_the_visitor(run: Callable[..., tuple[int, str]]) -> None:
    code, page = run("Shop.Example", "v-1")
    assert code == 0
    assert "shop.example  visitor v-1" in page and "Purchase" in page and "Our teas" in page
    code, latest = run("shop.example", "v-1", "--events", "1")
    assert code == 0
    assert "Purchase" in latest and "Our teas" not in latest


def test_the_command_prints_one_json_object_and_nothing_else(run: Callable[..., tuple[int, str]]) -> None:
    code, text = run("shop.example", "v-1", "--json", "--events", "2")
    assert code == 0
    assert [event["event"]["name"] for event in json.loads(text)["events"]] == ["Purchase", "engagement"]
    for arguments in ([], ["--json"]):
        code, text = run("shop.example", "\x1b[2J", *arguments)
        assert (code, "\x1b" in text) == (0, False)


@pytest.mark.parametrize(("site", "visitor"), [("shop.example", "nobody"), ("other.example", "v-1"), ("shop.example", "\x1b[31m")])  # fmt: skip
def test_a_visitor_who_is_not_known(run: Callable[..., tuple[int, str]], site: str, visitor: str) -> None:
    code, said = run(site, visitor)
    assert code == 1
    assert said.startswith(f"Error: no visitor {visitor!r} is known on {site}") and "footfall materialize" in said
    assert "\x1b" not in said
