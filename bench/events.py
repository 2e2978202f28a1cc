"""Raw objects of an hour → `events` Parquet: bytes → parse → enrich → bucket → sort → write, through the asset's own code.

Only the ledger is stood in for: by a list of the raw objects. The lake is a directory.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from uuid import UUID

import zstandard

from bench.measured import THREADS, Measured, alone
from ingestion.event import RawLine, Revenue, encode
from ingestion.lake import Lake, LakeObject
from ingestion.settings import from_environment
from ingestion.site_time import HOUR_MS, from_datetime
from ingestion.stores import Stores

HOUR = "2026-03-10T14"
HOUR_BEGAN = from_datetime(datetime(2026, 3, 10, 14, tzinfo=UTC))
LINES_A_OBJECT = 60_000
"""About 64 MB, as the importers write them."""
SITES = 40
TIME_ZONES = ("UTC", "Asia/Tokyo")
"""Midnight in Tokyo is at 15:00 UTC: the second half of the visitors' half hours is of the next date."""


def run(events: int, buckets: int) -> list[tuple[str, str]]:
    """Generates raw objects, makes the hour's events of them, and returns rows to print."""
    with TemporaryDirectory(prefix="footfall-bench-") as folder:
        raw = _write_raw(Path(folder), events)
        done = alone(make_hour, folder, raw, buckets)
    return _rows(events, sum(size for _, size in raw), buckets, done)


def _rows(events: int, raw_bytes: int, buckets: int, done: Measured) -> list[tuple[str, str]]:
    seconds, cpu, objects, written = done.result
    return [
        ("raw events", f"{events:,} of {raw_bytes / events:,.0f} bytes, {buckets} buckets, {THREADS} threads"),
        ("events Parquet", f"{objects} objects, {written / 1e6:,.0f} MB"),
        ("time", f"{seconds:.2f} s (CPU {cpu:.2f})"),
        ("events a second", f"{events / seconds:,.0f}"),
        ("raw MB a second", f"{raw_bytes / seconds / 1e6:,.0f}"),
        ("peak memory", f"{done.peak_mib:,.0f} MiB ({done.before_mib:,.0f} before the work)"),
    ]


# What is measured


@dataclass(frozen=True)
class _ListedRaw:
    """What `make_events` asks the ledger: the sites' time zones, and the raw objects of an hour."""

    objects: list[LakeObject]

    def time_zones(self) -> dict[str, str]:
        return {_site(number): TIME_ZONES[number % len(TIME_ZONES)] for number in range(SITES)}

    def raw_objects(self, hour: str) -> list[LakeObject]:
        return self.objects


def make_hour(folder: str, raw: list[tuple[LakeObject, int]], buckets: int) -> tuple[float, float, int, int]:
    """Seconds that the hour took without imports, CPU seconds of all threads, and the number and bytes of the objects that it wrote."""
    from assets.events import make_events
    from assets.replace import Work

    settings = replace(from_environment(), lake=Path(folder).as_uri(), buckets=buckets)
    ledger = _ListedRaw([item for item, _ in raw])
    work = Work(Stores(settings, ledger, Lake(settings.lake), ""), None, 1)  # type: ignore[arg-type]
    began, cpu = time.perf_counter(), time.process_time()
    (made,) = make_events(work, [HOUR])
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return seconds, cpu, len(made.objects), sum(item.object.bytes for item in made.objects)


# What it is measured on


def _write_raw(folder: Path, events: int) -> list[tuple[LakeObject, int]]:
    """Raw objects, each with its size unpacked."""
    lake, lines, written = Lake(folder.as_uri()), raw_lines(events), []
    while batch := list(islice(lines, LINES_A_OBJECT)):
        content = b"\n".join(batch) + b"\n"
        name = f"raw/hour={HOUR}/import-bench-{len(written) + 1:04d}.ndjson.zst"
        written.append((lake.put(name, zstandard.compress(content, 3), len(batch)), len(content)))
    return written


def raw_lines(events: int, seed: int = 1, began: int = HOUR_BEGAN) -> Iterator[bytes]:
    """Raw lines of about 1 KB, as the importer writes them, of the hour from an instant (ms) on."""
    rng = Random(seed)
    agents, filling = list(_agents(rng)), _filling(rng)
    for number in range(events):
        visitor = rng.randrange(max(1, events // 10))
        site = _site(int(SITES * rng.random() ** 3))
        path = f"/shop/category-{visitor % 20}/product-{int(5_000 * rng.random() ** 2)}"
        query = rng.choice(CAMPAIGNS) if rng.random() < 0.3 else ""
        name = "pageview" if rng.random() < 0.85 else rng.choice(("engagement", "Signup", "Add to cart"))
        yield encode(
            RawLine(
                domain=site,
                name=name,
                url=f"https://www.{site}{path}{query}",
                referrer=rng.choice(REFERRERS) if rng.random() < 0.5 else f"https://{site}/shop",
                title=f"Product of category {visitor % 20} and more of the kind",
                language="de-DE",
                screen_width=1_440,
                props={"plan": "free", "position": number % 50, "note": filling[rng.randrange(1_000) :][:400]},
                revenue=Revenue("EUR", "12.90") if name == "Add to cart" else None,
                engagement_time=12_345 if name == "engagement" else None,
                event_id=UUID(int=rng.getrandbits(128)),
                timestamp=began + HOUR_MS * number // events,
                ip=f"198.18.{visitor % 256}.0",
                user_agent=agents[visitor % len(agents)],
                country=("DE", "FR", "US", "JP")[visitor % 4],
                line=number + 1,
                visitor_hash=f"{visitor * 0x9E3779B97F4A7C15 % 2**64:016x}",
            )
        )


def _site(number: int) -> str:
    return f"shop-{number}.example"


def _agents(rng: Random) -> Iterator[str]:
    """2,000 agents; one in a hundred is a crawler."""
    for number in range(2_000):
        version = f"{rng.randrange(80, 140)}.0.{rng.randrange(7_000)}.{rng.randrange(200)}"
        if number % 100 == 0:
            yield f"Mozilla/5.0 (compatible; Googlebot/2.{number}; +http://www.google.com/bot.html)"
        elif number % 3 == 0:
            yield (
                f"Mozilla/5.0 (Linux; Android {rng.randrange(9, 16)}; SM-A{rng.randrange(100, 999)}B) AppleWebKit/537.36 "
                f"(KHTML, like Gecko) Chrome/{version} Mobile Safari/537.36"
            )
        elif number % 3 == 1:
            yield (
                f"Mozilla/5.0 (iPhone; CPU iPhone OS {rng.randrange(12, 18)}_{rng.randrange(6)} like Mac OS X) "
                f"AppleWebKit/605.1.{rng.randrange(30)} (KHTML, like Gecko) Version/{version} Mobile/15E148 Safari/604.1"
            )
        else:
            yield (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
                f"Chrome/{version} Safari/537.36"
            )


def _filling(rng: Random) -> str:
    """Text that does not pack to nothing."""
    return json.dumps([rng.getrandbits(40) for _ in range(200)]).replace('"', "")


CAMPAIGNS = (
    "?utm_source=newsletter&utm_medium=email&utm_campaign=spring%20sale",
    "?utm_source=google&utm_medium=cpc&utm_campaign=brand+tables&gclid=x1",
    "?q=tea&utm_source=mastodon&utm_medium=social",
)
REFERRERS = (
    "https://www.google.com/",
    "https://www.bing.com/search?q=teapot#top",
    "https://news.ycombinator.com/item?id=4242",
    "http://forum.example/t/Tea-Pots?page=2",
)
