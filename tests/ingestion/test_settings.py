"""Settings: their defaults, and messages that name the variable, the value and the way out."""

from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest

from ingestion.settings import Address, Settings, SettingsError, from_environment


def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path.resolve() / ".footfall"
    assert from_environment({}) == Settings(
        home=home,
        start=datetime(2020, 1, 1, tzinfo=UTC),
        postgres=None,
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
    )


def test_an_empty_value_is_the_default() -> None:
    names = ["HOME", "START", "POSTGRES", "LAKE", "BUCKETS", "CHUNK_ROWS", "CHUNK_HOURS", "CHUNK_DATES"]
    names += ["COLLECTOR", "DAGSTER", "ANY_SITE", "HOURLY_MINUTES", "DAILY_MINUTES"]
    assert from_environment({f"FOOTFALL_{name}": "" for name in names}) == from_environment({})


@pytest.mark.parametrize(
    ("name", "value", "field", "wanted"),
    [
        ("START", "2015-05-17", "start", datetime(2015, 5, 17, tzinfo=UTC)),
        ("START", "2015-05-17T10", "start", datetime(2015, 5, 17, 10, tzinfo=UTC)),
        ("START", "2015-05-17T10:59:59.9", "start", datetime(2015, 5, 17, 10, tzinfo=UTC)),
        ("START", "2015-05-17T10:00+05:30", "start", datetime(2015, 5, 17, 4, tzinfo=UTC)),
        ("START", "1999-01-01", "start", datetime(1999, 1, 1, tzinfo=UTC)),
        ("POSTGRES", "postgresql://u:p@h/d", "postgres", "postgresql://u:p@h/d"),
        ("POSTGRES", "postgres://h/d", "postgres", "postgres://h/d"),
        ("LAKE", "file:///srv/lake/", "lake", "file:///srv/lake"),
        ("LAKE", "file:///", "lake", "file:///"),
        ("LAKE", "s3://bucket/prefix/", "lake", "s3://bucket/prefix"),
        ("HOME", "/srv/foot fall", "lake", "file:///srv/foot%20fall/lake"),
        ("HOME", "/srv/a?b#c", "lake", "file:///srv/a%3Fb%23c/lake"),
        ("HOME", "/srv/../opt", "home", Path("/opt")),
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


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        from_environment({}).buckets = 2  # type: ignore[misc]
