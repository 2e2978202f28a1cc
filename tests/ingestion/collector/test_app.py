"""The collector as people run it: `footfall collector`, a real HTTP server on a real PostgreSQL. 202 means that it is kept."""

import asyncio
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from ingestion.collector.app import make_app
from ingestion.event import Reason
from ingestion.ledger import Ledger
from ingestion.postgres import running_postgres, stop_postgres
from ingestion.settings import from_environment
from tests.ingestion.test_event import REFUSED
from tests.services.servers import free_port

FOOTFALL = str(Path(sys.executable).parent / "footfall")
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SITE = "shop.example"
NAMES = (f"event-{number}" for number in count())

SIGNAL_MISSED = "[WARNING] Killing worker-1 after it refused to gracefully stop\n"
"""Granian's worker now and then waits on when two signals come at once; it has answered all that came by then."""


def event(**fields: Any) -> dict[str, Any]:
    return {"domain": SITE, "name": "pageview", "url": "https://shop.example/a"} | fields


@dataclass(frozen=True)
class Answer:
    status: int
    content: Any
    headers: dict[str, str]


@dataclass(frozen=True)
class Collector:
    """A running collector, the database that it uses, and what it has logged."""

    port: int
    database: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read all
                connection.request(method, path, body, {"User-Agent": AGENT} | (headers or {}))
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return Answer(answer.status, json.loads(text) if is_json else text.decode(), dict(answer.getheaders()))
        finally:
            connection.close()

    def send(self, content: Any, **headers: str) -> Answer:
        """Posts some bytes, or something as JSON, as the trackers do: as text/plain."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", "/api/event", body, {"Content-Type": "text/plain"} | named)

    def kept(self, name: str | None = None) -> list[dict[str, Any]]:
        """The events in the event log: all, or those of a name."""
        events = map(json.loads, lines_in_log(self.database))
        return [found for found in events if name in (None, found["name"])]

    def add_site(self, site: str, time_zone: str = "UTC") -> None:
        with psycopg.connect(self.database) as connection:
            connection.execute("insert into footfall.sites (site, time_zone) values (%s, %s)", [site, time_zone])


@contextmanager
def running(home: Path, database: str | None, **settings: str) -> Iterator[Collector]:
    """`footfall collector`, from when it is healthy. Without a database it uses the embedded one of its home."""
    port, log = free_port(), home.with_name(f"{home.name}-{next(NAMES)}.log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOOTFALL_")} | settings
    environment |= {"FOOTFALL_HOME": str(home), "FOOTFALL_COLLECTOR": f"127.0.0.1:{port}"}
    with ExitStack() as stack:
        url = database or stack.enter_context(running_postgres(home))
        if database:
            environment["FOOTFALL_POSTGRES"] = database
        process = subprocess.Popen(
            [FOOTFALL, "collector"], env=environment, stdout=stack.enter_context(log.open("wb")), stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        collector = Collector(port, url, process, log)
        try:
            wait_until(lambda: status_of(lambda: collector.ask("GET", "/health")) == 200, 60)
            yield collector
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def lines_in_log(database: str) -> list[bytes]:
    with psycopg.connect(database) as connection:
        records = connection.execute("select lines from footfall.event_log order by log_offset").fetchall()
    return [line for (lines,) in records for line in lines.split(b"\n")]


def status_of(ask: Callable[[], Answer]) -> int | None:
    """The answer's status; None where there was no answer."""
    try:
        return ask().status
    except (OSError, HTTPException):
        return None


def wait_until(holds: Callable[[], bool], seconds: float = 15) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def collectors(
    postgres_url: str, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Collector, Collector]]:
    """Two collectors on one database: as it comes, and one that takes any site and believes no proxy."""
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(f"create database collectors template {migrated}")
    home, url = tmp_path_factory.mktemp("collectors") / "home", postgres_url.replace("/footfall?", "/collectors?")
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("insert into footfall.sites (site, time_zone) values (%s, 'Europe/Berlin')", [SITE])
    with (
        running(home, url) as first,
        running(home, url, FOOTFALL_ANY_SITE="yes", FOOTFALL_TRUSTED_PROXIES="") as second,
    ):
        yield first, second
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("drop database collectors with (force)")


@pytest.fixture
def collector(collectors: tuple[Collector, Collector]) -> Collector:
    return collectors[0]


