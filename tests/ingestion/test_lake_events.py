"""Reading events: copies do not count, wherever they lie; buckets of any number fit together."""

from datetime import UTC, date, datetime
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.lake import Lake, LakeObject
from ingestion.lake_events import (
    COPY_KEYS,
    COPY_ORDER,
    EVENTS,
    by_bucket,
    mark_copies,
    read_arrivals,
    read_copies,
    read_events,
)
from ingestion.ledger import PartitionObject

DAYS = [date(2026, 11, 22), date(2026, 11, 23)]
KEYS = {name: EVENTS[name] for name in (*COPY_KEYS, *COPY_ORDER)}
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "site": st.sampled_from("ab"),
            "date": st.sampled_from(DAYS),
            "event_id": st.sampled_from("xyz"),
            "object": st.sampled_from(
                ["raw/hour=2026-11-22T09/a", "raw/hour=2026-11-22T10/B", "raw/hour=2026-11-22T10/a"]
            ),
            "position": st.integers(1, 12),
        }
    ),
    max_size=20,
    unique_by=lambda row: (row["object"], row["position"], row["site"]),
)


def copies_of(rows: list[dict[str, Any]]) -> list[bool]:
    """Slow and plain: an event is a copy if another one with its keys came before it."""
    key = lambda row: [row[name] for name in COPY_KEYS]  # noqa: E731
    came = lambda row: (row["object"].encode(), row["position"])  # noqa: E731
    return [any(key(other) == key(row) and came(other) < came(row) for other in rows) for row in rows]


@given(ROWS)
def test_mark_copies(rows: list[dict[str, Any]]) -> None:
    marked = mark_copies(pl.DataFrame(rows, schema=KEYS))
    assert marked.drop("is_copy").rows(named=True) == rows, "the rows stay as they are, in their order"
    assert marked["is_copy"].to_list() == copies_of(rows)


def item(buckets: int | None, bucket: int | None, name: str = "") -> PartitionObject:
    return PartitionObject(LakeObject(name or f"{bucket} of {buckets}", 1, 1, ""), DAYS[0], bucket, buckets)


def all_of(buckets: int) -> list[PartitionObject]:
    return [item(buckets, bucket) for bucket in range(buckets)]


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        ([[]], 0),
        ([[], []], 0),
        ([all_of(1)], 1),
        ([all_of(4)], 4),
        ([all_of(64), all_of(16)], 16),
        ([[*all_of(64), *all_of(16)]], 16),
        ([all_of(4), all_of(6)], 2),
        ([all_of(3), all_of(2)], 1),
        ([all_of(4), [item(None, None)]], 1),
        ([[item(4, 3)], []], 4),
    ],
)
def test_by_bucket_reads_every_object_once(groups: list[list[PartitionObject]], count: int) -> None:
    read = list(by_bucket(*groups))
    assert len(read) == count
    for number, group in enumerate(groups):
        assert sorted(o.object.name for bucket in read for o in bucket[number]) == sorted(o.object.name for o in group)


@pytest.mark.parametrize(("first", "second"), combinations_with_replacement([1, 2, 3, 4, 6, 16, 64], 2))
def test_a_site_is_in_one_bucket_whatever_their_numbers(first: int, second: int) -> None:
    for site_hash in range(200):
        mine = {f"{site_hash % first} of {first}", f"{site_hash % second} of {second}"}
        buckets = [
            {o.object.name for group in bucket for o in group} for bucket in by_bucket(all_of(first), all_of(second))
        ]
        assert sum(bool(mine & names) for names in buckets) == 1


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "a lake").as_uri())


def events(lake: Lake, name: str, *rows: tuple[str, str, int, str]) -> PartitionObject:
    """An object of events: site, event id, position, path."""
    frame = pl.DataFrame(
        [(site, DAYS[0], event_id, f"raw/{name}", position, path) for site, event_id, position, path in rows],
        schema=["site", "date", "event_id", "object", "position", "path"],
        orient="row",
    )
    return PartitionObject(lake.put_parquet(f"events/{name}.parquet", frame), DAYS[0], 0, 1)


def test_copies_do_not_count_across_objects(lake: Lake) -> None:
    late = events(lake, "hour=10", ("a", "x", 1, "/late"), ("b", "x", 2, "/other site"), ("a", "z", 3, "/z"))
    soon = events(lake, "hour=09", ("a", "y", 1, "/y"), ("a", "x", 7, "/soon"), ("a", "x", 9, "/soon again"))
    for order in ([late, soon], [soon, late]):
        assert set(read_events(lake, order, ["path"])["path"]) == {"/soon", "/y", "/z", "/other site"}
        copies = read_copies(lake, order, ["path"]).filter("is_copy")
        assert set(copies["path"]) == {"/late", "/soon again"}
    assert set(read_events(lake, [late, soon], ["path"], site="b")["path"]) == {"/other site"}


def test_of_no_objects_there_are_no_events_but_their_columns(lake: Lake) -> None:
    assert read_events(lake, [], ["path", "timestamp"]).schema == {"path": pl.String, "timestamp": EVENTS["timestamp"]}
    assert read_copies(lake, [], ["path"]).schema["is_copy"] == pl.Boolean


def test_columns_come_as_asked(lake: Lake) -> None:
    one = events(lake, "hour=09", ("a", "x", 1, "/"))
    assert read_events(lake, [one], ["path", "site"]).columns == ["path", "site"]


def test_instants_are_in_ms_and_utc() -> None:
    moment = datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert pl.DataFrame({"timestamp": [moment]}, schema={"timestamp": EVENTS["timestamp"]})["timestamp"][0] == moment


@given(ROWS)
def test_arrivals_of_an_hour_are_its_events_without_copies_of_earlier_ones(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake").as_uri())
    hours = {
        hour: [row for row in rows if f"hour={hour}/" in row["object"]] for hour in ("2026-11-22T09", "2026-11-22T10")
    }
    objects = [
        PartitionObject(lake.put_parquet(f"{hour}.parquet", pl.DataFrame(own, schema=KEYS)), DAYS[0], 0, 1, hour)
        for hour, own in hours.items()
    ]
    every = list(zip(rows, copies_of(rows), strict=True))
    for hour, own in hours.items():
        read = read_arrivals(lake, objects, hour, ["site", "event_id", "position"])
        wanted = [
            (row["site"], row["event_id"], row["position"]) for row, is_copy in every if row in own and not is_copy
        ]
        assert sorted(read.rows()) == sorted(wanted)
