"""Visits and events of a date to metrics per site, and per site, dimension and value."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

import dagster as dg
import polars as pl

from assets.partitions import DATES, EVERY_DATES_RUN, GRAIN_DATE
from assets.replace import Landing, Made, Work, replace_partitions
from assets.transforms.rollup import actions, site_totals, visit_days
from assets.transforms.rollup import breakdowns as break_down
from assets.transforms.sessionize import NEIGHBOUR_COLUMNS, VISITS, around, label
from assets.visits import AROUND, objects_around
from ingestion.lake_events import by_bucket, read_events
from ingestion.ledger import PartitionObject
from ingestion.stores import Stores


@dg.asset(
    deps=[
        dg.AssetDep("events", partition_mapping=AROUND),
        "visits",  # those of the date before, too; but a backfill by assets must give all of them the same dates
    ],
    partitions_def=DATES,
    backfill_policy=EVERY_DATES_RUN,
    code_version="1",
    group_name="daily",
    owners=["team:footfall"],
    tags=GRAIN_DATE,
    kinds={"polars", "postgres"},
)
def breakdowns(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Metrics per site and date, and per dimension (page, source, country, browser, …) and value. Events count on their own
    date under their visit's value, visits on the date on which they began."""
    return replace_partitions(context, stores, make_breakdowns)


def make_breakdowns(work: Work, days: Sequence[str]) -> Iterator[Made]:
    """Each date's metrics, bucket by bucket."""
    for key in days:
        day = date.fromisoformat(key)
        visits = work.stores.ledger.objects("visits", [day - timedelta(days=1), day])
        totals, rows = list[pl.DataFrame](), list[pl.DataFrame]()
        for today, neighbours, begun in by_bucket(*objects_around(work.stores, day), visits):
            days_of_visits = _visit_days(work.stores, begun, day)
            totals.append(site_totals(days_of_visits))
            rows.append(break_down(days_of_visits, _actions(work.stores, today, neighbours, day)))
        yield Made(key, landing=[_landing("site_days", day, totals), _landing("breakdowns", day, rows)])


def _visit_days(stores: Stores, objects: Sequence[PartitionObject], day: date) -> pl.DataFrame:
    names = [item.object.name for item in objects]
    visits = stores.lake.read_parquet(names) if names else pl.DataFrame(schema=VISITS)
    return visit_days(visits).filter(pl.col("date") == day)


def _actions(
    stores: Stores, today: Sequence[PartitionObject], neighbours: Sequence[PartitionObject], day: date
) -> pl.DataFrame:
    here, near = (
        read_events(stores.lake, objects, NEIGHBOUR_COLUMNS).filter(~pl.col("bot")) for objects in (today, neighbours)
    )
    return actions(label(around(here, near), day), day, first=day, last=day)


def _landing(table: str, day: date, rows: Sequence[pl.DataFrame]) -> Landing:
    found = (
        pl.concat([frame for frame in rows if frame.height]) if any(frame.height for frame in rows) else pl.DataFrame()
    )
    if found.height:
        found = found.sort([name for name in ("site", "dimension", "value") if name in found.columns])
        found = found.select(pl.lit(day).alias("date"), *found.columns)
    return Landing(table, "date", [day], found)
