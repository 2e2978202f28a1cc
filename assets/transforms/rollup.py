"""Metrics, each defined once: of hours from events, of dates and of ranges of dates from visits and their events.

    events ── traffic                                     per site and event hour
    visits ── visit_hours                                 per site and hour in which visits began
    visits ── visit_days ──┬── site_days                  per site (and date)
                           └── breakdowns ── by_visit     per site, dimension and value
    events of visits ── actions ───────────── by_page, by_event

Functions of a period take what belongs to its dates, one or many, and count visitors distinct over all of them: the daily
assets give them one date, a report of a range gives them the range.
"""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl

from assets.transforms.sessionize import NO_PAGE
from ingestion.event import ENGAGEMENT, PAGEVIEW

DIMENSIONS = (
    "entry_page", "exit_page", "source", "channel", "referrer", "utm_source", "utm_medium", "utm_campaign",
    "country", "browser", "os", "device",
)  # fmt: skip
"""Visit attributes by which reports break down; a visit without a value (no referrer, no UTM) is left out. To add a
dimension, add its column here, and to ATTRIBUTES in sessionize.py."""

ALL_DIMENSIONS = ("page", *DIMENSIONS, "event")

_DIMENSION = pl.Enum(sorted(ALL_DIMENSIONS))

SAMPLE_SIZE = 4_096
"""Hashes kept of each site-date's supplied visitor ids. A k-minimum-values sketch of size k has a relative standard error
of 1/sqrt(k-2), 1.6 % here (Bar-Yossef et al., 2002; Beyer et al., 2007)."""

METRICS = ("visitors", "visits", "pageviews", "events", "entries", "bounces", "duration_ms")
"""Sums of a breakdown row. `entries` are the visits that bounces and duration are of."""

TRAFFIC: dict[str, Any] = {
    "site": pl.String,
    "hour": pl.Datetime("ms", "UTC"),
    "pageviews": pl.Int64,
    "events": pl.Int64,
    "visitors": pl.Int64,
}


def traffic(events: pl.DataFrame) -> pl.DataFrame:
    """Counted events (site, timestamp, name, visitor_id) to one row a site and event hour (`TRAFFIC`)."""
    return (
        events.filter(pl.col("name") != ENGAGEMENT)
        .group_by("site", hour=pl.col("timestamp").dt.truncate("1h"))
        .agg(
            pageviews=(pl.col("name") == PAGEVIEW).sum(),
            events=pl.len(),
            visitors=pl.col("visitor_id").n_unique(),
        )
        .sort("site", "hour")
        .select(pl.col(name).cast(dtype) for name, dtype in TRAFFIC.items())
    )


def visit_hours(visits: pl.DataFrame) -> pl.DataFrame:
    """Visits to one row a site, date and UTC hour in which they began."""
    return (
        visits.group_by("date", "site", hour=pl.col("began").dt.truncate("1h"))
        .agg(
            visits=pl.len().cast(pl.Int64),
            bounces=pl.col("bounce").sum().cast(pl.Int64),
            duration_ms=pl.col("duration_ms").sum(),
        )
        .select("date", "hour", "site", "visits", "bounces", "duration_ms")
        .sort("date", "hour", "site")
    )


def visit_days(visits: pl.DataFrame) -> pl.DataFrame:
    """What each visit gives to each date that it has events on: itself to the date on which it began, its events to
    their own. A visit that crosses midnight gives two rows, each with its visitor's id of that date."""
    began = visits.with_columns(
        visits=pl.lit(1, pl.Int64),
        bounces=pl.col("bounce").cast(pl.Int64),
    )
    crossed = visits.filter(pl.col("next_events") > 0).with_columns(
        date=pl.col("date").dt.offset_by("1d"),
        visitor_id=pl.col("next_visitor_id"),
        pageviews=pl.col("next_pageviews"),
        events=pl.col("next_events"),
        visits=pl.lit(0, pl.Int64),
        bounces=pl.lit(0, pl.Int64),
        duration_ms=pl.lit(0, pl.Int64),
    )
    return pl.concat([began, crossed]).drop("bounce", "next_visitor_id", "next_pageviews", "next_events")


_SUMS = {name: pl.col(name).sum() for name in ("visits", "pageviews", "events")}
_VISIT_SUMS = {"bounces": pl.col("bounces").sum(), "duration_ms": pl.col("duration_ms").sum()}


def site_totals(days: pl.DataFrame) -> pl.DataFrame:
    """The visit days of a period to one row a site. `visitors` are distinct; `cookieless_visitors` are those whose ids
    differ from date to date, `visitor_sample` is a sample of the others' hashes (see `visitors_of_range`)."""
    totals = days.group_by("site").agg(
        visitors=pl.col("visitor_id").n_unique().cast(pl.Int64),
        cookieless_visitors=pl.col("visitor_id").filter("cookieless").n_unique().cast(pl.Int64),
        supplied=pl.col("visitor_id").filter(~pl.col("cookieless")).unique(),
        **_SUMS,
        **_VISIT_SUMS,
    )
    samples = pl.Series(
        "visitor_sample", [_smallest_hashes(ids) for ids in totals["supplied"]], dtype=pl.List(pl.Int64)
    )
    return totals.with_columns(samples).drop("supplied").sort("site")


def _smallest_hashes(ids: pl.Series) -> list[int]:
    hashes = {
        int.from_bytes(hashlib.blake2b(visitor.encode(), digest_size=8).digest(), "big", signed=True) for visitor in ids
    }
    return sorted(hashes)[:SAMPLE_SIZE]


