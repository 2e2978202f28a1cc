"""An arrival hour into Cassandra: through the adapter, beside a prepared insert for each row, 200 at a time.

A few large sites, and many small ones, where what is known of visitors and sites is most of the rows. The server, which
FOOTFALL_EVENT_STORE names, is on this machine too, in most cases. The keyspace is made anew each time, and removed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from bench.measured import Measured, alone
from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS
from ingestion.settings import Cluster, from_environment

KEYSPACE = "footfall_bench"
HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
PEER_AT_ONCE = 200
DAYS = 400
FILLING = "x" * 620
"""Makes an event about 750 bytes, as real ones are without what the store leaves out."""


@dataclass(frozen=True)
class Load:
    """An hour's events."""

    sites: int
    events_a_site: int
    events_a_visitor: int
    frames: int


LOADS = {
    "4 sites, 10 events a visitor": Load(4, 100_000, 10, 8),
    "20,000 sites of 14 events, 3 events a visitor": Load(20_000, 14, 3, 8),
}


def run() -> list[tuple[str, str]]:
    """Rows to print; one that says how to get them where no Cassandra is named."""
    cluster = from_environment().event_store
    if cluster is None:
        return [("skipped", "FOOTFALL_EVENT_STORE names no Cassandra, such as cassandra://127.0.0.1:9042/footfall")]
    return [row for name, load in LOADS.items() for row in _rows(name, load, replace(cluster, name=KEYSPACE))]


def _rows(name: str, load: Load, cluster: Cluster) -> Iterator[tuple[str, str]]:
    events = load.sites * load.events_a_site
    ours, again, peer = (alone(work, cluster, load) for work in (write_hour, rewrite_hour, write_rows))
    yield name, f"{events:,} events, {-(-load.events_a_site // load.events_a_visitor) * load.sites:,} visitors"
    yield "  written", _spoken(events, ours)
    yield "  written again, the same", _spoken(events, again)
    yield "  a prepared insert each", _spoken(events, peer)
    yield "  ratio", f"{peer.result / ours.result:.1f}"


def _spoken(events: int, done: Measured) -> str:
    return f"{events / done.result:,.0f} events/s ({done.result:.1f} s), peak {done.peak_mib:,.0f} MiB"


# What is measured


def write_hour(cluster: Cluster, load: Load) -> float:
    """Seconds for an hour that was never written."""
    return _write(cluster, load, versions=1)


def rewrite_hour(cluster: Cluster, load: Load) -> float:
    """Seconds for an hour that was written before."""
    return _write(cluster, load, versions=2)


def _write(cluster: Cluster, load: Load, versions: int) -> float:
    from ingestion.event_store.cassandra import CassandraEventStore

    with _new_keyspace(cluster), CassandraEventStore(cluster, DAYS, from_environment().ca) as store:
        list(store.visitor_hours("", "v"))  # connects
        for version in range(versions):
            every = list(frames(load))
            began = time.perf_counter()
            store.replace_hour(HOUR, version + 1, iter(every))
            seconds = time.perf_counter() - began
    return seconds


def write_rows(cluster: Cluster, load: Load) -> float:
    """Seconds for the rows of events and visitors alone, without what makes an hour whole."""
    from cassandra.concurrent import execute_concurrent_with_args

    from ingestion.event_store import cassandra
    from ingestion.event_store.cassandra_session import CassandraSession

    with _new_keyspace(cluster):
        session = CassandraSession(cluster, from_environment().ca)
        every = [(cassandra.sharded(stored, {}, cassandra.SHARD_EVENTS), visitors) for stored, visitors in frames(load)]
        event, visitor = map(session._prepared, (cassandra.INSERT_EVENT, cassandra.INSERT_VISITOR_HOUR))
        how = {"version": pl.lit(1), "ttl": pl.lit(DAYS * 86_400)}
        began = time.perf_counter()
        for events, visitors in every:
            rows = events.with_columns(hour=pl.lit(HOUR), **how).select(
                "site", "hour", "shard", "visitor_id", "occurred_at", "event_id", "event", *how
            )
            execute_concurrent_with_args(session._session, event, rows.iter_rows(), PEER_AT_ONCE)
            known = cassandra.placed(visitors, events).with_columns(hour=pl.lit(HOUR), **how)
            execute_concurrent_with_args(session._session, visitor, known.iter_rows(), PEER_AT_ONCE)
        seconds = time.perf_counter() - began
        session.close()
    return seconds


@contextmanager
def _new_keyspace(cluster: Cluster) -> Iterator[None]:
    from ingestion.event_store.cassandra_session import CassandraSession

    _drop(CassandraSession(cluster, from_environment().ca))
    yield
    _drop(CassandraSession(cluster, from_environment().ca))


def _drop(session) -> None:
    session._session.execute(f"drop keyspace {KEYSPACE}", timeout=60)
    session.close()


# What it is measured on


def frames(load: Load) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """STORED_EVENTS and VISITOR_HOURS, some sites or visitors in each."""
    count = load.sites * load.events_a_site // load.frames
    for first in range(0, count * load.frames, count):
        number = pl.int_range(first, first + count, eager=True)
        site = (number // load.events_a_site).cast(pl.String)
        visitor = (number % load.events_a_site // load.events_a_visitor).cast(pl.String)
        events = pl.select(
            site="site-" + site + ".example",
            visitor_id="visitor-of-site-" + visitor.str.zfill(16),
            occurred_at=pl.lit(HOUR) + pl.duration(milliseconds=number * 3_600_000 // (count * load.frames)),
            event_id="11111111-2222-3333-4444-" + number.cast(pl.String).str.zfill(12),
            event='{"name":"pageview","path":"/shop/' + visitor + '","title":"' + FILLING + '","bot":false}',
        )
        yield events.cast(STORED_EVENTS).select(STORED_EVENTS.keys()), _visitors(events)


def _visitors(events: pl.DataFrame) -> pl.DataFrame:
    return (
        events.group_by("site", "visitor_id", maintain_order=True)
        .agg(
            first_seen=pl.col("occurred_at").min(),
            last_seen=pl.col("occurred_at").max(),
            pageviews=pl.len(),
            country=pl.lit("DE"),
            device=pl.lit("desktop"),
            browser=pl.lit("Firefox"),
            language=pl.lit("de"),
            source=pl.lit("Google"),
        )
        .cast(VISITOR_HOURS)
    )
