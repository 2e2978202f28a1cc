"""Imports: what becomes of a file, whatever it holds; and that nothing is done by halves, or twice."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from ingestion import importer
from ingestion.event import RawLine, Reason, decode, refusal
from ingestion.files import ImportRefused, no_progress
from ingestion.importer import import_events
from ingestion.lake import LakeFailed
from ingestion.ledger import Ledger
from ingestion.settings import Settings, from_environment
from ingestion.site_time import from_datetime
from ingestion.stores import open_stores

NOW = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
ROOT = Path(importer.__file__).parents[1]


def logged(path: str = "/", at: str = "10:05:03", *, host: str = "198.51.100.77", day: str = "17/May/2015") -> str:
    return f'{host} - - [{day}:{at} +0000] "GET {path} HTTP/1.1" 200 12 "-" "Mozilla"'


def hours(raw: list[dict[str, Any]]) -> list[str]:
    return [one["hour"] for one in raw]


# What is kept


def test_an_access_log_is_kept_by_hour(imports: Any) -> None:
    done = imports.log([logged("/a", "10:59:59"), logged("/b", "11:00:00"), logged("/c", "10:00:00"), logged("/x.css")])
    assert (done.lines, done.accepted, done.rejected) == (4, 3, Counter({"not_a_pageview": 1}))
    assert (done.first_hour, done.last_hour) == (
        datetime(2015, 5, 17, 10, tzinfo=UTC),
        datetime(2015, 5, 17, 11, tzinfo=UTC),
    )
    assert [(one["hour"], one["line"], one.get("url")) for one in imports.raw()] == [
        ("2015-05-17T10", 1, "https://shop.example/a"),
        ("2015-05-17T10", 3, "https://shop.example/c"),
        ("2015-05-17T10", 4, None),
        ("2015-05-17T11", 2, "https://shop.example/b"),
    ]
    assert imports.query("select kind, site, lines from footfall.imports") == [("access-log", "shop.example", 4)]
    assert imports.query("select site, time_zone from footfall.sites") == [("shop.example", "UTC")]


def test_an_event_is_kept_as_it_was_stated(imports: Any, event: Callable[..., Any]) -> None:
    stated = event(
        name="order", props={"k": "v", "n": 2**64}, revenue={"currency": "EUR", "amount": "12.90"}, interactive=False,
        scroll_depth=50.0, engagement_time=1500.0, screen_width=1920.0, language="de", title="Täler", visitor_id="v", user_id="u",
        event_id="0189f7a5-8d5c-7cc0-a3a5-0123456789ab", referrer="https://b.example/", user_agent="Mozilla", country="DE",
        region="BY", city="Fürth", browser="Firefox", browser_version="1", os="Linux", os_version="6", device="Desktop", source="s",
        channel="c", utm_source="1", utm_medium="2", utm_campaign="3", utm_content="4", utm_term="5", bot=False,
    )  # fmt: skip
    imports.events([stated])
    (raw,) = imports.raw()
    name = raw.pop("object")
    instant = from_datetime(datetime.fromisoformat(stated["timestamp"]))
    assert raw == stated | {"timestamp": instant, "line": 1, "hour": "2015-05-17T10"}
    assert name.startswith("raw/hour=2015-05-17T10/import-")
    assert name.endswith("-0001.ndjson.zst")


def test_good_lines_beside_bad_ones_are_kept(imports: Any, event: Callable[..., Any]) -> None:
    bad: dict[bytes, str] = {
        b"{": "malformed_json",
        b'{"domain": "shop.example", "name": "x", "url": "https://x/", "title": "\xff"}': "invalid_utf8",
        b"[1]": "not_an_object",
        b'{"x":' + b"[" * 100_000: "nested_too_deep",
        json.dumps(event(title="x" * 10_000_000)).encode(): "line_too_long",
        json.dumps(event(name="a\0b")).encode(): "invalid_name",
        json.dumps(event(timestamp=2**64)).encode(): "invalid_timestamp",
        rb'{"domain": "shop.example", "name": "\ud800", "url": "https://x/"}': "malformed_json",
    }
    lines = [event(url="https://shop.example/first"), *bad, event(url="https://shop.example/last")]
    done = imports.events(lines)
    assert (done.lines, done.accepted, done.rejected) == (10, 2, Counter(bad.values()))
    raw = imports.raw()
    assert [one.get("rejected") for one in raw] == [None, *bad.values(), None]
    assert [one["line"] for one in raw] == list(range(1, 11))
    assert [one["url"] for one in (raw[0], raw[-1])] == ["https://shop.example/first", "https://shop.example/last"]
    assert len(imports.unpacked(raw[0]["object"])) < 5_000, (
        "of a rejected line nothing is kept but reason, time and number"
    )


def test_a_10_mb_line_of_a_log_stands_beside_good_ones(imports: Any) -> None:
    done = imports.log([logged("/a"), logged("/" + "x" * 10_000_000), logged("/b")])
    assert (done.accepted, done.rejected) == (2, Counter({"malformed_line": 1}))
    assert [one["line"] for one in imports.raw()] == [1, 2, 3]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_of_the_greatest_length_is_accepted(imports: Any, event: Callable[..., Any], end: str) -> None:
    longest = json.dumps(event()).ljust(1_000_000)
    done = imports.events((longest + end).encode())
    assert (done.accepted, done.rejected) == (1, Counter())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_one_byte_longer_is_not(imports: Any, event: Callable[..., Any], end: str) -> None:
    done = imports.events([json.dumps(event()), (json.dumps(event()).ljust(1_000_001) + end).rstrip("\n")])
    assert (done.accepted, done.rejected) == (1, Counter({"line_too_long": 1}))


def variants() -> dict[str, bytes]:
    text = "\n".join([logged("/a"), logged("/b"), logged("/b"), logged("/c", "11:00:00")])
    return {
        "no final newline": text.encode(),
        "final newline": text.encode() + b"\n",
        "CRLF": text.replace("\n", "\r\n").encode() + b"\r\n",
        "UTF-8 BOM": b"\xef\xbb\xbf" + text.encode(),
        "gzip": gzip.compress(text.encode()),
        "gzip in two parts": gzip.compress(text[:200].encode()) + gzip.compress(text[200:].encode()),
        "gzip, padded": gzip.compress(text.encode()) + b"\0" * 512,
    }


def test_the_same_lines_are_the_same_events_however_they_are_wrapped(imports: Any) -> None:
    seen = set()
    for name, content in variants().items():
        done = imports.log(content, name=name)
        if done.lines:
            assert (done.accepted, done.rejected) == (4, Counter()), name
        seen = {(one["event_id"], one["url"], one["ip"]) for one in imports.raw()}
        assert len(seen) == 4, name
    assert {address for _, _, address in seen} == {"198.51.100.0"}


def test_a_bom_does_not_spoil_the_first_event(imports: Any, event: Callable[..., Any]) -> None:
    done = imports.events(b"\xef\xbb\xbf" + json.dumps(event()).encode())
    assert (done.accepted, done.rejected) == (1, Counter())


def test_blank_lines_of_ndjson_are_no_lines_and_are_counted_in_numbers(imports: Any, event: Callable[..., Any]) -> None:
    assert imports.events(["", event(), " ", "\r", event(name="x")]).lines == 2
    assert [one["line"] for one in imports.raw()] == [2, 5]


def test_a_log_without_agents_is_not_all_bots(imports: Any) -> None:
    imports.log([logged().removesuffix(' "-" "Mozilla"'), logged().replace("Mozilla", "-")])
    assert [one.get("bot") for one in imports.raw()] == [None, True]


# Hours


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["?", "10", "?", "11", "?", "?"], ["10", "10", "10", "11", "11", "11"]),
        (["?", "?", "12", "10", "?"], ["10", "10", "12", "12", "12"]),
        (["11", "post 12", "?", "10"], ["10", "11", "12", "12"]),
        (["post 12"], ["12"]),
    ],
)
def test_a_line_without_a_time_takes_the_hour_of_the_line_before(
    imports: Any, lines: list[str], wanted: list[str]
) -> None:
    content = []
    for line in lines:
        text = logged(at=f"{line.removeprefix('post ')}:30:00")
        content.append("nonsense" if line == "?" else text.replace("GET", "POST") if "post" in line else text)
    assert imports.log(content).lines == len(lines)
    raw = imports.raw()
    assert hours(raw) == [f"2015-05-17T{hour}" for hour in wanted]
    assert all(one["timestamp"] % 3_600_000 == 0 for one in raw if "rejected" in one)


def test_a_rejected_line_of_a_strange_time_takes_the_hour_of_the_line_before(imports: Any) -> None:
    imports.log([logged(at="10:00:00"), logged("/x.css", day="01/Jan/1999"), logged("/x.css", day="01/Jan/2999")])
    assert hours(imports.raw()) == ["2015-05-17T10"] * 3


def test_an_event_without_a_time_is_of_now(imports: Any, event: Callable[..., Any]) -> None:
    imports.events([event(timestamp=None)])
    (raw,) = imports.raw()
    assert (raw["hour"], raw["timestamp"]) == ("2026-11-22T13", from_datetime(NOW))


def test_the_first_hour_of_1970_is_an_hour(
    imports: Any, event: Callable[..., Any], database: str, tmp_path: Path
) -> None:
    start = {"FOOTFALL_HOME": str(tmp_path), "FOOTFALL_START": "1970-01-01", "FOOTFALL_POSTGRES": database}
    with open_stores(from_environment(start)) as stores:
        imports.stores = stores
        imports.events([event(timestamp="1970-01-01T05:00:00Z"), event(timestamp=0)])
        assert [(one["hour"], one["timestamp"]) for one in imports.raw()] == [
            ("1970-01-01T00", 0),
            ("1970-01-01T05", 18_000_000),
        ]


# Sites


def test_an_event_of_several_sites_counts_for_each(imports: Any, event: Callable[..., Any]) -> None:
    done = imports.events(
        [event(domain="b.example, A.example,b.example"), event(domain="a.example,c.example", name="")]
    )
    assert (done.lines, done.accepted, done.rejected) == (4, 2, Counter({"missing_name": 2}))
    raw = imports.raw()
    assert [(one["domain"], one["line"], one.get("rejected")) for one in raw] == [
        ("b.example", 1, None),
        ("a.example", 1, None),
        ("a.example", 2, "missing_name"),
        ("c.example", 2, "missing_name"),
    ]
    assert raw[0]["event_id"] != raw[1]["event_id"]
    assert list(imports.stores.ledger.time_zones()) == ["a.example", "b.example"], "a rejected line adds no site"


def test_a_line_that_names_no_site_is_rejected_once(imports: Any, event: Callable[..., Any]) -> None:
    imports.events([event(), "{"])
    assert imports.raw()[1]["domain"] == "(none)"


def test_a_site_that_is_there_keeps_its_zone(imports: Any) -> None:
    imports.stores.ledger.add_site("shop.example", "Asia/Kathmandu")
    imports.log([logged()])
    assert imports.stores.ledger.time_zones() == {"shop.example": "Asia/Kathmandu"}


# Repeats


def test_exact_repeats_in_a_file_are_true_repeats(imports: Any, event: Callable[..., Any]) -> None:
    imports.log([logged()] * 3)
    assert len({one["event_id"] for one in imports.raw()}) == 3
    imports.events([event(), event(name="x"), event()], name="events")
    assert len({one["event_id"] for one in imports.raw()}) == 6


def test_a_supplied_id_is_kept_also_in_repeats(imports: Any, event: Callable[..., Any]) -> None:
    known = "0189f7a5-8d5c-7cc0-a3a5-0123456789ab"
    imports.events([event(event_id=known)] * 2)
    assert [one["event_id"] for one in imports.raw()] == [known] * 2


def test_overlapping_files_do_not_count_twice(imports: Any) -> None:
    lines = [logged(f"/{n}", f"10:{n:02}:00") for n in range(10)]
    twice = [*lines[:6], lines[5], *lines[6:]]
    imports.log(twice[:8], name="first")
    imports.log(twice[4:], name="second")
    imports.log(twice, name="all")
    urls = Counter(one["url"] for one in {one["event_id"]: one for one in imports.raw()}.values())
    assert urls == Counter({f"https://shop.example/{n}": 1 + (n == 5) for n in range(10)})
    assert len(imports.raw()) == 8 + 7 + 11


def test_a_log_for_another_site_is_another_import(imports: Any) -> None:
    assert [imports.log([logged()], site=site).lines for site in ("a.example", "b.example", "a.example")] == [1, 1, 0]
    assert len({one["event_id"] for one in imports.raw()}) == 2


@pytest.mark.parametrize("kind", ["log", "events"])
def test_the_same_content_again_changes_nothing(
    imports: Any, event: Callable[..., Any], gzipped: Callable[[bytes], bytes], kind: str
) -> None:
    file = imports.file([logged(), "bad", logged()] if kind == "log" else [event(), "bad", event()])
    once = getattr(imports, kind)
    assert once(file).lines == 3
    before = imports.everything()
    assert len(before["lake"]) == 1
    content = file.read_bytes()
    renamed, packed = imports.file(content, "renamed.log"), imports.file(gzipped(content), "packed")
    for again in (file, renamed, packed):
        done = once(again, now=NOW + timedelta(days=1))
        assert (done.lines, done.accepted, done.rejected.total(), done.first_hour) == (0, 0, 0, None)
        assert imports.everything() == before


def test_two_imports_of_one_file_at_once_are_one(imports: Any, settings: Settings) -> None:
    file = imports.file([logged(f"/{n}", f"{n % 24:02}:00:00") for n in range(500)])
    together, lines = threading.Barrier(3), []

    def once() -> None:
        with open_stores(settings) as stores:
            together.wait()
            lines.append(
                importer.import_access_log(
                    file, "shop.example", settings, stores.ledger, stores.lake, NOW, no_progress
                ).lines
            )

    threads = [threading.Thread(target=once) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(lines) == [0, 0, 500]
    assert Counter(one["url"] for one in imports.raw()) == Counter(f"https://shop.example/{n}" for n in range(500))
    assert imports.stores.ledger.listed_objects() == imports.objects()


# The whole file or nothing


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        (
            "2014-12-31T23:59:59.999Z",
            ["line 3", "2014-12-31T23:59:59", "before FOOTFALL_START (2015-01-01", "FOOTFALL_START=2014-12-31"],
        ),
        ("1969-07-20T20:17:40Z", ["line 3", "1969-07-20", "FOOTFALL_START=1969-07-20"]),
        ("0001-01-01", ["line 3", "0001-01-01", "FOOTFALL_START=0001-01-01"]),
        (0, ["line 3", "1970-01-01", "FOOTFALL_START=1970-01-01"]),
        (
            "2026-11-22T13:31:00.001Z",
            ["line 3", "2026-11-22T13:31:00", "in the future", "2026-11-22T13:30:00", "FOOTFALL_START"],
        ),
        ("9999-12-31T23:59:59.999Z", ["line 3", "9999-12-31", "in the future"]),
        (253_402_300_799_999, ["line 3", "9999-12-31T23:59:59.999", "in the future"]),
    ],
)
def test_one_event_of_a_wrong_time_refuses_the_whole_file(
    imports: Any, event: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, moment: object, says: list[str]
) -> None:
    monkeypatch.setattr(importer, "BUFFERED_BYTES", 1)  # so that objects are written before the bad line comes
    file = imports.file([event(), event(), event(timestamp=moment), event()])
    with pytest.raises(ImportRefused) as refused:
        imports.events(file)
    assert [part for part in [*says, str(file), "nothing was imported"] if part not in str(refused.value)] == []
    assert imports.nothing_imported()


def test_the_bounds_of_time_are_exact(imports: Any, event: Callable[..., Any]) -> None:
    assert imports.events([event(timestamp="2015-01-01"), event(timestamp="2026-11-22T13:31:00Z")]).accepted == 2
    assert hours(imports.raw()) == ["2015-01-01T00", "2026-11-22T13"]


def test_an_old_log_refuses_the_whole_file(imports: Any) -> None:
    with pytest.raises(
        ImportRefused, match=r"line 2 of .* is of 1999-05-17T10:05:03.*set FOOTFALL_START=1999-05-17 or earlier"
    ):
        imports.log([logged(), logged(day="17/May/1999")])
    assert imports.nothing_imported()


def test_a_refused_file_can_be_imported_when_it_is_mended(imports: Any, event: Callable[..., Any]) -> None:
    with pytest.raises(ImportRefused):
        imports.events([event(), event(timestamp=0)])
    assert imports.events([event()]).lines == 1


DAMAGED = {
    "empty": (b"", "is empty"),
    "empty gzip": (gzip.compress(b""), "is empty"),
    "blank": (b"\n \r\n\n", "no line of"),
    "text": (b"Dear diary,\nno event today.\n", "no line of"),
    "binary": (random.Random(3).randbytes(100_000), "no line of"),
    "NUL": (b"\0" * 100_000, "no line of"),
    "UTF-16": (logged().encode("utf-16"), "no line of"),
    "zip": (b"PK\3\4" + random.Random(3).randbytes(1_000), "no line of"),
    "gzip cut short": (gzip.compress(random.Random(3).randbytes(10_000))[:5_000], "damaged gzip file"),
    "gzip cut after its magic": (b"\x1f\x8b", "damaged gzip file"),
    "gzip with a wrong sum": (gzip.compress(logged().encode())[:-8] + b"\0" * 8, "damaged gzip file"),
    "gzip with a broken middle": (gzip.compress(logged().encode())[:12] + b"\xff" * 40, "damaged gzip file"),
    "gzip and then garbage": (gzip.compress(logged().encode()) + b"garbage", "damaged gzip file"),
}


@pytest.mark.parametrize("kind", ["log", "events"])
@pytest.mark.parametrize(("content", "says"), DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_cannot_be_imported_says_why(imports: Any, kind: str, content: bytes, says: str) -> None:
    file = imports.file(content)
    with pytest.raises(ImportRefused) as refused:
        getattr(imports, kind)(file)
    assert says in str(refused.value)
    assert str(file) in str(refused.value)
    assert str(refused.value).endswith("nothing was imported")
    assert imports.nothing_imported()


@pytest.mark.parametrize(
    ("path", "says"),
    [("missing", "No such file or directory"), (".", "Is a directory"), ("x" * 300, "File name too long")],
)
def test_a_path_that_is_no_file_says_why(imports: Any, path: str, says: str) -> None:
    with pytest.raises(ImportRefused, match=f"cannot be read: {says}; nothing was imported"):
        imports.log(imports.folder / path)
    assert imports.nothing_imported()


# Large files


def test_a_file_larger_than_the_buffer_becomes_several_objects_of_the_same_events(
    imports: Any,
    event: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    new_database: Callable[..., str],
    migrated: str,
    tmp_path: Path,
) -> None:
    content = [event(url=f"https://shop.example/{n}", timestamp=f"2015-05-17T{n % 3:02}:00:00Z") for n in range(300)]
    monkeypatch.setattr(importer, "BUFFERED_BYTES", 4_000)
    assert imports.events(content).lines == 300
    raw = imports.raw()
    assert sorted(one["line"] for one in raw) == list(range(1, 301))
    for hour in ("2015-05-17T00", "2015-05-17T01", "2015-05-17T02"):
        mine = [one for one in raw if one["hour"] == hour]
        assert [one["line"] for one in mine] == sorted(one["line"] for one in mine), (
            "objects and lines are in the file's order"
        )
        assert [one["line"] % 3 for one in mine] == [(int(hour[-2:]) + 1) % 3] * 100
        names = list(dict.fromkeys(one["object"] for one in mine))
        assert len(names) > 5
        assert [name[-15:] for name in names] == [f"{n:04}.ndjson.zst" for n in range(1, len(names) + 1)]
    listed = imports.query("select name, lines, bytes, digest from footfall.raw_objects")
    for name, lines, size, digest in listed:
        packed = imports.stores.lake.get(name)
        assert (lines, size) == (imports.unpacked(name).count(b"\n"), len(packed))
        assert digest == hashlib.blake2b(packed, digest_size=16).hexdigest()


def test_progress_grows_to_the_whole_file(
    imports: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, gzipped: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr("ingestion.files.LINES_A_REPORT", 100)
    noise = random.Random(5)
    content = "\n".join(logged(f"/{noise.random()}") for _ in range(10_000)).encode()
    for file in (imports.file(content), imports.file(gzipped(content + b"\n"), "packed")):
        seen: list[tuple[int, int]] = []
        importer.import_access_log(
            file,
            "shop.example",
            settings,
            imports.stores.ledger,
            imports.stores.lake,
            NOW,
            lambda done, total: seen.append((done, total)),
        )
        assert len(seen) == 101
        assert seen == sorted(seen)
        assert seen[-1] == (file.stat().st_size, file.stat().st_size)
        assert seen[50][0] < file.stat().st_size


# What breaks in the middle

SLOW_IMPORT = """
import sys, time
from datetime import datetime, UTC
from pathlib import Path
from ingestion import files, importer
from ingestion.settings import from_environment
from ingestion.stores import open_stores
files.LINES_A_REPORT, importer.BUFFERED_BYTES = 10, 2_000
settings = from_environment()
with open_stores(settings) as stores:
    importer.import_events(Path(sys.argv[1]), settings, stores.ledger, stores.lake, datetime(2026, 11, 22, tzinfo=UTC), lambda *_: time.sleep(0.1))
