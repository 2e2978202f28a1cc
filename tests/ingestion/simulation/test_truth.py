"""The oracle against small cases counted by hand."""

from __future__ import annotations

import ast
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ingestion.simulation import traffic, truth
from ingestion.simulation.truth import Event, Rejection, Row

SITE = "shop.example"
DAY = date(2026, 3, 10)
NEXT_DAY = date(2026, 3, 11)


def at(clock: str, day: date = DAY, timezone: str = "UTC") -> int:
    """ms since 1970 of "HH:MM:SS[.mmm]" of that day."""
    moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=ZoneInfo(timezone))
    return round(moment.timestamp() * 1000)


def event(clock: str | int, name: str = "pageview", line: int = 1, **more: Any) -> Event:
    timezone = more.pop("timezone", "UTC")
    timestamp = clock if isinstance(clock, int) else at(clock, more.pop("day", DAY), timezone)
    more.setdefault("visitor_id", "anna")
    return Event(site=SITE, timezone=timezone, timestamp=timestamp, line=line, name=name, **more)


def report(
    events: list[Event], first: date = DAY, last: date | None = None, rejections: tuple[Rejection, ...] = ()
) -> Row:
    timezone = events[0].timezone if events else "UTC"
    return truth.report(SITE, timezone, events, rejections, first, last or first)


def rows(result: Row, dimension: str) -> dict[str, Row]:
    return {row["value"]: row for row in result["breakdowns"][dimension]}


def cookieless(clock: str, day: date, ip: str = "198.18.0.9", **more: Any) -> Event:
    return event(clock, day=day, visitor_id=None, ip=ip, user_agent="Browser", **more)


# ---- visits


@pytest.mark.parametrize(
    ("events", "visits"),
    [
        pytest.param([("10:00:00", "pageview"), ("10:30:00", "pageview")], [[0, 1]], id="1800 s joins"),
        pytest.param([("10:00:00", "pageview"), ("10:30:00.001", "pageview")], [[0], [1]], id="1800.001 s splits"),
        pytest.param([("10:00:00", "pageview"), ("10:30:01", "pageview")], [[0], [1]], id="1801 s splits"),
        pytest.param([("10:00:00", "engagement")], [], id="engagement alone"),
        pytest.param([("10:00:00", "engagement"), ("10:05:00", "pageview")], [[1]], id="engagement opens nothing"),
        pytest.param(
            [("10:00:00", "pageview"), ("10:25:00", "engagement"), ("10:50:00", "pageview")],
            [[0, 1, 2]],
            id="engagement bridges",
        ),
        pytest.param(
            [("10:00:00", "pageview"), ("10:31:00", "engagement"), ("10:50:00", "pageview")],
            [[0], [2]],
            id="orphan after the end",
        ),
        pytest.param([("10:00:00", "Signup"), ("10:01:00", "pageview")], [[0, 1]], id="a custom event opens"),
        pytest.param([("10:30:00", "pageview"), ("10:00:00", "pageview")], [[1, 0]], id="any order in the file"),
    ],
)
def test_visits(events: list[tuple[str, str]], visits: list[list[int]]) -> None:
    made = [event(clock, name, line) for line, (clock, name) in enumerate(events)]
    assert [[e.line for e in visit.events] for visit in truth.visits_of(made)] == visits


def test_events_of_one_instant_are_ordered_by_line() -> None:
    made = [
        event("10:00:00", line=2, path="/second"),
        event("10:00:00", line=1, path="/first"),
        event("10:00:00", line=3, path="/third"),
    ]
    result = report(made)
    assert list(rows(result, "entry_page")) == ["/first"]
    assert list(rows(result, "exit_page")) == ["/third"]


def test_a_cookieless_visit_over_midnight_is_one_and_its_visitor_is_counted_on_both_dates() -> None:
    made = [cookieless("23:50:00", DAY, line=1), cookieless("00:10:00", NEXT_DAY, line=2)]
    result = report(made, DAY, NEXT_DAY)
    assert [(d["visitors"], d["visits"], d["pageviews"]) for d in result["days"]] == [(1, 1, 1), (1, 0, 1)]
    assert (result["totals"]["visitors"], result["totals"]["visits"]) == (2, 1)
    assert result["totals"]["visit_duration"] == 1_200.0


def test_a_supplied_visitor_is_counted_once_over_several_dates() -> None:
    made = [event("23:50:00", line=1), event("09:00:00", line=2, day=NEXT_DAY)]
    result = report(made, DAY, NEXT_DAY)
    assert [d["visitors"] for d in result["days"]] == [1, 1]
    assert (result["totals"]["visitors"], result["totals"]["visits"]) == (1, 2)


