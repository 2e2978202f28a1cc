"""Materializing in this process, upstream first, each stage as Dagster runs of contiguous partitions. What is unread of the event
log comes first.

Without bounds: all that is missing or stale by its inputs. With bounds: those arrival hours, then every hour and date that
reads them, whether or not it is stale, and whatever of it has become stale.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime

import dagster as dg

from assets.lineage import ASSETS, Key, affected, reads, stale
from assets.partitions import chunks
from assets.raw_events import unread_hours
from assets.replace import ONLY_STALE
from ingestion.ledger import State
from ingestion.site_time import HOUR, hour_key
from ingestion.stores import Stores
from orchestration.definitions import ASSETS as DEFINED
from orchestration.definitions import RESOURCES
from orchestration.resources import hold_connections

Progress = Callable[[int, int, str], None]
"""Is told how many partitions of how many are done, and of which asset."""


BRIDGED = 24
"""Partitions. A gap of fewer does not begin another run."""


class MaterializeFailed(Exception):
    """A run failed. The message names the asset, the partitions and the cause; what was published before stays."""


def materialize(
    stores: Stores, first: datetime | None, end: datetime | None, now: datetime, progress: Progress
) -> dict[str, int]:
    """Makes partitions, and returns how many of each asset. `first` and `end` bound the arrival hours (`end` excluded). Waits
    for others that do the same: of two that make one partition, the older would fail."""
    counts: dict[str, int] = {}
    with stores.ledger.excluding("materialize"), dg.DagsterInstance.get() as instance:
        hold_connections(instance)
        unread = unread_hours(stores, end - HOUR if end else now, now)
        sweep = {} if first or end else {ONLY_STALE: "yes"}
        _run(instance, stores, "raw_events", unread, progress, sweep)
        counts["raw_events"] = len(unread)
        changed: set[Key] = set()
        before = stores.ledger.state()
        for asset in ASSETS:
            state = stores.ledger.state()
            if first is None and end is None:
                partitions = stale(asset, state, now)
            elif asset == "events":
                partitions = _arrivals(state, first, end)
            else:
                partitions = affected(asset, changed, reads(asset, before, now), reads(asset, state, now))
            _run(instance, stores, asset, partitions, progress, sweep)
            changed.update((asset, partition) for partition in partitions)
            counts[asset] = len(partitions)
    return counts


def _arrivals(state: State, first: datetime | None, end: datetime | None) -> list[str]:
    """The arrival hours between the bounds that have raw objects, or had."""
    least, beyond = hour_key(first) if first else "", hour_key(end) if end else "~"
    known = set(state.raw) | {partition for asset, partition in state.published if asset == "events"}
    return sorted(hour for hour in known if least <= hour < beyond)


def _run(
    instance: dg.DagsterInstance,
    stores: Stores,
    asset: str,
    partitions: Sequence[str],
    progress: Progress,
    tags: Mapping[str, str],
) -> None:
    done = 0
    for first, last in chunks(asset, partitions, stores.settings.chunk_hours, stores.settings.chunk_dates, BRIDGED):
        progress(done, len(partitions), asset)
        _run_chunk(instance, stores, asset, first, last, tags)
        done += sum(first <= partition <= last for partition in partitions)
    if partitions:
        progress(done, len(partitions), asset)


def _run_chunk(
    instance: dg.DagsterInstance, stores: Stores, asset: str, first: str, last: str, tags: Mapping[str, str]
) -> None:
    selected = [definition for definition in DEFINED if definition.node_def.name == asset]
    with (stores.settings.home / "materialize.log").open("a") as log, redirect_stdout(log):
        result = dg.materialize(
            DEFINED,
            selection=dg.AssetSelection.assets(*selected),
            instance=instance,
            resources=RESOURCES,
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last, **tags},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    if not result.success:
        raise MaterializeFailed(f"{asset} {first} to {last}: {_cause(result)}")


def _cause(result: dg.ExecuteInProcessResult) -> str:
    """What the failed step raised, without Dagster's wrapping."""
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None) if event.is_failure else None
        if error:
            while error.cause and (error.cls_name or "").startswith(("Dagster", "RetryRequested")):
                error = error.cause
            return str(error.message).strip().removeprefix(f"{error.cls_name}: ")
    return "the run failed; see its log in the Dagster UI"
