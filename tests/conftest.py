"""One embedded PostgreSQL for all tests, and a database of its own for each test that asks."""

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

NUMBERS = count(1)

hypothesis.settings.register_profile("footfall", deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
hypothesis.settings.load_profile("footfall")


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that runs until the last test is done."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as url:
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
def database(new_database: Callable[..., str], migrated: str) -> str:
    """The URL of a database with the schema and nothing in it."""
    return new_database(migrated)


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
