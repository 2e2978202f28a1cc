"""Live traffic of the sample: visitors of the last hours, who send to a collector that runs meanwhile."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ingestion.event import instant_of
from ingestion.simulation.traffic import simulate
from ingestion.site_time import from_datetime
from ingestion.stores import Stores
from orchestration.progress import Report

HOURS = 24
SEED, VISITORS = 2, 1_200
SENDERS = 8
READY_SECONDS = 60
FOOTFALL = str(Path(sys.executable).parent / "footfall")


@dataclass
class Sent:
    """What the collector answered."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)


def send_live_traffic(stores: Stores, directory: Path, now: datetime, progress: Report) -> Sent:
    """Sends what sample visitors did in the last 24 hours, or since this was called last."""
    until, now_ms = directory / "sent_until", from_datetime(now)
    before = int(until.read_text()) if until.exists() else 0
    since = max(before, from_datetime(now - timedelta(hours=HOURS)))
    simulate(directory, seed=SEED, first_date=now.date() - timedelta(days=1), days=2, visitors=VISITORS)
    lines = (directory / "events.ndjson").read_bytes().splitlines()
    wanted = [line for line in lines if since < _instant(line, otherwise=0 if before else now_ms) <= now_ms]
    sent = Sent()
    if wanted:
        with running_collector(stores.settings.home) as port:
            sent = _send(port, wanted, progress)
        until.write_text(str(now_ms))
    return sent


def _instant(line: bytes, *, otherwise: int) -> int:
    """When an event happened; some of the sample's lines do not say so, or are no events."""
    try:
        return instant_of(json.loads(line)["timestamp"]) or otherwise
    except (ValueError, KeyError, TypeError):
        return otherwise


@contextmanager
def running_collector(home: Path) -> Iterator[int]:
    """A collector of a home, on a free port of this machine alone. Gives the port."""
    port = _free_port()
    environment = {**os.environ, "FOOTFALL_COLLECTOR": f"127.0.0.1:{port}", "FOOTFALL_HOME": str(home)}
    with subprocess.Popen([FOOTFALL, "collector"], env=environment) as process:
        try:
            _wait_until_healthy(process, port)
            yield port
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the collector at port {port} was not ready within {READY_SECONDS} s")


def _send(port: int, lines: Sequence[bytes], progress: Report) -> Sent:
    """One event a request, from some senders side by side."""
    sent, connections = Sent(), threading.local()

    def send(line: bytes) -> tuple[int, dict[str, Any]]:
        if not hasattr(connections, "one"):
            connections.one = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body, headers = _as_a_visitor(line)
        connections.one.request("POST", "/api/event", body, headers)
        answer = connections.one.getresponse()
        return answer.status, json.loads(answer.read())

    with ThreadPoolExecutor(SENDERS) as senders:
        for number, (status, said) in enumerate(senders.map(send, lines), start=1):
            if status == http.client.ACCEPTED:
                sent.accepted += 1
            else:
                sent.refused[said["reason"]] += 1
            progress(number, len(lines))
    return sent


def _as_a_visitor(line: bytes) -> tuple[bytes, dict[str, str]]:
    """A line as a browser sends it: address and agent are told by the connection."""
    try:
        event = json.loads(line)
        headers = {"X-Forwarded-For": event.pop("ip", ""), "User-Agent": event.pop("user_agent", "")}
        return json.dumps(event).encode(), {name: value for name, value in headers.items() if value.isascii()}
    except (ValueError, AttributeError):
        return line, {}
