"""Visits from events, around one date.

A visit is a run of one visitor's events on one site with no pause of more than 30 minutes. It may cross midnight, once:
where a visitor's local day has no such pause from its first instant to its last, the visit is cut at that day's end. So the
visits of a date follow from the events of that date and of its two neighbours, and of those only from visitors at the edge.

Events are sorted by site, visitor and order; then a run begins where the visitor changes or the pause is too long, and
everything about a visit is a difference between the rows at its two ends. No group-by over all events is needed.
"""

from datetime import date, timedelta
from typing import Any

import polars as pl

from ingestion.event import ENGAGEMENT, PAGEVIEW

MAX_PAUSE = pl.duration(minutes=30)
NO_PAGE = "(none)"

VISITOR = ("site", "visitor")
ORDER = ("timestamp", "position", "event_id")
ATTRIBUTES = (
    "source", "channel", "referrer", "utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term",
    "country", "region", "city", "browser", "browser_version", "os", "os_version", "device",
)  # fmt: skip
"""What a visit takes from its first event."""

IDENTITY = ("site", "date", "date_began", "date_ended", "visitor_id", "previous_visitor_id")
NEIGHBOUR_COLUMNS = (*IDENTITY, "bot", *ORDER, "name", "path", "interactive")
EVENT_COLUMNS = (*NEIGHBOUR_COLUMNS, "cookieless", *ATTRIBUTES)
"""What must be read of the events of a date, and of its neighbours, to make visits."""

VISITS: dict[str, Any] = {
    "site": pl.String,
    "date": pl.Date,
    "visit_id": pl.String,
    "visitor_id": pl.String,
    "cookieless": pl.Boolean,
    "began": pl.Datetime("ms", "UTC"),
    "duration_ms": pl.Int64,
    "bounce": pl.Boolean,
    "pageviews": pl.Int64,
    "events": pl.Int64,
    "next_visitor_id": pl.String,
    "next_pageviews": pl.Int64,
    "next_events": pl.Int64,
    "entry_page": pl.String,
    "exit_page": pl.String,
    **dict.fromkeys(ATTRIBUTES, pl.String),
}
"""Columns of a visit. `date` is that on which it began; counts are of that date, `next_…` of the one after."""


def around(today: pl.DataFrame, neighbours: pl.DataFrame) -> pl.DataFrame:
    """The events that the visits of a date can depend on: all of the date itself, and of the dates before and after it
    (`neighbours`, with fewer columns) those of visitors with an event within half an hour of it."""
    if today.is_empty() or neighbours.is_empty():
        return today
    day = today["date"][0]
    near = (pl.col("date") < day) & (pl.col("date_ended") - pl.col("timestamp") <= MAX_PAUSE)
    near |= (pl.col("date") > day) & (pl.col("timestamp") - pl.col("date_began") <= MAX_PAUSE)
    at_edge = neighbours.filter(near).select("site", "date", "visitor_id").unique()
    edges = neighbours.join(at_edge, on=["site", "date", "visitor_id"], how="semi")
    return pl.concat([today, edges], how="diagonal")


def label(events: pl.DataFrame, day: date) -> pl.DataFrame:
    """The events around `day`, each with its visit, sorted by visit and order.

    `events` are those of the date and its neighbours (see `around`), without duplicates and bots. Added columns: `visit` (a
    number), `visit_date` (on which it began), `opens` (the visit's first event), `is_pageview`, `is_event` (engagement is
    none). Engagement that no visit was open for belongs to none and is left out. Complete are the visits that began on
    `day`, and the events on `day` of those that began before.
    """
    return events.pipe(_with_visitor, day).sort(*VISITOR, *ORDER).pipe(_with_runs).pipe(_from_first_event)


def _with_visitor(events: pl.DataFrame, day: date) -> pl.DataFrame:
    """One name for a visitor across midnight: a cookieless visitor has another id on each date, and carries the previous
    one in the first half hour, while a visit may go on. All are called by their id of `day`."""
    carried = (
        events.filter(pl.col("previous_visitor_id").is_not_null())
        .group_by("site", "date", "visitor_id")
        .agg(pl.col("previous_visitor_id").min())
    )
    before = (
        carried.filter(pl.col("date") == day)
        .group_by("site", pl.col("date") - timedelta(days=1), visitor_id="previous_visitor_id")
        .agg(same=pl.col("visitor_id").min())
    )
    after = carried.filter(pl.col("date") > day).select("site", "date", "visitor_id", same="previous_visitor_id")
    return events.join(
        pl.concat([before, after]), on=["site", "date", "visitor_id"], how="left", maintain_order="left"
    ).with_columns(visitor=pl.coalesce("same", "visitor_id"))


