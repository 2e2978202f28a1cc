"""Collectors that share a database agree on sites and on salts, and hold on to both while it is away."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.collector.directory import MAX_UNKNOWN, SALT_KEPT, SALTS_AHEAD, Directory, NotReady, shared_salts
from ingestion.identity import cookieless
from ingestion.ledger import Ledger
from ingestion.postgres import running_postgres
from ingestion.site_time import HOUR_MS, MINUTE_MS, from_datetime, zone

DAY = timedelta(days=1)
TODAY = date(2026, 11, 22)


def wait_until(holds: Callable[[], object], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingestion.collector.directory.SECONDS_BETWEEN", 0.1)


@pytest.fixture
def connection(database: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("delete from footfall.salts")
        yield connection


@contextmanager
def directory(url: str, *, add_unknown: bool = False) -> Iterator[Directory]:
    """One that has read the database."""
    with closing(Directory(url, add_unknown=add_unknown)) as opened:
        wait_until(lambda: opened.age() is not None)
        yield opened


def utc_today() -> date:
    return datetime.now(UTC).date()


# Sites


def test_sites_are_known_with_their_time_zones_and_new_ones_soon(
    connection: "psycopg.Connection[tuple[object, ...]]", database: str
) -> None:
    connection.execute("insert into footfall.sites (site, time_zone) values ('a.example', 'Europe/Berlin')")
    with directory(database) as sites:
        assert (sites.time_zone("a.example"), sites.time_zone("b.example")) == ("Europe/Berlin", None)
        connection.execute("insert into footfall.sites (site, time_zone) values ('b.example', 'Asia/Tokyo')")
        wait_until(lambda: sites.time_zone("b.example") == "Asia/Tokyo", 5)
        connection.execute("update footfall.sites set time_zone = 'UTC', changed_at = now() where site = 'b.example'")
        wait_until(lambda: sites.time_zone("b.example") == "UTC", 5)


def test_a_site_whose_transaction_was_slow_is_not_overlooked(
    connection: "psycopg.Connection[tuple[object, ...]]", database: str
) -> None:
    insert = "insert into footfall.sites (site, time_zone, changed_at) values (%s, 'UTC', %s)"
    with directory(database) as sites:
        connection.execute(insert, ["quick.example", datetime.now(UTC)])
        wait_until(lambda: sites.time_zone("quick.example"), 5)
        connection.execute(insert, ["slow.example", datetime.now(UTC) - timedelta(minutes=9)])
        wait_until(lambda: sites.time_zone("slow.example"), 5)


def test_unknown_sites_are_added_for_all_where_any_may_be(database: str) -> None:
    with directory(database, add_unknown=True) as opened, directory(database) as closed:
        assert opened.time_zone("new.example") == "UTC"
        assert closed.time_zone("new.example") is None
        wait_until(lambda: closed.time_zone("new.example") == "UTC")


def test_a_site_that_is_there_already_keeps_its_time_zone(
    connection: "psycopg.Connection[tuple[object, ...]]", database: str
) -> None:
    with directory(database, add_unknown=True) as sites:
        connection.execute("insert into footfall.sites (site, time_zone) values ('a.example', 'Asia/Tokyo')")
        sites.time_zone("a.example")
        wait_until(lambda: sites.time_zone("a.example") == "Asia/Tokyo")


def test_more_unknown_sites_than_fit_are_to_be_sent_again() -> None:
    with closing(Directory("postgresql://nobody@127.0.0.1:1/none", add_unknown=True)) as sites:
        for number in range(MAX_UNKNOWN):
            sites.time_zone(f"{number}.example")
        with pytest.raises(NotReady):
            sites.time_zone("one-more.example")


# Salts


def test_directories_of_one_database_agree_on_salts_from_four_days_ago_to_two_days_ahead(database: str) -> None:
    opened: list[Directory] = []
    threads = [threading.Thread(target=lambda: opened.append(Directory(database, add_unknown=False))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        wait_until(lambda: all(one.age() is not None for one in opened))
        today = utc_today()
        dates = [today + timedelta(days=number) for number in range(-4, 3)]
        salts = {tuple(one.salt(day) for day in dates) for one in opened}
        assert len(salts) == 1
        assert {len(salt) for salt in salts.copy().pop()} == {32}
        assert len(set(salts.pop())) == len(dates)
        for day in (today - 5 * DAY, today + 4 * DAY):
            with pytest.raises(NotReady):
                opened[0].salt(day)
    finally:
        for one in opened:
            one.close()


def test_a_salt_never_changes_and_goes_96_hours_after_its_date(
    connection: "psycopg.Connection[tuple[object, ...]]",
) -> None:
    first = shared_salts(connection, TODAY)
    assert sorted(first) == [TODAY + timedelta(days=number) for number in range(-4, 3)]
    for passed in range(1, 9):
        today = TODAY + passed * DAY
        salts = shared_salts(connection, today)
        assert sorted(salts) == [today + timedelta(days=number) for number in range(-4, 3)]
        assert all(salts[day] == salt for day, salt in first.items() if day in salts)
    assert not first.keys() & salts.keys()
    kept = connection.execute("select date from footfall.salts order by date").fetchall()
    assert [day for (day,) in kept] == sorted(salts)


def test_a_restarted_collector_finds_the_salts_that_were_there(database: str) -> None:
    with directory(database) as before:
        salt = before.salt(utc_today())
    with directory(database) as after:
        assert after.salt(utc_today()) == salt


ZONES = ("UTC", "Etc/GMT+12", "Pacific/Kiritimati", "Pacific/Apia", "America/St_Johns", "Asia/Kathmandu", "Europe/Berlin")  # fmt: skip


@given(st.sampled_from(ZONES), st.integers(0, 365 * 24 * 60), st.integers(-72 * 60, 1))
def test_no_event_that_is_accepted_asks_for_a_salt_that_is_gone_or_not_made_yet(
    time_zone: str, minute: int, age: int
) -> None:
    """Whatever the site's time zone, an event 72 hours old to one minute ahead, at any minute of a year."""
    now = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(minutes=minute)
    made = {now.date() + timedelta(days=number) for number in range(-SALT_KEPT.days, SALTS_AHEAD.days + 1)}

    def salt(day: date) -> bytes:
        assert day in made
        return b"salt"

    assert zone(time_zone)
    cookieless(salt, "shop.example", time_zone, from_datetime(now) + age * MINUTE_MS, "198.51.100.23", "agent")