def test_202_means_that_the_event_log_has_it(collector: Collector) -> None:
    for name in (next(NAMES) for _ in range(10)):
        assert collector.send(event(name=name)).status == 202
        (kept,) = collector.kept(name)
        assert kept["domain"] == SITE and kept["ip"] == "127.0.0.0" and kept["user_agent"] == AGENT
        assert abs(kept["timestamp"] - time.time() * 1000) < 60_000
        assert re.fullmatch("[0-9a-f]{16}", kept["visitor_hash"])


def test_of_many_at_once_each_is_kept_once(collector: Collector) -> None:
    name, missing = next(NAMES), []

    def send(_: int) -> None:
        for _ in range(10):
            sent = str(uuid4())
            assert collector.send(event(name=name, event_id=sent)).status == 202
            if sent not in {found["event_id"] for found in collector.kept(name)}:
                missing.append(sent)

    in_threads(8, send)
    assert missing == []
    assert len(collector.kept(name)) == len({found["event_id"] for found in collector.kept(name)}) == 80


def in_threads(number: int, work: Callable[[int], None]) -> None:
    problems: list[BaseException] = []

    def guarded(index: int) -> None:
        try:
            work(index)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=guarded, args=[index]) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]


def test_of_an_array_what_is_good_is_kept_and_the_rest_named(collector: Collector) -> None:
    name = next(NAMES)
    assert collector.send([event(name=name), event(name=name)]).content == {"accepted": 2}
    answer = collector.send([event(name=name), event(url=None), 7, event(name=name, domain="nobody.example")])
    assert (answer.status, answer.content) == (
        400,
        {
            "accepted": 1,
            "refused": [
                {"index": 1, "reason": "missing_url"},
                {"index": 2, "reason": "not_an_object"},
                {"index": 3, "reason": "unknown_site"},
            ],
        },
    )
    assert len(collector.kept(name)) == 3


def test_short_names_and_several_sites_as_the_plausible_trackers_send(collector: Collector) -> None:
    name = next(NAMES)
    sent = {"d": f"{SITE},{SITE}", "n": name, "u": "https://shop.example/", "r": None, "p": {"plan": "a"}}
    assert collector.send(sent).status == 202
    (kept,) = collector.kept(name)
    assert (kept["domain"], kept["url"], kept["props"]) == (SITE, "https://shop.example/", {"plan": "a"})


AT_THE_DOOR = {
    "array": "no_events",
    "array 100,000 deep": "nested_too_deep",
    "1,000,001 bytes": "body_too_large",
    "10 MB": "body_too_large",
}
"""What the door says where it looks before the event is decoded."""


def test_every_poison_gets_its_reason_and_nothing_of_it_is_kept(collector: Collector) -> None:
    before, wrong = collector.kept(), {}
    for what, (body, reason) in REFUSED.items():
        wanted = AT_THE_DOOR.get(what, reason)
        answer = collector.send(body)
        status = 413 if wanted == Reason.BODY_TOO_LARGE else 400
        if (answer.status, answer.content) != (status, {"reason": wanted}):
            wrong[what] = (answer.status, answer.content, wanted)
    assert wrong == {}
    assert collector.kept() == before


def test_poison_beside_good_events_refuses_only_itself(collector: Collector) -> None:
    name = next(NAMES)
    good = json.dumps(event(name=name)).encode()
    for poison in (event(title="a\0b", name=name), event(url="\0"), event(props={"k": [1]}), event(timestamp=2**64)):
        assert collector.send(b"[" + good + b"," + json.dumps(poison).encode() + b"]").status in (202, 400)
    assert len(collector.kept(name)) == 5
    assert collector.kept(name)[1]["title"] == "ab"


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, "gzip"), (gzip.compress, " GZIP"), (zlib.compress, "deflate")])  # fmt: skip
def test_packed_bodies(collector: Collector, pack: Callable[[bytes], bytes], encoding: str) -> None:
    name = next(NAMES)
    packed = pack(json.dumps(event(name=name)).encode())
    assert collector.send(packed, Content_Encoding=encoding).status == 202
    assert len(collector.kept(name)) == 1
    for broken in (packed[:-3], b"x" + packed, packed + packed):
        answer = collector.send(broken, Content_Encoding=encoding)
        assert (answer.status, answer.content) == (400, {"reason": "unsupported_encoding"})
    assert collector.send(packed, Content_Encoding="br").content == {"reason": "unsupported_encoding"}
    bomb = pack(b" " * 100_000_000)
    assert (len(bomb) < 200_000, collector.send(bomb, Content_Encoding=encoding).status) == (True, 413)
    assert len(collector.kept(name)) == 1


