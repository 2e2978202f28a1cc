"""What an arrival hour says of its visitors, against a loop over its events, and events as the event store keeps them."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.transforms.visitors import COLUMNS, KEPT, stored_events, visitor_hours
from ingestion.event_store import STORED_EVENTS, VISITOR_HOURS
from ingestion.lake_events import EVENTS

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
USUAL = {
    "site": "shop.example",
    "visitor_id": "v",
    "timestamp": NOON,
    "position": 1,
    "event_id": "0",
    "name": "pageview",
    "path": "/",
    "hostname": "shop.example",
    "source": "Direct / None",
    "channel": "Direct",
    "interactive": True,
    "bot": False,
} | dict.fromkeys(
    ("country", "region", "city", "browser", "browser_version", "os", "os_version", "device"), "(not set)"
)

Event = dict[str, Any]


def event(**fields: Any) -> Event:
    return dict.fromkeys(COLUMNS) | USUAL | fields


def frame(*events: Event) -> pl.DataFrame:
    return pl.DataFrame(list(events), schema={name: EVENTS[name] for name in COLUMNS}, orient="row")


def naive(events: list[Event]) -> list[dict[str, Any]]:
    """The same by a loop over events in order: bots are no visitors, the first source and the last of everything else count,
    and a language that is not there takes nothing away."""
    visitors: dict[tuple[str, str], dict[str, Any]] = {}
    for one in sorted(events, key=lambda one: (one["timestamp"], one["position"], one["event_id"])):
        if one["bot"]:
            continue
        known = visitors.setdefault(
            (one["site"], one["visitor_id"]),
            {
                "site": one["site"],
                "visitor_id": one["visitor_id"],
                "first_seen": one["timestamp"],
                "source": one["source"],
                "pageviews": 0,
                "language": None,
            },
        )
        known["last_seen"] = one["timestamp"]
        known["pageviews"] += one["name"] == "pageview"
        for name in ("country", "device", "browser"):
            known[name] = one[name]
        if one["language"] is not None:
            known["language"] = one["language"]
    return list(visitors.values())


FEW = st.sampled_from(["a", "b"])
EVENT = st.builds(
    event,
    site=FEW,
    visitor_id=FEW,
    timestamp=st.integers(0, 3).map(lambda minutes: NOON + timedelta(minutes=minutes)),
    position=st.integers(1, 2),
    event_id=FEW,
    name=st.sampled_from(["pageview", "engagement", "Signup"]),
    bot=st.sampled_from([False, False, True]),
    country=st.sampled_from(["DE", "FR", "(not set)"]),
    device=st.sampled_from(["Desktop", "Mobile"]),
    browser=st.sampled_from(["Firefox", "Chrome"]),
    language=st.sampled_from([None, "de", "fr"]),
    source=st.sampled_from(["Google", "Direct / None"]),
)


def order_of(one: Event) -> tuple[Any, ...]:
    return one["timestamp"], one["position"], one["event_id"], one["site"], one["visitor_id"]


@given(st.lists(EVENT, max_size=20, unique_by=order_of), st.randoms(use_true_random=False))
def test_visitors_of_an_hour_are_what_a_loop_over_its_events_finds(events: list[Event], random: Any) -> None:
    rows = visitor_hours(frame(*events))
    assert rows.schema == VISITOR_HOURS
    key = ("site", "visitor_id")
    wanted = pl.DataFrame(naive(events), schema=VISITOR_HOURS)
    assert rows.sort(key).equals(wanted.sort(key))
    random.shuffle(events)
    assert visitor_hours(frame(*events)).sort(key).equals(wanted.sort(key)), "the order of rows says nothing"


def test_a_visitor_who_is_only_a_bot_is_none() -> None:
    assert visitor_hours(frame(event(bot=True))).is_empty()
    assert stored_events(frame(event(bot=True))).height == 1


def test_an_hour_without_events() -> None:
    assert visitor_hours(frame()).schema == VISITOR_HOURS
    assert stored_events(frame()).schema == STORED_EVENTS


def stored(**fields: Any) -> Any:
    rows = stored_events(frame(event(**fields)))
    assert rows.schema == STORED_EVENTS
    return json.loads(rows["event"][0])


def test_a_stored_event_holds_what_is_known_and_leaves_out_what_is_not() -> None:
    rows = stored_events(frame(event(event_id="x", timestamp=NOON + timedelta(milliseconds=250))))
    assert rows.row(0)[:4] == ("shop.example", "v", NOON + timedelta(milliseconds=250), "x")
    kept = stored()
    assert kept == {name: USUAL[name] for name in KEPT if name in USUAL}
    assert None not in kept.values()


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"props": '{"plan":"a","big":18446744073709551616,"f":0.5,"n":null}'}, {"props": {"plan": "a", "big": 2**64, "f": 0.5, "n": None}}),
        ({"props": "{}"}, {"props": {}}),
        ({"revenue_amount": Decimal("-12.900000"), "revenue_currency": "EUR"}, {"revenue_amount": "-12.900000", "revenue_currency": "EUR"}),
        ({"interactive": False, "bot": True}, {"interactive": False, "bot": True}),
        ({"scroll_depth": 42.5, "engagement_time": 0.0, "screen_width": 1920.0}, {"scroll_depth": 42.5, "engagement_time": 0.0, "screen_width": 1920.0}),
        ({"title": "", "language": "", "user_id": "u"}, {"title": "", "language": "", "user_id": "u"}),
        ({"title": '"\\\n\x01\u2028🦊', "path": "/a,b"}, {"title": '"\\\n\x01\u2028🦊', "path": "/a,b"}),
    ],
)  # fmt: skip
def test_every_kind_of_field_is_kept_as_it_is(fields: dict[str, Any], kept: dict[str, Any]) -> None:
    found = stored(**fields)
    assert {name: found[name] for name in kept} == kept


def test_one_line_an_event() -> None:
    rows = stored_events(frame(event(title="a\nb"), event(event_id="1")))
    assert not any("\n" in line for line in rows["event"])
