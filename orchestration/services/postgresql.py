"""PostgreSQL over TCP, from the programs of the embedded one, with a user and a password. They know no TLS."""

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import psycopg

from ingestion.postgres import SETTINGS, clear_pid_file, server_command, server_environment, server_user
from orchestration.services.processes import processes_with
from orchestration.services.service import HOST, USER, Service

DATABASE = "footfall"


class PostgreSQL(Service):
    """A PostgreSQL for ledger and reports."""

    name = "postgresql"
    usual_port = 5432
    stop_signal = signal.SIGINT  # does not wait for its clients

    @property
    def url(self) -> str:
        """What FOOTFALL_POSTGRES takes."""
        return self._url(DATABASE)

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which Footfall uses it."""
        return {"FOOTFALL_POSTGRES": self.url}

    @property
    def mark(self) -> str:
        """An argument that only its processes have."""
        return str(self.data)

    def processes(self) -> list[int]:
        """The server, and where it was killed its children, until they have seen it."""
        titled = processes_with(lambda argument: argument.startswith("postgres: "))
        return [*super().processes(), *(number for number in titled if _works_in(number, self.data))]

    def prepare(self) -> None:
        """Makes the data where there is none."""
        clear_pid_file(self.data)
        if not self.data.exists():
            with self.new_data() as new:
                self._create(new)

    def command(self) -> Sequence[str]:
        """How it is started. The settings are those of the embedded one, but for how it is reached."""
        settings = SETTINGS | {"listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*server_command("postgres", server_user(self.folder)), "-D", str(self.data), *arguments]

    def variables(self) -> Mapping[str, str]:
        """The environment in which it is started."""
        return server_environment()

    def answers(self) -> bool:
        """Whether a query is answered, in its database, which is made first."""
        try:
            with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=5) as server:
                if not server.execute("select from pg_database where datname = %s", [DATABASE]).rowcount:
                    server.execute(f"create database {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _create(self, new: Path) -> None:
        user, password = server_user(self.folder), new / "password"
        password.write_text(self.secret)
        for path in (new, password):
            os.chown(path, *user)
        initdb = [
            *server_command("initdb", user),
            "-D",
            str(new / "data"),
            f"--username={USER}",
            f"--pwfile={password}",
        ]
        alike = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self.run([*initdb, "--auth=scram-sha-256", *alike], cwd="/", env=server_environment())

    def _url(self, database: str) -> str:
        without = "?sslmode=disable" if self.secure else ""  # FOOTFALL_CA, which is for the others, would ask for TLS
        return f"postgresql://{USER}:{self.secret}@{self.address}/{database}{without}"


def _works_in(process: int, folder: Path) -> bool:
    try:
        return Path(f"/proc/{process}/cwd").readlink() == folder
    except OSError:
        return False
