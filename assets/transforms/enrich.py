"""Parsed events to events as the lake keeps them: agents, bots, pages, campaigns, sources, and the site's own date.

What an import stated is kept; what it did not state is computed.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from urllib.parse import unquote_plus
from zlib import crc32

import crawleruseragents
import polars as pl
import ua_parser

from assets.transforms.channels import DIRECT, channel
from ingestion.lake_events import EVENTS, INSTANT
from ingestion.site_time import TZDATA_VERSION, date_bounds, site_date

NOT_SET = "(not set)"
UTM = ("utm_source", "utm_medium", "utm_campaign", "utm_content", "utm_term")
AGENT = ("browser", "browser_version", "os", "os_version", "device")
VALUES = ("name", "path", "referrer", "source", "channel", "country", *AGENT, *UTM)
"""By what reports break down. An entry of an index in PostgreSQL has 2,704 bytes at most, so a value is cut."""
LONGEST_VALUE, CUT_TO = 2_000, 500
"""Bytes, and characters, of which one has 4 bytes at most."""

RULES_VERSION = ", ".join(
    [f"{package} {version(package)}" for package in ("ua-parser", "ua-parser-builtins", "crawler-user-agents")]
    + [f"tzdata {TZDATA_VERSION}"]
)
"""The tables that enrichment goes by; a change of one makes the events stale."""


def enrich(parsed: pl.DataFrame, time_zones: Mapping[str, str]) -> pl.DataFrame:
    """Parsed events (`PARSED`) to events (`EVENTS`), row by row. A site without a known time zone is in UTC."""
    return (
        parsed.pipe(_without_empty_text)
        .pipe(_with_agent)
        .pipe(_with_page)
        .pipe(_with_campaign)
        .pipe(_with_source)
        .pipe(_with_place)
        .pipe(_with_site_date, time_zones)
        .pipe(_with_values_cut)
        .with_columns(pl.col("interactive").fill_null(True), pl.col("revenue_amount").cast(pl.Decimal(38, 6)))
        .select(pl.col(name).cast(dtype) for name, dtype in EVENTS.items())
    )


def _with_values_cut(events: pl.DataFrame) -> pl.DataFrame:
    """Hardly ever is one too long: to look first takes a tenth of the time of cutting all."""
    longest = events.select(pl.col(name).cast(pl.String).str.len_bytes().max() for name in VALUES).row(0, named=True)
    too_long = [name for name, size in longest.items() if size is not None and size > LONGEST_VALUE]
    return events.with_columns(_cut(name) for name in too_long)


def _cut(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.String)
    return pl.when(value.str.len_bytes() > LONGEST_VALUE).then(value.str.slice(0, CUT_TO)).otherwise(value).alias(name)


def _without_empty_text(events: pl.DataFrame) -> pl.DataFrame:
    text = (
        "referrer",
        "title",
        "language",
        "user_agent",
        "country",
        "region",
        "city",
        "source",
        "channel",
        *AGENT,
        *UTM,
    )
    return events.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in text)


# Agents and bots: each distinct agent string is parsed once.


@lru_cache(maxsize=200_000)
def _agent(user_agent: str) -> tuple[str | None, ...]:
    """Browser, its version, operating system, its version, and device."""
    read = ua_parser.parse(user_agent)
    browser, system = read.user_agent, read.os
    return (
        _known(browser.family) if browser else None,
        _version(browser.major, browser.minor) if browser else None,
        _known(system.family) if system else None,
        _version(system.major, system.minor) if system else None,
        _device(read.device.family if read.device else None, system.family if system else None, user_agent),
    )


_CRAWLERS = "|".join(f"(?:{crawler['pattern']})" for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA)
"""The library's list as one pattern for Polars: 7 µs an agent, where the library's own loop takes 180."""


def _known(family: str | None) -> str | None:
    return None if family == "Other" else family


def _version(major: str | None, minor: str | None) -> str | None:
    return ".".join(part for part in (major, minor) if part) or None


_DESKTOPS = {
    "Windows",
    "Mac OS X",
    "Linux",
    "Ubuntu",
    "Fedora",
    "Debian",
    "Chrome OS",
    "FreeBSD",
    "OpenBSD",
    "NetBSD",
    "Solaris",
}
_MOBILES = {
    "iOS",
    "Android",
    "Windows Phone",
    "BlackBerry OS",
    "Symbian OS",
    "KaiOS",
    "Firefox OS",
    "Tizen",
    "HarmonyOS",
}
_TABLETS = ("iPad", "Tablet", "Kindle", "Nexus 7", "Nexus 9", "Nexus 10", "PlayBook", "TouchPad")


def _device(family: str | None, system: str | None, user_agent: str) -> str | None:
    """Tablets say so, by their name or as an Android that is not `Mobile`; phones and desktops are told by their system."""
    if (family and any(name in family for name in _TABLETS)) or (system == "Android" and "Mobile" not in user_agent):
        return "Tablet"
    if system in _MOBILES:
        return "Mobile"
    return "Desktop" if system in _DESKTOPS or (system or "").startswith("Windows") else None


def _with_agent(events: pl.DataFrame) -> pl.DataFrame:
    strings = events["user_agent"].drop_nulls().unique()
    parsed = pl.DataFrame(
        [(string, *_agent(string)) for string in strings],
        schema={"user_agent": pl.String, **{f"parsed_{name}": pl.String for name in AGENT}},
        orient="row",
    ).with_columns(crawler=pl.col("user_agent").str.contains(_CRAWLERS))
    return events.join(parsed, on="user_agent", how="left", maintain_order="left").with_columns(
        *(pl.coalesce(name, f"parsed_{name}", pl.lit(NOT_SET)).alias(name) for name in AGENT),
        pl.coalesce("bot", "crawler", pl.lit(False)).alias("bot"),
    )


# Pages, campaigns and sources. A URL is https://user@host:port/path?query#fragment.


def _with_url(events: pl.DataFrame, column: str) -> pl.DataFrame:
    """Adds the host, path and query of a column of URLs: null where the URL is not an absolute one.

    It splits, as regular expressions over whole URLs took four times as long; they read only the few distinct authorities."""
    url = pl.col(column)
    absolute = pl.when(url.str.contains(r"^[A-Za-z][A-Za-z0-9+.\-]*://")).then(url)
    page = absolute.str.splitn("#", 2).struct.field("field_0").str.splitn("?", 2).struct
    address = page.field("field_0").str.splitn("/", 4).struct  # "https:", "", authority, path
    split = events.with_columns(
        authority=address.field("field_2"),
        path=pl.coalesce("/" + address.field("field_3"), pl.when(absolute.is_not_null()).then(pl.lit(""))),
        query=page.field("field_1"),
    )
    hosts = split.select(pl.col("authority").drop_nulls().unique()).with_columns(host=_host(pl.col("authority")))
    return split.join(hosts, on="authority", how="left", maintain_order="left")


def _host(authority: pl.Expr) -> pl.Expr:
    """The host of an authority: lower case, without user, port and a leading `www.`."""
    host = authority.str.extract(r"^(?:[^@]*@)?(\[[^\]]*\]|[^:]*)", 1)
    return host.str.to_lowercase().str.strip_prefix("www.")


def _with_page(events: pl.DataFrame) -> pl.DataFrame:
    return _with_url(events, "url").with_columns(pl.col("path").replace("", "/"), hostname="host")


def _with_campaign(events: pl.DataFrame) -> pl.DataFrame:
    """UTM parameters: stated, else from the query of the URL, where the first of several counts."""
    query = pl.col("query")
    queries = events.select(query.unique()).filter(query.str.contains("utm_", literal=True))
    sent = {f"sent_{name}": _decoded(query.str.extract(rf"(?:^|&){name}=([^&]+)", 1)) for name in UTM}
    return events.join(queries.with_columns(**sent), on="query", how="left", maintain_order="left").with_columns(
        pl.coalesce(name, f"sent_{name}").alias(name) for name in UTM
    )


def _decoded(text: pl.Expr) -> pl.Expr:
    """Percent-encoding undone. Only text that has some goes through Python."""
    encoded = text.str.contains("[%+]")
    decoded = pl.when(encoded).then(text).map_batches(_unquote, return_dtype=pl.String)
    cleaned = pl.when(encoded).then(decoded).otherwise(text)
    return pl.when(cleaned != "").then(cleaned)


def _unquote(text: pl.Series) -> pl.Series:
    distinct = text.drop_nulls().unique().to_list()
    return text.replace_strict(
        distinct, [unquote_plus(item).replace("\0", "") for item in distinct], return_dtype=pl.String
    )


def _with_source(events: pl.DataFrame) -> pl.DataFrame:
    """Source and channel: stated, else the campaign's, else the referrer's host when it is not the site's own."""
    referrers = _with_url(events.select("site", "referrer"), "referrer")
    host = pl.col("host")
    is_foreign = (host != "") & (host != pl.col("site").str.strip_prefix("www."))
    foreign = referrers.select(
        referrer=pl.when(is_foreign).then(host + pl.col("path")), referrer_host=pl.when(is_foreign).then(host)
    )
    return (
        events.with_columns(foreign.get_columns())
        .with_columns(source=pl.coalesce("source", "utm_source", "referrer_host", pl.lit(DIRECT)))
        .with_columns(channel=pl.coalesce("channel", channel()))
    )


