"""Access logs of web servers, in the common or the combined format.

https://httpd.apache.org/docs/2.4/logs.html#accesslog
"""

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache

from ingestion.event import MAX_TEXT_LENGTH, PAGEVIEW, Event, Reason, refusal
from ingestion.protocols.line import Line
from ingestion.site_time import from_datetime

STATIC_EXTENSIONS = frozenset(
    """7z atom avi bmp bz2 css csv deb dmg doc docx eot exe gif gz ico iso jar jpeg jpg js json less map mov mp3 mp4 msi ogg
    otf pdf png ppt pptx rar rpm rss scss svg swf tar tgz tif tiff ttf txt wav webm webp woff woff2 xls xlsx xml xz
    zip""".split()
)
MAX_LINE_BYTES = 1_000_000
MONTHS = {
    name: number for number, name in enumerate("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), start=1)
}

_quoted = r'"((?:[^"\\]|\\.)*)"'
_line = re.compile(
    rf"(\S+) \S+ .*?\[([^\[\]]{{1,40}})\] {_quoted} (\d{{3}}) (?:\d+|-)(?: {_quoted} {_quoted}(?: .*)?)?"
)
_time = re.compile(r"\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\]")
_time_parts = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_request = re.compile(r"(\S+) (\S+)(?: HTTP/\d(?:\.\d)?)?")
_scheme_and_host = re.compile(r"\A[a-z][a-z0-9+.\-]*://[^/?#]*", re.IGNORECASE)


def read_line(line: bytes, site: str) -> Line:
    """The pageview that a line tells of, or why it is none."""
    text = line[:MAX_LINE_BYTES].decode(errors="replace").rstrip("\r\n")
    found = _line.fullmatch(text) if len(line) <= MAX_LINE_BYTES else None
    instant = _instant(found[2]) if found else None
    request = _request.fullmatch(found[3]) if found else None
    if found is None or instant is None:
        return Line((site,), _any_instant(text), rejected=Reason.MALFORMED_LINE)
    target = _scheme_and_host.sub("", request[2]) if request else ""
    if request is None or not _is_pageview(request[1], int(found[4]), target):
        return Line((site,), instant, rejected=Reason.NOT_A_PAGEVIEW)
    agent = _said(found[6])
    event = Event(
        domain=site,
        name=PAGEVIEW,
        url=f"https://{site}{target if target.startswith('/') else '/' + target}",
        referrer=_said(found[5]),
        ip=found[1],
        user_agent=agent,
        bot=True if found[6] is not None and agent is None else None,  # the common format says nothing about agents
    )
    reason = refusal(event)
    if agent and len(agent) > MAX_TEXT_LENGTH:
        reason = reason or Reason.INVALID_STATED_VALUE
    return Line((site,), instant, rejected=reason) if reason else Line((site,), instant, event)


def _is_pageview(method: str, status: int, target: str) -> bool:
    if method != "GET" or not (200 <= status <= 299 or status == 304):
        return False
    last_segment = target.partition("?")[0].partition("#")[0].rpartition("/")[2].lower()
    _, dot, extension = last_segment.rpartition(".")
    return not (dot and extension in STATIC_EXTENSIONS)


def _said(field: str | None) -> str | None:
    """A quoted field, its escapes undone; None where the log has nothing or `-`."""
    if field is None or field in ("", "-"):
        return None
    return field.replace('\\"', '"').replace("\\\\", "\\").replace("\0", "")


def _any_instant(text: str) -> int | None:
    found = _time.search(text)
    return _instant(found[1]) if found else None


@lru_cache(maxsize=4096)
def _instant(time: str) -> int | None:
    """An instant written like 17/May/2015:10:05:03 +0000."""
    found = _time_parts.fullmatch(time)
    if not found or found[2] not in MONTHS:
        return None
    day, month, year, hour, minute, second, sign, offset_hours, offset_minutes = found.groups()
    offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        return from_datetime(
            datetime(int(year), MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=zone)
        )
    except (ValueError, OverflowError):
        return None
