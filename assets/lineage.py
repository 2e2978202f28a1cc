"""What each partition is made from. One place decides which partitions there are, what they read, and which are stale.

    raw objects ──┬── events ──┬── traffic ── moving_averages ──┐
                  │            ├── visits ── breakdowns ────────┴── reports
                  │            └── stored_events
             raw_events: what is unread of the event log (see ingestion/pull.py), not what is stale

Everything here is a pure function of the ledger's state and `now`. Partition keys are text, as in the ledger; the contents of
partitions are compared by digest, so what was made again with the same rows makes nothing downstream stale.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

from assets.transforms.enrich import RULES_VERSION
from assets.transforms.trend import LONGEST
from ingestion.lake import digest_of
from ingestion.ledger import State
from ingestion.site_time import hour_key, hour_of

ASSETS = ("events", "stored_events", "traffic", "moving_averages", "visits", "breakdowns", "reports")
"""Upstream first."""
HOURLY = ("events", "stored_events", "traffic", "moving_averages")

Key = tuple[str, str]
"""Asset and partition."""
Reads = Mapping[str, frozenset[Key]]
"""Of an asset: its partitions, and what each reads."""


def neighbours(day: str) -> tuple[str, str, str]:
    """A date, and the dates before and after it."""
    middle = date.fromisoformat(day)
    return str(middle - timedelta(days=1)), day, str(middle + timedelta(days=1))


def reads(asset: str, state: State, now: datetime) -> Reads:
    """Every partition of an asset that there should be, and the upstream partitions that it reads. A partition that was
    published and has lost its inputs is among them, with none: it must become empty."""
    found = {
        "events": _events, "stored_events": _stored_events, "traffic": _traffic, "moving_averages": _moving_averages,
        "visits": _visits, "breakdowns": _breakdowns, "reports": _reports,
    }[asset](state, now)  # fmt: skip
    published = {partition: frozenset[Key]() for name, partition in state.published if name == asset}
    return {**published, **found}


def inputs(asset: str, state: State, now: datetime, also: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """For every partition of an asset, and `also` for some that need not be there: digests of what it would be made from
    now, by kind."""
    every = {**dict.fromkeys(also, frozenset[Key]()), **reads(asset, state, now)}
    return {partition: _inputs_of(asset, partition, read, state) for partition, read in every.items()}


def stale(asset: str, state: State, now: datetime) -> list[str]:
    """The partitions that are missing, or were made from something else than what is there now. A change of code alone
    waits for a person's backfill."""
    return sorted(
        partition
        for partition, made_from in inputs(asset, state, now).items()
        if (asset, partition) not in state.published or state.published[asset, partition].inputs != made_from
    )


def unsettled(state: State, now: datetime) -> set[str]:
    """The dates whose report tables would not balance yet: visits or breakdowns of them are stale, or visits of another date of
    which events arrived in them."""
    due = {*stale("visits", state, now), *stale("breakdowns", state, now)}
    return due | {touch.arrival_hour[:10] for touch in state.touched if touch.date in due}


def affected(asset: str, changed: Iterable[Key], before: Reads, after: Reads) -> list[str]:
    """The partitions of an asset that read one of the changed ones, before or after the change."""
    changed = frozenset(changed)
    return sorted(
        partition
        for partition in before.keys() | after.keys()
        if not changed.isdisjoint(before.get(partition, frozenset()) | after.get(partition, frozenset()))
    )


def _inputs_of(asset: str, partition: str, read: frozenset[Key], state: State) -> dict[str, str]:
    upstream = defaultdict[str, list[str]](list)
    for name, key in sorted(read):
        upstream[name].append(f"{key} {state.published[name, key].content}")
    digests = {name: digest_of("\n".join(contents).encode()) for name, contents in upstream.items()}
    if asset == "events":
        digests |= {
            "raw": state.raw.get(partition, ""),
            "sites": state.sites.get(partition, ""),
            "rules": RULES_VERSION,
        }
    if asset == "moving_averages":
        digests["first_hours"] = _first_hours(partition, state)
    return digests


