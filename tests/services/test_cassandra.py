"""The event store on a real Cassandra: what lies there, and what it survives."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cassandra import ConsistencyLevel

from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS, EventStoreUnavailable, find_visitor
from ingestion.event_store.cassandra import CassandraEventStore, sharded
from ingestion.event_store.cassandra_session import CassandraSession
from ingestion.ledger import Superseded
from ingestion.settings import Address, Cluster
from orchestration.services import Certificates, Service, running_services
from orchestration.services.service import USER

Frames = tuple[pl.DataFrame, pl.DataFrame]

SITE = "shop.example"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOW = NOON + timedelta(days=3)
DAYS = 400
KEYSPACES = (f"keyspace_{number}" for number in count(1))
TABLES = {"events": "event", "visitor_hours": "last_event", "event_hours": "shards", "hour_sites": None}
"""With a column whose time of writing and of expiry can be asked for."""

COLUMNS = {
    "events": "site, hour, shard, visitor_id, event_id",
    "visitor_hours": "site, visitor_id, hour, first_shard, last_shard, pageviews",
    "event_hours": "site, hour, shards",
    "hour_sites": "hour, slice, site, shard",
}


class Broken(Exception):
    """Reading the lake failed in the middle."""


@pytest.fixture(scope="module")
def secure_cassandra(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Service]:
    """With TLS and a password."""
    with running_services(tmp_path_factory.mktemp("secure"), ["cassandra"], certificates) as services:
        yield services["cassandra"]


@pytest.fixture(scope="module")
def keyspace(cassandra: Service) -> Cluster:
    return cluster(cassandra, "services")


@pytest.fixture
def hour(keyspace: Cluster, cql: CassandraSession) -> datetime:
    """An hour of a store with nothing in it: tables are emptied quicker than made."""
    for table in (*TABLES, "hours"):
        cql._session.execute(f"truncate {table}")
    return NOON


@pytest.fixture
def store(keyspace: Cluster) -> Iterator[CassandraEventStore]:
    with opened(keyspace) as store:
        yield store


@pytest.fixture
def cql(keyspace: Cluster) -> Iterator[CassandraSession]:
    with looking(keyspace) as session:
        yield session


@contextmanager
def looking(keyspace: Cluster, ca: Path | None = None) -> Iterator[CassandraSession]:
    """Looks at what is there, without the adapter's ways of leaving things out."""
    session = CassandraSession(keyspace, ca)
    try:
        yield session
    finally:
        session.close()


def cluster(server: Service, name: str) -> Cluster:
    return Cluster((Address("127.0.0.1", server.port),), name, None, None, tls=False)


def opened(keyspace: Cluster, **options: Any) -> CassandraEventStore:
    return CassandraEventStore(keyspace, DAYS, now=lambda: NOW, **options)


def frames(hour: datetime, *visitors: str, events: int = 3, site: str = SITE) -> Frames:
    """Some events of each visitor."""
    rows = [
        (site, visitor, hour + timedelta(milliseconds=number), f"{visitor}-{number:05}", json.dumps({"number": number}))
        for visitor in visitors
        for number in range(events)
    ]
    last = hour + timedelta(milliseconds=events - 1)
    known = [(site, visitor, hour, last, events, "DE", "desktop", "Firefox", None, "Google") for visitor in visitors]
    return pl.DataFrame(rows, STORED_EVENTS, orient="row"), pl.DataFrame(known, VISITOR_HOURS, orient="row")


def numbers(store: CassandraEventStore, visitor: str, most: int = 100_000) -> list[int]:
    return [json.loads(event)["number"] for _, event in store.timeline(SITE, visitor, most)]


def lying(cql: CassandraSession, table: str, hour: datetime) -> list[Any]:
    """Every row of an hour, whoever wrote it."""
    column = TABLES[table]
    also = f", writetime({column}) as version, ttl({column}) as ttl" if column else ""
    rows = cql.rows(f"select {COLUMNS[table]}{also} from {table}", ())
    return [row for row in rows if row.hour == hour.replace(tzinfo=None)]


