"""Events of an hour to pageviews, events and visitors per site."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import groupby

import dagster as dg
import polars as pl

from assets.partitions import EVERY_HOURS_RUN, GRAIN_HOUR, HOURS
from assets.replace import Landing, Made, Work, replace_partitions
from assets.transforms.rollup import TRAFFIC
from assets.transforms.rollup import traffic as roll_up
from ingestion.lake_events import by_bucket, read_events
from ingestion.site_time import hour_of
from ingestion.stores import Stores

COLUMNS = ("site", "timestamp", "name", "visitor_id", "bot")


@dg.asset(
    deps=["events"],
    partitions_def=HOURS,
    backfill_policy=EVERY_HOURS_RUN,
    code_version="1",
    group_name="hourly",
    owners=["team:footfall"],
    tags=GRAIN_HOUR,
    kinds={"polars", "postgres"},
)
def traffic(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Pageviews, events and distinct visitors per site and event hour, late events included, bots and duplicates not."""
    return replace_partitions(context, stores, make_traffic)


def make_traffic(work: Work, hours: Sequence[str]) -> Iterator[Made]:
    """Each event hour's traffic. The hours of a UTC date are read together."""
    dates_of_hour: dict[str, set[date]] = {}
    for touch in work.state.touched:
        dates_of_hour.setdefault(touch.hour, set()).add(date.fromisoformat(touch.date))
    for _, group in groupby(hours, key=lambda hour: hour[:10]):
        wanted = list(group)
        dates = set[date]().union(*(dates_of_hour.get(hour, ()) for hour in wanted))
        rows = _traffic_of(work, wanted, dates)
        for hour in wanted:
            at = hour_of(hour)
            yield Made(hour, landing=[Landing("traffic", "hour", [at], rows.filter(pl.col("hour") == at))])


def _traffic_of(work: Work, hours: Sequence[str], dates: set[date]) -> pl.DataFrame:
    between = pl.col("timestamp").dt.truncate("1h").is_in([hour_of(hour) for hour in hours])
    rows = [pl.DataFrame(schema=TRAFFIC)]
    for (objects,) in by_bucket(work.stores.ledger.objects("events", dates)):
        rows.append(roll_up(read_events(work.stores.lake, objects, COLUMNS).filter(between, ~pl.col("bot"))))
    return pl.concat(rows).sort("hour", "site")
