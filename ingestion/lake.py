"""The lake: immutable objects in a directory or on S3. What exists for a reader is what the ledger lists, nothing else."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
import polars as pl
from obstore.exceptions import BaseError, NotFoundError, PermissionDeniedError
from obstore.store import LocalStore, ObjectStore, from_url


class LakeFailed(Exception):
    """The lake cannot be read or written. The message names the object and the way out."""


class ListedObjectGone(LakeFailed):
    """An object that the ledger lists is not there, or is not what was listed."""


@dataclass(frozen=True)
class LakeObject:
    """An object as the ledger lists it: `digest` is the BLAKE2b of its bytes."""

    name: str
    rows: int
    bytes: int
    digest: str


class Lake:
    """Objects by name under one URL (file:///folder or s3://bucket/prefix)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = _open(url)

    def put(self, name: str, data: bytes, rows: int) -> LakeObject:
        """Writes an object whole; a write that breaks off leaves nothing that a reader sees. Raises LakeFailed."""
        try:
            obstore.put(self._store, name, data)
        except (BaseError, OSError) as problem:
            raise LakeFailed(f"could not write {name} to {self.url}: {_reason(problem)}") from problem
        return LakeObject(name, rows, len(data), digest_of(data))

    def put_parquet(self, name: str, frame: pl.DataFrame) -> LakeObject:
        """Writes a frame as one Parquet object."""
        data = BytesIO()
        frame.write_parquet(data, compression="zstd", compression_level=1)
        return self.put(name, data.getbuffer().tobytes(), frame.height)

    def get(self, name: str) -> bytes:
        """An object's bytes. Raises LakeFailed if it is gone."""
        try:
            return obstore.get(self._store, name).bytes().to_bytes()
        except (BaseError, OSError) as problem:
            raise LakeFailed(f"could not read {name} from {self.url}: {_reason(problem)}") from problem

    def get_listed(self, item: LakeObject) -> bytes:
        """A listed object's bytes. Raises ListedObjectGone unless they are what was listed."""
        data = self.find(item.name)
        if data is None:
            raise ListedObjectGone(f"could not read {item.name} from {self.url}: it is not there")
        if digest_of(data) != item.digest:
            raise ListedObjectGone(f"{item.name} has changed")
        return data

    def find(self, name: str) -> bytes | None:
        """An object's bytes; None if it is not there. Raises LakeFailed."""
        try:
            return self.get(name)
        except LakeFailed as problem:
            if isinstance(problem.__cause__, NotFoundError | FileNotFoundError):
                return None
            raise

    def scan_parquet(self, names: Sequence[str], **options: object) -> pl.LazyFrame:
        """The rows of some Parquet objects, read when collected."""
        return pl.scan_parquet([self._location(name) for name in names], glob=False, **options)  # type: ignore[arg-type]

    def names(self) -> Iterator[tuple[str, datetime]]:
        """Every object that is there, listed or not, and when it was written."""
        for page in obstore.list(self._store):
            for found in page:
                yield found["path"], found["last_modified"]

    def delete(self, names: Sequence[str]) -> None:
        """Removes objects; those that are gone already do not matter. Raises LakeFailed."""
        try:
            obstore.delete(self._store, list(names))
        except (NotFoundError, FileNotFoundError):
            if len(names) > 1:  # a directory's store gives up at the first that is gone
                for name in names:
                    self.delete([name])
        except (BaseError, OSError) as problem:
            raise LakeFailed(f"could not remove objects from {self.url}: {_reason(problem)}") from problem

    def _location(self, name: str) -> str:
        if self.url.startswith("file://"):
            return str(_directory(self.url) / name)
        return f"{self.url}/{name}"


def digest_of(data: bytes) -> str:
    """The BLAKE2b of some bytes (128 bits), in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _open(url: str) -> ObjectStore:
    if not url.startswith("file://"):
        return from_url(url)
    directory = _directory(url)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return LocalStore(str(directory), automatic_cleanup=False)
    except (BaseError, OSError) as problem:
        raise LakeFailed(f"the lake's directory {directory} cannot be used: {_reason(problem)}") from problem


def _directory(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _reason(problem: Exception) -> str:
    if isinstance(problem, PermissionDeniedError | PermissionError) or "ermission denied" in str(problem):
        return "permission denied (check the owner and the mode of the directory)"
    if isinstance(problem, NotFoundError | FileNotFoundError):
        return "it is not there"
    return str(problem).splitlines()[0]