@pytest.mark.parametrize("size", [1_000_001, 20_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(collector: Collector, size: int, chunked: bool) -> None:
    body = json.dumps(event(title="x" * size)).encode()
    answer = collector.ask("POST", "/api/event", in_chunks(body, 50_000) if chunked else body)
    assert (answer.status, answer.content) == (413, {"reason": "body_too_large"})
    assert collector.send(event()).status == 202


def in_chunks(body: bytes, size: int) -> Iterator[bytes]:
    """What http.client sends with `Transfer-Encoding: chunked`, without a length."""
    return (body[at : at + size] for at in range(0, len(body), size))


def test_a_chunked_body_of_usual_size(collector: Collector) -> None:
    name = next(NAMES)
    body = json.dumps(event(name=name)).encode()
    assert collector.ask("POST", "/api/event", in_chunks(body, 7)).status == 202
    assert len(collector.kept(name)) == 1


@pytest.mark.parametrize("kind", ["text/plain", "text/plain;charset=UTF-8", "application/json", "image/png", ""])
def test_any_content_type_is_read_as_json(collector: Collector, kind: str) -> None:
    assert collector.send(event(), Content_Type=kind).status == 202


def test_pages_of_other_origins_may_send(collector: Collector) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}  # fmt: skip
    preflight = collector.ask("OPTIONS", "/api/event", headers=asked)
    allowed = {name.lower(): value for name, value in preflight.headers.items()}
    assert (preflight.status, preflight.content) == (204, "")
    assert allowed["access-control-allow-origin"] == "*"
    assert allowed["access-control-allow-methods"] == "POST"
    assert allowed["access-control-allow-headers"].lower() == "content-type"
    for content in (event(), {}, b"x" * 1_000_001):
        answer = collector.send(content, Origin="https://shop.example")
        assert answer.headers["access-control-allow-origin"] == "*", answer
        assert not {name.lower() for name in answer.headers} & {"set-cookie", "etag", "last-modified"}


def test_other_methods_and_paths(collector: Collector) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert collector.ask(method, "/api/event").status == 405
    assert collector.ask("POST", "/api/events", b"{}").status == 404


def test_a_site_that_is_added_is_known_within_seconds(collector: Collector) -> None:
    site, name = f"{next(NAMES)}.example", next(NAMES)
    answer = collector.send(event(domain=site, name=name))
    assert (answer.status, answer.content) == (400, {"reason": "unknown_site"})
    collector.add_site(site, "Asia/Tokyo")
    wait_until(lambda: collector.send(event(domain=site, name=name)).status == 202, 5)
    assert [kept["domain"] for kept in collector.kept(name)] == [site]


def test_any_site_opens_it_and_adds_the_site(collectors: tuple[Collector, Collector]) -> None:
    closed, opened = collectors
    site, name = f"{next(NAMES)}.example", next(NAMES)
    assert closed.send(event(domain=site, name=name)).content == {"reason": "unknown_site"}
    assert opened.send(event(domain=site, name=name)).status == 202
    wait_until(lambda: closed.send(event(domain=site, name=name)).status == 202, 10)
    with psycopg.connect(opened.database) as database:
        assert database.execute("select time_zone from footfall.sites where site = %s", [site]).fetchone() == ("UTC",)


def test_forwarded_addresses_count_only_behind_a_trusted_proxy(collectors: tuple[Collector, Collector]) -> None:
    trusting, distrusting = collectors

    def visitor(collector: Collector, *forwarded: str) -> tuple[str, str]:
        """The truncated address and the visitor's hash. Each line of the header is one of the request."""
        name = next(NAMES)
        connection = HTTPConnection("127.0.0.1", collector.port, timeout=30)
        body = json.dumps(event(name=name)).encode()
        connection.putrequest("POST", "/api/event")
        for line in forwarded:
            connection.putheader("X-Forwarded-For", line)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        assert connection.getresponse().status == 202
        (kept,) = collector.kept(name)
        return kept["ip"], kept["visitor_hash"]

    direct = visitor(trusting)
    assert direct[0] == "127.0.0.0"
    assert visitor(distrusting, "198.51.100.23") == visitor(distrusting) == direct  # two collectors share the salts
    behind = visitor(trusting, "198.51.100.23")
    assert behind[0] == "198.51.100.0" and behind[1] != direct[1]
    assert visitor(trusting, "203.0.113.99, 198.51.100.23, 127.0.0.1") == behind
    assert visitor(trusting, "203.0.113.99", "198.51.100.23") == behind  # a proxy that adds a line of its own
    assert visitor(trusting, "::ffff:198.51.100.23") == visitor(trusting, "198.51.100.23:1234") == behind
    for line in lines_in_log(trusting.database):
        assert b"198.51.100.23" not in line and b"203.0.113.99" not in line


def test_health_and_metrics(collector: Collector) -> None:
    def metric(name: str) -> float:
        page = str(collector.ask("GET", "/metrics").content)
        return float(next((line.rpartition(" ")[2] for line in page.splitlines() if line.startswith(name)), 0))

    accepted, refused = "footfall_events_accepted_total", 'footfall_events_refused_total{reason="missing_url"}'
    before = metric(accepted), metric(refused), metric("footfall_request_seconds_count")
    collector.send([event(), event(), event(url=None)])
    collector.send(event(url=None))
    assert (metric(accepted), metric(refused), metric("footfall_request_seconds_count")) == (
        before[0] + 2,
        before[1] + 2,
        before[2] + 2,
    )
    assert metric("footfall_unavailable_total") == 0
    assert 0 <= metric("footfall_sites_age_seconds") < 10
    answer = collector.ask("GET", "/health")
    assert (answer.status, answer.content) == (200, {"health": "ok"})


# The application alone, for what a real server would take long to show


@contextmanager
def application(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Posts to the application, which takes any site, and waits for half a second where it would wait for ten."""
    monkeypatch.setattr("ingestion.collector.app.APPEND_SECONDS", 0.5)
    app = make_app(from_environment({"FOOTFALL_ANY_SITE": "yes"}), url)
    (route,) = (route for route in app.routes if getattr(route, "path", "") == "/api/event")
    directory = route.endpoint.__self__.directory  # type: ignore[attr-defined]

    async def posted(bodies: Sequence[bytes]) -> list[tuple[int, Any]]:
        return await asyncio.gather(*map(post, bodies))

    async def post(body: bytes) -> tuple[int, Any]:
        got: list[dict[str, Any]] = []
        scope = {"type": "http", "method": "POST", "path": "/api/event", "query_string": b"", "headers": [], "client": None}  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            got.append(message)

        await app(scope, receive, send)  # type: ignore[arg-type]
        return got[0]["status"], json.loads(got[1]["body"])

    async def closed() -> None:
        async with app.router.lifespan_context(app):
            pass

    try:
        wait_until(lambda: directory.age() is not None)
        yield lambda *events: asyncio.run(posted([json.dumps(sent).encode() for sent in events]))
    finally:
        asyncio.run(closed())


@contextmanager
def hanging(home: Path) -> Iterator[None]:
    """The embedded PostgreSQL of a home, and each of its processes, stand still."""
    server = (home / "postgres/data/postmaster.pid").read_text().split()[0]
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", server], capture_output=True, text=True).stdout.split()
    processes = [int(process) for process in (server, *children)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def test_when_postgresql_hangs_it_says_so_and_when_it_wakes_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a server that is there and does not answer, then nobody waits for ever, and what was refused unsent is not kept."""
    with running_postgres(tmp_path) as url, Ledger(url) as ledger:
        ledger.migrate()
        with application(url, monkeypatch) as post:
            assert post(event(name="before")) == [(202, {"accepted": 1})]
            with hanging(tmp_path):
                refused = post(event(name="sent"))
                refused += post(*[event(name="unsent")] * 5)
            assert refused == [(503, {"reason": "unavailable"})] * 6
            wait_until(lambda: post(event(name="after"))[0][0] == 202)
        names = [json.loads(lines)["name"] for lines in lines_in_log(url)]
    assert names[0] == "before" and names[-1] == "after"
    assert "unsent" not in names


def test_a_mistake_of_ours_is_logged_without_what_the_visitor_typed(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("insert into footfall.sites (site, time_zone) values ('m4rk3r.example', 'Mars/M4rk3r')")
    with application(database, monkeypatch) as post:
        assert post(event(domain="m4rk3r.example", title="m4rk3r")) == [(500, {"reason": "internal_error"})]
        assert post(event()) == [(202, {"accepted": 1})]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "footfall"]
    assert said.startswith("UnknownTimeZone") and "door.py" in said
    assert "m4rk3r" not in said.lower()


# Stories


@contextmanager
def appends_held(database: str) -> Iterator[None]:
    """Nobody can append meanwhile: each waits."""
    with psycopg.connect(database) as connection:
        connection.execute("lock table footfall.event_log in share mode")
        yield


def waits(database: str) -> bool:
    with psycopg.connect(database) as connection:
        return bool(connection.execute("select from pg_locks where not granted").rowcount)


def test_nobody_is_answered_before_the_event_log_has_it(collector: Collector) -> None:
    answers: list[Answer] = []
    sending = threading.Thread(target=lambda: answers.append(collector.send(event())))
    with appends_held(collector.database):
        sending.start()
        wait_until(lambda: waits(collector.database))
        time.sleep(0.3)
        assert answers == []
    sending.join(10)
    assert [answer.status for answer in answers] == [202]


def leave_a_page(collector: Collector, **fields: Any) -> None:
    """Sends an event as a page closes: nobody waits for the answer."""
    body = json.dumps(event(**fields)).encode()
    with socket.create_connection(("127.0.0.1", collector.port)) as page:
        page.sendall(b"POST /api/event HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        time.sleep(0.1)


def test_a_visitor_who_leaves_before_the_answer_is_still_counted(collector: Collector) -> None:
    """Given an event that is sent as its page closes, when nobody waits for the answer, then it is kept, and the next too."""
    name = next(NAMES)
    with appends_held(collector.database):
        for _ in range(3):
            leave_a_page(collector, name=name)
        assert waits(collector.database)
    wait_until(lambda: len(collector.kept(name)) == 3, 5)
    assert collector.send(event(name=name)).status == 202


def test_a_request_that_breaks_off_leaves_nothing(collector: Collector) -> None:
    name = next(NAMES)
    body = json.dumps(event(name=name)).encode()
    with socket.create_connection(("127.0.0.1", collector.port)) as page:
        page.sendall(b"POST /api/event HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body[:-1]))
    assert collector.send(event()).status == 202
    assert collector.kept(name) == []


def test_when_postgresql_is_down_nothing_is_acknowledged_and_when_it_is_back_it_goes_on(tmp_path: Path) -> None:
    home, acknowledged, told = tmp_path / "home", set[str](), set[int]()
    ended = threading.Event()
    with running(home, None, FOOTFALL_ANY_SITE="yes") as collector:

        def keep_sending(_: int) -> None:
            while not ended.is_set():
                sent = str(uuid4())
                answer = collector.send(event(event_id=sent))
                told.add(answer.status)
                if answer.status == 202:
                    acknowledged.add(sent)
                else:
                    assert (answer.content, answer.headers["retry-after"]) == ({"reason": "unavailable"}, "5")
                    time.sleep(0.05)

        senders = threading.Thread(target=in_threads, args=[3, keep_sending])
        senders.start()
        wait_until(lambda: len(acknowledged) > 20)
        assert stop_postgres(home)
        wait_until(lambda: 503 in told)
        assert collector.ask("GET", "/health").status == 503
        while_down = len(acknowledged)
        time.sleep(0.3)
        assert len(acknowledged) == while_down
        with running_postgres(home):
            wait_until(lambda: len(acknowledged) > while_down + 20)
            assert collector.ask("GET", "/health").status == 200
            ended.set()
            senders.join()
            kept = [found["event_id"] for found in collector.kept()]
            assert acknowledged <= set(kept)
            assert told == {202, 503}
            assert collector.process.poll() is None
    said = collector.log.read_text()
    assert said.count("the event log takes no events") == said.count("the event log takes events again") == 1


def test_a_signal_waits_for_what_is_open_and_loses_nothing_that_was_acknowledged(database: str, tmp_path: Path) -> None:
    """Given requests that wait for the event log, when SIGTERM comes, then they are answered, and who got 202 is in the log; and
    who did not wait for an answer too."""
    acknowledged, answered, left = set[str](), list[int | None](), str(uuid4())
    with running(tmp_path / "home", database, FOOTFALL_ANY_SITE="yes") as collector:

        def send(_: int) -> None:
            sent = str(uuid4())
            status = status_of(lambda: collector.send(event(event_id=sent)))
            answered.append(status)
            if status == 202:
                acknowledged.add(sent)

        senders = threading.Thread(target=in_threads, args=[8, send])
        with appends_held(database):
            senders.start()
            wait_until(lambda: waits(database))
            leave_a_page(collector, event_id=left)
            time.sleep(0.1)
            collector.process.terminate()
            time.sleep(0.5)
        senders.join()
        assert answered == [202] * 8
        assert collector.process.wait(20) == 0
        assert acknowledged | {left} == {found["event_id"] for found in collector.kept()}
        assert collector.log.read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_its_processes_in_the_middle_of_traffic(
    database: str, tmp_path: Path, number: signal.Signals
) -> None:
    """As `footfall up` and a terminal's Ctrl-C send it."""
    acknowledged = set[str]()
    with running(tmp_path / "home", database, FOOTFALL_ANY_SITE="yes") as collector:

        def keep_sending(_: int) -> None:
            status: int | None = 202
            while status == 202:
                sent = str(uuid4())
                status = status_of(lambda: collector.send(event(event_id=sent)))
                if status == 202:
                    acknowledged.add(sent)

        senders = threading.Thread(target=in_threads, args=[4, keep_sending])
        senders.start()
        wait_until(lambda: len(acknowledged) > 50)
        os.killpg(collector.process.pid, number)
        assert collector.process.wait(20) == 0
        senders.join()
        assert collector.log.read_text() in ("", SIGNAL_MISSED)
        kept = [found["event_id"] for found in collector.kept()]
        assert acknowledged <= set(kept)
        assert len(kept) == len(set(kept))


def test_a_collector_that_was_killed_leaves_its_port(database: str, tmp_path: Path) -> None:
    with running(tmp_path / "home", database, FOOTFALL_ANY_SITE="yes") as collector:
        collector.process.kill()
        wait_until(lambda: status_of(lambda: collector.ask("GET", "/health")) is None, 5)


def test_a_port_in_use_is_named_with_its_setting(collector: Collector, tmp_path: Path) -> None:
    environment = os.environ | {
        "FOOTFALL_HOME": str(tmp_path / "home"),
        "FOOTFALL_POSTGRES": collector.database,
        "FOOTFALL_COLLECTOR": f"127.0.0.1:{collector.port}",
    }
    done = subprocess.run([FOOTFALL, "collector"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: cannot listen at 127.0.0.1:{collector.port}: Address already in use. "
        "Set FOOTFALL_COLLECTOR to another host:port\n"
    )


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EXAMPLE = Path(__file__).parents[3] / "examples" / "index.html"


@pytest.mark.skipif(not CHROMIUM, reason="there is no browser")
def test_the_example_page_is_counted_in_a_browser(collector: Collector, tmp_path: Path) -> None:
    page = EXAMPLE.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{collector.port}")
    (tmp_path / "index.html").write_text(
        page.replace("</html>", "<script>document.querySelector('button').click()</script>")
    )
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(tmp_path))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_port}/?utm_source=newsletter"
        subprocess.run(
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser", "--dump-dom", url],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        web.shutdown()

    def sent() -> list[dict[str, Any]]:
        return [kept for kept in collector.kept() if kept["url"] == url]

    wait_until(lambda: len(sent()) == 2, 5)
    assert {(kept["name"], kept["title"], str(kept.get("props"))) for kept in sent()} == {
        ("pageview", "Tea shop", "None"),
        ("Signup", "Tea shop", "{'plan': 'free'}"),
    }
    assert all("Chrome" in kept["user_agent"] and kept["language"] for kept in sent())


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_nothing_that_a_visitor_typed_is_logged(collectors: tuple[Collector, Collector]) -> None:
    """After all that was sent here, and a marker in every place."""
    for collector in collectors:
        marker = "m4rk3r"
        everywhere = {
            "domain": f"{marker}.example",
            "name": marker,
            "url": f"https://{marker}/?{marker}",
            marker: marker,
        }
        headers = {"User-Agent": marker, "X-Forwarded-For": marker, "Content-Encoding": marker, marker: marker}
        for body in (everywhere, [everywhere], marker.encode(), b'{"' + marker.encode()):
            collector.ask("POST", f"/api/event?{marker}", json.dumps(body) if not isinstance(body, bytes) else body)
            collector.ask("POST", f"/{marker}", b"x", headers)
            collector.ask("POST", "/api/event", b"x", headers)
        assert collector.send(event()).status == 202
        assert collector.log.read_text() == ""
