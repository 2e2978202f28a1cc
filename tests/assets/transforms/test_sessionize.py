"""Visits, breakdowns and totals of any events, against the naive oracle."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from assets.transforms.rollup import actions, breakdowns, site_totals, traffic, visit_days, visit_hours
from assets.transforms.sessionize import EVENT_COLUMNS, NEIGHBOUR_COLUMNS, around, label
from assets.transforms.sessionize import visits as visits_of
from ingestion.lake_events import mark_copies
from ingestion.simulation import truth
from ingestion.simulation.truth import ENGAGEMENT, PAGEVIEW, Event
from ingestion.site_time import date_bounds, from_datetime, to_datetime
from tests.e2e.compare import differences
from tests.factories import lake_frame

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
MIDDLE = date(2026, 3, 29)
DAYS = [MIDDLE + timedelta(days=step) for step in range(-2, 3)]
AROUND = [DAYS[0] - timedelta(days=1), *DAYS, DAYS[-1] + timedelta(days=1)]
SITE = "shop.example"


# The pipeline's steps, as the assets take them


def events_of(lake: pl.DataFrame, day: date) -> pl.DataFrame:
    """The labelled events around a date, as visits and breakdowns make them."""
    counted = mark_copies(lake).filter(~pl.col("is_copy") & ~pl.col("bot"))
    near = [day - timedelta(days=1), day + timedelta(days=1)]
    today = counted.filter(pl.col("date") == day).select(EVENT_COLUMNS)
    return label(around(today, counted.filter(pl.col("date").is_in(near)).select(NEIGHBOUR_COLUMNS)), day)


def visits_of_days(lake: pl.DataFrame, days: list[date]) -> pl.DataFrame:
    return pl.concat(visits_of(events_of(lake, day), day) for day in days)


def breakdowns_of(lake: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
    span = [first + timedelta(days=step) for step in range((last - first).days + 1)]
    days = visit_days(visits_of_days(lake, [first - timedelta(days=1), *span])).filter(
        pl.col("date").is_between(first, last)
    )
    return breakdowns(days, pl.concat(actions(events_of(lake, day), day, first, last) for day in span))


# The oracle's answers in the same form


def true_visits(events: list[Event], day: date) -> list[tuple[object, ...]]:
    unique = truth.without_duplicates(events)
    found = truth.visits_of(event for event in unique if not event.bot)
    return sorted(
        (
            to_datetime(visit.first.timestamp),
            visit.duration_ms,
            visit.is_bounce,
            sum(event.name == PAGEVIEW and event.date == day for event in visit.events),
            sum(event.name != ENGAGEMENT and event.date == day for event in visit.events),
            sum(event.name == PAGEVIEW and event.date != day for event in visit.events),
            sum(event.name != ENGAGEMENT and event.date != day for event in visit.events),
            visit.value("entry_page"),
            visit.value("exit_page"),
            visit.value("source"),
        )
        for visit in found
        if visit.first.date == day
    )


def our_visits(lake: pl.DataFrame, day: date) -> list[tuple[object, ...]]:
    columns = (
        "began",
        "duration_ms",
        "bounce",
        "pageviews",
        "events",
        "next_pageviews",
        "next_events",
        "entry_page",
        "exit_page",
        "source",
    )
    return sorted(visits_of(events_of(lake, day), day).select(columns).iter_rows())


# Any events


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Some visitors' events around a date, with pauses at the limit, over midnights, and whole days without a pause."""
    zone = draw(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Asia/Kathmandu"]))
    begin = date_bounds(zone, DAYS[1])[0]
    events: list[Event] = []
    for visitor in range(draw(st.integers(1, 3))):
        supplied = draw(st.booleans())
        at = begin + draw(st.integers(-2 * HOUR, 40 * HOUR))
        for _ in range(draw(st.integers(1, 12))):
            steps, pause = draw(
                st.sampled_from(
                    [(1, 0), (1, 1), (1, 30 * SECOND), (1, 20 * MINUTE), (1, 30 * MINUTE - 1), (1, 30 * MINUTE)]
                    + [
                        (1, 30 * MINUTE + 1),
                        (1, 31 * MINUTE),
                        (1, 5 * HOUR),
                        (1, 14 * HOUR),
                        (55, 29 * MINUTE),
                        (49, 30 * MINUTE),
                    ]
                )
            )
            for _ in range(steps):
                at += pause
                events.append(
                    Event(
                        site=SITE,
                        timezone=zone,
                        timestamp=at,
                        line=len(events) + 1,
                        name=draw(st.sampled_from([PAGEVIEW, PAGEVIEW, ENGAGEMENT, "signup"])),
                        path=draw(st.sampled_from(["/", "/a", "/b"])),
                        event_id=draw(st.sampled_from([None, None, None, None, "0" * 8, "1" * 8])),
                        visitor_id=f"v{visitor}" if supplied else None,
                        ip=f"10.0.0.{visitor}",
                        interactive=draw(st.booleans()),
                        bot=draw(st.sampled_from([False] * 9 + [True])),
                        attributes={"source": draw(st.sampled_from(["google", "news"]))},
                    )
                )
    return events


QUICK = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@QUICK
@given(histories(), st.randoms(use_true_random=False))
def test_visits_are_those_of_the_naive_oracle_in_any_order_of_arrival_and_with_copies(events, shuffler: random.Random):
    lake = lake_frame(events)
    copies = lake.with_columns(object=pl.col("object") + "-again")
    shuffled = pl.concat([lake, copies]).sample(fraction=1, shuffle=True, seed=shuffler.randrange(2**31))
    for day in DAYS:
        assert our_visits(shuffled, day) == true_visits(events, day)


@settings(QUICK, max_examples=25)
@given(histories(), st.integers(0, 4), st.integers(0, 3))
def test_metrics_of_any_range_are_those_of_the_naive_oracle(events, begin, length):
    first = DAYS[begin]
    last = min(first + timedelta(days=length), DAYS[-1])
    lake = lake_frame(events)
    report = truth.report(SITE, events[0].timezone, events, [], first, last)

    ours = breakdowns_of(lake, first, last)
    for dimension, rows in report["breakdowns"].items():
        found = ours.filter(pl.col("dimension") == dimension).sort("visitors", "value", descending=[True, False])
        assert list(differences(rows, [reported(row) for row in found.iter_rows(named=True)], dimension)) == []

    days = visit_days(visits_of_days(lake, [first - timedelta(days=1), *[d for d in DAYS if first <= d <= last]]))
    totals = site_totals(days.filter(pl.col("date").is_between(first, last))).to_dicts()
    wanted = {name: report["totals"][name] for name in ("visitors", "visits", "pageviews", "events")}
    assert [{name: row[name] for name in wanted} for row in totals] == ([wanted] if wanted["events"] else [])


def reported(row: dict[str, Any]) -> dict[str, Any]:
    """A breakdown row as reports print it."""
    entries = row["entries"]
    return {name: row[name] for name in ("value", "visitors", "visits", "pageviews", "events")} | {
        "bounce_rate": 100 * row["bounces"] / entries if entries else None,
        "visit_duration": row["duration_ms"] / 1000 / entries if entries else None,
    }


@settings(QUICK, max_examples=25)
@given(histories())
def test_hours_are_those_of_the_naive_oracle(events):
    lake = lake_frame(events)
    counted = mark_copies(lake).filter(~pl.col("is_copy") & ~pl.col("bot"))
    hours = {row["hour"]: row for row in truth.report(SITE, events[0].timezone, events, [], DAYS[0], DAYS[-1])["hours"]}
    ours = {f"{row['hour']:%Y-%m-%dT%H}": row for row in traffic(counted).iter_rows(named=True)}
    begun = {
        f"{row['hour']:%Y-%m-%dT%H}": row["visits"]
        for row in visit_hours(visits_of_days(lake, AROUND))
        .group_by("hour")
        .agg(pl.col("visits").sum())
        .iter_rows(named=True)
    }
    for hour, row in hours.items():
        mine = ours.get(hour, {"pageviews": 0, "events": 0, "visitors": 0})
        assert {name: mine[name] for name in ("pageviews", "events", "visitors")} == {
            name: row[name] for name in ("pageviews", "events", "visitors")
        }
        assert begun.get(hour, 0) == row["visits"]


# Cases


def at(hour: int, minute: int = 0, second: int = 0, day: date = MIDDLE) -> int:
    return from_datetime(datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC))