@pytest.mark.parametrize("minutes", [0, 29, 30])
def test_a_visitor_of_a_date_stays_the_same_around_midnight(database: str, minutes: int) -> None:
    with directory(database) as salts:
        midnight = from_datetime(datetime.combine(utc_today(), datetime.min.time(), UTC))

        def at(instant: int) -> tuple[str, str | None]:
            who = cookieless(salts.salt, "shop.example", "UTC", instant, "198.51.100.23", "agent")
            return who.visitor_hash, who.previous_visitor_hash

        before, after = at(midnight - HOUR_MS), at(midnight + minutes * MINUTE_MS)
        assert after[0] != before[0]
        assert after[1] == (before[0] if minutes < 30 else None)


# When the database is away


def test_without_a_database_nothing_is_known_and_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with closing(Directory("postgresql://nobody:hunter2@127.0.0.1:1/none", add_unknown=False)) as sites:
        wait_until(lambda: caplog.records)
        assert sites.age() is None
        with pytest.raises(NotReady):
            sites.salt(utc_today())
    assert "sites and salts could not be read" in caplog.text
    assert "hunter2" not in caplog.text


def test_what_was_read_stays_good_while_the_database_is_away_and_is_read_again_after(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as url:
        with Ledger(url) as ledger:
            ledger.migrate()
            ledger.add_site("a.example", "Asia/Tokyo")
        sites = Directory(url, add_unknown=False)
        wait_until(lambda: sites.age() is not None)
        salt = sites.salt(utc_today())
    with closing(sites):
        wait_until(lambda: (sites.age() or 0) > 0.5)
        assert (sites.time_zone("a.example"), sites.salt(utc_today())) == ("Asia/Tokyo", salt)
        with running_postgres(tmp_path) as url:
            with Ledger(url) as ledger:
                ledger.add_site("b.example", "UTC")
            wait_until(lambda: sites.time_zone("b.example") == "UTC")
            assert sites.salt(utc_today()) == salt
