"""The footfall command: what a person reads when something is not as it should be."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestration.cli import footfall
from tests.services.servers import free_port

LINE = '10.0.0.1 - - [17/May/2026:10:05:03 +0000] "GET / HTTP/1.1" 200 1 "-" "Mozilla/5.0"\n'
EVENT = {
    "domain": "shop.example",
    "name": "pageview",
    "url": "https://shop.example/",
    "timestamp": "2026-05-17T10:05:03Z",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in a home of its own; gives its exit code and all that it said."""
    monkeypatch.setenv("FOOTFALL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOOTFALL_START", "2026-01-01")
    monkeypatch.delenv("FOOTFALL_POSTGRES", raising=False)

    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(footfall, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return run


@pytest.fixture
def file(tmp_path):
    def write(content: bytes | str, name: str = "file") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


BAD_FILES = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(bytes(range(256)) * 50, "no line of", id="binary"),
    pytest.param(gzip.compress(LINE.encode() * 5_000)[:-30], "is a damaged gzip file", id="truncated gzip"),
    pytest.param(LINE.replace("2026", "2019").encode(), "before FOOTFALL_START", id="too old"),
    pytest.param(LINE.replace("2026", "2099").encode(), "in the future", id="in the future"),
]


@pytest.mark.parametrize(("content", "said"), BAD_FILES)
def test_a_file_that_cannot_be_imported_is_refused_with_its_name_and_why(run, file, content, said):
    code, output = run("import", "access-log", file(content), "--site", "shop.example")
    assert code == 1
    assert said in output and "file" in output and "nothing was imported" in output
    assert run("sites", "list") == (0, "")


@pytest.mark.parametrize("kind", [["access-log", "--site", "shop.example"], ["events"]])
def test_a_file_that_is_not_there_or_a_directory(run, tmp_path, kind):
    for path in (tmp_path / "nowhere", tmp_path):
        code, output = run("import", kind[0], path, *kind[1:])
        assert code == 1 and str(path) in output and "cannot be read" in output


def test_good_lines_beside_bad_ones_are_kept(run, file):
    lines = [
        json.dumps(EVENT),
        "{",
        json.dumps({**EVENT, "url": None}),
        json.dumps({**EVENT, "title": "a\0b"}),
        "[" * 3_000,
    ]
    code, output = run("import", "events", file("\n".join(lines)))
    assert code == 0
    assert "5 lines received, 2 accepted, 3 rejected" in output
    assert "1 malformed_json" in output and "1 missing_url" in output


def test_the_same_import_twice_says_so(run, file):
    log = file(LINE)
    assert "1 lines received" in run("import", "access-log", log, "--site", "shop.example")[1]
    assert "imported before, nothing changed" in run("import", "access-log", log, "--site", "shop.example")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sites", "add", "shop.example", "--timezone", "Mars/Olympus"], "'Mars/Olympus' is not a time zone"),
        (["sites", "add", "not a site"], "cannot be a site"),
        (["report", "nobody.example"], "no site 'nobody.example'"),
        (["report", "shop.example", "--from", "yesterday"], "'yesterday' is not a date"),
        (["materialize", "--from", "2026-05-17T10:30"], "is not a whole hour"),
        (["materialize", "--from", "2026-05-18", "--to", "2026-05-17"], "is not before"),
        (["import", "access-log", "x"], "--site"),
    ],
)
def test_bad_arguments_name_the_value(run, arguments, said):
    code, output = run(*arguments)
    assert code != 0 and said in output


def test_a_site_that_is_there_in_another_zone(run):
    assert run("sites", "add", "Shop.Example", "--timezone", "Europe/Berlin") == (
        0,
        "shop.example added, in Europe/Berlin\n",
    )
    assert (
        run("sites", "add", "shop.example", "--timezone", "Europe/Berlin")[1]
        == "shop.example is there already, in Europe/Berlin\n"
    )
    code, output = run("sites", "add", "shop.example")
    assert code == 1 and "is there already, in Europe/Berlin" in output
    assert run("sites", "list")[1] == "shop.example\tEurope/Berlin\n"
    code, output = run("report", "shop.example")
    assert code == 1 and "footfall materialize" in output


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FOOTFALL_START", "soon", "FOOTFALL_START='soon'"),
        ("FOOTFALL_BUCKETS", "0", "FOOTFALL_BUCKETS='0'"),
        ("FOOTFALL_LAKE", "ftp://x", "FOOTFALL_LAKE='ftp://x'"),
        ("FOOTFALL_POSTGRES", "postgresql://user:hunter2@localhost:1/db", "PostgreSQL cannot be reached"),
    ],
)
def test_bad_settings_name_the_variable_and_no_password(run, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    code, output = run("sites", "list")
    assert code == 1 and said in output and "hunter2" not in output


def test_a_home_that_is_not_writable(run, monkeypatch, tmp_path):
    (tmp_path / "home").write_text("a file, not a directory")
    code, output = run("sites", "list")
    assert code == 1 and str(tmp_path / "home") in output


def test_down_stops_what_a_killed_command_left(run, tmp_path):
    script = "import time; from pathlib import Path; from ingestion.postgres import running_postgres\nwith running_postgres(Path({!r})):\n    print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", script.format(str(tmp_path / "home"))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "up\n"
    process.kill()
    process.wait()
    assert run("down") == (0, "stopped PostgreSQL\n")
    assert run("down") == (0, "nothing was running\n")


def test_simulate_is_deterministic(run, tmp_path):
    for name in ("a", "b"):
        assert run("simulate", tmp_path / name, "--days", "1", "--visitors", "20")[0] == 0
    for file in ("events.ndjson", "truth.json", "sites.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(
    "command", [[], ["import"], ["import", "events"], ["materialize"], ["report"], ["sites"], ["down"]]
)
def test_every_command_has_help(run, command):
    code, output = run(*command, "--help")
    assert code == 0 and "Usage:" in output and len(output.splitlines()) > 4


def test_the_command_starts_without_dagster(run):
    code = "import sys, orchestration.cli; sys.exit('dagster' in sys.modules or 'dbt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ)).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "setting", "url"),
    [
        (["materialize"], "FOOTFALL_EVENT_LOG", "kafka://127.0.0.1:1/events"),
        (["collector"], "FOOTFALL_EVENT_LOG", "kafka://footfall:a-secret@127.0.0.1:1/events"),
        (["up"], "FOOTFALL_EVENT_STORE", "cassandra://footfall:a-secret@127.0.0.1:1/footfall"),
        (["visitor", "shop.example", "v"], "FOOTFALL_EVENT_STORE", "cassandra://nobody.invalid/footfall"),
        (["visitor", "shop.example", "v"], "FOOTFALL_EVENT_STORE", "cassandra://127.0.0.1/no-keyspace"),
        (["materialize"], "FOOTFALL_LAKE", "s3://bucket/lake"),
        (["report", "shop.example"], "FOOTFALL_POSTGRES", "postgresql://footfall:a-secret@127.0.0.1:1/footfall"),
        (["materialize"], "FOOTFALL_EVENT_LOG", "http://127.0.0.1:1/events"),
        (["materialize"], "FOOTFALL_CA", "/nowhere/ca.pem"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_in_a_line_with_the_setting_and_without_the_password(
    run, monkeypatch, arguments, setting, url
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "footfall")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setenv("FOOTFALL_COLLECTOR", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("FOOTFALL_DAGSTER", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv(setting, url)
    code, output = run(*arguments)
    assert code == 1
    assert setting in output
    assert output.startswith("Error: ") and len(output.strip().splitlines()) == 1, output
    assert "a-secret" not in output
