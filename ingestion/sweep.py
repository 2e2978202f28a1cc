"""Removing what nobody can see: lake objects that the ledger does not list, left by runs that were killed or superseded."""

from datetime import datetime, timedelta

from ingestion.lake import Lake
from ingestion.ledger import Ledger

KEPT = timedelta(hours=24)
"""Readers that began before a partition was replaced may still read its old objects."""


def sweep_unlisted(ledger: Ledger, lake: Lake, now: datetime) -> int:
    """Deletes unlisted objects that were written more than 24 hours before `now`. Returns how many.

    The lake is listed before the ledger is read, so what is listed meanwhile is never taken for unlisted.
    """
    old = [name for name, written in lake.names() if now - written > KEPT]
    listed = ledger.listed_objects() if old else set()
    unlisted = [name for name in old if name not in listed]
    if unlisted:
        lake.delete(unlisted)
    return len(unlisted)
