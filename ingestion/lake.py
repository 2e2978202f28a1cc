"""The lake: immutable objects in a directory or on S3. What exists for a reader is what the ledger lists, nothing else.

S3 and what speaks its protocol is reached as the standard variables say: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY and their like, or a role. What can pass is tried again for some seconds, by the client.
"""

import hashlib
import os
import re
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
    """Objects by name under one URL (file:///folder or s3://bucket/prefix). `ca` verifies servers, instead of the system's."""

    def __init__(self, url: str, ca: Path | None = None) -> None:
        self.url = url
        self._options = _s3_options(ca) if url.startswith("s3://") else {}
        self._store = _open(url, self._options)

    def put(self, name: str, data: bytes, rows: int) -> LakeObject:
        """Writes an object whole; a write that breaks off leaves nothing that a reader sees. Raises LakeFailed."""
        try:
            obstore.put(self._store, name, data)
        except (BaseError, OSError) as problem:
            raise self._failed(f"write {name} to", problem) from problem
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
            raise self._failed(f"read {name} from", problem) from problem

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
            answer = _S3_ERROR.search(str(problem.__cause__))
            is_missing = isinstance(problem.__cause__, NotFoundError | FileNotFoundError)
            if is_missing and (answer is None or answer["code"] == "NoSuchKey"):  # not the bucket, nor the user
                return None
            raise

    def read_parquet(
        self, names: Sequence[str], columns: Sequence[str] | None = None, where: pl.Expr | None = None
    ) -> pl.DataFrame:
        """The rows of some Parquet objects, or those of their columns and rows that are wanted. Raises LakeFailed."""
        locations = [self._location(name) for name in names]
        scan = pl.scan_parquet(locations, glob=False, storage_options=self._options or None)
        scan = scan if columns is None else scan.select(columns)
        scan = scan if where is None else scan.filter(where)
        try:
            return scan.collect()
        except (OSError, pl.exceptions.PolarsError) as problem:
            raise self._failed("read Parquet from", problem) from problem

    def names(self) -> Iterator[tuple[str, datetime]]:
        """Every object that is there, listed or not, and when it was written. Raises LakeFailed."""
        try:
            for page in obstore.list(self._store):
                for found in page:
                    yield found["path"], found["last_modified"]
        except (BaseError, OSError) as problem:
            raise self._failed("list", problem) from problem

    def delete(self, names: Sequence[str]) -> None:
        """Removes objects; those that are gone already do not matter. Raises LakeFailed."""
        try:
            obstore.delete(self._store, list(names))
        except (NotFoundError, FileNotFoundError):
            if len(names) > 1:  # a directory's store gives up at the first that is gone
                for name in names:
                    self.delete([name])
        except (BaseError, OSError) as problem:
            raise self._failed("remove objects from", problem) from problem

    def _failed(self, verb: str, problem: Exception) -> LakeFailed:
        server = f" (FOOTFALL_LAKE, at {_endpoint()})" if self._options else ""
        return LakeFailed(f"could not {verb} {self.url}{server}: {_reason(problem)}")

    def _location(self, name: str) -> str:
        if self.url.startswith("file://"):
            return str(_directory(self.url) / name)
        return f"{self.url}/{name}"


def digest_of(data: bytes) -> str:
    """The BLAKE2b of some bytes (128 bits), in hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _s3_options(ca: Path | None) -> dict[str, str]:
    """What obstore and Polars are told beside the AWS variables, which both read."""
    if ca:
        os.environ["SSL_CERT_FILE"] = str(ca)  # the only way that both have
    return {"aws_allow_http": str(_endpoint().startswith("http://")).lower()}


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def _open(url: str, options: dict[str, str]) -> ObjectStore:
    if not url.startswith("file://"):
        return from_url(url, client_options={"allow_http": options["aws_allow_http"] == "true"})
    directory = _directory(url)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return LocalStore(str(directory), automatic_cleanup=False)
    except (BaseError, OSError) as problem:
        raise LakeFailed(f"the lake's directory {directory} cannot be used: {_reason(problem)}") from problem


def _directory(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


_S3_ERROR = re.compile("<Code>(?P<code>[^<]*)</Code>\\s*(?:<Message>(?P<message>[^<]*)</Message>)?")
_CERTIFICATE = re.compile(r"InvalidCertificate\(\s*(\w+)|invalid peer certificate: (\w+)")
_INNERMOST = re.compile(r"""(?:message|error): "([^"]+)"|^ +\d+: (.+)\s*\Z""", re.MULTILINE)
"""As obstore and as Polars tell it."""


def _reason(problem: Exception) -> str:
    """What went wrong, in a line. What S3 answers is not quoted whole: it holds the access key's name."""
    said = str(problem)
    if answer := _S3_ERROR.search(said):
        return f"{answer['code']}: {answer['message'] or 'no more is said'}"
    if certificate := _CERTIFICATE.search(said):
        return f"the server's certificate is not trusted ({certificate[1] or certificate[2]}): set FOOTFALL_CA to the file of its CA"
    if isinstance(problem, PermissionDeniedError | PermissionError) or "ermission denied" in said:
        return "permission denied (check the owner and the mode of the directory)"
    if isinstance(problem, NotFoundError | FileNotFoundError):
        return "it is not there"
    if innermost := _INNERMOST.search(said):
        return innermost[1] or innermost[2]
    return said.splitlines()[0]
