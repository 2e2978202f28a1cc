"""Traffic of the last 168 hours to its averages over 3, 24 and 168 hours per site."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

import dagster as dg
import polars as pl

from assets.partitions import EVERY_HOURS_RUN, GRAIN_HOUR, HOURS
from assets.replace import Landing, Made, Work, replace_partitions
from assets.transforms.rollup import TRAFFIC
from assets.transforms.trend import LONGEST
from assets.transforms.trend import moving_averages as average
from ingestion.site_time import hour_of
from ingestion.stores import Stores

HOURS_AT_ONCE = 168
SPARK = " ▁▂▃▄▅▆▇█"


@dg.asset(
    deps=[
        dg.AssetDep("traffic", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=1 - LONGEST, end_offset=0))
    ],
    partitions_def=HOURS,
    backfill_policy=EVERY_HOURS_RUN,
    code_version="1",
    group_name="hourly",
    owners=["team:footfall"],
    tags=GRAIN_HOUR,
    kinds={"polars", "postgres"},
)
def moving_averages(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Moving averages over 3, 24 and 168 hours of pageviews, events and visitors per site, from the site's first hour with
    traffic until 168 hours after its last. Hours without events count zero."""
    result = replace_partitions(context, stores, make_moving_averages)
    plot = _plot(stores, sorted(context.partition_keys))
    return result._replace(metadata={**(result.metadata or {}), "plot": dg.MetadataValue.md(plot)})


def make_moving_averages(work: Work, hours: Sequence[str]) -> Iterator[Made]:
    """Each hour's averages, some hours at a time."""
    for begin in range(0, len(hours), HOURS_AT_ONCE):
        wanted = [hour_of(hour) for hour in hours[begin : begin + HOURS_AT_ONCE]]
        window = [wanted[0] - timedelta(hours=LONGEST - 1), wanted[-1]]
        traffic = work.stores.ledger.landed(
            """select site, hour, pageviews, events, visitors from landing.traffic
               where hour between %s and %s and events > 0""",
            window,
            TRAFFIC,
        )
        first_hours = work.stores.ledger.landed(
            "select site, hour from footfall.first_hours where hour <= %s",
            window[1:],
            {"site": pl.String, "first_hour": pl.Datetime("ms", "UTC")},
        )
        averages = average(traffic, first_hours, wanted)
        for hour, at in zip(hours[begin:], wanted, strict=False):
            rows = averages.filter(pl.col("hour") == at)
            yield Made(hour, landing=[Landing("moving_averages", "hour", [at], rows)])


def _plot(stores: Stores, hours: Sequence[str]) -> str:
    """All sites' pageviews of the last 48 of these hours, and their 24-hour average, as a small chart in Markdown."""
    last = hour_of(hours[-1])
    rows = stores.ledger.landed(
        """select hour, coalesce(sum(pageviews), 0)::bigint, coalesce(sum(average), 0)::float8 from
               generate_series(%s::timestamptz, %s::timestamptz, interval '1 hour') hour
               left join (select hour, site, pageviews, null::float8 as average from landing.traffic
                          union all select hour, site, null, pageviews_24h_average from landing.moving_averages) both_of_them
               using (hour)
           group by hour order by hour""",
        [max(last - timedelta(hours=47), hour_of(hours[0])), last],
        {"hour": pl.Datetime("ms", "UTC"), "pageviews": pl.Int64, "average": pl.Float64},
    )
    most = max(1.0, float(rows["pageviews"].max() or 0), float(rows["average"].max() or 0))  # type: ignore[arg-type]
    lines = [
        "".join(SPARK[round(value / most * (len(SPARK) - 1))] for value in rows[name])
        for name in ("pageviews", "average")
    ]
    return f"```\npageviews        {lines[0]}\n24-hour average  {lines[1]}\n```\n{rows['hour'][0]:%Y-%m-%d %H:00} to {last:%Y-%m-%d %H:00} UTC, at most {most:,.0f} an hour"