def test_engagement_holds_a_visit_over_midnight() -> None:
    made = [
        cookieless("23:40:00", DAY, line=1),
        cookieless("00:05:00", NEXT_DAY, line=2, name="engagement"),
        cookieless("00:34:00", NEXT_DAY, line=3),
    ]
    assert len(truth.visits_of(made)) == 1


def every(minutes: int, start: str, count: int, timezone: str = "UTC", day: date = DAY) -> list[Event]:
    first = at(start, day, timezone)
    return [event(first + n * minutes * 60_000, line=n, timezone=timezone) for n in range(count)]


@pytest.mark.parametrize(
    ("events", "lengths"),
    [
        pytest.param(every(30, "00:00:00", 49), [48, 1], id="from the first instant"),
        pytest.param(every(30, "00:30:00", 49), [47, 2], id="both edges at the limit"),
        pytest.param(every(29, "00:31:00", 60), [60], id="begins a minute too late to be full"),
        pytest.param(every(20, "23:00:00", 3 + 72 + 3, day=date(2026, 3, 9)), [3 + 72, 3], id="over both midnights"),
        pytest.param(every(20, "00:00:00", 72 + 72 + 1), [72, 72, 1], id="two full days"),
        pytest.param(
            every(30, "00:00:00", 47, "Europe/Berlin", date(2026, 3, 29)), [46, 1], id="a day of 23 hours, Berlin"
        ),
        pytest.param(
            every(30, "00:00:00", 51, "Europe/Berlin", date(2026, 10, 25)), [50, 1], id="a day of 25 hours, Berlin"
        ),
    ],
)
def test_a_visit_is_cut_at_the_end_of_a_full_day(events: list[Event], lengths: list[int]) -> None:
    assert [len(visit.events) for visit in truth.visits_of(events)] == lengths


def test_engagement_keeps_a_day_full_and_opens_nothing_after_the_cut() -> None:
    awake = every(30, "00:00:00", 48)
    made = [
        *awake[:-1],
        event(awake[-1].timestamp, "engagement", 47),
        event("00:00:00", "engagement", 48, day=NEXT_DAY),
    ]
    assert [len(visit.events) for visit in truth.visits_of(made)] == [48]


# ---- duplicates and the accounts

ID = "11111111-1111-4111-8111-111111111111"


@pytest.mark.parametrize(
    ("copies", "counted"),
    [
        pytest.param([("10:10:00", DAY, ID), ("10:05:00", DAY, ID)], [0], id="same hour: the earlier line"),
        pytest.param([("11:10:00", DAY, ID), ("10:05:00", DAY, ID)], [1], id="the earlier hour, on a later line"),
        pytest.param([("10:00:00", DAY, ID), ("10:00:00", NEXT_DAY, ID)], [0, 1], id="another date: two events"),
        pytest.param([("10:00:00", DAY, None), ("10:00:00", DAY, None)], [0, 1], id="no event_id: two events"),
    ],
)
def test_duplicates(copies: list[tuple[str, date, str | None]], counted: list[int]) -> None:
    made = [event(clock, line=n, day=day, event_id=own) for n, (clock, day, own) in enumerate(copies)]
    assert sorted(e.line for e in truth.without_duplicates(made)) == counted


def test_the_accounts_balance_and_a_duplicate_is_one_even_if_it_is_a_bots() -> None:
    made = [
        event("10:00:00", line=1, event_id=ID, bot=True),
        event("10:00:01", line=2, event_id=ID),
        event("10:00:02", line=3, event_id=ID, bot=True),
        event("10:00:03", line=4),
        event("10:00:04", "engagement", line=5),
        event("10:00:00", line=6, day=NEXT_DAY),
    ]
    hour = at("10:00:00") // truth.HOUR_MS
    rejections = (
        Rejection(SITE, hour, "missing_url"),
        Rejection(SITE, hour, "missing_url"),
        Rejection(SITE, hour + 24, "invalid_url"),
        Rejection(truth.NO_SITE, hour, "malformed_json"),
    )
    result = report(made, rejections=rejections)
    assert result["pipeline"] == {
        "received": 7,
        "accepted": 5,
        "counted": 2,
        "duplicates": 2,
        "bots": 1,
        "rejected": {"missing_url": 2},
    }
    assert result["totals"]["events"] == 1


# ---- metrics


