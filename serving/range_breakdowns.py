"""Breakdowns of one site over several dates: from the lake, with the functions of the daily assets, so that visitors are
counted distinct over the whole range."""

from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from assets.transforms.rollup import actions, breakdowns, visit_days
from assets.transforms.sessionize import NEIGHBOUR_COLUMNS, VISITS, around, label
from ingestion.lake_events import read_events
from ingestion.ledger import PartitionObject
from ingestion.stores import Stores

DAY = timedelta(days=1)


def range_breakdowns(stores: Stores, site: str, first: date, last: date) -> pl.DataFrame:
    """Rows (site, dimension, value, *METRICS) of the dates from `first` to `last`, both included."""
    visits = visit_days(_visits(stores, site, _dates(first - DAY, last)))
    listed = stores.ledger.objects("events", _dates(first - DAY, last + DAY))
    taken = [_actions(stores, site, listed, day, first, last) for day in _dates(first, last)]
    return breakdowns(visits.filter(pl.col("date").is_between(first, last)), pl.concat(taken))


def _dates(first: date, last: date) -> list[date]:
    return [first + DAY * step for step in range((last - first).days + 1)]


def _visits(stores: Stores, site: str, dates: Sequence[date]) -> pl.DataFrame:
    names = [item.object.name for item in stores.ledger.objects("visits", dates)]
    if not names:
        return pl.DataFrame(schema=VISITS)
    return stores.lake.read_parquet(names, where=pl.col("site") == site)


def _actions(
    stores: Stores, site: str, listed: Sequence[PartitionObject], day: date, first: date, last: date
) -> pl.DataFrame:
    """What the visits around one date did."""
    today = [item for item in listed if item.day == day]
    neighbours = [item for item in listed if item.day in (day - DAY, day + DAY)]
    here, near = (
        read_events(stores.lake, objects, NEIGHBOUR_COLUMNS, site=site).filter(~pl.col("bot"))
        for objects in (today, neighbours)
    )
    return actions(label(around(here, near), day), day, first, last)
