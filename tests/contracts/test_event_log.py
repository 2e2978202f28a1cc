"""What every event log promises, on each adapter."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count, pairwise

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.event_log import EventLog, EventLogUnavailable, Record
from ingestion.event_log.kafka import KafkaEventLog
from ingestion.event_log.postgres import PostgresEventLog
from ingestion.settings import Address, Cluster
from orchestration.services.service import HOST

Open = Callable[[], AbstractContextManager[EventLog]]


TOPICS = count(1)


@pytest.fixture(params=["postgres", "kafka"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens the same, empty log again and again."""
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        return lambda: PostgresEventLog(url)
    server = Address(HOST, request.getfixturevalue("kafka").port)
    topic = Cluster((server,), f"contract-{next(TOPICS)}", None, None, tls=False)
    return lambda: KafkaEventLog(topic, 1, None)


@pytest.fixture
def log(opened: Open) -> Iterator[EventLog]:
    with opened() as log:
        yield log


def everything(log: EventLog) -> list[Record]:
    return [record for part in log.partitions() for record in log.read(part, *log.bounds(part))]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_an_empty_log(log: EventLog) -> None:
    for partition in log.partitions():
        first, end = log.bounds(partition)
        assert first == end
        assert log.offset_at(partition, 0) is None
        assert list(log.read(partition, first, end)) == []


def test_records_come_back_byte_for_byte_in_order(log: EventLog) -> None:
    records = [b'{"a":1}\n{"b":2}', b"\xff\x00 not JSON", b"", b"x" * 900_000]
    log.append(records)
    log.append([b"later"])
    read = everything(log)
    assert sorted(record.lines for record in read) == sorted([*records, b"later"])
    offsets = [record.offset for record in read]
    assert offsets == sorted(set(offsets))


@settings(max_examples=30)
@given(st.integers(1, 5), st.lists(st.floats(0, 1), max_size=4))
def test_any_cut_of_a_range_reads_the_same_records(opened: Open, records: int, shares: list[float]) -> None:
    with opened() as log:
        log.append([str(number).encode() for number in range(records)])
        for partition in log.partitions():
            first, end = log.bounds(partition)
            cuts = sorted(first + int(share * (end - first)) for share in shares)
            edges = [first, *cuts, end]
            parts = [record for low, high in pairwise(edges) for record in log.read(partition, low, high)]
            assert parts == list(log.read(partition, first, end))


def test_the_offset_at_an_instant(log: EventLog) -> None:
    instants = []
    for number in range(3):
        instants.append(now_ms())
        log.append([str(number).encode()])
        time.sleep(0.02)
    (partition,) = [part for part in log.partitions() if log.bounds(part)[0] < log.bounds(part)[1]]
    first, _ = log.bounds(partition)
    assert [log.offset_at(partition, instant) for instant in instants] == [first, first + 1, first + 2]
    assert log.offset_at(partition, 0) == first
    assert log.offset_at(partition, now_ms() + 60_000) is None


def test_a_reader_never_misses_a_lower_offset_that_is_committed_later(opened: Open) -> None:
    """Eight writers, and a reader that reads on from where it was, without ever looking back."""
    writers, appends, each = 8, 40, 3
    seen: list[bytes] = []
    done = threading.Event()

    def write(writer: int) -> None:
        with opened() as log:
            for number in range(appends):
                log.append([f"{writer} {number} {part}".encode() for part in range(each)])

    def read_on() -> None:
        with opened() as log:
            until = {partition: log.bounds(partition)[0] for partition in log.partitions()}
            finished = False
            while not finished:
                finished = done.is_set()
                for partition, first in until.items():
                    _, end = log.bounds(partition)
                    seen.extend(record.lines for record in log.read(partition, first, end))
                    until[partition] = end

    reader = threading.Thread(target=read_on)
    threads = [threading.Thread(target=write, args=[writer]) for writer in range(writers)]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    wanted = {
        f"{writer} {number} {part}".encode()
        for writer in range(writers)
        for number in range(appends)
        for part in range(each)
    }
    assert len(seen) == len(wanted)
    assert set(seen) == wanted
    for writer in range(writers):  # and each writer's in its order
        own = [lines for lines in seen if lines.startswith(b"%d " % writer)]
        assert own == sorted(own, key=lambda lines: [int(part) for part in lines.split()])


def test_ranges_of_one_log_are_read_side_by_side(opened: Open) -> None:
    with opened() as log:
        log.append([b"%d" % number for number in range(100)])
        (partition,) = log.partitions()
        parts = [log.read(partition, first, first + 25) for first in range(0, 100, 25)]
        together = list(zip(*parts, strict=True))
    assert sorted(record.offset for records in together for record in records) == list(range(100))


def test_the_same_log_has_the_same_identity(opened: Open) -> None:
    with opened() as first, opened() as second:
        assert first.identity() == first.identity() == second.identity()


@pytest.mark.parametrize(
    ("log", "server"),
    [
        (PostgresEventLog("postgresql://nobody@127.0.0.1:1/none"), "PostgreSQL"),
        (
            KafkaEventLog(Cluster((Address("127.0.0.1", 1),), "none", None, None, tls=False), 1, None),
            "Kafka at 127.0.0.1:1",
        ),
    ],
    ids=["postgres", "kafka"],
)
def test_a_log_that_cannot_be_reached_says_so(log: AbstractContextManager[EventLog], server: str) -> None:
    with log as opened:
        for attempt in (lambda: opened.append([b"x"]), lambda: opened.bounds(0)):
            began = time.monotonic()
            with pytest.raises(EventLogUnavailable, match=server):
                attempt()
            assert time.monotonic() - began < 10


# The embedded one: what PostgreSQL may do to it


def test_a_connection_that_the_server_ended_meanwhile_costs_no_event(database: str) -> None:
    with PostgresEventLog(database) as log, psycopg.connect(database, autocommit=True) as admin:
        log.append([b"before"])
        ended = (
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'footfall event log'"
        )
        assert admin.execute(ended).rowcount == 1
        log.append([b"after"])
        assert [record.lines for record in everything(log)] == [b"before", b"after"]


def test_a_server_that_became_a_standby_refuses_and_is_used_again_when_it_takes_over(database: str) -> None:
    with PostgresEventLog(database) as log, psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"alter database {admin.info.dbname} set default_transaction_read_only = on")
        try:
            with pytest.raises(EventLogUnavailable, match="read-only"):
                log.append([b"refused"])
        finally:
            admin.execute("set default_transaction_read_only = off")
            admin.execute(f"alter database {admin.info.dbname} reset default_transaction_read_only")
        log.append([b"kept"])
        assert [record.lines for record in everything(log)] == [b"kept"]


def test_what_is_acknowledged_is_on_disk_also_where_a_database_does_not_wait_for_it(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"alter database {admin.info.dbname} set synchronous_commit = off")
        try:
            with PostgresEventLog(database) as log:
                log.append([b"x"])
                assert log._connection
                assert log._connection.execute("show synchronous_commit").fetchone() == ("on",)
        finally:
            admin.execute(f"alter database {admin.info.dbname} reset synchronous_commit")
