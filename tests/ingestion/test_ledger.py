"""The ledger: partitions are replaced whole, by the newest version, by one writer at a time."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.lake import LakeObject, digest_of
from ingestion.ledger import (
    Ledger,
    LedgerUnreachable,
    Outcome,
    PartitionObject,
    Published,
    Replacement,
    SiteExists,
    Superseded,
    Touch,
)
from ingestion.settings import from_environment
from ingestion.stores import Stores, open_stores

HOUR, NEXT_HOUR = "2026-11-22T13", "2026-11-22T14"
DAY = date(2026, 11, 22)
INSTANTS = {hour: datetime.fromisoformat(hour + ":00+00:00") for hour in (HOUR, NEXT_HOUR)}
TABLES = (
    "footfall.published",
    "footfall.lake_objects",
    "footfall.touched",
    "footfall.first_hours",
    "landing.traffic",
    "landing.arrivals",
)


@pytest.fixture
def ledger(stores: Stores) -> Ledger:
    return stores.ledger


@pytest.fixture
def query(stores: Stores) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Asks over a connection of its own, which sees only what is committed."""
    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        yield lambda text, *parameters: connection.execute(text, parameters or None).fetchall()


@pytest.fixture
def rows(query: Callable[..., Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {table: query(f"select t::text from {table} t order by 1") for table in TABLES}


def item(name: str) -> PartitionObject:
    return PartitionObject(LakeObject(name, 5, 100, digest_of(name.encode())), DAY, 0, 1)


def outcome(partition: str = HOUR, *names: str, content: str = "c", **touched: int) -> Outcome:
    return Outcome(
        partition, {"raw": "r"}, content, 5, 100, [item(name) for name in names],
        {(hour.replace("_", "-"), str(DAY)): count for hour, count in touched.items()},
    )  # fmt: skip


def traffic(*sites: str, hour: str = HOUR, events: int = 2) -> pl.DataFrame:
    return pl.DataFrame(
        [(INSTANTS[hour], site, 1, events, 1) for site in sites],
        schema={
            "hour": pl.Datetime("ms", "UTC"),
            "site": pl.String,
            "pageviews": pl.Int64,
            "events": pl.Int64,
            "visitors": pl.Int64,
        },
        orient="row",
    )


def publish(
    ledger: Ledger, version: int, *names: str, asset: str = "traffic", partition: str = HOUR, sites: str = "ab"
) -> None:
    """A whole run: published, landed, first hours."""
    with ledger.replacing(asset, version, "1") as replacement:
        replacement.publish([outcome(partition, *names, content=f"of {version}")])
        replacement.land("traffic", "hour", [INSTANTS[partition]], traffic(*sites, hour=partition))
        replacement.refresh_first_hours([INSTANTS[partition]])


# Set-up


def test_migrations_again_change_nothing(ledger: Ledger, query: Callable[..., Any]) -> None:
    ledger.add_site("shop.example", "UTC")
    schema = "select table_schema, table_name, column_name, data_type from information_schema.columns order by 1, 2, 3"
    before = query(schema), query("select * from public.footfall_migrations")
    ledger.migrate()
    assert (query(schema), query("select * from public.footfall_migrations")) == before
    assert ledger.time_zones() == {"shop.example": "UTC"}


def at_once(*works: Callable[[], object]) -> list[BaseException]:
    """Runs all in threads, begun together; the exceptions that they raised."""
    together, problems = threading.Barrier(len(works)), []

    def run(work: Callable[[], object]) -> None:
        try:
            together.wait()
            work()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return problems


def migrated(url: str) -> None:
    with Ledger(url) as ledger:
        ledger.migrate()


def test_two_that_migrate_at_once_do_it_once(new_database: Callable[..., str]) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("""
            create table public.footfall_migrations (name text primary key);
            create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(0.3); return null; end';
            create constraint trigger slow after insert on public.footfall_migrations deferrable initially deferred
                for each row execute function slow()""")  # the commit takes its time
    assert at_once(*[lambda: migrated(url)] * 3) == []


def test_two_that_migrate_an_empty_database_at_once(new_database: Callable[..., str]) -> None:
    url = new_database()
    assert at_once(*[lambda: migrated(url)] * 4) == []


def test_a_migration_that_fails_says_so_and_leaves_no_lock(new_database: Callable[..., str]) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection, Ledger(url) as ledger:
        connection.execute("create schema reports")  # in the way
        with pytest.raises(psycopg.errors.DuplicateSchema):
            ledger.migrate()
        assert connection.execute("select from pg_locks where locktype = 'advisory'").fetchall() == []
        assert connection.execute("select to_regclass('footfall.sites')").fetchone() == (None,)
        connection.execute("drop schema reports")
        ledger.migrate()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://localhost:1/x", "Connection refused"),
        ("postgresql://me:secret@localhost:1/x", "Connection refused"),
        ("postgresql://me:secret@127.0.0.1:1/x", "127.0.0.1"),
        ("postgresql://me:secret@nobody.invalid/x", "nobody.invalid"),
        ("postgresql:///x?host=/nowhere&password=secret", "/nowhere"),
        ("postgresql://me:sec ret@localhost:1/x", "not a valid"),
        ("postgresql://me:sec%zzret@localhost:1/x", "not a valid"),
        ("postgresql://me:secret@[::1/x", "not a valid"),
        ("postgresql://me:secret@localhost:port/x", "localhost"),
        ("postgresql://me@localhost:1/x?secret=1", "not a valid"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told_without_its_password(url: str, says: str) -> None:
    with pytest.raises(LedgerUnreachable) as problem:
        Ledger(url)
    said = str(problem.value)
    assert says in said
    assert "FOOTFALL_POSTGRES" in said
    assert "\n" not in said
    assert not {"secret", "sec ret", "sec%zzret", "zzret"} & {
        said[at : at + n] for n in (5, 6, 7, 9) for at in range(len(said))
    }
    assert problem.value.__cause__ is None


def test_one_session_holds_a_lock_until_it_ends(stores: Stores) -> None:
    order = []
    with Ledger(stores.postgres_url) as other:

        def second() -> None:
            with other.excluding("x"):
                order.append("second")

        with stores.ledger.excluding("x"):
            thread = threading.Thread(target=second)
            thread.start()
            with Ledger(stores.postgres_url) as third, third.excluding("y"):
                order.append("another lock")
            thread.join(0.2)
            assert thread.is_alive()
            order.append("first")
        thread.join(30)
    assert order == ["another lock", "first", "second"]


# Sites


def test_sites(ledger: Ledger) -> None:
    assert ledger.add_site("b.example", "Europe/Berlin")
    assert ledger.add_site("a.example", "UTC")
    assert not ledger.add_site("a.example", "UTC")
    with pytest.raises(SiteExists, match=r"b\.example is there already, in Europe/Berlin"):
        ledger.add_site("b.example", "UTC")
    assert list(ledger.time_zones().items()) == [("a.example", "UTC"), ("b.example", "Europe/Berlin")]
    assert (ledger.time_zone("b.example"), ledger.time_zone("c.example")) == ("Europe/Berlin", None)


# Replacing


def test_a_partition_is_replaced_whole(ledger: Ledger, query: Callable[..., Any]) -> None:
    publish(ledger, 1, "traffic/old-1", "traffic/old-2", sites="abc")
    assert ledger.listed_objects() == {"traffic/old-1", "traffic/old-2"}
    publish(ledger, 2, "traffic/new", sites="cd")
    assert ledger.listed_objects() == {"traffic/new"}
    assert query("select site from landing.traffic order by 1") == [("c",), ("d",)]
    assert ledger.state().published == {("traffic", HOUR): Published(2, "1", {"raw": "r"}, "of 2")}
    assert query("select site from footfall.first_hours order by 1") == [("c",), ("d",)]


def test_a_partition_that_becomes_empty_loses_all_it_had(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 1, "traffic/old")
    publish(ledger, 2, sites="")
    assert {table: len(found) for table, found in rows().items() if found} == {"footfall.published": 1}


def test_other_partitions_stay_as_they_are(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 1, "traffic/13")
    publish(ledger, 2, "traffic/14", partition=NEXT_HOUR)
    before = rows()
    publish(ledger, 3, "traffic/13", partition=HOUR)
    assert rows()["footfall.lake_objects"] == before["footfall.lake_objects"]
    assert rows()["landing.traffic"] == before["landing.traffic"]
    with ledger.replacing("visits", 4, "1") as replacement:
        replacement.publish([outcome(HOUR)])
    assert rows()["footfall.lake_objects"] == before["footfall.lake_objects"], (
        "another asset of the same hour has its own objects"
    )


def test_an_older_version_never_replaces_a_newer_one(ledger: Ledger, rows: Callable[..., Any]) -> None:
    older, newer = ledger.next_version(), ledger.next_version()
    publish(ledger, newer, "traffic/newer", sites="a")
    before = rows()
    with pytest.raises(Superseded, match=f"traffic {HOUR}: version {newer} is newer than this run's {older}"):
        publish(ledger, older, "traffic/older", sites="b")
    assert rows() == before


def test_rows_that_landed_before_a_superseded_publish_are_rolled_back(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 7, "traffic/newer", partition=NEXT_HOUR)
    before = rows()
    with pytest.raises(Superseded), ledger.replacing("traffic", 6, "1") as replacement:
        replacement.land("traffic", "hour", [INSTANTS[HOUR]], traffic("x", "y"))
        replacement.publish([outcome(HOUR, "traffic/13")])
        replacement.publish([outcome(NEXT_HOUR, "traffic/14")])
    assert rows() == before, "also the partition that was not superseded"


def test_the_same_version_may_be_published_again(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 5, "traffic/x")
    before = rows()["landing.traffic"]
    publish(ledger, 5, "traffic/x")
    assert rows()["landing.traffic"] == before


def test_versions_grow_across_sessions(stores: Stores) -> None:
    with Ledger(stores.postgres_url) as other:
        versions = [
            stores.ledger.next_version(),
            other.next_version(),
            stores.ledger.next_version(),
            other.next_version(),
        ]
    assert versions == sorted(set(versions))


def test_a_crash_in_the_middle_leaves_all_as_it_was(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 1, "traffic/old")
    before = rows()
    with pytest.raises(ZeroDivisionError), ledger.replacing("traffic", 2, "1") as replacement:
        replacement.publish([outcome(HOUR, "traffic/new")])
        replacement.land("traffic", "hour", [INSTANTS[HOUR]], traffic("z"))
        replacement.refresh_first_hours([INSTANTS[HOUR]])
        raise ZeroDivisionError
    assert rows() == before
    publish(ledger, 3, "traffic/next", sites="z")
    assert ledger.listed_objects() == {"traffic/next"}


def test_nobody_sees_half_a_replacement(ledger: Ledger, rows: Callable[..., Any]) -> None:
    publish(ledger, 1, "traffic/old")
    before = rows()
    with ledger.replacing("traffic", 2, "1") as replacement:
        replacement.publish([outcome(HOUR, "traffic/new")])
        replacement.land("traffic", "hour", [INSTANTS[HOUR]], traffic("z"))
        assert rows() == before
    assert rows() != before


@contextmanager
def begun(work: Callable[[], object], seconds: float = 30) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(seconds)


def test_writers_of_one_partition_wait_for_each_other(stores: Stores, query: Callable[..., Any]) -> None:
    ended: list[object] = []

    def write(version: int, partition: str) -> None:
        try:
            with Ledger(stores.postgres_url) as other:
                publish(other, version, f"traffic/{partition}-{version}", partition=partition, sites="q")
                ended.append(version)
        except Superseded as problem:
            ended.append(problem)

    with stores.ledger.replacing("traffic", 5, "1") as replacement:
        replacement.publish([outcome(HOUR, "traffic/5")])
        with begun(lambda: write(6, NEXT_HOUR)):
            pass
        assert ended == [6], "another partition's writer need not wait"
        older = threading.Thread(target=write, args=(4, HOUR))
        newer = threading.Thread(target=write, args=(7, HOUR))
        older.start()
        older.join(0.3)
        assert older.is_alive(), "the same partition's writer waits"
    older.join(30)
    assert len(ended) == 2
    assert isinstance(ended[1], Superseded), "and then sees that it is older"
    newer.start()
    newer.join(30)
    assert ended[2] == 7
    assert stores.ledger.listed_objects() == {f"traffic/{HOUR}-7", f"traffic/{NEXT_HOUR}-6"}


def test_a_writer_waits_for_its_partitions_in_one_order(stores: Stores, query: Callable[..., Any]) -> None:
    first, last = HOUR, NEXT_HOUR
    waiting = "select from pg_locks where locktype = 'advisory' and not granted"

    def write(version: int, *partitions: str) -> None:
        with Ledger(stores.postgres_url) as other, other.replacing("traffic", version, "1") as replacement:
            replacement.publish([outcome(partition) for partition in partitions])

    with stores.ledger.replacing("traffic", 5, "1") as replacement:
        replacement.publish([outcome(first)])
        backwards = threading.Thread(target=write, args=(7, last, first))
        backwards.start()
        until = time.monotonic() + 30
        while not query(waiting) and time.monotonic() < until:
            time.sleep(0.01)
        assert query(waiting)
        with begun(lambda: write(6, last), 5):
            pass
        assert query("select version from footfall.published where partition = %s", last) == [(6,)], (
            "who waits for the first partition does not hold the last one yet"
        )
    backwards.join(30)
    assert {key[1]: made.version for key, made in stores.ledger.state().published.items()} == {first: 7, last: 7}


def test_what_an_arrival_hour_touches_is_replaced_with_it(ledger: Ledger) -> None:
    def touch(version: int, **hours: int) -> None:
        with ledger.replacing("events", version, "1") as replacement:
            replacement.publish([outcome(HOUR, **hours)])

    touch(1, **{"2026_11_22T12": 3, "2026_11_22T13": 4})
    assert {(t.arrival_hour, t.hour, t.date) for t in ledger.state().touched} == {
        (HOUR, "2026-11-22T12", str(DAY)),
        (HOUR, HOUR, str(DAY)),
    }
    touch(2, **{"2026_11_22T13": 4})
    assert list(ledger.state().touched) == [Touch(HOUR, HOUR, str(DAY))]
    publish(ledger, 3)
    assert len(ledger.state().touched) == 1, "an event hour of another asset is no arrival hour"
    touch(4)
    assert list(ledger.state().touched) == []


def test_objects_are_those_of_the_dates_in_a_stable_order(ledger: Ledger) -> None:
    names = ["events/date=2026-11-22/b", "events/date=2026-11-22/B", "events/date=2026-11-22/a"]
    with ledger.replacing("events", 1, "1") as replacement:
        replacement.publish([outcome(HOUR, *names)])
    assert [one.object.name for one in ledger.objects("events", [DAY])] == sorted(names)
    assert ledger.objects("events", [DAY])[0] == PartitionObject(item(min(names)).object, DAY, 0, 1, HOUR)
    assert ledger.objects("events", [DAY + timedelta(days=1)]) == []
    assert ledger.objects("visits", [DAY]) == []


def test_the_state_digests_what_an_hour_has(ledger: Ledger) -> None:
    one, other = (LakeObject(name, 1, 1, digest_of(name.encode())) for name in ("raw/a", "raw/b"))
    ledger.list_import("x", "events", None, {"a.example": "UTC"}, {HOUR: [one]})
    first = ledger.state().raw
    ledger.list_import("y", "events", None, {}, {HOUR: [other], NEXT_HOUR: [LakeObject("raw/c", 1, 1, "")]})
    assert first.keys() == {HOUR}
    assert ledger.state().raw.keys() == {HOUR, NEXT_HOUR}
    assert ledger.state().raw[HOUR] != first[HOUR]
    assert ledger.raw_objects(HOUR) == [one, other]
    assert ledger.state().sites == {}, "no site has changed"


def test_an_import_is_listed_whole_or_not_at_all(ledger: Ledger, query: Callable[..., Any]) -> None:
    twice = LakeObject("raw/a", 1, 1, "")
    with pytest.raises(psycopg.errors.UniqueViolation):
        ledger.list_import("x", "events", None, {"a.example": "UTC"}, {HOUR: [twice], NEXT_HOUR: [twice]})
    assert (ledger.has_import("x"), ledger.listed_objects(), ledger.time_zones()) == (False, set(), {})


# First hours

FIRST = datetime(2026, 11, 22, tzinfo=UTC)
REPLACED = st.lists(
    st.dictionaries(
        st.integers(0, 5),
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3),
        min_size=1,
        max_size=3,
    ),
    max_size=7,
)


@settings(max_examples=60)
@given(REPLACED)
def test_first_hours_are_right_after_any_replacements(
    stores: Stores, query: Callable[..., Any], runs: list[dict[int, dict[str, int]]]
) -> None:
    ledger = stores.ledger
    with ledger.replacing("traffic", ledger.next_version(), "1") as replacement:
        every = [FIRST + timedelta(hours=n) for n in range(6)]
        replacement.land("traffic", "hour", every, traffic())
        replacement.refresh_first_hours(every)
    assert query("select * from footfall.first_hours") == []
    hours: dict[int, dict[str, int]] = {}
    for run in runs:
        hours |= run
        instants = [FIRST + timedelta(hours=n) for n in run]
        frame = pl.DataFrame(
            [
                (FIRST + timedelta(hours=n), site, 0, events, 0)
                for n, sites in run.items()
                for site, events in sites.items()
            ],
            schema=traffic().schema,
            orient="row",
        )
        with ledger.replacing("traffic", ledger.next_version(), "1") as replacement:
            replacement.land("traffic", "hour", instants, frame)
            replacement.refresh_first_hours(instants)
        wanted = {
            site: min(FIRST + timedelta(hours=n) for n, sites in hours.items() if sites.get(site))
            for site in "abc"
            if any(sites.get(site) for sites in hours.values())
        }
        assert dict(query("select site, hour from footfall.first_hours")) == wanted
        by_hour = {f"{hour:%Y-%m-%dT%H}" for hour in wanted.values()}
        assert ledger.state().first_hours.keys() == by_hour


def test_writers_of_different_hours_agree_on_the_first(stores: Stores, query: Callable[..., Any]) -> None:
    publish(stores.ledger, 1, partition=NEXT_HOUR, sites="a")

    def earlier() -> None:
        with Ledger(stores.postgres_url) as other:
            publish(other, 2, partition=HOUR, sites="a")

    with stores.ledger.replacing("traffic", 3, "1") as replacement:
        replacement.publish([outcome(NEXT_HOUR)])
        replacement.land("traffic", "hour", [INSTANTS[NEXT_HOUR]], traffic())
        replacement.refresh_first_hours([INSTANTS[NEXT_HOUR]])
        thread = threading.Thread(target=earlier)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(30)
    assert query("select site, hour from footfall.first_hours") == [("a", INSTANTS[HOUR])]


# COPY

AWKWARD = [
    "plain", "", " ", "a,b", 'a"b', '"', '""', "a\nb", "a\r\nb", "\r", "\n", "\t", "\\", "\\.", "a\n\\.\nb", "\\n", "\\N", "NULL", "null", "{}",
    "{1,2}", "'", "';--", "ä", "日本", "🦊", "\u2028", "\x01", "\x7f", "\ufeff", "e\u0301", "x" * 100_000,
]  # fmt: skip
SCHEMA = {
    "day": pl.Date,
    "text": pl.String,
    "number": pl.Int64,
    "list": pl.List(pl.Int64),
    "flag": pl.Boolean,
    "real": pl.Float64,
    "exact": pl.Decimal(38, 6),
}
TABLE = "create table landing.awkward (day date, text text, number bigint, list bigint[], flag boolean, real double precision, exact numeric)"


@contextmanager
def awkward(stores: Stores) -> Iterator[Callable[[list[dict[str, Any]]], list[tuple[Any, ...]]]]:
    """Lands rows and reads them back."""

    def landed(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        with stores.ledger.replacing("awkward", 1, "1") as replacement:
            replacement.land("awkward", "day", [DAY], pl.DataFrame(rows, schema=SCHEMA))
        with psycopg.connect(stores.postgres_url) as connection:
            return connection.execute(
                "select text, number, list, flag, real from landing.awkward order by exact"
            ).fetchall()

    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        connection.execute(TABLE)
        yield landed
        connection.execute("drop table landing.awkward")


@pytest.mark.parametrize("text", [*AWKWARD, None], ids=lambda text: repr(text)[:20])
def test_awkward_text_is_copied_as_it_is(awkward_rows: Callable[..., Any], text: str | None) -> None:
    rows = [{"day": DAY, "text": value, "exact": at} for at, value in enumerate([text, "next", text])]
    assert [row[0] for row in awkward_rows(rows)] == [text, "next", text]


@pytest.fixture(scope="module")
def module_stores(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, migrated: str) -> Iterator[Stores]:
    """Stores for tests that leave nothing behind."""
    url = postgres_url.replace("/footfall?", "/of_test_ledger?")
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(f"create database of_test_ledger template {migrated}")
    home = tmp_path_factory.mktemp("home")
    with open_stores(from_environment({"FOOTFALL_HOME": str(home), "FOOTFALL_POSTGRES": url})) as stores:
        yield stores
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("drop database of_test_ledger with (force)")


@pytest.fixture
def awkward_rows(module_stores: Stores) -> Iterator[Callable[..., Any]]:
    with awkward(module_stores) as landed:
        yield landed


TEXTS = (
    st.none()
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
    | st.sampled_from(AWKWARD[:-1])
)


@settings(max_examples=50)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "day": st.just(DAY),
                "text": TEXTS,
                "number": st.none() | st.integers(-(2**63), 2**63 - 1),
                "list": st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
                "flag": st.none() | st.booleans(),
                "real": st.none() | st.floats(allow_nan=False),
            }
        ),
        max_size=10,
    )
)
def test_any_rows_are_copied_as_they_are(awkward_rows: Callable[..., Any], rows: list[dict[str, Any]]) -> None:
    found = awkward_rows([row | {"exact": at} for at, row in enumerate(rows)])
    assert found == [(row["text"], row["number"], row["list"], row["flag"], row["real"]) for row in rows]