def only(cql: CassandraSession, hour: datetime, version: int, *visitors: str, events: int = 3) -> None:
    """Asserts that what lies there of an hour is what one version wrote."""
    found = lying(cql, "events", hour)
    assert sorted((row.visitor_id, row.event_id) for row in found) == sorted(
        (visitor, f"{visitor}-{number:05}") for visitor in visitors for number in range(events)
    )
    assert sorted(row.visitor_id for row in lying(cql, "visitor_hours", hour)) == sorted(visitors)
    shards = {(row.site, row.shard) for row in found}
    assert {(row.site, row.shard) for row in lying(cql, "hour_sites", hour)} == shards
    assert {row.site: row.shards for row in lying(cql, "event_hours", hour)} == {
        site: 1 + max(shard for at, shard in shards if at == site) for site, _ in shards
    }
    written = {row.version for table in ("events", "visitor_hours", "event_hours") for row in lying(cql, table, hour)}
    assert written <= {version}


# Shards


@pytest.mark.parametrize("parts", [1, 3])
def test_a_shard_holds_so_many_events_and_a_visitor_knows_their_shards(
    keyspace: Cluster, cql: CassandraSession, hour: datetime, parts: int
) -> None:
    """Given visitors of 7 events and shards of 10, also where the site comes in parts."""
    visitors = [f"v{number}" for number in range(9)]
    with opened(keyspace, shard_events=10) as store:
        store.replace_hour(hour, 1, (frames(hour, *visitors[first::parts], events=7) for first in range(parts)))
        shards = [row.shard for row in lying(cql, "events", hour)]
        assert [shards.count(shard) for shard in range(7)] == [10, 10, 10, 10, 10, 10, 3]
        assert [row.shards for row in lying(cql, "event_hours", hour)] == [7]
        for row in lying(cql, "visitor_hours", hour):
            own = {event.shard for event in lying(cql, "events", hour) if event.visitor_id == row.visitor_id}
            assert own == {row.first_shard, row.last_shard}
            assert numbers(store, row.visitor_id) == [6, 5, 4, 3, 2, 1, 0]
        assert numbers(store, "v3", 2) == [6, 5]


def test_one_visitor_may_do_it_all(keyspace: Cluster, hour: datetime) -> None:
    with opened(keyspace, shard_events=100) as store:
        store.replace_hour(hour, 1, iter([frames(hour, "v", events=1_234)]))
        assert numbers(store, "v") == [*range(1_233, -1, -1)]
        for most in (1, 34, 35, 250):
            assert numbers(store, "v", most) == [*range(1_233, 1_233 - most, -1)]


def test_a_partition_stays_small_however_long_the_events_are(hour: datetime) -> None:
    for length in (10, 1_000, 5_000, 60_000):
        stored, _ = frames(hour, "v", events=500)
        rows = sharded(stored.with_columns(event=pl.lit("x" * length)), {}, 1_000)
        size = rows.group_by("shard").agg(pl.col("bytes").sum())["bytes"].max()
        assert size <= 1_000 * 1_500 + length + 200  # of 50,000: 75 MB


def test_the_real_shards(store: CassandraEventStore, cql: CassandraSession, hour: datetime) -> None:
    """Given 120,000 events of one visitor, then there are three shards, and no partition has more than 50,000."""
    store.replace_hour(hour, 1, iter([frames(hour, "v", events=120_000)]))
    assert [row.shards for row in lying(cql, "event_hours", hour)] == [3]
    question = "select count(*) from events where site = ? and hour = ? and shard = ?"
    assert [cql.one(question, (SITE, hour, shard))[0] for shard in range(4)] == [50_000, 50_000, 20_000, 0]
    assert numbers(store, "v", 3) == [119_999, 119_998, 119_997]


# Written again


def test_written_again_the_rows_are_the_same(store: CassandraEventStore, cql: CassandraSession, hour: datetime) -> None:
    for version in (1, 1, 2):
        assert store.replace_hour(hour, version, iter([frames(hour, "v", "w")])) == 6
        only(cql, hour, version, "v", "w")


