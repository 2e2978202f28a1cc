"""The sweep over a year that is settled: what it costs to find that there is nothing to do, or one hour.

The ledger is a real one, in the embedded PostgreSQL, with 8,760 arrival hours. No lake object is behind it: the sweep reads none.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from assets.lineage import ASSETS, inputs, stale
from bench.measured import Measured, alone
from ingestion.event_log import open_event_log
from ingestion.lake import digest_of
from ingestion.ledger import Published, State
from ingestion.postgres import stop_postgres
from ingestion.settings import Settings, from_environment
from ingestion.site_time import from_datetime, hour_key, site_date
from ingestion.stores import Stores, open_stores

DAYS = 365
HOUR = timedelta(hours=1)
TIME_ZONES = ("UTC", "Pacific/Pago_Pago", "Pacific/Kiritimati")
"""Of one to three of them has each hour events, so it is of one to three dates: these are the furthest behind and ahead."""
SITES = 20
LATE_EVERY, LATE_HOURS, LATEST = 10, 3, 72
"""Every so many hours events of so many earlier hours come late, each at most so many hours."""
TIMES = 5
"""Each figure is the least of so many."""

Steps = dict[str, float]
"""Seconds."""


@dataclass(frozen=True)
class Looks:
    """What was measured."""

    ledger: str
    settled: dict[str, Steps]
    """Of each of the two sweeps, when there is nothing to do."""
    arrived: dict[str, Steps]
    """The same when an hour has arrived."""
    found: str
    of_assets: Steps
    """How long a run's step takes to find which partitions to make, and from what."""


def run() -> list[tuple[str, str]]:
    """Makes the ledger of a year, sweeps it, and returns rows to print."""
    with TemporaryDirectory(prefix="ff-") as home:
        return _rows(alone(sweep_year, home))


def _rows(done: Measured) -> list[tuple[str, str]]:
    looks: Looks = done.result
    both = sum(sum(steps.values()) for steps in looks.settled.values())
    return [
        ("ledger", looks.ledger),
        *((f"nothing due, {sweep}", _spoken(steps)) for sweep, steps in looks.settled.items()),
        ("both sweeps", f"{both:.2f} s (at most 5 s wanted)"),
        *((f"one hour came, {sweep}", _spoken(steps)) for sweep, steps in looks.arrived.items()),
        ("due then", looks.found),
        ("a run's steps", _spoken(looks.of_assets)),
        ("peak memory", f"{done.peak_mib:,.0f} MiB, with making the ledger"),
    ]


def _spoken(steps: Steps) -> str:
    return (
        f"{sum(steps.values()):.2f} s (" + ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items()) + ")"
    )


# What is measured


def sweep_year(home: str) -> Looks:
    """Sweeps a settled year, and again when an hour has arrived."""
    os.environ |= {"FOOTFALL_HOME": home}
    now = datetime.now(UTC)
    settings = replace(from_environment(), start=now - timedelta(days=DAYS + 1))
    try:
        with open_stores(settings) as stores:
            ledger = _fill(stores, now)
            settled, found = _sweeps(settings, now)
            assert not any(found.values()), f"the year is not settled: {found}"
            of_assets = _least(lambda: _of_assets(stores, now))[0]
            with open_event_log(settings, stores.postgres_url) as log:
                log.append([b"{}"])
            arrived, found = _sweeps(settings, now)
    finally:
        stop_postgres(settings.home)
    due = ", ".join(f"{len(ranges)} range of {sweep}" for sweep, ranges in found.items())
    return Looks(ledger, settled, arrived, due, of_assets)


def _sweeps(settings: Settings, now: datetime) -> tuple[dict[str, Steps], dict[str, Sequence[Any]]]:
    """Seconds of the sweep of hours and of that of dates, and the ranges that they found."""
    measured = {
        "hours": _least(lambda: _sweep_hours(settings, now)),
        "dates": _least(lambda: _sweep_dates(settings, now)),
    }
    return {sweep: steps for sweep, (steps, _) in measured.items()}, {
        sweep: found for sweep, (_, found) in measured.items()
    }


def _sweep_hours(settings: Settings, now: datetime) -> tuple[Steps, Sequence[Any]]:
    """What the schedule of hours does."""
    from assets.raw_events import unread_hours
    from orchestration.sweep import due_hours, ranges

    clock = _Clock()
    with open_stores(settings) as stores:
        clock.step("open")
        state = stores.ledger.state()
        clock.step("state")
        unread = unread_hours(stores, now, now)
        clock.step("unread")
        due = due_hours(state, unread, now)
        clock.step("due")
        found = list(ranges("hourly", due, [], settings, now))
        clock.step("ranges")
    return clock.steps, found


def _sweep_dates(settings: Settings, now: datetime) -> tuple[Steps, Sequence[Any]]:
    """What the schedule of dates does, without its check."""
    from orchestration.sweep import due_dates, ranges

    clock = _Clock()
    with open_stores(settings) as stores:
        clock.step("open")
        state = stores.ledger.state()
        clock.step("state")
        due = due_dates(state, now)
        clock.step("due")
        found = list(ranges("daily", due, [], settings, now))
        clock.step("ranges")
    return clock.steps, found


