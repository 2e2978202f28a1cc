"""The page of `footfall report`: known numbers are on it, and nothing that a visitor typed acts on the terminal."""

import io
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from serving.page import METRICS, PLAIN_WIDTH, clean, duration, page_console, print_report, shown, span_hours, spans_of

START = datetime(2026, 11, 22)
METRICS_OF_A_DAY = {
    "visitors": 1_234,
    "visits": 1_500,
    "pageviews": 4_567,
    "events": 5_000,
    "views_per_visit": 4_567 / 1_500,
    "bounce_rate": 61.24,
    "visit_duration": 83.4,
}
NO_TRAFFIC = dict.fromkeys(METRICS_OF_A_DAY, 0) | {"views_per_visit": None, "bounce_rate": None, "visit_duration": None}


def hour_row(number: int, pageviews: int, average: float | None) -> dict[str, Any]:
    hour = f"{START + timedelta(hours=number):%Y-%m-%dT%H:00:00Z}"
    return {"hour": hour, "pageviews": pageviews, "visitors": 0, "visits": 0, "pageviews_24h_average": average}


def breakdown(*values: str) -> list[dict[str, Any]]:
    """Rows of falling visitors: 1000, 990, 980 …"""
    return [METRICS_OF_A_DAY | {"value": value, "visitors": 1_000 - 10 * at} for at, value in enumerate(values)]


def report(hours: list[dict[str, Any]] | None = None, **breakdowns: list[dict[str, Any]]) -> dict[str, Any]:
    hours = [hour_row(at, at + 1, at / 2) for at in range(48)] if hours is None else hours
    dates = sorted({hour["hour"][:10] for hour in hours})
    return {
        "site": "shop.example",
        "from": dates[0],
        "to": dates[-1],
        "totals": METRICS_OF_A_DAY | {"visitors": 2_222},
        "days": [METRICS_OF_A_DAY | {"date": date} for date in dates],
        "hours": hours,
        "breakdowns": {"page": breakdown("/", "/cart"), "source": breakdown("Direct / None")} | breakdowns,
        "pipeline": {
            "received": 10_000,
            "accepted": 9_000,
            "counted": 8_000,
            "duplicates": 100,
            "bots": 900,
            "rejected": {"malformed_line": 1, "not_a_pageview": 999},
        },
    }


def empty_report() -> dict[str, Any]:
    pipeline = {"received": 0, "accepted": 0, "counted": 0, "duplicates": 0, "bots": 0, "rejected": {}}
    lists: dict[str, Any] = {"days": [], "hours": [], "breakdowns": {}}
    return {"site": "new.example", "from": None, "to": None, "totals": NO_TRAFFIC, "pipeline": pipeline} | lists


def printed(report: dict[str, Any], width: int = 100, **options: Any) -> str:
    """The page as text, after making sure that no line of it is wider than the console."""
    file = io.StringIO()
    print_report(report, Console(file=file, width=width, **options))
    page = file.getvalue()
    assert max(cell_len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in page.splitlines()) <= width
    return page


def line_with(text: str, page: str) -> str:
    return next(line for line in page.splitlines() if text in line)


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_known_numbers_are_on_the_page(width: int) -> None:
    page = printed(report(), width)
    assert "shop.example  Sun 22 Nov 2026 – Mon 23 Nov 2026 ──" in page
    assert re.search(r"Visitors +Visits +Pageviews +Views per visit +Bounce rate +Visit duration", page)
    assert re.search(r"2,222 +1,500 +4,567 +3\.04 +61\.2% +1m 23s", page)
    assert re.search(r"Sun 22 Nov +█+ +1,234 +1,500 +4,567 +3\.04 +61\.2% +1m 23s", page)
    assert "peak 48, Mon 23 Nov 2026 23:00 ▾" in page
    assert re.search(r"Sun 22 Nov 2026 00:00 ─+ Mon 23 Nov 2026 23:00 UTC", page)
    assert re.search(r"/cart +█+.? +990 +4,567", page)
    assert re.search(r"Direct / None +█+ +1,000 +1,500", page)
    assert "10,000 received = 9,000 accepted + 1,000 rejected (999 not_a_pageview, 1" in page
    assert "9,000 accepted = 8,000 counted + 900 bots + 100 duplicates" in page
    assert "\x1b" not in page


@pytest.mark.parametrize(("width", "abreast"), [(80, False), (99, False), (100, True), (120, True)])
def test_breakdowns_stand_side_by_side_where_there_is_room(width: int, abreast: bool) -> None:
    assert ("Sources" in line_with("Pages ", printed(report(), width))) is abreast


def test_ten_values_then_how_many_more() -> None:
    page = printed(report(page=breakdown(*(f"/page-{at:03}" for at in range(25)))))
    assert "/page-009" in page
    assert "/page-010" not in page
    assert "and 15 more" in page


def test_a_full_list_may_have_been_longer() -> None:
    assert "and 990+ more" in printed(report(page=breakdown(*map(str, range(1_000)))))


HOSTILE = [
    "/[red]sale[/red]",
    "/[/]",
    "/[link=https://evil.example]x[/link]",
    "/\x1b[31mred",
    "/\x1b]0;title\x07",
    "/\x9b2J",
    "/two\r\nlines\ttab",
    "/\u202egpj.exe",
    "/:smile:",
]


