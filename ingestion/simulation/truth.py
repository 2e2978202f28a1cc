"""The true metrics of a list of events, counted in the plainest way there is: lists, sets, dicts and loops.

An oracle to compare reports with. It imports nothing of the pipeline and must stay slow and obvious.
In: `Event`s (accepted, in any order) and `Rejection`s. Out: the object that `footfall report SITE --json` prints.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import dropwhile, pairwise
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

HOUR_MS = 3_600_000
LONGEST_PAUSE_MS = 1_800_000
BREAKDOWN_LIMIT = 1_000
AVERAGE_HOURS = 24

PAGEVIEW = "pageview"
ENGAGEMENT = "engagement"
NO_PAGE = "(none)"
NO_SITE = "(none)"

# What a visit has when its first event does not say; an attribute that is not here is then left out of its breakdown.
ENRICHED = ("country", "browser", "os", "device")
MISSING = {"source": "Direct / None", "channel": "Direct"} | dict.fromkeys(ENRICHED, "(not set)")
UTM = ("utm_source", "utm_medium", "utm_campaign")
VISIT_DIMENSIONS = ("entry_page", "exit_page", "source", "channel", "referrer", *UTM, *ENRICHED)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Event:
    """One accepted event of one site. `timestamp` is in ms since 1970, `line` its position in the file.

    A visitor is `visitor_id` where it is given, else `ip` and `user_agent`. `attributes` holds what the event says
    of source, channel, referrer, utm_*, country, browser, os and device; what is missing is not among its keys.
    """

    site: str
    timezone: str
    timestamp: int
    line: int
    name: str = PAGEVIEW
    path: str = "/"
    event_id: str | None = None
    visitor_id: str | None = None
    ip: str = ""
    user_agent: str = ""
    interactive: bool = True
    bot: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def date(self) -> date:
        """The day of the site's time zone."""
        return (EPOCH + timedelta(milliseconds=self.timestamp)).astimezone(ZoneInfo(self.timezone)).date()

    @property
    def hour(self) -> int:
        """Whole UTC hours since 1970."""
        return self.timestamp // HOUR_MS

    @property
    def person(self) -> tuple[str, ...]:
        """Whose visits this event may belong to: the same over midnight."""
        return (self.visitor_id,) if self.visitor_id is not None else (self.ip, self.user_agent)

    @property
    def visitor(self) -> tuple[str, ...]:
        """Who is counted: without a supplied id, another visitor on every date."""
        return self.person if self.visitor_id is not None else (str(self.date), *self.person)

    @property
    def counts_as_interaction(self) -> bool:
        """True for every pageview, never for engagement, for other events unless they say otherwise."""
        return self.name == PAGEVIEW or (self.name != ENGAGEMENT and self.interactive)


@dataclass(frozen=True)
class Rejection:
    """A line that was refused, once for each site that it names. `hour`: whole UTC hours since 1970."""

    site: str
    hour: int
    reason: str


@dataclass(frozen=True, eq=False)
class Visit:
    """A visit: its events in order, the first of them not engagement."""

    events: list[Event]

    @property
    def first(self) -> Event:
        """The event that opened the visit."""
        return self.events[0]

    @cached_property
    def paths(self) -> list[str]:
        """The pages viewed, in order."""
        return [event.path for event in self.events if event.name == PAGEVIEW]

    @cached_property
    def is_bounce(self) -> bool:
        """At most one event that counts as an interaction."""
        return sum(event.counts_as_interaction for event in self.events) <= 1

    @property
    def duration_ms(self) -> int:
        """From the first event to the last."""
        return self.events[-1].timestamp - self.first.timestamp

    def value(self, dimension: str) -> str | None:
        """What this visit is under `dimension`, None where it is left out of that breakdown."""
        if dimension == "entry_page":
            return self.paths[0] if self.paths else NO_PAGE
        if dimension == "exit_page":
            return self.paths[-1] if self.paths else NO_PAGE
        return self.first.attributes.get(dimension, MISSING.get(dimension))


@dataclass(frozen=True, eq=False)
class Hit:
    """A pageview or custom event, and the visit that it belongs to."""

    event: Event
    visit: Visit


def report(
    site: str, timezone: str, events: Iterable[Event], rejections: Iterable[Rejection], first: date, last: date
) -> Row:
    """The report of `site` for the dates `first` to `last`, both included, from its whole history of `events`."""
    received = [event for event in events if event.site == site]
    unique = without_duplicates(received)
    visits = visits_of(event for event in unique if not event.bot)
    hits = [Hit(event, visit) for visit in visits for event in visit.events if event.name != ENGAGEMENT]
    hits_in_range = [hit for hit in hits if first <= hit.event.date <= last]
    visits_in_range = [visit for visit in visits if first <= visit.first.date <= last]
    hours = hours_overlapping(first, last, timezone)
    return {
        "site": site,
        "from": first.isoformat(),
        "to": last.isoformat(),
        "totals": metrics(hits_in_range, visits_in_range),
        "days": day_rows(hits_in_range, visits_in_range, first, last),
        "hours": hour_rows(hits, visits, hours),
        "breakdowns": breakdowns(hits_in_range, visits_in_range),
        "pipeline": pipeline(received, unique, [r for r in rejections if r.site == site], hours),
    }