def test_totals() -> None:
    made = [
        event("10:00:00", line=1),
        event("10:01:00.500", line=2, path="/b"),
        event("10:02:00", "engagement", line=3),
        event("12:00:00", "Signup", line=4, visitor_id="bert"),
        event("13:00:00", line=5, visitor_id="cleo"),
        event("13:00:10", "Scroll", line=6, visitor_id="cleo", interactive=False),
    ]
    assert report(made)["totals"] == {
        "visitors": 3,
        "visits": 3,
        "pageviews": 3,
        "events": 5,
        "views_per_visit": 1.0,
        "bounce_rate": pytest.approx(200 / 3, abs=1e-12),
        "visit_duration": pytest.approx(130 / 3, abs=1e-12),
    }


@pytest.mark.parametrize(
    ("second", "bounces"),
    [
        ({"name": "Signup"}, False),
        ({"name": "Signup", "interactive": False}, True),
        ({"name": "engagement"}, True),
        ({"name": "pageview", "interactive": False}, False),
    ],
)
def test_bounces(second: dict[str, Any], bounces: bool) -> None:
    (visit,) = truth.visits_of([event("10:00:00", line=1), event("10:01:00", line=2, **second)])
    assert visit.is_bounce is bounces


def test_no_traffic_at_all() -> None:
    result = report([])
    nothing = dict.fromkeys(("visitors", "visits", "pageviews", "events"), 0)
    nulls = dict.fromkeys(("views_per_visit", "bounce_rate", "visit_duration"))
    assert result["totals"] == nothing | nulls
    assert result["days"] == [{"date": "2026-03-10"} | nothing | nulls]
    assert [hour["pageviews_24h_average"] for hour in result["hours"]] == [None] * 24
    assert not any(result["breakdowns"].values())


def test_a_visit_from_before_the_range_brings_its_events_but_no_visit() -> None:
    made = [
        cookieless("23:55:00", DAY, line=1, attributes={"source": "bing.com", "channel": "Referral"}),
        cookieless("00:05:00", NEXT_DAY, line=2, path="/b"),
    ]
    result = report(made, NEXT_DAY)
    assert (result["totals"]["visits"], result["totals"]["visitors"], result["totals"]["views_per_visit"]) == (
        0,
        1,
        None,
    )
    bing = {"value": "bing.com", "visitors": 1, "visits": 0, "pageviews": 1, "events": 1}
    assert result["breakdowns"]["source"] == [bing | {"bounce_rate": None, "visit_duration": None}]
    assert list(rows(result, "entry_page")) == ["/"]
    assert list(rows(result, "page")) == ["/b"]
    # and the other way round: the page is seen after the range, by a visit that began in it
    seen_later = rows(report(made, DAY), "page")["/b"]
    assert (seen_later["visits"], seen_later["pageviews"], seen_later["visitors"], seen_later["events"]) == (1, 0, 0, 0)


# ---- hours


def test_hours_are_the_whole_utc_hours_that_overlap_the_dates() -> None:
    kolkata = [
        event("23:59:00", timezone="Asia/Kolkata", day=date(2026, 3, 9), visitor_id="bert", line=1),
        event("00:01:00", timezone="Asia/Kolkata", visitor_id="anna", line=2),
    ]
    result = report(kolkata)
    assert len(result["hours"]) == 25
    assert (result["hours"][0]["hour"], result["hours"][-1]["hour"]) == ("2026-03-09T18", "2026-03-10T18")
    assert (result["hours"][0]["pageviews"], result["hours"][0]["visits"], result["hours"][0]["visitors"]) == (2, 2, 2)
    assert (result["totals"]["pageviews"], result["pipeline"]["received"]) == (1, 2)


def test_a_date_of_the_spring_change_has_23_hours() -> None:
    hours = report([event("12:00:00", timezone="Europe/Berlin", day=date(2026, 3, 29))], date(2026, 3, 29))["hours"]
    assert [hours[0]["hour"], hours[-1]["hour"], len(hours)] == ["2026-03-28T23", "2026-03-29T21", 23]


@pytest.mark.parametrize(
    ("hour", "since", "expected"),
    [
        (99, 100, None),
        (100, None, None),
        (100, 100, 6.0),
        (101, 100, 3.0),
        (102, 100, 5.0),
        (105, 100, 3.0),
        (123, 100, 18 / 24),
        (124, 100, 12 / 24),
        (126, 100, 3 / 24),
        (129, 100, 0.0),
    ],
)
def test_trailing_average(hour: int, since: int | None, expected: float | None) -> None:
    assert truth.trailing_average({100: 6, 102: 9, 105: 3}, hour, since, 24) == expected


