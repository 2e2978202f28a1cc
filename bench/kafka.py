"""Kafka → raw objects, as the product pulls: kafka-python, beside confluent-kafka (librdkafka, in C) that writes the same objects.

Needs a Kafka: FOOTFALL_EVENT_LOG names it. The topic is a new one, which is deleted at the end; no ledger has a part in it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaAdminClient

from bench.events import raw_lines
from bench.measured import THREADS, Measured, alone
from ingestion.event_log import open_event_log
from ingestion.event_log.kafka import FETCH_BYTES, RECORDS_AT_ONCE
from ingestion.lake import Lake
from ingestion.pull import OBJECT_BYTES, READERS, RawLines, pull, unread
from ingestion.settings import Cluster, Settings, from_environment
from ingestion.site_time import hour_key

PARTITIONS = 8
LINES_A_RECORD = 900
"""About 1 MB, as a collector under load sends them."""
DISTINCT_LINES = 90_000
TIMES = 2
"""The best of so many."""

Work = Callable[[str, Settings], tuple[int, float]]


def run(events: int) -> list[tuple[str, str]]:
    """Fills a topic, empties it both ways, and returns rows to print."""
    settings = from_environment()
    if settings.event_log is None:
        return [("not run", "no Kafka: set FOOTFALL_EVENT_LOG=kafka://host:9092/any-name")]
    with _topic(settings.event_log) as topic:
        settings = replace(settings, event_log=topic, event_log_partitions=PARTITIONS)
        appended, seconds, size = _fill(settings, events)
        done = {name: _best(work, settings) for name, work in PULLS.items()}
    return _rows(appended, seconds, size, done)


def _rows(events: int, seconds: float, size: int, done: dict[str, Measured]) -> list[tuple[str, str]]:
    rates = {name: measured.result[0] / measured.result[1] for name, measured in done.items()}
    first, *others = rates
    return [
        ("events", f"{events:,} of {size / events:,.0f} bytes in {PARTITIONS} partitions, {THREADS} threads"),
        ("append", f"{events / seconds:,.0f} events/s, {size / seconds / 1e6:,.0f} MB/s, one appender"),
        *((name, f"{rate:,.0f} events/s, {rate * size / events / 1e6:,.0f} MB/s") for name, rate in rates.items()),
        *(
            (f"peak memory, {name}", f"{it.peak_mib:,.0f} MiB ({it.before_mib:,.0f} before)")
            for name, it in done.items()
        ),
        *((f"{first} / {name}", f"{rates[first] / rates[name]:.2f}") for name in others),
    ]


def _best(work: Work, settings: Settings) -> Measured:
    """The fastest of `TIMES`, each into an empty lake."""
    every = []
    for _ in range(TIMES):
        with TemporaryDirectory(prefix="footfall-bench-") as folder:
            every.append(alone(work, folder, settings))
    return min(every, key=lambda measured: measured.result[1])


# What is measured


def pull_as_product(folder: str, settings: Settings) -> tuple[int, float]:
    """Lines, and the seconds that they took."""
    now, began = datetime.now(UTC), time.perf_counter()
    with open_event_log(settings, "") as log:
        ranges = unread(log, {}, now.replace(minute=0, second=0, microsecond=0), now, now)
        lines = sum(read.object.rows for read in pull(log, Lake(Path(folder).as_uri()), ranges) if read.object)
    return lines, time.perf_counter() - began


def pull_by_confluent(folder: str, settings: Settings) -> tuple[int, float]:
    """The same with librdkafka: objects of the same lines, size, compression and digest."""
    lake, began = Lake(Path(folder).as_uri()), time.perf_counter()
    with ThreadPoolExecutor(READERS) as pool:
        lines = sum(pool.map(lambda partition: _empty_partition(lake, settings, partition), range(PARTITIONS)))
    return lines, time.perf_counter() - began


def _empty_partition(lake: Lake, settings: Settings, partition: int) -> int:
    assert settings.event_log
    hosts = ",".join(map(str, settings.event_log.hosts))
    consumer = Consumer(
        {
            "bootstrap.servers": hosts,
            "group.id": "bench",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.max.bytes": FETCH_BYTES,
            "max.partition.fetch.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": 2 * FETCH_BYTES // 1_000,
        }
    )
    part = TopicPartition(settings.event_log.name, partition, 0)
    _, end = consumer.get_watermark_offsets(part)
    consumer.assign([part])
    raw, rows, position = RawLines(), 0, 0
    while position < end:
        for message in consumer.consume(min(RECORDS_AT_ONCE, end - position), 1.0):
            assert message.error() is None
            raw.add(message.value())
            position = message.offset() + 1
        if raw.size >= OBJECT_BYTES or position == end:
            name = f"raw/hour={hour_key(datetime.now(UTC))}/p{partition:02d}-{position:012d}.ndjson.zst"
            rows += lake.put(name, raw.packed(), rows=raw.rows).rows
            raw = RawLines()
    consumer.close()
    return rows


PULLS: dict[str, Work] = {"kafka-python": pull_as_product, "confluent-kafka": pull_by_confluent}
"""Other ways from Kafka to objects come here."""


# What it is measured on


@contextmanager
def _topic(cluster: Cluster) -> Iterator[Cluster]:
    """The name of a topic that nobody has."""
    topic = replace(cluster, name=f"bench-{os.getpid()}-{time.time_ns()}")
    try:
        yield topic
    finally:
        admin = KafkaAdminClient(bootstrap_servers=[str(host) for host in cluster.hosts])
        admin.delete_topics([topic.name], raise_errors=False)
        admin.close()


def _fill(settings: Settings, events: int) -> tuple[int, float, int]:
    """Appends records as the collector does: how many events, in how many seconds, and their bytes."""
    records, wanted = _records(), -(-events // LINES_A_RECORD)
    size, began = 0, time.perf_counter()
    with open_event_log(settings, "") as log:
        for first in range(0, wanted, 16):
            some = [records[number % len(records)] for number in range(first, min(first + 16, wanted))]
            log.append(some)
            size += sum(map(len, some))
    return wanted * LINES_A_RECORD, time.perf_counter() - began, size


def _records() -> Sequence[bytes]:
    lines, records = raw_lines(DISTINCT_LINES), []
    while batch := list(islice(lines, LINES_A_RECORD)):
        records.append(b"\n".join(batch))
    return records
