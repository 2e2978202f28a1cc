"""Lines of web servers' logs: which are page views, and what the others are."""

import re
import time
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.event import Reason, refusal
from ingestion.protocols.access_log import STATIC_EXTENSIONS, read_line
from ingestion.site_time import from_datetime

SITE = "shop.example"
TIME = "17/May/2015:10:05:03 +0000"
INSTANT = from_datetime(datetime.fromisoformat("2015-05-17T10:05:03Z"))
DESIGN = [
    "7z",
    "atom",
    "avi",
    "bmp",
    "bz2",
    "css",
    "csv",
    "deb",
    "dmg",
    "doc",
    "docx",
    "eot",
    "exe",
    "gif",
    "gz",
    "ico",
    "iso",
    "jar",
    "jpeg",
    "jpg",
    "js",
    "json",
    "less",
    "map",
    "mov",
    "mp3",
    "mp4",
    "msi",
    "ogg",
    "otf",
    "pdf",
    "png",
    "ppt",
    "pptx",
    "rar",
    "rpm",
    "rss",
    "scss",
    "svg",
    "swf",
    "tar",
    "tgz",
    "tif",
    "tiff",
    "ttf",
    "txt",
    "wav",
    "webm",
    "webp",
    "woff",
    "woff2",
    "xls",
    "xlsx",
    "xml",
    "xz",
    "zip",
]


def line(
    request: str = "GET / HTTP/1.1", status: object = 200, rest: str = ' "-" "Mozilla"', *, host: str = "198.51.100.77",
    user: str = "- -", at: str = TIME, size: str = "12",
) -> str:  # fmt: skip
    return f'{host} {user} [{at}] "{request}" {status} {size}{rest}'


def read(text: str | bytes) -> Any:
    return read_line(text if isinstance(text, bytes) else text.encode(), SITE)


def test_a_combined_line() -> None:
    found = read(line("GET /a?utm_source=x HTTP/1.1", rest=' "http://b.example/c" "Mozilla/5.0 (X11)"'))
    assert (found.sites, found.instant, found.rejected) == ((SITE,), INSTANT, None)
    assert {
        name: value for name in found.event.__struct_fields__ if (value := getattr(found.event, name)) is not None
    } == {
        "domain": SITE,
        "name": "pageview",
        "url": "https://shop.example/a?utm_source=x",
        "referrer": "http://b.example/c",
        "ip": "198.51.100.77",
        "user_agent": "Mozilla/5.0 (X11)",
    }


PAGEVIEWS = {
    "common": line(rest=""),
    "combined": line(),
    "combined and more": line(rest=' "-" "Mozilla" "cookie" 0.003'),
    "IPv6": line(host="2001:db8::1"),
    "host name": line(host="crawl-66-249.example"),
    "no host": line(host="-"),
    "user with a blank": line(user="- john doe"),
    "user with a bracket": line(user="- [x"),
    "no size": line(size="-"),
    "old request": line("GET /"),
    "HTTP/2": line("GET / HTTP/2"),
    "204": line(status=204),
    "299": line(status=299),
    "304": line(status=304),
    "escaped quote": line(rest=r' "-" "Mozilla \"x\""'),
    "CRLF": line() + "\r\n",
    "a west zone": line(at="17/May/2015:04:05:03 -0600"),
    "a half-hour zone": line(at="17/May/2015:15:35:03 +0530"),
}


@pytest.mark.parametrize("text", PAGEVIEWS.values(), ids=PAGEVIEWS)
def test_pageview(text: str) -> None:
    found = read(text)
    assert (found.instant, found.rejected, found.event.name) == (INSTANT, None, "pageview")
    assert refusal(found.event) is None