def _of_assets(stores: Stores, now: datetime) -> tuple[Steps, None]:
    """What `replace_partitions` asks in a run of the sweep: the state, which of the asset's partitions are stale, their inputs."""
    clock = _Clock()
    for asset in ASSETS:
        state = stores.ledger.state()
        stale(asset, state, now)
        inputs(asset, state, now)
        clock.step(asset)
    return clock.steps, None


def _least(measure: Callable[[], tuple[Steps, Any]]) -> tuple[Steps, Any]:
    """Each step's least seconds, and what was found the last time."""
    measured = [measure() for _ in range(TIMES)]
    return {step: min(steps[step] for steps, _ in measured) for step in measured[0][0]}, measured[-1][1]


class _Clock:
    def __init__(self) -> None:
        self.steps: Steps = {}
        self._last = time.perf_counter()

    def step(self, name: str) -> None:
        now = time.perf_counter()
        self.steps[name], self._last = now - self._last, now


# What it is measured on


def _fill(stores: Stores, now: datetime) -> str:
    """Writes the year up to the last hour before this one, as if all of it had been made; returns how large it is."""
    with psycopg.connect(stores.postgres_url, autocommit=True) as connection:
        for table, rows in _collected([now - back * HOUR for back in range(DAYS * 24, 0, -1)]).items():
            _copy(connection, table, rows)
        published = _settled(stores.ledger.state(), now)
        _copy(connection, "footfall.published", map(_row, published.items()))
        connection.execute("vacuum analyze")
        (touched,) = connection.execute("select count(*) from footfall.touched").fetchone()
    return f"{DAYS * 24:,} arrival hours with {touched:,} event hours and dates, {len(published):,} partitions"


def _collected(arrivals: Sequence[datetime]) -> dict[str, Iterable[Sequence[Any]]]:
    """Rows by table: each hour's raw object, the range of the event log that it was read of, and what of it was accepted."""
    keys = [hour_key(arrival) for arrival in arrivals]
    return {
        "footfall.sites (site, time_zone)": [(_site(number), "UTC") for number in range(SITES)],
        "footfall.first_hours": [(_site(number), arrivals[number * 240]) for number in range(SITES)],
        "footfall.raw_objects": [(_raw(at, key), key, 1, 100, digest_of(key.encode()), None) for at, key in enumerate(keys)],
        "footfall.offset_ranges (log_partition, first_offset, end_offset, hour, object)": [
            (0, at, at + 1, key, _raw(at, key)) for at, key in enumerate(keys)
        ],
        "footfall.event_log_end": [(True, len(keys), from_datetime(arrivals[-1]))],
        "footfall.event_log": [
            (at, from_datetime(arrivals[at]), b"{}") for at in range(len(keys) - LATEST, len(keys))
        ],
        "footfall.touched": list(_touched(arrivals)),
        "landing.arrivals": [(key + ":00", _site(number), 1, 1) for key in keys for number in range(SITES)],
    }  # fmt: skip


def _touched(arrivals: Sequence[datetime]) -> Iterator[tuple[str, str, str, int]]:
    """Each arrival hour's own hour with one to three dates; of some also earlier hours."""
    rng = Random(1)
    for number, arrival in enumerate(arrivals):
        hours = {arrival}
        if number % LATE_EVERY == 0:
            hours |= {arrival - late * HOUR for late in rng.sample(range(1, LATEST + 1), LATE_HOURS)}
        for hour in sorted(hours):
            zones = rng.sample(TIME_ZONES, rng.randint(1, len(TIME_ZONES)))
            for day in sorted({site_date(zone, from_datetime(hour)) for zone in zones}):
                yield hour_key(arrival), hour_key(hour), str(day), 100


def _settled(state: State, now: datetime) -> dict[tuple[str, str], Published]:
    """Everything published, upstream first, each from what is there then."""
    published: dict[tuple[str, str], Published] = {}
    for asset in ASSETS:
        for partition, made_from in inputs(asset, replace(state, published=published), now).items():
            content = "" if asset == "reports" else digest_of(f"{asset} {partition}".encode())
            published[asset, partition] = Published(1, "1", made_from, content)
    return published


def _row(item: tuple[tuple[str, str], Published]) -> Sequence[Any]:
    (asset, partition), made = item
    return (
        asset,
        partition,
        made.version,
        made.code_version,
        json.dumps(made.inputs),
        made.content,
        100,
        10_000,
        datetime.now(UTC),
    )


def _copy(connection: psycopg.Connection[Any], table: str, rows: Iterable[Sequence[Any]]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"copy {table} from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def _site(number: int) -> str:
    return f"shop-{number}.example"


def _raw(offset: int, hour: str) -> str:
    return f"raw/hour={hour}/p00-{offset:012d}-{offset:012d}.ndjson.zst"
