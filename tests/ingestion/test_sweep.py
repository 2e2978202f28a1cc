"""The sweep: what nobody can see goes after a day, what is listed stays, and other ledgers' lakes are left alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ingestion.lake import Lake
from ingestion.ledger import Ledger
from ingestion.stores import Stores
from ingestion.sweep import MARK, claim, sweep_unlisted

HOUR = "2026-11-22T13"
RAW = f"raw/hour={HOUR}"


def now_and(**later: int) -> datetime:
    return datetime.now(UTC) + timedelta(**later)


def names(lake: Lake) -> set[str]:
    return {name for name, _ in lake.names()}


def written(stores: Stores) -> set[str]:
    """A listed object, and some that no ledger lists."""
    listed = stores.lake.put(f"{RAW}/listed", b"x", 1)
    stores.ledger.list_import("x", "events", None, {}, {HOUR: [listed]})
    for name in (f"{RAW}/orphan", "events/orphan", "visits/orphan", "rejected/orphan", "notes/not ours", "README"):
        stores.lake.put(name, b"x", 1)
    return names(stores.lake)


def test_what_is_unlisted_goes_after_a_day(stores: Stores) -> None:
    before = written(stores)
    assert sweep_unlisted(stores.ledger, stores.lake, now_and(hours=23)) == 0
    assert names(stores.lake) == before
    assert sweep_unlisted(stores.ledger, stores.lake, now_and(hours=25)) == 4
    assert names(stores.lake) == {f"{RAW}/listed", "notes/not ours", "README", MARK}
    assert sweep_unlisted(stores.ledger, stores.lake, now_and(hours=25)) == 0


def test_another_ledgers_lake_is_left_alone(stores: Stores, new_database: Callable[..., str], migrated: str) -> None:
    before = written(stores)
    with Ledger(new_database(migrated)) as other:
        claim(other, stores.lake)
        assert sweep_unlisted(other, stores.lake, now_and(days=365)) == 0
    assert names(stores.lake) == before


def test_a_lake_that_holds_something_is_never_claimed(stores: Stores, tmp_path: Path) -> None:
    lake = Lake((tmp_path / "old").as_uri())
    lake.put(f"{RAW}/a", b"x", 1)
    claim(stores.ledger, lake)
    assert sweep_unlisted(stores.ledger, lake, now_and(days=365)) == 0
    assert names(lake) == {f"{RAW}/a"}


def test_a_claim_is_kept(stores: Stores) -> None:
    mark = stores.lake.get(MARK)
    claim(stores.ledger, stores.lake)
    assert stores.lake.get(MARK) == mark
