"""The stores, opened together: the settings, the ledger (PostgreSQL) and the lake."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ingestion.event_log import open_event_log
from ingestion.event_store import open_event_store
from ingestion.lake import Lake
from ingestion.ledger import Ledger
from ingestion.postgres import running_postgres
from ingestion.settings import Settings
from ingestion.sweep import claim


@dataclass(frozen=True)
class Stores:
    """What commands and assets work on. `postgres_url` is for those who need a connection of their own."""

    settings: Settings
    ledger: Ledger
    lake: Lake
    postgres_url: str


@contextmanager
def open_postgres(settings: Settings) -> Iterator[str]:
    """The URL of the PostgreSQL that the settings name, or of the embedded one, which runs meanwhile."""
    if settings.postgres:
        yield settings.postgres
    else:
        with running_postgres(settings.home) as url:
            yield url


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Everything that is read and written, with its schema up to date."""
    with open_postgres(settings) as url, Ledger(url) as ledger:
        ledger.migrate()
        lake = Lake(settings.lake, settings.ca)
        claim(ledger, lake)
        yield Stores(settings, ledger, lake, url)


def ask_event_log(settings: Settings, postgres_url: str) -> None:
    """Raises EventLogUnavailable where the event log does not answer, or breaks a rule. Makes its topic where there is none."""
    with open_event_log(settings, postgres_url) as log:
        log.partitions()


def ask_event_store(settings: Settings, postgres_url: str) -> None:
    """Raises EventStoreUnavailable where the event store does not answer. Makes its tables where there are none."""
    with open_event_store(settings, postgres_url) as store:
        store.visitor_hours("", "")
