"""Cassandra: one node, with its keyspace to be made by who uses it."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from orchestration.services.java import JavaService
from orchestration.services.service import HOST, USER, write_private

KEYSPACE = "footfall"

SETTINGS: Mapping[str, Any] = {
    "cluster_name": "footfall",
    "num_tokens": 1,
    "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
    "endpoint_snitch": "SimpleSnitch",
    "dynamic_snitch": False,
    "listen_address": HOST,
    "rpc_address": HOST,
    "commitlog_sync": "batch",  # there is no other node that has what this one loses: it acknowledges what is on disk
    "commitlog_segment_size": "32MiB",
    "memtable_heap_space": "256MiB",
    "memtable_offheap_space": "256MiB",
    "memtable_allocation_type": "offheap_objects",
    "file_cache_size": "64MiB",
    "networking_cache_size": "32MiB",
    "key_cache_size": "16MiB",
    "concurrent_reads": 8,
    "concurrent_writes": 16,
    "concurrent_compactors": 1,
    "compaction_throughput": "64MiB/s",
    "batch_size_warn_threshold": "64KiB",
    "batch_size_fail_threshold": "256KiB",
    "auto_snapshot": False,
    "sstable": {"selected_format": "bti"},
    "storage_compatibility_mode": "NONE",
}

LOGBACK = """<configuration>
  <appender name="log" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>%d %-5level %logger{20} %msg%n</pattern></encoder></appender>
  <root level="WARN"><appender-ref ref="log"/></root>
</configuration>
"""

EXPORTS = """
    java.base/jdk.internal.misc java.base/jdk.internal.ref java.base/sun.nio.ch java.management.rmi/com.sun.jmx.remote.internal.rmi
    java.rmi/sun.rmi.registry java.rmi/sun.rmi.server java.rmi/sun.rmi.transport.tcp java.sql/java.sql jdk.unsupported/sun.misc
    jdk.attach/sun.tools.attach""".split()
OPENS = """
    java.base/java.io java.base/java.lang java.base/java.lang.module java.base/java.lang.reflect java.base/java.nio java.base/java.util
    java.base/java.util.concurrent java.base/java.util.concurrent.atomic java.base/jdk.internal.loader java.base/jdk.internal.math
    java.base/jdk.internal.module java.base/jdk.internal.ref java.base/jdk.internal.reflect java.base/jdk.internal.util.jar
    java.base/sun.nio.ch java.rmi/sun.rmi.transport.tcp jdk.management/com.sun.management.internal""".split()
"""What its own conf/jvm17-server.options lets it see of Java."""

JAVA_OPTIONS = (
    "-Xms256m", "-Xmx1g", "-Xss256k", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=512m", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
    *(f"--add-exports={name}=ALL-UNNAMED" for name in EXPORTS),
    *(f"--add-opens={name}=ALL-UNNAMED" for name in OPENS),
    "-Djdk.attach.allowAttachSelf=true", "-Djava.net.preferIPv4Stack=true", "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dlogback.configurationFile=logback.xml", "-Dcassandra.storagedir=data", "-Dcassandra-foreground=yes",
    "-Dcassandra.ring_delay_ms=1000", "-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.superuser_setup_delay_ms=0",
)  # fmt: skip
"""The last line: a ring of one node waits for nobody. Without a port for JMX it has none."""


class Cassandra(JavaService):
    """A Cassandra for the event store."""

    name = "cassandra"
    usual_port = 9042
    inner_ports = ("storage",)

    @property
    def url(self) -> str:
        """What FOOTFALL_EVENT_STORE takes."""
        who = f"{USER}:{self.secret}@" if self.secure else ""
        return f"cassandra://{who}{self.address}/{KEYSPACE}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which Footfall uses it."""
        return {"FOOTFALL_EVENT_STORE": self.url}

    def prepare(self) -> None:
        """Writes the configuration. It makes its folders itself."""
        self.data.mkdir(exist_ok=True)
        (self.folder / "logback.xml").write_text(LOGBACK)
        storage = self.remembered["ports"]["storage"]
        seeds = {
            "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
            "parameters": [{"seeds": f"{HOST}:{storage}"}],
        }
        ports = {"native_transport_port": self.port, "storage_port": storage, "seed_provider": [seeds]}
        settings = {**SETTINGS, **ports, **self._server_security()}
        write_private(
            self.folder / "cassandra.yaml", json.dumps(settings, indent=2, ensure_ascii=False)
        )  # JSON is YAML

    def command(self) -> Sequence[str]:
        """How it is started, in its folder."""
        agent = next(jar for jar in self.jars if jar.name.startswith("jamm-"))  # measures what memtables take
        config = f"-Dcassandra.config={(self.folder / 'cassandra.yaml').as_uri()}"
        main = "org.apache.cassandra.service.CassandraDaemon"
        return [str(self.java), *JAVA_OPTIONS, f"-javaagent:{agent}", config, self.mark, main]

    def answers(self) -> bool:
        """Whether a query is answered; with certificates for its user, who is made first."""
        if not self.secure:
            return self._answers(None, "select release_version from system.local")
        made = self.folder / "user-is-made"
        if not made.exists():
            # The first user of every Cassandra, who loses the well-known password by this.
            well_known = ("cassandra", "cassandra")
            role = f"with password = '{self.secret}' and superuser = true and login = true"
            if not self._answers(well_known, f"create role if not exists {USER} {role}", f"alter role {USER} {role}"):
                return False
            made.touch()
        return self._answers((USER, self.secret), "alter role cassandra with login = false")

    def _answers(self, login: tuple[str, str] | None, *statements: str) -> bool:
        from cassandra import DriverException
        from cassandra.auth import PlainTextAuthProvider
        from cassandra.cluster import Cluster, NoHostAvailable

        auth = PlainTextAuthProvider(*login) if login else None
        cluster = Cluster([HOST], port=self.port, auth_provider=auth, ssl_context=self.trusted(), ssl_options=self._host(),
                          connect_timeout=5)  # fmt: skip
        try:
            with _quiet(), suppress(DriverException, NoHostAvailable):
                session = cluster.connect()
                for statement in statements:
                    session.execute(statement)
                return True
            return False
        finally:
            cluster.shutdown()

    def _host(self) -> Mapping[str, str] | None:
        """Without it the driver would not look at whose the certificate is."""
        return {"server_hostname": HOST} if self.secure else None

    def _server_security(self) -> Mapping[str, Any]:
        if not self.secure:
            return {"authenticator": "AllowAllAuthenticator", "authorizer": "AllowAllAuthorizer"}
        pem = self.folder / "server.pem"
        write_private(pem, self.secure.key.read_text() + self.secure.certificate.read_text())
        return {
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "client_encryption_options": {
                "enabled": True,
                "optional": False,
                "require_client_auth": False,
                "keystore": str(pem),
                "truststore": str(self.secure.ca),
                "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
            },
        }


@contextmanager
def _quiet() -> Iterator[None]:
    """The driver logs each refusal; here they are expected until it answers."""
    logger = logging.getLogger("cassandra")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
