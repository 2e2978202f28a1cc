"""What every protocol makes of one line: an event for some sites, or a rejection with its reason."""

from dataclasses import dataclass

from ingestion.event import Event, Reason


@dataclass(frozen=True, slots=True)
class Line:
    """One line read. `instant` is None where the line has no readable time, `sites` is empty where it names none."""

    sites: tuple[str, ...]
    instant: int | None
    event: Event | None = None
    rejected: Reason | None = None