"""


def test_a_killed_import_leaves_nothing_to_see_and_the_next_one_is_whole(
    imports: Any, event: Callable[..., Any], settings: Settings
) -> None:
    content = [
        event(url=f"https://shop.example/{n % 70}", timestamp=f"2015-05-17T{n % 2:02}:00:00Z") for n in range(1_000)
    ]
    file = imports.file(content)
    environment = os.environ | {
        "FOOTFALL_HOME": str(settings.home), "FOOTFALL_START": "2015-01-01", "FOOTFALL_POSTGRES": settings.postgres
    }  # fmt: skip
    slow = subprocess.Popen([sys.executable, "-c", SLOW_IMPORT, str(file)], env=environment, cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while len(imports.objects()) < 4 and time.monotonic() < until and slow.poll() is None:
            time.sleep(0.02)
    finally:
        slow.send_signal(signal.SIGKILL)
        assert slow.wait() == -signal.SIGKILL
    orphans = imports.objects()
    assert len(orphans) >= 4
    assert imports.stores.ledger.listed_objects() == set(), "what it wrote is invisible"

    assert imports.events(file).lines == 1_000
    assert Counter(one["url"] for one in imports.raw()) == Counter(
        f"https://shop.example/{n % 70}" for n in range(1_000)
    )
    assert sorted(one["line"] for one in imports.raw()) == list(range(1, 1_001))
    assert len({one["event_id"] for one in imports.raw()}) == 1_000
    salts = {one["visitor_hash"] for one in imports.raw()}
    assert len(salts) == 1, "nothing of the killed import's salts is left"
    assert imports.events(file).lines == 0


def test_an_interrupted_import_removes_what_it_wrote(
    imports: Any, event: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BUFFERED_BYTES", 1_000)
    monkeypatch.setattr("ingestion.files.LINES_A_REPORT", 50)
    written = []

    def interrupted(done: int, total: int) -> None:
        written.extend(imports.objects())
        raise KeyboardInterrupt

    file = imports.file([event(name=str(n)) for n in range(100)])
    with pytest.raises(KeyboardInterrupt):
        import_events(file, settings, imports.stores.ledger, imports.stores.lake, NOW, interrupted)
    assert written
    assert imports.nothing_imported()
    assert imports.events(file).lines == 100, "and gave up its lock"


def test_ctrl_c_right_after_the_commit_removes_nothing_that_is_listed(
    imports: Any, event: Callable[..., Any], settings: Settings
) -> None:
    class Interrupted(Ledger):
        def list_import(self, *arguments: Any) -> None:
            super().list_import(*arguments)
            raise KeyboardInterrupt

    file = imports.file([event()])
    with Interrupted(settings.postgres) as ledger, pytest.raises(KeyboardInterrupt):
        import_events(file, settings, ledger, imports.stores.lake, NOW, no_progress)
    assert len(imports.raw()) == 1, "the listed object is there"
    assert imports.events(file).lines == 0


def test_a_ledger_that_is_lost_in_the_middle_leaves_nothing_to_see(
    imports: Any, event: Callable[..., Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.files.LINES_A_REPORT", 50)
    file = imports.file([event(name=str(n)) for n in range(100)])

    def lose(done: int, total: int) -> None:
        imports.query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )

    with Ledger(settings.postgres) as ledger, pytest.raises(Exception, match="connection"):
        import_events(file, settings, ledger, imports.stores.lake, NOW, lose)
    with open_stores(settings) as stores:
        assert stores.ledger.listed_objects() == set()
        imports.stores = stores
        assert imports.events(file).lines == 100
        assert len(imports.raw()) == 100


def test_a_lake_that_is_full_of_something_else_refuses_and_lists_nothing(
    imports: Any, event: Callable[..., Any], settings: Settings
) -> None:
    (settings.home / "lake" / "raw").write_text("in the way")
    with pytest.raises(LakeFailed, match=r"could not write raw/hour=2015-05-17T10/import-.* to file://"):
        imports.events([event()])
    assert imports.stores.ledger.listed_objects() == set()
    assert imports.query("select from footfall.imports") == []


# Without permission

IMPORT = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from ingestion.files import ImportRefused, no_progress
from ingestion.importer import import_access_log
from ingestion.lake import LakeFailed
from ingestion.postgres import PostgresFailed
from ingestion.settings import from_environment
from ingestion.stores import open_stores
try:
    settings = from_environment({"FOOTFALL_HOME": sys.argv[1], "FOOTFALL_START": "2015-01-01"})
    with open_stores(settings) as stores:
        import_access_log(Path(sys.argv[2]), "shop.example", settings, stores.ledger, stores.lake, datetime.now(UTC), no_progress)
except (ImportRefused, LakeFailed, PostgresFailed) as problem:
    print(type(problem).__name__, problem)
"""
READ = """
import sys
from pathlib import Path
from ingestion.files import ImportRefused, numbered_lines
try:
    list(numbered_lines(Path(sys.argv[1])))
except ImportRefused as problem:
    print("ImportRefused", problem)
"""


