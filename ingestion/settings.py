"""Settings: environment variables that begin with FOOTFALL_, read once into one frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


class SettingsError(Exception):
    """A setting has a value that cannot be used. The message names the variable, the value and the way out."""


@dataclass(frozen=True)
class Settings:
    """What the environment says, read once when a command starts."""

    home: Path
    """FOOTFALL_HOME: where the embedded default lives."""
    start: datetime
    """FOOTFALL_START: the first hour that has a partition (UTC)."""
    postgres: str | None
    """FOOTFALL_POSTGRES: a PostgreSQL server's URL; None is the embedded one under `home`."""
    lake: str
    """FOOTFALL_LAKE: file:///folder or s3://bucket/prefix."""
    buckets: int
    """FOOTFALL_BUCKETS: into how many buckets new event objects are split by site. Memory is bounded by one bucket."""
    chunk_rows: int
    """FOOTFALL_CHUNK_ROWS: events held in memory before they are written to the lake."""
    chunk_hours: int
    """FOOTFALL_CHUNK_HOURS: most hourly partitions in one run."""
    chunk_dates: int
    """FOOTFALL_CHUNK_DATES: most daily partitions in one run."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises SettingsError."""
    home = _folder(environment, "FOOTFALL_HOME", default=".footfall")
    return Settings(
        home=home,
        start=_hour(environment, "FOOTFALL_START", default="2020-01-01"),
        postgres=_postgres_url(environment.get("FOOTFALL_POSTGRES")),
        lake=_lake_url(environment.get("FOOTFALL_LAKE") or (home / "lake").as_uri()),
        buckets=_whole_number(environment, "FOOTFALL_BUCKETS", default=1, most=4096),
        chunk_rows=_whole_number(environment, "FOOTFALL_CHUNK_ROWS", default=100_000, most=100_000_000),
        chunk_hours=_whole_number(environment, "FOOTFALL_CHUNK_HOURS", default=336, most=100_000),
        chunk_dates=_whole_number(environment, "FOOTFALL_CHUNK_DATES", default=31, most=10_000),
    )


def _folder(environment: Mapping[str, str], name: str, default: str) -> Path:
    text = environment.get(name) or default
    try:
        return Path(text).expanduser().resolve()
    except (RuntimeError, OSError):
        raise SettingsError(f"{name}={text!r} cannot be a folder: write a path such as /srv/footfall") from None


def _hour(environment: Mapping[str, str], name: str, default: str) -> datetime:
    text = environment.get(name) or default
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{name}={text!r} is neither a date nor an hour: write it like 2020-01-01 or 2020-01-01T13 (UTC)"
        ) from None
    return moment.replace(minute=0, second=0, microsecond=0)


def _whole_number(environment: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not 1 <= int(text) <= most:
        raise SettingsError(f"{name}={text!r} is not a whole number from 1 to {most}")
    return int(text)


def _postgres_url(url: str | None) -> str | None:
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise SettingsError(
            "FOOTFALL_POSTGRES must begin with postgresql:// (its value is not shown: it may hold a password)"
        )
    return url or None


def _lake_url(url: str) -> str:
    if not url.startswith(("file://", "s3://")):
        raise SettingsError(f"FOOTFALL_LAKE={url!r} must begin with file:// or s3://")
    if url.startswith("file://") and not url.startswith("file:///"):
        raise SettingsError(f"FOOTFALL_LAKE={url!r} names no absolute path: write it like file:///srv/lake")
    return url if url == "file:///" else url.rstrip("/")
