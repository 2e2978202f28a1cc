"""Sample traffic: realistic events of five sites, and the true metrics of each. Deterministic by seed, byte for byte.

Ordinary visitors and crawlers come from a random generator; `STORIES` are told on top of them, one for each rule that
is easy to get wrong: pauses at the limit, midnight, the change of the clocks, engagement, a day without a pause.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from ingestion.simulation import truth
from ingestion.simulation.truth import ENGAGEMENT, EPOCH, HOUR_MS, NO_SITE, PAGEVIEW, first_instant

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, HOUR_MS, 24 * HOUR_MS
Fields = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """`share` of all visitors come here; `supplied`: the share of them with a `visitor_id`; `opens`: on which day."""

    domain: str
    timezone: str
    share: float
    supplied: float
    pages: int
    countries: tuple[str | None, ...]
    opens: int = 0


@dataclass(frozen=True)
class Agent:
    """An agent string, and what the ua-parser library and the product's rule of devices make of it."""

    string: str
    browser: str
    os: str
    device: str
    bot: bool = False


@dataclass(frozen=True)
class Referrer:
    """A referrer as sent, its host, and what is reported of it."""

    url: str = ""
    host: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Campaign:
    """A url's query as sent, and what it says when decoded."""

    query: str = ""
    source: str | None = None
    medium: str | None = None
    name: str | None = None


GROUP = Site("group.example", "UTC", 0.0, 0.0, 0, ())  # counts some of the others' events, through a list of domains
SITES = (
    Site("laden.example", "Europe/Berlin", 0.36, 0.6, 800, ("DE", "DE", "DE", "AT", "CH", "FR", "PL", None, "de")),
    Site("herald.example", "America/New_York", 0.40, 0.0, 6_000, ("US", "US", "US", "US", "CA", "MX", "GB", None)),
    Site("bazaar.example", "Asia/Kolkata", 0.16, 0.3, 300, ("IN", "IN", "IN", "BD", "AE", None)),
    Site("docs.example", "UTC", 0.08, 1.0, 60, ("US", "DE", "IN", "BR", "JP", "KE", None), opens=1),
)

_CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/122.0.0.0"
_SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4"
_IPHONE = f"{_SAFARI} Mobile/15E148 Safari/604.1"
AGENTS = (
    *(
        Agent(f"Mozilla/5.0 ({rest}", browser, os, device)
        for browser, os, device, rest in (
            ("Chrome", "Windows", "Desktop", f"Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36"),
            ("Chrome Mobile", "Android", "Mobile", f"Linux; Android 14; Pixel 8) {_CHROME} Mobile Safari/537.36"),
            ("Mobile Safari", "iOS", "Mobile", f"iPhone; CPU iPhone OS 17_4 like Mac OS X) {_IPHONE}"),
            ("Edge", "Windows", "Desktop", f"Windows NT 10.0; Win64; x64) {_CHROME} Safari/537.36 Edg/122.0.0.0"),
            ("Firefox", "Ubuntu", "Desktop", "X11; Ubuntu; Linux x86_64; rv:124.0) Gecko/20100101 Firefox/124.0"),
            ("Safari", "Mac OS X", "Desktop", f"Macintosh; Intel Mac OS X 10_15_7) {_SAFARI} Safari/605.1.15"),
            ("Chrome", "Linux", "Desktop", f"X11; Linux x86_64) {_CHROME} Safari/537.36"),
            ("Mobile Safari", "iOS", "Tablet", f"iPad; CPU OS 17_4 like Mac OS X) {_IPHONE}"),
            ("Chrome", "Chrome OS", "Desktop", f"X11; CrOS x86_64 14541.0.0) {_CHROME} Safari/537.36"),
        )
    ),
    Agent("HarbourReader/3.1", "(not set)", "(not set)", "(not set)"),
)
CRAWLERS = tuple(
    Agent(string, "", "", "", bot=True)
    for string in (
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    )
)
NO_AGENT = Agent("", "(not set)", "(not set)", "(not set)")

