"""What all services have in common: a folder with data, log, ports and secret; how they start, answer and end.

services/<name>/data           what it keeps
services/<name>/log            what it says
services/<name>/service.json   its ports, chosen at the first start, and its secret; readable for its owner only
services/<name>/…              its configuration, written anew at each start
"""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from orchestration.progress import Report, progress_bar
from orchestration.services.processes import end, processes_with, send

HOST = "127.0.0.1"
USER = "footfall"
READY_SECONDS = 120
STOP_SECONDS = 30
POLL_SECONDS = 0.1
MAX_LOG_BYTES = 4_000_000
FREE_PORTS = range(20_000, 32_000)
"""Below those that systems give to clients: a server that starts again must not find its port taken by one of them."""


class ServiceFailed(Exception):
    """A service cannot be started or used. The message says why, and what to do."""


class ProgramMissing(ServiceFailed):
    """The programs of a service are not there, and could not be had."""


@dataclass(frozen=True)
class Certificates:
    """Files in PEM with which servers on 127.0.0.1 prove who they are."""

    ca: Path
    """What clients verify with."""
    certificate: Path
    """Of the server, with the chain that leads to the CA."""
    key: Path
    """Of the certificate: PKCS #8, not encrypted."""


class Service(ABC):
    """One server on this machine, under a folder of its own. With certificates it takes TLS only, and a password, where it can."""

    name: ClassVar[str]
    usual_port: ClassVar[int]
    inner_ports: ClassVar[tuple[str, ...]] = ()
    """What else it listens at, for itself alone."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, services: Path, secure: Certificates | None, usual_ports: bool, maven: str) -> None:
        self.folder = services.resolve() / self.name
        self.secure = secure
        self.usual_ports = usual_ports
        self.maven = maven
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.launched: subprocess.Popen[bytes] | None = None

    # What each of them says of itself

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it is, with user and password where it has them."""

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The variables with which Footfall uses it."""

    @property
    @abstractmethod
    def mark(self) -> str:
        """An argument that only its processes have."""

    def fetch(self) -> None:
        """Gets the programs, where they are not there yet. Raises ServiceFailed."""

    def prepare(self) -> None:
        """Makes data where there is none, and writes the configuration. Raises ServiceFailed."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """How it is started, in its folder."""

    def variables(self) -> Mapping[str, str]:
        """The environment in which it is started."""
        return os.environ

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client gets what it asks for. Called when something listens at its port."""

    # What they share

    @property
    def port(self) -> int:
        """Where clients reach it."""
        return self.remembered["ports"]["client"]  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        """host:port, where clients reach it."""
        return f"{HOST}:{self.port}"

    @property
    def secret(self) -> str:
        """A password, made at the first start."""
        return self.remembered["secret"]  # type: ignore[no-any-return]

    @property
    def remembered(self) -> dict[str, Any]:
        """Ports and secret: those of the first start, so that its URL stays the same."""
        file = self.folder / "service.json"
        if not file.exists():
            ports = {"client": self._client_port(), **{name: free_port() for name in self.inner_ports}}
            write_private(file, json.dumps({"ports": ports, "secret": secrets.token_hex(24)}))
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    @property
    def was_started(self) -> bool:
        """Whether it has been started in this home before."""
        return (self.folder / "service.json").exists()

    @property
    def pid(self) -> int | None:
        """The number of its server's process; None while it does not run."""
        if self.launched and self.launched.poll() is None:  # it has no arguments yet for an instant
            return self.launched.pid
        return next(iter(processes_with(lambda argument: argument == self.mark)), None)

    @property
    def is_running(self) -> bool:
        """Whether its server lives. What lives before there is data makes the data."""
        return self.data.exists() and self.pid is not None

    @property
    def is_ready(self) -> bool:
        """Whether it can be used now."""
        return not is_free(self.port) and self.answers()

    def processes(self) -> list[int]:
        """All that run in its name, also those that make its data."""
        making = f"{self.folder}/new-"
        found = processes_with(lambda argument: argument == self.mark or argument.startswith(making))
        server = self.pid
        return found if server is None or server in found else [server, *found]

    def start(self) -> None:
        """Starts it unless it runs, where it was and with what it has, and waits until it answers. Raises ServiceFailed."""
        bring_up([self])

    def stop(self) -> bool:
        """Ends it in good order. True if it ran."""
        ran = bool(self.processes())
        end(self.processes, self.stop_signal, STOP_SECONDS)
        return ran

    def send_signal(self, number: signal.Signals) -> None:
        """Sends its processes a signal: SIGSTOP makes a server that hangs."""
        send(self.processes(), number)

    def kill(self) -> None:
        """Ends it as a power cut would: SIGKILL. Returns when it is gone."""
        end(self.processes, signal.SIGKILL, STOP_SECONDS)

    def launch(self) -> None:
        """Starts the process, in a session of its own: a terminal's Ctrl-C is not for it."""
        for port in self.remembered["ports"].values():
            if not is_free(port):
                raise ServiceFailed(
                    f"{self.name} had port {port} before, and another program has it now. End that program, or write "
                    f"another port into {self.folder / 'service.json'}."
                )
        with self.log.open("ab") as log:
            if log.tell() > MAX_LOG_BYTES:
                log.truncate(0)
            self.launched = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.variables(), cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=self.launched.wait, daemon=True).start()  # reaps it, whoever ends it

    @contextmanager
    def new_data(self) -> Iterator[Path]:
        """A folder in which to make `data`, which gets its place when it is complete. What a killed start left is removed."""
        for abandoned in self.folder.glob("new-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="new-", dir=self.folder, ignore_cleanup_errors=True) as new:
            yield Path(new)
            Path(new, "data").rename(self.data)

    def run(self, command: Sequence[str], **options: Any) -> None:
        """Runs a program that makes data. Raises ServiceFailed with its last words."""
        done = subprocess.run(command, capture_output=True, text=True, **options)
        if done.returncode:
            raise ServiceFailed(f"{self.name} could not make its data:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")

    def trusted(self) -> ssl.SSLContext | None:
        """How a client verifies it; None without TLS."""
        return ssl.create_default_context(cafile=self.secure.ca) if self.secure else None

    def failed(self, what: str) -> ServiceFailed:
        """An error that ends with the log's last words."""
        words = self.log.read_bytes()[-3000:].decode(errors="replace").splitlines()[-12:]
        return ServiceFailed(f"{self.name} {what}. The end of {self.log}:\n" + ("\n".join(words) or "it said nothing"))

    def _client_port(self) -> int:
        return self.usual_port if self.usual_ports and is_free(self.usual_port) else free_port()


def bring_up(services: Sequence[Service]) -> None:
    """Starts those that do not run, side by side, and waits until all answer. If one fails, what was started is ended."""
    stopped = [service for service in services if not service.is_running]
    for service in stopped:
        service.folder.mkdir(parents=True, exist_ok=True)
        service.fetch()
        service.stop()  # what a killed one left behind
    try:
        with progress_bar("Starting", "services") as progress:
            with ThreadPoolExecutor(max_workers=4) as threads:
                list(threads.map(lambda service: service.prepare(), stopped))
            for service in stopped:
                service.launch()
            _wait_until_ready(services, progress)
    except BaseException:
        for service in stopped:
            service.kill()
        raise


def _wait_until_ready(services: Sequence[Service], progress: Report) -> None:
    waiting, until = services, time.monotonic() + READY_SECONDS
    while waiting := [service for service in waiting if not service.is_ready]:
        progress(len(services) - len(waiting), len(services))
        for service in waiting:
            if not service.is_running:
                raise service.failed("ended at once")
            if time.monotonic() > until:
                raise service.failed(f"was not ready within {READY_SECONDS} s")
        time.sleep(POLL_SECONDS)
    progress(len(services), len(services))


def write_private(file: Path, text: str) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=f"{file.name}.", delete=False) as new:
        new.write(text)
    Path(new.name).rename(file)


def is_free(port: int) -> bool:
    """Whether nothing listens there."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what has ended is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port at which nothing listens, and which no client gets by chance."""
    return next(port for port in random.sample(FREE_PORTS, len(FREE_PORTS)) if is_free(port))