@pytest.mark.parametrize("colour", [False, True])
def test_what_visitors_typed_is_shown_and_never_obeyed(colour: bool) -> None:
    hostile = report(page=breakdown(*HOSTILE), source=breakdown("[bold]\x1b[2J"))
    hostile["site"] = "[blink]\x1b[5m.example"
    hostile["pipeline"]["rejected"] = {"[red]\x1b[31m": 1_000}
    page = printed(hostile, 80, force_terminal=colour, color_system="standard" if colour else None)
    own_colours = re.compile(r"\x1b\[(0|1|2|1;2|33|34|33;44|34;49)m")
    assert own_colours.search(page) if colour else "\x1b" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", own_colours.sub("", page))
    for value in HOSTILE:
        assert clean(value) in page


def test_clean_keeps_what_people_read() -> None:
    assert clean("/日本語/café/🎉") == "/日本語/café/🎉"
    assert clean("\x1b[0m\u200b\ufe0f\n") == "�[0m��"


def test_wide_characters_keep_columns_aligned() -> None:
    values = ("/ascii", "/日本語のページ", "/🎉🎉/👍🏽", "/❤️", "/" + "長い" * 60, "/" + "long" * 60)
    page = printed(report(page=breakdown(*values)), 80)
    rows = [line for line in page.splitlines() if line.startswith("/")]
    assert len(rows) == len(values)
    assert {cell_len(line) for line in rows} == {80}
    assert {cell_len(line[: line.index("█")]) for line in rows} == {cell_len(rows[0][: rows[0].index("█")])}
    assert sum("…" in line for line in rows) == 2


@pytest.mark.parametrize("width", [80, 120])
def test_an_empty_report_says_so_kindly(width: int) -> None:
    page = printed(empty_report(), width)
    assert "new.example" in page
    assert "No visits on these dates yet." in page
    assert "0 received = 0 accepted + 0 rejected\n" in page


def test_days_of_zeros_are_empty_and_still_accounted_for() -> None:
    quiet = report([hour_row(at, 0, None) for at in range(24)])
    quiet["totals"] = NO_TRAFFIC
    page = printed(quiet)
    assert "No visits on these dates yet." in page
    assert "Sun 22 Nov 2026 ──" in page
    assert "10,000 received" in page


def test_custom_events_without_pageviews_have_no_chart() -> None:
    page = printed(report([hour_row(at, 0, 0.0) for at in range(24)]))
    assert "No pageviews in these hours." in page
    assert "▾" not in page


def test_null_is_an_en_dash() -> None:
    nulls = report()
    nulls["totals"] |= {"views_per_visit": None, "bounce_rate": None, "visit_duration": None}
    assert re.search(r"2,222 +1,500 +4,567 +– +– +–", printed(nulls))


def test_one_hour_fills_the_chart() -> None:
    page = printed(report([hour_row(0, 7, None)]))
    assert page.count("█" * 100) == 6
    assert "peak 7, Sun 22 Nov 2026 00:00" in page


def test_null_averages_draw_no_line() -> None:
    chart = printed(report([hour_row(at, 5, None) for at in range(24)])).split("peak")[1]
    assert not re.search(r"[⣀⠤⠒⠉]", chart)


def test_the_average_is_drawn_in_the_scale_of_the_bars() -> None:
    lines = printed(report([hour_row(at, 12 if at else 24, 12.0) for at in range(24)])).splitlines()
    top = next(at for at, line in enumerate(lines) if "peak" in line) + 1
    assert "⣀" * 50 in lines[top + 2]  # at the half, where the bars of 12 end
    assert lines[top + 3].endswith("█" * 50)


def test_an_average_above_every_bar_stays_on_the_chart() -> None:
    assert "⠉" * 100 in printed(report([hour_row(at, 1, 50.0) for at in range(24)]))


@pytest.mark.parametrize("width", [80, 120])
def test_ten_thousand_hours(width: int) -> None:
    page = printed(report([hour_row(at, 10, 10.0 if at > 5 else None) for at in range(10_000)]), width)
    days = 6 if width == 80 else 4
    assert f"Pageviews per {days} days" in page
    assert f"peak {240 * days:,}, " in page
    assert "Last 31 days" in page
    assert page.count("1m 23s") == 1 + 31


@pytest.mark.parametrize(
    ("hours", "columns", "size"), [(1, 80, 1), (80, 80, 1), (81, 80, 2), (400, 80, 6), (961, 80, 24), (10_000, 80, 144)]
)
def test_hours_drawn_as_one_divide_the_day_or_are_days(hours: int, columns: int, size: int) -> None:
    assert span_hours(hours, columns) == size


def test_spans_lose_no_pageview_and_end_with_a_full_one() -> None:
    spans = spans_of([hour_row(at, 1, None if at < 3 else 2.0) for at in range(10)], 4)
    assert [span.pageviews for span in spans] == [2, 4, 4]
    assert [span.average for span in spans] == [None, 6.0, 8.0]
    assert spans[1].start == "2026-11-22T02:00:00Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (83.4, "1m 23s"), (3_599.7, "1h 00m"), (7_500, "2h 05m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_metrics_as_people_read_them() -> None:
    assert shown(METRICS_OF_A_DAY, METRICS) == ["1,234", "1,500", "4,567", "3.04", "61.2%", "1m 23s"]
    assert shown(NO_TRAFFIC, METRICS) == ["0", "0", "0", "–", "–", "–"]


def test_an_account_that_does_not_add_up_says_so() -> None:
    lost = report()
    lost["pipeline"]["counted"] -= 1
    assert "9,000 accepted ≠ 7,999 counted + 900 bots + 100 duplicates" in printed(lost)


def test_without_a_terminal_the_page_is_plain_and_100_columns_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", io.StringIO())
    assert page_console().width == PLAIN_WIDTH == 100
    monkeypatch.setenv("COLUMNS", "132")
    assert page_console().width == 132