def test_averages_look_back_before_the_range() -> None:
    made = [event("20:00:00", line=n) for n in range(4)] + [event("01:00:00", line=9, day=NEXT_DAY)]
    hours = report(made, NEXT_DAY)["hours"]
    assert [hours[0]["pageviews_24h_average"], hours[1]["pageviews_24h_average"]] == [4 / 5, 5 / 6]


# ---- breakdowns


def two_visits() -> list[Event]:
    return [
        event("10:00:00", line=1, path="/a", attributes={"source": "bing.com", "channel": "Referral", "country": "DE"}),
        event("10:00:10", line=2, path="/b", attributes={"source": "shop.example"}),
        event("10:00:20", line=3, path="/b", name="Signup"),
        event("10:00:30", line=4, path="/c", name="Signup"),
        event("11:00:00", line=5, path="/b", visitor_id="bert"),
    ]


def row(value: str, *counts: int, bounce_rate: float | None = None, visit_duration: float | None = None) -> Row:
    named = dict(zip(("visitors", "visits", "pageviews", "events"), counts, strict=True))
    return {"value": value, **named, "bounce_rate": bounce_rate, "visit_duration": visit_duration}


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        ("page", [row("/b", 2, 2, 2, 3, bounce_rate=100, visit_duration=0), row("/a", 1, 1, 1, 1, bounce_rate=0, visit_duration=30)]),
        ("entry_page", [row("/a", 1, 1, 2, 4, bounce_rate=0, visit_duration=30), row("/b", 1, 1, 1, 1, bounce_rate=100, visit_duration=0)]),
        ("exit_page", [row("/b", 2, 2, 3, 5, bounce_rate=50, visit_duration=15)]),
        ("event", [row("pageview", 2, 2, 3, 3), row("Signup", 1, 1, 0, 2)]),
        ("source", [row("Direct / None", 1, 1, 1, 1, bounce_rate=100, visit_duration=0), row("bing.com", 1, 1, 2, 4, bounce_rate=0, visit_duration=30)]),
        ("country", [row("(not set)", 1, 1, 1, 1, bounce_rate=100, visit_duration=0), row("DE", 1, 1, 2, 4, bounce_rate=0, visit_duration=30)]),
        ("utm_source", []),
        ("referrer", []),
    ],
)  # fmt: skip
def test_breakdowns(dimension: str, expected: list[Row]) -> None:
    assert report(two_visits())["breakdowns"][dimension] == expected


def test_a_visit_without_a_pageview_has_no_page() -> None:
    result = report([event("10:00:00", "Signup", path="/a"), event("10:00:01", "engagement", line=2, path="/a")])
    assert list(rows(result, "entry_page")) == list(rows(result, "exit_page")) == ["(none)"]
    assert (result["breakdowns"]["page"], list(rows(result, "event"))) == ([], ["Signup"])


def test_rows_are_by_visitors_then_bytewise_and_at_most_a_thousand() -> None:
    paths = ["/a", "/B", "/ü", "/~", "/zz", "/zz"]
    made = [event("10:00:00", line=n, path=path, visitor_id=f"v{n}") for n, path in enumerate(paths)]
    assert list(rows(report(made), "page")) == ["/zz", "/B", "/a", "/~", "/ü"]
    many = [event("10:00:00", line=n, path=f"/{n:04}") for n in range(1_001)]
    assert list(rows(report(many), "page")) == [f"/{n:04}" for n in range(1_000)]


def test_first_instants() -> None:
    def utc(text: str) -> int:
        return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)

    assert truth.first_instant(DAY, "Asia/Kolkata") == utc("2026-03-09T18:30:00")
    assert truth.first_instant(date(2026, 3, 29), "Europe/Berlin") == utc("2026-03-28T23:00:00")
    assert truth.first_instant(date(2018, 11, 4), "America/Sao_Paulo") == utc("2018-11-04T03:00:00")  # 0:00 is skipped


def test_nothing_of_the_pipeline_is_imported() -> None:
    for module in (truth, traffic):
        nodes = [*ast.walk(ast.parse(Path(str(module.__file__)).read_text()))]
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        ours = {name for name in names if name.split(".")[0] in ("ingestion", "assets", "serving", "orchestration")}
        assert ours <= {"ingestion.simulation", "ingestion.simulation.truth"}
        assert not {"polars", "duckdb", "sqlite3", "psycopg"} & {name.split(".")[0] for name in names}
