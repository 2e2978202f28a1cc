"""A site's report for some dates, as `footfall report --json` prints it: read from the report tables, in one snapshot.

Visitors of several dates do not add up. Those of the totals come from the samples in the tables; those of breakdowns are
counted in the lake.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg.rows import dict_row

from assets.transforms.rollup import ALL_DIMENSIONS, METRICS, visitors_of_range
from assets.transforms.trend import LONGEST
from ingestion.site_time import HOUR_MS, date_bounds, floor_hour, hour_key, to_datetime
from ingestion.stores import Stores
from serving.range_breakdowns import range_breakdowns

MAX_VALUES = 1_000
"""Rows of each breakdown."""
LONGEST_WINDOW = timedelta(hours=LONGEST)
TABLES = ("report_site_hours", "report_site_days", "report_breakdown_days", "report_pipeline_hours")

Report = dict[str, Any]
Row = dict[str, Any]


class NoSuchSite(Exception):
    """The site is not known. The message says which are."""


class BadRange(Exception):
    """The dates cannot be a range."""


def report(stores: Stores, site: str, first: date | None, last: date | None) -> Report:
    """The report of `site` for the dates from `first` to `last`, both included; without them, of all dates with events."""
    time_zone = stores.ledger.time_zone(site)
    if time_zone is None:
        raise NoSuchSite(_unknown(site, list(stores.ledger.time_zones())))
    with _snapshot(stores.postgres_url) as tables:
        first, last = _range(tables, site, first, last)
        began, ended = date_bounds(time_zone, first)[0], date_bounds(time_zone, last)[1]
        hours = [to_datetime(hour) for hour in range(floor_hour(began), ended, HOUR_MS)]
        days = _days(tables, site, first, last)
        breakdowns = _date_breakdowns(tables, site, first) if first == last else None
        parts = {
            "totals": _metrics(_totals(days)),
            "days": [{"date": str(row["date"])} | _metrics(row) for row in days],
            "hours": _hours(tables, site, hours),
            "pipeline": _pipeline(tables, site, hours),
        }
    if breakdowns is None:
        breakdowns = range_breakdowns(stores, site, first, last)
    return {
        "site": site,
        "from": str(first),
        "to": str(last),
        "totals": parts["totals"],
        "days": parts["days"],
        "hours": parts["hours"],
        "breakdowns": {dimension: _values(breakdowns, dimension) for dimension in ALL_DIMENSIONS},
        "pipeline": parts["pipeline"],
    }


@contextmanager
def _snapshot(postgres_url: str) -> Iterator[psycopg.Cursor[Row]]:
    """The report tables at one instant. Attaching a date is not safe for snapshots, so the tables are locked first: not
    their dates, each of which would take a place in PostgreSQL's table of locks."""
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection, connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read read only")
        try:
            for table in TABLES:
                cursor.execute(f"lock table only reports.{table} in access share mode")  # type: ignore[arg-type]
        except psycopg.errors.UndefinedTable:
            raise NothingPublished from None
        yield cursor


class NothingPublished(Exception):
    """There are no report tables yet: nothing has been materialized."""

    def __str__(self) -> str:
        return "nothing has been materialized yet: run `footfall materialize` first"


def _unknown(site: str, known: Sequence[str]) -> str:
    there = (
        "there is none yet" if not known else "known are " + ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
    )
    return f"no site {site!r}: {there}; add one with `footfall sites add {site}`"


def _range(tables: psycopg.Cursor[Row], site: str, first: date | None, last: date | None) -> tuple[date, date]:
    if first is None or last is None:
        row = tables.execute(
            "select min(date) as first, max(date) as last from reports.report_site_days where site = %s", [site]
        ).fetchone()
        assert row is not None
        first, last = first or row["first"] or last or date.today(), last or row["last"] or first or date.today()
    if first > last:
        raise BadRange(f"--from {first} is after --to {last}")
    return first, last


def _days(tables: psycopg.Cursor[Row], site: str, first: date, last: date) -> list[Row]:
    """A row for each date, zeros where there is nothing."""
    found = {
        row["date"]: row
        for row in tables.execute(
            """select date, visitors, cookieless_visitors, visitor_sample, visits, pageviews, events, bounces, duration_ms
               from reports.report_site_days where site = %s and date between %s and %s""",
            [site, first, last],
        )
    }
    nothing = dict.fromkeys(
        ("visitors", "cookieless_visitors", "visits", "pageviews", "events", "bounces", "duration_ms"), 0
    )
    dates = [first + timedelta(days=step) for step in range((last - first).days + 1)]
    return [found.get(day) or {"date": day, "visitor_sample": [], **nothing} for day in dates]