def test_what_no_longer_belongs_is_gone(keyspace: Cluster, cql: CassandraSession, hour: datetime) -> None:
    """Events, visitors, shards and sites."""
    with opened(keyspace, shard_events=4) as store:
        store.replace_hour(hour, 1, iter([frames(hour, "v", "w", "x"), frames(hour, "y", site="other.example")]))
        store.replace_hour(hour, 2, iter([frames(hour, "w", events=2)]))
        only(cql, hour, 2, "w", events=2)
        assert [store.timeline("other.example", "y", 9), numbers(store, "v"), numbers(store, "w")] == [[], [], [1, 0]]
        store.replace_hour(hour, 3, iter([]))
        only(cql, hour, 3)


def test_a_value_that_is_missing_now_is_gone(store: CassandraEventStore, hour: datetime) -> None:
    stored, visitors = frames(hour, "lost-language")
    store.replace_hour(hour, 1, iter([(stored, visitors.with_columns(language=pl.lit("de")))]))
    store.replace_hour(hour, 2, iter([(stored, visitors)]))
    assert [row["language"] for row in store.visitor_hours(SITE, "lost-language")] == [None]


WHOLE = ("_show", "_gone", "_delete", "_clean")
STAGES = ("_places", "_events", "_visitors", "_count_shards", *WHOLE)


