"""What a report of an access log must say, counted straight over the log's lines.

Shares no code with the importer: its own reading of the common and combined formats, then the naive truth.
Only the agent and bot libraries are the same.

    python -m tests.e2e.access_log_oracle ACCESS_LOG SITE
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import crawleruseragents
import ua_parser

from ingestion.simulation import truth
from ingestion.simulation.traffic import channel

STATIC_PATH = re.compile(
    r"""\.(7z|atom|avi|bmp|bz2|css|csv|deb|dmg|doc|docx|eot|exe|gif|gz|ico|iso|jar|jpeg|jpg|js|json|less|map|mov|mp3
    |mp4|msi|ogg|otf|pdf|png|ppt|pptx|rar|rpm|rss|scss|svg|swf|tar|tgz|tif|tiff|ttf|txt|wav|webm|webp|woff|woff2|xls
    |xlsx|xml|xz|zip)$""",
    re.IGNORECASE | re.VERBOSE,
)
DESKTOP_SYSTEMS = {"Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS"}
LONGEST_URL_BYTES = 2_000

QUOTED = r'"((?:[^"\\]|\\.)*)"'
TIME = r"\[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}:\d{2}:\d{2} [+-]\d{4})\]"
LINE = re.compile(rf"(\S+) \S+ .*?{TIME} {QUOTED} (\d{{3}}) (?:\d+|-)(?: {QUOTED} {QUOTED})?\s*")
REQUEST = re.compile(r"(\S+) (.*?)( HTTP/\d(\.\d)?)?")


def report(log_path: Path, site: str, first: date | None = None, last: date | None = None) -> dict[str, Any]:
    """The true report of the log (plain or .gz) as traffic of `site`, in UTC.

    Without `first` and `last`: for all dates from the earliest line to the latest.
    """
    events: list[truth.Event] = []
    rejections: list[truth.Rejection] = []
    for number, text, hour in with_hours(lines_of(log_path)):
        outcome = event_or_reason(text, number, site)
        if isinstance(outcome, truth.Event):
            events.append(outcome)
        else:
            rejections.append(truth.Rejection(site, hour, outcome))
    hours = [event.hour for event in events] + [rejection.hour for rejection in rejections]
    return truth.report(
        site, "UTC", events, rejections, first or date_of_hour(min(hours)), last or date_of_hour(max(hours))
    )


def lines_of(log_path: Path) -> list[str]:
    content = log_path.read_bytes()
    if log_path.suffix == ".gz":
        content = gzip.decompress(content)
    return [line.decode("utf-8", "replace") for line in content.split(b"\n")[: None if content[-1:] != b"\n" else -1]]


def with_hours(lines: list[str]) -> Iterator[tuple[int, str, int]]:
    """Each line with its number and UTC hour: its own, else that of the line before, else the first that there is."""
    own = [time_of(line) for line in lines]
    hour = next(time for time in own if time is not None) // truth.HOUR_MS
    for number, (line, time) in enumerate(zip(lines, own, strict=True), start=1):
        hour = hour if time is None else time // truth.HOUR_MS
        yield number, line, hour


def time_of(line: str) -> int | None:
    """The time in brackets, in ms since 1970."""
    found = re.search(TIME, line)
    try:
        return found and int(datetime.strptime(found[1], "%d/%b/%Y:%H:%M:%S %z").timestamp()) * 1000
    except ValueError:
        return None


def date_of_hour(hour: int) -> date:
    return date.fromisoformat(truth.hour_name(hour)[:10])


def event_or_reason(line: str, number: int, site: str) -> truth.Event | str:
    """The pageview that the line is, or why it is none."""
    fields = LINE.fullmatch(line)
    timestamp = time_of(line)
    if fields is None or timestamp is None:
        return "malformed_line"
    address, _, request, status, referrer, agent = fields.groups()
    method, target = parsed.groups()[:2] if (parsed := REQUEST.fullmatch(request)) else ("", "")
    if method != "GET" or not target.startswith("/") or not (200 <= int(status) < 300 or status == "304"):
        return "not_a_pageview"
    path, _, query = target.partition("#")[0].partition("?")
    if STATIC_PATH.search(path):
        return "not_a_pageview"
    if len(f"https://{site}{target}".encode()) > LONGEST_URL_BYTES:
        return "url_too_long"
    agent = "" if agent in (None, "-") else agent
    return truth.Event(
        site=site,
        timezone="UTC",
        timestamp=timestamp,
        line=number,
        path=path,
        ip=address,
        user_agent=agent,
        bot=not agent or bool(crawleruseragents.is_crawler(agent)),
        attributes=source_attributes(query, referrer or "-", site) | agent_attributes(agent),
    )


def source_attributes(query: str, referrer: str, site: str) -> dict[str, str]:
    said = {name: values[0] for name, values in parse_qs(query).items()}
    attributes = {name: said[name] for name in truth.UTM if name in said}
    address = re.match(r"https?://([^/?#]+)([^?#]*)", referrer, re.IGNORECASE)
    host = address[1].lower().removeprefix("www.") if address else None
    if address and host and host != site:
        attributes |= {"source": host, "referrer": host + address[2]}
    if "utm_source" in attributes:
        attributes["source"] = attributes["utm_source"]
    return attributes | {"channel": channel(attributes.get("source"), attributes.get("utm_medium"))}


def agent_attributes(agent: str) -> dict[str, str]:
    parsed = ua_parser.parse(agent)
    found = {
        "browser": parsed.user_agent.family if parsed.user_agent else "Other",
        "os": parsed.os.family if parsed.os else "Other",
        "device": device(parsed),
    }
    return {name: value for name, value in found.items() if value != "Other"}


def device(parsed: ua_parser.Result) -> str:
    """The product's rule: tablets by their name, or an Android that is not "Mobile"; the others by their system."""
    family = parsed.device.family if parsed.device else ""
    system = parsed.os.family if parsed.os else ""
    named = ["iPad", "Tablet", "Kindle", "Nexus 7", "Nexus 9", "Nexus 10", "PlayBook", "TouchPad"]
    if any(name in family for name in named) or (system == "Android" and parsed.string.find("Mobile") < 0):
        return "Tablet"
    if system in ("iOS", "Android", "Windows Phone", "BlackBerry OS", "Symbian OS", "KaiOS", "Firefox OS", "Tizen"):
        return "Mobile"
    desktops = (
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
    )
    return "Desktop" if system in desktops or system.startswith("Windows") else "Other"


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]), sys.argv[2]), ensure_ascii=False, indent=1))
