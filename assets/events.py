"""Raw objects of an arrival hour to typed, enriched events, by site date and bucket; the rest to rejections with reasons."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedReader
from typing import BinaryIO

import dagster as dg
import polars as pl
import zstandard

from assets.checks import RAW_IS_WHOLE, RECEIVED, of_events
from assets.partitions import EVERY_HOURS_RUN, GRAIN_ARRIVAL, HOURS
from assets.replace import Landing, Made, Refusal, Work, put_bucket, replace_partitions
from assets.transforms.enrich import enrich, with_bucket
from assets.transforms.parse import REJECTED, parse
from assets.transforms.sessionize import ORDER
from ingestion.lake import LakeObject, ListedObjectGone
from ingestion.lake_events import EVENTS
from ingestion.ledger import PartitionObject
from ingestion.site_time import from_datetime, hour_of
from ingestion.stores import Stores

PARSED_AT_ONCE = 2_000
"""Lines: their objects stay in the processor's cache. 50,000 at once took 10.2 µs a line, 2,000 take 7.8."""
ENRICHED_AT_ONCE = 50_000
"""Rows; more give no more speed."""
PARSED_AHEAD = 3
"""Batches of `ENRICHED_AT_ONCE` rows that may wait to be enriched: they bridge the write of a chunk and bound memory."""
UNPACKED_AT_ONCE = 1 << 20
"""Bytes. Unpacking and splitting as lines are read takes 0.75 µs a line, all at once took 4."""

SORTED = ("site", "visitor_id", *ORDER)


@dg.asset(
    deps=["raw_events"],
    partitions_def=HOURS,
    backfill_policy=EVERY_HOURS_RUN,
    code_version="1",
    group_name="collect",
    owners=["team:footfall"],
    tags=GRAIN_ARRIVAL,
    kinds={"polars", "parquet"},
    check_specs=[RECEIVED, RAW_IS_WHOLE],
)
def events(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Typed, validated and enriched events by arrival hour, in the lake; lines that are none become rejections with a
    reason. Reads the raw objects that the ledger lists, and refuses an hour whose raw objects are gone or changed."""
    return replace_partitions(context, stores, make_events, check=of_events)


def make_events(work: Work, hours: Sequence[str]) -> Iterator[Made | Refusal]:
    """Each arrival hour's events, rejections and counts."""
    time_zones = work.stores.ledger.time_zones()
    for hour in hours:
        try:
            yield _HourOfEvents(work, hour, time_zones).make()
        except ListedObjectGone as problem:
            yield Refusal(hour, f"{hour} cannot be recomputed: {problem}; nothing was changed")


class _HourOfEvents:
    """One arrival hour in the making: memory holds at most `chunk_rows` events of it."""

    def __init__(self, work: Work, hour: str, time_zones: dict[str, str]) -> None:
        self.work, self.stores, self.hour, self.time_zones = work, work.stores, hour, time_zones
        self.waiting: list[pl.DataFrame] = []
        self.objects: list[PartitionObject] = []
        self.parts: dict[tuple[object, ...], int] = {}
        self.accepted: list[pl.DataFrame] = [pl.DataFrame(schema={"site": pl.String, "accepted": pl.Int64})]
        self.rejections: list[pl.DataFrame] = [pl.DataFrame(schema=REJECTED)]
        self.touched: dict[tuple[str, str], int] = {}

    def make(self) -> Made:
        with ThreadPoolExecutor(max_workers=1) as polars:  # lets go of the interpreter while the next lines are parsed
            adding: deque[Future[None]] = deque()
            for parsed in self._parsed():
                adding.append(polars.submit(self._add, parsed))
                if len(adding) > PARSED_AHEAD:
                    adding.popleft().result()
            for batch in adding:
                batch.result()
        self._write_events()
        rejections = pl.concat(self.rejections)
        if rejections.height:
            name = f"rejected/hour={self.hour}-{self.work.version}.parquet"
            self.objects.append(put_bucket(self.stores, name, rejections, day=None, bucket=None))
        return Made(self.hour, self.objects, self._landing(rejections), self.touched)

    def _parsed(self) -> Iterator[pl.DataFrame]:
        """Parsed events, `ENRICHED_AT_ONCE` or a few more; the last ones fewer."""
        frames, start = list[pl.DataFrame](), from_datetime(self.stores.settings.start)
        for raw in self.stores.ledger.raw_objects(self.hour):
            for parsed in parse(
                raw.name, self._unpacked(raw), from_datetime(hour_of(self.hour)), PARSED_AT_ONCE, start_ms=start
            ):
                self.rejections.append(parsed.rejections)
                frames.append(parsed.events)
                if sum(frame.height for frame in frames) >= ENRICHED_AT_ONCE:
                    yield pl.concat(frames)
                    frames = []
        if frames:
            yield pl.concat(frames)

    def _unpacked(self, raw: LakeObject) -> BinaryIO:
        packed = self.stores.lake.get_listed(raw)
        return BufferedReader(zstandard.ZstdDecompressor().stream_reader(packed), UNPACKED_AT_ONCE)  # type: ignore[type-var]

    def _add(self, parsed: pl.DataFrame) -> None:
        events = enrich(parsed, self.time_zones)
        self.accepted.append(events.group_by("site").agg(accepted=pl.len().cast(pl.Int64)))
        hours = events.group_by(
            hour=pl.col("timestamp").dt.strftime("%Y-%m-%dT%H"), date=pl.col("date").cast(pl.String)
        ).len()
        for hour, day, rows in hours.iter_rows():
            self.touched[hour, day] = self.touched.get((hour, day), 0) + rows
        self.waiting.append(events)
        if sum(frame.height for frame in self.waiting) >= self.stores.settings.chunk_rows:
            self._write_events()

    def _write_events(self) -> None:
        if not self.waiting:
            return
        buckets = self.stores.settings.buckets
        events = with_bucket(pl.concat(self.waiting), buckets)
        self.waiting.clear()
        for key, part_of in sorted(events.partition_by("date", "bucket", as_dict=True).items()):
            self.parts[key] = number = self.parts.get(key, 0) + 1
            day, bucket = key
            suffix = f"-{number}" if number > 1 else ""
            name = f"events/date={day}/bucket={bucket:02d}/hour={self.hour}-{self.work.version}{suffix}.parquet"
            rows = part_of.sort(SORTED).select(EVENTS.keys())
            self.objects.append(put_bucket(self.stores, name, rows, day=day, bucket=(bucket, buckets)))

    def _landing(self, rejections: pl.DataFrame) -> list[Landing]:
        hour = hour_of(self.hour)
        accepted = pl.concat(self.accepted).group_by("site").agg(pl.col("accepted").sum())
        rejected = rejections.group_by("site", "reason").agg(lines=pl.len().cast(pl.Int64))
        arrivals = (
            accepted.join(rejected.group_by("site").agg(pl.col("lines").sum()), on="site", how="full", coalesce=True)
            .with_columns(pl.col("accepted", "lines").fill_null(0))
            .select(
                pl.lit(hour).alias("hour"), "site", received=pl.col("accepted") + pl.col("lines"), accepted="accepted"
            )
        )
        return [
            Landing("arrivals", "hour", [hour], arrivals.sort("site")),
            Landing(
                "rejections", "hour", [hour],
                rejected.select(pl.lit(hour).alias("hour"), "site", "reason", "lines").sort("site", "reason"),
            ),
        ]  # fmt: skip
