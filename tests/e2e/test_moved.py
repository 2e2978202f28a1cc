"""Sample traffic and a real log, moved to the present and sent through the collector: the full stack reports what the embedded default does."""

import http.client
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ingestion.protocols.access_log import read_line
from ingestion.simulation.traffic import simulate
from ingestion.site_time import from_datetime
from orchestration.live import running_collector
from tests.e2e.compare import differences
from tests.e2e.conftest import Home, empty_parts_of
from tests.e2e.test_access_log import LOG

NOW = datetime.now(UTC)
AT_THE_END = NOW + timedelta(hours=1)
"""Both homes are materialized as of then, however long the tests take."""
LOG_HOURS = 48
LOG_SITE = "semicomplete.com"
SAMPLE_SITES = {"laden.example": "Europe/Berlin", "herald.example": "America/New_York", "docs.example": "UTC"}
ROWS = ("report_site_hours", "report_site_days", "report_breakdown_days")
SENDERS = 8

Sent = tuple[bytes, dict[str, str]]
"""A body, and the headers that tell address and agent."""


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Callable[[], Mapping[str, str]]:
    """The full one; the other home names no servers."""
    return lambda: empty_parts_of(request.getfixturevalue("full_stack"))


def of_the_log() -> list[Sent]:
    """The page views of the last 48 hours, the last a minute ago."""
    lines = [read_line(line, LOG_SITE) for line in LOG.read_bytes().splitlines()]
    told = [(line.instant, line.event) for line in lines if line.instant and line.event]
    moved = from_datetime(NOW - timedelta(minutes=1)) - max(instant for instant, _ in told)
    sent = []
    for number, (instant, event) in enumerate(told):
        if instant + moved > from_datetime(NOW - timedelta(hours=LOG_HOURS)):
            body = {"domain": LOG_SITE, "name": "pageview", "url": event.url, "referrer": event.referrer}
            body |= {"timestamp": distinct(instant + moved, number), "event_id": str(UUID(int=number))}
            sent.append((json.dumps(body).encode(), headers(event.ip, event.user_agent)))
    return sent


def of_the_sample(folder: Path) -> list[Sent]:
    """What visitors did yesterday and today until now; what would be told by the time of receipt is left out, and
    copies, of which the one counts that comes first."""
    simulate(folder, seed=4, first_date=NOW.date() - timedelta(days=1), days=2, visitors=900)
    sent, ids = [], set[str]()
    for number, line in enumerate((folder / "events.ndjson").read_bytes().splitlines()):
        try:
            event = json.loads(line)
            happened = datetime.fromisoformat(event["timestamp"])  # with its offset
            who = headers(event.pop("ip", None), event.pop("user_agent", None))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        event.setdefault("event_id", str(UUID(int=number)))
        event["timestamp"] = distinct(from_datetime(happened), number)
        if event["event_id"] not in ids and happened <= NOW - timedelta(minutes=1):
            sent.append((json.dumps(event).encode(), who))
        ids.add(event["event_id"])
    return sent


def distinct(instant_ms: int, number: int) -> int:
    """The same second, at a ms that no neighbour has: of two events of one ms the one that came first is before the other, and
    senders side by side are never twice in the same order."""
    return instant_ms - instant_ms % 1_000 + number % 1_000


def headers(address: str | None, agent: str | None) -> dict[str, str]:
    told = {"X-Forwarded-For": address, "User-Agent": agent}
    return {name: value for name, value in told.items() if value and value.isascii()}


def post(port: int, sent: Sequence[Sent]) -> list[tuple[int, bytes]]:
    """Sends each by itself, in any order, and gives the answers."""
    connections = threading.local()

    def send(one: Sent) -> tuple[int, bytes]:
        if not hasattr(connections, "one"):
            connections.one = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connections.one.request("POST", "/api/event", *one)
        answer = connections.one.getresponse()
        return answer.status, answer.read()

    with ThreadPoolExecutor(SENDERS) as senders:
        return list(senders.map(send, sent))


def reported(it: Home, sites: Mapping[str, str], sent: Sequence[Sent]) -> tuple[Any, ...]:
    """What the collector answered, what the reports say, and all rows of their tables."""
    for site, zone in sites.items():
        it.stores.ledger.add_site(site, zone)
    with running_collector(it.path) as port:
        answers = post(port, sent)
    it.materialize(now=AT_THE_END)
    return answers, {site: it.report(site) for site in sites}, {table: it.rows(f"reports.{table}") for table in ROWS}


@pytest.mark.parametrize("traffic", ["sample", "log"])
def test_the_full_stack_reports_what_the_embedded_default_reports(home, tmp_path, traffic):
    if traffic == "log" and not LOG.exists() and not os.environ.get("CI"):
        pytest.skip("the log is not part of the project")
    sites = {LOG_SITE: "UTC"} if traffic == "log" else SAMPLE_SITES
    sent = of_the_log() if traffic == "log" else of_the_sample(tmp_path)
    start = str((NOW - timedelta(days=5)).date())
    with home(start, servers={}) as embedded:
        answers, reports, rows = reported(embedded, sites, sent)
    with home(start) as full:
        assert full.stores.settings.event_log and full.stores.settings.event_store
        assert full.stores.settings.lake.startswith("s3://") and full.stores.settings.postgres
        again = reported(full, sites, sent)
    assert sum(status == http.client.ACCEPTED for status, _ in answers) > 1_000
    assert sum(report["totals"]["pageviews"] for report in reports.values()) > 500
    assert again[0] == answers
    assert list(differences(reports, again[1])) == []
    for table in ROWS:
        here, there = (list(map(repr, found[table])) for found in (rows, again[2]))
        assert sorted(set(here) ^ set(there)) == [], table
