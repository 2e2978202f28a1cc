"""Jars of Kafka and Cassandra: from Maven Central, by the coordinates and checksums of jars.lock, kept for all homes of a user.

~/.cache/footfall/jars/<group>/<artifact>/<version>/<file>   or under XDG_CACHE_HOME
"""

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from orchestration.progress import progress_bar
from orchestration.services.service import ProgramMissing, ServiceFailed

LOCK = Path(__file__).with_name("jars.lock")
CONNECTIONS = 8
TRIES = 3
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """A line of the lock: group:artifact:version[:classifier], and the SHA-256 of the file."""

    coordinates: str
    sha256: str

    @property
    def path(self) -> str:
        """Where it lies in a Maven repository: https://maven.apache.org/repository/layout.html"""
        group, artifact, version, *classifier = self.coordinates.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{'-'.join((artifact, version, *classifier))}.jar"


def cache_folder() -> Path:
    """What is kept for all homes of a user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "footfall")


def locked(name: str, lock: Path = LOCK) -> list[Jar]:
    """The jars of a service, from its section of the lock."""
    section = lock.read_text().partition(f"\n[{name}]\n")[2].partition("\n[")[0]
    return [Jar(*line.split()) for line in section.splitlines() if line]


def fetch_jars(name: str, maven: str, jars: Sequence[Jar]) -> list[Path]:
    """The files of these jars, downloaded where they are missing or not what the lock says. Raises ServiceFailed."""
    folder = cache_folder() / "jars"
    files = [folder / jar.path for jar in jars]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        missing = [jar for jar, right in zip(jars, threads.map(_is_right, jars, files), strict=True) if not right]
    if missing:
        _download_all(name, maven, missing, folder)
    return files


def _is_right(jar: Jar, file: Path) -> bool:
    """Read as a whole at every start: 0.2 s for all, and a cache that is damaged mends itself."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest() == jar.sha256
    except FileNotFoundError:
        return False


def _download_all(name: str, maven: str, jars: Sequence[Jar], folder: Path) -> None:
    with progress_bar(f"Downloading {name}", "jars") as progress, ThreadPoolExecutor(CONNECTIONS) as threads:
        try:
            downloads = [threads.submit(_download, jar, maven, folder / jar.path) for jar in jars]
            for done, download in enumerate(as_completed(downloads), start=1):
                download.result()
                progress(done, len(jars))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _download(jar: Jar, maven: str, file: Path) -> None:
    """It has its name only when it is whole and right."""
    content = _content(f"{maven.rstrip('/')}/{jar.path}")
    found = hashlib.sha256(content).hexdigest()
    if found != jar.sha256:
        raise ServiceFailed(
            f"{jar.coordinates} from {maven} is not what {LOCK.name} says: its SHA-256 is {found}, and not {jar.sha256}. "
            "It was not kept. Look at FOOTFALL_MAVEN, and at proxies on the way."
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as new:
        new.write(content)
    Path(new.name).rename(file)


def _content(url: str) -> bytes:
    for tries_left in reversed(range(TRIES)):
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
                content: bytes = response.read()
                return content
        except (OSError, HTTPException) as problem:
            if not tries_left:
                raise ProgramMissing(
                    f"{url} cannot be downloaded: {problem}. Look at the network, or set FOOTFALL_MAVEN to a mirror."
                ) from problem
    raise AssertionError(TRIES)
