"""An hour of the full size, from Kafka to reports: what each station takes, and the most memory.

The full hour has 43.2 million events of 1 KB, 12,000 a second; a part of it, with the ratio stated, is what fits a small machine.
Kafka is a real server on the same two cores, and the lake is a directory. The event store is left out: it writes beside the path
to the reports, and has a benchmark of its own.
"""

import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.events import SITES, raw_lines
from bench.measured import THREADS, alone
from ingestion.site_time import from_datetime

FULL_HOUR = 43_200_000
WANTED_MINUTES = 25
LINES_A_RECORD = 800
PARTITIONS = 4
RECORDS_AT_ONCE = 16


def run(events: int) -> list[tuple[str, str]]:
    """Fills a topic, makes the reports of it, and returns rows to print."""
    from orchestration.services import environment_of, running_services

    with TemporaryDirectory(prefix="ff-") as folder:
        home, servers = Path(folder, "home"), Path(folder, "servers")
        with running_services(servers, ["kafka"]) as services:
            environment = {**environment_of(services), "FOOTFALL_EVENT_LOG_PARTITIONS": str(PARTITIONS)}
            size = alone(fill, environment, events).result
            done = alone(make_reports, str(home), environment)
    total, stations = done.result
    share = events / FULL_HOUR
    return [
        ("events", f"{events:,} of {size / events:,.0f} bytes: {share:.3f} of the full hour; {THREADS} threads"),
        ("stations", ", ".join(f"{name} {seconds:.1f}" for name, seconds in stations.items()) + " s"),
        ("total", f"{total:.1f} s, imports and set-up of Dagster included"),
        ("events a second", f"{events / total:,.0f}"),
        ("the full hour at that speed", f"{total / share / 60:.1f} minutes (at most {WANTED_MINUTES} wanted)"),
        ("peak memory", f"{done.peak_mib:,.0f} MiB ({done.before_mib:,.0f} before the work)"),
    ]


# What it is measured on


def fill(environment: Mapping[str, str], events: int) -> int:
    """Events of the last hour to the topic, as micro-batches. Returns their bytes."""
    from ingestion.event_log import open_event_log
    from ingestion.settings import from_environment

    began, size = from_datetime(datetime.now(UTC) - timedelta(hours=1, minutes=5)), 0
    records = _records(raw_lines(events, began=began))
    with open_event_log(from_environment(environment), "") as log:
        while some := list(islice(records, RECORDS_AT_ONCE)):
            log.append(some)
            size += sum(map(len, some))
    return size


def _records(lines: Iterator[bytes]) -> Iterator[bytes]:
    while batch := list(islice(lines, LINES_A_RECORD)):
        yield b"\n".join(batch)


# What is measured


def make_reports(home: str, environment: Mapping[str, str]) -> tuple[float, dict[str, float]]:
    """Everything that `footfall materialize` does but for the event store: seconds in all, and by station."""
    os.environ |= {**environment, "FOOTFALL_HOME": home, "FOOTFALL_BUCKETS": "16"}
    os.environ["FOOTFALL_START"] = str((datetime.now(UTC) - timedelta(days=3)).date())
    began = time.perf_counter()
    from bench.materialize import Stages
    from ingestion.postgres import stop_postgres
    from ingestion.settings import from_environment
    from ingestion.stores import open_stores
    from orchestration.cli import prepare_dagster

    settings = from_environment()
    try:
        with open_stores(settings) as stores:
            for number in range(SITES):
                stores.ledger.add_site(f"shop-{number}.example", ("UTC", "Asia/Tokyo")[number % 2])
            prepare_dagster(stores)
            import assets.stored_events
            from assets.replace import Made
            from orchestration.materialize import materialize

            assets.stored_events.make_stored_events = lambda work, hours: (Made(hour) for hour in hours)
            stages = Stages()
            materialize(stores, None, None, datetime.now(UTC), stages.show)
            return time.perf_counter() - began, stages.seconds()
    finally:
        stop_postgres(settings.home)