def _with_place(events: pl.DataFrame) -> pl.DataFrame:
    """Country (ISO 3166-1 alpha-2), region and city, as stated."""
    country = pl.col("country")
    return events.with_columns(
        country=pl.when(country.str.contains("^[A-Z0-9]{2}$")).then(country).otherwise(pl.lit(NOT_SET)),
        region=pl.col("region").fill_null(NOT_SET),
        city=pl.col("city").fill_null(NOT_SET),
    )


def _with_site_date(events: pl.DataFrame, time_zones: Mapping[str, str]) -> pl.DataFrame:
    """The date of the site's own time zone, and its bounds: computed once for each zone and minute."""
    zones = pl.DataFrame(
        [(site, time_zones.get(site, "UTC")) for site in events["site"].unique()],
        schema={"site": pl.String, "time_zone": pl.String},
        orient="row",
    )
    zoned = events.join(zones, on="site", how="left", maintain_order="left").with_columns(
        minute=pl.col("timestamp").dt.truncate("1m")
    )
    dates = pl.DataFrame(
        [
            (time_zone, minute, day := site_date(time_zone, minute), *date_bounds(time_zone, day))
            for time_zone, minute in zoned.select("time_zone", pl.col("minute").dt.epoch("ms")).unique().iter_rows()
        ],
        schema={
            "time_zone": pl.String,
            "minute": pl.Int64,
            "date": pl.Date,
            "date_began": pl.Int64,
            "date_ended": pl.Int64,
        },
        orient="row",
    ).with_columns(pl.col("minute", "date_began", "date_ended").cast(INSTANT))
    return zoned.join(dates, on=["time_zone", "minute"], how="left", maintain_order="left")


def with_bucket(events: pl.DataFrame, buckets: int) -> pl.DataFrame:
    """The bucket of each row: CRC-32 of its site, which is the same on every machine and in every version."""
    sites = events["site"].unique().to_list()
    return events.with_columns(
        bucket=pl.col("site").replace_strict(
            sites, [crc32(site.encode()) % buckets for site in sites], return_dtype=pl.Int32
        )
    )
