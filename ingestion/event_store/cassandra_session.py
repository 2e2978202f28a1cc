"""A session with a Cassandra cluster: opened when it is first used, with its tables up to date.

Its statements are idempotent: what a server could not do in time is asked for again. Whatever fails in the end is an
EventStoreUnavailable.
"""

import importlib.resources
import logging
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from cassandra import (
    ConsistencyLevel,
    CoordinationFailure,
    DriverException,
    OperationTimedOut,
    Timeout,
    Unavailable,
)
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    ExecutionProfile,
    NoHostAvailable,
    ResponseFuture,
    ResultSet,
    Session,
)
from cassandra.cluster import Cluster as Driver
from cassandra.connection import ConnectionBusy, ConnectionException, DefaultEndPoint
from cassandra.metadata import protect_name
from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy
from cassandra.pool import NoConnectionsAvailable
from cassandra.protocol import ErrorMessage
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement, Statement

from ingestion.event_store import EventStoreUnavailable
from ingestion.settings import Cluster

PROTOCOL = 4
"""Said, not found out by trial: every Cassandra since 2.2 speaks it."""
CONNECT_SECONDS = 5
REQUEST_SECONDS = 10
READ_PATIENCE, WRITE_PATIENCE = 5, 60
"""Seconds from a request's first failure until no more is asked for it."""
FIRST_WAIT, LONGEST_WAIT = 0.02, 3.0
MOST_REPLICAS = 3

T = TypeVar("T")

_PASSING = (
    ConnectionBusy,
    ConnectionException,
    CoordinationFailure,
    ErrorMessage,  # overloaded, bootstrapping, a server's own errors
    NoConnectionsAvailable,
    NoHostAvailable,
    OperationTimedOut,
    Timeout,
    Unavailable,
)
_FAILURES = (*_PASSING, DriverException, OSError)

logging.getLogger("cassandra").setLevel(logging.CRITICAL)  # what it warns of is raised here as well, or passes


