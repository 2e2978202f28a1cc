"""24 hours in one process: what Dagster and dbt cost above the data work, for a day of sample traffic in a home of its own.

The data work is the time inside of the assets' own generators (`make_events`, `make_traffic`, …) while Dagster runs them: reading,
computing and writing the lake. All else counts as overhead: ledger transactions, Dagster, its storage, dbt, and imports.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.measured import alone

DAY = date(2026, 3, 10)
MADE = ("events", "stored_events", "traffic", "moving_averages", "visits", "breakdowns")
"""Assets whose module has a generator `make_<asset>`."""


def run(visitors: int) -> list[tuple[str, str]]:
    """Imports a day, materializes its hours, and returns rows to print."""
    with TemporaryDirectory(prefix="ff-") as home:
        done = alone(materialize_day, home, visitors)
    lines, counts, total, stages, work = done.result
    assets = {asset: seconds for asset, seconds in stages.items() if asset != "reports"}
    above = sum(assets.values()) - sum(work.values())
    return [
        ("lines", f"{lines:,}; " + ", ".join(f"{count} {asset}" for asset, count in counts.items())),
        ("total", f"{total:.1f} s (imports and set-up of Dagster included)"),
        ("by stage", ", ".join(f"{asset} {seconds:.1f}" for asset, seconds in stages.items())),
        ("data work", f"{sum(work.values()):.1f} s (" + ", ".join(f"{asset} {s:.2f}" for asset, s in work.items()) + ")"),
        ("above the data work", f"{total - sum(work.values()):.1f} s: dbt {stages['reports']:.1f}, assets' runs {above:.1f}, "
                                f"set-up {total - sum(stages.values()):.1f} (at most 25 s wanted)"),
    ]  # fmt: skip


def materialize_day(home: str, visitors: int) -> tuple[int, dict[str, int], float, dict[str, float], dict[str, float]]:
    """Lines, partitions by asset, seconds in all, seconds by stage, and seconds of the data work by asset."""
    os.environ |= {"FOOTFALL_HOME": home, "FOOTFALL_START": str(DAY - timedelta(days=2))}
    from ingestion.files import no_progress
    from ingestion.importer import import_events
    from ingestion.postgres import stop_postgres
    from ingestion.settings import from_environment
    from ingestion.simulation.traffic import simulate
    from ingestion.stores import open_stores
    from orchestration.cli import prepare_dagster

    settings = from_environment()
    sample = Path(home) / "sample"
    lines = simulate(sample, first_date=DAY, days=1, visitors=visitors).lines
    try:
        with open_stores(settings) as stores:
            for site in json.loads((sample / "sites.json").read_text()):
                stores.ledger.add_site(site["site"], site["timezone"])
            import_events(
                sample / "events.ndjson", settings, stores.ledger, stores.lake, datetime.now(UTC), no_progress
            )
            began = time.perf_counter()
            prepare_dagster(stores)
            from orchestration.materialize import materialize

            stages = Stages()
            first = datetime.combine(DAY, datetime.min.time(), UTC)
            with data_work() as work:
                counts = materialize(stores, first, first + timedelta(days=1), datetime.now(UTC), stages.show)
            total = time.perf_counter() - began
    finally:
        stop_postgres(settings.home)
    return lines, counts, total, stages.seconds(), work


@contextmanager
def data_work() -> Iterator[dict[str, float]]:
    """Seconds that the assets' generators take while they run inside of Dagster, by asset."""
    import assets.raw_events

    seconds: dict[str, float] = {}
    generators = [(import_module(f"assets.{asset}"), f"make_{asset}", asset) for asset in MADE]
    generators.append((assets.raw_events, "pull", "raw_events"))
    originals = [getattr(module, name) for module, name, _ in generators]
    for original, (module, name, asset) in zip(originals, generators, strict=True):
        setattr(module, name, _timed(original, asset, seconds))
    try:
        yield seconds
    finally:
        for original, (module, name, _) in zip(originals, generators, strict=True):
            setattr(module, name, original)


def _timed(make, asset: str, seconds: dict[str, float]):
    def timed(*arguments, **options):
        made = iter(make(*arguments, **options))
        while True:
            began = time.perf_counter()
            item = next(made, None)
            seconds[asset] = seconds.get(asset, 0.0) + time.perf_counter() - began
            if item is None:
                return
            yield item

    return timed


class Stages:
    """Takes the progress of `materialize` as the times at which its stages begin."""

    def __init__(self) -> None:
        self._times: list[tuple[str, float]] = []

    def show(self, done: int, total: int, asset: str) -> None:
        self._times.append((asset, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """From the first to the last report of each asset."""
        found: dict[str, float] = {}
        for asset in dict.fromkeys(asset for asset, _ in self._times):
            moments = [moment for name, moment in self._times if name == asset]
            found[asset] = max(moments) - min(moments)
        return found
