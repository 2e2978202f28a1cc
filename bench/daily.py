"""Visits, site totals and all breakdowns of one date and bucket, from one Parquet file: the product's functions beside DuckDB.

Both read the same file, with two threads, each in a process of its own; their results are compared row by row. The file has
one date (no neighbours, so no visit crosses midnight) and no copies: neither side drops duplicates.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from bench.measured import THREADS, alone, peak_mib

DAY = date(2026, 3, 10)
SITES = 20_000
TIMES = 3
"""Both sides work in turn, so often; the best time of each counts."""
RESULTS = ("visits", "site_totals", "breakdowns")
SQL = Path(__file__).parent / "daily.sql"


@dataclass(frozen=True)
class Side:
    """One side's time and peak memory; `steps` are the seconds of its parts, `cpu` those of both threads."""

    seconds: float
    cpu: float
    peak_mib: float
    steps: dict[str, float]


def run(events: int) -> list[tuple[str, str]]:
    """Generates the file, lets both sides work on it, compares, and returns rows to print."""
    with TemporaryDirectory(prefix="footfall-bench-") as folder:
        file = Path(folder) / "events.parquet"
        alone(write_events, file, events)
        ours, theirs = (
            min(sides, key=lambda side: side.seconds)
            for sides in zip(
                *((alone(with_footfall, file).result, alone(with_duckdb, file).result) for _ in range(TIMES)),
                strict=True,
            )
        )
        same = _compared(file)
        size = file.stat().st_size
    return [
        ("events", f"{events:,} of {SITES:,} sites in one file of {size / 1e6:,.0f} MB, {THREADS} threads"),
        ("Footfall", _spoken(ours, events)),
        ("DuckDB SQL", _spoken(theirs, events)),
        (
            "ratio",
            f"{theirs.seconds / ours.seconds:.2f} times as fast as DuckDB ({theirs.cpu / ours.cpu:.2f} by CPU seconds)",
        ),
        ("results", same),
    ]


def _spoken(side: Side, events: int) -> str:
    steps = ", ".join(f"{name} {seconds:.2f}" for name, seconds in side.steps.items())
    return f"{side.seconds:.2f} s ({steps}; CPU {side.cpu:.2f}), {events / side.seconds:,.0f} events/s, peak {side.peak_mib:,.0f} MiB"


# The two sides


def with_footfall(file: Path) -> Side:
    from assets.transforms.rollup import actions, breakdowns, site_totals, visit_days
    from assets.transforms.sessionize import EVENT_COLUMNS, label, visits

    clock = _Clock()
    events = pl.scan_parquet(file).select(EVENT_COLUMNS).filter(~pl.col("bot")).collect()
    clock.step("read")
    labelled = label(events, DAY)
    del events
    clock.step("label")
    rows = visits(labelled, DAY)
    clock.step("visits")
    acted = actions(labelled, DAY, first=DAY, last=DAY)
    del labelled
    days = visit_days(rows).filter(pl.col("date") == DAY)
    totals = site_totals(days)
    clock.step("totals")
    broken_down = breakdowns(days, acted)
    clock.step("breakdowns")
    side = clock.side()
    _keep(file, "footfall", dict(zip(RESULTS, (rows, totals.drop("visitor_sample"), broken_down), strict=True)))
    return side


def with_duckdb(file: Path) -> Side:
    import duckdb

    clock = _Clock()
    with duckdb.connect(config={"threads": THREADS}) as connection:
        connection.execute("set enable_progress_bar = false")
        for step in SQL.read_text().split("-- step ")[1:]:
            name, statements = step.split("\n", 1)
            connection.execute(statements.replace("$file", f"'{file}'"))
            clock.step(name)
        side = clock.side()
        for name in RESULTS:
            connection.execute(f"copy {name} to '{_kept(file, 'duckdb', name)}' (format parquet)")
    return side


class _Clock:
    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self._cpu = time.process_time()
        self._steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        now = time.perf_counter()
        self._steps[name], self._last = now - self._last, now

    def side(self) -> Side:
        return Side(self._last - self._began, time.process_time() - self._cpu, peak_mib(), self._steps)


# Their results


def _kept(file: Path, side: str, name: str) -> Path:
    return file.with_name(f"{side}-{name}.parquet")


def _keep(file: Path, side: str, results: dict[str, pl.DataFrame]) -> None:
    for name, rows in results.items():
        rows.write_parquet(_kept(file, side, name))


def _compared(file: Path) -> str:
    """How many rows of each result are the same; raises if one is not."""
    counts = []
    for name in RESULTS:
        ours, theirs = (pl.read_parquet(_kept(file, side, name)) for side in ("footfall", "duckdb"))
        theirs = theirs.select(pl.col(column).cast(dtype) for column, dtype in ours.schema.items())
        order: Callable[[pl.DataFrame], pl.DataFrame] = lambda rows: rows.sort(rows.columns, nulls_last=True)  # noqa: E731
        if not order(ours).equals(order(theirs)):
            raise AssertionError(f"{name} differ: {_difference(ours, theirs)}")
        counts.append(f"{ours.height:,} {name}")
    return "the same: " + ", ".join(counts)