def visitors_of_range(cookieless: int, samples: Sequence[Sequence[int]]) -> int:
    """Visitors of several dates: cookieless ones add up, supplied ones are the union of their samples, exact below
    SAMPLE_SIZE and an estimate beyond: of hashes that are uniform over 2**64 values, the k-th smallest is at k/n of them."""
    union = sorted(set().union(*samples))[:SAMPLE_SIZE]
    if len(union) < SAMPLE_SIZE:
        return cookieless + len(union)
    kth_smallest = (union[-1] + 2**63 + 1) / 2**64
    return cookieless + round((SAMPLE_SIZE - 1) / kth_smallest)


def actions(labelled: pl.DataFrame, day: date, first: date, last: date) -> pl.DataFrame:
    """The labelled events around `day` that a period from `first` to `last` (both included) counts there: those of visits
    that began on `day`, and on its first date also those of visits that began the evening before."""
    of_day = (pl.col("visit_date") == day) | (pl.lit(day == first) & (pl.col("date") == day))
    return labelled.filter(pl.col("is_event") & of_day).select(
        "site", "visitor_id", "name", "path", "is_pageview",
        visit=pl.col("visit_date").cast(pl.Int64) * 2**32 + pl.col("visit"),
        counts=pl.col("date").is_between(first, last),
        visit_counts=pl.col("visit_date").is_between(first, last),
    )  # fmt: skip


def breakdowns(days: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """The visit days and actions of a period to rows of (site, dimension, value, *METRICS), sorted. Rows in which nothing
    was counted are left out."""
    days, actions = _coded(days, actions)
    tables = [
        *(_by_visit(days.lazy(), dimension) for dimension in DIMENSIONS),
        _by_page(days.lazy(), actions.lazy()),
        _by_event(actions.lazy()),
    ]
    return (
        pl.concat(pl.collect_all(tables))
        .filter(pl.any_horizontal(pl.col("visitors", "visits", "events", "entries") > 0))
        .sort("site", "dimension", "value")
        .with_columns(pl.col("site", "dimension").cast(pl.String))
    )


def _coded(days: pl.DataFrame, actions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same with sites, pages and visitors as numbers (Enums), which takes half the time: groups are found, visitors are
    told apart and rows are sorted by them. The order of a site's number is that of its name."""
    sites = pl.Enum(_distinct(days["site"], actions["site"]).sort())
    pages = pl.Enum(_distinct(days["entry_page"], days["exit_page"], actions["path"], pl.Series([NO_PAGE])))
    visitors = pl.Enum(_distinct(days["visitor_id"], actions["visitor_id"]))
    return (
        days.with_columns(
            pl.col("site").cast(sites),
            pl.col("entry_page", "exit_page").cast(pages),
            pl.col("visitor_id").cast(visitors),
        ),
        actions.with_columns(
            pl.col("site").cast(sites), pl.col("path").cast(pages), pl.col("visitor_id").cast(visitors)
        ),
    )


def _distinct(*columns: pl.Series) -> pl.Series:
    return pl.concat([column.rename("").unique() for column in columns]).unique().drop_nulls()


def _by_visit(days: pl.LazyFrame, dimension: str) -> pl.LazyFrame:
    """Visits and their events, under what each visit says of itself."""
    return (
        days.filter(pl.col(dimension).is_not_null())
        .group_by("site", value=dimension)
        .agg(visitors=pl.col("visitor_id").n_unique(), entries=pl.col("visits").sum(), **_SUMS, **_VISIT_SUMS)
        .pipe(_rows, dimension)
    )


def _by_page(days: pl.LazyFrame, actions: pl.LazyFrame) -> pl.LazyFrame:
    """Paths of pageviews: visitors, visits and pageviews are those with a pageview there; `events` adds the custom events
    on that path; bounces and duration are of the visits that entered there."""
    viewed = actions.filter("is_pageview").pipe(_by_action, "path")
    custom = (
        actions.filter(~pl.col("is_pageview") & pl.col("counts"))
        .group_by("site", value="path")
        .agg(custom=pl.len().cast(pl.Int64))
    )
    entered = (
        days.filter((pl.col("visits") > 0) & (pl.col("entry_page") != NO_PAGE))
        .group_by("site", value="entry_page")
        .agg(entries=pl.col("visits").sum(), **_VISIT_SUMS)
    )
    return (
        viewed.join(custom, on=["site", "value"], how="left")
        .join(entered, on=["site", "value"], how="left")
        .with_columns(pl.col("custom", "entries", "bounces", "duration_ms").fill_null(0))
        .with_columns(events=pl.col("events") + pl.col("custom"))
        .pipe(_rows, "page")
    )


def _by_event(actions: pl.LazyFrame) -> pl.LazyFrame:
    """Names of events; visits are those that contain one; nobody enters at an event."""
    nobody = pl.lit(0, pl.Int64)
    return (
        actions.pipe(_by_action, "name")
        .with_columns(entries=nobody, bounces=nobody, duration_ms=nobody)
        .pipe(_rows, "event")
    )


def _by_action(actions: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Visitors and events of the period, and visits that began in it, by a column of the events themselves."""
    return actions.group_by("site", value=column).agg(
        visitors=pl.col("visitor_id").filter("counts").n_unique(),
        visits=pl.col("visit").filter("visit_counts").n_unique(),
        pageviews=(pl.col("is_pageview") & pl.col("counts")).sum(),
        events=pl.col("counts").sum().cast(pl.Int64),
    )


def _rows(rows: pl.LazyFrame, dimension: str) -> pl.LazyFrame:
    return rows.select(
        "site",
        pl.lit(dimension, _DIMENSION).alias("dimension"),
        pl.col("value").cast(pl.String),
        pl.col(METRICS).cast(pl.Int64),
    )
