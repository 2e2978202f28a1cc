"""Dates of a site's own time zone.

Zones come from the pinned tzdata package, never from the machine, so that every machine gives every event the same date.
Instants are whole milliseconds since 1970 (UTC) here, as they are in events.
"""

import importlib.resources
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TZDATA_VERSION = version("tzdata")


class UnknownTimeZone(ValueError):
    """No such zone in the IANA time zone database."""


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of an IANA name such as `Europe/Berlin`. Raises UnknownTimeZone."""
    try:
        names = importlib.resources.files("tzdata").joinpath("zones").read_text().split()
        if name not in names:
            raise UnknownTimeZone(f"{name!r} is not a time zone: use an IANA name, such as Europe/Berlin or UTC")
        with importlib.resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).open("rb") as data:
            return ZoneInfo.from_file(data, key=name)
    except OSError as problem:
        raise UnknownTimeZone(f"{name!r} could not be read from the tzdata package: {problem}") from problem


def site_date(time_zone: str, instant_ms: int) -> date:
    """The date in `time_zone` at an instant."""
    return _date_of_minute(time_zone, instant_ms // MINUTE_MS)


@lru_cache(maxsize=65_536)
def _date_of_minute(time_zone: str, minute: int) -> date:
    """Offsets have been whole minutes everywhere since 1972, so a date never changes within a minute."""
    return datetime.fromtimestamp(minute * 60, zone(time_zone)).date()


@lru_cache(maxsize=16_384)
def date_bounds(time_zone: str, day: date) -> tuple[int, int]:
    """The first instant of a site's date, and the first instant after it. Equal for a date that a zone skipped."""
    return _first_instant(time_zone, day), _first_instant(time_zone, day + timedelta(days=1))


def _first_instant(time_zone: str, day: date) -> int:
    """The first minute that is on `day` or later: found by bisection, since a local midnight may not exist or come twice."""
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) // 60
    before, after = noon - 48 * 60, noon + 24 * 60
    while after - before > 1:
        middle = (before + after) // 2
        if _date_of_minute(time_zone, middle) < day:
            before = middle
        else:
            after = middle
    return after * MINUTE_MS


def floor_hour(instant_ms: int) -> int:
    """The whole UTC hour of an instant."""
    return instant_ms - instant_ms % HOUR_MS


def to_datetime(instant_ms: int) -> datetime:
    """An instant as an aware datetime in UTC."""
    return EPOCH + timedelta(milliseconds=instant_ms)


def from_datetime(moment: datetime) -> int:
    """An aware datetime as an instant. Raises OverflowError outside of the years 1 to 9999 in UTC."""
    return (moment.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def hour_key(hour: datetime) -> str:
    """The partition key of a UTC hour."""
    return f"{hour:%Y-%m-%dT%H}"


def hour_of(key: str) -> datetime:
    """The UTC hour of a partition key."""
    return datetime.fromisoformat(f"{key}:00+00:00")
