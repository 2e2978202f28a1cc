"""A real `footfall collector` under load: how many events a second it keeps, and how long a sender waits for its answer.

Some senders, each on a connection that stays open, send their next request when the last one is answered. The collector, the
embedded PostgreSQL and the senders share the machine: the CPU of each is told. 202 says that the event log has the events on disk;
at the end they are counted there.
"""

import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from bench.measured import alone
from ingestion.event_log import open_event_log
from ingestion.postgres import stop_postgres
from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores

SITE = "shop.example"
LOADS = {"single events": 1, "arrays of ten": 10}
"""Events a request."""
EVENT_BYTES = 1_000
SENDERS = 16
TIMES = 2
"""The best of so many counts."""
WARM_UP_SECONDS = 2.0
MOST_REQUESTS = 200_000
VISITORS = 500
PATIENCE_SECONDS = 60
"""For the collector to begin, and for an answer."""
FOOTFALL = str(Path(sys.executable).parent / "footfall")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What senders saw."""

    events: int
    """Accepted, in the seconds that are measured."""
    all_events: int
    """With those of the warm-up."""
    seconds: float
    statuses: Mapping[int, int]
    """Requests by status."""
    waited: Sequence[float]
    """Seconds from each request to its answer, the shortest first."""
    cpu: Mapping[str, float]
    """CPU seconds, by who used them."""


def run(seconds: float) -> list[tuple[str, str]]:
    """Sends each load for some seconds, and returns rows to print."""
    with TemporaryDirectory(prefix="ff-") as home:
        os.environ |= {"FOOTFALL_HOME": home}
        try:
            with open_stores(from_environment()) as stores, _collector(stores) as (port, processes):
                loads = {
                    name: [alone(send, port, processes, events, seconds).result for _ in range(TIMES)]
                    for name, events in LOADS.items()
                }
                kept = _kept(stores)
        finally:
            stop_postgres(Path(home))
    return _rows(loads, kept)


def _rows(loads: Mapping[str, Sequence[Load]], kept: int) -> list[tuple[str, str]]:
    best = {name: max(some, key=lambda load: load.events / load.seconds) for name, some in loads.items()}
    accepted = sum(load.all_events for some in loads.values() for load in some)
    return [
        ("load", f"events of {EVENT_BYTES:,} bytes on {SENDERS} connections"),
        *((name, _spoken(load)) for name, load in best.items()),
        *((f"CPU, {name}", _spoken_cpu(load)) for name, load in best.items()),
        ("on disk", f"{kept:,} events in the event log, {accepted:,} accepted"),
    ]


def _spoken(load: Load) -> str:
    p50, p99 = (1_000 * load.waited[len(load.waited) * part // 100] for part in (50, 99))
    refused = sum(count for status, count in load.statuses.items() if status not in (202, 503))
    return (
        f"{load.events / load.seconds:,.0f} events/s in {len(load.waited) / load.seconds:,.0f} requests/s, "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {load.statuses.get(503, 0)} answers 503, {refused} other refusals"
    )


def _spoken_cpu(load: Load) -> str:
    used = ", ".join(f"{name} {seconds / load.seconds:.2f}" for name, seconds in load.cpu.items())
    share = load.cpu["senders"] / sum(load.cpu.values())
    return f"{used} of {os.cpu_count()}" + (f"; the senders' share is {share:.0%}" if share < 1 else "")


# The senders


def send(port: int, processes: Mapping[str, int], events: int, seconds: float) -> Load:
    """Requests of some events each, for some seconds after the warm-up."""
    requests = cycle(_request(number, events) for number in range(VISITORS))
    _, before = _exchange(port, requests, WARM_UP_SECONDS)
    cpu, began = _cpu(processes), time.perf_counter()
    waited, statuses = _exchange(port, requests, seconds)
    took, used = time.perf_counter() - began, _cpu(processes)
    return Load(
        events=events * statuses[202],
        all_events=events * (before[202] + statuses[202]),
        seconds=took,
        statuses=statuses,
        waited=sorted(waited),
        cpu={name: used[name] - cpu[name] for name in used},
    )


def _exchange(port: int, requests: Iterator[bytes], seconds: float) -> tuple[list[float], Counter[int]]:
    """Sends until the time is over, and waits for the last answers: seconds that each took, and requests by status."""
    waited, statuses, until = list[float](), Counter[int](), time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for _ in range(SENDERS):
            sender = _Sender(port)
            selector.register(sender.socket, selectors.EVENT_READ, sender)
            sender.send(next(requests))
        while selector.get_map():
            ready = selector.select(PATIENCE_SECONDS)
            if not ready:
                raise TimeoutError(f"no answer within {PATIENCE_SECONDS} s")
            for key, _ in ready:
                sender = key.data
                status = sender.receive()
                if status is None:
                    continue
                now = time.perf_counter()
                waited.append(now - sender.sent_at)
                statuses[status] += 1
                if now < until and len(waited) < MOST_REQUESTS:
                    sender.send(next(requests))
                else:
                    selector.unregister(sender.socket)
                    sender.socket.close()
    return waited, statuses


class _Sender:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Takes what there is; the status, once the answer is whole."""
        taken = self.socket.recv(65_536)
        if not taken:
            raise ConnectionError("the collector closed a connection")
        self._received += taken
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or (length and len(body) < int(length[1])):
            return None
        self._received = b""
        return int(head.split(maxsplit=2)[1])