def _first_hours(partition: str, state: State) -> str:
    """Which sites are younger than the longest window, and since when: the divisor depends on it."""
    young = [f"{key} {state.first_hours[key]}" for key in _window(partition) if key in state.first_hours]
    return digest_of("\n".join(young).encode())


def _window(partition: str) -> list[str]:
    last = hour_of(partition)
    return [hour_key(last - timedelta(hours=back)) for back in range(LONGEST - 1, -1, -1)]


def _filled(asset: str, state: State) -> set[str]:
    """The published partitions that hold something."""
    return {partition for (name, partition), made in state.published.items() if name == asset and made.content}


def _events(state: State, now: datetime) -> Reads:
    return {hour: frozenset() for hour in state.raw}


def _stored_events(state: State, now: datetime) -> Reads:
    """An arrival hour reads itself, and all earlier arrivals of its dates: a copy that came first may lie there."""
    dates_of_arrival, arrivals_of_date = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for touch in state.touched:
        dates_of_arrival[touch.arrival_hour].add(touch.date)
        arrivals_of_date[touch.date].add(touch.arrival_hour)
    return {
        hour: frozenset(("events", arrival) for day in dates for arrival in arrivals_of_date[day] if arrival <= hour)
        for hour, dates in dates_of_arrival.items()
    }


def _traffic(state: State, now: datetime) -> Reads:
    """An event hour reads the arrival hours that have events of it, and all earlier arrivals of the same dates: a copy that
    came first may lie there."""
    arrivals_of_hour, dates_of_hour = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    arrivals_of_date = defaultdict[str, set[str]](set)
    for touch in state.touched:
        arrivals_of_hour[touch.hour].add(touch.arrival_hour)
        dates_of_hour[touch.hour].add(touch.date)
        arrivals_of_date[touch.date].add(touch.arrival_hour)
    return {
        hour: frozenset(
            ("events", arrival)
            for day in dates_of_hour[hour]
            for arrival in arrivals_of_date[day]
            if arrival <= max(arrivals)
        )
        for hour, arrivals in arrivals_of_hour.items()
    }


def _moving_averages(state: State, now: datetime) -> Reads:
    """An hour reads the traffic of the 168 hours that end with it. Hours to come are not made yet."""
    current = hour_key(now.astimezone(UTC))
    found = defaultdict[str, set[Key]](set)
    for hour in _filled("traffic", state):
        first = hour_of(hour)
        for ahead in range(LONGEST):
            later = hour_key(first + timedelta(hours=ahead))
            if later > current:
                break
            found[later].add(("traffic", hour))
    return {hour: frozenset(read) for hour, read in found.items()}


def _visits(state: State, now: datetime) -> Reads:
    arrivals_of_date = defaultdict[str, set[Key]](set)
    for touch in state.touched:
        arrivals_of_date[touch.date].add(("events", touch.arrival_hour))
    return {
        day: frozenset().union(*(arrivals_of_date.get(near, ()) for near in neighbours(day)))
        for day in list(arrivals_of_date)
    }


def _breakdowns(state: State, now: datetime) -> Reads:
    filled = _filled("visits", state)
    return {
        day: read | {("visits", near) for near in neighbours(day)[:2] if near in filled}
        for day, read in _visits(state, now).items()
    }


def _reports(state: State, now: datetime) -> Reads:
    """The report tables of a date: those of hours by UTC date, with the visits that began in them on any site's date, and
    with what became of the events that arrived in them, whatever their date (it is told with the visits)."""
    found = defaultdict[str, set[Key]](set)
    for asset in ("events", "traffic", "moving_averages"):
        for hour in _filled(asset, state):
            found[hour[:10]].add((asset, hour))
    for day in _filled("breakdowns", state):
        found[day].add(("breakdowns", day))
    filled = _filled("visits", state)
    for day, read in found.items():
        read.update(("visits", near) for near in neighbours(day) if near in filled)
    for touch in state.touched:
        if touch.date in filled:
            found[touch.arrival_hour[:10]].add(("visits", touch.date))
    return {day: frozenset(read) for day, read in found.items()}
