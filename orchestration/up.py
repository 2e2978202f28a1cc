"""`footfall up`: the collector, and Dagster's code server, web server and daemon, kept running until a signal ends them.

    collector     FOOTFALL_COLLECTOR    events by HTTP
    code server   a Unix socket         loads orchestration.definitions and runs jobs; the UI's Reload loads it again
    web server    FOOTFALL_DAGSTER      the Dagster UI
    daemon        -                     the schedules, the queue, backfills

Who ends unexpectedly is started again. Each writes to home/logs/<name>.log, and is a process group of its own, whose number is in
home/up.json for `footfall down`.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.collector.server import refuse_port_in_use
from ingestion.postgres import running_postgres
from ingestion.settings import Settings
from ingestion.stores import open_stores
from orchestration.environment import dagster_environment

BIN = Path(sys.executable).parent
READY_SECONDS = 120
STOP_SECONDS = 20
LOOK_SECONDS = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before what ended is started again: doubled each time that it ends within the longest pause."""
PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class UpFailed(Exception):
    """It could not be started. The message says why, and what to do."""


def up(settings: Settings, say: Say) -> None:
    """Runs everything until SIGINT or SIGTERM. Raises UpFailed."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with _only_one(settings), _server(settings), tempfile.TemporaryDirectory(prefix="footfall-") as sockets:
        for address, setting in ((settings.collector, "FOOTFALL_COLLECTOR"), (settings.dagster, "FOOTFALL_DAGSTER")):
            refuse_port_in_use(address, setting)
        with open_stores(settings) as stores:
            environment = {**os.environ, **dagster_environment(stores)}
        processes = [
            _Process(name, command, environment, settings.home)
            for name, command in _commands(settings, sockets).items()
        ]
        try:
            for process in processes:
                process.start()
            _note(settings, processes)
            if _wait_until_ready(settings, processes, stopping):
                say(
                    f"Dagster UI    http://{settings.dagster}\nCollector     http://{settings.collector}/api/event\nCtrl-C ends both."
                )
            _keep_running(settings, processes, stopping, say)
        finally:
            _stop(processes)


def down(settings: Settings) -> bool:
    """Ends what `up` runs in this home, or left behind when it was killed. True if something ran."""
    noted = _noted(settings)
    if noted and _is_held(settings):
        with contextlib.suppress(ProcessLookupError):
            os.kill(noted["process"], signal.SIGTERM)
        until = time.monotonic() + 2 * STOP_SECONDS
        while _is_held(settings) and time.monotonic() < until:
            time.sleep(0.1)
    return _end_what_is_left(settings) or bool(noted)


def _commands(settings: Settings, sockets: str) -> dict[str, list[str]]:
    socket = f"{sockets}/code"
    web = ["--host", settings.dagster.host, "--port", str(settings.dagster.port), "--dagster-log-level", "warning"]
    return {
        "collector": [str(BIN / "footfall"), "collector"],
        "code-server": [str(BIN / "dagster"), "code-server", "start", "--socket", socket, "--module-name", "orchestration.definitions",
                        "--location-name", "footfall", "--log-level", "warning"],
        "web-server": [str(BIN / "dagster-webserver"), "--grpc-socket", socket, *web],
        "daemon": [str(BIN / "dagster-daemon"), "run", "--grpc-socket", socket, "--log-level", "warning"],
    }  # fmt: skip


# One at a time


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            noted = _noted(settings)
            raise UpFailed(
                f"Footfall is up already in {settings.home} (process {noted.get('process', '?')}): Dagster UI {noted.get('dagster')}, "
                f"collector {noted.get('collector')}. `footfall down` ends it"
            ) from None
        _end_what_is_left(settings)
        yield
        (settings.home / "up.json").unlink(missing_ok=True)


def _is_held(settings: Settings) -> bool:
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _note(settings: Settings, processes: "list[_Process]") -> None:
    note = {
        "process": os.getpid(),
        "groups": [process.group for process in processes],
        "dagster": f"http://{settings.dagster}",
        "collector": f"http://{settings.collector}",
    }
    (settings.home / "up.json").write_text(json.dumps(note))


def _noted(settings: Settings) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads((settings.home / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return noted


def _end_what_is_left(settings: Settings) -> bool:
    """Ends the groups of an `up` that was killed: those that still have a process of Dagster or Footfall."""
    groups = [group for group in _noted(settings).get("groups", ()) if _is_ours(group)]
    _end_groups(groups)
    (settings.home / "up.json").unlink(missing_ok=True)
    return bool(groups)


# Processes


@dataclass
class _Process:
    """A program that shall run, with its log."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    home: Path
    running: "subprocess.Popen[bytes] | None" = None
    pause: float = FIRST_PAUSE
    started_at: float = 0.0

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def group(self) -> int:
        assert self.running
        return self.running.pid

    def start(self) -> None:
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/",
                start_new_session=True, preexec_fn=_end_with_parent,  # noqa: PLW1509  only a system call
            )  # fmt: skip
        self.started_at = time.monotonic()

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self.running
        return self.running.poll()

    def end_of_log(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Linux sends SIGTERM to the process when `up` is killed. Elsewhere `footfall down` ends it."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _keep_running(settings: Settings, processes: list[_Process], stopping: threading.Event, say: Say) -> None:
    """Until it is stopped: starts again what ended, PostgreSQL too."""
    while not stopping.wait(LOOK_SECONDS):
        for process in processes:
            code = process.ended()
            if code is None:
                continue
            lasted = time.monotonic() - process.started_at
            process.pause = FIRST_PAUSE if lasted > LONGEST_PAUSE else min(2 * process.pause, LONGEST_PAUSE)
            say(
                f"{process.name} ended (exit code {code}, see {process.log}): it is started again in {process.pause:.0f} s"
            )
            if stopping.wait(process.pause):
                return
            process.start()
            _note(settings, processes)
        with _server(settings):  # starts it if it was killed
            pass


def _server(settings: Settings) -> AbstractContextManager[object]:
    return contextlib.nullcontext() if settings.postgres else running_postgres(settings.home)


def _stop(processes: list[_Process]) -> None:
    _end_groups([process.group for process in processes if process.running])


def _end_groups(groups: list[int]) -> None:
    """SIGTERM to all; SIGKILL to those that do not end in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            groups = [group for group in groups if _is_ours(group)]
            if not groups:
                return
            time.sleep(0.1)


def _is_ours(group: int) -> bool:
    """Whether a process group has a living process of Dagster or Footfall: numbers are used again."""
    listed = subprocess.run(["ps", "-axo", "pgid=,stat=,command="], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        number, state, command = line.split(maxsplit=2)
        if int(number) == group and "Z" not in state and ("dagster" in command or "footfall" in command):
            return True
    return False


# Ready


def _wait_until_ready(settings: Settings, processes: list[_Process], stopping: threading.Event) -> bool:
    """Waits until the collector takes events and the UI has loaded the definitions; False if it was stopped meanwhile. Raises
    UpFailed."""
    until = time.monotonic() + READY_SECONDS
    while not stopping.wait(LOOK_SECONDS):
        for process in processes:
            if process.ended() is not None:
                raise UpFailed(f"{process.name} ended at once; the end of {process.log}:\n{process.end_of_log()}")
        problem = _problem_of_definitions(settings)
        if problem:
            raise UpFailed(f"orchestration.definitions does not load: {problem}")
        if problem == "" and _answers(f"http://{settings.collector}/health"):
            return True
        if time.monotonic() > until:
            raise UpFailed(f"it was not ready within {READY_SECONDS} s; see the logs in {settings.home / 'logs'}")
    return False


def _problem_of_definitions(settings: Settings) -> str | None:
    """Why the UI could not load the definitions: empty if it could, None if it does not know yet."""
    query = """{ workspaceOrError { __typename ... on PythonError { message } ... on Workspace { locationEntries {
        loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
    answer = _asked(f"http://{settings.dagster}/graphql", json.dumps({"query": query}).encode())
    if not answer:
        return None
    workspace = json.loads(answer)["data"]["workspaceOrError"]
    if workspace["__typename"] == "PythonError":
        return str(workspace["message"])
    entries = workspace["locationEntries"]
    if not entries or any(entry["loadStatus"] != "LOADED" or not entry["locationOrLoadError"] for entry in entries):
        return None
    return "\n".join(entry["locationOrLoadError"].get("message", "") for entry in entries)


def _answers(url: str) -> bool:
    return _asked(url) is not None


def _asked(url: str, body: bytes | None = None) -> bytes | None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return bytes(response.read())
    except OSError:
        return None