class CassandraSession:
    """Sends at LOCAL_QUORUM to nodes of the data centre of the hosts that are named, first to replicas. Use it in one thread."""

    def __init__(self, cluster: Cluster, ca: Path | None) -> None:
        self._named = cluster
        self._ca = ca
        self._driver: Driver | None = None
        self._statements: dict[str, PreparedStatement] = {}

    def close(self) -> None:
        """Ends the connections, if there are any."""
        if self._driver:
            self._driver.shutdown()

    # Asking

    def one(self, cql: str, values: Sequence[Any]) -> Any:
        """The first row that a statement answers, or None."""
        with self._spoken():
            return self._patiently(lambda: self._session.execute(self.bound(cql, values)), WRITE_PATIENCE).one()

    def rows(self, cql: str, values: Sequence[Any], page: int = 1_000) -> Iterator[Any]:
        """The rows that a statement answers, some at a time."""
        with self._spoken():
            statement = self.bound(cql, values)
            statement.fetch_size = page
            yield from self._patiently(lambda: self._session.execute(statement), READ_PATIENCE)

    def answers(self, statements: Iterable[Statement], at_once: int) -> Iterator[ResultSet]:
        """What each statement is answered, in order; so many are under way at a time."""
        sent: deque[tuple[Statement, ResponseFuture]] = deque()
        with self._spoken():
            for statement in statements:
                if len(sent) == at_once:
                    yield self._answer(*sent.popleft())
                sent.append((statement, self._session.execute_async(statement)))
            while sent:
                yield self._answer(*sent.popleft())

    def send(self, statements: Iterable[Statement], at_once: int) -> None:
        """Sends statements that have no answer, so many at a time, and returns when all are done."""
        deque(self.answers(statements, at_once), maxlen=0)

    def bound(self, cql: str, values: Sequence[Any]) -> BoundStatement:
        """A prepared statement with its values."""
        return self._prepared(cql).bind(values)

    def batch(self, cql: str, rows: Iterable[Sequence[Any]]) -> BatchStatement:
        """A statement for each of some rows of one partition, as one mutation."""
        statement = self._prepared(cql)
        batch = BatchStatement(BatchType.UNLOGGED)
        batch.is_idempotent = True
        for values in rows:
            batch.add(statement, values)
        return batch

    def _prepared(self, cql: str) -> PreparedStatement:
        if cql not in self._statements:
            with self._spoken():
                statement = self._patiently(lambda: self._session.prepare(cql), WRITE_PATIENCE)
            statement.is_idempotent = True
            self._statements[cql] = statement
        return self._statements[cql]

    def _answer(self, statement: Statement, sent: ResponseFuture) -> ResultSet:
        try:
            return sent.result()
        except _PASSING:
            return self._patiently(lambda: self._session.execute(statement), WRITE_PATIENCE)

    def _patiently(self, ask: Callable[[], T], patience: float) -> T:
        """Asks until there is an answer, or until `patience` seconds have passed."""
        self._session  # noqa: B018  that there is no server is said at once
        until, wait = time.monotonic() + patience, FIRST_WAIT
        while True:
            try:
                return ask()
            except _PASSING:
                if time.monotonic() + wait > until:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    # Connecting

    @cached_property
    def _session(self) -> Session:
        with self._spoken():
            self._driver = self._new_driver()
            try:
                session = self._driver.connect(wait_for_all_pools=True)
                _Keyspace(session, self._named.name).migrate()
            except BaseException:
                self._driver.shutdown()
                raise
            return session

    def _new_driver(self) -> Driver:
        named = self._named
        profile = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy()),  # of the first host that answers
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=REQUEST_SECONDS,
        )
        return Driver(
            [
                DefaultEndPoint(host.host, host.port) for host in named.hosts
            ],  # names: certificates are verified with them
            port=named.hosts[0].port,
            protocol_version=PROTOCOL,
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            auth_provider=PlainTextAuthProvider(named.user, named.password) if named.user else None,
            ssl_context=ssl.create_default_context(cafile=self._ca) if named.tls else None,
            reconnection_policy=ExponentialReconnectionPolicy(0.5, LONGEST_WAIT, max_attempts=None),
            connect_timeout=CONNECT_SECONDS,
            control_connection_timeout=CONNECT_SECONDS,
            application_name="footfall",
        )

    @contextmanager
    def _spoken(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as problem:
            raise self.unavailable(_reason(problem)) from None

    def unavailable(self, reason: str) -> EventStoreUnavailable:
        """What to raise when the cluster cannot be used."""
        return EventStoreUnavailable(
            f"Cassandra at {self._named} cannot be used: {reason} (check FOOTFALL_EVENT_STORE)"
        )


def _reason(problem: Exception) -> str:
    """What the driver says, without its objects: never a password, nor a value of a statement."""
    if isinstance(problem, NoHostAvailable) and problem.errors:
        return "; ".join(dict.fromkeys(_reason(error) for error in problem.errors.values()))
    if isinstance(problem, OperationTimedOut):
        return "no answer in time"
    said = re.search(r'message="(.*?)"(?: info=|$)', str(problem), re.DOTALL)
    text = said[1] if said else str(problem)
    return " ".join(text.split()) or type(problem).__name__


class _Keyspace:
    """Makes the keyspace and brings its tables up to date. Several may do so at once: each statement can be repeated, and all
    are sent to one node, since two nodes that make the same table at once each make one of their own."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name

    def migrate(self) -> None:
        """Makes what is missing, and nothing if nothing is: then no right to make anything is needed."""
        if self._name not in self._session.cluster.metadata.keyspaces:
            self._make(self._new_keyspace())
        self._session.set_keyspace(self._name)
        done = self._done()
        missing = [script for script in _scripts() if script.name not in done]
        for script in missing:
            for statement in statements(script.read_text()):
                self._make(statement)
            self._session.execute(
                "insert into migrations (name, applied_at) values (%s, totimestamp(now()))", [script.name]
            )
        if missing:
            self._session.cluster.refresh_schema_metadata()  # waits until all nodes agree

    def _new_keyspace(self) -> str:
        """With three replicas in this data centre, or as many as it has nodes."""
        here = self._session.execute("select data_center from system.local").one().data_center
        nodes = sum(host.datacenter == here for host in self._session.cluster.metadata.all_hosts())
        return (
            f"create keyspace if not exists {protect_name(self._name)} with replication = "
            f"{{'class': 'NetworkTopologyStrategy', '{here}': {min(MOST_REPLICAS, nodes)}}}"
        )

    def _done(self) -> set[str]:
        tables = "select table_name from system_schema.tables where keyspace_name = %s and table_name = 'migrations'"
        if not self._session.execute(tables, [self._name]).one():
            self._make("create table if not exists migrations (name text primary key, applied_at timestamp)")
        return {row.name for row in self._session.execute("select name from migrations")}

    def _make(self, statement: str) -> None:
        """Returns when all nodes know of it."""
        first = min(self._session.get_pool_state(), key=lambda host: str(host.host_id))
        self._session.execute(statement, host=first)


def _scripts() -> list[Any]:
    folder = importlib.resources.files("ingestion.event_store.cassandra_schema")
    return sorted((file for file in folder.iterdir() if file.name.endswith(".cql")), key=lambda file: file.name)


def statements(script: str) -> list[str]:
    """The statements of a script, which end in a semicolon; what follows -- is left out."""
    text = re.sub(r"--.*", "", script)
    return [statement.strip() for statement in text.split(";") if statement.strip()]
