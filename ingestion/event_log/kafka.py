"""The event log on Kafka: a topic. The offsets are Kafka's, and no consumer group has a part in it: the ledger knows what was read.

Kafka stamps each record as it takes it (`LogAppendTime`). A record that is acknowledged is on all replicas in sync. Records of
transactions are read once they are committed, and those of aborted ones never.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from kafka import IsolationLevel, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError

from ingestion.event_log import EventLogUnavailable, LogIdentity, Record, TopicRefused
from ingestion.event_log.kafka_servers import REQUEST_SECONDS, Servers
from ingestion.event_log.kafka_topic import described, ensure
from ingestion.settings import Cluster

APPEND_SECONDS = 8.5
"""From the first try to the last acknowledgement: the collector waits ten seconds."""
ANSWER_SECONDS = 8.0
"""How long a question about the topic is repeated."""
READ_SECONDS = 60.0
"""How long a reader waits for the next record: servers restart."""
COMPRESSION = "zstd"
"""Of NDJSON 11 to 1 at 720 MB/s, unpacked at 1,850; lz4: 6 to 1 at 1,550, unpacked at 1,660."""
REQUEST_BYTES = 8_000_000
FETCH_BYTES = 8_000_000
"""What a reader holds packed."""
RECORDS_AT_ONCE = 32
"""What a reader holds unpacked: 32 MB of the largest ones."""
POLL_MS = 500
RETRY_SECONDS = 0.2

GONE = (OffsetOutOfRangeError, LogTruncationError)
"""Another try would find other records, or none."""

Answer = TypeVar("Answer")


class KafkaEventLog:
    """A topic. `append` is for one thread, everything else for several."""

    def __init__(self, cluster: Cluster, new_partitions: int, ca: Path | None) -> None:
        self._topic = cluster.name
        self._new_partitions = new_partitions
        self._servers = Servers(cluster, ca)
        self._admin: KafkaAdminClient | None = None
        self._admin_made = threading.Lock()
        self._is_checked = False
        self._producer: KafkaProducer | None = None
        self._idle: list[KafkaConsumer] = []

    def __enter__(self) -> "KafkaEventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_producer()
        self._drop_admin()
        while self._idle:
            _close(self._idle.pop())

    # Writing

    def append(self, records: Sequence[bytes]) -> None:
        """All records, to partitions that are available. When an acknowledgement is missing, nobody knows whether a record is there."""
        until = time.monotonic() + APPEND_SECONDS
        try:
            if not self._is_checked:
                self._asked(lambda _: None)
            with self._servers.spoken():
                producer = self._producing(until)
                sent = [producer.send(self._topic, record) for record in records]
                for acknowledged in sent:
                    acknowledged.get(max(0.0, until - time.monotonic()))
        except EventLogUnavailable:
            self._drop_producer()  # what it holds would be sent later; and after some errors it never works again
            self._is_checked = False
            raise

    def _producing(self, until: float) -> KafkaProducer:
        if self._producer is None:
            self._producer = self._servers.connected(
                KafkaProducer,
                until - time.monotonic(),
                acks="all",
                enable_idempotence=True,
                compression_type=COMPRESSION,
                linger_ms=0,
                max_request_size=REQUEST_BYTES,
                max_block_ms=int(1_000 * REQUEST_SECONDS),
                delivery_timeout_ms=int(1_000 * APPEND_SECONDS),
                metadata_max_age_ms=60_000,  # finds partitions that were added
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        return self._producer

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer:
            producer._sender.force_close()  # where records wait, `close` alone gives up and leaves its thread to send them later
            with suppress(KafkaError):
                producer.close(timeout=0)

    # Reading

    def identity(self) -> LogIdentity:
        """The topic's name, and the id that Kafka gave it when it was made."""
        topic = self._asked(lambda admin: described(admin, self._topic))
        return LogIdentity(self._topic, str(topic["topic_id"]))

    def partitions(self) -> Sequence[int]:
        """Those that there are now."""
        topic = self._asked(lambda admin: described(admin, self._topic))
        return sorted(part["partition_index"] for part in topic["partitions"])

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that retention left, and the end of what can be read: below any open transaction."""
        return self._offset(partition, OffsetSpec.EARLIEST), self._offset(partition, OffsetSpec.LATEST)

    def offset_at(self, partition: int, instant_ms: int) -> int | None:
        """The offset of the first record of this instant (ms) or later."""
        found = self._offset(partition, instant_ms)
        return found if found >= 0 else None

    def _offset(self, partition: int, which: int) -> int:
        part = TopicPartition(self._topic, partition)
        found = self._asked(lambda admin: admin.list_partition_offsets({part: which}, IsolationLevel.READ_COMMITTED))
        return int(found[part].offset)

    def read(self, partition: int, first: int, end: int) -> Iterator[Record]:
        """The records of a range: `RECORDS_AT_ONCE` in memory, and `FETCH_BYTES` still packed. A tombstone is a record without
        lines. Goes on where it was when servers restart; raises EventLogUnavailable after `READ_SECONDS` without a record, and
        at once when retention was faster."""
        part = TopicPartition(self._topic, partition)
        consumer, position, moved = None, first, time.monotonic()
        try:
            while position < end:
                try:
                    with self._servers.spoken():
                        consumer = consumer or self._consuming(part, position)
                        records, reached = _polled(consumer, part)
                except EventLogUnavailable as problem:
                    if consumer:
                        _close(consumer)
                    consumer = None
                    if isinstance(problem.__cause__, GONE) or time.monotonic() - moved > READ_SECONDS:
                        raise
                    time.sleep(RETRY_SECONDS)
                    continue
                yield from (Record(record.offset, record.value or b"") for record in records if record.offset < end)
                if reached > position:
                    position, moved = reached, time.monotonic()
                elif time.monotonic() - moved > READ_SECONDS:
                    raise self._servers.unavailable(f"offset {position} of {part} did not come in {READ_SECONDS:.0f} s")
        finally:
            if consumer:
                self._idle.append(consumer)

    def _consuming(self, part: TopicPartition, position: int) -> KafkaConsumer:
        """A consumer of its own for each reader; one that is idle is taken, as connecting takes long."""
        consumer = self._idle.pop() if self._idle else self._new_consumer()
        consumer.assign([part])
        consumer.seek(part, position)
        return consumer

    def _new_consumer(self) -> KafkaConsumer:
        return self._servers.connected(
            KafkaConsumer,
            ANSWER_SECONDS,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES,
            max_poll_records=RECORDS_AT_ONCE,
            retry_backoff_ms=20,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    # The topic

    def _asked(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        """An answer of the cluster, of which the topic is checked first. Asked again over a new connection if one broke."""
        until = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                with self._servers.spoken():
                    self._ensure(until)
                    return question(self._connected(until))
            except TopicRefused:
                raise
            except EventLogUnavailable:
                self._drop_admin()
                if time.monotonic() + RETRY_SECONDS > until:
                    raise
                time.sleep(RETRY_SECONDS)

    def _ensure(self, until: float) -> None:
        """Makes the topic, or checks it, when it is first used."""
        if not self._is_checked:
            ensure(self._connected(until), self._topic, self._new_partitions, self._servers.bootstrap)
            self._is_checked = True

    def _connected(self, until: float) -> KafkaAdminClient:
        with self._admin_made:
            if self._admin is None:
                self._admin = self._servers.connected(KafkaAdminClient, until - time.monotonic())
            return self._admin

    def _drop_admin(self) -> None:
        with self._admin_made:
            admin, self._admin = self._admin, None
        if admin:
            admin.close()


def _polled(consumer: KafkaConsumer, part: TopicPartition) -> tuple[list[ConsumerRecord], int]:
    """Some records, perhaps none, and the offset where the next ones begin: also behind what is no record."""
    records = consumer.poll(POLL_MS).get(part, [])
    return records, records[-1].offset + 1 if records else consumer.position(part, POLL_MS)


def _close(consumer: KafkaConsumer) -> None:
    with suppress(KafkaError):
        consumer.close(autocommit=False, timeout_ms=POLL_MS)
