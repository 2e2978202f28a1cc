"""Offset ranges tile the event log, and every record is in the raw objects of the hour in which the log took it."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.checks import offset_ranges_tile
from ingestion.event_log import LogIdentity
from ingestion.event_log.postgres import EMBEDDED, PostgresEventLog
from ingestion.ledger import Ledger, LogReplaced, OffsetRange, Superseded
from ingestion.pull import LogTruncated, pull, unread
from ingestion.site_time import from_datetime, hour_key
from ingestion.stores import Stores
from tests.factories import append_at

EMPTY = "truncate footfall.event_log, footfall.event_log_end, footfall.offset_ranges, footfall.raw_objects cascade"
START = datetime(2026, 11, 22, tzinfo=UTC)
NOON = START + timedelta(hours=12)


def pulled(stores: Stores, last: datetime, now: datetime | None = None) -> list[OffsetRange]:
    done = []
    with PostgresEventLog(stores.postgres_url) as log:
        for read in pull(log, stores.lake, unread(log, stores.ledger.read_until(), START, last, now or last)):
            stores.ledger.list_range(read)
            done.append(read)
    return done


def raw(stores: Stores) -> list[tuple[str, bytes]]:
    """Each raw line with its arrival hour."""
    hours = [hour_key(START + timedelta(hours=number)) for number in range(48)]
    return [
        (hour, line)
        for hour in hours
        for item in stores.ledger.raw_objects(hour)
        for line in zstandard.decompress(stores.lake.get_listed(item)).splitlines()
    ]


def test_an_empty_log_has_nothing_to_read(stores: Stores) -> None:
    assert pulled(stores, NOON) == []


def test_records_go_to_the_hours_in_which_the_log_took_them(stores: Stores) -> None:
    append_at(stores, START + timedelta(hours=3), b"a\nb", b"c")
    append_at(stores, NOON, b"d")
    read = pulled(stores, NOON + timedelta(minutes=5))
    assert [(one.first, one.end, one.hour) for one in read] == [(0, 2, "2026-11-22T03"), (2, 3, "2026-11-22T12")]
    assert read[0].object and read[0].object.name == "raw/hour=2026-11-22T03/p00-000000000000-000000000001.ndjson.zst"
    assert raw(stores) == [
        ("2026-11-22T03", b"a"),
        ("2026-11-22T03", b"b"),
        ("2026-11-22T03", b"c"),
        ("2026-11-22T12", b"d"),
    ]
    assert pulled(stores, NOON + timedelta(minutes=6)) == []
    assert offset_ranges_tile(stores).passed


def test_the_current_hour_is_read_on_and_an_earlier_last_hour_bounds_what_is_read(stores: Stores) -> None:
    append_at(stores, NOON, b"a")
    append_at(stores, NOON + timedelta(minutes=70), b"b")
    now = NOON + timedelta(minutes=75)
    assert [one.hour for one in pulled(stores, NOON, now)] == ["2026-11-22T12"]
    append_at(stores, now, b"c")
    assert [(one.hour, one.first, one.end) for one in pulled(stores, now, now)] == [("2026-11-22T13", 1, 3)]


def test_a_record_that_is_committed_late_in_an_hour_that_is_over_is_still_of_that_hour(stores: Stores) -> None:
    append_at(stores, NOON - timedelta(minutes=5), b"a")
    pulled(stores, NOON, NOON)
    append_at(stores, NOON - timedelta(milliseconds=1), b"late commit")
    pulled(stores, NOON, NOON + timedelta(minutes=1))
    assert raw(stores) == [("2026-11-22T11", b"a"), ("2026-11-22T11", b"late commit")]


def test_blank_records_are_read_and_leave_no_object(stores: Stores) -> None:
    append_at(stores, NOON, b"", b" \n\n")
    (read,) = pulled(stores, NOON)
    assert (read.first, read.end, read.object) == (0, 2, None)
    assert pulled(stores, NOON) == []


def test_what_retention_took_is_a_lost_range_and_an_alert(stores: Stores) -> None:
    append_at(stores, NOON, b"a")
    pulled(stores, NOON)
    append_at(stores, NOON, b"b", b"c", b"d")
    with PostgresEventLog(stores.postgres_url) as log:
        assert log.forget(3, from_datetime(NOON) + 1) == 3
    read = pulled(stores, NOON)
    assert [(one.first, one.end, one.lost) for one in read] == [(1, 3, True), (3, 4, False)]
    assert [line for _, line in raw(stores)] == [b"a", b"d"]
    assert not offset_ranges_tile(stores).passed


def test_a_log_that_ends_below_what_was_read_is_an_error_and_changes_nothing(stores: Stores) -> None:
    append_at(stores, NOON, b"a", b"b")
    pulled(stores, NOON)
    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        connection.execute("delete from footfall.event_log")
        connection.execute("update footfall.event_log_end set next_offset = 0")
    with pytest.raises(LogTruncated, match="ends at offset 0, but it was read to 2"):
        pulled(stores, NOON)
    assert stores.ledger.read_until() == {0: (2, "2026-11-22T12")}


def test_a_clock_that_steps_back_loses_nothing(stores: Stores) -> None:
    append_at(stores, NOON + timedelta(days=2), b"from the future")  # the clock was two days ahead
    append_at(stores, NOON, b"a")
    assert [one.hour for one in pulled(stores, NOON, NOON)] == ["2026-11-22T12"]
    append_at(stores, NOON - timedelta(hours=3), b"b")
    assert [one.hour for one in pulled(stores, NOON - timedelta(hours=3))] == ["2026-11-22T12"]
    assert len(raw(stores)) == 3


def test_a_range_that_does_not_begin_where_the_last_one_ended_is_refused(stores: Stores) -> None:
    stores.ledger.list_range(OffsetRange(0, 0, 5, "2026-11-22T12"))
    for first in (0, 4, 6):
        with pytest.raises(Superseded, match="is read to 5"):
            stores.ledger.list_range(OffsetRange(0, first, 9, "2026-11-22T12"))
    assert stores.ledger.read_until() == {0: (5, "2026-11-22T12")}


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 4), st.booleans()), max_size=15), st.integers(1, 30))
def test_whenever_it_is_read_every_line_is_there_once_in_its_hour(
    stores: Stores, steps: list[tuple[int, int, bool]], object_bytes: int
) -> None:
    """Steps of some minutes: some records, and perhaps a pull."""
    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        connection.execute(EMPTY)
    wanted, now, number = Counter[tuple[str, bytes]](), START, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ingestion.pull.OBJECT_BYTES", object_bytes)
        for minutes, records, pulls in steps:
            now += timedelta(minutes=minutes)
            for _ in range(records):
                number += 1
                append_at(stores, now, b"line %d\n%d again" % (number, number))
                wanted += Counter({(hour_key(now), b"line %d" % number): 1, (hour_key(now), b"%d again" % number): 1})
            if pulls:
                pulled(stores, now)
        pulled(stores, now)
    assert Counter(raw(stores)) == wanted
    assert offset_ranges_tile(stores).passed


def test_an_event_log_has_its_number_for_good_and_one_that_was_made_anew_is_refused(stores: Stores) -> None:
    first, second = LogIdentity("first", "a"), LogIdentity("second", "b")
    assert [stores.ledger.log_number(log) for log in (first, second, first)] == [0, 1, 0]
    with pytest.raises(LogReplaced, match="first is another one than was read: it has the id c, the old one had a"):
        stores.ledger.log_number(LogIdentity("first", "c"))
    assert stores.ledger.log_number(first) == 0


def test_a_home_that_read_the_embedded_log_before_there_were_others_goes_on_with_it(
    new_database: Callable[..., str],
) -> None:
    url = new_database()
    with Ledger(url) as ledger, psycopg.connect(url, autocommit=True) as connection:
        ledger.migrate()
        ledger.list_range(OffsetRange(0, 0, 5, "2026-11-22T12"))
        connection.execute("drop table footfall.event_logs")  # as it was
        connection.execute("delete from public.footfall_migrations where name like '0003%'")
        ledger.migrate()
        assert ledger.log_number(LogIdentity("a topic", "id")) == 1
        assert ledger.log_number(EMBEDDED) == 0


def test_a_second_log_is_read_from_its_start_and_its_objects_have_names_of_their_own(stores: Stores) -> None:
    append_at(stores, NOON, b"a")
    pulled(stores, NOON)
    with PostgresEventLog(stores.postgres_url) as log:
        for read in pull(log, stores.lake, unread(log, stores.ledger.read_until(), START, NOON, NOON, number=1)):
            stores.ledger.list_range(read)
    assert [item.name.rpartition("/")[2][:5] for item in stores.ledger.raw_objects("2026-11-22T12")] == [
        "p00-0",
        "p1000",
    ]
    assert stores.ledger.read_until() == {0: (1, "2026-11-22T12"), 1000: (1, "2026-11-22T12")}
    assert offset_ranges_tile(stores).passed
