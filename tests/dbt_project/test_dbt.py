"""dbt on a real PostgreSQL: models, unit tests, data tests, documentation, and the switch from `build` to `reports`.

Each dbt process takes seconds, so tests share one database and what was built in it, and run in the order of this file.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from ingestion.ledger import Ledger, Outcome, Superseded
from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores
from orchestration.environment import dbt_environment
from orchestration.publish import TABLES, publish_reports

PROJECT = Path(__file__).parents[2] / "dbt_project"
PROGRAMS = Path(sys.executable).parent
ELSEWHERE = {"PGTZ": "Asia/Kolkata"}
"""The server's time zone must not matter."""

SITE = "shop.example"
APPEARED, CHANGED, EMPTIED, UNTOUCHED = "2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30"
OLD = {CHANGED: 10, EMPTIED: 10, UNTOUCHED: 10}
"""The mark that all rows of a date carry, in every table."""
NEW = {APPEARED: 20, CHANGED: 20, UNTOUCHED: 10}
NEW_RUN = (APPEARED, CHANGED, EMPTIED)
MARKS = {
    "report_site_hours": "pageviews",
    "report_site_days": "pageviews",
    "report_breakdown_days": "pageviews",
    "report_pipeline_hours": "received",
}


@dataclass(frozen=True)
class Node:
    """What became of a model or test in a dbt run. Of a failed test: the rows that it found, and its query."""

    status: str
    failures: int | None
    query: str


@dataclass(frozen=True)
class Dbt:
    stores: Stores
    target: Path

    def __call__(self, *arguments: str) -> dict[str, Node]:
        """Runs dbt, and returns what became of its nodes, by name."""
        results = self.target / "run_results.json"
        results.unlink(missing_ok=True)
        done = subprocess.run(
            [
                *(PROGRAMS / "dbt", *arguments, "--project-dir", PROJECT, "--profiles-dir", PROJECT),
                *("--target-path", self.target, "--log-path", self.target),
            ],
            env=os.environ | dbt_environment(self.stores.postgres_url) | ELSEWHERE,
            capture_output=True,
            text=True,
            check=False,
        )
        assert results.exists(), done.stdout + done.stderr
        nodes = {
            result["unique_id"].split(".", 2)[2]: Node(
                result["status"], result["failures"], result["compiled_code"] or ""
            )
            for result in json.loads(results.read_text())["results"]
        }
        assert done.returncode == (not all(node.status in ("success", "pass") for node in nodes.values())), done.stdout
        return {_without_hash(name): node for name, node in nodes.items()}

    def build(self, days: Sequence[str]) -> dict[str, Node]:
        """Builds and tests the report tables of some dates, as the asset does."""
        self.stores.ledger.begin_build(days)
        return self("build", "--exclude", "test_type:unit")

    def manifest(self) -> Any:
        return json.loads((self.target / "manifest.json").read_text())


def _without_hash(name: str) -> str:
    """Of generic tests dbt shortens the name, and adds a hash."""
    return "accepted_values" if name.startswith("accepted_values_") else name


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    with open_stores(from_environment({"FOOTFALL_HOME": str(tmp_path_factory.mktemp("home"))})) as opened:
        yield opened


