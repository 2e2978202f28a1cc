"""Full size on one machine: real Kafka, Cassandra, S3 and PostgreSQL under home/services, without Docker and without root.

They run on when the command that started them ends, and keep ports and passwords of their first start. Which process is whose is
read from command lines, so that `stop` finds them whoever was killed in the meantime. See service.py for what lies where.
"""

import fcntl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from ingestion.settings import MAVEN_CENTRAL
from orchestration.services.cassandra import Cassandra
from orchestration.services.kafka import Kafka
from orchestration.services.postgresql import PostgreSQL
from orchestration.services.s3 import S3
from orchestration.services.service import Certificates, ProgramMissing, Service, ServiceFailed, bring_up

__all__ = [
    "NAMES",
    "Certificates",
    "ProgramMissing",
    "Service",
    "ServiceFailed",
    "environment_of",
    "find_services",
    "running_services",
    "services_folder",
    "start_services",
    "stop_services",
]

CLASSES: Mapping[str, type[Service]] = {service.name: service for service in (Kafka, Cassandra, S3, PostgreSQL)}
NAMES = tuple(CLASSES)


def services_folder(home: Path) -> Path:
    """Where a home has its services."""
    return home / "services"


def find_services(
    folder: Path,
    names: Sequence[str] = NAMES,
    secure: Certificates | None = None,
    usual_ports: bool = True,
    maven: str = MAVEN_CENTRAL,
) -> dict[str, Service]:
    """The services of a folder, by name, as they are: running or not."""
    return {name: CLASSES[name](folder, secure, usual_ports, maven) for name in names}


def start_services(
    folder: Path,
    names: Sequence[str] = NAMES,
    secure: Certificates | None = None,
    usual_ports: bool = True,
    maven: str = MAVEN_CENTRAL,
) -> dict[str, Service]:
    """Starts those that do not run and waits until all are ready. Raises ServiceFailed, PostgresFailed.

    With certificates they take TLS only and a password. The usual ports are taken where they are free at the first start.
    """
    services = find_services(folder, names, secure, usual_ports, maven)
    with _one_at_a_time(folder):
        bring_up(list(services.values()))
    return services


def stop_services(folder: Path, names: Sequence[str] = NAMES) -> list[str]:
    """Ends them, side by side. The names of those that ran. What a start makes at the moment is waited for."""
    if not folder.exists():
        return []
    services = find_services(folder, names).values()
    with _one_at_a_time(folder), ThreadPoolExecutor(len(CLASSES)) as threads:
        return [
            service.name
            for service, ran in zip(services, threads.map(lambda each: each.stop(), services), strict=True)
            if ran
        ]


def environment_of(services: Mapping[str, Service]) -> dict[str, str]:
    """The variables with which Footfall uses these services."""
    return {name: value for service in services.values() for name, value in service.environment.items()}


@contextmanager
def running_services(
    folder: Path, names: Sequence[str] = NAMES, secure: Certificates | None = None, maven: str = MAVEN_CENTRAL
) -> Iterator[dict[str, Service]]:
    """Services for as long as this lasts, at ports that others do not take. They end with this process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "orchestration.services.watch", str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield start_services(folder, names, secure, usual_ports=False, maven=maven)
    finally:
        watcher.communicate()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "services.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