# ---- from events to visits


def order(event: Event) -> tuple[int, int, str]:
    """The order of a visitor's events."""
    return event.timestamp, event.line, event.event_id or ""


def without_duplicates(events: Iterable[Event]) -> list[Event]:
    """Of events of one date with the same event_id, the one of the earliest hour, then of the earliest line."""
    kept: dict[object, Event] = {}
    for event in sorted(events, key=lambda event: (event.hour, event.line)):
        kept.setdefault(event if event.event_id is None else (event.event_id, event.date), event)
    return list(kept.values())


def visits_of(events: Iterable[Event]) -> list[Visit]:
    """All visits in `events` (of one site, no bots, no duplicates). Engagement that opens a run belongs to none."""
    by_person: dict[tuple[str, ...], list[Event]] = defaultdict(list)
    for event in sorted(events, key=order):
        by_person[event.person].append(event)
    runs = [run for own in by_person.values() for run in runs_of(own)]
    opened = [list(dropwhile(lambda event: event.name == ENGAGEMENT, run)) for run in runs]
    return [Visit(run) for run in opened if run]


def runs_of(events: list[Event]) -> Iterator[list[Event]]:
    """One person's ordered events, cut where the pause is too long and at the end of each full date."""
    full = full_dates(events)
    run: list[Event] = []
    for event in events:
        last = run[-1] if run else event
        if event.timestamp - last.timestamp > LONGEST_PAUSE_MS or (event.date != last.date and last.date in full):
            yield run
            run = []
        run.append(event)
    yield run


def full_dates(events: list[Event]) -> set[date]:
    """The dates without any too long pause from their first instant to their last, of one person's ordered events."""
    instants: dict[date, list[int]] = defaultdict(list)
    for event in events:
        instants[event.date].append(event.timestamp)
    zone = events[0].timezone
    for day, own in instants.items():
        own[:] = [first_instant(day, zone), *own, first_instant(day + timedelta(days=1), zone)]
    return {day for day, own in instants.items() if all(b - a <= LONGEST_PAUSE_MS for a, b in pairwise(own))}


# ---- from visits to numbers


def metrics(hits: list[Hit], visits: list[Visit]) -> Row:
    """The metrics of a period: `hits` that fell in it, `visits` that began in it."""
    return {
        "visitors": count_visitors(hits),
        "visits": len(visits),
        "pageviews": count_pageviews(hits),
        "events": len(hits),
        "views_per_visit": count_pageviews(hits) / len(visits) if visits else None,
        **rates(visits),
    }


def rates(visits: list[Visit]) -> Row:
    """Bounce rate in percent, and mean duration in seconds; null without visits."""
    if not visits:
        return {"bounce_rate": None, "visit_duration": None}
    return {
        "bounce_rate": 100 * sum(visit.is_bounce for visit in visits) / len(visits),
        "visit_duration": sum(visit.duration_ms for visit in visits) / (1000 * len(visits)),
    }


def count_visitors(hits: list[Hit]) -> int:
    """Distinct visitors among the hits."""
    return len({hit.event.visitor for hit in hits})


def count_pageviews(hits: list[Hit]) -> int:
    """Page views among the hits."""
    return sum(hit.event.name == PAGEVIEW for hit in hits)


def day_rows(hits: list[Hit], visits: list[Visit], first: date, last: date) -> list[Row]:
    """A row of metrics for each date, both ends included."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [
        {"date": day.isoformat()}
        | metrics([hit for hit in hits if hit.event.date == day], [v for v in visits if v.first.date == day])
        for day in days
    ]


def hour_rows(hits: list[Hit], visits: list[Visit], hours: range) -> list[Row]:
    """A row for each of `hours`. `hits` and `visits` are the site's whole history, which the averages need."""
    by_hour: dict[int, list[Hit]] = defaultdict(list)
    for hit in hits:
        by_hour[hit.event.hour].append(hit)
    begun = Counter(visit.first.hour for visit in visits)
    pageviews = {hour: count_pageviews(own) for hour, own in by_hour.items()}
    since = min(by_hour, default=None)
    return [
        {
            "hour": hour_name(hour),
            "pageviews": pageviews.get(hour, 0),
            "events": len(by_hour.get(hour, [])),
            "visitors": count_visitors(by_hour.get(hour, [])),
            "visits": begun[hour],
            "pageviews_24h_average": trailing_average(pageviews, hour, since, AVERAGE_HOURS),
        }
        for hour in hours
    ]