@pytest.fixture(scope="module")
def dbt(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    return Dbt(stores, tmp_path_factory.mktemp("dbt"))


@pytest.fixture(scope="module")
def old(dbt: Dbt) -> dict[str, Node]:
    """The reports as they were: three dates, built and published."""
    for day, mark in OLD.items():
        land(dbt.stores, day, mark)
    nodes = dbt.build(list(OLD))
    publish(dbt.stores.postgres_url, list(OLD))
    return nodes


@pytest.fixture(scope="module")
def new(dbt: Dbt, old: dict[str, Node]) -> dict[str, Node]:
    """The reports as they will be, of some dates: built and not yet published."""
    for day in NEW_RUN:
        land(dbt.stores, day, NEW.get(day))
    return dbt.build(NEW_RUN)


@pytest.fixture(scope="module")
def broken(dbt: Dbt, new: dict[str, Node]) -> dict[str, Node]:
    """A run in which each data test has something to find, of a site of its own."""
    with psycopg.connect(dbt.stores.postgres_url) as connection:
        connection.execute(f"""
            insert into landing.arrivals values
                ('{CHANGED}T07:00Z', 'lost-line.example', 10, 9), ('{CHANGED}T07:00Z', 'lost-event.example', 5, 5);
            insert into landing.event_copies values
                ('{CHANGED}', '{CHANGED}T07:00Z', 'lost-line.example', 9, 0, 0),
                ('{CHANGED}', '{CHANGED}T07:00Z', 'lost-event.example', 2, 1, 1);
            insert into landing.site_days values ('{CHANGED}', 'lost-visit.example', 1, 1, '{{}}', 3, 3, 3, 1, 0);
            insert into landing.breakdowns values
                ('{CHANGED}', 'lost-visit.example', 'browser', 'Firefox', 1, 2, 3, 3, 2, 1, 0),
                ('{CHANGED}', 'lost-day.example', 'browser', 'Firefox', 1, 1, 1, 1, 1, 1, 0),
                ('{CHANGED}', 'unknown-dimension.example', 'weather', 'rain', 1, 1, 1, 1, 1, 1, 0);
            insert into landing.traffic values ('{CHANGED}T07:00Z', 'too-many-bounces.example', 1, 1, 1);
            insert into landing.visit_hours values ('{CHANGED}', '{CHANGED}T07:00Z', 'too-many-bounces.example', 1, 2, 0);
        """)
    return dbt.build([CHANGED])


def land(stores: Stores, day: str, mark: int | None) -> None:
    """Replaces a date's landing rows by consistent ones that carry the mark; by none without a mark."""
    with psycopg.connect(stores.postgres_url) as connection:
        for table in ("arrivals", "rejections", "traffic", "moving_averages"):
            connection.execute(f"delete from landing.{table} where (hour at time zone 'UTC')::date = '{day}'")
        for table in ("event_copies", "visit_hours", "site_days", "breakdowns"):
            connection.execute(f"delete from landing.{table} where date = '{day}'")
        if mark is None:
            return
        connection.execute(
            f"""insert into landing.arrivals values ('{day}T10:00Z', '{SITE}', {mark}, {mark - 1});
                insert into landing.rejections values ('{day}T10:00Z', '{SITE}', 'bad_url', 1);
                insert into landing.event_copies values ('{day}', '{day}T10:00Z', '{SITE}', {mark - 3}, 1, 1);
                insert into landing.traffic values ('{day}T10:00Z', '{SITE}', {mark}, {mark + 2}, 2);
                insert into landing.moving_averages values ('{day}T10:00Z', '{SITE}', 1, 2, 3, 4, 5, 6, 7, 8, {mark});
                insert into landing.visit_hours values ('{day}', '{day}T10:00Z', '{SITE}', 3, 1, 60000);
                insert into landing.site_days values ('{day}', '{SITE}', 2, 1, '{{{mark}}}', 3, {mark}, {mark + 2}, 1, 60000);
                insert into landing.breakdowns values
                    ('{day}', '{SITE}', 'browser', 'Firefox', 2, 3, {mark}, {mark + 2}, 3, 1, 60000);"""
        )


def outcomes(days: Sequence[str]) -> list[Outcome]:
    """What the ledger is told. Made from something else than what is there: so the dates are stale later on."""
    return [Outcome(day, {"breakdowns": "as it was"}, content="", rows=0, bytes=0) for day in days]


def publish(postgres_url: str, days: Sequence[str]) -> None:
    """Switches dates, in a session of its own."""
    with Ledger(postgres_url) as ledger, ledger.replacing("reports", ledger.next_version(), "1") as replacement:
        publish_reports(replacement, days, outcomes(days))


@contextmanager
def reader(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A transaction of several statements that sees one state of all report tables."""
    with psycopg.connect(postgres_url) as connection:
        connection.execute("set transaction isolation level repeatable read read only")
        for table in TABLES:
            connection.execute(f"lock table reports.{table} in access share mode")
        yield connection


def marks(connection: psycopg.Connection, table: str) -> dict[str, int]:
    """The dates of a report table, with the mark of each."""
    rows = connection.execute(
        f"select date::text, {MARKS[table]} from reports.{table} where site = '{SITE}'"
    ).fetchall()
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def all_marks(postgres_url: str) -> dict[str, dict[str, int]]:
    with reader(postgres_url) as connection:
        return {table: marks(connection, table) for table in TABLES}


def everywhere(state: dict[str, int]) -> dict[str, dict[str, int]]:
    return dict.fromkeys(TABLES, state)


def all_rows(postgres_url: str) -> dict[str, list[Any]]:
    """Every row of every report table."""
    with reader(postgres_url) as connection:
        return {
            table: connection.execute(
                f"select to_jsonb(t) from reports.{table} t order by to_jsonb(t)::text"
            ).fetchall()
            for table in TABLES
        }


def published(stores: Stores) -> dict[str, Any]:
    """What the ledger says of the report dates."""
    return {day: made for (asset, day), made in stores.ledger.state().published.items() if asset == "reports"}


def wait_until_blocked(postgres_url: str, sessions: int) -> None:
    """Until so many sessions wait for a lock."""
    deadline = time.monotonic() + 30
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        while connection.execute("select from pg_locks where not granted").rowcount != sessions:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def footfall(stores: Stores, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The command, with this test's home."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FOOTFALL_", "DAGSTER_"))}
    return subprocess.run(
        [PROGRAMS / "footfall", *arguments],
        env=environment | {"FOOTFALL_HOME": str(stores.settings.home)} | ELSEWHERE,
        cwd=stores.settings.home,
        capture_output=True,
        text=True,
        check=False,
    )


# What there is


def test_models_and_data_tests_pass(old: dict[str, Node]) -> None:
    statuses = {name: node.status for name, node in old.items()}
    assert {name for name, status in statuses.items() if status == "success"} >= set(TABLES)
    assert {name for name, status in statuses.items() if status == "pass"} == {
        "accounts_balance", "days_agree_with_breakdowns", "rates_are_within_bounds", "accepted_values",
    }  # fmt: skip


def test_all_is_described(dbt: Dbt, old: dict[str, Node]) -> None:
    manifest = dbt.manifest()
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    described = [*models, *manifest["sources"].values(), *manifest["unit_tests"].values()]
    assert [node["name"] for node in described if not node["description"]] == []
    columns = {
        (model["name"], column["name"]): column["description"]
        for model in models
        if "marts" in model["fqn"]
        for column in model["columns"].values()
    }
    assert [name for name, description in columns.items() if not description] == []
    with psycopg.connect(dbt.stores.postgres_url) as connection:
        found = connection.execute(
            "select table_name, column_name from information_schema.columns where table_schema = 'reports' and table_name = any(%s)",
            [list(TABLES)],
        ).fetchall()
    assert set(found) == set(columns)


def test_marts_have_contracts_and_unit_tests(dbt: Dbt, old: dict[str, Node]) -> None:
    manifest = dbt.manifest()
    marts = {
        node["name"]: node["config"]["contract"]["enforced"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and "marts" in node["fqn"]
    }
    assert marts == dict.fromkeys(TABLES, True)
    unit_tests = manifest["unit_tests"].values()
    assert {test["model"] for test in unit_tests} == set(TABLES)
    for test in unit_tests:
        assert "source('landing', 'run_dates')" in [given["input"] for given in test["given"]], test["name"]


def test_unit_tests_pass(dbt: Dbt, old: dict[str, Node]) -> None:
    names = {f"{test['model']}.{test['name']}" for test in dbt.manifest()["unit_tests"].values()}
    assert {name: node.status for name, node in dbt("test", "--select", "test_type:unit").items()} == dict.fromkeys(
        names, "pass"
    )


# The switch from `build` to `reports`


def test_switch_that_fails_changes_nothing(stores: Stores, new: dict[str, Node]) -> None:
    """Also for one who reads meanwhile."""
    ledger, url, before = stores.ledger, stores.postgres_url, published(stores)
    with ThreadPoolExecutor() as pool:
        with pytest.raises(KeyError, match="end"), ledger.replacing("reports", ledger.next_version(), "1") as switch:
            publish_reports(switch, NEW_RUN, outcomes(NEW_RUN))
            assert {table: marks(switch.connection, table) for table in TABLES} == everywhere(NEW)
            meanwhile = pool.submit(all_marks, url)
            wait_until_blocked(url, 1)
            raise KeyError("end")
        assert meanwhile.result(30) == everywhere(OLD)
    assert published(stores) == before


def test_older_version_does_not_switch(stores: Stores, new: dict[str, Node]) -> None:
    older = min(made.version for made in published(stores).values()) - 1
    with pytest.raises(Superseded), stores.ledger.replacing("reports", older, "1") as switch:
        publish_reports(switch, NEW_RUN, outcomes(NEW_RUN))
    assert all_marks(stores.postgres_url) == everywhere(OLD)


def test_readers_see_the_old_or_the_new_state(stores: Stores, new: dict[str, Node]) -> None:
    """One reads when the switch begins, the other comes while it goes on. A date that became empty loses its rows."""
    url = stores.postgres_url
    with ThreadPoolExecutor() as pool, reader(url) as early:
        seen = {TABLES[0]: marks(early, TABLES[0])}
        switch = pool.submit(publish, url, NEW_RUN)
        wait_until_blocked(url, 1)
        late = pool.submit(all_marks, url)
        wait_until_blocked(url, 2)
        seen |= {table: marks(early, table) for table in TABLES[1:]}
        early.rollback()
        switch.result(30)
        assert seen == everywhere(OLD)
        assert late.result(30) == everywhere(NEW)
    assert set(published(stores)) == OLD.keys() | NEW.keys()


# Data tests


def test_data_tests_find_what_is_wrong(stores: Stores, broken: dict[str, Node]) -> None:
    assert all(broken[table].status == "success" for table in TABLES)
    found = {name: node.failures for name, node in broken.items() if node.status == "fail"}
    assert found == {
        "accounts_balance": 2, "days_agree_with_breakdowns": 2, "rates_are_within_bounds": 1, "accepted_values": 1,
    }  # fmt: skip
    with psycopg.connect(stores.postgres_url) as connection:
        assert sites(connection, broken["accounts_balance"]) == {"lost-line.example", "lost-event.example"}
        assert sites(connection, broken["days_agree_with_breakdowns"]) == {"lost-visit.example", "lost-day.example"}
        assert sites(connection, broken["rates_are_within_bounds"]) == {"too-many-bounces.example"}


@pytest.mark.parametrize(
    ("test", "table", "change"),
    [
        *(
            ("accounts_balance", "report_pipeline_hours", f"{column} = {column} + 1")
            for column in ("received", "accepted", "counted", "bots", "duplicates", "rejected")
        ),
        *(
            ("days_agree_with_breakdowns", table, f"{column} = {column} + 1")
            for column in ("visits", "pageviews", "events", "bounces", "duration_ms")
            for table in ("report_site_days", "report_breakdown_days")
        ),
        *(
            ("days_agree_with_breakdowns", table, "site = 'other.example'")
            for table in ("report_site_days", "report_breakdown_days")
        ),
        *(
            ("rates_are_within_bounds", table, change)
            for change in (
                *("visitors = events + 1", "pageviews = events + 1", "visitors = -1", "pageviews = -1"),
                *("bounces = visits + 1", "bounces = -1", "duration_ms = -1"),
            )
            for table in ("report_site_hours", "report_site_days", "report_breakdown_days")
        ),
    ],
)
def test_data_tests_find_each_change(
    stores: Stores, broken: dict[str, Node], test: str, table: str, change: str
) -> None:
    """The query of a failed test, as dbt compiled it, on a table with one change."""
    with psycopg.connect(stores.postgres_url) as connection:
        assert SITE not in sites(connection, broken[test])
        assert connection.execute(f"update build.{table} set {change} where site = '{SITE}'").rowcount  # type: ignore[arg-type]
        assert sites(connection, broken[test]) & {SITE, "other.example"}
        connection.rollback()


def sites(connection: psycopg.Connection, test: Node) -> set[str]:
    """The sites of the rows that a test finds."""
    rows = connection.execute(sql.SQL("select site from ({}) as found").format(sql.SQL(test.query)))  # type: ignore[arg-type]
    return {site for (site,) in rows}


# The asset


def test_failed_data_test_leaves_reports_as_they_were(stores: Stores, broken: dict[str, Node]) -> None:
    before, ledger_before = all_rows(stores.postgres_url), published(stores)
    assert any(before.values())
    done = footfall(stores, "materialize")
    assert done.returncode == 1
    assert f"reports {APPEARED} to {UNTOUCHED}" in done.stderr
    assert "accounts_balance" in done.stderr
    assert (all_rows(stores.postgres_url), published(stores)) == (before, ledger_before)


def test_repaired_landing_is_published(stores: Stores, broken: dict[str, Node]) -> None:
    with psycopg.connect(stores.postgres_url) as connection:
        for table in ("arrivals", "event_copies", "site_days", "breakdowns", "traffic", "visit_hours"):
            connection.execute(f"delete from landing.{table} where site <> '{SITE}'")
    land(stores, CHANGED, 30)
    done = footfall(stores, "materialize")
    assert done.returncode == 0, done.stderr
    assert all_marks(stores.postgres_url) == everywhere(NEW | {CHANGED: 30})
    assert {made.inputs == {} for made in published(stores).values()} == {True}
