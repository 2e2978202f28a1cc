"""All four servers with TLS and passwords: from the door to the report, and what is refused."""

import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestion.event_log import EventLogUnavailable
from ingestion.event_store import EventStoreUnavailable, find_visitor, open_event_store
from ingestion.lake import LakeFailed
from ingestion.ledger import LedgerUnreachable
from ingestion.settings import Settings, from_environment
from ingestion.stores import ask_event_log, ask_event_store, open_stores
from orchestration.live import running_collector
from serving.report import report
from tests.services.stack import SecureStack

SITE = "shop.example"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def environment(secure_stack: SecureStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Of a home on the four servers."""
    start = str((datetime.now(UTC) - timedelta(days=2)).date())
    environment = {**secure_stack.environment, "FOOTFALL_HOME": str(tmp_path / "home"), "FOOTFALL_START": start}
    environment["FOOTFALL_EVENT_LOG_PARTITIONS"] = "2"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    before = dict(os.environ)
    yield environment
    os.environ.clear()
    os.environ.update(before)


def test_from_the_door_to_the_report_all_is_encrypted_and_verified(environment: dict[str, str]) -> None:
    settings = from_environment()
    assert settings.event_log and settings.event_log.tls and settings.event_log.password
    assert settings.event_store and settings.event_store.tls and settings.event_store.password
    assert os.environ["AWS_ENDPOINT_URL"].startswith("https://")
    with open_stores(settings) as stores:
        stores.ledger.add_site(SITE, "UTC")
        with running_collector(settings.home) as port:
            event = {"domain": SITE, "name": "pageview", "url": f"https://{SITE}/tea", "visitor_id": "v"}
            url, agent = f"http://127.0.0.1:{port}/api/event", {"User-Agent": FIREFOX}
            request = urllib.request.Request(url, json.dumps(event).encode(), agent)
            assert urllib.request.urlopen(request, timeout=30).status == 202
        from orchestration.environment import dagster_environment

        os.environ.update(dagster_environment(stores))
        assert os.environ["FOOTFALL_DBT_SSLMODE"] == "verify-full"
        from orchestration.materialize import materialize

        materialize(stores, None, None, datetime.now(UTC), lambda done, total, asset: None)
        assert report(stores, SITE, None, None)["totals"]["pageviews"] == 1
        with open_event_store(settings, stores.postgres_url) as store:
            visitor = find_visitor(store, SITE, "v")
            assert visitor and visitor.pageviews == 1


def use_event_log(settings: Settings) -> None:
    ask_event_log(settings, "")


def use_event_store(settings: Settings) -> None:
    ask_event_store(settings, "")


def use_stores(settings: Settings) -> None:
    with open_stores(settings):
        pass


def wrong_password(settings: Settings) -> Settings:
    assert settings.event_log and settings.event_store and settings.postgres
    password = settings.postgres.split(":")[2].split("@")[0]
    return replace(
        settings,
        event_log=replace(settings.event_log, password="wrong"),
        event_store=replace(settings.event_store, password="wrong"),
        postgres=settings.postgres.replace(password, "wrong"),
    )


Use = Callable[[Settings], None]
USES: list[tuple[Use, type[Exception], str]] = [
    (use_event_log, EventLogUnavailable, "FOOTFALL_EVENT_LOG"),
    (use_event_store, EventStoreUnavailable, "FOOTFALL_EVENT_STORE"),
    (use_stores, LedgerUnreachable, "FOOTFALL_POSTGRES"),
]


@pytest.mark.parametrize(("use", "error", "setting"), USES)
def test_a_server_whose_certificate_is_of_another_ca_is_refused(
    environment: dict[str, str], secure_stack: SecureStack, use: Use, error: type[Exception], setting: str
) -> None:
    other = secure_stack.certificates.ca.with_name("other.pem")
    with pytest.raises(error, match=r"certificate|CERTIFICATE") as problem:
        use(
            from_environment(
                {**environment, "FOOTFALL_CA": str(other), "FOOTFALL_POSTGRES": wrong_ca(environment, other)}
            )
        )
    assert setting in str(problem.value)
    assert_no_secret(environment, problem.value)


def wrong_ca(environment: dict[str, str], other: Path) -> str:
    """The URL of PostgreSQL, if it names the CA itself."""
    url, _, options = environment["FOOTFALL_POSTGRES"].partition("?")
    return (
        environment["FOOTFALL_POSTGRES"]
        if "sslrootcert" not in options
        else f"{url}?sslmode=verify-full&sslrootcert={other}"
    )


def test_an_s3_server_whose_certificate_is_of_another_ca_is_refused(
    environment: dict[str, str], secure_stack: SecureStack
) -> None:
    other = secure_stack.certificates.ca.with_name("other.pem")
    with pytest.raises(LakeFailed, match=r"FOOTFALL_LAKE, at https://.*certificate is not trusted.*FOOTFALL_CA"):
        use_stores(replace(from_environment(environment), ca=other))


@pytest.mark.parametrize(("use", "error", "setting"), USES)
def test_a_wrong_password_is_refused_and_not_told(
    environment: dict[str, str], use: Use, error: type[Exception], setting: str
) -> None:
    with pytest.raises(error) as problem:
        use(wrong_password(from_environment(environment)))
    assert setting in str(problem.value)
    assert_no_secret(environment, problem.value)


def assert_no_secret(environment: dict[str, str], problem: BaseException) -> None:
    secrets = [url.split("@")[0].rpartition(":")[2] for name, url in environment.items() if "@" in url]
    assert len(secrets) == 3
    assert not any(secret in str(problem) for secret in secrets)
