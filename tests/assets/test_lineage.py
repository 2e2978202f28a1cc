"""What each partition reads, and which are stale: tables of small ledgers, and random ones where lineage.py is quick."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.lineage import ASSETS, HOURLY, affected, averaged, inputs, neighbours, readers, reads, stale
from assets.transforms.enrich import RULES_VERSION
from ingestion.lake import digest_of
from ingestion.ledger import Published, State, Touch
from ingestion.site_time import hour_key, hour_of

NOW = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
EMPTY = State(published={}, touched=[], raw={}, sites={}, first_hours={})


def state(touched=(), raw=(), **contents: dict[str, str]) -> State:
    """A ledger in which partitions of assets hold some content, made from anything."""
    published = {
        (asset, partition): Published(1, "1", {}, content)
        for asset, partitions in contents.items()
        for partition, content in partitions.items()
    }
    return replace(
        EMPTY, published=published, touched=[Touch(*touch) for touch in touched], raw=dict.fromkeys(raw, "x")
    )


def settled(ledger: State) -> State:
    """The same ledger after everything that it holds was made from what is there."""
    published = dict(ledger.published)
    for asset in ASSETS:
        for partition, made_from in inputs(asset, replace(ledger, published=published), NOW).items():
            content = published[asset, partition].content if (asset, partition) in published else f"{asset} {partition}"
            published[asset, partition] = Published(1, "1", made_from, content)
    return replace(ledger, published=published)


def test_an_empty_ledger_has_nothing_to_make():
    assert [stale(asset, EMPTY, NOW) for asset in ASSETS] == [[]] * len(ASSETS)


def test_an_hour_with_raw_objects_is_made_from_them_and_from_the_rules():
    made = inputs("events", state(raw=["2026-11-22T10"]), NOW)
    assert made == {"2026-11-22T10": {"raw": "x", "sites": "", "rules": RULES_VERSION}}


@pytest.mark.parametrize(
    ("hour", "arrivals"),
    [
        ("2026-11-22T10", ["2026-11-22T10", "2026-11-22T11", "2026-11-22T12"]),  # a late one came at 12
        ("2026-11-22T11", ["2026-11-22T10", "2026-11-22T11"]),  # an earlier copy may lie in the arrivals of 10
        ("2026-11-22T12", ["2026-11-22T10", "2026-11-22T11", "2026-11-22T12"]),
    ],
)
def test_traffic_reads_its_arrivals_and_the_earlier_ones_of_its_dates(hour, arrivals):
    day = "2026-11-22"
    ledger = state(
        touched=[(f"{day}T10", f"{day}T10", day), (f"{day}T11", f"{day}T11", day), (f"{day}T12", f"{day}T10", day)]
        + [(f"{day}T12", f"{day}T12", day)],
    )
    assert sorted(key for _, key in reads("traffic", ledger, NOW)[hour]) == arrivals


def test_averages_follow_traffic_for_167_hours_and_not_into_the_future():
    old = reads("moving_averages", state(traffic={"2026-11-01T00": "x"}), NOW)
    assert (min(old), max(old), len(old)) == ("2026-11-01T00", "2026-11-07T23", 168)
    new = reads("moving_averages", state(traffic={"2026-11-22T12": "x"}), NOW)
    assert sorted(new) == ["2026-11-22T12", "2026-11-22T13"]


def test_visits_read_the_neighbours_and_breakdowns_the_evening_before():
    ledger = state(
        touched=[("2026-11-20T10", "2026-11-20T10", "2026-11-20"), ("2026-11-21T10", "2026-11-21T10", "2026-11-21")],
        visits={"2026-11-20": "x", "2026-11-21": "y"},
    )
    assert reads("visits", ledger, NOW)["2026-11-20"] == {("events", "2026-11-20T10"), ("events", "2026-11-21T10")}
    assert reads("breakdowns", ledger, NOW)["2026-11-21"] >= {("visits", "2026-11-20"), ("visits", "2026-11-21")}
    assert ("visits", "2026-11-21") not in reads("breakdowns", ledger, NOW)["2026-11-20"]


def test_reports_read_what_became_of_late_events_of_other_dates():
    ledger = state(touched=[("2026-11-22T10", "2026-11-19T10", "2026-11-19")], visits={"2026-11-19": "x"})
    assert ("visits", "2026-11-19") in reads("reports", ledger, NOW)["2026-11-22"]


def test_what_was_made_from_what_is_there_is_not_stale_and_the_same_rows_again_change_nothing():
    day = "2026-11-20"
    ledger = settled(state(touched=[(f"{day}T10", f"{day}T10", day)], raw=[f"{day}T10"]))
    ledger = settled(ledger)  # the first time, what is downstream of new partitions is not there yet
    assert {asset: stale(asset, ledger, NOW) for asset in ASSETS} == dict.fromkeys(ASSETS, [])
    key = ("events", f"{day}T10")
    again = replace(ledger, published={**ledger.published, key: replace(ledger.published[key], version=9)})
    assert {asset: stale(asset, again, NOW) for asset in ASSETS} == dict.fromkeys(ASSETS, [])


def test_other_rows_make_all_that_read_them_stale_and_nothing_else():
    days = ["2026-11-01", "2026-11-18"]
    ledger = state(touched=[(f"{day}T10", f"{day}T10", day) for day in days], raw=[f"{day}T10" for day in days])
    ledger = settled(settled(ledger))
    key = ("events", "2026-11-01T10")
    changed = replace(ledger, published={**ledger.published, key: replace(ledger.published[key], content="other")})
    assert stale("traffic", changed, NOW) == ["2026-11-01T10"]
    assert stale("visits", changed, NOW) == ["2026-11-01"]
    assert stale("reports", changed, NOW) == ["2026-11-01"]
    assert stale("moving_averages", changed, NOW) == []  # until traffic has changed


def test_a_partition_that_lost_its_inputs_is_stale_so_that_it_becomes_empty():
    ledger = settled(state(traffic={"2026-11-20T10": "x"}))
    gone = replace(
        ledger, published={**ledger.published, ("traffic", "2026-11-20T10"): Published(1, "1", {"events": "e"}, "x")}
    )
    assert stale("traffic", gone, NOW) == ["2026-11-20T10"]


def test_a_site_that_turns_out_older_makes_the_averages_of_its_youth_stale():
    ledger = settled(replace(state(traffic={"2026-11-20T10": "x"}), first_hours={"2026-11-20T10": "a"}))
    older = replace(ledger, first_hours={"2026-10-01T00": "a"})
    assert stale("moving_averages", older, NOW) == sorted(reads("moving_averages", older, NOW))


def test_affected_are_readers_before_or_after_a_change():
    before, after = {"a": frozenset({("events", "1")})}, {"b": frozenset({("events", "1")}), "c": frozenset()}
    assert affected("traffic", [("events", "1")], before, after) == ["a", "b"]


@pytest.mark.parametrize("asset", ASSETS)
def test_a_partition_that_was_made_from_nothing_is_complete(asset):
    """A run is contiguous, so it also makes the partitions between those that have inputs."""
    partition = "2026-11-20T10" if asset in HOURLY else "2026-11-20"
    made = Published(1, "1", inputs(asset, EMPTY, NOW, also=[partition])[partition], "")
    assert stale(asset, replace(EMPTY, published={(asset, partition): made}), NOW) == []


WEEK = timedelta(hours=168)
LATELY = [hour_key(NOW - timedelta(hours=back)) for back in range(-3, 500)]
hours = st.sampled_from(LATELY)
contents = st.sampled_from(["", "x", "y"])


@st.composite
def ledgers(draw) -> State:
    """Any touched hours and dates, and contents of partitions that need not fit to them."""
    touched = [
        (arrival, hour, draw(st.sampled_from(neighbours(hour[:10]))))
        for arrival, hour in draw(st.lists(st.tuples(hours, hours), max_size=8, unique=True))
    ]
    held = {asset: draw(st.dictionaries(hours, contents, max_size=8)) for asset in HOURLY}
    held["events"] |= {arrival: "x" for arrival, _, _ in touched}
    for asset in ("visits", "breakdowns"):
        held[asset] = draw(st.dictionaries(hours.map(lambda hour: hour[:10]), contents, max_size=8))
    return replace(
        state(touched, held["events"], **held), first_hours=draw(st.dictionaries(hours, contents, max_size=4))
    )


def looks_back(hour: str, over: str) -> bool:
    return timedelta() <= hour_of(hour) - hour_of(over) < WEEK and hour_of(hour) <= NOW


@given(ledgers())
def test_averages_read_whatever_traffic_they_look_back_over(ledger):
    keys = {key for key, made in ledger.published.items() if key[0] == "traffic" and made.content}
    read = {hour: {key for key in keys if looks_back(hour, key[1])} for hour in LATELY}
    expected = {hour: found for hour, found in read.items() if found or ("moving_averages", hour) in ledger.published}
    assert reads("moving_averages", ledger, NOW) == expected


@given(st.lists(hours, max_size=6))
def test_averaged_are_the_hours_that_look_back_over_some(some):
    assert averaged(some, NOW) == sorted(hour for hour in LATELY if any(looks_back(hour, one) for one in some))


@given(ledgers(), st.sampled_from(ASSETS))
def test_inputs_are_digests_of_the_contents_of_what_is_read(ledger, asset):
    made_from, every = inputs(asset, ledger, NOW), reads(asset, ledger, NOW)
    assert made_from.keys() == every.keys()
    for partition, read in every.items():
        for upstream in {name for name, _ in read}:
            lines = [f"{key} {ledger.published[name, key].content}" for name, key in sorted(read) if name == upstream]
            assert made_from[partition][upstream] == digest_of("\n".join(lines).encode())


@given(ledgers())
def test_averages_know_since_when_sites_are_younger_than_the_window(ledger):
    for partition, made_from in inputs("moving_averages", ledger, NOW, also=LATELY).items():
        young = [
            hour for hour in sorted(ledger.first_hours) if timedelta() <= hour_of(partition) - hour_of(hour) < WEEK
        ]
        lines = [f"{hour} {ledger.first_hours[hour]}" for hour in young]
        assert made_from["first_hours"] == digest_of("\n".join(lines).encode())


@given(ledgers(), st.sampled_from(ASSETS), st.data())
def test_readers_are_those_affected_when_nothing_else_changes(ledger, asset, data):
    changed = data.draw(st.sets(st.sampled_from([("events", "2020-01-01T00"), *sorted(ledger.published)])))
    read = reads(asset, ledger, NOW)
    assert sorted(readers(asset, changed, ledger, NOW)) == affected(asset, changed, read, read)
