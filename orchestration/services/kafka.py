"""Kafka: one node that is broker and controller (KRaft), with its topics to be made by who uses them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ingestion.settings import Address, Cluster
from orchestration.services.java import JavaService
from orchestration.services.service import HOST, USER, write_private

TOPIC = "events"
CONNECT_SECONDS = 2.0
CLUSTER_ID = "Zm9vdGZhbGwtbG9jYWwtMQ"
"""Any 16 bytes in Base64: a home has one cluster of one node."""

JAVA_OPTIONS = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-XX:+ExitOnOutOfMemoryError",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")  # fmt: skip

PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "2",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",  # there is nobody to wait for
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",  # as long does one that was killed keep the next from being a broker
    "message.max.bytes": "8388608",
    "log.segment.bytes": "134217728",
    "log.retention.check.interval.ms": "10000",
}


class Kafka(JavaService):
    """A Kafka for the event log."""

    name = "kafka"
    usual_port = 9092
    inner_ports = ("controller",)

    @property
    def url(self) -> str:
        """What FOOTFALL_EVENT_LOG takes."""
        who = f"{USER}:{self.secret}@" if self.secure else ""
        return f"kafka://{who}{self.address}/{TOPIC}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which Footfall uses it."""
        return {"FOOTFALL_EVENT_LOG": self.url}

    def prepare(self) -> None:
        """Formats a folder where there is none, with a user where there are certificates, and writes the configuration."""
        if not self.data.exists():
            with self.new_data() as new:
                self._format(new)
        self._configure(self.folder / "server.properties", "data")

    def command(self) -> Sequence[str]:
        """How it is started, in its folder."""
        return [str(self.java), *JAVA_OPTIONS, self.mark, "kafka.Kafka", "server.properties"]

    def answers(self) -> bool:
        """Whether it says that its one broker takes records."""
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        from ingestion.event_log.kafka_servers import Servers

        user, password = (USER, self.secret) if self.secure else (None, None)
        cluster = Cluster((Address(HOST, self.port),), TOPIC, user, password, tls=self.secure is not None)
        try:
            admin = Servers(cluster, self.secure.ca if self.secure else None).connected(
                KafkaAdminClient, CONNECT_SECONDS
            )
        except KafkaError:
            return False
        try:
            return [broker["is_fenced"] for broker in admin.describe_cluster()["brokers"]] == [False]
        except KafkaError:
            return False
        finally:
            admin.close()

    def _format(self, new: Path) -> None:
        properties = new / "format.properties"
        self._configure(properties, f"{new.name}/data")
        user = ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={self.secret}]"] if self.secure else []
        self.run([str(self.java), *JAVA_OPTIONS, self.mark, "kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID,
                  "--config", str(properties), *user], cwd=self.folder, env=self.variables())  # fmt: skip

    def _configure(self, file: Path, data: str) -> None:
        """Paths are relative to its folder: a properties file has its own ideas of what is in a path."""
        protocol = "SASL_SSL" if self.secure else "PLAINTEXT"
        controller = f"{HOST}:{self.remembered['ports']['controller']}"
        properties = PROPERTIES | self._server_security() | {
            "log.dirs": data,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{protocol}://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"{protocol}://{self.address}",
            "inter.broker.listener.name": protocol,
            "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:PLAINTEXT",
        }  # fmt: skip
        write_private(file, "".join(f"{name}={value}\n" for name, value in properties.items()))

    def _server_security(self) -> dict[str, str]:
        if not self.secure:
            return {}
        write_private(self.folder / "server.pem", self.secure.key.read_text() + self.secure.certificate.read_text())
        write_private(self.folder / "ca.pem", self.secure.ca.read_text())
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": "server.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": "ca.pem",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": f'{login} username="{USER}" password="{self.secret}";',
        }
