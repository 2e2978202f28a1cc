"""Kafka → raw objects, as the product pulls: kafka-python, beside two peers that read the same topic.

confluent-kafka (librdkafka, in C) writes the same objects. Kafka Connect's file sink writes the same lines, not packed, to one file.

Kafka is started for it, unless FOOTFALL_EVENT_LOG names one, which takes clients without TLS and password. The topic is a new one,
which is deleted at the end; no ledger has a part in it.
"""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import zstandard
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
from orchestration.services import ProgramMissing, environment_of, running_services
from orchestration.services.jars import fetch_jars, locked
from orchestration.services.java import find_java
from orchestration.services.service import HOST, free_port

PARTITIONS = 8
LINES_A_RECORD = 900
"""About 1 MB, as a collector under load sends them."""
DISTINCT_LINES = 90_000
TIMES = 2
"""The best of so many."""

PATIENCE_SECONDS = 60
"""How long Kafka Connect may do nothing that is seen."""

LOCK = Path(__file__).with_name("connect.lock")
CONNECT = "Kafka Connect"
CONNECT_JAVA_OPTIONS = ("-Xms256M", "-Xmx2G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
                        "-XX:+ExplicitGCInvokesConcurrent", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")  # fmt: skip
"""As connect-standalone.sh has them."""

Work = Callable[[str, Settings], float]
"""Empties the topic into files of a folder, and says how many seconds that took."""


@dataclass(frozen=True)
class Lines:
    """How many lines there are, and their bytes with the ends of lines."""

    number: int
    size: int


def run(events: int) -> list[tuple[str, str]]:
    """Fills a topic, empties it each way, and returns rows to print."""
    try:
        jars = fetch_jars("Kafka Connect", from_environment().maven, locked("connect", LOCK))
        with _cluster() as cluster, _topic(cluster) as topic:
            settings = replace(from_environment(), event_log=topic, event_log_partitions=PARTITIONS, ca=None)
            appended, seconds = _fill(settings, events)
            pulls = PULLS | {CONNECT: partial(sink_by_connect, str(find_java()), jars, appended.size)}
            done = {name: _best(work, settings, appended) for name, work in pulls.items()}
    except ProgramMissing as problem:
        return [("not run", str(problem))]
    return _rows(appended, seconds, done)


def _rows(lines: Lines, seconds: float, done: dict[str, Measured]) -> list[tuple[str, str]]:
    events, size = lines.number, lines.size
    rates = {name: events / measured.result for name, measured in done.items()}
    first, *others = rates
    return [
        ("events", f"{events:,} of {size / events:,.0f} bytes in {PARTITIONS} partitions, {THREADS} threads"),
        ("append", f"{events / seconds:,.0f} events/s, {size / seconds / 1e6:,.0f} MB/s, one appender"),
        *((name, f"{rate:,.0f} events/s, {rate * size / events / 1e6:,.0f} MB/s") for name, rate in rates.items()),
        ("lines written", f"{events:,}, {size:,} bytes: by each the same"),
        *(
            (f"peak memory, {name}", f"{it.peak_mib:,.0f} MiB ({it.before_mib:,.0f} before)")
            for name, it in done.items()
            if name != CONNECT  # as much as Java is given
        ),
        *((f"{first} / {name}", f"{rates[first] / rates[name]:.2f}") for name in others),
    ]


def _best(work: Work, settings: Settings, appended: Lines) -> Measured:
    """The fastest of `TIMES`, each into an empty folder, where all lines must be then."""
    every = []
    for _ in range(TIMES):
        with TemporaryDirectory(prefix="footfall-bench-") as folder:
            every.append(alone(work, folder, settings))
            written = _written(Path(folder))
            assert written == appended, f"{work} wrote {written} of {appended}"
    return min(every, key=lambda measured: measured.result)


def _written(folder: Path) -> Lines:
    """What the files of a folder hold, unpacked."""
    number = size = 0
    for file in filter(Path.is_file, folder.rglob("*")):
        with zstandard.open(file) if file.suffix == ".zst" else file.open("rb") as content:
            while some := content.read(1 << 20):
                number, size = number + some.count(b"\n"), size + len(some)
    return Lines(number, size)


# What is measured


def pull_as_product(folder: str, settings: Settings) -> float:
    """With all that a pull does but the ledger's part."""
    now, began = datetime.now(UTC), time.perf_counter()
    with open_event_log(settings, "") as log:
        ranges = unread(log, {}, now.replace(minute=0, second=0, microsecond=0), now, now)
        for _ in pull(log, Lake(Path(folder).as_uri()), ranges):
            pass
    return time.perf_counter() - began


def pull_by_confluent(folder: str, settings: Settings) -> float:
    """The same with librdkafka: objects of the same lines, size, compression and digest."""
    lake, began = Lake(Path(folder).as_uri()), time.perf_counter()
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda partition: _empty_partition(lake, settings, partition), range(PARTITIONS)))
    return time.perf_counter() - began