def test_a_file_without_read_permission_says_so(open_folder: Path, as_nobody: Callable[..., str]) -> None:
    file = open_folder / "access.log"
    file.write_text(logged())
    file.chmod(0)
    assert as_nobody(READ, file) == f"ImportRefused {file} cannot be read: Permission denied; nothing was imported\n"


def test_a_home_without_write_permission_says_so(open_folder: Path, as_nobody: Callable[..., str]) -> None:
    log, home = open_folder / "access.log", open_folder / "home"
    log.write_text(logged())
    home.mkdir()
    home.chmod(0o555)
    said = as_nobody(IMPORT, home, log)
    assert said.startswith(f"PostgresFailed The embedded PostgreSQL cannot use {home}")
    assert "Permission denied" in said
    assert "FOOTFALL_HOME" in said
    assert list(home.iterdir()) == []


# What holds for any lines

WORDS = st.text(max_size=12) | st.sampled_from(
    ["a" * 2_001, "é" * 2_000, "\0", "\0" * 3, "x\0", "", " ", "\u2028", '"\\', "https://x.example/\0"]
)
ODD = st.fixed_dictionaries(
    {"domain": st.sampled_from(["shop.example", "a.example,B.example"]), "name": st.sampled_from(["pageview", "engagement"]) | WORDS, "url": st.sampled_from(["https://shop.example/", "https://x/" + "é" * 990]) | WORDS, "timestamp": st.sampled_from([1_431_857_103_000, "2015-05-17T10:05:03.250+05:45"])},
    optional={"referrer": WORDS, "title": WORDS, "visitor_id": WORDS, "user_id": WORDS, "user_agent": WORDS, "ip": WORDS | st.ip_addresses().map(str), "country": WORDS, "props": st.dictionaries(WORDS, WORDS | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=3), "revenue": st.just({"currency": "EUR", "amount": 0.1}) | st.just({"currency": "EUR\n", "amount": "1"}), "scroll_depth": st.floats(-1, 101), "event_id": st.uuids().map(str)},
)  # fmt: skip


@tries(max_examples=40)
@given(st.lists(ODD, min_size=1, max_size=8))
def test_what_an_import_accepts_is_accepted_when_it_is_read_again(imports: Any, lines: list[dict[str, Any]]) -> None:
    name = f"file {time.monotonic_ns()}"
    known = {one["object"] for one in imports.raw()}
    try:
        done = imports.events(
            [*lines, name, json.dumps({"domain": "x", "name": "", "timestamp": 1_431_857_103_000})], name=name
        )
    finally:
        (imports.folder / name).unlink()
    kept = [json.loads(text) for item in new_objects(imports, known) for text in imports.unpacked(item).splitlines()]
    assert (len(kept), sum("rejected" not in one for one in kept)) == (done.lines, done.accepted)
    for one in kept:
        if "rejected" in one:
            assert set(one) == {"rejected", "domain", "timestamp", "line"}
            assert one["rejected"] in set(Reason)
        else:
            assert refusal(decode(json.dumps(one).encode(), RawLine)) is None


def new_objects(imports: Any, known: set[str]) -> list[str]:
    return [name for (name,) in imports.query("select name from footfall.raw_objects") if name not in known]
