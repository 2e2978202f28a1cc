"""What every event store promises, on each adapter."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any

import polars as pl
import pytest
from cassandra.cluster import Cluster as Driver
from cassandra.cluster import Session
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS, EventStore, EventStoreUnavailable, Visitor, find_visitor
from ingestion.event_store.cassandra import CassandraEventStore
from ingestion.event_store.postgres import PostgresEventStore
from ingestion.ledger import Superseded
from ingestion.settings import Address, Cluster
from orchestration.services import Service

Open = Callable[[], AbstractContextManager[EventStore]]
Frames = tuple[pl.DataFrame, pl.DataFrame]

SITE, OTHER_SITE = "shop.example", "other.example"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOURS = [NOON + timedelta(hours=number) for number in range(4)]
VERSIONS = count(1)
ODD = [
    "",
    " ",
    '"',
    '""',
    "',\"\n",
    "a,b;c\td",
    "\\",
    "\\.",
    "x\n\\.\ny",
    "\\N",
    "null",
    "NULL",
    "{}",
    "\r\n",
    "\x01\x1b\x7f\x85\u2028",
    "日本語 🦊 é e\u0301",
    "'; drop table store.events; --",
    "%s {} $1",
]


KEPT = timedelta(days=400)
NOW = NOON + timedelta(days=3)
TABLES = ("events", "event_hours", "visitor_hours", "hours", "hour_sites")


@pytest.fixture(params=["postgres", "cassandra"])
def opened(request: pytest.FixtureRequest) -> Open:
    """Opens the same, empty store again and again."""
    if request.param == "postgres":
        url = request.getfixturevalue("database")
        return lambda: PostgresEventStore(url)
    keyspace = request.getfixturevalue("keyspace")
    for table in TABLES:
        driver_session(keyspace).execute(f"truncate {keyspace.name}.{table}")
    return lambda: CassandraEventStore(keyspace, KEPT.days, now=lambda: NOW)


@pytest.fixture(scope="session")
def keyspace(cassandra: Service) -> Cluster:
    """One for all tests: a keyspace takes longer to make than its tables to empty."""
    keyspace = Cluster((Address("127.0.0.1", cassandra.port),), "contract", None, None, tls=False)
    with CassandraEventStore(keyspace, KEPT.days) as store:
        store.timeline(SITE, "v", 1)
    return keyspace


@cache
def driver_session(keyspace: Cluster) -> Session:
    """A session of the driver's own, to empty tables with."""
    (host,) = keyspace.hosts
    return Driver([host.host], port=host.port, protocol_version=4).connect()


@pytest.fixture
def store(opened: Open) -> Iterator[EventStore]:
    with opened() as store:
        yield store


@dataclass(frozen=True)
class Happened:
    """One event of a visitor, `minutes` after noon."""

    visitor: str = "v"
    minutes: int = 0
    site: str = SITE
    language: str | None = None
    text: str = "x"


def frames(happened: Sequence[Happened], first_id: int = 0) -> Frames:
    """What an hour with these events brings: each is a pageview, of a country and from a source of its own."""
    stored, visitors = [], dict[tuple[str, str], dict[str, Any]]()
    for number, one in enumerate(sorted(happened, key=lambda one: one.minutes), first_id):
        at = NOON + timedelta(minutes=one.minutes)
        stored.append((one.site, one.visitor, at, f"id-{number:04}", json.dumps({"name": one.text})))
        known = visitors.setdefault(
            (one.site, one.visitor),
            {"site": one.site, "visitor_id": one.visitor, "first_seen": at, "pageviews": 0, "source": f"from {at}"},
        )
        known |= {"last_seen": at, "country": f"in {at}", "device": one.text, "browser": one.text}
        known |= {"pageviews": known["pageviews"] + 1, "language": one.language or known.get("language")}
    return (
        pl.DataFrame(stored, schema=STORED_EVENTS, orient="row"),
        pl.DataFrame(list(visitors.values()), schema=VISITOR_HOURS),
    )


def replace(store: EventStore, hour: datetime, *parts: Frames, version: int | None = None) -> int:
    return store.replace_hour(hour, version or next(VERSIONS), iter(parts))


def contents(store: EventStore, *visitors: str, site: str = SITE) -> list[tuple[Any, Any]]:
    return [(find_visitor(store, site, one), store.timeline(site, one, 1_000)) for one in visitors or ("v", "w")]


NOTHING = [(None, []), (None, [])]


def test_an_empty_store_knows_nobody(store: EventStore) -> None:
    assert contents(store) == NOTHING
    assert list(store.visitor_hours(SITE, "v")) == []