REJECTED = {
    "HEAD": (line("HEAD / HTTP/1.1"), Reason.NOT_A_PAGEVIEW),
    "POST": (line("POST / HTTP/1.1"), Reason.NOT_A_PAGEVIEW),
    "get": (line("get / HTTP/1.1"), Reason.NOT_A_PAGEVIEW),
    "OPTIONS *": (line("OPTIONS * HTTP/1.1"), Reason.NOT_A_PAGEVIEW),
    **{
        str(status): (line(status=status), Reason.NOT_A_PAGEVIEW)
        for status in (100, 199, 300, 301, 302, 303, 307, 400, 404, 499, 500)
    },
    "no request": (line("-"), Reason.NOT_A_PAGEVIEW),
    "empty request": (line(""), Reason.NOT_A_PAGEVIEW),
    "a TLS handshake": (line(r"\x16\x03\x01"), Reason.NOT_A_PAGEVIEW),
    "a request with a blank": (line("GET /a b HTTP/1.1"), Reason.NOT_A_PAGEVIEW),
    "nothing": ("", Reason.MALFORMED_LINE),
    "blanks": ("   ", Reason.MALFORMED_LINE),
    "text": ("hello", Reason.MALFORMED_LINE),
    "JSON": ('{"domain": "shop.example"}', Reason.MALFORMED_LINE),
    "half a line": (line()[:60], Reason.MALFORMED_LINE),
    "no status": (line(status="-"), Reason.MALFORMED_LINE),
    "status of 4 digits": (line(status=2000), Reason.MALFORMED_LINE),
    "referrer without agent": (line(rest=' "-"'), Reason.MALFORMED_LINE),
    "an open quote": (line(rest=' "-" "Mozilla'), Reason.MALFORMED_LINE),
    "a bare quote within": (line(rest=' "-" "Moz"illa"'), Reason.MALFORMED_LINE),
    "no such month": (line(at="17/Mai/2015:10:05:03 +0000"), Reason.MALFORMED_LINE),
    "no such day": (line(at="31/Feb/2015:10:05:03 +0000"), Reason.MALFORMED_LINE),
    "no zone": (line(at="17/May/2015:10:05:03"), Reason.MALFORMED_LINE),
    "no such zone": (line(at="17/May/2015:10:05:03 +9900"), Reason.MALFORMED_LINE),
    "the year 10,000 in UTC": (line(at="31/Dec/9999:23:59:59 -0500"), Reason.MALFORMED_LINE),
    "the year 0 in UTC": (line(at="01/Jan/0001:00:00:00 +0500"), Reason.MALFORMED_LINE),
    "binary": (bytes(range(256)).replace(b"\n", b""), Reason.MALFORMED_LINE),
    "10 MB": (line("GET /" + "a" * 10_000_000), Reason.MALFORMED_LINE),
    "NUL in the path": (line("GET /a\0b HTTP/1.1"), Reason.INVALID_URL),
    "path of 2,000": (line(f"GET /{'a' * 2_000} HTTP/1.1"), Reason.URL_TOO_LONG),
    "referrer of 2,001": (line(rest=f' "{"r" * 2_001}" "Mozilla"'), Reason.REFERRER_TOO_LONG),
    "agent of 2,001": (line(rest=f' "-" "{"a" * 2_001}"'), Reason.INVALID_STATED_VALUE),
}


@pytest.mark.parametrize(("text", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejected(text: str | bytes, reason: Reason) -> None:
    found = read(text)
    assert (found.sites, found.event, found.rejected) == ((SITE,), None, reason)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        (line("POST / HTTP/1.1"), INSTANT),
        (line(f"GET /{'a' * 2_000} HTTP/1.1"), INSTANT),
        (line(status="-"), INSTANT),
        (f"x [{TIME}] y", INSTANT),
        (line("GET /" + "a" * 10_000_000), INSTANT),
        (line(at="17/Mai/2015:10:05:03 +0000"), None),
        (line(at="31/Feb/2015:10:05:03 +0000"), None),
        ("hello", None),
    ],
)
def test_a_rejected_line_keeps_its_time_where_it_has_one(text: str, instant: int | None) -> None:
    found = read(text)
    assert found.rejected is not None
    assert found.instant == instant


def test_the_static_extensions_are_those_of_the_design() -> None:
    assert sorted(STATIC_EXTENSIONS) == DESIGN


@pytest.mark.parametrize("extension", DESIGN)
def test_a_static_file_is_no_pageview(extension: str) -> None:
    for name in (extension, extension.upper(), extension.title()):
        for target in (
            f"/a.{name}",
            f"/a.{name}?v=1",
            f"/a.{name}?u=/b",
            f"/b.html/.{name}",
            f"http://c.example/a.{name}",
            f"a.{name}",
        ):
            assert read(line(f"GET {target} HTTP/1.1")).rejected == Reason.NOT_A_PAGEVIEW, target
        for target in (
            f"/{name}",
            f"/a.{name}/",
            f"/a.{name}q",
            f"/p?file=a.{name}",
            f"/a.{name}/index.html",
            f"http://c.{name}",
            f"http://c.{name}?q",
        ):
            assert read(line(f"GET {target} HTTP/1.1")).event, target


