"""Imports into empty stores, and what they leave there; commands by a user who may not write everywhere."""

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard

import ingestion
from ingestion.files import no_progress
from ingestion.importer import Imported, import_access_log, import_events
from ingestion.lake import digest_of
from ingestion.stores import Stores
from ingestion.sweep import MARK

NOW = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
AS_NOBODY = """
import importlib, os, sys
for module in ("files", "importer", "lake", "postgres", "settings", "stores"):
    importlib.import_module(f"ingestion.{module}")  # before the rights go: others may not be able to enter this folder
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


class Imports:
    """Imports of files that are made up, and what is there afterwards."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self.stores, self.folder = stores, folder

    def file(self, content: bytes | Sequence[str | bytes | dict[str, Any]], name: str = "file") -> Path:
        """A file of some bytes, or of lines: text, or the fields of events."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else b"".join(_bytes(line) + b"\n" for line in content))
        return path

    def log(self, content: Any, site: str = "shop.example", name: str = "file", now: datetime = NOW) -> Imported:
        file = content if isinstance(content, Path) else self.file(content, name)
        return import_access_log(
            file, site, self.stores.settings, self.stores.ledger, self.stores.lake, now, no_progress
        )

    def events(self, content: Any, name: str = "file", now: datetime = NOW) -> Imported:
        file = content if isinstance(content, Path) else self.file(content, name)
        return import_events(file, self.stores.settings, self.stores.ledger, self.stores.lake, now, no_progress)

    def raw(self) -> list[dict[str, Any]]:
        """The raw lines of all listed objects, in order, each with the arrival hour and the object that it is in."""
        return [
            json.loads(line) | {"hour": hour, "object": name}
            for hour, name in self.query("select hour, name from footfall.raw_objects order by name")
            for line in self.unpacked(name).splitlines()
        ]

    def objects(self) -> set[str]:
        """All objects that are in the lake, listed or not; without the one that says whose lake it is."""
        return {name for name, _ in self.stores.lake.names()} - {MARK}

    def unpacked(self, name: str) -> bytes:
        return zstandard.decompress(self.stores.lake.get(name))

    def query(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stores.postgres_url, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def everything(self) -> dict[str, list[str]]:
        """All rows of all tables of the ledger and of landing, and all objects of the lake with a digest of each."""
        tables = self.query(
            "select schemaname || '.' || tablename from pg_tables where schemaname in ('footfall', 'landing') order by 1"
        )
        rows = {
            table: [row for (row,) in self.query(f"select t::text from {table} t order by 1")] for (table,) in tables
        }
        lake = self.stores.lake
        return rows | {"lake": sorted(f"{name} {digest_of(lake.get(name))}" for name in self.objects())}

    def nothing_imported(self) -> bool:
        listed = self.query("select from footfall.imports union all select from footfall.raw_objects")
        return not listed and not self.query("select from footfall.sites") and not self.objects()


def _bytes(line: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(line, dict):
        return json.dumps(line).encode()
    return line.encode() if isinstance(line, str) else line


@pytest.fixture
def imports(stores: Stores, tmp_path: Path) -> Imports:
    return Imports(stores, tmp_path)


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """The fields of an event, by their long names."""

    def make(**fields: Any) -> dict[str, Any]:
        usual = {"domain": "shop.example", "name": "pageview", "url": "https://shop.example/"}
        return usual | {"timestamp": "2015-05-17T10:05:03Z"} | fields

    return make


@pytest.fixture
def gzipped() -> Callable[[bytes], bytes]:
    return lambda content: gzip.compress(content, mtime=0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="footfall-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def as_nobody() -> Callable[..., str]:
    """Runs Python as a user without rights; gives what it printed."""

    def run(code: str, *arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY + code, *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(ingestion.__file__).parents[1])},
        )
        return done.stdout + done.stderr

    return run
