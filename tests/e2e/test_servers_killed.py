"""Kafka, Cassandra, S3 and PostgreSQL, killed one after the other in the middle of runs, while events come."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from ingestion.settings import from_environment
from ingestion.stores import open_stores
from orchestration.live import running_collector
from orchestration.services import Service
from tests.e2e.conftest import Home
from tests.e2e.senders import SITES, Answers, now_ms, post, reports, sendings
from tests.e2e.test_collected import stored_ids, wrong

FOOTFALL = str(Path(sys.executable).parent / "footfall")
TIMES, EVENTS = 10, 4_000
DOWN_SECONDS = 2.0


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest) -> Callable[[], dict[str, str]]:
    """The servers themselves: this home is alone on them."""
    servers = request.getfixturevalue("full_stack")
    return lambda: {**servers, "FOOTFALL_EVENT_LOG_PARTITIONS": "3"}


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_after_kill_9_of_servers_in_the_middle_of_runs_the_report_is_the_same(
    home, kafka: Service, cassandra: Service, s3: Service, postgresql: Service
) -> None:
    rng, now = Random(11), datetime.now(UTC)
    first, last = str((now - timedelta(days=4)).date()), str((now + timedelta(days=1)).date())
    every, answers = sendings(Random(10), now_ms(), EVENTS), list[Answers]()
    servers = (kafka, cassandra, s3, postgresql)
    with home(first) as it:
        for site, zone in SITES.items():
            it.stores.ledger.add_site(site, zone)
        it.stores.ledger.__exit__(None, None, None)  # its connection would not outlive its server
        with running_collector(it.path) as port:
            materialize().wait()
            for number in range(TIMES):
                part = every[number::TIMES]
                sender = threading.Thread(target=lambda part=part: answers.append(post(port, part)))
                sender.start()
                run = materialize()
                time.sleep(rng.uniform(2, 16))
                server = servers[number % len(servers)]
                server.kill()
                time.sleep(DOWN_SECONDS)
                server.start()
                sender.join()
                run.wait()
            settle()
        assert all(answer.mistakes == [] for answer in answers)
        with open_stores(from_environment()) as stores:
            again = Home(it.path, stores)
            assert wrong_but_for_copies(again, every, first, last) == []
            stored, acknowledged = stored_ids(again), [one for answer in answers for one in answer.acknowledged]
            assert len(stored) == len(set(stored))
            assert set(stored) == set(acknowledged)


def materialize() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [FOOTFALL, "materialize"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ.copy()
    )


def settle() -> None:
    """What is left to do is done, and then there is nothing more."""
    for _ in range(3):
        done = subprocess.run([FOOTFALL, "materialize"], capture_output=True, text=True, env=os.environ.copy())
        assert done.returncode == 0, done.stderr
        if "nothing to materialize" in done.stdout:
            return
    raise AssertionError(f"it does not come to an end: {done.stdout}")


def wrong_but_for_copies(it: Home, every, first: str, last: str) -> list[str]:
    """Where the reports are not the truth. What was sent again because no answer came is received once more, as a copy."""
    for site, truth in reports(every, first, last).items():
        told = it.report(site, first, last)["pipeline"]
        copies = told["duplicates"] - truth["pipeline"]["duplicates"]
        assert copies >= 0
        assert told["received"] - copies == truth["pipeline"]["received"]
        assert told["accepted"] == told["counted"] + told["bots"] + told["duplicates"]
        assert (told["counted"], told["bots"]) == (truth["pipeline"]["counted"], truth["pipeline"]["bots"])
    return [line for line in wrong(it, every, first, last, datetime.now(UTC)) if "pipeline" not in line]
