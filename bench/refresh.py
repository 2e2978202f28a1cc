"""A refresh of the current hour and date: what Dagster and dbt cost above the data work when a little has come.

A home holds some dates of sample traffic, imported and materialized. Then events come into the event log, the sweep looks, and the
runs that it wants are run one after the other, in a process that has run nothing before, as a run that the daemon launches.
The data work is what bench/materialize.py says it is.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.materialize import data_work
from bench.measured import alone
from ingestion.collector.door import Door, Sender
from ingestion.event_log import open_event_log
from ingestion.files import no_progress
from ingestion.identity import ImportSalts
from ingestion.importer import import_events
from ingestion.postgres import stop_postgres
from ingestion.settings import from_environment
from ingestion.simulation.traffic import simulate
from ingestion.site_time import from_datetime
from ingestion.stores import Stores, open_stores
from orchestration.cli import prepare_dagster

DATES = 3
EVENTS, VISITORS = 1_000, 200
"""What comes before each refresh."""
TIMES = 3
"""The shortest of so many refreshes counts."""
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Refresh:
    """Seconds of a refresh."""

    sweeps: float = 0
    """Two looks for what is due."""
    runs: dict[str, float] = field(default_factory=dict)
    """By job."""
    steps: dict[str, float] = field(default_factory=dict)
    """By asset: those of runs, without what Dagster does around them."""
    work: dict[str, float] = field(default_factory=dict)
    """Data work, by asset."""

    @property
    def total(self) -> float:
        return self.sweeps + sum(self.runs.values())

    @property
    def above(self) -> float:
        return self.total - sum(self.work.values())


def run(visitors: int) -> list[tuple[str, str]]:
    """Makes the home, refreshes it, and returns rows to print."""
    with TemporaryDirectory(prefix="ff-") as home:
        try:
            lines = alone(materialize_sample, home, visitors).result
            imports, refreshes = alone(refresh_some_times, home).result
        finally:
            stop_postgres(Path(home))
    return _rows(lines, imports, min(refreshes, key=lambda one: one.total), refreshes)


def _rows(lines: int, imports: float, best: Refresh, every: Sequence[Refresh]) -> list[tuple[str, str]]:
    dbt = best.steps["reports"]
    return [
        ("home", f"{DATES} dates of sample traffic, {lines:,} lines; {EVENTS:,} events of the current hour come"),
        ("refresh", f"{best.total:.1f} s; in turn " + ", ".join(f"{one.total:.1f}" for one in every)),
        ("by run", f"sweeps {best.sweeps:.2f}, " + _spoken(best.runs)),
        ("by step", _spoken(best.steps)),
        ("data work", f"{sum(best.work.values()):.1f} s (" + _spoken(best.work) + ")"),
        ("above the data work", f"{best.above:.1f} s: dbt {dbt:.1f}, the rest {best.above - dbt:.1f} (at most 30 s wanted)"),
        ("imports", f"{imports:.1f} s, once in each run that the daemon launches"),
    ]  # fmt: skip


def _spoken(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {some:.2f}" for name, some in seconds.items())


# What is measured


def refresh_some_times(home: str) -> tuple[float, list[Refresh]]:
    """Seconds that Dagster and the definitions take to import, and of each refresh."""
    with _opened(home) as stores:
        began = time.perf_counter()
        from orchestration.definitions import defs

        imports = time.perf_counter() - began
        return imports, [_refresh(stores, defs) for _ in range(TIMES)]


def _refresh(stores: Stores, defs: Any) -> Refresh:
    """Sends events, and runs what the sweep of hours and then the sweep of dates want."""
    import dagster as dg

    from assets.raw_events import unread_hours
    from orchestration.sweep import due_dates, due_hours, ranges

    _send(stores)
    now, done = datetime.now(UTC), Refresh()
    with _dbt_says_nothing(stores), dg.DagsterInstance.get() as instance, data_work() as done.work:
        for job in ("hourly", "daily"):
            began = time.perf_counter()
            state = stores.ledger.state()
            due = due_hours(state, unread_hours(stores, now, now), now) if job == "hourly" else due_dates(state, now)
            wanted = list(ranges(job, due, [], stores.settings, now))
            done.sweeps += time.perf_counter() - began
            began = time.perf_counter()
            for part in wanted:
                ran = defs.resolve_job_def(job).execute_in_process(instance=instance, tags=part.tags, run_config=QUIET)
                for step in instance.get_run_step_stats(ran.run_id):
                    done.steps[step.step_key] = done.steps.get(step.step_key, 0) + step.end_time - step.start_time
            done.runs[job] = time.perf_counter() - began
    return done


@contextmanager
def _dbt_says_nothing(stores: Stores) -> Iterator[None]:
    with (stores.settings.home / "refresh.log").open("a") as log, redirect_stdout(log):
        yield


# What it is measured on


def materialize_sample(home: str, visitors: int) -> int:
    """Imports dates that are over everywhere, and materializes them; returns how many lines that were."""
    with _opened(home) as stores:
        from orchestration.materialize import materialize

        now, sample = datetime.now(UTC), Path(home) / "sample"
        first = now.date() - timedelta(days=DATES + 1)
        lines = simulate(sample, first_date=first, days=DATES, visitors=visitors).lines
        for site in json.loads((sample / "sites.json").read_text()):
            stores.ledger.add_site(site["site"], site["timezone"])
        import_events(sample / "events.ndjson", stores.settings, stores.ledger, stores.lake, now, no_progress)
        materialize(stores, None, None, now, lambda done, total, asset: None)
    return lines


@contextmanager
def _opened(home: str) -> Iterator[Stores]:
    start = datetime.now(UTC).date() - timedelta(days=DATES + 3)
    os.environ |= {"FOOTFALL_HOME": home, "FOOTFALL_START": str(start)}
    with open_stores(from_environment()) as stores:
        prepare_dagster(stores)
        yield stores


def _send(stores: Stores) -> None:
    """Appends page views of all sites as the collector does."""
    time_zones, now_ms = stores.ledger.time_zones(), from_datetime(datetime.now(UTC))
    door, sites = Door(time_zones.get, ImportSalts(b"bench")), sorted(time_zones)
    lines = []
    for number in range(EVENTS):
        site = sites[number % len(sites)]
        event = {"domain": site, "name": "pageview", "url": f"https://{site}/page-{number % 50}"}
        lines += door.open(json.dumps(event).encode(), _sender(number % VISITORS), now_ms).lines
    with open_event_log(stores.settings, stores.postgres_url) as log:
        log.append([b"\n".join(lines)])


def _sender(number: int) -> Sender:
    return Sender(
        f"198.51.100.{number}",
        f"Mozilla/5.0 (X11; Linux x86_64; rv:{100 + number % 40}.0) Gecko/20100101 Firefox/140.0",
    )
