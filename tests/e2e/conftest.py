"""A home, imported into and materialized in this process, as the `footfall` command does."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores
from serving.report import TABLES, report

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class Home:
    """What a person with this home can do, without the cost of a process each time."""

    path: Path
    stores: Stores

    def materialize(self, first: str | None = None, end: str | None = None) -> dict[str, int]:
        from orchestration.environment import dagster_environment

        os.environ.update(dagster_environment(self.stores))
        from orchestration.materialize import materialize

        bounds = [datetime.fromisoformat(hour + ":00+00:00") if hour else None for hour in (first, end)]
        return materialize(self.stores, bounds[0], bounds[1], NOW, lambda done, total, asset: None)

    def report(self, site: str, first: str | None = None, last: str | None = None) -> dict[str, Any]:
        dates = [date.fromisoformat(day) if day else None for day in (first, last)]
        return json.loads(json.dumps(report(self.stores, site, *dates)))

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stores.postgres_url) as connection:
            connection.execute("set time zone 'UTC'")
            return sorted(connection.execute(f"select * from {table}").fetchall(), key=repr)

    def report_hashes(self) -> dict[str, str]:
        """A hash of each report table's rows."""
        return {table: hashlib.sha256(repr(self.rows(f"reports.{table}")).encode()).hexdigest() for table in TABLES}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Makes homes that begin on a date, with the embedded PostgreSQL or a server's; their environment ends with the module."""
    before = dict(os.environ)

    @contextmanager
    def make(start: str, postgres: str = "") -> Iterator[Home]:
        path = tmp_path_factory.mktemp("home")
        os.environ.update(FOOTFALL_HOME=str(path), FOOTFALL_START=start, FOOTFALL_POSTGRES=postgres)
        with open_stores(from_environment()) as stores:
            yield Home(path, stores)

    yield make
    os.environ.clear()
    os.environ.update(before)
