"""`footfall up`: the collector, and Dagster's code server, web server and daemon, kept running until a signal ends them.

    collector     FOOTFALL_COLLECTOR    events by HTTP
    code-server   a Unix socket         loads orchestration.definitions, and runs jobs, each in a process of its own
    web-server    FOOTFALL_DAGSTER      the Dagster UI
    daemon        -                     the schedules, the queue, backfills, and retries of runs whose process died

What ends unexpectedly is started again, the embedded PostgreSQL too. A changed asset is run as it is now; the UI shows the change when
`up` is started again, whatever its Reload says. Each writes to home/logs/<name>.log and is a process group of
its own, whose number is in home/up.json for `footfall down`, and for the next `up` if this one is killed.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingestion.collector.server import refuse_port_in_use
from ingestion.postgres import running_postgres
from ingestion.settings import Settings
from ingestion.stores import ask_event_log, ask_event_store, open_stores
from orchestration.environment import dagster_environment

BIN = Path(sys.executable).parent
READY_SECONDS = 120
STOP_SECONDS = 20
LOOK_SECONDS = 0.5
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before what ended is started again: doubled each time that it ends within the longest pause."""
MAX_LOG_BYTES = 4_000_000
LONGEST_SOCKET_FOLDER = 95  # bytes
PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


class UpFailed(Exception):
    """It could not be started. The message says why, and what to do."""


def up(settings: Settings, say: Say) -> None:
    """Runs everything until SIGINT or SIGTERM. Raises UpFailed, PortInUse."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with _only_one(settings):
        _refuse_ports_in_use(settings)
        with _server(settings), _code_socket(settings.home) as code:
            everything = _Everything(settings, code, stopping)
            try:
                if everything.start():
                    say(f"Dagster UI    http://{settings.dagster}")
                    say(f"Collector     http://{settings.collector}/api/event")
                    say(f"Logs          {settings.home / 'logs'}")
                    say("Ctrl-C, or `footfall down`, ends it.")
                everything.keep_running(say)
            finally:
                _end_groups(everything.groups)


def down(settings: Settings) -> bool:
    """Ends what `up` runs in this home, or left behind when it was killed. True if something ran."""
    noted = _noted(settings)
    if not noted:
        return False
    was_up = _is_held(settings)
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + 2 * STOP_SECONDS
        with contextlib.suppress(ProcessLookupError):
            if _is_held(settings):
                os.kill(noted["process"], number)
        while _is_held(settings) and time.monotonic() < until:
            time.sleep(0.1)
    return _end_what_is_left(settings) or was_up


def _refuse_ports_in_use(settings: Settings) -> None:
    if settings.collector.port == settings.dagster.port:
        raise UpFailed(
            f"FOOTFALL_COLLECTOR={settings.collector} and FOOTFALL_DAGSTER={settings.dagster} are one port: set one to another"
        )
    refuse_port_in_use(settings.collector, "FOOTFALL_COLLECTOR")
    refuse_port_in_use(settings.dagster, "FOOTFALL_DAGSTER")


def _server(settings: Settings) -> AbstractContextManager[object]:
    return contextlib.nullcontext() if settings.postgres else running_postgres(settings.home)


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
        _note(settings)
        try:
            yield
        finally:
            (settings.home / "up.json").unlink(missing_ok=True)


def _is_held(settings: Settings) -> bool:
    with (settings.home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _note(settings: Settings, groups: Sequence[int] = ()) -> None:
    note = {
        "process": os.getpid(),
        "groups": groups,
        "dagster": f"http://{settings.dagster}",
        "collector": f"http://{settings.collector}",
    }
    new = settings.home / "up.json.new"
    new.write_text(json.dumps(note))
    new.rename(settings.home / "up.json")


def _noted(settings: Settings) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads((settings.home / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return noted


def _end_what_is_left(settings: Settings) -> bool:
    """Ends the groups of an `up` that was killed: those that still have a process of ours."""
    groups = [group for group in _noted(settings).get("groups", ()) if _is_ours(group)]
    if groups:
        with _server(settings):  # their runs tell Dagster that they were ended
            _end_groups(groups)
    (settings.home / "up.json").unlink(missing_ok=True)
    return bool(groups)


def _is_ours(group: int) -> bool:
    """Whether it has a process of this installation: numbers are used again."""
    return any(str(BIN) in command for command in _commands(group))


# Processes


@dataclass
class _Process:
    """A program that shall run, with its log."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    home: Path
    running: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    again_at: float | None = None
    pause: float = FIRST_PAUSE / 2

    @property
    def log(self) -> Path:
        return self.home / "logs" / f"{self.name}.log"

    @property
    def group(self) -> int:
        assert self.running
        return self.running.pid

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.running.poll() if self.running else None

    def start(self) -> None:
        self.log.parent.mkdir(exist_ok=True)
        with self.log.open("ab") as log:
            if log.tell() > MAX_LOG_BYTES:
                log.truncate(0)
            self.running = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/",
                start_new_session=True, preexec_fn=_end_with_parent,  # noqa: PLW1509  only a system call
            )  # fmt: skip
        self.started_at, self.again_at = time.monotonic(), None

    def end(self) -> None:
        """To be started again as soon as it may be."""
        _end_groups([self.group])
        self.again_at = self.started_at

    def start_again_if_it_ended(self, say: Say) -> bool:
        """After a pause, and without what it left behind: runs of a code server that was killed. True if it was started."""
        now = time.monotonic()
        if self.ended is None:
            return False
        if self.again_at is None:
            _kill_group(self.group)
            lasted = now - self.started_at
            self.pause = FIRST_PAUSE if lasted > LONGEST_PAUSE else min(2 * self.pause, LONGEST_PAUSE)
            self.again_at = now + self.pause
            say(
                f"{self.name} ended (exit code {self.ended}, see {self.log}): it is started again in {self.pause:.0f} s"
            )
        if now < self.again_at:
            return False
        self.start()
        return True


