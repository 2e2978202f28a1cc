"""kill -9 of each process in the middle of live traffic, and of all of them: nothing that was acknowledged is lost, nor counted twice."""

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from ingestion.settings import from_environment
from ingestion.stores import open_stores
from serving.report import NothingPublished
from tests.e2e.compare import differences
from tests.e2e.conftest import Home
from tests.e2e.senders import SITES, Answers, now_ms, post, reports, sendings
from tests.e2e.test_collected import stored_ids, without_hours_to_come
from tests.orchestration.test_up import Up, until

EVENTS = 4_000
KILLED = (("collector",), ("daemon",), ("run",), ("postgres", "-D"), ("api", "grpc"))


def kill(up: Up, words: tuple[str, ...]) -> None:
    if words == ("run",):
        os.kill(until(lambda: run_process(up), 150), signal.SIGKILL)
    else:
        up.kill(*words)


def run_process(up: Up) -> int | None:
    """The process of a run of the sweep, as soon as there is one."""
    runs = up.ask("{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { id } } } }")["runsOrError"][
        "results"
    ]
    return next((process for run in runs if (process := up.process_of(run["id"]))), None)


def balanced(pipeline: dict[str, Any]) -> bool:
    """A client that got no answer sent again what may have been there: so there may be more copies than in the truth."""
    accepted = pipeline["counted"] + pipeline["bots"] + pipeline["duplicates"]
    return pipeline["received"] == pipeline["accepted"] == accepted


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_kill_9_of_everything_the_report_is_the_same(tmp_path):
    now = datetime.now(UTC)
    first, last = str((now - timedelta(days=4)).date()), str((now + timedelta(days=1)).date())
    up = Up.at(
        tmp_path / "home",
        FOOTFALL_START=first,
        FOOTFALL_ANY_SITE="no",
        FOOTFALL_HOURLY_MINUTES="1",
        FOOTFALL_DAILY_MINUTES="1",
    )
    for site, zone in SITES.items():
        assert up.run("sites", "add", site, "--timezone", zone)[0] == 0
    every = sendings(Random(9), now_ms(), EVENTS)
    up.start()
    up.wait_until_ready()
    answers: list[Answers] = []
    port = int(up.environment["FOOTFALL_COLLECTOR"].rpartition(":")[2])
    clients = threading.Thread(target=lambda: answers.append(post(port, every, pause=1)))
    clients.start()
    try:
        for words in KILLED:
            time.sleep(5)
            kill(up, words)
        time.sleep(5)
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait()
        up.start()
        up.wait_until_ready()
        clients.join()
        assert answers[0].mistakes == []
        assert answers[0].failures > 0
        with open_stores(from_environment(up.environment)) as stores:
            it = Home(up.home, stores)
            wanted = reports(every, first, last)

            def differs() -> list[str]:
                found = []
                for site, truth in wanted.items():
                    try:
                        report = it.report(site, first, last)
                    except NothingPublished as not_yet:
                        return [str(not_yet)]
                    truth = without_hours_to_come(truth, datetime.now(UTC))
                    assert balanced(report["pipeline"])
                    found += differences({**truth, "pipeline": None}, {**report, "pipeline": None}, site)
                    found += differences(truth["pipeline"]["counted"], report["pipeline"]["counted"], "counted")
                return found

            until(lambda: not differs(), 300)
            stored = stored_ids(it)
            assert len(stored) == len(set(stored))
            assert set(stored) == set(answers[0].acknowledged)
    finally:
        clients.join(60)
        up.run("down")
    until(lambda: not up.living(), 30)  # `down` does not wait for the last breath of `up`