@pytest.mark.parametrize(
    ("target", "url"),
    [
        ("/", "https://shop.example/"),
        ("/a/b?c=d&e", "https://shop.example/a/b?c=d&e"),
        ("//a", "https://shop.example//a"),
        ("/a%20b", "https://shop.example/a%20b"),
        ("/ä", "https://shop.example/ä"),
        ("/a#b", "https://shop.example/a#b"),
        ("a", "https://shop.example/a"),
        ("?a", "https://shop.example/?a"),
        ("http://b.example", "https://shop.example/"),
        ("http://b.example/a?c", "https://shop.example/a?c"),
        ("HTTPS://B.EXAMPLE:8443/a", "https://shop.example/a"),
        ("http://b.example?c", "https://shop.example/?c"),
        ("/go?to=http://b.example/a", "https://shop.example/go?to=http://b.example/a"),
        ("/web/http://b.example/a", "https://shop.example/web/http://b.example/a"),
        ("http://b.example/go?to=http://c.example/", "https://shop.example/go?to=http://c.example/"),
    ],
)
def test_url(target: str, url: str) -> None:
    assert read(line(f"GET {target} HTTP/1.1")).event.url == url


@pytest.mark.parametrize(
    ("rest", "referrer", "agent", "bot"),
    [
        (' "-" "-"', None, None, True),
        (' "" ""', None, None, True),
        ("", None, None, None),  # the common format has no agents: that says nothing about bots
        (' "-" "Mozilla"', None, "Mozilla", None),
        (' "http://b/" "Moz \\"x\\" y"', "http://b/", 'Moz "x" y', None),
        (r' "-" "back\\slash"', None, r"back\slash", None),
        (r' "-" "both\\\"of"', None, r"both\"of", None),
        (r' "-" "ends\\"', None, "ends\\", None),
        (' "a\0b" "Moz\0illa"', "ab", "Mozilla", None),
        (' "-" "Mozillä"', None, "Mozillä", None),
        (f' "-" "{"a" * 2_000}"', None, "a" * 2_000, None),
    ],
)
def test_referrer_agent_and_bot(rest: str, referrer: str | None, agent: str | None, bot: bool | None) -> None:
    event = read(line(rest=rest)).event
    assert (event.referrer, event.user_agent, event.bot) == (referrer, agent, bot)


def test_invalid_utf8_is_replaced() -> None:
    event = read(line(rest=' "-" "Moz@"').encode().replace(b"@", b"\xff")).event
    assert event.user_agent == "Moz\ufffd"


@pytest.mark.parametrize(
    "text",
    [
        "a - -" + " [" * 150_000,
        "[" * 300_000,
        "a b " + "[" * 300_000,
        "a b " + '[x] "' * 60_000,
        "a b [x] " + '"' + "\\" * 300_001,
        "a " * 150_000,
        'a b [x] "' + "\\a" * 150_000,
    ],
)
def test_a_line_made_to_be_slow_is_not(text: str) -> None:
    began = time.process_time()
    assert read(text).rejected == Reason.MALFORMED_LINE
    assert time.process_time() - began < 1


@given(st.binary(max_size=200), st.integers(0, 120), st.text(st.characters(codec="utf-8"), max_size=5))
def test_any_line_is_a_pageview_that_is_accepted_or_has_a_reason(noise: bytes, at: int, inserted: str) -> None:
    whole = line()
    for text in (noise, (whole[:at] + inserted + whole[at:]).encode()):
        found = read(text)
        assert (found.event is None) == (found.rejected is not None)
        assert found.event is None or (refusal(found.event) is None and found.instant is not None)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-23 * 60, 23 * 60))
def test_any_time_is_read(moment: datetime, minutes: int) -> None:
    sign, hours, rest = "-" if minutes < 0 else "+", *divmod(abs(minutes), 60)
    month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][moment.month - 1]
    at = f"{moment.day:02}/{month}/{moment.year:04}:{moment:%H:%M:%S} {sign}{hours:02}{rest:02}"
    iso = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}{sign}{hours:02}:{rest:02}"
    assert re.search(r"\d{4}", iso)
    assert read(line(at=at)).instant == from_datetime(datetime.fromisoformat(iso))