def _request(number: int, events: int) -> bytes:
    """What a visitor's browser sends, with a proxy's word for the address."""
    rng = Random(number)
    every = [_event(rng) for _ in range(events)]
    body = every[0] if events == 1 else b"[" + b",".join(every) + b"]"
    head = (
        f"POST /api/event HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-Forwarded-For: 198.18.{number // 250}.{number % 250}\r\n"
        f"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:{100 + number % 40}.0) Gecko/20100101 Firefox/{100 + number % 40}.0\r\n\r\n"
    )
    return head.encode() + body


def _event(rng: Random) -> bytes:
    event = {
        "domain": SITE,
        "name": "pageview",
        "url": f"https://www.{SITE}/shop/category-{rng.randrange(20)}/product-{rng.randrange(5_000)}",
        "referrer": "https://www.google.com/",
        "title": "A product of the category",
        "screen_width": 1_440,
        "props": {"plan": "free", "note": ""},
    }
    event["props"]["note"] = f"{rng.getrandbits(4_000):x}"[: EVENT_BYTES - len(json.dumps(event))]
    return json.dumps(event).encode()


# The collector


@contextmanager
def _collector(stores: Stores) -> Iterator[tuple[int, dict[str, int]]]:
    """A collector on a free port, and the first process of all whose CPU counts."""
    stores.ledger.add_site(SITE, "Europe/Berlin")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    postgres = int((stores.settings.home / "postgres/data/postmaster.pid").read_text().split()[0])
    with subprocess.Popen(
        [FOOTFALL, "collector"], env={**os.environ, "FOOTFALL_COLLECTOR": f"127.0.0.1:{port}"}
    ) as process:
        try:
            _wait_until_healthy(process, port)
            yield port, {"collector": process.pid, "PostgreSQL": postgres}
        finally:
            process.terminate()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=PATIENCE_SECONDS).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the collector did not begin")


def _kept(stores: Stores) -> int:
    """Lines in the event log."""
    with open_event_log(stores.settings, stores.postgres_url) as log:
        return sum(
            1 + record.lines.count(b"\n")
            for partition in log.partitions()
            for record in log.read(partition, *log.bounds(partition))
        )


def _cpu(processes: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far: of some processes with all that they started, where the system is Linux, and of this one."""
    used = {"senders": time.process_time()}
    if Path("/proc/self/stat").exists():
        every = dict(_processes())
        used |= {name: _with_children(first, every) for name, first in processes.items()}
    return used


def _processes() -> Iterator[tuple[int, tuple[int, float]]]:
    """Each process's number, its parent's, and the CPU seconds of it and of its children that ended."""
    tick = os.sysconf("SC_CLK_TCK")
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = file.read_text().rpartition(")")[2].split()  # from the third on, see proc(5)
            yield int(file.parent.name), (int(fields[1]), sum(map(int, fields[11:15])) / tick)


def _with_children(process: int, every: Mapping[int, tuple[int, float]]) -> float:
    _, seconds = every[process]
    return seconds + sum(_with_children(child, every) for child, (parent, _) in every.items() if parent == process)
