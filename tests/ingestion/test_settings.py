"""Settings: their defaults, and messages that name the variable, the value and the way out."""

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from ingestion.settings import Address, Cluster, Settings, SettingsError, from_environment


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path.resolve() / ".footfall"
    assert from_environment({}) == Settings(
        home=home,
        start=datetime(2020, 1, 1, tzinfo=UTC),
        event_log=None,
        event_log_partitions=12,
        event_store=None,
        event_store_days=400,
        postgres=None,
        ca=None,
        lake=(home / "lake").as_uri(),
        buckets=1,
        chunk_rows=100_000,
        chunk_hours=336,
        chunk_dates=31,
        collector=Address("127.0.0.1", 8000),
        dagster=Address("127.0.0.1", 3000),
        any_site=False,
        trusted_proxies=(ip_network("127.0.0.0/8"), ip_network("::1/128")),
        hourly_minutes=15,
        daily_minutes=30,
        maven="https://repo1.maven.org/maven2",
    )


def test_an_empty_value_is_the_default() -> None:
    names = ["HOME", "START", "POSTGRES", "LAKE", "BUCKETS", "CHUNK_ROWS", "CHUNK_HOURS", "CHUNK_DATES"]
    names += ["EVENT_LOG", "EVENT_LOG_PARTITIONS", "EVENT_STORE", "EVENT_STORE_DAYS", "CA"]
    names += ["COLLECTOR", "DAGSTER", "ANY_SITE", "HOURLY_MINUTES", "DAILY_MINUTES", "MAVEN"]
    assert from_environment({f"FOOTFALL_{name}": "" for name in names}) == from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "field", "wanted"),
    [
        ("START", "2015-05-17", "start", datetime(2015, 5, 17, tzinfo=UTC)),
        ("START", "2015-05-17T10", "start", datetime(2015, 5, 17, 10, tzinfo=UTC)),
        ("START", "2015-05-17T10:59:59.9", "start", datetime(2015, 5, 17, 10, tzinfo=UTC)),
        ("START", "2015-05-17T10:00+05:30", "start", datetime(2015, 5, 17, 4, tzinfo=UTC)),
        ("START", "1999-01-01", "start", datetime(1999, 1, 1, tzinfo=UTC)),
        ("EVENT_LOG", "kafka://h/t", "event_log", Cluster((Address("h", 9092),), "t", None, None, tls=False)),
        (
            "EVENT_STORE",
            "cassandra://a,[::1]:7/k?tls=yes",
            "event_store",
            Cluster((Address("a", 9042), Address("::1", 7)), "k", None, None, tls=True),
        ),
        (
            "EVENT_STORE",
            "cassandra://u:p%40%3A@h/k",
            "event_store",
            Cluster((Address("h", 9042),), "k", "u", "p@:", tls=True),
        ),
        ("EVENT_LOG", "kafka://u:p@h:1/t?tls=no", "event_log", Cluster((Address("h", 1),), "t", "u", "p", tls=False)),
        ("EVENT_LOG_PARTITIONS", "64", "event_log_partitions", 64),
        ("EVENT_STORE_DAYS", "30", "event_store_days", 30),
        ("POSTGRES", "postgresql://u:p@127.0.0.1/d", "postgres", "postgresql://u:p@127.0.0.1/d"),
        ("POSTGRES", "postgres://localhost:7/d", "postgres", "postgres://localhost:7/d"),
        ("POSTGRES", "postgresql://[::1]/d", "postgres", "postgresql://[::1]/d"),
        ("POSTGRES", "postgresql://u@/d?host=/tmp/x", "postgres", "postgresql://u@/d?host=/tmp/x"),
        ("POSTGRES", "postgresql://h/d?sslmode=disable", "postgres", "postgresql://h/d?sslmode=disable"),
        ("LAKE", "file:///srv/lake/", "lake", "file:///srv/lake"),
        ("LAKE", "file:///", "lake", "file:///"),
        ("LAKE", "s3://bucket/prefix/", "lake", "s3://bucket/prefix"),
        ("HOME", "/srv/foot fall", "lake", "file:///srv/foot%20fall/lake"),
        ("HOME", "/srv/a?b#c", "lake", "file:///srv/a%3Fb%23c/lake"),
        ("HOME", "/srv/../opt", "home", Path("/opt")),
        ("MAVEN", "https://mirror.example/maven/", "maven", "https://mirror.example/maven"),
        ("HOME", "~/f", "home", Path.home().resolve() / "f"),
        ("BUCKETS", "4096", "buckets", 4096),
        ("CHUNK_ROWS", "1", "chunk_rows", 1),
        ("CHUNK_HOURS", "24", "chunk_hours", 24),
        ("CHUNK_DATES", "7", "chunk_dates", 7),
        ("COLLECTOR", "0.0.0.0:80", "collector", ("0.0.0.0", 80)),
        ("COLLECTOR", "[::1]:8000", "collector", ("::1", 8000)),
        ("ANY_SITE", "yes", "any_site", True),
        ("TRUSTED_PROXIES", "", "trusted_proxies", ()),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/8, 192.0.2.7",
            "trusted_proxies",
            (ip_network("10.0.0.0/8"), ip_network("192.0.2.7")),
        ),
        ("HOURLY_MINUTES", "5", "hourly_minutes", 5),
    ],
)
def test_a_value(name: str, value: str, field: str, wanted: object) -> None:
    assert getattr(from_environment({f"FOOTFALL_{name}": value}), field) == wanted


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("START", "yesterday", "like 2020-01-01"),
        ("START", "2020-02-30", "like 2020-01-01"),
        ("START", "0001-01-01T00+10:00", "like 2020-01-01"),
        ("START", "9999-12-31T23-05:00", "like 2020-01-01"),
        ("LAKE", "/srv/lake", "file:// or s3://"),
        ("LAKE", "http://bucket", "file:// or s3://"),
        ("LAKE", "file://lake", "file:///"),
        ("LAKE", "file://", "file:///"),
        ("HOME", "~nobody-has-this-name/f", "folder"),
        *((name, value, "from 1 to") for name in ("BUCKETS", "CHUNK_ROWS", "CHUNK_HOURS", "CHUNK_DATES") for value in ("0", "-1", "1.5", "many", "٣", "1_000", " 1", "9" * 12)),
        ("COLLECTOR", "8000", "host:port"),
        ("DAGSTER", "localhost:65536", "host:port"),
        ("ANY_SITE", "true", "yes nor no"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "10.0.0.0/8"),
        ("DAILY_MINUTES", "7", "divide an hour"),
        ("BUCKETS", "4097", "4096"),
        ("BUCKETS", "9" * 5_000, "4096"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_the_way_out(name: str, value: str, way_out: str) -> None:
    with pytest.raises(SettingsError) as problem:
        from_environment({f"FOOTFALL_{name}": value})
    assert f"FOOTFALL_{name}={value!r}" in str(problem.value)
    assert way_out in str(problem.value)


@pytest.mark.parametrize(
    "url", ["mysql://root:secret@h/d", "secret", "POSTGRESQL://u:secret@h/d", "host=h password=secret"]
)
def test_a_wrong_server_is_named_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"FOOTFALL_POSTGRES must begin with postgresql://") as problem:
        from_environment({"FOOTFALL_POSTGRES": url})
    assert "secret" not in str(problem.value)


