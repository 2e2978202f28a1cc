"""The topic of the event log: how it is made, and what one that is there must be like."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import NoError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from ingestion.event_log import TopicRefused
from ingestion.site_time import HOUR_MS

LEAST_RETENTION_MS = 72 * HOUR_MS
NEW_RETENTION_MS = 7 * 24 * HOUR_MS
RECORD_BYTES = 1_048_588
"""The largest record as Kafka counts it: Kafka's own default, and enough for MAX_RECORD_BYTES."""
MOST_REPLICAS = 3
MOST_PARTITIONS = 1_000
CREATE_MS = 5_000


@dataclass(frozen=True)
class Need:
    """What a setting of the topic must be, and what it is set to where it is not."""

    setting: str
    value: str
    is_met: Callable[[str], bool]
    spoken: str


def needs(replicas: int) -> tuple[Need, ...]:
    """The settings that count, of a topic with some replicas."""
    in_sync = range(2 if replicas >= MOST_REPLICAS else 1, replicas + 1)
    return (
        Need(
            "message.timestamp.type", "LogAppendTime", "LogAppendTime".__eq__, "LogAppendTime: arrival hours follow it"
        ),
        Need("cleanup.policy", "delete", "delete".__eq__, "delete and nothing else: compaction removes events"),
        Need(
            "retention.ms",
            str(NEW_RETENTION_MS),
            lambda value: int(value) >= LEAST_RETENTION_MS or int(value) == -1,
            f"at least {LEAST_RETENTION_MS} (72 hours)",
        ),
        Need(
            "max.message.bytes",
            str(RECORD_BYTES),
            lambda value: int(value) >= RECORD_BYTES,
            f"at least {RECORD_BYTES}, a whole record",
        ),
        Need("unclean.leader.election.enable", "false", "false".__eq__, "false: it would lose what was acknowledged"),
        Need(
            "min.insync.replicas",
            str(in_sync.start),
            lambda value: int(value) in in_sync,
            f"from {in_sync.start} to {replicas}, as there are {replicas} replicas",
        ),
    )


def described(admin: KafkaAdminClient, name: str) -> Mapping[str, Any]:
    """What the cluster says of a topic. Raises UnknownTopicOrPartitionError where there is none, and other KafkaErrors."""
    (topic,) = admin.describe_topics([name])
    problem = for_code(topic["error_code"])
    if problem is not NoError:
        raise problem
    return topic  # type: ignore[no-any-return]


def ensure(admin: KafkaAdminClient, name: str, partitions: int, bootstrap: str) -> None:
    """Makes the topic where there is none, and checks it. Raises TopicRefused, KafkaError."""
    try:
        topic = described(admin, name)
    except UnknownTopicOrPartitionError:
        _create(admin, name, partitions)
        topic = described(admin, name)
    _check(admin, name, topic, bootstrap)


def _create(admin: KafkaAdminClient, name: str, partitions: int) -> None:
    replicas = min(MOST_REPLICAS, sum(not broker.get("is_fenced") for broker in admin.describe_cluster()["brokers"]))
    settings = {need.setting: need.value for need in needs(replicas)}
    wanted = {"num_partitions": partitions, "replication_factor": replicas, "configs": settings}
    with suppress(TopicAlreadyExistsError):  # another process was faster
        admin.create_topics({name: wanted}, timeout_ms=CREATE_MS)
    admin.wait_for_topics([name], timeout_ms=CREATE_MS)


def _check(admin: KafkaAdminClient, name: str, topic: Mapping[str, Any], bootstrap: str) -> None:
    if len(topic["partitions"]) > MOST_PARTITIONS:
        raise TopicRefused(
            f"topic {name} has {len(topic['partitions'])} partitions: at most {MOST_PARTITIONS} can be read"
        )
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    settings = admin.describe_configs([resource], config_filter="all").get("topic", {}).get(name)
    if not settings:
        raise TopicRefused(f"the settings of topic {name} cannot be read: allow the user to DescribeConfigs of it")
    for need in needs(min(len(part["replica_nodes"]) for part in topic["partitions"])):
        value = settings[need.setting]["value"]
        if not need.is_met(value):
            raise TopicRefused(
                f"topic {name} has {need.setting}={value}, which must be {need.spoken}. Set it: "
                f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics --entity-name {name} "
                f"--add-config {need.setting}={need.value}"
            )