REFERRERS = (
    Referrer("https://www.google.com/", "google.com", "google.com/"),
    Referrer("https://WWW.Bing.com/search?q=teapot#top", "bing.com", "bing.com/search"),
    Referrer("https://news.ycombinator.com/item?id=4242", "news.ycombinator.com", "news.ycombinator.com/item"),
    Referrer("http://Forum.Example/t/Tea-Pots?page=2", "forum.example", "forum.example/t/Tea-Pots"),
    Referrer("https://m.facebook.com/", "m.facebook.com", "m.facebook.com/"),
)
CAMPAIGNS = (
    Campaign("utm_source=newsletter&utm_medium=email&utm_campaign=spring%20sale", "newsletter", "email", "spring sale"),
    Campaign("utm_source=google&utm_medium=CPC&utm_campaign=caf%C3%A9+tables", "google", "CPC", "café tables"),
    Campaign("utm_source=facebook&utm_medium=paid_social&utm_campaign=brand", "facebook", "paid_social", "brand"),
    Campaign("gclid=x1&utm_source=partner+shop&utm_medium=affiliate", "partner shop", "affiliate"),
    Campaign("utm_source=mastodon&utm_medium=Social", "mastodon", "Social"),
    Campaign("utm_medium=organic&utm_source=bing&utm_campaign=A%2FB", "bing", "organic", "A/B"),
    Campaign("utm_source=qr-code&utm_medium=print&utm_campaign=%E5%BA%97", "qr-code", "print", "店"),
    Campaign("utm_campaign=only+a+name", None, None, "only a name"),
)
STATED: tuple[dict[str, str], ...] = (  # what lines exported from another tool say themselves
    {"browser": "Brave", "os": "GNU/Linux", "device": "Desktop"},
    {"source": "Hacker News", "channel": "Organic Social", "device": "Mobile"},
    {"source": "Weekly letter", "browser": "Vivaldi"},
    {"utm_source": "podcast", "utm_medium": "e-mail", "utm_campaign": "episode 7"},
)
CUSTOM_EVENTS: tuple[tuple[str, Fields], ...] = (
    ("Signup", {"props": {"plan": "free", "trial": True, "seats": 3}}),
    ("Purchase", {"revenue": {"currency": "EUR", "amount": "12.90"}, "props": {"sku": "tea-pot"}}),
    ("Outbound Link: Click", {"props": {"url": "https://elsewhere.example/"}, "interactive": True}),
    ("Scroll 50 %", {"interactive": False}),
    ("Préférence enregistrée", {"interactive": False, "language": "fr"}),
)
NAMED_PAGES = ("/", "/about", "/search", "/über-uns", "/caf%C3%A9", "/About", "/a%20b")
HOURLY_RHYTHM = (3, 2, 1, 1, 1, 2, 4, 7, 10, 12, 12, 12, 13, 12, 11, 11, 12, 13, 14, 15, 16, 13, 9, 5)
SHORT_NAMES = {
    "domain": "d",
    "name": "n",
    "url": "u",
    "referrer": "r",
    "props": "p",
    "revenue": "$",
    "interactive": "i",
    "scroll_depth": "sd",
    "engagement_time": "e",
}


@dataclass(frozen=True)
class Story:
    """A visitor's events, each (ms after `start`, name). `start`: ms after a date's first instant, or before its end.

    Told on every date, or only on the date number `day`; `grouped`: counted for the group of sites as well.
    """

    title: str
    start: int
    events: tuple[tuple[int, str], ...]
    day: int | None = None
    grouped: bool = False