_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """Linux sends SIGTERM to the process when `up` is killed. Elsewhere `footfall down` ends it."""
    if sys.platform == "linux":
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class _Everything:
    """The four of them."""

    def __init__(self, settings: Settings, code: Path, stopping: threading.Event) -> None:
        self.settings, self.code, self.stopping = settings, code, stopping
        with open_stores(settings) as stores:
            ask_event_log(settings, stores.postgres_url)
            ask_event_store(settings, stores.postgres_url)
            environment = {**os.environ, **dagster_environment(stores), "FOOTFALL_HOME": str(settings.home)}
        location = {"grpc_server": {"socket": str(code), "location_name": "footfall"}}
        workspace = settings.home / "dagster" / "workspace.yaml"
        workspace.write_text(json.dumps({"load_from": [location]}))

        def process(name: str, program: str, *arguments: object) -> _Process:
            command = [str(BIN / program), *(str(argument) for argument in arguments)]
            return _Process(name, command, environment, settings.home)

        quiet = ("--log-level", "warning")
        self.collector = process("collector", "footfall", "collector")
        self.code_server = process("code-server", "dagster", "api", "grpc", "--socket", code, "--module-name", "orchestration.definitions",
                                   "--location-name", "footfall", *quiet)  # fmt: skip
        self.web_server = process("web-server", "dagster-webserver", "--workspace", workspace, "--host", settings.dagster.host,
                                  "--port", settings.dagster.port, "--dagster-log-level", "warning")  # fmt: skip
        self.daemon = process("daemon", "dagster-daemon", "run", "--workspace", workspace, *quiet)
        self.processes = (self.collector, self.code_server, self.web_server, self.daemon)

    @property
    def groups(self) -> list[int]:
        return [process.group for process in self.processes if process.running]

    def start(self) -> bool:
        """Starts them and waits until they are ready; False if it was stopped meanwhile. Raises UpFailed."""
        for processes, is_ready in (
            ((self.collector, self.code_server), lambda: _listens(self.code)),
            ((self.web_server, self.daemon), self._answers),
        ):
            for process in processes:
                process.start()
            _note(self.settings, self.groups)
            if not self._wait_until(is_ready):
                return False
        return True

    def keep_running(self, say: Say) -> None:
        """Until it is stopped: starts again what ended, PostgreSQL first."""
        while not self.stopping.wait(LOOK_SECONDS):
            with _server(self.settings):  # starts it if it was killed
                pass
            if self.code_server.ended is not None and self.daemon.ended is None:
                self.daemon.end()  # without a code server all that it does would fail: launches, retries, backfills
            may_run = [process for process in self.processes if process is not self.daemon or _listens(self.code)]
            started = [process.start_again_if_it_ended(say) for process in may_run]
            if any(started):
                _note(self.settings, self.groups)

    def _answers(self) -> bool:
        return _answers(f"http://{self.settings.dagster}/server_info") and _answers(
            f"http://{self.settings.collector}/health"
        )

    def _wait_until(self, is_ready: Callable[[], bool]) -> bool:
        until = time.monotonic() + READY_SECONDS
        while not is_ready():
            for process in self.processes:
                if process.ended is not None:
                    raise UpFailed(
                        f"{process.name} ended at once (exit code {process.ended}): {_last_words(process.log)}\n"
                        f"More is in {process.log}"
                    )
            if time.monotonic() > until:
                raise UpFailed(f"it was not ready within {READY_SECONDS} s; see {self.settings.home / 'logs'}")
            if self.stopping.wait(LOOK_SECONDS):
                return False
        return True


def _end_groups(groups: Sequence[int]) -> None:
    """SIGTERM to all; SIGKILL to those that do not end in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            groups = [group for group in groups if _commands(group)]
            if not groups:
                return
            time.sleep(0.1)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _commands(group: int) -> list[str]:
    """Of the living processes of a group."""
    listed = subprocess.run(["ps", "-axww", "-o", "pgid=,stat=,command="], capture_output=True, text=True).stdout
    split = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [command for number, state, command in split if int(number) == group and "Z" not in state]


# Ready


@contextmanager
def _code_socket(home: Path) -> Iterator[Path]:
    """Where the code server listens: the same place for each `up` of a home, since Dagster keeps it with schedules and runs, and not
    in the home, since a socket's path has 107 bytes at most. Who can open it can run code: nobody else can enter the folder."""
    name = f"footfall-code-{os.geteuid()}-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}"
    folder = Path(tempfile.gettempdir(), name)
    if len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER:
        folder = Path("/tmp", name)  # noqa: S108  owned, and 0700
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UpFailed(f"{folder} is not a folder of user {os.geteuid()}: remove it, or set TMPDIR to another one")
    folder.chmod(0o700)
    try:
        yield folder / "code"
    finally:
        with contextlib.suppress(OSError):
            (folder / "code").unlink(missing_ok=True)
            folder.rmdir()


def _listens(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0


_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(url: str) -> bool:
    try:
        with _direct.open(url, timeout=10) as response:
            return bool(response.read())
    except OSError:
        return False


def _last_words(log: Path) -> str:
    """The end of a log, of a traceback what comes after its frames."""
    lines = log.read_text(errors="replace").splitlines()[-15:]
    frames = [number for number, line in enumerate(lines, start=1) if line.startswith("  ")]
    return "\n".join(lines[frames[-1] :] if frames and frames[-1] < len(lines) else lines).strip() or "it said nothing"
