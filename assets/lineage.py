"""What each partition is made from. One place decides which partitions there are, what they read, and which are stale.

    raw objects ──┬── events ──┬── traffic ── moving_averages ──┐
                  │            ├── visits ── breakdowns ────────┴── reports
                  │            └── stored_events
             raw_events: what is unread of the event log (see ingestion/pull.py), not what is stale

Everything here is a pure function of the ledger's state and `now`. Partition keys are text, as in the ledger; the contents of
partitions are compared by digest, so what was made again with the same rows makes nothing downstream stale.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from assets.transforms.enrich import RULES_VERSION
from assets.transforms.trend import LONGEST
from ingestion.lake import digest_of
from ingestion.ledger import State
from ingestion.site_time import HOUR, hour_key, hour_of

ASSETS = ("events", "stored_events", "traffic", "moving_averages", "visits", "breakdowns", "reports")
"""Upstream first."""
HOURLY = ("events", "stored_events", "traffic", "moving_averages")

Key = tuple[str, str]
"""Asset and partition."""
Reads = Mapping[str, frozenset[Key]]
"""Of an asset: its partitions, and what each reads."""
Sources = Mapping[str, Mapping[str, Sequence[str]]]
"""The same by upstream asset, in order. The averages of a year read 1.5 million partitions: as slices of one list they are made in
0.1 s, as sets of keys in 5."""
NOTHING: Mapping[str, Sequence[str]] = {}


def neighbours(day: str) -> tuple[str, str, str]:
    """A date, and the dates before and after it."""
    middle = date.fromisoformat(day)
    return str(middle - timedelta(days=1)), day, str(middle + timedelta(days=1))


def reads(asset: str, state: State, now: datetime) -> Reads:
    """Every partition of an asset that there should be, and the upstream partitions that it reads. A partition that was
    published and has lost its inputs is among them, with none: it must become empty."""
    return {
        partition: frozenset((name, key) for name, keys in read.items() for key in keys)
        for partition, read in _sources(asset, state, now).items()
    }


def inputs(asset: str, state: State, now: datetime, also: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """For every partition of an asset, and `also` for some that need not be there: digests of what it would be made from
    now, by kind."""
    made_from = _contents({**dict.fromkeys(also, NOTHING), **_sources(asset, state, now)}, state)
    if asset == "events":
        for hour, digests in made_from.items():
            digests |= {"raw": state.raw.get(hour, ""), "sites": state.sites.get(hour, ""), "rules": RULES_VERSION}
    if asset == "moving_averages":
        first_hours = sorted(state.first_hours)  # of sites younger than the longest window: the divisor depends on them
        for hour, digests in made_from.items():
            young = _looked_back(hour, first_hours)
            digests["first_hours"] = _digest(f"{first} {state.first_hours[first]}" for first in young)
    return made_from


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


def readers(asset: str, changed: Iterable[Key], state: State, now: datetime) -> list[str]:
    """The partitions of an asset that read one of the changed ones."""
    of_asset = defaultdict[str, set[str]](set)
    for name, partition in changed:
        of_asset[name].add(partition)
    return [
        partition
        for partition, read in _sources(asset, state, now).items()
        if any(name in of_asset and not of_asset[name].isdisjoint(keys) for name, keys in read.items())
    ]


def averaged(hours: Iterable[str], now: datetime) -> list[str]:
    """The hours whose averages look back over one of some hours, in order. Hours to come are not made yet."""
    found, to_come = list[str](), hour_of(hour_key(now.astimezone(UTC))) + HOUR
    beyond = datetime.min.replace(tzinfo=UTC)
    for first in sorted(map(hour_of, hours)):
        hour, beyond = max(first, beyond), min(first + LONGEST * HOUR, to_come)
        while hour < beyond:
            found.append(hour_key(hour))
            hour += HOUR
    return found


def _looked_back(hour: str, hours: Sequence[str]) -> Sequence[str]:
    """Those that the averages of an hour look back over, of hours that are in order."""
    first = hour_key(hour_of(hour) - (LONGEST - 1) * HOUR)
    return hours[bisect_left(hours, first) : bisect_right(hours, hour)]


def _contents(every: Sources, state: State) -> dict[str, dict[str, str]]:
    """For each partition: a digest of the contents of what it reads, by upstream asset."""
    lines: dict[str, dict[str, str]] = {name: {} for read in every.values() for name in read}
    for (name, partition), made in state.published.items():
        if name in lines:
            lines[name][partition] = f"{partition} {made.content}"
    return {
        partition: {name: _digest(map(lines[name].__getitem__, keys)) for name, keys in read.items() if keys}
        for partition, read in every.items()
    }


def _digest(lines: Iterable[str]) -> str:
    return digest_of("\n".join(lines).encode())


def _filled(asset: str, state: State) -> set[str]:
    """The published partitions that hold something."""
    return {partition for (name, partition), made in state.published.items() if name == asset and made.content}


def _sources(asset: str, state: State, now: datetime) -> Sources:
    """What `reads` gives, by upstream asset."""
    found = {
        "events": _events, "stored_events": _stored_events, "traffic": _traffic, "moving_averages": _moving_averages,
        "visits": _visits, "breakdowns": _breakdowns, "reports": _reports,
    }[asset](state, now)  # fmt: skip
    return {**{partition: NOTHING for name, partition in state.published if name == asset}, **found}


def _events(state: State, now: datetime) -> Sources:
    return {hour: {} for hour in state.raw}


def _stored_events(state: State, now: datetime) -> Sources:
    """An arrival hour reads itself, and all earlier arrivals of its dates: a copy that came first may lie there."""
    dates_of_arrival = defaultdict[str, set[str]](set)
    for touch in state.touched:
        dates_of_arrival[touch.arrival_hour].add(touch.date)
    arrivals_of_date = _arrivals_of_dates(state)
    return {hour: {"events": _until(hour, dates, arrivals_of_date)} for hour, dates in dates_of_arrival.items()}


def _traffic(state: State, now: datetime) -> Sources:
    """An event hour reads the arrival hours that have events of it, and all earlier arrivals of the same dates: a copy that
    came first may lie there."""
    last_arrival, dates_of_hour = defaultdict[str, str](str), defaultdict[str, set[str]](set)
    for touch in state.touched:
        last_arrival[touch.hour] = max(last_arrival[touch.hour], touch.arrival_hour)
        dates_of_hour[touch.hour].add(touch.date)
    arrivals_of_date = _arrivals_of_dates(state)
    return {
        hour: {"events": _until(last_arrival[hour], dates, arrivals_of_date)} for hour, dates in dates_of_hour.items()
    }


def _arrivals_of_dates(state: State) -> Mapping[str, set[str]]:
    """The arrival hours that have events of each date."""
    found = defaultdict[str, set[str]](set)
    for touch in state.touched:
        found[touch.date].add(touch.arrival_hour)
    return found


def _until(last: str, dates: Iterable[str], arrivals_of_date: Mapping[str, set[str]]) -> Sequence[str]:
    """The arrival hours of some dates up to the last one, in order."""
    return sorted({arrival for day in dates for arrival in arrivals_of_date[day] if arrival <= last})


def _moving_averages(state: State, now: datetime) -> Sources:
    """An hour reads the traffic of the 168 hours that end with it."""
    filled = sorted(_filled("traffic", state))
    return {hour: {"traffic": _looked_back(hour, filled)} for hour in averaged(filled, now)}


def _visits(state: State, now: datetime) -> Sources:
    arrivals = _arrivals_of_dates(state)
    return {
        day: {"events": sorted(set[str]().union(*(arrivals.get(near, ()) for near in neighbours(day))))}
        for day in arrivals
    }


def _breakdowns(state: State, now: datetime) -> Sources:
    filled = _filled("visits", state)
    return {
        day: {**read, "visits": [near for near in neighbours(day)[:2] if near in filled]}
        for day, read in _visits(state, now).items()
    }


def _reports(state: State, now: datetime) -> Sources:
    """The report tables of a date: those of hours by UTC date, with the visits that began in them on any site's date, and
    with what became of the events that arrived in them, whatever their date (it is told with the visits)."""
    found = defaultdict[str, defaultdict[str, set[str]]](lambda: defaultdict(set))
    for asset in ("events", "traffic", "moving_averages"):
        for hour in _filled(asset, state):
            found[hour[:10]][asset].add(hour)
    for day in _filled("breakdowns", state):
        found[day]["breakdowns"].add(day)
    filled = _filled("visits", state)
    for day, read in found.items():
        read["visits"].update(near for near in neighbours(day) if near in filled)
    for touch in state.touched:
        if touch.date in filled:
            found[touch.arrival_hour[:10]]["visits"].add(touch.date)
    return {day: {name: sorted(keys) for name, keys in read.items()} for day, read in found.items()}