def _every(step: int, until: int) -> tuple[tuple[int, str], ...]:
    """Pageviews all `step` ms, every fifth of them engagement instead."""
    return tuple((at, ENGAGEMENT if at // step % 5 == 4 else PAGEVIEW) for at in range(0, until + 1, step))


_VIEW, _CARE, _GOAL, _SCROLL = PAGEVIEW, ENGAGEMENT, "Signup", "Scroll 50 %"
STORIES = (
    Story("at the first instant, before anybody else", 0, ((0, _VIEW),), grouped=True),
    Story(
        "pauses at the limit",
        13 * HOUR,
        ((0, _VIEW), (1_800_000, _VIEW), (3_601_000, _VIEW), (5_401_000, _GOAL), (7_201_001, _VIEW)),
    ),
    Story("over midnight", -10 * MINUTE, ((0, _VIEW), (22 * MINUTE, _VIEW), (24 * MINUTE, _GOAL))),
    Story(
        "over midnight, held by engagement",
        -20 * MINUTE,
        ((0, _VIEW), (25 * MINUTE, _CARE), (54 * MINUTE, _VIEW)),
    ),
    Story("awake while the clocks change", HOUR + 50 * MINUTE, tuple((n * 15 * MINUTE, _VIEW) for n in range(5))),
    Story("engagement alone", 9 * HOUR, ((0, _CARE), (40 * MINUTE, _CARE))),
    Story("engagement first", 10 * HOUR, ((0, _CARE), (5 * MINUTE, _VIEW), (6 * MINUTE, _VIEW))),
    Story("engagement after the end", 11 * HOUR, ((0, _VIEW), (31 * MINUTE, _CARE), (50 * MINUTE, _VIEW))),
    Story("engagement bridges a pause", 12 * HOUR, ((0, _VIEW), (25 * MINUTE, _CARE), (50 * MINUTE, _VIEW))),
    Story("no page", 14 * HOUR, ((0, _GOAL), (MINUTE, "ü" * 120))),
    Story("a bounce with two events", 15 * HOUR, ((0, _VIEW), (MINUTE, _SCROLL))),
    Story("all at once", 16 * HOUR, ((0, _VIEW), (0, _VIEW), (0, _GOAL))),
    Story("two full days, over three midnights", -20 * MINUTE, _every(29 * MINUTE, 49 * HOUR), day=0),
    Story("full by the longest pauses", 30 * MINUTE, _every(30 * MINUTE, 24 * HOUR), day=2),
    Story("not full: the day began a minute too late", 31 * MINUTE, _every(29 * MINUTE, 25 * HOUR), day=1),
)


@dataclass(frozen=True)
class Visitor:
    """Someone on a site: with an id that the site supplies, or known by address and agent only."""

    site: Site
    visitor_id: str | None
    ip: str
    agent: Agent
    country: str | None
    stated: Mapping[str, str] = field(default_factory=dict)
    also: Site | None = None


@dataclass(frozen=True)
class Hit:
    """What one good line says; `delay`: how many ms after its time it came into the file; `clock`: how time is written."""

    visitor: Visitor
    timestamp: int
    path: str
    name: str = PAGEVIEW
    referrer: Referrer = Referrer()
    campaign: Campaign = Campaign()
    more: Mapping[str, Any] = field(default_factory=dict)
    bot: bool = False
    event_id: str | None = None
    delay: int = 0
    short: bool = False
    clock: str = "ms"


@dataclass(frozen=True)
class Simulation:
    """What `simulate` wrote."""

    sites: tuple[str, ...]
    first: date
    last: date
    lines: int


def simulate(
    directory: Path, *, seed: int = 1, first_date: date = date(2026, 3, 27), days: int = 4, visitors: int = 2_800
) -> Simulation:
    """Write `sites.json`, `events.ndjson` and `truth.json` (site → its true report) into `directory`.

    The traffic covers `days` dates from `first_date`, with some visits over their edges; the lines grow with `visitors`
    (2,800: about 20,000 lines).
    """
    rng = Random(seed)
    dates = [first_date + timedelta(days=n) for n in range(days)]
    sites = (*SITES, GROUP)
    hits = [dressed(rng, hit) for site in SITES for hit in traffic(rng, site, dates, round(visitors * site.share))]
    lines, events, rejections = written(rng, [*hits, *repeats(rng, hits)])
    reports = {
        site.domain: truth.report(site.domain, site.timezone, events, rejections, dates[0], dates[-1]) for site in sites
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "sites.json", [{"site": site.domain, "timezone": site.timezone} for site in sites])
    (directory / "events.ndjson").write_bytes("".join(line + "\n" for line in lines).encode())
    write_json(directory / "truth.json", reports)
    return Simulation(tuple(site.domain for site in sites), dates[0], dates[-1], len(lines))


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read, in the same bytes each time."""
    path.write_bytes((json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())


# ---- who comes, and what they do


def traffic(rng: Random, site: Site, dates: list[date], visitors: int) -> Iterator[Hit]:
    """All events of a site, before lateness and repeats."""
    opened = dates[min(site.opens, len(dates) - 1) :]
    pages = zipf_pages(site)
    for _ in range(visitors):
        visitor = new_visitor(rng, site, supplied=rng.random() < site.supplied)
        for _ in range(1 + int(4 * cubed(rng))):
            yield from browse(rng, visitor, moment(rng, site, opened), pages)
    for _ in range(1 + visitors // 150):
        yield from crawl(rng, site, moment(rng, site, opened), pages)
    eve = [] if site.opens else [opened[0] - timedelta(days=1)]
    if site.supplied > 0:
        yield from tell_stories(rng, site, eve, opened, supplied=True)
    if site.supplied < 1:
        yield from tell_stories(rng, site, eve, opened, supplied=False)


def new_visitor(rng: Random, site: Site, supplied: bool) -> Visitor:
    """A visitor who comes for the first time; `supplied`: with a `visitor_id`."""
    stated = rng.choice(STATED) if supplied and rng.random() < 0.1 else {}
    agent = NO_AGENT if stated and rng.random() < 0.5 else rng.choices(AGENTS, range(len(AGENTS), 0, -1))[0]
    visitor_id = f"u{rng.getrandbits(48):012x}" if supplied else None
    country = rng.choice(site.countries)
    return Visitor(site, visitor_id, address(rng), agent, country, stated, GROUP if rng.random() < 0.06 else None)


def address(rng: Random) -> str:
    """An address reserved for tests or documentation; one in twenty is that of an office that many share."""
    kind = rng.random()
    if kind < 0.05:
        return "198.18.0.1"
    if kind < 0.2:
        return str(IPv6Address((0x20010DB8 << 96) | rng.getrandbits(64)))
    return str(IPv4Address("198.18.0.0") + rng.getrandbits(17))


def moment(rng: Random, site: Site, dates: list[date]) -> int:
    """A time on one of the dates, by the daily rhythm of the site's own clock."""
    hour = rng.choices(range(24), HOURLY_RHYTHM)[0]
    wall = datetime.combine(rng.choice(dates), datetime.min.time(), ZoneInfo(site.timezone))
    return (wall.replace(hour=hour) - EPOCH) // timedelta(milliseconds=1) + rng.randrange(HOUR)


def zipf_pages(site: Site) -> tuple[list[str], list[float]]:
    """A site's paths and their cumulative weights: the n-th is viewed 1/n as often as the first."""
    paths = [*NAMED_PAGES, *(f"/pages/{n}" for n in range(site.pages))]
    return paths, list(accumulate(1 / n for n in range(1, len(paths) + 1)))


def cubed(rng: Random) -> float:
    """From 0 to 1, mostly small. (A product is the same on every machine; logarithms are not.)"""
    x = rng.random()
    return x * x * x


def browse(rng: Random, visitor: Visitor, at: int, pages: tuple[list[str], list[float]]) -> Iterator[Hit]:
    """One sitting: a landing, then pages, custom events and engagement, mostly without a long pause."""
    path = any_page(rng, pages)
    yield landing(rng, visitor, at, path)
    while rng.random() < 0.72:
        at += 1_000 + int((45 if rng.random() < 0.05 else 12) * MINUTE * cubed(rng))
        action = rng.random()
        if action < 0.7:
            referrer = internal(rng, visitor.site, path)
            path = any_page(rng, pages)
            yield Hit(visitor, at, path, referrer=referrer)
        elif action < 0.85:
            name, more = rng.choice(CUSTOM_EVENTS)
            yield Hit(visitor, at, path, name, more=more)
        else:
            yield engagement(rng, visitor, at, path)


def any_page(rng: Random, pages: tuple[list[str], list[float]]) -> str:
    """A path, by the weights of the pages."""
    return rng.choices(pages[0], cum_weights=pages[1])[0]


def landing(rng: Random, visitor: Visitor, at: int, path: str) -> Hit:
    """A visit's first page view, with what led there."""
    referrer = rng.choice(REFERRERS) if rng.random() < 0.5 else Referrer()
    campaign = rng.choice(CAMPAIGNS) if rng.random() < 0.25 else Campaign(rng.choice(("", "", "q=tea&page=2")))
    return Hit(visitor, at, path, referrer=referrer, campaign=campaign, more={"screen_width": 390, "title": "Tea"})


def internal(rng: Random, site: Site, path: str) -> Referrer:
    """A referrer that is the site's own."""
    host = rng.choice((site.domain, site.domain, "www." + site.domain, site.domain.upper()))
    return Referrer(f"https://{host}{path}", site.domain, site.domain + path)


def engagement(rng: Random, visitor: Visitor, at: int, path: str) -> Hit:
    """How far was scrolled and how long was read."""
    more = {"scroll_depth": rng.randrange(101), "engagement_time": rng.randrange(60_000)}
    return Hit(visitor, at, path, ENGAGEMENT, more=more)


def crawl(rng: Random, site: Site, at: int, pages: tuple[list[str], list[float]]) -> Iterator[Hit]:
    """A crawler known by its agent, or one with a browser's agent that the line itself calls a bot."""
    stated = rng.random() < 0.3
    agent = AGENTS[0] if stated else rng.choice(CRAWLERS)
    crawler = Visitor(site, None, f"203.0.113.{rng.randrange(1, 255)}", agent, rng.choice(site.countries))
    for _ in range(rng.randrange(20, 60)):
        yield Hit(crawler, at, any_page(rng, pages), bot=stated)
        at += rng.randrange(1_000, 120_000)


def tell_stories(rng: Random, site: Site, eve: list[date], dates: list[date], supplied: bool) -> Iterator[Hit]:
    """Hits of every story, on each date on which it is told."""
    for story in STORIES:
        told_on = [*eve, *dates] if story.day is None else dates[story.day :][:1]
        for day in told_on:
            visitor = replace(new_visitor(rng, site, supplied), ip=f"2001:db8:1::{rng.getrandbits(15) + 1:x}")
            visitor = replace(visitor, also=GROUP) if story.grouped else visitor
            start_day = day if story.start >= 0 else day + timedelta(days=1)
            start = first_instant(start_day, site.timezone) + story.start
            for after, name in story.events:
                yield told(rng, visitor, start + after, name)


def told(rng: Random, visitor: Visitor, at: int, name: str) -> Hit:
    """One hit of a story."""
    path = rng.choice(NAMED_PAGES)
    if name == ENGAGEMENT:
        return engagement(rng, visitor, at, path)
    if name == PAGEVIEW:
        longest = 2_000 - len(f"https://{visitor.site.domain}/") if rng.random() < 0.02 else 0
        return Hit(visitor, at, "/" + "x" * longest) if longest else landing(rng, visitor, at, path)
    return Hit(visitor, at, path, name, more=dict(CUSTOM_EVENTS).get(name, {}))


# ---- how it arrives


def dressed(rng: Random, hit: Hit) -> Hit:
    """The hit with an event_id or none, now and then hours late, with long or short names, in one of the forms of time."""
    event_id = str(UUID(int=rng.getrandbits(128), version=4)) if rng.random() < 0.6 else None
    delay = rng.randrange(HOUR, 20 * HOUR) if rng.random() < 0.03 else rng.randrange(2_000)
    clock = rng.choice(("ms", "ms", "utc", "local"))
    odd = {"interactive": False} if hit.name == PAGEVIEW and rng.random() < 0.01 else {}  # interactive nevertheless
    more = {**hit.more, **odd}
    return replace(hit, event_id=event_id, delay=delay, clock=clock, short=rng.random() < 0.2, more=more)


def repeats(rng: Random, hits: list[Hit]) -> Iterator[Hit]:
    """Lines with an event_id again: as they were, at another time, with other content, a day later, called a bot.

    And lines without one again, which are two events.
    """
    for hit in hits:
        again = replace(hit, delay=hit.delay + rng.randrange(30 * SECOND))
        roll = rng.random()
        if roll < 0.012:
            yield again
        elif hit.event_id is None or roll >= 0.03:
            continue
        elif roll < 0.018:
            shift = rng.randrange(-3 * HOUR, 3 * HOUR)
            yield replace(again, timestamp=hit.timestamp + shift, delay=again.delay - min(shift, 0))
        elif roll < 0.025:
            yield replace(again, path="/retry", name=rng.choice((PAGEVIEW, "Signup")), referrer=REFERRERS[0], more={})
        elif roll < 0.028:
            yield replace(again, timestamp=hit.timestamp + DAY)
        else:
            back = rng.choice((0, HOUR))
            yield replace(again, timestamp=hit.timestamp - back, delay=again.delay + back, bot=True)


def written(rng: Random, hits: list[Hit]) -> tuple[list[str], list[truth.Event], list[truth.Rejection]]:
    """The lines of the file in order of arrival, broken ones among them, and what is true of them."""
    lines: list[str] = []
    events: list[truth.Event] = []
    rejections: list[truth.Rejection] = []
    broken = broken_after(rng, hits)
    for position, hit in enumerate(sorted(hits, key=lambda hit: hit.timestamp + hit.delay)):
        lines.append(json_line(wire(hit)))
        events.extend(true_events(hit, len(lines)))
        hour = hit.timestamp // HOUR
        for text, own_hour, reason, sites in broken[position]:
            hour = hour if own_hour is None else own_hour
            lines.append(text)
            rejections.extend(truth.Rejection(site, hour, reason) for site in sites)
    return lines, events, rejections


def json_line(fields: Fields) -> str:
    """A line of NDJSON, without its end."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def wire(hit: Hit) -> Fields:
    """The line's fields in the wire format."""
    visitor = hit.visitor
    query = f"?{hit.campaign.query}" if hit.campaign.query else ""
    fields = {
        "domain": ",".join(site.domain for site in named_sites(hit)),
        "name": hit.name,
        "url": f"https://{visitor.site.domain}{hit.path}{query}" + ("#top" if "page=2" in query else ""),
        "timestamp": time_text(hit),
        "referrer": hit.referrer.url,
        **hit.more,
        "ip": visitor.ip,
        "user_agent": visitor.agent.string,
        "country": visitor.country,
        "visitor_id": visitor.visitor_id,
        "event_id": hit.event_id,
        "bot": hit.bot or None,
        **visitor.stated,
    }
    said = {name: value for name, value in fields.items() if value is not None and value != ""}
    return {SHORT_NAMES.get(name, name): value for name, value in said.items()} if hit.short else said


def named_sites(hit: Hit) -> list[Site]:
    """The sites for which a hit counts."""
    return [hit.visitor.site] + ([hit.visitor.also] if hit.visitor.also else [])


def time_text(hit: Hit) -> int | str:
    """The timestamp as the hit's clock writes it: ms, UTC or local time."""
    if hit.clock == "ms":
        return hit.timestamp
    zone = UTC if hit.clock == "utc" else ZoneInfo(hit.visitor.site.timezone)
    text = (EPOCH + timedelta(milliseconds=hit.timestamp)).astimezone(zone).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z") if hit.clock == "utc" else text


# ---- lines that are refused

_ABSENT = object()
BREAKS: tuple[tuple[str, Fields], ...] = (  # a reason, and what makes a good line one that is refused for it
    ("malformed_json", {}),
    ("missing_domain", {"domain": _ABSENT}),
    ("missing_name", {"name": _ABSENT}),
    ("missing_url", {"url": _ABSENT}),
    ("invalid_domain", {"domain": 17}),
    ("invalid_name", {"name": {"is": "a pageview"}}),
    ("invalid_name", {"name": "n" * 121}),
    ("invalid_url", {"url": "/not/absolute"}),
    ("invalid_url", {"url": 17}),
    ("url_too_long", {"url": "https://laden.example/" + "ü" * 990}),
    ("invalid_referrer", {"referrer": ["https://www.google.com/"]}),
    ("invalid_props", {"props": "size=L"}),
    ("invalid_interactive", {"interactive": "no"}),
    ("invalid_scroll_depth", {"scroll_depth": "deep"}),
    ("invalid_visitor_id", {"visitor_id": 17}),
    ("invalid_event_id", {"event_id": "42"}),
    ("invalid_timestamp", {"timestamp": "yesterday"}),
    ("invalid_timestamp", {"timestamp": True}),
)
Broken = tuple[str, int | None, str, list[str]]  # text, own hour if readable, reason, sites named


def broken_after(rng: Random, hits: list[Hit]) -> dict[int, list[Broken]]:
    """Refused lines by the position of the good line that they follow."""
    broken: dict[int, list[Broken]] = defaultdict(list)
    for _ in range(1 + len(hits) // 4_000):
        for reason, changes in BREAKS:
            broken[rng.randrange(len(hits))].append(break_line(rng.choice(hits), reason, changes))
    return broken


def break_line(hit: Hit, reason: str, changes: Fields) -> Broken:
    """A hit's line with one thing wrong, and what must become of it."""
    changed = {**wire(replace(hit, short=False)), **changes}
    fields = {name: value for name, value in changed.items() if value is not _ABSENT}
    if hit.short:
        fields = {SHORT_NAMES.get(name, name): value for name, value in fields.items()}
    text = json_line(fields)
    if reason == "malformed_json":
        return text[: len(text) // 2], None, reason, [NO_SITE]
    sites = [NO_SITE] if "domain" in changes else [site.domain for site in named_sites(hit)]
    return text, None if "timestamp" in changes else hit.timestamp // HOUR, reason, sites


# ---- what is true of a good line


def true_events(hit: Hit, line: int) -> Iterable[truth.Event]:
    """The event that the line is, for each site that it names."""
    for site in named_sites(hit):
        yield truth.Event(
            site=site.domain,
            timezone=site.timezone,
            timestamp=hit.timestamp,
            line=line,
            name=hit.name,
            path=hit.path,
            event_id=hit.event_id,
            visitor_id=hit.visitor.visitor_id,
            ip=hit.visitor.ip,
            user_agent=hit.visitor.agent.string,
            interactive=hit.more.get("interactive", True),
            bot=hit.bot or hit.visitor.agent.bot,
            attributes=true_attributes(hit, site),
        )


def true_attributes(hit: Hit, site: Site) -> dict[str, str]:
    """What a report of `site` says of the hit's source, campaign, place and agent."""
    visitor, stated = hit.visitor, hit.visitor.stated
    referrer = Referrer() if hit.referrer.host == site.domain else hit.referrer
    utm_source = stated.get("utm_source", hit.campaign.source)
    utm_medium = stated.get("utm_medium", hit.campaign.medium)
    source = stated.get("source") or utm_source or referrer.host
    attributes = {
        "source": source,
        "channel": stated.get("channel") or channel(source, utm_medium),
        "referrer": referrer.value,
        "utm_source": utm_source,
        "utm_medium": utm_medium,
        "utm_campaign": stated.get("utm_campaign", hit.campaign.name),
        "country": visitor.country if visitor.country and visitor.country.isupper() else None,
        **{name: stated.get(name, getattr(visitor.agent, name)) for name in ("browser", "os", "device")},
    }
    return {name: value for name, value in attributes.items() if value is not None}


def channel(source: str | None, medium: str | None) -> str:
    """The channel of a visit with this source and medium."""
    medium = (medium or "").lower()
    if source is None:
        return "Direct"
    if medium in ("cpc", "ppc", "retargeting") or medium.startswith("paid"):
        return "Paid Other"
    if medium in ("email", "e-mail", "e_mail"):
        return "Email"
    if medium in ("affiliate", "affiliates"):
        return "Affiliates"
    if medium in ("social", "social-network", "social-media", "sm"):
        return "Organic Social"
    return "Organic Search" if medium == "organic" else "Referral"
