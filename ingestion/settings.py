"""Settings: environment variables that begin with FOOTFALL_, read once into one frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

MAVEN_CENTRAL = "https://repo1.maven.org/maven2"


class SettingsError(Exception):
    """A setting has a value that cannot be used. The message names the variable, the value and the way out."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Cluster:
    """Servers that a URL names: scheme://[user:password@]host:port[,host:port]/name[?tls=yes|no]."""

    hosts: tuple[Address, ...]
    name: str
    """The topic, or the keyspace."""
    user: str | None
    password: str | None = field(repr=False)
    tls: bool
    """With a password, or where FOOTFALL_CA is set, unless the URL says otherwise."""

    def __str__(self) -> str:
        return f"{','.join(map(str, self.hosts))}/{self.name}"


@dataclass(frozen=True)
class Settings:
    """What the environment says, read once when a command starts."""

    home: Path
    """FOOTFALL_HOME: where the embedded default lives."""
    start: datetime
    """FOOTFALL_START: the first hour that has a partition (UTC)."""
    event_log: Cluster | None
    """FOOTFALL_EVENT_LOG: kafka://host:9092/topic; None is a table in PostgreSQL."""
    event_log_partitions: int
    """FOOTFALL_EVENT_LOG_PARTITIONS: how many a topic gets that is not there yet."""
    event_store: Cluster | None
    """FOOTFALL_EVENT_STORE: cassandra://host:9042/keyspace; None is tables in PostgreSQL."""
    event_store_days: int
    """FOOTFALL_EVENT_STORE_DAYS: how long the event store keeps what an arrival hour brought."""
    postgres: str | None = field(repr=False)
    """FOOTFALL_POSTGRES: a PostgreSQL server's URL; None is the embedded one under `home`."""
    lake: str
    """FOOTFALL_LAKE: file:///folder or s3://bucket/prefix."""
    ca: Path | None
    """FOOTFALL_CA: a file of certificates in PEM that all servers' certificates are verified with; None is the system's."""
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
    maven: str
    """FOOTFALL_MAVEN: where the jars of `footfall services` are downloaded from."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process. Raises SettingsError."""
    home = _folder(environment, "FOOTFALL_HOME", default=".footfall")
    ca = _file(environment, "FOOTFALL_CA")
    return Settings(
        home=home,
        start=_hour(environment, "FOOTFALL_START", default="2020-01-01"),
        event_log=_cluster(environment, "FOOTFALL_EVENT_LOG", "kafka", port=9092, name="topic", ca=ca),
        event_log_partitions=_whole_number(environment, "FOOTFALL_EVENT_LOG_PARTITIONS", default=12, most=1_000),
        event_store=_cluster(environment, "FOOTFALL_EVENT_STORE", "cassandra", port=9042, name="keyspace", ca=ca),
        event_store_days=_whole_number(environment, "FOOTFALL_EVENT_STORE_DAYS", default=400, most=7_000),
        postgres=_postgres_url(environment.get("FOOTFALL_POSTGRES"), ca),
        lake=_lake_url(environment.get("FOOTFALL_LAKE") or (home / "lake").as_uri()),
        ca=ca,
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
        maven=_web_url(environment, "FOOTFALL_MAVEN", default=MAVEN_CENTRAL),
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


def _web_url(environment: Mapping[str, str], name: str, default: str) -> str:
    text = environment.get(name) or default
    if not text.startswith(("https://", "http://")):
        raise SettingsError(f"{name}={text!r} must begin with https:// or http://")
    return text.rstrip("/")


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


def _file(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name)
    if not text:
        return None
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise SettingsError(f"{name}={text!r} is not a file")
    return path


def _cluster(
    environment: Mapping[str, str], variable: str, scheme: str, port: int, name: str, ca: Path | None
) -> Cluster | None:
    """Whatever is wrong, the value is not shown: it may hold a password."""
    text = environment.get(variable)
    if not text:
        return None
    form = f"write it like {scheme}://host:{port}/{name} (its value is not shown: it may hold a password)"
    url = urlsplit(text)
    if url.scheme != scheme:
        raise SettingsError(f"{variable} must begin with {scheme}://: {form}")
    who, _, where = url.netloc.rpartition("@")
    user, _, password = who.partition(":")
    hosts = tuple(_host(part, port) for part in where.split(","))
    options = parse_qs(url.query, keep_blank_values=True)
    tls = options.pop("tls", ["yes" if who or ca else "no"])
    if None in hosts:
        raise SettingsError(f"{variable} names no host, or a port that is none: {form}")
    if not url.path.strip("/") or "/" in url.path.strip("/"):
        raise SettingsError(f"{variable} names no {name}: {form}")
    if bool(user) != bool(password):
        raise SettingsError(f"{variable} names a user without a password, or a password without a user: {form}")
    if options or tls not in (["yes"], ["no"]):
        raise SettingsError(f"{variable} may have ?tls=yes or ?tls=no and nothing else: {form}")
    return Cluster(
        tuple(host for host in hosts if host),
        unquote(url.path.strip("/")),
        unquote(user) or None,
        unquote(password) or None,
        tls == ["yes"],
    )


def _host(text: str, port: int) -> Address | None:
    try:
        part = urlsplit(f"//{text}")
        return Address(part.hostname, port if part.port is None else part.port) if part.hostname else None
    except ValueError:
        return None


def _postgres_url(text: str | None, ca: Path | None) -> str | None:
    """A server that is not on this machine must prove who it is, unless the URL has an `sslmode` of its own."""
    if not text:
        return None
    if not text.startswith(("postgresql://", "postgres://")):
        raise SettingsError(
            "FOOTFALL_POSTGRES must begin with postgresql:// (its value is not shown: it may hold a password)"
        )
    url = urlsplit(text)
    options = parse_qs(url.query)
    if "sslmode" in options or (ca is None and all(map(_is_here, _postgres_hosts(url, options)))):
        return text
    verify = f"sslmode=verify-full&sslrootcert={quote(str(ca), safe='/') if ca else 'system'}"
    return f"{text}{'&' if '?' in text else '?'}{verify}"


def _postgres_hosts(url: SplitResult, options: Mapping[str, list[str]]) -> list[str]:
    if "host" in options:
        return options["host"][0].split(",")
    hosts = url.netloc.rpartition("@")[2].split(",")
    return [unquote(part if part.endswith("]") or ":" not in part else part.rpartition(":")[0]) for part in hosts]


def _is_here(host: str) -> bool:
    """A Unix socket, or this machine's loopback."""
    try:
        return not host or host.startswith("/") or host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _lake_url(url: str) -> str:
    if not url.startswith(("file://", "s3://")):
        raise SettingsError(f"FOOTFALL_LAKE={url!r} must begin with file:// or s3://")
    if url.startswith("file://") and not url.startswith("file:///"):
        raise SettingsError(f"FOOTFALL_LAKE={url!r} names no absolute path: write it like file:///srv/lake")
    return url if url == "file:///" else url.rstrip("/")