def event(instant: int, line: int, **what: object) -> Event:
    return Event(site=SITE, timezone="UTC", timestamp=instant, line=line, **{"ip": "10.0.0.1", **what})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pause", "visits"), [(0, 1), (1_800, 1), (1_801, 2)], ids=["at once", "1,800 s joins", "1,801 s splits"]
)
def test_a_pause_of_more_than_half_an_hour_ends_a_visit(pause, visits):
    lake = lake_frame([event(at(12), 1), event(at(12) + pause * SECOND, 2)])
    assert visits_of(events_of(lake, MIDDLE), MIDDLE).height == visits


def test_a_cookieless_visit_crosses_midnight_and_is_counted_by_both_ids():
    lake = lake_frame([event(at(23, 50), 1, path="/in"), event(at(24 - 1, 59, 59) + 5 * MINUTE, 2, path="/out")])
    (visit,) = visits_of(events_of(lake, MIDDLE), MIDDLE).to_dicts()
    assert (visit["pageviews"], visit["next_pageviews"]) == (1, 1)
    assert (visit["entry_page"], visit["exit_page"]) == ("/in", "/out")
    assert visit["next_visitor_id"] != visit["visitor_id"]
    assert visits_of(events_of(lake, MIDDLE + timedelta(days=1)), MIDDLE + timedelta(days=1)).is_empty()


def test_a_day_without_a_pause_is_cut_at_its_end():
    instants = [at(23, 45, day=DAYS[1]) + step * 29 * MINUTE for step in range(60)]
    lake = lake_frame([event(instant, line) for line, instant in enumerate(instants, 1)])
    heights = [visits_of(events_of(lake, day), day).height for day in DAYS]
    assert heights == [0, 1, 0, 1, 0]


def test_engagement_prolongs_a_visit_and_never_opens_one():
    lake = lake_frame(
        [
            event(at(9), 1, name=ENGAGEMENT),
            event(at(9, 10), 2),
            event(at(9, 35), 3, name=ENGAGEMENT),
            event(at(10, 5), 4),
            event(at(12), 5, name=ENGAGEMENT),
        ]
    )
    (visit,) = visits_of(events_of(lake, MIDDLE), MIDDLE).to_dicts()
    assert visit["began"] == to_datetime(at(9, 10))
    assert (visit["duration_ms"], visit["events"], visit["bounce"]) == (55 * MINUTE, 2, False)
