"""The sample traffic: the same bytes for the same seed, everything in it that is promised, and a truth that is its own.

`read` is a second reading of the file, from its bytes alone: what the generator says of a line it never sees.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import crawleruseragents
import pytest
import ua_parser

from ingestion.simulation import traffic, truth

FIRST, LAST = date(2026, 3, 27), date(2026, 3, 30)
LONG_NAMES = {short: long for long, short in traffic.SHORT_NAMES.items()}
PAUSE = 1_800_000


@dataclass
class Sample:
    """A simulated directory, read back."""

    directory: Path
    zones: dict[str, str]
    reports: dict[str, Any]
    lines: list[str]
    fields: list[dict[str, Any]]  # of the lines that are accepted, with long names
    events: list[truth.Event]
    rejections: list[truth.Rejection]

    @cached_property
    def visits(self) -> dict[str, list[truth.Visit]]:
        """The visits of people, by site."""
        own = {site: [event for event in self.events if event.site == site] for site in self.zones}
        return {
            site: truth.visits_of(event for event in truth.without_duplicates(events) if not event.bot)
            for site, events in own.items()
        }

    @property
    def all_visits(self) -> list[truth.Visit]:
        return [visit for visits in self.visits.values() for visit in visits]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    directory = tmp_path_factory.mktemp("sample")
    traffic.simulate(directory)
    return read(directory)


# ---- a second reading of the file


def read(directory: Path) -> Sample:
    zones = {site["site"]: site["timezone"] for site in json.loads((directory / "sites.json").read_text())}
    reports = json.loads((directory / "truth.json").read_text())
    lines = (directory / "events.ndjson").read_bytes().decode().splitlines()
    sample = Sample(directory, zones, reports, lines, [], [], [])
    hour = 0
    for number, line in enumerate(lines, start=1):
        fields = fields_of(line)
        timestamp = timestamp_of(fields.get("timestamp"))
        hour = hour if timestamp is None else timestamp // truth.HOUR_MS
        sites = fields["domain"].split(",") if isinstance(fields.get("domain"), str) else [truth.NO_SITE]
        reason = reason_against(fields, timestamp)
        if reason is None and timestamp is not None:
            sample.fields.append(fields)
            sample.events += [event_of(fields, site, zones[site], timestamp, number) for site in sites]
        else:
            sample.rejections += [truth.Rejection(site, hour, str(reason)) for site in sites]
    return sample


def fields_of(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        return {"broken": True}
    return {LONG_NAMES.get(name, name): value for name, value in fields.items()}


def timestamp_of(value: object) -> int | None:
    if type(value) is int:
        return value
    try:
        return round(datetime.fromisoformat(str(value)).timestamp() * 1000)
    except ValueError:
        return None


def reason_against(fields: dict[str, Any], timestamp: int | None) -> str | None:
    if "broken" in fields:
        return "malformed_json"
    for name in ("domain", "name", "url"):
        if name not in fields:
            return f"missing_{name}"
    for name, kind in TYPES.items():
        if name in fields and not isinstance(fields[name], kind):
            return f"invalid_{name}"
    if timestamp is None:
        return "invalid_timestamp"
    if len(fields["url"].encode()) > 2_000:
        return "url_too_long"
    for name, is_good in FORMS.items():
        if name in fields and not is_good(fields[name]):
            return f"invalid_{name}"
    return None


TYPES: dict[str, type] = dict.fromkeys(("domain", "name", "url", "referrer", "event_id", "visitor_id", "country"), str)
TYPES |= {"props": dict, "interactive": bool, "scroll_depth": int, "engagement_time": int, "bot": bool}
FORMS: dict[str, Callable[[str], object]] = {
    "name": lambda name: len(name) <= 120,
    "url": lambda url: urlsplit(url).scheme and urlsplit(url).netloc,
    "event_id": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch,
}


def event_of(fields: dict[str, Any], site: str, zone: str, timestamp: int, line: int) -> truth.Event:
    agent = fields.get("user_agent", "")
    return truth.Event(
        site=site,
        timezone=zone,
        timestamp=timestamp,
        line=line,
        name=fields["name"],
        path=re.sub(r"^https://[^/]*|[?#].*$", "", fields["url"]),
        event_id=fields.get("event_id"),
        visitor_id=fields.get("visitor_id"),
        ip=fields["ip"],
        user_agent=agent,
        interactive=fields.get("interactive", True),
        bot=fields.get("bot", False) or is_bot(agent),
        attributes=attributes_of(fields, site),
    )


def attributes_of(fields: dict[str, Any], site: str) -> dict[str, str]:
    query = {name: values[0] for name, values in parse_qs(urlsplit(fields["url"]).query).items()}
    referrer = urlsplit(fields.get("referrer", ""))
    host = referrer.netloc.lower().removeprefix("www.")
    own = host == site
    browser, system, device = agent_facts(fields.get("user_agent", ""))
    found = {name: query[name] for name in truth.UTM if name in query}
    found |= {"browser": browser, "os": system, "device": device}
    found |= {"referrer": host + referrer.path} if host and not own else {}
    found |= {name: fields[name] for name in (*truth.UTM, "browser", "os", "device", "source") if name in fields}
    found |= {"country": fields["country"]} if re.fullmatch("[A-Z0-9]{2}", fields.get("country", "")) else {}
    found.setdefault("source", found.get("utm_source") or ("" if own else host) or "Direct / None")
    return found | {"channel": fields.get("channel") or channel_of(found["source"], found.get("utm_medium", ""))}


def channel_of(source: str, medium: str) -> str:
    rules = {
        "Paid Other": "cpc|ppc|retargeting|paid.*",
        "Email": "e[-_]?mail",
        "Affiliates": "affiliates?",
        "Organic Social": "social|social-network|social-media|sm",
        "Organic Search": "organic",
        "Referral": ".*",
    }
    named = (name for name, mediums in rules.items() if re.fullmatch(mediums, medium, re.IGNORECASE))
    return "Direct" if source == "Direct / None" else next(named)


@cache
def is_bot(agent: str) -> bool:
    return bool(crawleruseragents.is_crawler(agent))


@cache
def agent_facts(agent: str) -> tuple[str, str, str]:
    """Browser, system and device by ua-parser and the product's rule."""
    parsed = ua_parser.parse(agent)
    system = parsed.os.family if parsed.os else "(not set)"
    family = parsed.device.family if parsed.device else ""
    if family == "iPad" or "Tablet" in family:
        device = "Tablet"
    elif system in ("iOS", "Android"):
        device = "Mobile"
    else:
        device = "Desktop" if system in ("Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS") else "(not set)"
    return parsed.user_agent.family if parsed.user_agent else "(not set)", system, device