def _difference(ours: pl.DataFrame, theirs: pl.DataFrame) -> str:
    only_ours = ours.join(theirs, on=ours.columns, how="anti", nulls_equal=True)
    only_theirs = theirs.join(ours, on=ours.columns, how="anti", nulls_equal=True)
    return f"{ours.height} and {theirs.height} rows, only in ours {only_ours.head(3)}, only in theirs {only_theirs.head(3)}"


# What they work on


def write_events(file: Path, events: int) -> None:
    """A bucket of one date as the lake has it: sorted by site, visitor and order, with all columns."""
    import duckdb

    from assets.events import SORTED
    from ingestion.lake_events import EVENTS

    generated = file.with_name("generated.parquet")
    with duckdb.connect(config={"threads": THREADS}) as connection:
        connection.execute(
            f"copy ({_GENERATED.format(visits=events // 8, sites=SITES)}) to '{generated}' (format parquet)"
        )
    rows = pl.read_parquet(generated).head(events)
    missing = [pl.lit(None).alias(name) for name in EVENTS if name not in rows.columns]
    rows = rows.with_columns(missing).select(pl.col(name).cast(dtype) for name, dtype in EVENTS.items())
    rows.sort(SORTED).write_parquet(file, compression="zstd", compression_level=1)


_GENERATED = """
with uniform as (select v, (v * 3) // 4 as visitor from range({visits}) t(v)),
visitors as (
    select v, visitor,
        hash(visitor, 1) / 18446744073709551616.0 as u1, hash(visitor, 2) % 1000 as r2, hash(visitor, 3) % 100 as r3,
        hash(v, 4) / 18446744073709551616.0 as u4, hash(v, 5) / 18446744073709551616.0 as u5, hash(v, 6) % 100 as r6
    from uniform
),
visits as (
    select *, 'shop-' || (floor(exp(u1 * ln({sites}))) - 1)::int || '.example' as site,
        timestamptz '2026-03-10 00:00:00+00' + to_milliseconds((u4 * 86400000)::bigint) as began,
        case when r6 < 35 then 1 else 1 + floor(-ln(1 - u5) * 11.3)::int end as length
    from visitors
),
events as (
    select *, unnest(range(length)) as i from visits
),
shaped as (
    select *, hash(v, i, 7) as h, hash(v, i, 8) / 18446744073709551616.0 as u8,
        began + to_milliseconds((i * 55000 + hash(v, i, 9) % 40000)::bigint) as instant
    from events
)
select
    site, date '2026-03-10' as date,
    timestamptz '2026-03-10 00:00:00+00' as date_began, timestamptz '2026-03-11 00:00:00+00' as date_ended,
    instant as timestamp, row_number() over () as position,
    substr(md5((h)::varchar), 1, 8) || '-' || substr(md5(h::varchar), 9, 24) as event_id,
    'raw/hour=2026-03-10T14/import-bench-0001.ndjson.zst' as object,
    format('{{:016x}}', hash(visitor, 10)) as visitor_id,
    r3 < 70 as cookieless, r3 = 99 as bot,
    case when i = 0 and h % 40 > 0 then 'pageview' when h % 100 < 12 then 'engagement'
         when h % 100 < 22 then ['Signup', 'Add to cart', 'Download', 'Outbound Link: Click'][1 + (h // 100 % 4)::int]
         else 'pageview' end as name,
    site as hostname, '/shop/category-' || (floor(u8 * u8 * 20))::int || '/product-' || (floor(u8 * u8 * u8 * 400))::int as path,
    'Product of the category' as title, h % 3 > 0 as interactive,
    case when i = 0 and r6 % 3 = 0 then ['google.com/', 'bing.com/search', 'news.example/item', 'forum.example/t/tea'][1 + r6::int % 4] end
        as referrer,
    ['Direct / None', 'google', 'newsletter', 'bing.com', 'news.example'][1 + r6::int % 5] as source,
    ['Direct', 'Organic Search', 'Email', 'Referral', 'Paid Other'][1 + r6::int % 5] as channel,
    case when r6 % 10 < 3 then ['newsletter', 'google', 'mastodon'][1 + r6::int % 3] end as utm_source,
    case when r6 % 10 < 3 then ['email', 'cpc', 'social'][1 + r6::int % 3] end as utm_medium,
    case when r6 % 10 < 3 then 'campaign ' || (r6 % 17) end as utm_campaign,
    ['DE', 'FR', 'US', 'JP', 'GB', 'BR', 'IN', '(not set)'][1 + r2::int % 8] as country, '(not set)' as region, '(not set)' as city,
    ['Chrome', 'Mobile Safari', 'Firefox', 'Edge', 'Chrome Mobile'][1 + r2::int % 5] as browser, '1' || (r2 % 40) || '.0' as browser_version,
    ['Windows', 'iOS', 'Ubuntu', 'Mac OS X', 'Android'][1 + r2::int % 5] as os, '1' || r2 % 9 as os_version,
    ['Desktop', 'Mobile', 'Desktop', 'Desktop', 'Mobile'][1 + r2::int % 5] as device, 'de-DE' as language
from shaped where instant < timestamptz '2026-03-11 00:00:00+00'
"""
"""8 events a visit, four visits for three visitors; the n-th site has about 1/n of the first one's visits."""