def _totals(days: Sequence[Row]) -> Row:
    sums = {
        name: sum(day[name] for day in days) for name in ("visits", "pageviews", "events", "bounces", "duration_ms")
    }
    cookieless = sum(day["cookieless_visitors"] for day in days)
    return {"visitors": visitors_of_range(cookieless, [day["visitor_sample"] for day in days]), **sums}


def _metrics(row: Row) -> Row:
    return {
        "visitors": row["visitors"],
        "visits": row["visits"],
        "pageviews": row["pageviews"],
        "events": row["events"],
        "views_per_visit": _ratio(row["pageviews"], row["visits"]),
        "bounce_rate": _ratio(100 * row["bounces"], row["visits"]),
        "visit_duration": _ratio(row["duration_ms"] / 1000, row["visits"]),
    }


def _ratio(numerator: float, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def _hours(tables: psycopg.Cursor[Row], site: str, hours: Sequence[datetime]) -> list[Row]:
    """A row for each hour. Before a site's first hour with traffic there is no average; 168 hours after its last it is 0. Of an
    hour that was not made yet there is none."""
    found = {
        row["hour"]: row
        for row in tables.execute(
            """select hour, pageviews, events, visitors, visits, pageviews_24h_average
               from reports.report_site_hours where site = %s and date between %s and %s order by hour""",
            [site, (hours[0] - LONGEST_WINDOW).date(), hours[-1].date()],
        )
    }
    busy = [hour for hour, row in found.items() if row["events"]]
    start = tables.execute("select hour from footfall.first_hours where site = %s", [site]).fetchone()
    rows = []
    for hour in hours:
        row = found.get(hour) or dict.fromkeys(("pageviews", "events", "visitors", "visits"), 0)
        average = row.get("pageviews_24h_average")
        if average is None and start and hour >= start["hour"] and not _is_busy_before(hour, busy):
            average = 0.0
        counts = {name: row[name] for name in ("pageviews", "events", "visitors", "visits")}
        rows.append({"hour": hour_key(hour), **counts, "pageviews_24h_average": average})
    return rows


def _is_busy_before(hour: datetime, busy: Sequence[datetime]) -> bool:
    """Whether one of the hours with events is at this hour, or less than the longest window before it."""
    last = bisect_right(busy, hour)
    return last > 0 and hour - busy[last - 1] < LONGEST_WINDOW


def _pipeline(tables: psycopg.Cursor[Row], site: str, hours: Sequence[datetime]) -> Row:
    totals: Row = dict.fromkeys(("received", "accepted", "counted", "duplicates", "bots"), 0)
    rejected: dict[str, int] = {}
    for row in tables.execute(
        """select received, accepted, counted, duplicates, bots, rejected_by_reason
           from reports.report_pipeline_hours where site = %s and date between %s and %s and hour between %s and %s""",
        [site, hours[0].date(), hours[-1].date(), hours[0], hours[-1]],
    ):
        for name in totals:
            totals[name] += row[name]
        for reason, lines in row["rejected_by_reason"].items():
            rejected[reason] = rejected.get(reason, 0) + lines
    return {**totals, "rejected": dict(sorted(rejected.items()))}


def _date_breakdowns(tables: psycopg.Cursor[Row], site: str, day: date) -> pl.DataFrame:
    rows = tables.execute(
        """select dimension, value, visitors, visits, pageviews, events, entries, bounces, duration_ms
           from reports.report_breakdown_days where site = %s and date = %s""",
        [site, day],
    ).fetchall()
    schema = {"dimension": pl.String, "value": pl.String} | dict.fromkeys(METRICS, pl.Int64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def _values(breakdowns: pl.DataFrame, dimension: str) -> list[Row]:
    """A dimension's values, by visitors descending, then bytewise."""
    rows = breakdowns.filter(pl.col("dimension") == dimension).sort("visitors", "value", descending=[True, False])
    return [
        {
            **{name: row[name] for name in ("value", "visitors", "visits", "pageviews", "events")},
            "bounce_rate": _ratio(100 * row["bounces"], row["entries"]),
            "visit_duration": _ratio(row["duration_ms"] / 1000, row["entries"]),
        }
        for row in rows.head(MAX_VALUES).iter_rows(named=True)
    ]
