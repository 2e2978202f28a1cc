"""What is checked from what is stored, each side counted apart.

received = accepted + rejected                      by arrival hour, in `events`
accepted = counted + bots + duplicates              by date, in `visits`
offset ranges tile the event log                    in `raw_events`
raw objects are what was listed                     in `events`
what came an hour ago is in the reports             whenever dates are swept, also when there is nothing to run
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from assets.lineage import stale
from assets.replace import Refusal
from ingestion.event_log import EventLog, open_event_log
from ingestion.ledger import PARTITIONS_A_LOG
from ingestion.site_time import from_datetime, hour_key
from ingestion.stores import Stores

MOST_BEHIND = timedelta(hours=1)
LOOK_BACK = timedelta(hours=72)

RECEIVED = dg.AssetCheckSpec(
    "received_is_accepted_plus_rejected",
    asset="events",
    blocking=True,
    description="Lines of the raw objects = rows of event objects + rows of rejections, for each arrival hour.",
)
ACCEPTED = dg.AssetCheckSpec(
    "accepted_is_counted_plus_bots_plus_duplicates",
    asset="visits",
    blocking=True,
    description="Rows of event objects = counted + bots + duplicates, for each date.",
)
RAW_IS_WHOLE = dg.AssetCheckSpec(
    "raw_objects_are_as_listed",
    asset="events",
    description="No hour was left as it is because a raw object of it is gone or has changed.",
)
TILES = dg.AssetCheckSpec(
    "offset_ranges_tile",
    asset="raw_events",
    description="Every offset of the event log was read once, and none was lost to its retention.",
)


def of_events(stores: Stores, refused: Sequence[Refusal]) -> list[dg.AssetCheckResult]:
    """The checks of arrival hours."""
    return [_received_is_accepted_plus_rejected(stores), _raw_objects_are_as_listed(refused)]


def of_visits(stores: Stores, _: Sequence[Refusal]) -> list[dg.AssetCheckResult]:
    """The check of dates."""
    return [_accepted_is_counted_plus_bots_plus_duplicates(stores)]


def _raw_objects_are_as_listed(refused: Sequence[Refusal]) -> dg.AssetCheckResult:
    reasons = {refusal.partition: refusal.reason for refusal in refused if not refusal.superseded}
    return dg.AssetCheckResult(
        check_name=RAW_IS_WHOLE.name, passed=not reasons, metadata={"refused": dg.MetadataValue.json(reasons)}
    )


def _received_is_accepted_plus_rejected(stores: Stores) -> dg.AssetCheckResult:
    """Lines that the ledger lists, against rows that the lake holds and rows that landed: of the hours that are up to date."""
    rows = stores.ledger.landed(
        """select hour, received, accepted, rejected, landed_received, landed_accepted from
               (select hour, sum(lines)::bigint as received from footfall.raw_objects group by hour) raw
               left join lateral (
                   select coalesce(sum(rows) filter (where date is not null), 0)::bigint as accepted,
                          coalesce(sum(rows) filter (where date is null), 0)::bigint as rejected
                   from footfall.lake_objects where asset = 'events' and partition = raw.hour) lake on true
               left join lateral (
                   select coalesce(sum(received), 0)::bigint as landed_received,
                          coalesce(sum(accepted), 0)::bigint as landed_accepted
                   from landing.arrivals a where a.hour = (raw.hour || ':00+00')::timestamptz) landing on true""",
        [],
        {"hour": pl.String}
        | dict.fromkeys(["received", "accepted", "rejected", "landed_received", "landed_accepted"], pl.Int64),
    )
    state = stores.ledger.state()
    made = {hour: made.inputs.get("raw") for (asset, hour), made in state.published.items() if asset == "events"}
    rows = rows.filter(pl.col("hour").is_in([hour for hour, raw in made.items() if raw == state.raw.get(hour)]))
    broken = rows.filter(
        (pl.col("received") != pl.col("accepted") + pl.col("rejected"))
        | (pl.col("received") != pl.col("landed_received"))
        | (pl.col("accepted") != pl.col("landed_accepted"))
    )
    return _result(RECEIVED, rows, broken, ("received", "accepted", "rejected"))


def _accepted_is_counted_plus_bots_plus_duplicates(stores: Stores) -> dg.AssetCheckResult:
    """Rows that the lake holds of each date, against what the date's accounts say of them: of the dates that are up to date."""
    rows = stores.ledger.landed(
        """select date::text, accepted, counted, bots, duplicates from
               (select date, sum(rows)::bigint as accepted from footfall.lake_objects
                where asset = 'events' and date is not null group by date) lake
               left join lateral (
                   select coalesce(sum(counted), 0)::bigint as counted, coalesce(sum(bots), 0)::bigint as bots,
                          coalesce(sum(duplicates), 0)::bigint as duplicates
                   from landing.event_copies c where c.date = lake.date) copies on true""",
        [],
        {"date": pl.String} | dict.fromkeys(["accepted", "counted", "bots", "duplicates"], pl.Int64),
    )
    rows = rows.filter(~pl.col("date").is_in(stale("visits", stores.ledger.state(), datetime.now(UTC))))
    broken = rows.filter(pl.col("accepted") != pl.sum_horizontal("counted", "bots", "duplicates"))
    return _result(ACCEPTED, rows, broken, ("accepted", "counted", "bots", "duplicates"))