@pytest.mark.parametrize(
    ("url", "verified"),
    [
        ("postgresql://u:p@db.example/d", "postgresql://u:p@db.example/d?sslmode=verify-full&sslrootcert=system"),
        ("postgresql:///d?host=db.example", "postgresql:///d?host=db.example&sslmode=verify-full&sslrootcert=system"),
        ("postgres://127.0.0.1,db:7/d", "postgres://127.0.0.1,db:7/d?sslmode=verify-full&sslrootcert=system"),
    ],
)
def test_a_server_elsewhere_must_prove_who_it_is(url: str, verified: str) -> None:
    assert from_environment({"FOOTFALL_POSTGRES": url}).postgres == verified


def test_a_ca_verifies_all_servers(tmp_path: Path) -> None:
    ca = tmp_path / "c a.pem"
    ca.touch()
    urls = {"EVENT_LOG": "kafka://h/t", "EVENT_STORE": "cassandra://h/k", "POSTGRES": "postgresql://127.0.0.1/d"}
    found = from_environment({"FOOTFALL_CA": str(ca)} | {f"FOOTFALL_{name}": url for name, url in urls.items()})
    assert found.ca == ca
    assert found.event_log and found.event_log.tls
    assert found.event_store and found.event_store.tls
    ca_in_url = str(ca).replace(" ", "%20")
    assert found.postgres == f"postgresql://127.0.0.1/d?sslmode=verify-full&sslrootcert={ca_in_url}"
    with pytest.raises(SettingsError, match=r"FOOTFALL_CA='nowhere.pem' is not a file"):
        from_environment({"FOOTFALL_CA": "nowhere.pem"})


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("http://u:secret@h/t", "begin with kafka://"),
        ("secret", "begin with kafka://"),
        ("kafka://u:secret@h", "no topic"),
        ("kafka://u:secret@h/a/b", "no topic"),
        ("kafka://u:secret@/t", "no host"),
        ("kafka://u:secret@h:99999/t", "no host"),
        ("kafka://u:secret@h:x/t", "no host"),
        ("kafka://secret@h/t", "without a password"),
        ("kafka://:secret@h/t", "without a user"),
        ("kafka://u:secret@h/t?acks=1", "nothing else"),
        ("kafka://u:secret@h/t?tls=maybe", "nothing else"),
    ],
)
def test_a_wrong_url_is_explained_without_its_password(url: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"FOOTFALL_EVENT_LOG .*like kafka://host:9092/topic") as problem:
        from_environment({"FOOTFALL_EVENT_LOG": url})
    assert wrong in str(problem.value)
    assert "secret" not in str(problem.value)


def test_a_password_is_not_in_what_settings_print() -> None:
    url = "kafka://u:secret@h/t"
    found = from_environment({"FOOTFALL_EVENT_LOG": url, "FOOTFALL_POSTGRES": "postgresql://u:secret@h/d"})
    assert "secret" not in repr(found)
    assert str(found.event_log) == "h:9092/t"


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        from_environment({}).buckets = 2  # type: ignore[misc]