def _empty_partition(lake: Lake, settings: Settings, partition: int) -> None:
    assert settings.event_log
    consumer = Consumer(
        {
            "bootstrap.servers": _hosts(settings.event_log),
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
    raw, position = RawLines(), 0
    while position < end:
        for message in consumer.consume(min(RECORDS_AT_ONCE, end - position), 1.0):
            assert message.error() is None
            raw.add(message.value())
            position = message.offset() + 1
        if raw.size >= OBJECT_BYTES or position == end:
            name = f"raw/hour={hour_key(datetime.now(UTC))}/p{partition:02d}-{position:012d}.ndjson.zst"
            lake.put(name, raw.packed(), rows=raw.rows)
            raw = RawLines()
    consumer.close()


PULLS: dict[str, Work] = {"kafka-python": pull_as_product, "confluent-kafka": pull_by_confluent}
"""Other ways from Kafka to objects come here."""


def sink_by_connect(java: str, jars: Sequence[Path], size: int, folder: str, settings: Settings) -> float:
    """A standalone worker, whose file sink has one task. The second time counts: by then Java has compiled what runs.

    It begins when the task opens its file, just before it asks for its partitions, and ends when the file has its size. So the
    start of Java and of the worker is not in it."""
    assert settings.event_log
    with TemporaryDirectory(prefix="footfall-bench-") as own, _worker(java, jars, own, settings.event_log) as worker:
        for warmed in (False, True):
            file = Path(folder, f"{warmed}.ndjson")
            seconds = worker.sink(settings.event_log.name, file, size)
            if not warmed:
                file.unlink()
    return seconds


@dataclass(frozen=True)
class _Worker:
    """Of Kafka Connect, by its REST interface."""

    process: "subprocess.Popen[bytes]"
    url: str
    log: Path

    def sink(self, topic: str, file: Path, size: int) -> float:
        """Seconds until a new connector has written the topic to a file of this size."""
        connector = f"connectors/bench-{time.time_ns()}"  # its group has read nothing yet
        config = {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
            "tasks.max": "1",  # all tasks would write the one file
            "topics": topic,
            "file": str(file),
        }
        with ThreadPoolExecutor(1) as pool:  # the task may begin before the answer comes
            asked = pool.submit(self._ask, "PUT", f"{connector}/config", config)
            self.wait(lambda: int(file.exists()), 1)
            began = time.perf_counter()
            self.wait(lambda: file.stat().st_size, size)
            seconds = time.perf_counter() - began
            asked.result()
        self._ask("DELETE", connector)
        return seconds

    def wait(self, reached: Callable[[], int], wanted: int) -> None:
        """Until so much is reached. Raises TimeoutError with the log's end where nothing moves."""
        last, moved = -1, time.monotonic()
        while (now := reached()) < wanted:
            if now > last:
                last, moved = now, time.monotonic()
            if self.process.poll() is not None or time.monotonic() - moved > PATIENCE_SECONDS:
                raise TimeoutError(f"Kafka Connect came to {now} of {wanted}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.002)

    def healthy(self) -> int:
        """1 when it takes connectors."""
        try:
            self._ask("GET", "health")
        except OSError:
            return 0
        return 1

    def _ask(self, method: str, path: str, content: Mapping[str, str] | None = None) -> None:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"{self.url}/{path}", body, {"Content-Type": "application/json"}, method=method
        )
        urllib.request.urlopen(request, timeout=PATIENCE_SECONDS).close()


@contextmanager
def _worker(java: str, jars: Sequence[Path], folder: str, cluster: Cluster) -> Iterator[_Worker]:
    """Reads as the others do. Strings, as the sink writes what Java's `toString` makes of a value."""
    url, log, properties = f"http://{HOST}:{free_port()}", Path(folder, "log"), Path(folder, "worker.properties")
    settings = {
        "bootstrap.servers": _hosts(cluster),
        "listeners": url,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.storage.file.filename": f"{folder}/offsets",
        "consumer.isolation.level": "read_committed",
        "consumer.fetch.max.bytes": FETCH_BYTES,
        "consumer.max.partition.fetch.bytes": FETCH_BYTES,
        "consumer.max.poll.records": RECORDS_AT_ONCE,
    }
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    command = [java, *CONNECT_JAVA_OPTIONS, "org.apache.kafka.connect.cli.ConnectStandalone", str(properties)]
    environment = {**os.environ, "CLASSPATH": os.pathsep.join(map(str, jars)), "LC_ALL": "C.UTF-8"}
    with log.open("wb") as said, subprocess.Popen(command, stdout=said, stderr=said, env=environment) as process:
        try:
            worker = _Worker(process, url, log)
            worker.wait(worker.healthy, 1)
            yield worker
        finally:
            process.terminate()


# What it is measured on


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """The one that is set, or one for as long as this lasts."""
    settings = from_environment()
    if settings.event_log:
        yield settings.event_log
        return
    with (
        TemporaryDirectory(prefix="footfall-bench-") as folder,
        running_services(Path(folder), ["kafka"], maven=settings.maven) as services,
    ):
        started = from_environment(environment_of(services)).event_log
        assert started
        yield started


def _hosts(cluster: Cluster) -> str:
    return ",".join(map(str, cluster.hosts))


@contextmanager
def _topic(cluster: Cluster) -> Iterator[Cluster]:
    """The name of a topic that nobody has."""
    topic = replace(cluster, name=f"bench-{os.getpid()}-{time.time_ns()}")
    try:
        yield topic
    finally:
        admin = KafkaAdminClient(bootstrap_servers=_hosts(cluster))
        admin.delete_topics([topic.name], raise_errors=False)
        admin.close()


def _fill(settings: Settings, events: int) -> tuple[Lines, float]:
    """Appends records as the collector does, and says in how many seconds."""
    records, wanted = _records(), -(-events // LINES_A_RECORD)
    size, began = 0, time.perf_counter()
    with open_event_log(settings, "") as log:
        for first in range(0, wanted, 16):
            some = [records[number % len(records)] for number in range(first, min(first + 16, wanted))]
            log.append(some)
            size += sum(1 + len(record) for record in some)
    return Lines(wanted * LINES_A_RECORD, size), time.perf_counter() - began


def _records() -> Sequence[bytes]:
    lines, records = raw_lines(DISTINCT_LINES), []
    while batch := list(islice(lines, LINES_A_RECORD)):
        records.append(b"\n".join(batch))
    return records
