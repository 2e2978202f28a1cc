"""The graph as Dagster shows it: a change of it shows here."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

import orchestration.definitions
from assets.partitions import DATES, HOURS, chunks
from ingestion.site_time import hour_key, hour_of
from orchestration.materialize import BRIDGED

SPECS = {
    "events": ("collect", set()),
    "traffic": ("hourly", {"events"}),
    "moving_averages": ("hourly", {"traffic"}),
    "visits": ("daily", {"events"}),
    "breakdowns": ("daily", {"events", "visits"}),
    "report_site_hours": ("reports", {"stg_traffic", "stg_moving_averages", "stg_visit_hours", "run_dates"}),
    "report_site_days": ("reports", {"stg_site_days", "run_dates"}),
    "report_breakdown_days": ("reports", {"stg_breakdowns", "run_dates"}),
    "report_pipeline_hours": ("reports", {"stg_arrivals", "stg_rejections", "stg_event_copies", "run_dates"}),
}


@pytest.fixture(scope="module")
def specs() -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in orchestration.definitions.defs.resolve_all_asset_specs()}


@pytest.mark.parametrize("name", SPECS)
def test_assets_groups_and_dependencies(specs, name):
    group, deps = SPECS[name]
    spec = specs[name]
    assert spec.group_name == group
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == deps
    assert spec.description and len(spec.description) > 30


def test_there_are_no_other_assets_than_staging(specs):
    others = {name for name in specs if name not in SPECS and not name.startswith("stg_")}
    assert others <= {"run_dates"}


@pytest.mark.parametrize("name", ["events", "traffic", "moving_averages", "visits", "breakdowns"])
def test_our_assets_have_code_versions_owners_and_kinds(specs, name):
    assert specs[name].code_version and specs[name].owners and specs[name].kinds


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
