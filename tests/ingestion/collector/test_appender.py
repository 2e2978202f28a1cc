"""Many requests share a commit, and each is told the truth about its own lines."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.collector.appender import BYTES_AT_ONCE, MAX_WAITING_BYTES, Appender, records_of
from ingestion.event_log import MAX_RECORD_BYTES, EventLogUnavailable
from ingestion.event_log.postgres import PostgresEventLog

MEGABYTE = b"x" * 999_999


@pytest.fixture
def appender(database: str) -> Iterator[Appender]:
    appender = Appender(PostgresEventLog(database))
    yield appender
    appender.close()


@pytest.fixture
def records(database: str) -> Callable[[], list[bytes]]:
    """What is in the log."""

    def read() -> list[bytes]:
        with PostgresEventLog(database) as log:
            return [record.lines for record in log.read(0, *log.bounds(0))]

    return read


@contextmanager
def appends_held(database: str) -> Iterator[None]:
    with psycopg.connect(database) as connection:
        connection.execute("lock table footfall.event_log in share mode")
        yield


def is_running(done: "Future[None]") -> bool:
    """Whether its turn has come."""
    while not (done.running() or done.done()):
        threading.Event().wait(0.01)
    return not done.done()


def lines_of(records: list[bytes]) -> list[bytes]:
    return [line for record in records for line in record.split(b"\n")]


def test_lines_are_in_the_log_when_the_future_is_done(appender: Appender, records: Callable[[], list[bytes]]) -> None:
    appender.submit([b"a", b"b"]).result(10)
    assert records() == [b"a\nb"]
    appender.submit([b"c"]).result(10)
    assert records() == [b"a\nb", b"c"]


def test_many_threads_each_see_their_lines_at_once_and_in_order(
    appender: Appender, records: Callable[[], list[bytes]]
) -> None:
    missing: list[bytes] = []

    def submit(writer: int) -> None:
        for number in range(10):
            line = b"%d %d" % (writer, number)
            appender.submit([line]).result(30)
            if line not in lines_of(records()):
                missing.append(line)

    threads = [threading.Thread(target=submit, args=[writer]) for writer in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = lines_of(records())
    assert missing == []
    assert sorted(lines) == sorted(b"%d %d" % (writer, number) for writer in range(16) for number in range(10))
    for writer in range(16):
        own = [line for line in lines if line.startswith(b"%d " % writer)]
        assert own == [b"%d %d" % (writer, number) for number in range(10)]


def test_what_waits_goes_together(database: str, appender: Appender, records: Callable[[], list[bytes]]) -> None:
    with appends_held(database):
        first = appender.submit([b"first"])
        assert is_running(first)
        rest = [appender.submit([b"%d" % number]) for number in range(500)]
    wait([first, *rest], 30)
    assert [len(lines_of([record])) for record in records()] == [1, 500]


def test_a_request_larger_than_a_record_becomes_several(appender: Appender, records: Callable[[], list[bytes]]) -> None:
    lines = [b"%d" % number + b"x" * 300_000 for number in range(12)]
    appender.submit(lines).result(30)
    assert [len(record) <= MAX_RECORD_BYTES for record in records()] == [True] * 4
    assert lines_of(records()) == lines


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=40), st.integers(5, 60))
def test_records_hold_all_lines_in_order_and_no_more_than_fit(lines: list[bytes], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingestion.collector.appender.MAX_RECORD_BYTES", most)
        records = records_of(lines)
    assert (lines_of(records) if lines else records) == lines
    assert all(len(record) <= most or b"\n" not in record for record in records)
    assert all(len(one) + 1 + len(two.split(b"\n")[0]) > most for one, two in pairwise(records))


def test_when_too_much_waits_it_refuses_and_then_takes_again(
    database: str, appender: Appender, records: Callable[[], list[bytes]]
) -> None:
    with appends_held(database):
        assert is_running(appender.submit([b"first"]))
        waiting = [appender.submit([MEGABYTE]) for _ in range(MAX_WAITING_BYTES // 1_000_000)]
        with pytest.raises(EventLogUnavailable, match="does not keep up"):
            appender.submit([b"too much"])
        assert not any(done.done() for done in waiting)
        for done in waiting[BYTES_AT_ONCE // 1_000_000 :]:
            assert done.cancel()  # spares the test the rest
    wait(waiting, 60)
    appender.submit([b"last"]).result(60)
    assert lines_of(records()) == [b"first", *[MEGABYTE] * (BYTES_AT_ONCE // 1_000_000), b"last"]


def test_who_gave_up_before_the_turn_came_is_not_appended_and_harms_nobody(
    database: str, appender: Appender, records: Callable[[], list[bytes]]
) -> None:
    with appends_held(database):
        first = appender.submit([b"first"])
        assert is_running(first)
        assert not first.cancel()  # it is on its way
        second, third = appender.submit([b"second"]), appender.submit([b"third"])
        assert second.cancel()
    first.result(10)
    third.result(10)
    assert lines_of(records()) == [b"first", b"third"]


def test_a_log_that_fails_fails_all_that_wait_and_later_ones_are_taken(
    database: str, appender: Appender, records: Callable[[], list[bytes]]
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("alter table footfall.event_log rename to gone")
        try:
            waiting = [appender.submit([b"lost"]) for _ in range(20)]
            for done in waiting:
                with pytest.raises(EventLogUnavailable, match="PostgreSQL: relation"):
                    done.result(10)
        finally:
            connection.execute("alter table footfall.gone rename to event_log")
    appender.submit([b"kept"]).result(10)
    assert records() == [b"kept"]


def test_closing_appends_what_waits_and_takes_no_more(database: str, records: Callable[[], list[bytes]]) -> None:
    appender = Appender(PostgresEventLog(database))
    with appends_held(database):
        waiting = [appender.submit([b"%d" % number]) for number in range(50)]
        closing = threading.Thread(target=appender.close)
        closing.start()
        with pytest.raises(EventLogUnavailable):
            while True:  # until it has begun to close
                waiting.append(appender.submit([b"%d" % len(waiting)]))
                threading.Event().wait(0.01)
    closing.join(10)
    assert all(done.result(0) is None for done in waiting)
    assert lines_of(records()) == [b"%d" % number for number in range(len(waiting))]
