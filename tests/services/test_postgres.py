"""The embedded PostgreSQL, as real servers: who starts and stops it, and what it survives."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import psycopg2  # type: ignore[import-untyped]
import pytest
import sqlalchemy

import ingestion
from ingestion.postgres import PostgresFailed, running_postgres, stop_postgres

AS_ROOT = os.geteuid() == 0
ENTER = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]

USER = """
import sys
from pathlib import Path
from ingestion.postgres import PostgresFailed, running_postgres
try:
    with running_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()
except PostgresFailed as problem:
    sys.exit(f"PostgresFailed: {problem}")
"""


@pytest.fixture(scope="module")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where these tests' sockets are. Users of all kinds can enter it, unlike pytest's own folders."""
    assert tmp_path_factory.getbasetemp()  # made before TMPDIR changes
    with tempfile.TemporaryDirectory(prefix="footfall-test ") as folder, pytest.MonkeyPatch.context() as patch:
        os.chmod(folder, 0o1777)
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield Path(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, temporary_folder: Path) -> Iterator[Path]:
    """A home with a data folder, which no test damages."""
    yield from removed_afterwards(tmp_path_factory.mktemp("a home"))


@pytest.fixture(scope="module", autouse=True)
def kept(home: Path) -> None:
    with running_postgres(home) as url:
        run(url, "CREATE TABLE kept AS SELECT 42 AS answer")


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Path]:
    yield from removed_afterwards(tmp_path / "empty")


@pytest.fixture
def copied_home(home: Path, tmp_path: Path) -> Iterator[Path]:
    yield from copied(home, tmp_path / "copy")


def copied(home: Path, to: Path) -> Iterator[Path]:
    to.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", home, to], check=True)
    yield from removed_afterwards(to)


