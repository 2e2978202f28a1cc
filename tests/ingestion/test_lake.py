"""The lake: objects whole or not at all, and messages that say which directory to look at."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import count
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.lake import Lake, LakeFailed, LakeObject, digest_of
from ingestion.stores import Stores

NUMBERS = count(1)


@pytest.fixture(params=["directory", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """An empty lake."""
    if request.param == "directory":
        return Lake((tmp_path / "the lake, 100%").as_uri())
    for name, value in request.getfixturevalue("s3").environment.items():
        monkeypatch.setenv(name, value)
    return Lake(f"s3://footfall/the lake {next(NUMBERS)}")


@pytest.fixture
def directory(tmp_path: Path) -> Lake:
    return Lake((tmp_path / "the lake, 100%").as_uri())


@given(st.binary(max_size=2_000))
def test_what_is_put_is_got(lake: Lake, data: bytes) -> None:
    item = lake.put("raw/hour=2026-11-22T13/a.zst", data, rows=3)
    assert item == LakeObject("raw/hour=2026-11-22T13/a.zst", 3, len(data), blake2b(data, digest_size=16).hexdigest())
    assert lake.get(item.name) == data


def test_an_object_is_a_file_of_the_directory(directory: Lake, tmp_path: Path) -> None:
    directory.put("raw/hour=2026-11-22T13/a.zst", b"data", 1)
    assert (tmp_path / "the lake, 100%/raw/hour=2026-11-22T13/a.zst").read_bytes() == b"data"


def test_a_frame_is_read_as_it_was_put(lake: Lake) -> None:
    frame = pl.DataFrame({"site": ["a", "ü"], "n": [1, None]})
    item = lake.put_parquet("events/date=2026-11-22/bucket=07/hour=2026-11-22T13-42.parquet", frame)
    assert (item.rows, item.bytes, item.digest) == (2, len(lake.get(item.name)), digest_of(lake.get(item.name)))
    assert lake.read_parquet([item.name]).equals(frame)
    assert lake.read_parquet([item.name, item.name]).height == 4


def test_a_name_is_no_pattern(lake: Lake) -> None:
    for name in ("a1.parquet", "a[1].parquet", "a*.parquet"):
        lake.put_parquet(name, pl.DataFrame({"name": [name]}))
    assert lake.read_parquet(["a*.parquet"])["name"].to_list() == ["a*.parquet"]
    assert lake.read_parquet(["a[1].parquet"])["name"].to_list() == ["a[1].parquet"]


def test_names(lake: Lake) -> None:
    assert list(lake.names()) == []
    wanted = {f"raw/hour=2026-11-22T{n:02}/{n}.zst" for n in range(24)} | {
        f"raw/hour=2026-11-23T00/{n}" for n in range(1_100)
    }
    for name in wanted:
        lake.put(name, b"", 0)
    found = dict(lake.names())
    assert found.keys() == wanted
    assert all(abs(datetime.now(UTC) - written) < timedelta(minutes=5) for written in found.values())


def test_delete(lake: Lake) -> None:
    for name in ("a", "b", "c"):
        lake.put(name, b"x", 1)
    lake.delete([])
    lake.delete(["a", "missing"])
    lake.delete(["missing", "c"])
    assert [name for name, _ in lake.names()] == ["b"]


def test_an_object_that_is_gone_is_named(lake: Lake) -> None:
    with pytest.raises(LakeFailed, match=r"could not read raw/gone from (file|s3)://.*: (it is not there|NoSuchKey.*)"):
        lake.get("raw/gone")


def test_two_lakes_do_not_mix(tmp_path: Path) -> None:
    one, other = Lake((tmp_path / "one").as_uri()), Lake((tmp_path / "other").as_uri())
    one.put("a", b"", 0)
    assert list(other.names()) == []


WRITE = """
import sys
from ingestion.lake import Lake, LakeFailed
try:
    lake = Lake(sys.argv[1])
    print("opened")
    lake.put("raw/a", b"x", 1)
    print("written")
except LakeFailed as problem:
    print(problem)
"""


def test_a_directory_without_write_permission_is_named(open_folder: Path, as_nobody: Callable[..., str]) -> None:
    directory = open_folder / "lake"
    directory.mkdir(mode=0o755)
    directory.chmod(0o555)
    said = as_nobody(WRITE, directory.as_uri())
    assert said == (
        f"opened\ncould not write raw/a to file://{directory}: "
        "permission denied (check the owner and the mode of the directory)\n"
    )
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(open_folder: Path, as_nobody: Callable[..., str]) -> None:
    open_folder.chmod(0o555)
    said = as_nobody(WRITE, (open_folder / "lake").as_uri())
    assert said.startswith(f"the lake's directory {open_folder}/lake cannot be used: permission denied")
    open_folder.chmod(0o755)
    (open_folder / "file").write_text("")
    assert f"the lake's directory {open_folder}/file cannot be used" in as_nobody(
        WRITE, (open_folder / "file").as_uri()
    )


def test_a_file_in_the_way_is_named(directory: Lake, tmp_path: Path) -> None:
    (tmp_path / "the lake, 100%/raw").write_text("in the way")
    with pytest.raises(LakeFailed, match=r"could not write raw/a to file:///.*/the%20lake"):
        directory.put("raw/a", b"x", 1)


def test_an_unlisted_object_is_invisible(stores: Stores) -> None:
    stores.lake.put("raw/hour=2026-11-22T13/orphan", b"x", 1)
    stores.lake.put_parquet("events/date=2026-11-22/bucket=00/hour=2026-11-22T13-1.parquet", pl.DataFrame({"a": [1]}))
    ledger = stores.ledger
    assert (ledger.listed_objects(), ledger.raw_objects("2026-11-22T13")) == (set(), [])
    assert ledger.objects("events", [datetime(2026, 11, 22).date()]) == []
    assert ledger.state().raw == {}


def test_find(lake: Lake) -> None:
    lake.put("a", b"data", 1)
    assert (lake.find("a"), lake.find("b")) == (b"data", None)


FIND = """
import sys
from ingestion.lake import Lake, LakeFailed
try:
    Lake(sys.argv[1]).find("a")
except LakeFailed as problem:
    print(problem)
"""


def test_an_object_that_may_not_be_read_is_not_taken_for_missing(
    open_folder: Path, as_nobody: Callable[..., str]
) -> None:
    Lake(open_folder.as_uri()).put("a", b"x", 1)
    (open_folder / "a").chmod(0)
    assert as_nobody(FIND, open_folder.as_uri()) == (
        f"could not read a from file://{open_folder}: permission denied (check the owner and the mode of the directory)\n"
    )
