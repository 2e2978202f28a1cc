"""The servers of a Kafka cluster: how its clients connect, and what their errors mean to a person."""

import logging
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from kafka.errors import (
    AuthorizationError,
    KafkaError,
    KafkaTimeoutError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
)
from kafka.net.compat import KafkaNetClient

from ingestion.event_log import EventLogUnavailable
from ingestion.settings import Cluster

REQUEST_SECONDS = 4.0
"""How long a server may take to answer. It answers in milliseconds, unless it hangs."""
RECONNECT_MS = 1_000
"""The longest wait before a server that went away is tried again."""

Client = TypeVar("Client")


class _LastFailure(logging.Handler):
    """Why the last attempt to connect failed. The clients try until their time is over and raise that it is: what happened
    they only log."""

    problem: Exception | None = None

    def emit(self, record: logging.LogRecord) -> None:
        for said in record.args if isinstance(record.args, tuple) else ():
            refused = isinstance(self.problem, SaslAuthenticationFailedError)  # the timeouts that follow tell less
            if isinstance(said, Exception) and not isinstance(said, KafkaTimeoutError) and not refused:
                self.problem = said


logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it logs it raises too; at DEBUG it logs passwords
_connecting = logging.getLogger("kafka.net.manager")
_connecting.setLevel(logging.WARNING)
_connecting.propagate = False
_last_failure = _LastFailure()
_connecting.addHandler(_last_failure)


class Servers:
    """The servers that a setting names."""

    def __init__(self, cluster: Cluster, ca: Path | None) -> None:
        self.cluster = cluster
        self._ca = ca
        self.bootstrap = ",".join(map(str, cluster.hosts))

    def connected(self, kind: Callable[..., Client], seconds: float, **options: Any) -> Client:
        """A client of some kind, which connects within some seconds. Raises KafkaError, OSError."""
        inner: list[KafkaNetClient] = []

        def remembered(**of_client: Any) -> KafkaNetClient:
            inner.append(KafkaNetClient(**of_client))
            return inner[-1]

        _last_failure.problem = None
        try:
            return kind(kafka_client=remembered, **self._options(seconds), **options)
        except BaseException:
            for client in inner:  # one that cannot connect leaves its thread behind
                client.close()
            raise

    def _options(self, seconds: float) -> dict[str, Any]:
        user, tls = self.cluster.user, self.cluster.tls
        return {
            "bootstrap_servers": self.bootstrap.split(","),
            "bootstrap_timeout_ms": max(1, int(1_000 * seconds)),
            "client_id": "footfall",
            "request_timeout_ms": int(1_000 * REQUEST_SECONDS),
            "reconnect_backoff_max_ms": RECONNECT_MS,
            "security_protocol": ("SASL_" if user else "") + ("SSL" if tls else "PLAINTEXT"),
            "ssl_context": ssl.create_default_context(cafile=self._ca) if tls else None,  # verifies chain and host name
            "sasl_mechanism": "SCRAM-SHA-512" if user else None,
            "sasl_plain_username": user and user.replace("=", "=3D").replace(",", "=2C"),  # RFC 5802, section 5.1
            "sasl_plain_password": self.cluster.password,
        }

    @contextmanager
    def spoken(self) -> Iterator[None]:
        """Raises what goes wrong with Kafka as EventLogUnavailable, which names the setting, the servers and the reason."""
        try:
            yield
        except (KafkaError, OSError, RuntimeError) as problem:
            raise self.unavailable(self._reason(problem)) from problem

    def unavailable(self, reason: str) -> EventLogUnavailable:
        """An error that names the setting and the servers."""
        return EventLogUnavailable(f"Kafka at {self.bootstrap} (FOOTFALL_EVENT_LOG): {reason}")

    def _reason(self, problem: Exception) -> str:
        if isinstance(problem, KafkaTimeoutError):
            problem = _last_failure.problem or problem
        said = " ".join(str(problem).split())
        if isinstance(problem, SaslAuthenticationFailedError):
            return f"it refuses the user {self.cluster.user}, or the password"
        if isinstance(problem, AuthorizationError):
            return f"the user {self.cluster.user} may not use the topic {self.cluster.name} ({type(problem).__name__})"
        if isinstance(problem, OffsetOutOfRangeError):
            return f"records were gone before they were read: {said[:200]}"
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return f"its certificate is not trusted: set FOOTFALL_CA ({said[:200]})"
        if "socket disconnected" in said or "[SSL" in said:
            other = "no" if self.cluster.tls else "yes"
            user = f"it may refuse the user {self.cluster.user}, or the password; " if self.cluster.user else ""
            return f"it ends the connection: {user}or ?tls={other} is missing ({said[:200]})"
        if "DNS" in said:
            return "no such host"
        return said[:200] or type(problem).__name__