# ---- the promises


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        traffic.simulate(tmp_path / name, seed=seed, visitors=300)
    for file in ("sites.json", "events.ndjson", "truth.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    for file in ("events.ndjson", "truth.json"):
        assert (tmp_path / "one" / file).read_bytes() != (tmp_path / "other" / file).read_bytes()


def test_the_truth_is_that_of_the_file_read_a_second_time(sample: Sample) -> None:
    assert list(sample.reports) == list(sample.zones)
    for site, zone in sample.zones.items():
        expected = truth.report(site, zone, sample.events, sample.rejections, FIRST, LAST)
        for part, value in expected.items():
            assert sample.reports[site][part] == value, (site, part)


@pytest.mark.parametrize(("seed", "days", "visitors"), [(2, 1, 60), (3, 2, 0), (4, 9, 200)])
def test_other_sizes_are_true_too(tmp_path: Path, seed: int, days: int, visitors: int) -> None:
    made = traffic.simulate(tmp_path, seed=seed, first_date=date(2026, 10, 22), days=days, visitors=visitors)
    other = read(tmp_path)
    assert (made.first, (made.last - made.first).days, made.lines) == (date(2026, 10, 22), days - 1, len(other.lines))
    for site, zone in other.zones.items():
        report = truth.report(site, zone, other.events, other.rejections, made.first, made.last)
        assert other.reports[site] == report


def test_the_size(sample: Sample) -> None:
    assert 15_000 < len(sample.lines) < 25_000
    for report in sample.reports.values():
        accounts = report["pipeline"]
        assert accounts["received"] == accounts["accepted"] + sum(accounts["rejected"].values())
        assert accounts["accepted"] == accounts["counted"] + accounts["duplicates"] + accounts["bots"]
    assert len(sample.reports["herald.example"]["breakdowns"]["page"]) == truth.BREAKDOWN_LIMIT


def test_the_agents_are_what_the_libraries_say() -> None:
    for agent in traffic.AGENTS:
        assert agent_facts(agent.string) == (agent.browser, agent.os, agent.device)
        assert not is_bot(agent.string)
    for crawler in traffic.CRAWLERS:
        assert is_bot(crawler.string)


def test_the_zones(sample: Sample) -> None:
    assert {"Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"} == set(sample.zones.values())
    assert len(sample.reports["laden.example"]["hours"]) == 4 * 24 - 1
    assert len(sample.reports["bazaar.example"]["hours"]) == 4 * 24 + 1
    assert None in [hour["pageviews_24h_average"] for hour in sample.reports["docs.example"]["hours"]]


def test_where_averages_begin_is_beyond_doubt(sample: Sample) -> None:
    """In the first hour that anybody but a bot was there, something happened that is counted."""
    for site in sample.zones:
        people = [event for event in sample.events if event.site == site and not event.bot]
        first_hour = min(event.hour for event in people)
        assert {event.name for event in people if event.hour == first_hour} != {"engagement"}


def test_the_daily_rhythm_is_that_of_the_sites_clock(sample: Sample) -> None:
    for zone in ("America/New_York", "Asia/Kolkata"):
        hours = Counter(local(event).hour for event in sample.events if event.timezone == zone)
        assert sum(hours[hour] for hour in range(18, 22)) > 3 * sum(hours[hour] for hour in range(2, 6))


def local(event: truth.Event) -> datetime:
    return datetime.fromtimestamp(event.timestamp / 1000, UTC).astimezone(ZoneInfo(event.timezone))


FIELDS: dict[str, tuple[int, Callable[[dict[str, Any]], Any]]] = {  # at least so many lines that are so
    "supplied visitors": (3_000, lambda line: "visitor_id" in line),
    "cookieless visitors": (3_000, lambda line: "visitor_id" not in line),
    "no agent": (50, lambda line: "user_agent" not in line),
    "utm, percent-encoded": (50, lambda line: re.search("utm_.*%C3%A9", line["url"])),
    "utm, with +": (50, lambda line: re.search(r"utm_\w+=\w+\+", line["url"])),
    "referrers from elsewhere": (500, lambda line: "google.com" in line.get("referrer", "")),
    "custom events": (500, lambda line: line["name"] not in ("pageview", "engagement")),
    "not interactive": (100, lambda line: line.get("interactive") is False and line["name"] != "pageview"),
    "pageviews that say so": (20, lambda line: line.get("interactive") is False and line["name"] == "pageview"),
    "props": (100, lambda line: "props" in line),
    "engagement": (500, lambda line: line["name"] == "engagement"),
    "bots by agent": (100, lambda line: "Googlebot" in line.get("user_agent", "")),
    "bots by statement": (100, lambda line: line.get("bot") is True),
    "lists of domains": (300, lambda line: "," in line["domain"]),
    "no country": (500, lambda line: "country" not in line),
    "a country that is none": (50, lambda line: line.get("country") == "de"),
    "stated browsers": (50, lambda line: "browser" in line),
    "stated sources": (50, lambda line: "source" in line),
    "stated channels": (20, lambda line: "channel" in line),
    "ms since 1970": (3_000, lambda line: isinstance(line["timestamp"], int)),
    "UTC": (1_000, lambda line: str(line["timestamp"]).endswith("Z")),
    "other zones": (1_000, lambda line: re.search(r"[+-]\d\d:[03]0$", str(line["timestamp"]))),
    "urls of 2,000 bytes": (1, lambda line: len(line["url"].encode()) == 2_000),
    "names of 120 characters": (10, lambda line: len(line["name"]) == 120),
}


@pytest.mark.parametrize("what", FIELDS)
def test_what_lines_say(sample: Sample, what: str) -> None:
    least, is_so = FIELDS[what]
    assert sum(bool(is_so(line)) for line in sample.fields) >= least


def test_sites_supply_ids_never_sometimes_or_always(sample: Sample) -> None:
    supplied = defaultdict(set)
    for event in sample.events:
        if not event.bot:
            supplied[event.site].add(event.visitor_id is not None)
    expected = {"herald.example": {False}, "laden.example": {False, True}, "docs.example": {True}}
    assert {site: supplied[site] for site in expected} == expected


def test_short_names(sample: Sample) -> None:
    names = {name for line in sample.lines if line.endswith("}") for name in json.loads(line)}
    assert names >= set(LONG_NAMES)


def test_visitors_return(sample: Sample) -> None:
    visits = Counter(visit.first.person for visit in sample.visits["laden.example"] if visit.first.visitor_id)
    assert sum(count > 1 for count in visits.values()) > 50


def test_pages_are_zipf(sample: Sample) -> None:
    pages = sorted((row["pageviews"] for row in sample.reports["herald.example"]["breakdowns"]["page"]), reverse=True)
    assert 1.4 < pages[0] / pages[1] < 3
    assert pages[0] > 200
    assert pages[-1] < 5


def test_duplicates(sample: Sample) -> None:
    copies = defaultdict(list)
    for event in sample.events:
        if event.event_id:
            copies[event.site, event.event_id].append(event)
    groups = [group for group in copies.values() if len(group) > 1]
    same_date = [(a, b) for a, b in (group[:2] for group in groups) if a.date == b.date]
    exact = [a for a, b in same_date if sample.lines[a.line - 1] == sample.lines[b.line - 1]]
    other_time = [a for a, b in same_date if a.timestamp != b.timestamp]
    later_line_counts = [a for a, b in same_date if a.line < b.line and a.hour > b.hour]
    other_content = [a for a, b in same_date if a.path != b.path]
    bots = [a for a, b in same_date if a.bot and b.bot]
    bot_first = [a for a, b in same_date if a.bot != b.bot and (a if a.hour <= b.hour else b).bot]
    other_date = [a for group in groups for a, b in pairwise(group) if a.date != b.date]
    found = (exact, other_time, later_line_counts, other_content, bots, bot_first, other_date)
    assert [len(kind) >= least for kind, least in zip(found, (50, 20, 5, 20, 2, 3, 5), strict=True)] == [True] * 7


def test_true_repeats(sample: Sample) -> None:
    repeated = [line for line, times in Counter(sample.lines).items() if times > 1 and "event_id" not in line]
    assert len(repeated) > 30


def test_late_lines(sample: Sample) -> None:
    latest, late = 0, 0
    for event in sample.events:
        late += event.timestamp < latest - truth.HOUR_MS
        latest = max(latest, event.timestamp)
    assert late > 300


def test_every_way_to_be_refused(sample: Sample) -> None:
    assert {rejection.reason for rejection in sample.rejections} == {reason for reason, _ in traffic.BREAKS}
    assert {r.reason for r in sample.rejections if r.site == truth.NO_SITE} == {
        *("malformed_json", "missing_domain", "invalid_domain")
    }
    assert sum(rejection.site == "group.example" for rejection in sample.rejections) > 0


@pytest.mark.parametrize("supplied", [True, False])
def test_visits_over_midnight(sample: Sample, supplied: bool) -> None:
    over = [v for v in sample.all_visits if v.first.date != v.events[-1].date]
    zones = Counter(visit.first.timezone for visit in over if (visit.first.visitor_id is not None) == supplied)
    assert set(zones) >= {"Europe/Berlin", "Asia/Kolkata"}
    assert min(zones[zone] for zone in ("Europe/Berlin", "Asia/Kolkata")) >= 4
    assert any(visit.first.date < FIRST <= visit.events[-1].date for visit in over)
    assert any(visit.first.date <= LAST < visit.events[-1].date for visit in over)


@pytest.mark.parametrize("supplied", [True, False])
def test_visits_over_the_change_of_the_clocks(sample: Sample, supplied: bool) -> None:
    change = datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp() * 1000
    over = [
        visit
        for visit in sample.visits["laden.example"]
        if visit.first.timestamp < change < visit.events[-1].timestamp and visit.duration_ms < 2 * truth.HOUR_MS
    ]
    assert any((visit.first.visitor_id is not None) == supplied for visit in over)


def test_pauses_at_the_limit(sample: Sample) -> None:
    pauses: Counter[tuple[int, bool]] = Counter()
    for site in sample.zones:
        by_person: dict[tuple[str, ...], list[tuple[int, int]]] = defaultdict(list)
        for number, visit in enumerate(sample.visits[site]):
            by_person[visit.first.person] += [(event.timestamp, number) for event in visit.events]
        for events in by_person.values():
            for (before, visit_before), (after, visit_after) in pairwise(sorted(events)):
                pauses[after - before, visit_before == visit_after] += 1
    assert pauses[PAUSE, True] > 20  # joined
    assert pauses[PAUSE + 1, False] > 10
    assert pauses[PAUSE + 1_000, False] > 10
    assert 1 <= pauses[PAUSE, False] + pauses[29 * 60_000, False] <= 40  # only where a full day is cut
    assert not [pause for pause, joined in pauses if pause > PAUSE and joined]


def test_full_days_are_cut_also_that_of_the_change_of_the_clocks(sample: Sample) -> None:
    all_day = [visit for visit in sample.all_visits if visit.duration_ms > 22 * truth.HOUR_MS]
    cut = [visit for visit in all_day if local(visit.events[-1]).hour == 23]
    uncut = [visit for visit in all_day if local(visit.events[-1]).hour != 23]
    assert {visit.first.timezone for visit in cut} == set(sample.zones.values())
    assert any(v.first.timezone == "Europe/Berlin" and v.events[-1].date == date(2026, 3, 29) for v in cut)
    assert any(visit.first.date != visit.events[-1].date for visit in uncut)


def test_engagement(sample: Sample) -> None:
    visits = sample.all_visits
    in_visits = {id(event) for visit in visits for event in visit.events}
    orphans = [e for e in sample.events if e.name == "engagement" and not e.bot and id(e) not in in_visits]
    assert len(orphans) > 50

    def bridged(visit: truth.Visit) -> bool:
        counted = [event.timestamp for event in visit.events if event.name != "engagement"]
        return any(after - before > PAUSE for before, after in pairwise(counted))

    assert sum(bridged(visit) for visit in visits) > 10
    assert sum(visit.events[-1].name == "engagement" for visit in visits) > 100