def _with_runs(events: pl.DataFrame) -> pl.DataFrame:
    """Adds `begins` (a run does) and `is_pageview`, `is_event`."""
    same_visitor = (pl.col("site") == pl.col("site").shift()) & (pl.col("visitor") == pl.col("visitor").shift())
    continues = same_visitor & (pl.col("timestamp").diff() <= MAX_PAUSE)
    runs = events.with_columns(
        begins=~continues.fill_null(False),
        midnight=(continues & (pl.col("date") != pl.col("date").shift())).fill_null(False),
        date_before=pl.col("date").shift(),
        is_pageview=pl.col("name") == PAGEVIEW,
        is_event=pl.col("name") != ENGAGEMENT,
    )
    return runs.pipe(_cut_after_full_days)


def _cut_after_full_days(runs: pl.DataFrame) -> pl.DataFrame:
    """A run also begins after a date on which its visitor made no long pause from the first instant to the last."""
    crossing = runs.filter("midnight").select(*VISITOR).unique()
    if crossing.is_empty():
        return runs
    full = (
        runs.join(crossing, on=VISITOR, how="semi")
        .sort(*VISITOR, "timestamp")
        .group_by(*VISITOR, "date")
        .agg(
            pause_before=pl.col("timestamp").first() - pl.col("date_began").first(),
            longest_pause=pl.col("timestamp").diff().max(),
            pause_after=pl.col("date_ended").first() - pl.col("timestamp").last(),
        )
        .filter(pl.all_horizontal(pl.col("pause_before", "longest_pause", "pause_after") <= MAX_PAUSE))
        .select(*VISITOR, date_before="date", after_full_day=pl.lit(True))
    )
    return runs.join(full, on=[*VISITOR, "date_before"], how="left", maintain_order="left").with_columns(
        begins=pl.col("begins") | (pl.col("midnight") & pl.col("after_full_day").fill_null(False))
    )


def _from_first_event(runs: pl.DataFrame) -> pl.DataFrame:
    """Drops the engagement before the first event of each run; what is left of a run is a visit."""
    events_so_far = pl.col("is_event").cum_sum()
    before_run = pl.when("begins").then(events_so_far - pl.col("is_event")).forward_fill()
    return (
        runs.with_columns(run=pl.col("begins").cum_sum(), opened=events_so_far > before_run)
        .filter("opened")
        .with_columns(opens=pl.col("run") != pl.col("run").shift(fill_value=0))
        .with_columns(visit=pl.col("opens").cum_sum(), visit_date=pl.when("opens").then("date").forward_fill())
    )


def visits(labelled: pl.DataFrame, day: date) -> pl.DataFrame:
    """Labelled events to one row for each visit that began on `day` (`VISITS`), sorted by site, visitor and beginning."""
    labelled = labelled.filter(pl.col("visit_date") == day)
    opens, closes = labelled["opens"], labelled["opens"].shift(-1, fill_value=True)
    interactive = pl.col("is_pageview") | (pl.col("is_event") & pl.col("interactive"))
    narrow = labelled.select("timestamp", "is_pageview", "is_event", interactive=interactive)
    so_far = narrow.with_columns(pl.col("is_pageview", "is_event", "interactive").cum_sum().cast(pl.Int64))
    first, last = labelled.filter(opens), so_far.filter(closes)
    own = narrow.filter(opens)
    before = so_far.filter(opens).select(
        pl.col(name) - own[name].cast(pl.Int64) for name in ("is_pageview", "is_event", "interactive")
    )
    pages = labelled.select("visit", "path", "is_pageview").filter("is_pageview").drop("is_pageview")
    entries = pages.filter(pl.col("visit") != pl.col("visit").shift(fill_value=0)).rename({"path": "entry_page"})
    exits = pages.filter(pl.col("visit") != pl.col("visit").shift(-1, fill_value=0)).rename({"path": "exit_page"})
    crossed = (
        labelled.filter(pl.col("date") != pl.col("visit_date"), "is_event")
        .group_by("visit")
        .agg(
            next_visitor_id=pl.col("visitor_id").first(),
            next_pageviews=pl.col("is_pageview").sum().cast(pl.Int64),
            next_events=pl.len().cast(pl.Int64),
        )
    )
    return (
        first.select(
            "visit", "site", "date", "visitor_id", "cookieless", *ATTRIBUTES,
            visit_id="event_id",
            began="timestamp",
            duration_ms=(last["timestamp"] - first["timestamp"]).dt.total_milliseconds(),
            bounce=last["interactive"] - before["interactive"] <= 1,
            all_pageviews=last["is_pageview"] - before["is_pageview"],
            all_events=last["is_event"] - before["is_event"],
        )
        .join(entries, on="visit", how="left", maintain_order="left")
        .join(exits, on="visit", how="left", maintain_order="left")
        .join(crossed, on="visit", how="left", maintain_order="left")
        .with_columns(pl.col("next_pageviews", "next_events").fill_null(0), pl.col("entry_page", "exit_page").fill_null(NO_PAGE))
        .with_columns(
            pageviews=pl.col("all_pageviews") - pl.col("next_pageviews"),
            events=pl.col("all_events") - pl.col("next_events"),
        )
        .sort("site", "visitor_id", "began", "visit_id")
        .select(pl.col(name).cast(dtype) for name, dtype in VISITS.items())
    )  # fmt: skip