def trailing_average(counts: Mapping[int, int], hour: int, since: int | None, length: int) -> float | None:
    """The mean over the `length` hours that end with `hour`, or over those since `since`; None before it."""
    if since is None or hour < since:
        return None
    return sum(counts.get(hour - back, 0) for back in range(length)) / min(length, hour - since + 1)


def pipeline(received: list[Event], unique: list[Event], rejections: list[Rejection], hours: range) -> Row:
    """What became of the lines of `hours`: received = accepted + rejected, accepted = counted + bots + duplicates."""
    accepted = sum(event.hour in hours for event in received)
    kept = [event for event in unique if event.hour in hours]
    bots = sum(event.bot for event in kept)
    rejected = Counter(rejection.reason for rejection in rejections if rejection.hour in hours)
    return {
        "received": accepted + sum(rejected.values()),
        "accepted": accepted,
        "counted": len(kept) - bots,
        "duplicates": accepted - len(kept),
        "bots": bots,
        "rejected": dict(sorted(rejected.items())),
    }


# ---- breakdowns


def breakdowns(hits: list[Hit], visits: list[Visit]) -> dict[str, list[Row]]:
    """All breakdowns of a range of dates: `hits` that fell on them, `visits` that began on them."""
    return {
        "page": page_rows(hits, visits),
        **{dimension: visit_rows(dimension, hits, visits) for dimension in VISIT_DIMENSIONS},
        "event": event_rows(hits, visits),
    }


def visit_rows(dimension: str, hits: list[Hit], visits: list[Visit]) -> list[Row]:
    """The breakdown by something that visits say of themselves."""
    own_hits = grouped((hit.visit.value(dimension), hit) for hit in hits)
    own_visits = grouped((visit.value(dimension), visit) for visit in visits)
    return top(
        row(value, own_hits.get(value, []), own_visits.get(value, []), measured=own_visits.get(value, []))
        for value in own_hits.keys() | own_visits.keys()
    )


def page_rows(hits: list[Hit], visits: list[Visit]) -> list[Row]:
    """Visitors, visits and pageviews by pageviews of the path, events with custom events, rates of visits entering."""
    views = grouped((hit.event.path, hit) for hit in hits if hit.event.name == PAGEVIEW)
    events = Counter(hit.event.path for hit in hits)
    viewing = grouped((path, visit) for visit in visits for path in set(visit.paths))
    entering = grouped((visit.value("entry_page"), visit) for visit in visits if visit.paths)
    return top(
        row(path, views.get(path, []), viewing.get(path, []), measured=entering.get(path, []))
        | {"events": events[path]}
        for path in views.keys() | viewing.keys()
    )


def event_rows(hits: list[Hit], visits: list[Visit]) -> list[Row]:
    """The breakdown by names of events."""
    own_hits = grouped((hit.event.name, hit) for hit in hits)
    containing = grouped((name, visit) for visit in visits for name in {event.name for event in visit.events})
    names = (own_hits.keys() | containing.keys()) - {ENGAGEMENT}
    return top(row(name, own_hits.get(name, []), containing.get(name, []), measured=[]) for name in names)


def row(value: str, hits: list[Hit], visits: list[Visit], measured: list[Visit]) -> Row:
    """One row of a breakdown; `measured`: the visits whose bounces and durations count."""
    return {
        "value": value,
        "visitors": count_visitors(hits),
        "visits": len(visits),
        "pageviews": count_pageviews(hits),
        "events": len(hits),
        **rates(measured),
    }


def grouped(pairs: Iterable[tuple[str | None, T]]) -> dict[str, list[T]]:
    """The items by their value, without those that have none."""
    groups: dict[str, list[T]] = defaultdict(list)
    for value, item in pairs:
        if value is not None:
            groups[value].append(item)
    return groups


def top(rows: Iterable[Row]) -> list[Row]:
    """Rows by visitors descending, then by value bytewise; at most `BREAKDOWN_LIMIT`."""
    return sorted(rows, key=lambda row: (-row["visitors"], row["value"].encode()))[:BREAKDOWN_LIMIT]


# ---- time


def first_instant(day: date, timezone: str) -> int:
    """The first instant of the date in that zone, in ms since 1970."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(timezone))
    return (midnight - EPOCH) // timedelta(milliseconds=1)


def hours_overlapping(first: date, last: date, timezone: str) -> range:
    """The whole UTC hours that overlap the dates `first` to `last`, in hours since 1970."""
    end = first_instant(last + timedelta(days=1), timezone)
    return range(first_instant(first, timezone) // HOUR_MS, -(-end // HOUR_MS))


def hour_name(hour: int) -> str:
    """A UTC hour (hours since 1970) as reports write it."""
    return (EPOCH + timedelta(hours=hour)).strftime("%Y-%m-%dT%H")
