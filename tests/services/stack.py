"""Fixtures: real Kafka, Cassandra, S3 and PostgreSQL, started when a test first asks, ended with the session."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from ingestion.settings import from_environment
from orchestration.services import (
    NAMES,
    Certificates,
    ProgramMissing,
    Service,
    environment_of,
    find_services,
    running_services,
)
from tests.services.tls import issue_certificates, tls_door


@dataclass(frozen=True)
class SecureStack:
    """All four with TLS and passwords."""

    services: dict[str, Service]
    environment: dict[str, str]
    certificates: Certificates


def _for_the_session(server: str) -> Callable[..., Iterator[Service]]:
    @pytest.fixture(scope="session", name=server)
    def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
        with _running(tmp_path_factory, server) as services:
            yield services[server]

    return started


kafka = _for_the_session("kafka")
cassandra = _for_the_session("cassandra")
s3 = _for_the_session("s3")
"""Its bucket `footfall` is there; another is a folder beside it, in s3.data."""
postgresql = _for_the_session("postgresql")
"""Over TCP, with a password. Tests that only need a database take `database`."""


@pytest.fixture(scope="session")
def full_stack(kafka: Service, cassandra: Service, s3: Service, postgresql: Service) -> dict[str, str]:
    """The environment in which Footfall uses all four."""
    return environment_of({service.name: service for service in (kafka, cassandra, s3, postgresql)})


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """With which servers on this machine prove who they are; other.pem beside them is of another CA."""
    other = issue_certificates(tmp_path_factory.mktemp("other"))
    found = issue_certificates(tmp_path_factory.mktemp("certificates"))
    other.ca.rename(found.ca.with_name("other.pem"))
    return found


@pytest.fixture(scope="module")
def secure_stack(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SecureStack]:
    """All four with TLS and passwords, for one module: they take 2 GB."""
    with _running(tmp_path_factory, *NAMES, secure=certificates) as services:
        plain, port = services["postgresql"].url, services["postgresql"].port
        with tls_door(port, certificates) as door:
            verified = plain.replace(f":{port}/", f":{door}/").replace("?sslmode=disable", "")
            own = {"FOOTFALL_POSTGRES": verified, "FOOTFALL_CA": str(certificates.ca)}
            yield SecureStack(services, environment_of(services) | own, certificates)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The programs of all four are downloaded, or built."""
    with _skipped_without_programs():
        for service in find_services(tmp_path_factory.getbasetemp(), maven=from_environment().maven).values():
            service.fetch()


@contextmanager
def _running(
    factory: pytest.TempPathFactory, *names: str, secure: Certificates | None = None
) -> Iterator[dict[str, Service]]:
    folder = factory.mktemp("services")
    with ExitStack() as running:
        with _skipped_without_programs():
            services = running.enter_context(running_services(folder, names, secure, from_environment().maven))
        yield services
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _skipped_without_programs() -> Iterator[None]:
    """Never in continuous integration."""
    try:
        yield
    except ProgramMissing as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(problem))
