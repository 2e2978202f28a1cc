"""Twenty clients that post events to a collector, and the truth of what they did."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from ingestion.simulation import truth
from ingestion.simulation.traffic import AGENTS, CRAWLERS, Agent

SITES = {"shop.example": "Europe/Berlin", "blog.example": "America/St_Johns"}
CLIENTS = 20
HOUR = 3_600_000
BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"url": None}, "missing_url"),
    ({"url": "no url"}, "invalid_url"),
    ({"domain": "nobody.example"}, "unknown_site"),
    ({"name": 7}, "invalid_name"),
    ({"timestamp": 1_000}, "too_old"),
    ({"scroll_depth": 101}, "invalid_scroll_depth"),
)


@dataclass(frozen=True)
class Person:
    """Somebody on one site, with an id that the site supplies or without."""

    site: str
    visitor_id: str | None
    ip: str
    agent: Agent


@dataclass(frozen=True)
class Sending:
    """An event as it is sent, and for what reason it will be refused."""

    person: Person
    event: dict[str, Any]
    reason: str | None = None


def sendings(rng: Random, now_ms: int, count: int) -> list[Sending]:
    """Good events of the last 70 hours, one in twelve of them sent once more, and bad ones; in any order."""
    people = [person(rng, number) for number in range(count // 25)]
    instants = rng.sample(range(now_ms - 70 * HOUR, now_ms - 60_000, 1_000), count)
    good = [Sending(who, event(rng, who, at)) for who, at in ((rng.choice(people), at) for at in instants)]
    again = rng.sample(good, count // 12)
    bad = [Sending(item.person, {**event(rng, item.person, now_ms), **harm}, reason)
           for item, (harm, reason) in ((rng.choice(good), rng.choice(BAD)) for _ in range(count // 15))]  # fmt: skip
    every = [*good[: count - len(again) - len(bad)], *bad]
    every += rng.choices([item for item in every if not item.reason], k=len(again))
    rng.shuffle(every)
    return every


def person(rng: Random, number: int) -> Person:
    agent = rng.choice(CRAWLERS) if number % 20 == 0 else rng.choice(AGENTS)
    visitor_id = f"v{number}" if number % 3 else None
    return Person(rng.choice(list(SITES)), visitor_id, f"198.18.{number // 250}.{number % 250}", agent)


def event(rng: Random, who: Person, at: int) -> dict[str, Any]:
    name = rng.choices(("pageview", "Signup", "engagement"), (8, 1, 1))[0]
    sent = {
        "domain": who.site,
        "name": name,
        "url": f"https://{who.site}/page-{rng.randrange(20)}?utm_source=letter",
        "timestamp": at,
        "event_id": str(UUID(int=rng.getrandbits(128))),
    }
    if name == "Signup" and rng.random() < 0.5:
        sent["interactive"] = False
    return sent | ({"visitor_id": who.visitor_id} if who.visitor_id else {})


def reports(every: Sequence[Sending], first: str, last: str) -> dict[str, Any]:
    """What `footfall report` must print for each site, if all that is good was acknowledged."""
    events = [true_event(item, line) for line, item in enumerate(every) if not item.reason]
    days = [datetime.fromisoformat(day).date() for day in (first, last)]
    return {site: truth.report(site, zone, events, [], *days) for site, zone in SITES.items()}


def true_event(item: Sending, line: int) -> truth.Event:
    sent, who = item.event, item.person
    known = {"browser": who.agent.browser, "os": who.agent.os, "device": who.agent.device}
    return truth.Event(
        who.site, SITES[who.site], sent["timestamp"], line, sent["name"], sent["url"].split("example")[1].split("?")[0],
        sent["event_id"], who.visitor_id, who.ip, who.agent.string, sent.get("interactive", True), who.agent.bot,
        {"source": "letter", "channel": "Referral", "utm_source": "letter", **{name: value for name, value in known.items() if value}},
    )  # fmt: skip


@dataclass
class Answers:
    """What the collector said: the ids of events that it acknowledged, and reasons of refusals."""

    acknowledged: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    mistakes: list[str] = field(default_factory=list)


def post(port: int, every: Sequence[Sending], pause: float = 0) -> Answers:
    """Sends everything from all clients at once, each event alone or with others of the same person; what is not answered, or
    with a 503, is sent again."""
    answers = Answers()
    threads = [
        threading.Thread(target=_client, args=[port, every[number::CLIENTS], answers, pause])
        for number in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _client(port: int, every: Sequence[Sending], answers: Answers, pause: float) -> None:
    for group in _groups(every):
        while True:
            try:
                status, said = _send(port, group)
            except (OSError, http.client.HTTPException, ValueError):
                status, said = 0, {}
            if status in (202, 400):
                break
            answers.failures += 1
            time.sleep(0.2)
        time.sleep(pause)
        refused = {one["index"]: one["reason"] for one in said.get("refused", ())}
        if "reason" in said:
            refused = {0: said["reason"]}
        wanted = {index: item.reason for index, item in enumerate(group) if item.reason}
        if refused != wanted:
            answers.mistakes.append(
                f"{status} {said}, but {wanted} should be refused of {[item.event for item in group]}"
            )
        answers.refused.update(refused.values())
        answers.acknowledged += [item.event["event_id"] for item in group if not item.reason]


def _groups(every: Sequence[Sending]) -> Iterator[list[Sending]]:
    """Of one person each: who sends is told by the headers of a request."""
    people: dict[Person, list[Sending]] = {}
    for item in every:
        people.setdefault(item.person, []).append(item)
    for items in people.values():
        size = 1 + len(items) % 5
        yield from (items[begin : begin + size] for begin in range(0, len(items), size))


def _send(port: int, group: Sequence[Sending]) -> tuple[int, dict[str, Any]]:
    who = group[0].person
    content = [item.event for item in group] if len(group) > 1 else group[0].event
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        headers = {"X-Forwarded-For": who.ip, "User-Agent": who.agent.string, "Content-Type": "text/plain"}
        connection.request("POST", "/api/event", json.dumps(content), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1_000)
