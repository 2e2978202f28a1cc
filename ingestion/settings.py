"""Settings: environment variables that begin with FOOTFALL_, read once into one frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import NamedTuple


class SettingsError(Exception):
    """A setting has a value that cannot be used. The message names the variable, the value and the way out."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    collector: Address
    """FOOTFALL_COLLECTOR: host:port where the collector listens."""
    dagster: Address
    """FOOTFALL_DAGSTER: host:port of the Dagster UI, which has no log-in."""
    any_site: bool
    """FOOTFALL_ANY_SITE: events of unknown sites add the site, in UTC, instead of being refused."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    """FOOTFALL_TRUSTED_PROXIES: networks of proxies whose X-Forwarded-For is believed, separated by commas."""
    hourly_minutes: int
    """FOOTFALL_HOURLY_MINUTES: how often the sweep looks at hourly assets."""
    daily_minutes: int
    """FOOTFALL_DAILY_MINUTES: how often the sweep looks at daily assets."""


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
        collector=_address(environment, "FOOTFALL_COLLECTOR", default="127.0.0.1:8000"),
        dagster=_address(environment, "FOOTFALL_DAGSTER", default="127.0.0.1:3000"),
        any_site=_yes_or_no(environment, "FOOTFALL_ANY_SITE"),
        trusted_proxies=_networks(environment, "FOOTFALL_TRUSTED_PROXIES", default="127.0.0.0/8, ::1"),
        hourly_minutes=_interval(environment, "FOOTFALL_HOURLY_MINUTES", default=15),
        daily_minutes=_interval(environment, "FOOTFALL_DAILY_MINUTES", default=30),
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


def _interval(environment: Mapping[str, str], name: str, default: int) -> int:
    minutes = _whole_number(environment, name, default, most=60)
    if 60 % minutes:
        raise SettingsError(
            f"{name}={str(minutes)!r} does not divide an hour: use 1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30 or 60"
        )
    return minutes


def _address(environment: Mapping[str, str], name: str, default: str) -> Address:
    text = environment.get(name) or default
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise SettingsError(f"{name}={text!r} is not host:port: write it like 127.0.0.1:8000, or 0.0.0.0:8000 for all")
    return Address(host, int(port))


def _yes_or_no(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "no"
    if text not in ("yes", "no"):
        raise SettingsError(f"{name}={text!r} is neither yes nor no")
    return text == "yes"


def _networks(environment: Mapping[str, str], name: str, default: str) -> tuple[IPv4Network | IPv6Network, ...]:
    text = environment.get(name)
    try:
        return tuple(
            ip_network(part.strip()) for part in (default if text is None else text).split(",") if part.strip()
        )
    except ValueError as problem:
        raise SettingsError(f"{name}={text!r}: {problem}: write it like 10.0.0.0/8, 192.168.1.7") from None


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
