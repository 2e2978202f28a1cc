"""`footfall up` as an operator meets it: real processes, and what becomes of them and of their runs when somebody ends them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestration.run_launcher import _is_alive, _seconds
from tests.services.servers import free_port, postgres_server

FOOTFALL = str(Path(sys.executable).parent / "footfall")
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
TODAY = datetime.now(UTC).date()
YESTERDAY, TOMORROW = (str(TODAY + timedelta(days=days)) for days in (-1, 1))

T = TypeVar("T")


def this_hour() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H}"


def until(found: Callable[[], T | None], seconds: float = 90) -> T:
    """What `found` gives once it gives something. What does not answer meanwhile is asked again."""
    ends = time.monotonic() + seconds
    while True:
        try:
            if thing := found():
                return thing
            problem = None
        except OSError as refused:
            problem = refused
        assert time.monotonic() < ends, f"not within {seconds} s: {problem or found}"
        time.sleep(0.2)


@dataclass
class Up:
    """A home, and `footfall up` in it."""

    home: Path
    environment: dict[str, str]
    process: "subprocess.Popen[bytes] | None" = None

    @classmethod
    def at(cls, home: Path, **more: str) -> "Up":
        home.mkdir(parents=True, exist_ok=True)
        others = {name: value for name, value in os.environ.items() if not name.startswith(("FOOTFALL_", "DAGSTER_"))}
        settings = {
            "FOOTFALL_HOME": str(home),
            "FOOTFALL_START": str(TODAY - timedelta(days=10)),
            "FOOTFALL_ANY_SITE": "yes",
            "FOOTFALL_COLLECTOR": f"127.0.0.1:{free_port()}",
            "FOOTFALL_DAGSTER": f"127.0.0.1:{free_port()}",
        }
        return cls(home, others | settings | more)

    @property
    def said(self) -> str:
        return (self.home / "said").read_text()

    def start(self, **how: Any) -> None:
        """As from a terminal: in a process group of its own."""
        with (self.home / "said").open("wb") as said:
            self.process = subprocess.Popen(
                [FOOTFALL, "up"], env=self.environment, stdout=said, stderr=said, start_new_session=True, **how
            )

    def wait_until_ready(self) -> None:
        until(lambda: "Ctrl-C" in self.said or self.exit_code is not None, 150)
        assert self.exit_code is None, self.said

    @property
    def exit_code(self) -> int | None:
        assert self.process
        return self.process.poll()

    def run(self, *arguments: str) -> tuple[int, str]:
        """Another command in this home."""
        done = subprocess.run([FOOTFALL, *arguments], env=self.environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def living(self, *words: str) -> dict[int, str]:
        """Number and command of the processes of this home whose command has all of some words, PostgreSQL's among them."""
        mark = f"\0FOOTFALL_HOME={self.home}\0".encode()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ours = mark in b"\0" + (folder / "environ").read_bytes() or str(self.home) in command
            except OSError:
                continue
            if command and ours and all(word in command for word in words):
                found[int(folder.name)] = command
        return found

    def kill(self, *words: str) -> int:
        """Kills the first of such processes. Returns its number."""
        first = min(self.living(*words))
        os.kill(first, signal.SIGKILL)
        return first

    def post(self, path: str) -> int:
        """Sends a page view. Returns the status."""
        event = {"domain": "shop.example", "name": "pageview", "url": f"https://shop.example{path}"}
        return self._answer("FOOTFALL_COLLECTOR", "/api/event", event, {"User-Agent": FIREFOX})[0]

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """What the UI's server answers to a GraphQL query."""
        body = {"query": query, "variables": variables}
        _, content = self._answer("FOOTFALL_DAGSTER", "/graphql", body, {"Content-Type": "application/json"})
        answer = json.loads(content)
        if not answer.get("data"):
            raise OSError(str(answer["errors"]))
        return answer["data"]

    def _answer(self, server: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://{self.environment[server]}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()

    def launch(self, job: str, first: str, last: str) -> str:
        """Queues a run of a job's partitions. Returns its id."""
        tags = [
            {"key": "dagster/asset_partition_range_start", "value": first},
            {"key": "dagster/asset_partition_range_end", "value": last},
        ]
        selector = {"repositoryLocationName": "footfall", "repositoryName": "__repository__", "jobName": job}
        launched = self.ask(
            """mutation ($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
                launchRun(executionParams: {selector: $selector, mode: "default", runConfigData: {}, executionMetadata: {tags: $tags}}) {
                    __typename ... on LaunchRunSuccess { run { id } } ... on PythonError { message } } }""",
            selector=selector,
            tags=tags,
        )["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["id"]

    def launch_daily(self) -> str:
        """A run of a few dates, which takes 5 seconds at least."""
        return self.launch("daily", YESTERDAY, TOMORROW)

    def status(self, run: str) -> str:
        return self.ask("query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)["runOrError"][
            "status"
        ]

    def retry_of(self, run: str) -> str | None:
        """The id of the run that Dagster launched in place of one that failed."""
        runs = self.ask("{ runsOrError { ... on Runs { results { id parentRunId } } } }")["runsOrError"]["results"]
        return next((other["id"] for other in runs if other["parentRunId"] == run), None)

    def runs(self, status: str) -> list[str]:
        query = "query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs { results { id } } } }"
        return [run["id"] for run in self.ask(query, filter={"statuses": [status]})["runsOrError"]["results"]]

    def process_of(self, run: str) -> int | None:
        """The number of a run's process, once it has begun its first step."""
        events = self.ask(
            "query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { __typename ... on MessageEvent { message } } } } }",
            id=run,
        )["logsForRun"]["events"]
        if not any(event["__typename"] == "ExecutionStepStartEvent" for event in events):
            return None
        told = re.search(
            r"Started process for run \(pid: (\d+)\)", "\n".join(event.get("message", "") for event in events)
        )
        assert told
        return int(told[1])

    def succeeds(self, run: str) -> None:
        assert (
            until(lambda: (status := self.status(run)) in ("SUCCESS", "FAILURE", "CANCELED") and status, 120)
            == "SUCCESS"
        )

    def daemon_is_well(self) -> bool:
        """Whether each of its threads tells that it lives, and has done so since the last minute."""
        health = "{ instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } } }"
        daemons = self.ask(health)["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    def complaints(self) -> list[str]:
        """What is in the logs of all that runs, and should not be."""
        return [
            f"{log.name}: {line}"
            for log in sorted((self.home / "logs").iterdir())
            for line in log.read_text().splitlines()
            if COMPLAINT.search(line) and not FIRST_START.search(line)
        ]


COMPLAINT = re.compile(r"warn|error|exception|traceback|deprecat|fail|fatal|critical|refused|timed out", re.IGNORECASE)
FIRST_START = re.compile(r"No cursor for event type DagsterEventType.RUN_\w+, ignoring older events|ERROR=0|WARN=0")
"""What Dagster says when its storage is new; and how dbt counts."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = Up.at(tmp_path_factory.mktemp("up") / "a home")
    yield up
    up.run("down")
    assert up.living() == {}


@pytest.fixture
def it(shared: Up) -> Up:
    """A `footfall up` that is ready, in a home whose path has a space. Tests leave it running, or gone."""
    if shared.process is None or shared.exit_code is not None:
        shared.start()
        shared.wait_until_ready()
    return shared


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Up]:
    """A home in which nothing runs."""
    up = Up.at(tmp_path / "home")
    yield up
    up.run("down")
    assert up.living() == {}


def test_it_says_where_things_are_when_they_answer(it):
    collector, dagster = it.environment["FOOTFALL_COLLECTOR"], it.environment["FOOTFALL_DAGSTER"]
    assert f"http://{dagster}" in it.said and f"http://{collector}/api/event" in it.said
    assert str(it.home / "logs") in it.said
    assert it.post("/") == 202
    nodes = it.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
    assert {"raw_events", "events", "traffic", "visits", "report_site_days"} <= {
        node["assetKey"]["path"][-1] for node in nodes
    }
    assert until(it.daemon_is_well)


def test_a_second_one_says_what_runs_and_where_and_changes_nothing(it):
    before = it.living()
    code, said = it.run("up")
    assert code == 1
    assert "up already" in said and str(it.process.pid) in said and "footfall down" in said
    assert it.environment["FOOTFALL_DAGSTER"] in said and it.environment["FOOTFALL_COLLECTOR"] in said
    assert it.living() == before


def test_what_comes_is_reported_and_no_log_complains(it):
    before = this_hour()
    assert it.post("/tea") == 202
    it.succeeds(it.launch("hourly", before, this_hour()))
    it.succeeds(it.launch_daily())
    code, said = it.run("report", "shop.example")
    assert code == 0 and "/tea" in said
    assert it.complaints() == []


def test_a_run_whose_process_is_killed_is_tried_again(it):
    run = it.launch_daily()
    os.kill(until(lambda: it.process_of(run)), signal.SIGKILL)
    again = until(lambda: it.retry_of(run), 60)
    assert it.status(run) == "FAILURE"
    it.succeeds(again)


@pytest.mark.slow
def test_the_next_one_after_kill_9_ends_what_is_left_and_finishes_its_runs(it):
    """Given a run, one that waits for it, and a schedule that was stopped."""
    stop_schedule(it, "keep_house")
    running = it.launch_daily()
    process = until(lambda: it.process_of(running))
    waiting = it.launch_daily()
    os.kill(it.process.pid, signal.SIGKILL)
    it.process.wait()
    left = it.living().keys() - it.living("postgres").keys()
    it.start()
    it.wait_until_ready()
    assert not left & it.living().keys()
    assert process not in it.living()
    until(lambda: it.status(running) == "SUCCESS" or it.retry_of(running))  # it may end in the time that it is given
    it.succeeds(it.retry_of(running) or running)
    it.succeeds(waiting)
    assert schedules(it)["keep_house"]["status"] == "STOPPED"
    assert it.post("/") == 202


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "works"),
    [
        pytest.param(("footfall collector",), lambda it: it.post("/") == 202, id="collector"),
        pytest.param(("dagster-webserver",), lambda it: schedules(it), id="web server"),
        pytest.param(("dagster-daemon",), lambda it: it.daemon_is_well(), id="daemon"),
    ],
)
def test_what_is_killed_is_started_again(it, words, works):
    killed = it.kill(*words)
    until(lambda: [number for number in it.living(*words) if number != killed])
    assert until(lambda: works(it))
    assert f"exit code -{signal.SIGKILL.value}" in it.said
    it.succeeds(it.launch_daily())


@pytest.mark.slow
def test_the_runs_of_a_code_server_that_is_killed_are_tried_again(it):
    run = it.launch_daily()
    process = until(lambda: it.process_of(run))
    it.kill("api grpc")
    until(lambda: process not in it.living(), 10)
    again = until(lambda: it.retry_of(run))
    assert it.status(run) == "FAILURE"
    it.succeeds(again)


@pytest.mark.slow
def test_all_goes_on_after_postgresql_was_killed(it):
    """Given a run in flight, which may end in spite of it, or be tried again."""
    run = it.launch_daily()
    until(lambda: it.process_of(run))
    it.kill("postgres -D")
    until(lambda: it.status(run) == "SUCCESS" or it.retry_of(run), 240)
    it.succeeds(it.retry_of(run) or run)
    assert it.post("/after") == 202
    it.succeeds(
        until(lambda: it.launch("hourly", this_hour(), this_hour()))
    )  # each of the UI's old connections fails once
    assert until(it.daemon_is_well)


@pytest.mark.slow
def test_the_run_of_a_materialize_that_is_killed_is_not_waited_for(it):
    """The queue, of one run at a time, would never go on."""
    it.post("/materialized")
    materialize = subprocess.Popen([FOOTFALL, "materialize"], env=it.environment, stderr=subprocess.DEVNULL)
    run = until(lambda: it.runs("STARTED"), 60)[0]
    materialize.kill()
    materialize.wait()
    until(lambda: it.status(run) in ("FAILURE", "SUCCESS"))
    it.succeeds(it.launch_daily())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_comes_is_reported_by_the_schedules_and_no_log_complains(other):
    other.environment |= {"FOOTFALL_HOURLY_MINUTES": "1", "FOOTFALL_DAILY_MINUTES": "1"}
    other.start()
    other.wait_until_ready()
    assert other.post("/scheduled") == 202
    until(lambda: "/scheduled" in other.run("report", "shop.example")[1], 240)
    time.sleep(30)
    assert other.runs("FAILURE") == []
    assert other.complaints() == []


@pytest.mark.slow
def test_it_runs_on_a_postgresql_server(other):
    with postgres_server() as url:
        other.environment["FOOTFALL_POSTGRES"] = url
        other.start()
        other.wait_until_ready()
        before = this_hour()
        assert other.post("/served") == 202
        other.succeeds(other.launch("hourly", before, this_hour()))
        other.succeeds(other.launch_daily())
        assert "/served" in other.run("report", "shop.example")[1]
        assert other.run("down") == (0, "stopped footfall up\n")
        assert other.complaints() == []
        assert not (other.home / "postgres").exists()


@pytest.mark.slow
def test_down_ends_what_one_that_was_killed_left_behind(it):
    os.kill(it.process.pid, signal.SIGKILL)
    it.process.wait()
    code, said = it.run("down")
    assert code == 0 and "stopped" in said
    assert it.living() == {}
    assert it.run("down") == (0, "nothing was running\n")


def test_ctrl_c_ends_everything(it):
    """A terminal sends SIGINT to all of the foreground group."""
    it.launch_daily()
    assert all(it.living(word) for word in ("collector", "api grpc", "dagster-webserver", "dagster-daemon", "postgres"))
    os.killpg(it.process.pid, signal.SIGINT)
    assert it.process.wait(60) == 0
    assert it.living() == {}
    assert "Traceback" not in it.said


def test_ctrl_c_ends_it_while_it_starts(other):
    """Given a home that is named from where the command is typed."""
    other.environment["FOOTFALL_HOME"] = other.home.name
    other.start(cwd=other.home.parent)
    until(lambda: other.living("dagster"))
    os.kill(other.process.pid, signal.SIGINT)
    assert other.process.wait(60) == 0
    assert other.living() == {}
    other.environment["FOOTFALL_HOME"] = str(other.home)


@pytest.mark.parametrize("setting", ["FOOTFALL_COLLECTOR", "FOOTFALL_DAGSTER"])
def test_a_port_in_use_is_refused_with_the_name_of_the_setting(other, setting):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        other.environment[setting] = f"127.0.0.1:{port}"
        code, said = other.run("up")
    assert code == 1 and setting in said and str(port) in said and "in use" in said
    assert not (other.home / "postgres").exists()


def test_one_port_for_both_is_refused(other):
    other.environment["FOOTFALL_DAGSTER"] = other.environment["FOOTFALL_COLLECTOR"]
    code, said = other.run("up")
    assert code == 1 and "FOOTFALL_COLLECTOR" in said and "FOOTFALL_DAGSTER" in said


def test_definitions_that_do_not_load_are_told_with_the_cause(other, tmp_path):
    """Given a package that is half installed, which only the definitions import."""
    (tmp_path / "dagster_dbt").mkdir()
    (tmp_path / "dagster_dbt" / "__init__.py").write_text("raise ImportError('no module named half')")
    other.environment["PYTHONPATH"] = str(tmp_path)
    code, said = other.run("up")
    assert code == 1
    assert "no module named half" in said and "orchestration.definitions" in said and "code-server.log" in said
    assert "File" not in said


def test_whether_a_process_is_alive_is_told_by_its_number_and_age():
    assert _is_alive(os.getpid(), since=time.time())
    assert not _is_alive(os.getpid(), since=time.time() - 86_400)  # then another process had this number
    ended = subprocess.Popen(["true"])
    time.sleep(0.2)
    assert not _is_alive(ended.pid, since=time.time())  # nobody has asked for its exit code yet
    ended.wait()
    assert not _is_alive(ended.pid, since=time.time())


@pytest.mark.parametrize(
    ("age", "seconds"), [("00:07", 7), ("1:02:03", 3_723), ("01:02:03", 3_723), ("2-01:02:03", 176_523)]
)
def test_the_age_of_a_process_is_read_as_ps_writes_it(age, seconds):
    assert _seconds(age) == seconds


def schedules(it: Up) -> dict[str, Any]:
    selector = {"repositoryLocationName": "footfall", "repositoryName": "__repository__"}
    query = """query ($selector: RepositorySelector!) { schedulesOrError(repositorySelector: $selector) { ... on Schedules { results {
        name scheduleState { id status } } } } }"""
    found = it.ask(query, selector=selector)["schedulesOrError"]["results"]
    return {schedule["name"]: schedule["scheduleState"] for schedule in found}


def stop_schedule(it: Up, name: str) -> None:
    mutation = "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
    it.ask(mutation, id=schedules(it)[name]["id"])
    assert schedules(it)[name]["status"] == "STOPPED"
