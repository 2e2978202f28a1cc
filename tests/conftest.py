"""One embedded PostgreSQL for all tests, and an empty database for each test that asks."""

import atexit
import os
import shutil
import tempfile

# Dagster's graph, and with it the first partition, is made once in a process: it must be there for every test's dates.
os.environ["FOOTFALL_START"] = "2015-05-01"
os.environ["FOOTFALL_HOME"] = tempfile.mkdtemp(prefix="footfall-tests-")
atexit.register(shutil.rmtree, os.environ["FOOTFALL_HOME"], ignore_errors=True)

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import hypothesis
import psycopg
import pytest

from ingestion.ledger import Ledger
from ingestion.postgres import running_postgres
from ingestion.settings import Settings, from_environment
from ingestion.stores import Stores, open_stores
from tests.services.stack import cassandra, certificates, full_stack, kafka, postgresql, programs, s3, secure_stack  # noqa: F401  fixtures

NUMBERS = count(1)
EMPTIED = "emptied"
EMPTY = """
    do $$
    declare name text;
    begin
        perform pg_terminate_backend(pid, 5000) from pg_stat_activity  -- what a failed test left
            where datname = current_database() and pid <> pg_backend_pid();
        set local session_replication_role = replica;                  -- in any order
        for name in select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('footfall', 'landing', 'store')
        loop
            execute 'delete from ' || name;
        end loop;
    end $$"""

hypothesis.settings.register_profile("footfall", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("footfall")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that runs until the last test is done."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as url:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute("alter system set fsync = off")  # no test turns the machine off
            server.execute("select pg_reload_conf()")
        yield url


@pytest.fixture(scope="session")
def migrated(postgres_url: str) -> str:
    """The name of a database with the schema and nothing in it, to be copied."""
    with Ledger(_create(postgres_url, "migrated")) as ledger:
        ledger.migrate()
    return "migrated"


@pytest.fixture
def new_database(postgres_url: str) -> Iterator[Callable[..., str]]:
    """Makes a database, empty or a copy of another, and gives its URL."""
    made = []

    def make(template: str = "template1") -> str:
        made.append(f"test_{next(NUMBERS)}")
        return _create(postgres_url, made[-1], template)

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as server:
        for name in made:
            server.execute(f"drop database {name} with (force)")


@pytest.fixture
def database(postgres_url: str, migrated: str) -> str:
    """The URL of a database with the schema and nothing in it: emptied, which is quicker than made, for each test."""
    url = postgres_url.replace("/footfall?", f"/{EMPTIED}?")
    with psycopg.connect(postgres_url, autocommit=True) as server:
        if not server.execute("select from pg_database where datname = %s", [EMPTIED]).rowcount:
            _create(postgres_url, EMPTIED, migrated)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(EMPTY)
    return url


@pytest.fixture
def settings(tmp_path: Path, database: str) -> Settings:
    return from_environment(
        {"FOOTFALL_HOME": str(tmp_path / "home"), "FOOTFALL_START": "2015-01-01", "FOOTFALL_POSTGRES": database}
    )


@pytest.fixture
def stores(settings: Settings) -> Iterator[Stores]:
    """An empty ledger and an empty lake."""
    with open_stores(settings) as stores:
        yield stores


def _create(server_url: str, name: str, template: str = "template1") -> str:
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"create database {name} template {template}")
    return server_url.replace("/footfall?", f"/{name}?")
