"""Dates of a site's own zone: days of 23, 24 and 25 hours, of none, and midnights that do not exist."""

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.site_time import (
    HOUR_MS,
    UnknownTimeZone,
    date_bounds,
    floor_hour,
    from_datetime,
    site_date,
    to_datetime,
    zone,
)


def ms(text: str) -> int:
    return from_datetime(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("time_zone", "day", "began", "hours"),
    [
        ("UTC", date(2026, 11, 22), "2026-11-22T00:00Z", 24),
        ("Europe/Berlin", date(2026, 3, 29), "2026-03-28T23:00Z", 23),
        ("Europe/Berlin", date(2026, 10, 25), "2026-10-24T22:00Z", 25),
        ("America/New_York", date(2026, 3, 8), "2026-03-08T05:00Z", 23),
        ("America/New_York", date(2026, 11, 1), "2026-11-01T04:00Z", 25),
        ("Asia/Kolkata", date(2026, 1, 1), "2025-12-31T18:30Z", 24),
        ("Asia/Kathmandu", date(2026, 1, 1), "2025-12-31T18:15Z", 24),
        ("Pacific/Chatham", date(2026, 4, 5), "2026-04-04T10:15Z", 25),
        ("Australia/Lord_Howe", date(2026, 4, 5), "2026-04-04T13:00Z", 24.5),
        ("Australia/Lord_Howe", date(2026, 10, 4), "2026-10-03T13:30Z", 23.5),
        ("Pacific/Kiritimati", date(2026, 1, 1), "2025-12-31T10:00Z", 24),
        ("Etc/GMT+12", date(2026, 1, 1), "2026-01-01T12:00Z", 24),
        ("America/Havana", date(2024, 3, 10), "2024-03-10T05:00Z", 23),  # 00:00 does not exist: it begins at 01:00
        ("America/Havana", date(2024, 11, 3), "2024-11-03T04:00Z", 25),  # 00:00 comes twice
        ("Pacific/Apia", date(2011, 12, 29), "2011-12-29T10:00Z", 24),
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00Z", 0),  # the skipped day
        ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00Z", 24),
        ("Africa/Casablanca", date(2026, 2, 15), "2026-02-14T23:00Z", 25),  # DST ends for Ramadan
    ],
)
def test_date_bounds(time_zone: str, day: date, began: str, hours: float) -> None:
    first, after = date_bounds(time_zone, day)
    assert (to_datetime(first), (after - first) / HOUR_MS) == (to_datetime(ms(began)), hours)


@pytest.mark.parametrize(
    ("time_zone", "instant", "day"),
    [
        ("UTC", "2026-11-22T23:59:59.999Z", date(2026, 11, 22)),
        ("UTC", "2026-11-23T00:00Z", date(2026, 11, 23)),
        ("Asia/Kathmandu", "2026-11-22T18:14:59.999Z", date(2026, 11, 22)),
        ("Asia/Kathmandu", "2026-11-22T18:15Z", date(2026, 11, 23)),
        ("America/Havana", "2024-03-10T04:59:59.999Z", date(2024, 3, 9)),
        ("America/Havana", "2024-03-10T05:00Z", date(2024, 3, 10)),
        ("Pacific/Apia", "2011-12-30T09:59:59.999Z", date(2011, 12, 29)),
        ("Pacific/Apia", "2011-12-30T10:00Z", date(2011, 12, 31)),
        ("UTC", "1969-12-31T23:59:59.999Z", date(1969, 12, 31)),
    ],
)
def test_site_date(time_zone: str, instant: str, day: date) -> None:
    assert site_date(time_zone, ms(instant)) == day


ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",
    "America/Santiago",
    "America/Nuuk",
    "America/St_Johns",
    "Asia/Kolkata",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Asia/Tehran",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kiritimati",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Etc/GMT+12",
]
# Before 2011 clocks of St. John's went back at 00:01: one minute of the new date, then the old one again.
INSTANTS = st.integers(ms("2011-12-01T00:00Z"), ms("2040-01-01T00:00Z"))


@given(st.sampled_from(ZONES), INSTANTS)
def test_the_bounds_contain_the_instants_of_the_date_and_no_other(time_zone: str, instant: int) -> None:
    day = site_date(time_zone, instant)
    first, after = date_bounds(time_zone, day)
    assert first <= instant < after
    assert site_date(time_zone, first) == site_date(time_zone, after - 1) == day
    assert site_date(time_zone, first - 1) < day < site_date(time_zone, after)


@given(st.sampled_from(ZONES), st.dates(date(2011, 12, 1), date(2040, 1, 1)))
def test_dates_follow_each_other_without_gap_or_overlap(time_zone: str, day: date) -> None:
    began, ended = date_bounds(time_zone, day)
    assert began <= ended == date_bounds(time_zone, day + timedelta(days=1))[0]


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "europe/berlin", "../tzdata/zones", "Europe", "CEST", "+01:00", "UTC\0", "/etc/passwd"]
)
def test_an_unknown_zone_is_named(name: str) -> None:
    with pytest.raises(UnknownTimeZone) as problem:
        zone(name)
    assert repr(name) in str(problem.value)
    assert "Europe/Berlin" in str(problem.value)


def test_zones_come_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONTZPATH", "/nowhere")
    assert zone("Asia/Kathmandu").utcoffset(datetime(2026, 1, 1)) == timedelta(hours=5, minutes=45)


@pytest.mark.parametrize(
    ("instant", "hour"),
    [
        (0, 0),
        (HOUR_MS - 1, 0),
        (HOUR_MS, HOUR_MS),
        (-1, -HOUR_MS),
        (ms("2015-05-17T10:59:59.999Z"), ms("2015-05-17T10:00Z")),
    ],
)
def test_floor_hour(instant: int, hour: int) -> None:
    assert floor_hour(instant) == hour


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-14 * 60, 14 * 60))
def test_an_instant_is_the_moment_cut_to_ms(moment: datetime, offset_minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    exact = moment.replace(tzinfo=UTC, microsecond=moment.microsecond // 1000 * 1000) - timedelta(
        minutes=offset_minutes
    )
    assert to_datetime(from_datetime(aware)) == exact
