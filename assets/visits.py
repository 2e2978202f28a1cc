"""Events of a date, and its neighbours' edges, to one row a visit; and the accounts of the date's events."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import polars as pl

from assets.checks import ACCEPTED, of_visits
from assets.partitions import DATES, EVERY_DATES_RUN, GRAIN_DATE
from assets.replace import Landing, Made, Work, put_bucket, replace_partitions
from assets.transforms.rollup import visit_hours
from assets.transforms.sessionize import EVENT_COLUMNS, NEIGHBOUR_COLUMNS, VISITS, around, label
from assets.transforms.sessionize import visits as visits_of
from ingestion.lake_events import by_bucket, read_copies, read_events
from ingestion.ledger import PartitionObject
from ingestion.stores import Stores

AROUND = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=1, allow_nonexistent_upstream_partitions=True)
SHOWN = 10
"""Rows of the sample in the Dagster UI."""

ACCOUNTS: dict[str, Any] = {
    "date": pl.Date, "hour": pl.Datetime("ms", "UTC"), "site": pl.String,
    "counted": pl.Int64, "bots": pl.Int64, "duplicates": pl.Int64,
}  # fmt: skip


@dg.asset(
    deps=[dg.AssetDep("events", partition_mapping=AROUND)],
    partitions_def=DATES,
    backfill_policy=EVERY_DATES_RUN,
    code_version="1",
    group_name="daily",
    owners=["team:footfall"],
    tags=GRAIN_DATE,
    kinds={"polars", "parquet"},
    check_specs=[ACCEPTED],
)
def visits(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row a visit, by the date of the site on which it began: a run of a visitor's events with no pause of more than 30
    minutes, also across midnight. Counts what became of every accepted event: counted, bot, or duplicate."""
    result = replace_partitions(context, stores, make_visits, check=of_visits)
    return result._replace(
        metadata={**(result.metadata or {}), "sample": _sample(stores, sorted(context.partition_keys))}
    )


def make_visits(work: Work, days: Sequence[str]) -> Iterator[Made]:
    """Each date's visits, bucket by bucket."""
    for key in days:
        day = date.fromisoformat(key)
        objects = list[PartitionObject]()
        hours, accounts = [visit_hours(pl.DataFrame(schema=VISITS))], [pl.DataFrame(schema=ACCOUNTS)]
        for bucket in by_bucket(*objects_around(work.stores, day)):
            today = read_copies(work.stores.lake, bucket[0], EVENT_COLUMNS)
            accounts.append(_accounts(today))
            neighbours = read_events(work.stores.lake, bucket[1], NEIGHBOUR_COLUMNS).filter(~pl.col("bot"))
            counted = today.filter(~pl.col("is_copy") & ~pl.col("bot")).select(EVENT_COLUMNS)
            rows = visits_of(label(around(counted, neighbours), day), day)
            hours.append(visit_hours(rows))
            if rows.height:
                first = bucket[0][0]
                name = f"visits/date={key}/bucket={first.bucket:02d}-{work.version}.parquet"
                objects.append(
                    put_bucket(work.stores, name, rows, day=day, bucket=(first.bucket or 0, first.buckets or 1))
                )
        yield Made(
            key,
            objects,
            landing=[
                Landing("visit_hours", "date", [day], pl.concat(hours).sort("hour", "site")),
                Landing("event_copies", "date", [day], pl.concat(accounts).sort("hour", "site")),
            ],
        )


def objects_around(stores: Stores, day: date) -> tuple[list[PartitionObject], list[PartitionObject]]:
    """The event objects of a date, and of the dates before and after it."""
    objects = stores.ledger.objects("events", [day - timedelta(days=1), day, day + timedelta(days=1)])
    return [item for item in objects if item.day == day], [item for item in objects if item.day != day]


def _accounts(copies: pl.DataFrame) -> pl.DataFrame:
    """What became of a date's accepted events, by arrival hour and site. A copy is a duplicate even if it is a bot's."""
    hour = pl.col("object").str.slice(len("raw/hour="), len("2026-11-22T13")) + ":00"
    return (
        copies.group_by("date", "site", hour=hour.str.to_datetime("%Y-%m-%dT%H:%M", time_unit="ms", time_zone="UTC"))
        .agg(
            counted=(~pl.col("is_copy") & ~pl.col("bot")).sum().cast(pl.Int64),
            bots=(~pl.col("is_copy") & pl.col("bot")).sum().cast(pl.Int64),
            duplicates=pl.col("is_copy").sum().cast(pl.Int64),
        )
        .select(ACCOUNTS.keys())
    )


def _sample(stores: Stores, days: Sequence[str]) -> dg.MetadataValue:
    """The longest visits of the last date, without what would tell who it was."""
    objects = stores.ledger.objects("visits", [date.fromisoformat(days[-1])])
    rows = (
        stores.lake.read_parquet([item.object.name for item in objects[:1]])
        .sort("events", "visit_id", descending=True)
        .head(SHOWN)
        .select(
            "site",
            "began",
            seconds=pl.col("duration_ms") / 1000,
            pageviews="pageviews",
            events="events",
            source="source",
            country="country",
            browser="browser",
        )
        if objects
        else pl.DataFrame(schema={"site": pl.String})
    )
    names = rows.columns
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(str(value).replace("|", "/") for value in row) + " |" for row in rows.iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))