def _result(
    spec: dg.AssetCheckSpec, rows: pl.DataFrame, broken: pl.DataFrame, counts: Sequence[str]
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=spec.name,
        passed=broken.is_empty(),
        metadata={
            **{name: dg.MetadataValue.int(int(rows[name].sum())) for name in counts},
            "broken": dg.MetadataValue.json(broken.head(20).to_dicts()),
        },
    )


def offset_ranges_tile(stores: Stores) -> dg.AssetCheckResult:
    """The ranges that were read of each partition of the event log: each begins where the one before it ended. What retention
    was faster with is told for a day; the ledger keeps it."""
    broken = stores.ledger.landed(
        """select name as log, log_partition %% 1000 as partition, first_offset, end_offset, lost from (
               select *, lag(end_offset, 1, 0::bigint) over (partition by log_partition order by first_offset) as until
               from footfall.offset_ranges) ranges
           left join footfall.event_logs on number = log_partition / 1000
           where first_offset <> until or (lost and read_at > now() - interval '1 day')
           order by log_partition, first_offset limit 20""",
        [],
        {"log": pl.String, "partition": pl.Int32, "first_offset": pl.Int64, "end_offset": pl.Int64, "lost": pl.Boolean},
    )
    return dg.AssetCheckResult(
        check_name=TILES.name,
        passed=broken.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={"broken": dg.MetadataValue.json(broken.to_dicts())},
    )


@dg.asset_check(
    asset="report_pipeline_hours",
    name="newest_hour_is_reported",
    description="What the event log took more than an hour ago is in the reports.",
)
def newest_hour_is_reported(stores: dg.ResourceParam[Stores]) -> dg.AssetCheckResult:
    """The check as runs evaluate it; the schedule of dates does it too, so that it fails when nothing runs any more."""
    return what_came_is_reported(stores, datetime.now(UTC))


def what_came_is_reported(stores: Stores, now: datetime) -> dg.AssetCheckResult:
    """Compares the event log, what was read of it, and the report of the accounts, over the last 72 hours."""
    longest_ago = now - MOST_BEHIND
    with open_event_log(stores.settings, stores.postgres_url) as log:
        number = stores.ledger.log_number(log.identity())
        unread = sum(_unread_before(log, number, stores.ledger.read_until(), from_datetime(longest_ago)))
    reported = _reported(stores, now)
    late = reported.filter(pl.col("lines") > pl.col("received"))["hour"].to_list()
    newest = reported.filter(pl.col("received") > 0)["hour"].max()
    return dg.AssetCheckResult(
        passed=not unread and not late,
        metadata={
            "newest_hour_reported": dg.MetadataValue.text(str(newest or "none")),
            "hours_not_reported": dg.MetadataValue.json(late),
            "records_not_read": dg.MetadataValue.int(unread),
        },
    )


def _unread_before(log: EventLog, number: int, read_until: dict[int, tuple[int, str]], instant: int) -> Iterator[int]:
    """By partition: how many offsets of records that the log took before an instant were not read."""
    for partition in log.partitions():
        _, end = log.bounds(partition)
        beyond = log.offset_at(partition, instant)
        begin, _ = read_until.get(number * PARTITIONS_A_LOG + partition, (0, ""))
        yield max(0, (end if beyond is None else beyond) - begin)


def _reported(stores: Stores, now: datetime) -> pl.DataFrame:
    """By arrival hour: lines that were read of the event log more than an hour ago, and lines in the report of the accounts."""
    since = now - LOOK_BACK
    read = stores.ledger.landed(
        """select read.hour, sum(lines)::bigint from footfall.offset_ranges read join footfall.raw_objects on name = object
           where read.hour >= %s and read_at < %s group by read.hour order by read.hour""",
        [hour_key(since), now - MOST_BEHIND],
        {"hour": pl.String, "lines": pl.Int64},
    )
    schema: dict[str, Any] = {"hour": pl.String, "received": pl.Int64}
    if not stores.ledger.has_table("reports", "report_pipeline_hours"):
        return read.join(pl.DataFrame(schema=schema), on="hour", how="left").fill_null(0)
    reported = stores.ledger.landed(
        """select to_char(hour, 'YYYY-MM-DD"T"HH24'), sum(received)::bigint from reports.report_pipeline_hours
           where date >= %s and hour >= %s group by hour""",
        [since.date(), since],
        schema,
    )
    return read.join(reported, on="hour", how="full", coalesce=True).fill_null(0).sort("hour")