def test_landing_replaces_only_the_partitions_named(ledger: Ledger, query: Callable[..., Any]) -> None:
    publish(ledger, 1, partition=HOUR, sites="a")
    publish(ledger, 2, partition=NEXT_HOUR, sites="a")
    with ledger.replacing("traffic", 3, "1") as replacement:
        replacement.land("traffic", "hour", [INSTANTS[HOUR]], traffic())
    assert query("select hour from landing.traffic") == [(INSTANTS[NEXT_HOUR],)]


def test_landed_reads_back_in_a_schema(ledger: Ledger) -> None:
    publish(ledger, 1, sites="ab")
    schema = {"site": pl.String, "events": pl.Int64}
    frame = ledger.landed(
        "select site, events from landing.traffic where hour = %s order by site", [INSTANTS[HOUR]], schema
    )
    assert frame.equals(pl.DataFrame({"site": ["a", "b"], "events": [2, 2]}))
    assert ledger.landed("select site, events from landing.traffic where false", [], schema).schema == schema


def test_a_build_begins_with_its_own_dates_and_nothing_of_the_last_one(
    stores: Stores, ledger: Ledger, query: Callable[..., Any]
) -> None:
    ledger.begin_build(["2026-11-21", "2026-11-22"])
    with psycopg.connect(stores.postgres_url) as dbt:
        dbt.execute("create table build.left_over ()")
    ledger.begin_build(["2026-11-22"])
    assert query("select date from landing.run_dates") == [(DAY,)]
    assert query("select from pg_tables where schemaname = 'build'") == []
    ledger.begin_build([])
    assert query("select date from landing.run_dates") == []


def test_a_replacement_belongs_to_its_transaction(ledger: Ledger) -> None:
    with ledger.replacing("traffic", 1, "1") as replacement:
        assert isinstance(replacement, Replacement)
        assert replacement.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