@pytest.mark.parametrize("before", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_may_end_anywhere_and_the_next_makes_the_hour_right(
    keyspace: Cluster, cql: CassandraSession, hour: datetime, stage: str, before: bool
) -> None:
    class Ending(CassandraEventStore):
        """Ends when it has begun a stage."""

    def end(self: CassandraEventStore, *arguments: Any) -> Any:
        done = getattr(CassandraEventStore, stage)(self, *arguments)
        if isinstance(done, Iterator):
            return ending(done)
        raise Broken

    def ending(statements: Iterator[Any]) -> Iterator[Any]:
        yield from [next(statements), next(statements)]
        raise Broken

    setattr(Ending, stage, end)
    options: dict[str, Any] = {"now": lambda: NOW, "shard_events": 4}
    with opened(keyspace, shard_events=4) as store:
        if before:
            store.replace_hour(hour, 1, iter([frames(hour, "a", "v", "w", "x", events=5)]))
        with Ending(keyspace, DAYS, **options) as ended, suppress(Broken, StopIteration, RuntimeError):
            parts = [frames(hour, "v", "w", "z", events=4), frames(hour, "y", site="other.example", events=9)]
            ended.replace_hour(hour, 2, iter(parts))
        if not before and stage not in WHOLE:
            assert [numbers(store, visitor) for visitor in "vwxyz"] == [[]] * 5  # nothing half is shown
        store.replace_hour(hour, 3, iter([frames(hour, "w", "b")]))
        only(cql, hour, 3, "b", "w")
        assert [numbers(store, visitor) for visitor in "abvwxyz"] == [[], [2, 1, 0], [], [2, 1, 0], [], [], []]


def test_a_writer_that_stalled_writes_nothing_when_a_newer_one_came(
    keyspace: Cluster, store: CassandraEventStore, cql: CassandraSession, hour: datetime
) -> None:
    def stalling() -> Iterator[Frames]:
        yield frames(hour, "old", "v", events=4)
        store.replace_hour(hour, 2, iter([frames(hour, "v")]))
        yield frames(hour, "late", "v", site="late.example")

    with opened(keyspace) as old, pytest.raises(Superseded, match="a version newer than this run's 1 is stored"):
        old.replace_hour(hour, 1, stalling())
    only(cql, hour, 2, "v")
    assert [numbers(store, "old"), numbers(store, "v")] == [[], [2, 1, 0]]


@pytest.mark.parametrize("stage", ["_places", "_events", "_visitors", "_count_shards", "_show"])
def test_late_rows_of_an_older_version_are_never_seen(
    keyspace: Cluster, store: CassandraEventStore, cql: CassandraSession, hour: datetime, stage: str
) -> None:
    """A writer stalls after it has looked whether it is the newest."""

    class Stalling(CassandraEventStore):
        pass

    def stall(self: CassandraEventStore, *arguments: Any) -> Any:
        store.replace_hour(hour, 2, iter([frames(hour, "v")]))
        return getattr(CassandraEventStore, stage)(self, *arguments)

    setattr(Stalling, stage, stall)
    with Stalling(keyspace, DAYS, now=lambda: NOW) as old, pytest.raises(Superseded):
        old.replace_hour(hour, 1, iter([frames(hour, "old", "v", events=5)]))
    assert [numbers(store, "old"), numbers(store, "v")] == [[], [2, 1, 0]]
    assert find_visitor(store, SITE, "old") is None
    store.replace_hour(hour, 3, iter([frames(hour, "v")]))
    assert [numbers(store, "old"), numbers(store, "v")] == [[], [2, 1, 0]]
    assert {row.version for row in lying(cql, "events", hour)} == {3}


def test_of_two_writers_at_once_the_newer_one_counts(keyspace: Cluster, cql: CassandraSession, hour: datetime) -> None:
    """Given several writers of one hour, then its rows are those of the newest, and every other one gave up or was replaced."""

    def write(version: int) -> None:
        with opened(keyspace) as store, suppress(Superseded):
            store.replace_hour(hour, version, (frames(hour, f"v{version}-{part}") for part in range(5)))

    versions = [3, 1, 5, 2, 4]
    with ThreadPoolExecutor(len(versions)) as pool:
        list(pool.map(write, versions))
    with opened(keyspace) as store:
        for version in versions:
            shown = [numbers(store, f"v{version}-{part}") for part in range(5)]
            assert shown == [[2, 1, 0] if version == 5 else []] * 5
    assert {row.version for row in lying(cql, "visitor_hours", hour) if row.version > 4} == {5}


def test_while_an_hour_is_written_again_the_old_one_is_read(
    keyspace: Cluster, store: CassandraEventStore, hour: datetime
) -> None:
    store.replace_hour(hour, 1, iter([frames(hour, "kept", "leaves")]))

    def reading() -> Iterator[Frames]:
        yield frames(hour, "comes", "kept")
        assert [numbers(store, visitor) for visitor in ("kept", "leaves")] == [[2, 1, 0], [2, 1, 0]]
        yield frames(hour, "comes-too")

    with opened(keyspace) as writer:
        writer.replace_hour(hour, 2, reading())
    assert [numbers(store, visitor) for visitor in ("comes", "kept", "leaves")] == [[2, 1, 0], [2, 1, 0], []]


# How it is written


def test_rows_are_written_at_their_version_and_live_until_the_hour_is_old(
    store: CassandraEventStore, cql: CassandraSession, hour: datetime
) -> None:
    store.replace_hour(hour, 17, iter([frames(hour, "v", "w")]))
    seconds = int((hour + timedelta(days=DAYS) - NOW).total_seconds())
    for table in ("events", "visitor_hours", "event_hours"):
        rows = lying(cql, table, hour)
        assert {row.version for row in rows} == {17}
        assert all(seconds - 60 <= row.ttl <= seconds for row in rows)
    kept = cql.one("select ttl(version) as version, ttl(visible) as visible from hours where hour = ?", (hour,))
    assert seconds - 60 <= kept.version <= seconds
    assert seconds - 60 <= kept.visible <= seconds


def test_an_hour_whose_first_rows_were_lost_is_not_called_whole(
    store: CassandraEventStore, cql: CassandraSession, hour: datetime
) -> None:
    """A single node that syncs its log now and then loses what it took last when the machine goes down."""

    def losing() -> Iterator[Frames]:
        yield frames(hour, "v")
        cql._session.execute("truncate hours")

    with pytest.raises(EventStoreUnavailable, match="lost"):
        store.replace_hour(hour, 1, losing())
    store.replace_hour(hour, 2, iter([frames(hour, "v")]))
    assert numbers(store, "v") == [2, 1, 0]


def test_the_session_asks_a_quorum_of_this_data_centre_and_replicas_first(cql: CassandraSession) -> None:
    profile = cql._session.cluster.profile_manager.default
    assert profile.consistency_level == ConsistencyLevel.LOCAL_QUORUM
    assert profile.serial_consistency_level == ConsistencyLevel.LOCAL_SERIAL
    assert profile.load_balancing_policy._child_policy.local_dc == "datacenter1"
    assert cql.batch(
        "insert into hour_sites (hour, slice, site, shard) values (?, ?, ?, ?)", [(NOON, 1, "a", 0)] * 2
    ).routing_key


# Migrations


def test_a_keyspace_is_made_with_as_many_replicas_as_there_are_nodes(cassandra: Service, cql: CassandraSession) -> None:
    name = next(KEYSPACES)
    for _ in range(2):
        with opened(cluster(cassandra, name)) as store:
            assert store.visitor_hours(SITE, "v") == []
    row = cql.one("select replication from system_schema.keyspaces where keyspace_name = ?", (name,))
    assert dict(row.replication) == {
        "class": "org.apache.cassandra.locator.NetworkTopologyStrategy",
        "datacenter1": "1",
    }
    assert [row.name for row in cql.rows(f"select name from {name}.migrations", ())] == ["0001_event_store.cql"]


def test_several_may_migrate_at_once(cassandra: Service) -> None:
    name, hour = next(KEYSPACES), NOON
    ready = threading.Barrier(4)

    def write(version: int) -> None:
        ready.wait()
        with opened(cluster(cassandra, name)) as store:
            store.replace_hour(hour - timedelta(hours=version), 1, iter([frames(hour, "v")]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with opened(cluster(cassandra, name)) as store:
        assert len(store.visitor_hours(SITE, "v")) == 4


def test_a_migration_that_ended_in_the_middle_goes_on(cassandra: Service, cql: CassandraSession) -> None:
    keyspace = cluster(cassandra, next(KEYSPACES))
    with opened(keyspace) as store:
        store.replace_hour(NOON, 1, iter([frames(NOON, "v")]))
    for statement in ("drop table {}.hour_sites", "truncate {}.migrations"):
        cql._session.execute(statement.format(keyspace.name))
    with opened(keyspace) as store:
        store.replace_hour(NOON, 2, iter([frames(NOON, "v")]))
        assert numbers(store, "v") == [2, 1, 0]


def test_a_keyspace_with_capitals(cassandra: Service) -> None:
    with opened(cluster(cassandra, "Foot_Fall")) as store:
        store.replace_hour(NOON, 1, iter([frames(NOON, "v")]))
        assert numbers(store, "v") == [2, 1, 0]


# What fails


@pytest.mark.parametrize(
    ("host", "says"), [("127.0.0.1", "refused"), ("nowhere.invalid", "not known|resolution")], ids=["down", "unknown"]
)
def test_a_server_that_is_not_there(host: str, says: str) -> None:
    began = time.monotonic()
    where = Cluster((Address(host, 1),), "footfall", "user", "se%cret", tls=False)
    with opened(where) as store, pytest.raises(EventStoreUnavailable, match=says) as failed:
        store.replace_hour(NOON, 1, iter([frames(NOON, "v")]))
    assert f"Cassandra at {host}:1/footfall cannot be used" in str(failed.value)
    assert "FOOTFALL_EVENT_STORE" in str(failed.value)
    assert "se%cret" not in str(failed.value)
    assert time.monotonic() - began < 15


def test_nothing_is_connected_before_it_is_used() -> None:
    with opened(Cluster((Address("nowhere.invalid", 1),), "footfall", None, None, tls=False)):
        pass


def test_a_name_that_no_keyspace_can_have(cassandra: Service) -> None:
    with opened(cluster(cassandra, "foot-fall")) as store, pytest.raises(EventStoreUnavailable, match="foot-fall"):
        store.timeline(SITE, "v", 1)


def secured(server: Service, **changed: Any) -> Cluster:
    return replace(cluster(server, "secured"), **{"user": USER, "password": server.secret, "tls": True, **changed})


def test_with_tls_and_a_password(secure_cassandra: Service, certificates: Certificates) -> None:
    with opened(secured(secure_cassandra), ca=certificates.ca) as store:
        store.replace_hour(NOON, 1, iter([frames(NOON, "v", events=3_000)]))
        assert len(numbers(store, "v")) == 3_000
    name = Address("localhost", secure_cassandra.port)
    with opened(secured(secure_cassandra, hosts=(name,)), ca=certificates.ca) as store:
        assert len(numbers(store, "v")) == 3_000


@pytest.mark.parametrize(
    ("changed", "trusted", "says"),
    [
        ({"password": "wrong-secret"}, True, "password.*incorrect"),
        ({}, False, "certificate verify failed"),
        ({"hosts": "127.1"}, True, "mismatch|doesn't match|not valid for"),
        ({"tls": False}, True, ""),
        ({"user": None, "password": None}, True, "authent"),
    ],
    ids=["password", "certificate", "name", "no TLS", "no user"],
)
def test_what_a_secure_server_refuses(
    secure_cassandra: Service,
    certificates: Certificates,
    changed: dict[str, Any],
    trusted: bool,
    says: str,
) -> None:
    began = time.monotonic()
    if "hosts" in changed:  # the same machine by a name that its certificate does not have
        changed = {"hosts": (Address(changed["hosts"], secure_cassandra.port),)}
    ca = certificates.ca if trusted else None
    refused = pytest.raises(EventStoreUnavailable, match=f"(?i){says}.*FOOTFALL_EVENT_STORE")
    with opened(secured(secure_cassandra, **changed), ca=ca) as store, refused as failed:
        store.timeline(SITE, "v", 1)
    assert "wrong-secret" not in str(failed.value)
    assert time.monotonic() - began < 15


def test_rights_that_are_missing_are_named(secure_cassandra: Service, certificates: Certificates) -> None:
    """A user who may read and write but make nothing uses a keyspace that is there; with fewer rights the message says which."""
    with looking(secured(secure_cassandra), certificates.ca) as admin:
        for statement in (
            "create role if not exists writer with password = 'x' and login = true",
            "grant select on keyspace secured to writer",
            "grant modify on keyspace secured to writer",
            "create role if not exists reader with password = 'x' and login = true",
            "grant select on keyspace secured to reader",
        ):
            admin._session.execute(statement)
    hour = NOON - timedelta(hours=1)
    with opened(secured(secure_cassandra, user="writer", password="x"), ca=certificates.ca) as store:
        store.replace_hour(hour, 1, iter([frames(hour, "w")]))
    with opened(secured(secure_cassandra, user="reader", password="x"), ca=certificates.ca) as store:
        assert numbers(store, "w") == [2, 1, 0]
        with pytest.raises(EventStoreUnavailable, match="MODIFY"):
            store.replace_hour(hour, 2, iter([]))
    other = secured(secure_cassandra, user="reader", password="x", name="other")
    with opened(other, ca=certificates.ca) as store, pytest.raises(EventStoreUnavailable, match="CREATE"):
        store.timeline(SITE, "v", 1)


def test_when_the_server_dies_in_the_middle_of_a_write_and_comes_back_the_write_goes_on(
    cassandra: Service,
) -> None:
    keyspace, hour = cluster(cassandra, "dies"), NOON

    def dying() -> Iterator[Frames]:
        yield frames(hour, "before", events=2_000)
        cassandra.kill()
        threading.Thread(target=lambda: (time.sleep(2), cassandra.start())).start()
        yield frames(hour, "after", events=2_000)

    with opened(keyspace) as store:
        assert store.replace_hour(hour, 1, dying()) == 4_000
        assert [len(numbers(store, visitor)) for visitor in ("before", "after")] == [2_000, 2_000]
    with looking(keyspace) as cql:
        only(cql, hour, 1, "before", "after", events=2_000)


def test_when_the_server_stays_away_the_write_fails_and_a_later_one_makes_it_right(
    cassandra: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyspace, hour = cluster(cassandra, "stays_away"), NOON

    def dying() -> Iterator[Frames]:
        yield frames(hour, "before")
        cassandra.kill()
        yield frames(hour, "after")

    monkeypatch.setattr("ingestion.event_store.cassandra_session.WRITE_PATIENCE", 3)
    try:
        with opened(keyspace) as store, pytest.raises(EventStoreUnavailable, match=r"Cassandra at 127\.0\.0\.1"):
            store.replace_hour(hour, 1, dying())
    finally:
        cassandra.start()
    with opened(keyspace) as store:
        store.replace_hour(hour, 2, iter([frames(hour, "after")]))
    with looking(keyspace) as cql:
        only(cql, hour, 2, "after")
