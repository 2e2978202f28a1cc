"""The plan of a sweep: which ranges it requests, pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ingestion.settings import from_environment
from ingestion.site_time import hour_key
from orchestration.sweep import Range, late_dates, ranges

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
SETTINGS = replace(from_environment({}), start=datetime(2026, 1, 1, tzinfo=UTC), chunk_hours=24, chunk_dates=3)


def spans(job: str, due: set[str], *busy: Range, now: datetime = NOW) -> list[tuple[str, str, bool]]:
    return [(part.first, part.last, part.urgent) for part in ranges(job, due, busy, SETTINGS, now)]


@pytest.mark.parametrize(
    ("hour", "first", "last"), [(9, "2026-11-15", "2026-11-21"), (0, "2026-11-15", "2026-11-21"), (23, "2026-11-16", "2026-11-21")]
)  # fmt: skip
def test_late_dates_reach_from_the_last_zone_72_hours_ago_to_the_first_zone_now(hour, first, last):
    dates = late_dates(NOW.replace(hour=hour))
    assert (dates[0], dates[-1]) == (first, last)
    assert [str(datetime.fromisoformat(dates[0]).date() + timedelta(days=n)) for n in range(len(dates))] == dates


def test_late_dates_are_one_range_whatever_the_chunk():
    old = {"2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04"}
    found = spans("daily", {*late_dates(NOW), *old})
    assert found == [
        ("2026-11-15", "2026-11-21", True), ("2026-10-01", "2026-10-03", False), ("2026-10-04", "2026-10-04", False),
    ]  # fmt: skip


def test_hours_are_cut_to_chunks_those_of_late_first_and_what_has_no_partition_is_left_out():
    hours = {hour_key(NOW - timedelta(hours=back)) for back in range(-2, 30)} | {"2025-12-31T23", "2026-02-01T00"}
    assert spans("hourly", hours) == [
        ("2026-11-19T04", "2026-11-20T03", True), ("2026-11-20T04", "2026-11-20T09", True), ("2026-02-01T00", "2026-02-01T00", False),
    ]  # fmt: skip


def test_what_is_in_flight_is_left_out():
    busy = Range("hourly", "2026-11-20T08", "2026-11-20T09"), Range("daily", "2026-11-20", "2026-11-20")
    assert spans("hourly", {"2026-11-20T07", "2026-11-20T08"}, *busy) == [("2026-11-20T07", "2026-11-20T07", True)]