def test_what_was_stored_is_found(store: EventStore) -> None:
    assert replace(store, NOON, frames([Happened(minutes=5), Happened(minutes=9, language="de")])) == 2
    first, last = NOON + timedelta(minutes=5), NOON + timedelta(minutes=9)
    assert find_visitor(store, SITE, "v") == Visitor(
        SITE, "v", first, last, 2, country=f"in {last}", device="x", browser="x", language="de", source=f"from {first}"
    )
    assert store.timeline(SITE, "v", 10) == [(last, '{"name": "x"}'), (first, '{"name": "x"}')]
    assert store.timeline(SITE, "v", 10)[0][0].utcoffset() == timedelta(0)


def test_an_hour_is_replaced_whole_also_by_nothing(store: EventStore) -> None:
    replace(store, HOURS[0], frames([Happened(), Happened("w")]))
    replace(store, HOURS[1], frames([Happened(minutes=70)]))
    replace(store, HOURS[0], frames([Happened("w", 3)]))
    v, w = contents(store)
    assert (v[0].pageviews, len(v[1]), w[0].pageviews, len(w[1])) == (1, 1, 1, 1)
    assert v[0].first_seen == NOON + timedelta(minutes=70)
    assert replace(store, HOURS[0]) == 0
    assert replace(store, HOURS[1], frames([])) == 0
    assert contents(store) == NOTHING


def test_an_hour_may_come_in_parts(store: EventStore, opened: Open) -> None:
    whole = [Happened(visitor, minutes) for visitor in "vw" for minutes in range(5)]
    assert replace(store, NOON, frames(whole[:5]), frames([]), frames(whole[5:])) == 10
    v, w = contents(store)
    assert (v[0].pageviews, len(v[1]), w[0].pageviews, len(w[1])) == (5, 5, 5, 5)
    with opened() as another:
        assert contents(another) == [v, w]


def test_the_same_rows_again_change_nothing(store: EventStore) -> None:
    part = frames([Happened("v", minutes, language="de") for minutes in range(50)])
    replace(store, NOON, part, version=7)
    before = contents(store)
    for version in (7, 7, 8):
        assert replace(store, NOON, part, version=version) == 50
        assert contents(store) == before


def test_an_older_version_changes_nothing(store: EventStore, opened: Open) -> None:
    newer = next(VERSIONS) + 100
    replace(store, HOURS[0], frames([Happened(minutes=1)]), version=newer)
    before = contents(store)
    with opened() as late:
        for part in (frames([Happened(minutes=2), Happened("w")]), frames([])):
            with suppress(Superseded):
                late.replace_hour(HOURS[0], newer - 1, iter([part]))
            assert contents(store) == contents(late) == before
        late.replace_hour(HOURS[1], newer - 1, iter([frames([Happened("w", 65)])]))  # another hour is another matter
    assert contents(store, "w")[0][0].pageviews == 1


def test_an_hour_that_a_newer_version_emptied_stays_empty(store: EventStore) -> None:
    replace(store, NOON, frames([Happened()]), version=1)
    replace(store, NOON, version=3)
    with suppress(Superseded):
        replace(store, NOON, frames([Happened()]), version=2)
    assert contents(store) == NOTHING


class Broken(Exception):
    """Reading the lake failed in the middle."""


def test_when_reading_fails_in_the_middle_the_old_hour_can_be_written_again(store: EventStore) -> None:
    """Whatever an adapter shows meanwhile, a later version makes the hour right."""

    def failing() -> Iterator[Frames]:
        yield frames([Happened(minutes=2), Happened("w", 3)])
        raise Broken

    replace(store, NOON, frames([Happened(minutes=1)]))
    with pytest.raises(Broken):
        store.replace_hour(NOON, next(VERSIONS), failing())
    replace(store, NOON, frames([Happened(minutes=4)]))
    v, w = contents(store)
    assert (v[0].first_seen, len(v[1]), w) == (NOON + timedelta(minutes=4), 1, (None, []))


def test_when_reading_fails_in_the_middle_the_embedded_store_keeps_the_old_hour(database: str) -> None:
    def failing() -> Iterator[Frames]:
        yield frames([Happened(minutes=2), Happened("w", 3)])
        raise Broken

    with PostgresEventStore(database) as store:
        replace(store, NOON, frames([Happened(minutes=1)]), version=5)
        before = contents(store)
        with pytest.raises(Broken):
            store.replace_hour(NOON, 6, failing())
        assert contents(store) == before
        with PostgresEventStore(database) as other:
            assert replace(other, NOON, version=5) == 0  # nor does the failed version keep others out


