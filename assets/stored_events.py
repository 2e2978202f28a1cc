"""Events of an arrival hour to the event store, with what the hour says of each visitor."""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg
import polars as pl

from assets.partitions import EVERY_HOURS_RUN, GRAIN_ARRIVAL, HOURS
from assets.replace import Made, Refusal, Work, replace_partitions
from assets.transforms.visitors import COLUMNS, visitor_hours
from assets.transforms.visitors import stored_events as to_store
from ingestion.event_store import open_event_store
from ingestion.lake_events import by_bucket, read_arrivals
from ingestion.ledger import Superseded
from ingestion.site_time import hour_of
from ingestion.stores import Stores


@dg.asset(
    deps=["events"],
    partitions_def=HOURS,
    backfill_policy=EVERY_HOURS_RUN,
    code_version="1",
    group_name="collect",
    owners=["team:footfall"],
    tags=GRAIN_ARRIVAL,
    kinds={"polars", "postgres"},
)
def stored_events(context: dg.AssetExecutionContext, stores: dg.ResourceParam[Stores]) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """Each visitor's events, bots' too, and their metadata: first and last seen, pageviews, country, device, browser, language,
    source. `footfall visitor SITE VISITOR` shows both."""
    return replace_partitions(context, stores, make_stored_events)


def make_stored_events(work: Work, hours: Sequence[str]) -> Iterator[Made | Refusal]:
    """Each arrival hour's events, without the copies of events that came before."""
    with open_event_store(work.stores.settings, work.stores.postgres_url) as store:
        for hour in hours:
            dates = {date.fromisoformat(touch.date) for touch in work.state.touched if touch.arrival_hour == hour}
            try:
                stored = store.replace_hour(hour_of(hour), work.version, _events_of(work.stores, hour, dates))
            except Superseded as newer:
                yield Refusal(hour, str(newer), superseded=True)
            else:
                yield Made(hour, stored=stored)


def _events_of(stores: Stores, hour: str, dates: set[date]) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The hour's events, a bucket at a time, as the store takes them."""
    for (objects,) in by_bucket([item for item in stores.ledger.objects("events", dates) if item.partition <= hour]):
        events = read_arrivals(stores.lake, objects, hour, COLUMNS)
        if events.height:
            yield to_store(events), visitor_hours(events)
