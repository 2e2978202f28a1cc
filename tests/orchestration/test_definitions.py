"""The graph as Dagster shows it: a change of it shows in the review of asset_specs.json."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import orchestration.definitions
from assets.partitions import DATES, HOURS, chunks
from ingestion.site_time import hour_key, hour_of
from orchestration.materialize import BRIDGED
from orchestration.schedules import SCHEDULES

SNAPSHOT = Path(__file__).with_name("asset_specs.json")


def graph() -> dict[str, Any]:
    """Every asset, check, job and schedule, as far as an operator sees them."""
    defs = orchestration.definitions.defs
    schedules = [defs.resolve_schedule_def(schedule.name) for schedule in SCHEDULES]
    return {
        "assets": {
            spec.key.to_user_string(): _shown(spec) for spec in sorted(defs.resolve_all_asset_specs(), key=by_key)
        },
        "checks": sorted(key.to_user_string() for key in defs.resolve_asset_graph().asset_check_keys),
        "jobs": sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__")),
        "schedules": {schedule.name: [schedule.cron_schedule, schedule.default_status.value] for schedule in schedules},
    }


def by_key(spec: dg.AssetSpec) -> dg.AssetKey:
    return spec.key


def _shown(spec: dg.AssetSpec) -> dict[str, Any]:
    ours = spec.group_name not in ("reports", "staging")  # dbt's are digests of its SQL
    return {
        "group": spec.group_name,
        "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
        "owners": sorted(spec.owners),
        "kinds": sorted(spec.kinds),
        "grain": spec.tags.get("grain"),
        "code_version": spec.code_version if ours else None,
        "partitions": {None: None, HOURS: "hours", DATES: "dates"}[spec.partitions_def],
        "description": (spec.description or "").partition("\n")[0],
    }


def test_the_graph_is_the_one_in_the_snapshot():
    """`WRITE_SNAPSHOT=1` in the environment writes it anew."""
    now = json.loads(json.dumps(graph()))
    if "WRITE_SNAPSHOT" in os.environ:
        SNAPSHOT.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n")
    assert now == json.loads(SNAPSHOT.read_text())


def test_every_asset_has_what_an_operator_looks_for():
    for name, asset in graph()["assets"].items():
        assert asset["group"] != "default" and asset["owners"] and asset["kinds"] and asset["description"], name


def test_dbt_is_never_split_nor_kept_from_a_backfill_by_its_dependencies():
    """Dagster launches an asset of a backfill once all that it reads has been made: so all of dbt's must read the same."""
    graph = orchestration.definitions.defs.resolve_asset_graph()
    ours = {"breakdowns", "moving_averages"}
    for key in graph.materializable_asset_keys:
        node, name = graph.get(key), key.to_user_string()
        if node.group_name == "staging":
            assert ours <= {parent.to_user_string() for parent in node.parent_keys}, name
    every = [(DATES, key) for key in ("visits", "breakdowns", "stg_traffic", "stg_site_days")]
    for partitions, name in every:
        for parent in graph.get(dg.AssetKey(name)).parent_keys:
            if graph.get(parent).partitions_def:
                mapping = graph.get_partition_mapping(dg.AssetKey(name), parent)
                edge = partitions.empty_subset().with_partition_keys(
                    [partitions.get_first_partition_key(), partitions.get_last_partition_key()]
                )
                found = mapping.get_upstream_mapped_partitions_result_for_partitions(
                    edge, partitions, graph.get(parent).partitions_def
                )
                assert not found.required_but_nonexistent_subset.get_partition_keys(), (name, parent)


def test_dates_begin_one_before_the_first_hour_which_may_be_of_it_in_the_west():
    assert (HOURS.get_first_partition_key(), DATES.get_first_partition_key()) == ("2015-05-01T00", "2015-04-30")


def test_hours_reach_the_current_one_and_dates_two_ahead():
    now = datetime(2026, 11, 22, 13, 30, tzinfo=UTC)
    assert HOURS.get_partition_keys(current_time=now)[-1] == "2026-11-22T13"
    assert DATES.get_partition_keys(current_time=now)[-1] == "2026-11-23"


def test_wiring_is_short():
    lines = Path(orchestration.definitions.__file__).read_text().splitlines()
    assert len(lines) < 60


def hours(first: str, *steps: int) -> list[str]:
    return [hour_key(hour_of(first) + timedelta(hours=step)) for step in steps]


@pytest.mark.parametrize(
    ("steps", "most", "spans"),
    [
        ([], 10, []),
        ([0], 10, [(0, 0)]),
        ([0, 1, 2], 10, [(0, 2)]),
        ([0, 1, 2, 3, 4], 2, [(0, 1), (2, 3), (4, 4)]),
        ([0, 24], 100, [(0, 24)]),  # a gap that is bridged
        ([0, 25], 100, [(0, 0), (25, 25)]),
        ([0, 5, 20], 10, [(0, 5), (20, 20)]),
    ],
)
def test_runs_are_contiguous_and_bounded(steps, most, spans):
    first = "2026-11-22T00"
    assert list(chunks("events", hours(first, *steps), most, 1, BRIDGED)) == [
        tuple(hours(first, *span)) for span in spans
    ]