def test_a_timeline_has_the_latest_first_and_no_more_than_asked(store: EventStore) -> None:
    replace(store, HOURS[1], frames([Happened(minutes=minutes) for minutes in (61, 75, 75, 3)], 100))
    replace(store, HOURS[0], frames([Happened(minutes=minutes) for minutes in (59, 1)]))
    minutes = [(at - NOON) // timedelta(minutes=1) for at, _ in store.timeline(SITE, "v", 10)]
    assert minutes == [75, 75, 61, 59, 3, 1]
    for most in (0, 1, 2, 5):
        assert store.timeline(SITE, "v", most) == store.timeline(SITE, "v", 10)[:most]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_text_comes_back_as_it_is(store: EventStore, odd: str) -> None:
    visitor = odd or "v"
    replace(store, NOON, frames([Happened(visitor, 0, language=odd, text=odd), Happened("w", 1, language="w")]))
    found = find_visitor(store, SITE, visitor)
    assert found
    assert (found.visitor_id, found.device, found.browser, found.pageviews) == (visitor, odd, odd, 1)
    assert [json.loads(event) for _, event in store.timeline(SITE, visitor, 9)] == [{"name": odd}]
    assert found.language == (odd or None)  # `frames` takes an empty language for none


def test_an_empty_language_is_not_a_missing_one(store: EventStore) -> None:
    stored, visitors = frames([Happened("v"), Happened("w")])
    languages = pl.when(pl.col("visitor_id") == "v").then(pl.lit(""))
    replace(store, NOON, (stored, visitors.with_columns(language=languages)))
    assert [visitor.language for visitor, _ in contents(store)] == ["", None]


def test_the_longest_site_and_visitor_fit(store: EventStore) -> None:
    site, visitor = "🦊" * 253, "🦊" * 300
    replace(store, NOON, frames([Happened(visitor, 0, site, text="x" * 100_000)]))
    assert contents(store, visitor, site=site)[0][0].pageviews == 1


def test_sites_and_visitors_are_apart(store: EventStore) -> None:
    names = ["v", "V", "v ", "vv", "%", "_"]
    everyone = [(site, name) for site in (SITE, OTHER_SITE, SITE.upper()) for name in names]
    parts = [Happened(name, minutes, site) for minutes, (site, name) in enumerate(everyone)]
    replace(store, NOON, frames(parts))
    for minutes, (site, name) in enumerate(everyone):
        ((found, timeline),) = contents(store, name, site=site)
        assert found.first_seen == found.last_seen == NOON + timedelta(minutes=minutes)
        assert (found.site, found.visitor_id, found.pageviews, len(timeline)) == (site, name, 1, 1)
    assert find_visitor(store, "nobody.example", "v") is None


def test_what_bots_did_under_a_visitors_id_is_in_the_timeline_and_says_nothing_of_the_visitor(
    store: EventStore,
) -> None:
    stored, visitors = frames([Happened("v", 5), Happened("w", 6), Happened("v", 7)])
    replace(store, HOURS[0], (stored, visitors.filter(pl.col("visitor_id") != "w")))
    replace(store, HOURS[1], frames([Happened("w", 65)], 50), frames([Happened("v", 66)], 60))
    replace(store, HOURS[2], (frames([Happened("v", 130)], 70)[0], visitors.clear()))
    v, w = contents(store)
    assert (v[0].pageviews, len(v[1]), v[0].last_seen) == (3, 4, NOON + timedelta(minutes=66))
    assert (w[0].pageviews, len(w[1]), w[0].first_seen) == (1, 2, NOON + timedelta(minutes=65))


def test_a_site_may_come_in_several_parts(store: EventStore) -> None:
    visitors = [f"v{number}" for number in range(9)]
    parts = [
        frames([Happened(visitor, minutes) for minutes in range(3)], 10 * at) for at, visitor in enumerate(visitors)
    ]
    for _ in range(2):
        assert replace(store, NOON, *parts) == 27
        assert [(known.pageviews, len(events)) for known, events in contents(store, *visitors)] == [(3, 3)] * 9


def test_what_is_not_old_is_not_forgotten(store: EventStore) -> None:
    replace(store, HOURS[1], frames([Happened(minutes=minutes) for minutes in (61, 75)], 100))
    before = contents(store)
    assert store.forget(HOURS[1]) == 0
    assert contents(store) == before


def test_the_embedded_store_forgets_old_hours(database: str) -> None:
    with PostgresEventStore(database) as store:
        replace(store, HOURS[0], frames([Happened(minutes=1), Happened("w", 2)]))
        replace(store, HOURS[1], frames([Happened(minutes=61)]))
        assert (store.forget(HOURS[1]), store.forget(HOURS[1])) == (2, 0)
        v, w = contents(store)
    assert (v[0].pageviews, len(v[1]), w) == (1, 1, (None, []))


def test_cassandra_takes_no_hour_that_has_expired(keyspace: Cluster) -> None:
    visitor = "expired"
    for hour, kept in ((NOW - KEPT, 0), (NOW - KEPT + timedelta(hours=1), 1)):
        with CassandraEventStore(keyspace, KEPT.days, now=lambda: NOW) as store:
            assert replace(store, hour, frames([Happened(visitor)])) == kept
            assert len(store.timeline(SITE, visitor, 9)) == kept


@pytest.mark.parametrize(
    ("open_store", "server"),
    [
        (lambda: PostgresEventStore("postgresql://nobody:secret@127.0.0.1:1/none"), "PostgreSQL.*FOOTFALL_POSTGRES"),
        (
            lambda: CassandraEventStore(
                Cluster((Address("127.0.0.1", 1),), "none", "nobody", "secret", tls=False), 400
            ),
            "Cassandra at 127.0.0.1:1/none .*refused.*FOOTFALL_EVENT_STORE",
        ),
    ],
    ids=["postgres", "cassandra"],
)
def test_a_store_that_cannot_be_reached_says_so(open_store: Open, server: str) -> None:
    began = time.monotonic()
    with pytest.raises(EventStoreUnavailable, match=server) as failed, open_store() as store:
        store.timeline(SITE, "v", 1)
    assert time.monotonic() - began < 15
    assert "secret" not in str(failed.value)


WRITES = st.lists(
    st.tuples(
        st.sampled_from(HOURS),
        st.lists(
            st.builds(
                Happened,
                st.sampled_from("vw"),
                st.integers(0, 600),
                st.sampled_from([SITE, OTHER_SITE]),
                st.sampled_from([None, "de", "fr"]),
            ),
            max_size=6,
            unique_by=lambda one: (one.visitor, one.minutes),
        ),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(WRITES, st.randoms(use_true_random=False))
def test_a_visitor_is_the_fold_of_the_hours_that_count_however_often_and_in_whatever_order_they_were_written(
    opened: Open, writes: list[tuple[datetime, list[Happened]]], random: Any
) -> None:
    """Each write is one version of an hour; of each hour the newest counts, also where an older one is written after it."""
    start = next(VERSIONS) * 1_000
    versions = list(enumerate(writes, start))
    counting = {hour: happened for _, (hour, happened) in versions}
    random.shuffle(versions)
    with opened() as store:
        for hour in HOURS:
            replace(store, hour, version=start - 1)
        for version, (hour, happened) in versions:
            with suppress(Superseded):
                replace(store, hour, frames(happened), version=version)
        for site in (SITE, OTHER_SITE):
            for name in "vw":
                own = {
                    hour: sorted(
                        (one for one in happened if (one.site, one.visitor) == (site, name)),
                        key=lambda one: one.minutes,
                    )
                    for hour, happened in sorted(counting.items())
                }
                assert find_visitor(store, site, name) == naive(site, name, [part for part in own.values() if part])
                minutes = sorted((one.minutes for part in own.values() for one in part), reverse=True)
                seen = [(at - NOON) // timedelta(minutes=1) for at, _ in store.timeline(site, name, 100)]
                assert seen == minutes


def naive(site: str, name: str, hours: list[list[Happened]]) -> Visitor | None:
    """The fold of a visitor's hours, the earliest arrival first, each with its events in order."""
    if not hours:
        return None
    first, last, language = hours[0], hours[0], (-1, None)
    for hour in hours:
        if hour[0].minutes < first[0].minutes:
            first = hour
        if hour[-1].minutes >= last[-1].minutes:
            last = hour
        spoken = [one.language for one in hour if one.language]
        if spoken and hour[-1].minutes >= language[0]:
            language = (hour[-1].minutes, spoken[-1])
    began, ended = (NOON + timedelta(minutes=hour.minutes) for hour in (first[0], last[-1]))
    return Visitor(
        site, name, began, ended, sum(map(len, hours)),
        country=f"in {ended}", device="x", browser="x", language=language[1], source=f"from {began}",
    )  # fmt: skip