def removed_afterwards(home: Path) -> Iterator[Path]:
    yield home
    stop_postgres(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def open_folder(temporary_folder: Path) -> Iterator[Path]:
    """Users of all kinds can enter it, and only its owner can write there."""
    with tempfile.TemporaryDirectory(dir=temporary_folder) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def nobody() -> list[str]:
    """How a Python begins that runs as an unprivileged user; skips where no interpreter can be reached."""
    if not AS_ROOT:
        pytest.skip("the other tests ran as an ordinary user")
    folders = [Path(ingestion.__file__).parents[1], Path(psycopg.__file__).parents[1]]
    path = f"PYTHONPATH={os.pathsep.join(map(str, folders))}"
    for python in (sys.executable, "/usr/bin/python3"):
        command = [*ENTER, "env", path, "PYTHONDONTWRITEBYTECODE=1", python]
        if not subprocess.run([*command, "-c", "import ingestion.postgres"], capture_output=True, cwd="/").returncode:
            return command
    pytest.skip("no Python with this one's packages can be reached by an unprivileged user")


@pytest.fixture
def user() -> Iterator[Callable[[Path], "subprocess.Popen[str]"]]:
    """Starts processes that use a home's server until their standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(home: Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", USER, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    url = process.stdout.readline().strip()
    assert url.startswith("postgresql://"), process.communicate()
    return url


def leave(process: "subprocess.Popen[str]") -> None:
    _, problems = process.communicate(timeout=20)
    assert (process.returncode, problems) == (0, "")


def run(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement)


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query).fetchone()
        return row and row[0]


def postmaster(home: Path) -> int:
    return int((home / "postgres/data/postmaster.pid").read_text().split()[0])


def processes_of(home: Path) -> list[str]:
    """Whatever works in a home's folders or names them: the postmaster, its children, a left initdb."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            folder = os.readlink(process / "cwd")
            command = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if f"{home}/postgres" in f"{folder} {command}":
            found.append(command)
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def socket_folder(url: str) -> Path:
    return Path(sqlalchemy.make_url(url).query["host"])  # type: ignore[arg-type]


def test_starts_for_a_use_and_leaves_nothing(empty_home: Path) -> None:
    with running_postgres(empty_home) as url:
        assert ask(url, "SELECT 1") == 1
        assert processes_of(empty_home)
        assert socket_folder(url).stat().st_mode & 0o777 == 0o700
    assert not processes_of(empty_home)
    assert not socket_folder(url).exists()
    assert {path.name for path in (empty_home / "postgres").iterdir()} == {"data", "log", "start.lock", "users.lock"}


def test_is_durable_utc_and_orders_bytewise(home: Path) -> None:
    with running_postgres(home) as url:
        assert [
            ask(url, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "timezone", "max_connections")
        ] == [
            "on",
            "on",
            "UTC",
            "200",
        ]
        assert (
            ask(url, "SELECT string_agg(t, '' ORDER BY t) FROM unnest(ARRAY['é', 'a', 'Z', '_', '𝄞', '→']) t")
            == "Z_aé→𝄞"
        )
        assert ask(url, "SELECT upper('é')") == "É"


def test_url_works_with_every_client_and_foreign_settings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGPORT": "5999", "PGDATA": "/nowhere", "PGDATABASE": "other", "PGUSER": "other"}.items():
        monkeypatch.setenv(name, value)
    with running_postgres(home) as url:
        assert ask(url, "SELECT answer FROM kept") == 42
        connection = psycopg2.connect(url)
        with connection.cursor() as cursor:
            cursor.execute("SELECT answer FROM kept")
            assert cursor.fetchone() == (42,)
        connection.close()
        for driver in ("postgresql", "postgresql+psycopg", "postgresql+psycopg2"):
            engine = sqlalchemy.create_engine(url.replace("postgresql", driver, 1))
            with engine.connect() as session:
                assert session.execute(sqlalchemy.text("SELECT answer FROM kept")).scalar_one() == 42
            engine.dispose()


def test_failed_statements_are_not_logged(home: Path) -> None:
    with running_postgres(home) as url, pytest.raises(psycopg.Error):
        run(url, "SELECT 'typed by a visitor'::int")
    assert "typed by a visitor" not in (home / "postgres/log").read_text()


def test_long_log_is_cut(home: Path) -> None:
    (home / "postgres/log").write_bytes(b"old\n" * 2_000_000)
    with running_postgres(home):
        pass
    log = (home / "postgres/log").read_bytes()
    assert len(log) < 10_000
    assert b"ready to accept connections" in log


def test_users_share_a_server_that_the_last_one_stops(
    home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    first = user(home)
    first_url, server = url_of(first), postmaster(home)
    with running_postgres(home) as url:
        assert (url, postmaster(home)) == (first_url, server)
        leave(first)
        assert ask(url, "SELECT 1") == 1
        second = user(home)
        assert url_of(second) == url
    assert ask(url, "SELECT 1") == 1
    leave(second)
    assert not processes_of(home)


def test_uses_nest_and_threads_share(home: Path) -> None:
    with running_postgres(home) as outer:
        with running_postgres(home) as inner:
            assert inner == outer
        assert ask(outer, "SELECT 1") == 1
    assert not processes_of(home)

    answers: list[object] = []

    def use() -> None:
        with running_postgres(home) as url:
            answers.append(ask(url, "SELECT answer FROM kept"))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [42] * 8
    assert not processes_of(home)


def test_processes_that_start_at_once_share_one_server(
    empty_home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    users = [user(empty_home) for _ in range(3)]
    urls = {url_of(process) for process in users}
    assert len(urls) == 1
    assert len([command for command in processes_of(empty_home) if "/bin/postgres -D" in command]) == 1
    for process in users:
        leave(process)
    assert not processes_of(empty_home)


def test_failure_inside_a_use_is_passed_on_as_it_is(home: Path) -> None:
    with pytest.raises(FileNotFoundError), running_postgres(home):
        raise FileNotFoundError("the user's own")
    assert not processes_of(home)


def test_another_temporary_folder_finds_the_same_server(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_postgres(home) as url:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with running_postgres(home) as other:
            assert other == url


def test_killed_user_is_not_counted(home: Path, user: Callable[[Path], "subprocess.Popen[str]"]) -> None:
    killed = user(home)
    url, server = url_of(killed), postmaster(home)
    killed.kill()
    killed.communicate(timeout=5)  # ends: the server does not hold the user's output open
    assert ask(url, "SELECT 1") == 1
    with running_postgres(home) as again:
        assert (again, postmaster(home)) == (url, server)
    assert not processes_of(home)


def test_interrupt_of_a_terminal_ends_its_commands_only(
    home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    interrupted = user(home)
    url = url_of(interrupted)
    with running_postgres(home):
        os.killpg(interrupted.pid, signal.SIGINT)
        interrupted.communicate(timeout=10)
        assert ask(url, "SELECT 1") == 1
    assert not processes_of(home)


def test_interrupt_while_starting_leaves_nothing(
    empty_home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    interrupted = user(empty_home)
    wait_until(lambda: any(empty_home.glob("postgres/initdb-*")))
    os.killpg(interrupted.pid, signal.SIGINT)
    interrupted.communicate(timeout=10)
    wait_until(lambda: not processes_of(empty_home))
    with running_postgres(empty_home) as url:
        assert ask(url, "SELECT 1") == 1


def test_killed_while_data_is_made_leaves_no_broken_data(
    empty_home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    killed = user(empty_home)
    wait_until(lambda: any(empty_home.glob("postgres/initdb-*/base")))
    killed.kill()
    with running_postgres(empty_home) as url:
        assert ask(url, "SELECT 1") == 1
    wait_until(lambda: not processes_of(empty_home))


@pytest.mark.parametrize("lock_file", ["as it was", "number of another process", "empty"])
def test_server_that_was_killed_is_started_again(home: Path, lock_file: str) -> None:
    pid_file = home / "postgres/data/postmaster.pid"
    with running_postgres(home) as url:
        run(url, "DROP TABLE IF EXISTS written")
        run(url, "CREATE TABLE written AS SELECT 7 AS answer")
        os.kill(postmaster(home), signal.SIGKILL)
        if lock_file == "empty":
            os.truncate(pid_file, 0)
        elif lock_file == "number of another process":
            wait_until(lambda: not processes_of(home))
            _, *rest = pid_file.read_text().splitlines(keepends=True)
            pid_file.write_text("".join([f"{os.getpid()}\n", *rest]))
        with running_postgres(home) as again:
            assert again == url
            assert ask(url, "SELECT answer FROM written") == 7
    assert not processes_of(home)


def test_killed_servers_busy_child_is_waited_for(home: Path) -> None:
    with running_postgres(home) as url, psycopg.connect(url) as connection:
        child = connection.info.backend_pid
        os.kill(child, signal.SIGSTOP)
        os.kill(postmaster(home), signal.SIGKILL)
        threading.Timer(1, os.kill, (child, signal.SIGCONT)).start()
        began = time.monotonic()
        with running_postgres(home) as again:
            assert ask(again, "SELECT answer FROM kept") == 42
            assert time.monotonic() - began > 0.9
        connection.close()
    assert not processes_of(home)


def test_server_that_shuts_down_is_waited_out(home: Path) -> None:
    with running_postgres(home) as url:
        connection, server = psycopg.connect(url), postmaster(home)
        os.kill(server, signal.SIGTERM)  # refuses new clients, and waits for this one
        threading.Timer(0.5, connection.close).start()
        with running_postgres(home) as again:
            assert ask(again, "SELECT answer FROM kept") == 42
            assert postmaster(home) != server
    assert not processes_of(home)


def test_server_whose_home_was_deleted_gives_way(
    copied_home: Path, user: Callable[[Path], "subprocess.Popen[str]"]
) -> None:
    killed = user(copied_home)
    url, orphan = url_of(killed), postmaster(copied_home)
    killed.kill()
    shutil.rmtree(copied_home)
    with running_postgres(copied_home) as again:
        assert again == url
        assert postmaster(copied_home) != orphan
        assert ask(url, "SELECT to_regclass('kept')") is None
    assert not processes_of(copied_home)


def test_stop_works_while_used(home: Path) -> None:
    assert not stop_postgres(home)
    with running_postgres(home) as url:
        connection = psycopg.connect(url)
        assert stop_postgres(home)
        assert not processes_of(home)
        assert not stop_postgres(home)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()


def test_stop_makes_no_home(tmp_path: Path) -> None:
    assert not stop_postgres(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_any_home_path(home: Path, tmp_path: Path) -> None:
    for other in copied(home, Path(tmp_path, "spaces é→ % ' \" $HOME", *["long" * 20] * 4)):
        with running_postgres(other) as url:
            assert ask(url, "SELECT answer FROM kept") == 42
        assert not processes_of(other)


@pytest.mark.parametrize("name", ["50 %", "a, b", "long" * 20])
def test_any_temporary_folder(home: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    temporary = open_folder / name
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with running_postgres(home) as url:
        assert ask(url, "SELECT answer FROM kept") == 42
        assert socket_folder(url).parent == (temporary if name == "50 %" else Path("/tmp"))


@pytest.mark.parametrize("obstacle", ["symlink", "file", "folder of another user"])
def test_foreign_socket_folder_is_refused(home: Path, tmp_path: Path, obstacle: str) -> None:
    with running_postgres(home) as url:
        sockets = socket_folder(url)
    if obstacle == "symlink":
        sockets.symlink_to(tmp_path)
    elif obstacle == "file":
        sockets.touch()
    elif AS_ROOT:
        sockets.mkdir()
        os.chown(sockets, 12345, 12345)
    else:
        pytest.skip("only root can make a folder of another user")
    try:
        with pytest.raises(PostgresFailed, match=str(sockets)), running_postgres(home):
            pass
    finally:
        sockets.rmdir() if obstacle == "folder of another user" else sockets.unlink()


def test_damaged_data_is_explained_by_the_log(copied_home: Path) -> None:
    (copied_home / "postgres/data/global/pg_control").unlink()
    with pytest.raises(PostgresFailed, match=r"(?s)pg_control.*FOOTFALL_POSTGRES"), running_postgres(copied_home):
        pass
    assert not processes_of(copied_home)


@pytest.mark.skipif(not AS_ROOT, reason="setpriv is for root")
def test_missing_setpriv_is_named(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PostgresFailed, match="setpriv"), running_postgres(empty_home):
        pass


@pytest.mark.skipif(not AS_ROOT, reason="runs as the user that root drops to, otherwise")
def test_server_of_root_runs_as_somebody_else(home: Path) -> None:
    home.chmod(0o700)
    with running_postgres(home):
        owner = Path(f"/proc/{postmaster(home)}").stat().st_uid
    assert owner == (home / "postgres/data").stat().st_uid != 0


def test_ordinary_user_runs_it_as_himself(open_folder: Path, nobody: list[str]) -> None:
    home = open_folder / "home"
    home.mkdir()
    shutil.chown(home, "nobody", "nogroup")
    process = subprocess.Popen(
        [*nobody, "-c", USER, home],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = url_of(process)
    assert Path(f"/proc/{postmaster(home)}").stat().st_uid == home.stat().st_uid
    assert socket_folder(url).stat().st_uid == home.stat().st_uid
    leave(process)
    assert not processes_of(home)


def test_home_without_permission_is_named(open_folder: Path, nobody: list[str]) -> None:
    done = subprocess.run([*nobody, "-c", USER, open_folder], cwd="/", capture_output=True, text=True)
    assert done.stderr.startswith("PostgresFailed:")
    assert f"{open_folder}/postgres" in done.stderr
    assert "FOOTFALL_HOME" in done.stderr


def test_root_of_a_container_lacks_capabilities(open_folder: Path, nobody: list[str]) -> None:
    contained = [
        "setpriv",
        "--bounding-set=-dac_read_search,-sys_ptrace",
        sys.executable,
        "-c",
        USER,
        str(open_folder / "home"),
    ]
    done = subprocess.run(contained, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not processes_of(open_folder / "home")
