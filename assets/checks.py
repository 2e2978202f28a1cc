"""What is checked on every run, from what was stored: the two equations of the accounts, each side counted apart; and offsets.

received = accepted + rejected                      by arrival hour, in `events`
accepted = counted + bots + duplicates              by date, in `visits`
"""

from collections.abc import Sequence

import dagster as dg
import polars as pl

from ingestion.stores import Stores

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
TILES = dg.AssetCheckSpec(
    "offset_ranges_tile",
    asset="raw_events",
    description="Every offset of the event log was read once, and none was lost to its retention.",
)


def received_is_accepted_plus_rejected(stores: Stores, hours: Sequence[str]) -> list[dg.AssetCheckResult]:
    """Lines that the ledger lists, against rows that the lake holds and rows that landed."""
    rows = stores.ledger.landed(
        """select hour, received, accepted, rejected, landed_received, landed_accepted from
               (select hour, sum(lines)::bigint as received from footfall.raw_objects where hour = any(%s) group by hour) raw
               left join lateral (
                   select coalesce(sum(rows) filter (where date is not null), 0)::bigint as accepted,
                          coalesce(sum(rows) filter (where date is null), 0)::bigint as rejected
                   from footfall.lake_objects where asset = 'events' and partition = raw.hour) lake on true
               left join lateral (
                   select coalesce(sum(received), 0)::bigint as landed_received,
                          coalesce(sum(accepted), 0)::bigint as landed_accepted
                   from landing.arrivals a where a.hour = (raw.hour || ':00+00')::timestamptz) landing on true""",
        [list(hours)],
        {"hour": pl.String}
        | dict.fromkeys(["received", "accepted", "rejected", "landed_received", "landed_accepted"], pl.Int64),
    )
    broken = rows.filter(
        (pl.col("received") != pl.col("accepted") + pl.col("rejected"))
        | (pl.col("received") != pl.col("landed_received"))
        | (pl.col("accepted") != pl.col("landed_accepted"))
    )
    return [_result(RECEIVED, rows, broken, ("received", "accepted", "rejected"))]


def accepted_is_counted_plus_bots_plus_duplicates(stores: Stores, days: Sequence[str]) -> list[dg.AssetCheckResult]:
    """Rows that the lake holds of each date, against what the date's accounts say of them."""
    rows = stores.ledger.landed(
        """select date::text, accepted, counted, bots, duplicates from
               (select date, sum(rows)::bigint as accepted from footfall.lake_objects
                where asset = 'events' and date = any(%s::date[]) group by date) lake
               left join lateral (
                   select coalesce(sum(counted), 0)::bigint as counted, coalesce(sum(bots), 0)::bigint as bots,
                          coalesce(sum(duplicates), 0)::bigint as duplicates
                   from landing.event_copies c where c.date = lake.date) copies on true""",
        [list(days)],
        {"date": pl.String} | dict.fromkeys(["accepted", "counted", "bots", "duplicates"], pl.Int64),
    )
    broken = rows.filter(pl.col("accepted") != pl.sum_horizontal("counted", "bots", "duplicates"))
    return [_result(ACCEPTED, rows, broken, ("accepted", "counted", "bots", "duplicates"))]


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
        """select log_partition, first_offset, end_offset, lost from (
               select *, lag(end_offset, 1, 0::bigint) over (partition by log_partition order by first_offset) as until
               from footfall.offset_ranges) ranges
           where first_offset <> until or (lost and read_at > now() - interval '1 day')
           order by log_partition, first_offset limit 20""",
        [],
        {"log_partition": pl.Int32, "first_offset": pl.Int64, "end_offset": pl.Int64, "lost": pl.Boolean},
    )
    return dg.AssetCheckResult(
        check_name=TILES.name,
        passed=broken.is_empty(),
        severity=dg.AssetCheckSeverity.ERROR,
        metadata={
            "broken": dg.MetadataValue.json(broken.to_dicts()),
        },
    )
