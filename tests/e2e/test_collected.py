"""From the collector's door to the report: what was acknowledged is there, each once, and nothing else."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import psycopg
import pytest
from cassandra.cluster import Cluster
from click.testing import CliRunner

from ingestion.site_time import hour_key
from orchestration.cli import footfall
from orchestration.live import running_collector
from tests.e2e.clock import Clock
from tests.e2e.compare import differences
from tests.e2e.conftest import Home
from tests.e2e.senders import SITES, Sending, now_ms, post, reports, sendings

EVENTS = 5_000


def test_what_twenty_clients_send_is_in_the_reports_each_event_once(home):
    now = datetime.now(UTC)
    first, last = str((now - timedelta(days=4)).date()), str((now + timedelta(days=1)).date())
    every = sendings(Random(5), now_ms(), EVENTS)
    with home(first) as it:
        for site, zone in SITES.items():
            it.stores.ledger.add_site(site, zone)
        with running_collector(it.path) as port:
            answers = post(port, every)
        assert (answers.failures, answers.mistakes) == (0, [])
        assert answers.refused == Counter(item.reason for item in every if item.reason)
        from orchestration.environment import dagster_environment

        os.environ.update(dagster_environment(it.stores))
        clock = Clock(it.stores, now)
        rounds = 0
        while clock.tick("sweep_hours") + clock.tick("sweep_dates"):
            assert all(clock.run_all())
            clock.now, rounds = datetime.now(UTC), rounds + 1
            assert rounds < 5, "the sweep does not come to an end"
        assert wrong(it, every, first, last, clock.now) == []
        stored = stored_ids(it)
        assert len(stored) == len(set(stored))
        assert set(stored) == set(answers.acknowledged)
        visitor = next(item.person for item in every if item.person.visitor_id and not item.reason)
        assert_visitor(it, visitor.site, visitor.visitor_id, every)


def wrong(it: Home, every: Sequence[Sending], first: str, last: str, now: datetime) -> list[str]:
    """Where the reports are not the truth."""
    return [
        line
        for site, wanted in reports(every, first, last).items()
        for line in differences(without_hours_to_come(wanted, now), it.report(site, first, last), site)
    ]


def without_hours_to_come(wanted: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Of hours to come there is no average yet."""
    hours = [
        hour if hour["hour"] <= hour_key(now) else {**hour, "pageviews_24h_average": None} for hour in wanted["hours"]
    ]
    return {**wanted, "hours": hours}


def stored_ids(it: Home) -> list[str]:
    """The ids of all events in the event store."""
    if store := it.stores.settings.event_store:
        (host,) = store.hosts
        with Cluster([host.host], port=host.port) as cluster:
            return [row.event_id for row in cluster.connect(store.name).execute("select event_id from events")]
    with psycopg.connect(it.stores.postgres_url) as connection:
        return [row[0] for row in connection.execute("select event_id from store.events")]


def assert_visitor(it: Home, site: str, visitor_id: str | None, every) -> None:
    """`footfall visitor` tells what that visitor did."""
    said = CliRunner().invoke(footfall, ["visitor", site, visitor_id, "--json", "--events", "1000"])
    found = json.loads(said.stdout)
    mine = {
        item.event["event_id"]: item.event
        for item in every
        if not item.reason and item.person.visitor_id == visitor_id and item.person.site == site
    }
    instants = sorted(event["timestamp"] for event in mine.values())
    assert len(found["events"]) == len(mine)
    assert found["pageviews"] == sum(event["name"] == "pageview" for event in mine.values())
    for told, instant in ((found["first_seen"], instants[0]), (found["last_seen"], instants[-1])):
        assert datetime.fromisoformat(told).timestamp() * 1000 == pytest.approx(instant)
