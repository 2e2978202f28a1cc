"""Removing what nobody can see: lake objects that the ledger does not list, left by runs that were killed or superseded."""

from datetime import datetime, timedelta

from ingestion.lake import Lake
from ingestion.ledger import Ledger

KEPT = timedelta(hours=24)
"""Readers that began before a partition was replaced may still read its old objects."""


PREFIXES = ("raw/", "events/", "visits/", "rejected/")
MARK = "footfall-ledger"
"""The object that says whose lake this is."""


def claim(ledger: Ledger, lake: Lake) -> None:
    """Marks an empty lake as this ledger's own. A lake that holds something is never claimed."""
    if lake.find(MARK) is None and next(lake.names(), None) is None:
        lake.put(MARK, _identity(ledger), rows=0)


def _identity(ledger: Ledger) -> bytes:
    return ledger.secret("identity").hex().encode()


def sweep_unlisted(ledger: Ledger, lake: Lake, now: datetime) -> int:
    """Deletes unlisted objects that were written more than 24 hours before `now`. Returns how many.

    Only in a lake that is this ledger's own (see `claim`): to any other ledger all of it would look unlisted. The lake is
    listed before the ledger is read, so what is listed meanwhile is never taken for unlisted.
    """
    if lake.find(MARK) != _identity(ledger):
        return 0
    old = [name for name, written in lake.names() if now - written > KEPT and name.startswith(PREFIXES)]
    listed = ledger.listed_objects() if old else set()
    unlisted = [name for name in old if name not in listed]
    if unlisted:
        lake.delete(unlisted)
    return len(unlisted)
