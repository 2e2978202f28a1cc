"""Real servers that a test starts for itself."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg

from ingestion.postgres import server_command, server_environment, server_user

USER, PASSWORD = "foot fall", "p@ss/wörd:%20?"


@contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL as other people run it: reached over TCP, by a user with a password, in a time zone of its own. Yields the URL of its database `shop`."""
    with tempfile.TemporaryDirectory(prefix="footfall-server-") as folder:
        owner, data, secret = server_user(Path(folder)), Path(folder, "data"), Path(folder, "password")
        secret.write_text(PASSWORD)
        for path in (Path(folder), secret):
            os.chown(path, *owner)
        environment = server_environment()
        initdb = [*server_command("initdb", owner), "-D", data, f"--username={USER}", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(initdb, check=True, capture_output=True, cwd="/", env=environment)
        port = free_port()
        with Path(folder, "log").open("wb") as log:
            server = subprocess.Popen(
                [*server_command("postgres", owner), "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "timezone=America/St_Johns"],
                stdout=log, stderr=log, cwd="/", env=environment,
            )  # fmt: skip
        try:
            url = f"postgresql://{quote(USER)}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
            with _connected(f"{url}/postgres") as admin:
                admin.execute("create database shop")
            yield f"{url}/shop"
        finally:
            server.send_signal(signal.SIGINT)  # does not wait for its clients
            server.wait(30)


def _connected(url: str, seconds: float = 30) -> "psycopg.Connection[tuple[object, ...]]":
    until = time.monotonic() + seconds
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
