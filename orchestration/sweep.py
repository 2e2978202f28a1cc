"""What there is to do: the one plan for new hours, late events, missed ticks, failed runs and restarts.

It is computed from the ledger and the event log alone, so that whatever was missed is found by the next look. A plan may name
more partitions than need to be made: its runs say `ONLY_STALE`, and each step looks again at what is stale when its turn comes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from assets.lineage import averaged, readers, stale
from assets.partitions import chunks
from assets.replace import ONLY_STALE
from ingestion.event import OLDEST_MS
from ingestion.ledger import State
from ingestion.settings import Settings
from ingestion.site_time import hour_key

AHEAD = timedelta(days=1)
"""How far dates of sites are ahead of UTC's: UTC+14 is early."""
BEHIND = timedelta(hours=12 + 24)
"""How far they are behind: UTC-12 is late, and a date's visits depend on the date after it."""
LATEST = timedelta(milliseconds=OLDEST_MS)
"""How late an event may be."""


@dataclass(frozen=True)
class Range:
    """Partitions of a job, both included."""

    job: str
    first: str
    last: str

    urgent: bool = False
    """It holds what came lately, which goes before history and backfills."""

    @property
    def tags(self) -> dict[str, str]:
        """What a run of these partitions is launched with."""
        return {
            "dagster/asset_partition_range_start": self.first,
            "dagster/asset_partition_range_end": self.last,
            "dagster/priority": "1" if self.urgent else "0",
            ONLY_STALE: "yes",
        }


def due_hours(state: State, unread: Iterable[str], now: datetime) -> set[str]:
    """Hours of which an hourly asset is missing or stale, or will be when the event log is read."""
    arrivals = {*unread, *stale("events", state, now)}
    due, changed = set(arrivals), {("events", hour) for hour in arrivals}
    for asset in ("stored_events", "traffic", "moving_averages"):
        partitions = {*stale(asset, state, now), *readers(asset, changed, state, now)}
        due |= partitions
        changed |= {(asset, hour) for hour in partitions}
    return due.union(averaged(due, now))


def due_dates(state: State, now: datetime) -> set[str]:
    """Dates of which a daily asset or a report table is missing or stale, or will be when the assets before it are made. If it is
    one for which events still come, it is all of those: what comes until the run begins is then made by it, too."""
    due, changed = set[str](), set[tuple[str, str]]()
    for asset in ("visits", "breakdowns", "reports"):
        partitions = {*stale(asset, state, now), *readers(asset, changed, state, now)}
        due |= partitions
        changed |= {(asset, day) for day in partitions}
    lately = late_dates(now)
    return due.union(lately) if due.intersection(lately) else due


def late_dates(now: datetime) -> list[str]:
    """The dates for which events still come, in order."""
    first, last = (now - LATEST - BEHIND).date(), (now + AHEAD).date()
    return [str(first + timedelta(days=number)) for number in range((last - first).days + 1)]


def ranges(job: str, due: Iterable[str], busy: Sequence[Range], settings: Settings, now: datetime) -> Iterator[Range]:
    """Contiguous ranges of what is due: what came lately first, then the oldest. Each is no longer than the settings' chunk, but for
    the dates for which events still come, which are made together. Without what a run in flight has among its partitions, and
    without partitions that Dagster does not have (yet)."""
    now = now.astimezone(UTC)
    hourly = job == "hourly"
    key: Callable[[datetime], str] = hour_key if hourly else _date_key
    first = key(settings.start if hourly else settings.start - AHEAD)
    last = key(now if hourly else now + AHEAD)
    wanted = sorted(
        partition
        for partition in due
        if first <= partition <= last
        and not any(other.job == job and other.first <= partition <= other.last for other in busy)
    )
    lately = hour_key(now - LATEST) if hourly else late_dates(now)[0]
    recent = [partition for partition in wanted if partition >= lately]
    asset, most = ("events", settings.chunk_hours) if hourly else ("visits", settings.chunk_dates)
    for begin, end in chunks(asset, recent, settings.chunk_hours, len(recent)):
        yield Range(job, begin, end, urgent=True)
    for begin, end in chunks(asset, wanted[: len(wanted) - len(recent)], most, most):
        yield Range(job, begin, end)


def _date_key(moment: datetime) -> str:
    return str(moment.date())
