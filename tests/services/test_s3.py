"""The lake on a real S3 server: what breaks off, what is refused, and a server that goes down."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import polars as pl
import pytest

from ingestion.lake import Lake, LakeFailed
from orchestration.services import Service

MB = 1_000_000


@pytest.fixture
def lake(s3: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    lake = Lake("s3://footfall/services")
    yield lake
    lake.delete([name for name, _ in lake.names()])


WRITE = """
import sys
from ingestion.lake import Lake
lake = Lake(sys.argv[1])
lake.put("small", b"x", 1)
print("ready", flush=True)
while True:
    lake.put("raw/large", b"x" * 300_000_000, 1)
"""


def test_an_upload_that_breaks_off_leaves_nothing_that_a_reader_sees(lake: Lake, s3: Service) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITE, lake.url], stdout=subprocess.PIPE, env=os.environ.copy())
    assert writer.stdout and writer.stdout.readline() == b"ready\n"
    before = space(s3)
    while space(s3) < before + 20 * MB:
        assert writer.poll() is None
        time.sleep(0.005)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert [name for name, _ in lake.names()] == ["small"]
    assert lake.find("raw/large") is None


def space(s3: Service) -> int:
    """Bytes that the server has on disk."""
    sizes = subprocess.run(["du", "-sb", s3.data], capture_output=True, text=True).stdout  # files vanish meanwhile
    return int(sizes.split()[0])


def test_an_object_of_several_parts_is_whole(lake: Lake) -> None:
    data = os.urandom(30 * MB)
    item = lake.put("raw/large", data, 1)
    assert lake.get_listed(item) == data


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("AWS_ACCESS_KEY_ID", "nobody", "No user exists|InvalidAccessKeyId"),
        ("AWS_SECRET_ACCESS_KEY", "a-secret", "SignatureDoesNotMatch"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "Connection refused"),
        ("bucket", "s3://nobodys-bucket/lake", "NoSuchBucket"),
    ],
)
def test_what_is_wrong_is_told_with_the_setting_and_the_server_and_without_secrets(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    if variable != "bucket":
        monkeypatch.setenv(variable, value)
    wrong = Lake(value if variable == "bucket" else lake.url)
    where = f"FOOTFALL_LAKE, at {os.environ['AWS_ENDPOINT_URL']}"
    for use in (
        lambda: wrong.put("a", b"x", 1),
        lambda: wrong.find("a"),
        lambda: list(wrong.names()),
        lambda: wrong.read_parquet(["a.parquet"]),
    ):  # each tries again for some seconds what may pass
        with pytest.raises(LakeFailed, match=reason) as problem:
            use()
        said = str(problem.value)
        assert where in said and wrong.url in said and "\n" not in said
        assert os.environ["AWS_SECRET_ACCESS_KEY"] not in said


def test_a_server_that_is_killed_and_comes_back_is_waited_for(lake: Lake, s3: Service) -> None:
    frame = pl.DataFrame({"site": ["a"], "n": [1]})
    item = lake.put_parquet("a.parquet", frame)
    s3.kill()
    back = threading.Timer(0.5, s3.start)
    back.start()
    assert lake.read_parquet([item.name]).equals(frame)
    back.join()
    s3.kill()
    back = threading.Timer(0.5, s3.start)
    back.start()
    lake.put("b", b"x", 1)
    back.join()
    assert lake.find("b") == b"x"


def test_an_unknown_host_is_told(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nobody.invalid")
    with pytest.raises(LakeFailed, match=r"at http://nobody.invalid\): .*lookup"):
        Lake(lake.url).find("a")
