"""What must not be lost, and when: raw objects that are gone, processes that are killed."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from ingestion.files import no_progress
from ingestion.importer import import_events
from ingestion.settings import from_environment
from ingestion.simulation.traffic import simulate
from ingestion.stores import open_stores
from ingestion.sweep import sweep_unlisted
from tests.e2e.compare import differences
from tests.e2e.conftest import NOW, Home

FOOTFALL = str(Path(sys.executable).parent / "footfall")
FIRST = date(2026, 3, 28)


def imported(it: Home, sample: Path) -> dict:
    """A home with a small sample imported. Returns the truth."""
    sample.mkdir(exist_ok=True)
    simulate(sample, seed=3, first_date=FIRST, days=1, visitors=60)
    for site in json.loads((sample / "sites.json").read_text()):
        it.stores.ledger.add_site(site["site"], site["timezone"])
    import_events(sample / "events.ndjson", it.stores.settings, it.stores.ledger, it.stores.lake, NOW, no_progress)
    return json.loads((sample / "truth.json").read_text())


def wrong(it: Home, truth: dict) -> list[str]:
    return [
        line
        for site, wanted in truth.items()
        for line in differences(wanted, it.report(site, wanted["from"], wanted["to"]))
    ]


def test_an_hour_whose_raw_objects_are_gone_or_changed_is_refused_and_nothing_of_it_changes(home, tmp_path):
    from orchestration.materialize import MaterializeFailed

    with home("2026-03-01") as it:
        truth = imported(it, tmp_path / "sample")
        it.materialize()
        assert wrong(it, truth) == []
        before = it.report_hashes()
        hour, raw = it.raw_objects()[5]
        lake = it.stores.lake
        content = lake.get(raw.name)
        ledger = [row for row in it.rows("footfall.published") if row[1] == hour]
        for harm in (lambda: lake.put(raw.name, content[:-1] + b"x", 0), lambda: lake.delete([raw.name])):
            harm()
            with pytest.raises(MaterializeFailed, match=rf"{hour} cannot be recomputed.*nothing was changed"):
                it.materialize(hour, None)
        lake.put(raw.name, content, raw.rows)
        assert it.report_hashes() == before
        assert [row for row in it.rows("footfall.published") if row[1] == hour] == ledger


def run_until(line: str, path: Path, start: str) -> None:
    """`footfall materialize` in a process of its own, killed as soon as it says that a stage is done."""
    environment = {**os.environ, "FOOTFALL_HOME": str(path), "FOOTFALL_START": start}
    process = subprocess.Popen(
        [FOOTFALL, "materialize"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=environment,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    for said in process.stderr:
        if line in said:
            os.killpg(process.pid, signal.SIGKILL)
            break
    else:
        pytest.fail(f"it ended before {line!r}")
    process.wait()


def everything_is_stale(it: Home) -> None:
    """As after a change of a rule table far upstream: the next run has all stages to do again."""
    with psycopg.connect(it.stores.postgres_url) as connection:
        connection.execute("update footfall.published set inputs = '{}'")


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(["traffic", "breakdowns"], id="twice"),
        pytest.param(
            ["events", "traffic", "moving_averages", "visits", "breakdowns"], id="at each stage", marks=pytest.mark.slow
        ),
    ],
)
def test_a_rerun_after_kill_9_gives_the_right_report(home, tmp_path, stages):
    with home("2026-03-01") as it:
        truth = imported(it, tmp_path / "sample")
        for stage in stages:
            run_until(f"Materializing {stage}", it.path, "2026-03-01")
            everything_is_stale(it)
        it.materialize()
        assert wrong(it, truth) == []
        assert set(it.materialize().values()) == {0}


def test_what_a_killed_run_left_in_the_lake_is_invisible_and_swept_after_a_day(home, tmp_path):
    with home("2026-03-01") as it:
        imported(it, tmp_path / "sample")
        it.stores.lake.put("events/date=2026-03-28/bucket=00/hour=2026-03-28T10-999.parquet", b"left", 1)
        there = {name for name, _ in it.stores.lake.names()}
        now = datetime.now(UTC)
        assert sweep_unlisted(it.stores.ledger, it.stores.lake, now + timedelta(hours=23)) == 0
        assert sweep_unlisted(it.stores.ledger, it.stores.lake, now + timedelta(hours=25)) == 1
        assert {name for name, _ in it.stores.lake.names()} == there - {
            "events/date=2026-03-28/bucket=00/hour=2026-03-28T10-999.parquet"
        }


def test_a_home_opens_again_with_all_that_it_held(tmp_path):
    environment = {"FOOTFALL_HOME": str(tmp_path / "a home with spaces"), "FOOTFALL_START": "2026-03-01"}
    for _ in range(2):
        with open_stores(from_environment(environment)) as stores:
            stores.ledger.add_site("shop.example", "UTC")
            assert stores.ledger.time_zones() == {"shop.example": "UTC"}
