"""A home, imported into and materialized in this process, as the `footfall` command does."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingestion.lake import LakeObject
from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores
from serving.report import TABLES, report

NUMBERS = count(1)
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

LONG = {
    "test_a_rerun_after_kill_9_gives_the_right_report",
    "test_an_event_is_reported_within_an_hour_whatever_the_minute_in_which_it_came",
    "test_six_single_hours_and_then_the_rest_on_the_embedded_default_end_in_the_same_report_tables",
    "test_the_same_hours_again_in_another_order_change_no_row",
    "test_what_is_in_flight_is_not_requested_again_and_what_came_lately_goes_before_history",
}
"""On the full stack they are for `make test-slow`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in LONG and "[full" in item.name:
            item.add_marker(pytest.mark.slow)


@dataclass
class Home:
    """What a person with this home can do, without the cost of a process each time."""

    path: Path
    stores: Stores

    def materialize(self, first: str | None = None, end: str | None = None, now: datetime = NOW) -> dict[str, int]:
        from orchestration.environment import dagster_environment

        os.environ.update(dagster_environment(self.stores))
        from orchestration.materialize import materialize

        bounds = [datetime.fromisoformat(hour + ":00+00:00") if hour else None for hour in (first, end)]
        return materialize(self.stores, bounds[0], bounds[1], now, lambda done, total, asset: None)

    def report(self, site: str, first: str | None = None, last: str | None = None) -> dict[str, Any]:
        dates = [date.fromisoformat(day) if day else None for day in (first, last)]
        return json.loads(json.dumps(report(self.stores, site, *dates)))

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stores.postgres_url) as connection:
            connection.execute("set time zone 'UTC'")
            return sorted(connection.execute(f"select * from {table}").fetchall(), key=repr)

    def raw_objects(self) -> list[tuple[str, LakeObject]]:
        """Each listed raw object with its hour."""
        hours = sorted(self.stores.ledger.state().raw)
        return [(hour, item) for hour in hours for item in self.stores.ledger.raw_objects(hour)]

    def report_hashes(self) -> dict[str, str]:
        """A hash of each report table's rows."""
        return {table: hashlib.sha256(repr(self.rows(f"reports.{table}")).encode()).hexdigest() for table in TABLES}


@pytest.fixture(scope="module", params=["embedded", "full"])
def stack(request: pytest.FixtureRequest) -> Callable[[], Mapping[str, str]]:
    """Gives the environment of a home: none for the embedded default, or a topic, a keyspace, a prefix and a database of its own on
    real servers."""
    if request.param == "embedded":
        return dict
    servers: Mapping[str, str] = request.getfixturevalue("full_stack")
    return lambda: empty_parts_of(servers)


def empty_parts_of(servers: Mapping[str, str]) -> Mapping[str, str]:
    """The environment of a home with a topic, a keyspace, a prefix and a database of its own."""
    number = next(NUMBERS)
    with psycopg.connect(servers["FOOTFALL_POSTGRES"], autocommit=True) as server:
        server.execute(f"create database e2e_{number}")
    urls = {name: url.rpartition("/")[0] for name, url in servers.items() if name.startswith("FOOTFALL_")}
    names = {
        "EVENT_LOG": f"e2e-{number}",
        "EVENT_STORE": f"e2e_{number}",
        "LAKE": f"lake-{number}",
        "POSTGRES": f"e2e_{number}",
    }
    own = {f"FOOTFALL_{part}": f"{urls[f'FOOTFALL_{part}']}/{name}" for part, name in names.items()}
    return {**servers, **own, "FOOTFALL_EVENT_LOG_PARTITIONS": "3"}


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory, stack: Callable[[], Mapping[str, str]]
) -> Iterator[Callable[..., Any]]:
    """Makes homes that begin on a date, on the stack that is tested, or with other servers; their environment ends with the module."""
    before = dict(os.environ)

    @contextmanager
    def make(start: str, servers: Mapping[str, str] | None = None) -> Iterator[Home]:
        path = tmp_path_factory.mktemp("home")
        os.environ.clear()
        os.environ.update(before | (stack() if servers is None else servers))
        os.environ.update(FOOTFALL_HOME=str(path), FOOTFALL_START=start)
        with open_stores(from_environment()) as stores:
            yield Home(path, stores)

    yield make
    os.environ.clear()
    os.environ.update(before)
