"""The event log on a real Kafka: what retention, operators and a server that dies do to it."""

import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from assets.checks import offset_ranges_tile, what_came_is_reported
from assets.raw_events import pull_until, unread_hours
from ingestion.event_log import EventLogUnavailable, TopicRefused, open_event_log
from ingestion.event_log.kafka import KafkaEventLog
from ingestion.event_log.postgres import EMBEDDED
from ingestion.ledger import LogReplaced, OffsetRange
from ingestion.pull import LogTruncated
from ingestion.settings import Cluster, Settings, from_environment
from ingestion.site_time import hour_key
from ingestion.stores import Stores, open_stores
from orchestration.services import Certificates, Service, running_services
from orchestration.services.service import USER

TOPICS = count(1)


@pytest.fixture
def admin(kafka: Service) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=[kafka.address])
    yield client
    client.close()


@pytest.fixture
def topic() -> str:
    """The name of a topic that nobody has."""
    return f"events-{next(TOPICS)}"


@pytest.fixture
def stores(kafka: Service, topic: str, tmp_path: Path, database: str) -> Iterator[Stores]:
    """A home whose event log is a topic of two partitions."""
    environment = {
        "FOOTFALL_HOME": str(tmp_path / "home"),
        "FOOTFALL_POSTGRES": database,
        "FOOTFALL_EVENT_LOG": f"kafka://{kafka.address}/{topic}",
        "FOOTFALL_EVENT_LOG_PARTITIONS": "2",
    }
    with open_stores(from_environment(environment)) as stores:
        yield stores


def cluster(kafka: Service, topic: str) -> Cluster:
    found = from_environment({"FOOTFALL_EVENT_LOG": f"kafka://{kafka.address}/{topic}"}).event_log
    assert found
    return found


def append(stores: Stores, *records: bytes) -> None:
    with open_event_log(stores.settings, stores.postgres_url) as log:
        log.append(records)


def produce(kafka: Service, topic: str, *values: bytes | None, partition: int = 0, **options: object) -> None:
    """As other programs do."""
    producer = KafkaProducer(bootstrap_servers=[kafka.address], **options)
    for value in values:
        producer.send(topic, value, key=b"key", headers=[("a", b"header")], partition=partition)
    producer.flush(10)
    producer.close()


def pull(stores: Stores) -> None:
    """All that there is now, an hour later: arrival hours follow what Kafka says of each record."""
    later = datetime.now(UTC) + timedelta(hours=1)
    pull_until(stores, hour_key(later), later)


def raw(stores: Stores) -> Counter[bytes]:
    hours = [hour_key(datetime.now(UTC) + timedelta(hours=number)) for number in (-1, 0, 1)]
    objects = [item for hour in hours for item in stores.ledger.raw_objects(hour)]
    contents = [zstandard.decompress(stores.lake.get_listed(item)) for item in objects]
    assert [len(content.splitlines()) for content in contents] == [item.rows for item in objects]
    return Counter(line for content in contents for line in content.splitlines())


def ranges(stores: Stores) -> list[tuple[int, int, int, bool]]:
    frame = stores.ledger.landed(
        "select log_partition, first_offset, end_offset, lost from footfall.offset_ranges order by 1, 2",
        [],
        dict.fromkeys(["partition", "first", "end", "lost"]),
    )
    return frame.rows()


def create(admin: KafkaAdminClient, topic: str, partitions: int = 1, **settings_: str) -> None:
    usual = {"message.timestamp.type": "LogAppendTime"}
    configs = usual | {name.replace("_", "."): value for name, value in settings_.items()}
    admin.create_topics(
        {topic: {"num_partitions": partitions, "replication_factor": 1, "configs": configs}}, wait_for_metadata=True
    )


def create_anew(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])
    until = time.monotonic() + 20
    while topic in admin.list_topics() and time.monotonic() < until:
        time.sleep(0.1)
    create(admin, topic, partitions=2)


def numbered(first: int, end: int) -> list[bytes]:
    return [b"line %06d" % number for number in range(first, end)]


# The topic


def test_a_topic_that_is_not_there_is_made_so_that_nothing_is_lost(
    stores: Stores, admin: KafkaAdminClient, topic: str
) -> None:
    append(stores, b"a")
    (made,) = admin.describe_topics([topic])
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    configs = admin.describe_configs([resource], config_filter="all")["topic"][topic]
    assert len(made["partitions"]) == 2
    assert {name: configs[name]["value"] for name in ("message.timestamp.type", "cleanup.policy", "retention.ms")} == {
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "retention.ms": "604800000",
    }
    assert configs["unclean.leader.election.enable"]["value"] == "false"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("message.timestamp.type", "CreateTime"),
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "259199999"),
        ("max.message.bytes", "1000000"),
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "2"),
    ],
)
def test_a_topic_where_events_could_be_lost_is_refused(
    kafka: Service, admin: KafkaAdminClient, topic: str, setting: str, value: str
) -> None:
    create(admin, topic, **{setting: value})
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        for use in (lambda: log.append([b"x"]), log.partitions):
            with pytest.raises(TopicRefused) as refused:
                use()
            assert f"topic {topic} has {setting}={value}, which must be" in str(refused.value)
            assert f"kafka-configs.sh --bootstrap-server {kafka.address} --alter" in str(refused.value)
        way_out = str(refused.value).rpartition("--add-config ")[2].split("=")
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict([way_out]))])
        log.append([b"x"])


@pytest.mark.parametrize("retention", ["259200000", "-1"])
def test_a_topic_of_72_hours_or_for_ever_is_good(
    kafka: Service, admin: KafkaAdminClient, topic: str, retention: str
) -> None:
    create(admin, topic, retention_ms=retention)
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        log.append([b"x"])
        assert log.bounds(0) == (0, 1)


# What is in it


def test_records_of_any_form_are_read(stores: Stores, kafka: Service, topic: str) -> None:
    append(stores, b"one")
    produce(kafka, topic, b"two\nthree\n", b"", None, b"\n \n\t\n", b"four\n\nfive", b"six\n")
    pull(stores)
    assert raw(stores) == Counter([b"one", b"two", b"three", b"four", b"five", b"six"])
    with open_event_log(stores.settings, stores.postgres_url) as log:
        read = [record.lines for part in log.partitions() for record in log.read(part, *log.bounds(part))]
    assert sorted(read) == sorted([b"one", b"two\nthree\n", b"", b"", b"\n \n\t\n", b"four\n\nfive", b"six\n"])


def test_what_a_transaction_takes_back_is_not_read_and_what_it_commits_is(
    kafka: Service, admin: KafkaAdminClient, topic: str
) -> None:
    create(admin, topic)
    producer = KafkaProducer(bootstrap_servers=[kafka.address], transactional_id=topic)
    producer.init_transactions()
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        for values, end in (([b"kept"], producer.commit_transaction), ([b"gone", b"too"], producer.abort_transaction)):
            producer.begin_transaction()
            for value in values:
                producer.send(topic, value)
            producer.flush(10)
            _, before = log.bounds(0)
            end()
            assert before in (0, 2)  # not beyond what is open
        until = time.monotonic() + 10
        while log.bounds(0) != (0, 5) and time.monotonic() < until:
            time.sleep(0.05)
        assert log.bounds(0) == (0, 5)  # with a marker after each
        assert [record.lines for record in log.read(0, 0, 5)] == [b"kept"]
        assert list(log.read(0, 2, 5)) == []
    producer.close()


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.booleans()), max_size=12), st.integers(1, 60))
def test_whenever_and_however_partitions_are_read_every_line_is_there_once(
    stores: Stores, kafka: Service, steps: list[tuple[int, int, bool]], object_bytes: int
) -> None:
    """Steps: records in one of some partitions, and perhaps a pull."""
    assert stores.settings.event_log
    name = f"{stores.settings.event_log.name}-{next(TOPICS)}"
    several = replace(stores.settings.event_log, name=name)
    stores = replace(stores, settings=replace(stores.settings, event_log=several, event_log_partitions=3))
    before, wanted, number = raw(stores), Counter[bytes](), 0
    with pytest.MonkeyPatch.context() as patch, open_event_log(stores.settings, "") as log:
        patch.setattr("ingestion.pull.OBJECT_BYTES", object_bytes)
        assert log.partitions() == [0, 1, 2]
        for records, partition, pulls in steps:
            lines = [b"%s line %d" % (name.encode(), number + each) for each in range(2 * records)]
            number += len(lines)
            wanted.update(lines)
            values = [b"\n".join(lines[first : first + 2]) for first in range(0, len(lines), 2)]
            produce(kafka, name, *values, partition=partition)
            if pulls:
                pull(stores)
        pull(stores)
    assert raw(stores) - before == wanted
    assert offset_ranges_tile(stores).passed


def test_partitions_that_are_added_are_read(
    stores: Stores, kafka: Service, admin: KafkaAdminClient, topic: str
) -> None:
    append(stores, b"a")
    pull(stores)
    with open_event_log(stores.settings, "") as log:
        assert log.partitions() == [0, 1]
        admin.create_partitions({topic: 4})
        produce(kafka, topic, b"b", partition=3)
        assert log.partitions() == [0, 1, 2, 3]
    pull(stores)
    assert raw(stores) == Counter([b"a", b"b"])
    assert (3, 0, 1, False) in ranges(stores)


# What is not there any more


def test_what_retention_took_is_a_lost_range_and_an_alert_and_the_rest_is_read(
    stores: Stores, kafka: Service, admin: KafkaAdminClient, topic: str
) -> None:
    with open_event_log(stores.settings, "") as log:
        log.partitions()
    produce(kafka, topic, *numbered(0, 4))
    produce(kafka, topic, *numbered(10, 12), partition=1)
    pull(stores)
    produce(kafka, topic, *numbered(4, 8))
    admin.delete_records({TopicPartition(topic, 0): 6})
    pull(stores)
    assert ranges(stores) == [(0, 0, 4, False), (0, 4, 6, True), (0, 6, 8, False), (1, 0, 2, False)]
    assert raw(stores) == Counter(numbered(0, 4) + numbered(6, 8) + numbered(10, 12))
    check = offset_ranges_tile(stores)
    assert not check.passed
    assert topic in str(check.metadata["broken"])


def test_retention_in_the_middle_of_a_read_is_said_and_nothing_is_skipped(
    kafka: Service, admin: KafkaAdminClient, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.event_log.kafka.FETCH_BYTES", 1_000)
    monkeypatch.setattr("ingestion.event_log.kafka.RECORDS_AT_ONCE", 1)
    create(admin, topic)
    produce(kafka, topic, *[b"x" * 900] * 20, batch_size=0)
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        reading = log.read(0, 0, 20)
        assert next(reading).offset == 0
        admin.delete_records({TopicPartition(topic, 0): 15})
        with pytest.raises(EventLogUnavailable, match="gone before they were read"):
            for number, record in enumerate(reading, start=1):
                assert record.offset == number


def test_a_topic_that_ends_below_what_was_read_is_an_error_and_changes_nothing(stores: Stores) -> None:
    append(stores, b"a")
    pull(stores)
    stores.ledger.list_range(
        OffsetRange(1, stores.ledger.read_until().get(1, (0, ""))[0], 50, hour_key(datetime.now(UTC)))
    )
    append(stores, *[b"b"] * 10)
    before = ranges(stores)
    for use in (lambda: pull(stores), lambda: unread_hours(stores, datetime.now(UTC), datetime.now(UTC))):
        with pytest.raises(
            LogTruncated, match=r"partition 1 of the event log ends at offset .*, but it was read to 50"
        ):
            use()
    assert ranges(stores) == before


@pytest.mark.parametrize("records", [0, 1, 30])
def test_a_topic_that_was_made_anew_is_an_error_also_when_it_has_grown_past_what_was_read(
    stores: Stores, admin: KafkaAdminClient, topic: str, records: int
) -> None:
    append(stores, b"a", b"b")
    pull(stores)
    before = ranges(stores), raw(stores)
    create_anew(admin, topic)
    if records:
        append(stores, *numbered(0, records))
    for use in (
        lambda: pull(stores),
        lambda: unread_hours(stores, datetime.now(UTC), datetime.now(UTC)),
        lambda: what_came_is_reported(stores, datetime.now(UTC)),
    ):
        with pytest.raises(LogReplaced, match=rf"{topic} is another one than was read.* set FOOTFALL_EVENT_LOG to it"):
            use()
    assert (ranges(stores), raw(stores)) == before


def test_from_the_embedded_log_to_a_topic_and_on_to_another(stores: Stores, topic: str) -> None:
    def moved(to: str | None) -> Stores:
        event_log = to and replace(stores.settings.event_log, name=to)  # type: ignore[type-var]
        return replace(stores, settings=replace(stores.settings, event_log=event_log))

    for number, log in enumerate((None, topic, f"{topic}-next", None)):
        append(moved(log), b"in %d" % number)
        pull(moved(log))
    assert raw(stores) == Counter([b"in 0", b"in 1", b"in 2", b"in 3"])
    assert {partition // 1_000 for partition, *_ in ranges(stores)} == {0, 1, 2}
    assert [end for partition, _, end, _ in ranges(stores) if partition == 0] == [1, 2]
    assert stores.ledger.log_number(EMBEDDED) == 0
    assert offset_ranges_tile(stores).passed
    names = [item.name for item in stores.ledger.raw_objects(hour_key(datetime.now(UTC)))]
    assert len(set(names)) == len(names)


# A server that dies


def test_a_server_that_is_killed_in_the_middle_of_a_read_and_comes_back_costs_nothing(
    kafka: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.event_log.kafka.FETCH_BYTES", 10_000)
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        for first in range(0, 400, 10):
            log.append([b"%06d" % number + os.urandom(2_000) for number in range(first, first + 10)])
        _, end = log.bounds(0)
        assert end == 400
        read = []
        for record in log.read(0, 0, end):
            read.append(record.lines[:6])
            if len(read) == 100:
                kafka.kill()
                threading.Timer(1, kafka.start).start()
        assert read == [b"%06d" % number for number in range(400)]


def test_a_server_that_does_not_come_back_is_said_after_a_while(
    kafka: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingestion.event_log.kafka.FETCH_BYTES", 10_000)
    monkeypatch.setattr("ingestion.event_log.kafka.READ_SECONDS", 3.0)
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        log.append([os.urandom(5_000) for _ in range(50)])
        reading = log.read(0, 0, 50)
        next(reading)
        kafka.kill()
        try:
            with pytest.raises(EventLogUnavailable, match="Kafka at"):
                list(reading)
        finally:
            kafka.start()
        assert len(list(log.read(0, 0, 50))) == 50


def test_an_append_fails_in_time_while_the_server_is_away_and_the_next_one_works(kafka: Service, topic: str) -> None:
    def fails_in_time(log: KafkaEventLog) -> None:
        began = time.monotonic()
        with pytest.raises(EventLogUnavailable, match="FOOTFALL_EVENT_LOG"):
            log.append([b"perhaps"])
        assert time.monotonic() - began < 9.5

    stories: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (kafka.kill, kafka.start),
        (lambda: kafka.send_signal(signal.SIGSTOP), lambda: kafka.send_signal(signal.SIGCONT)),
    ]
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        log.append([b"before"])
        for goes, comes in stories:
            goes()
            try:
                fails_in_time(log)
                fails_in_time(log)
            finally:
                comes()
            log.append([b"after"])
        kept = Counter(record.lines for record in log.read(0, *log.bounds(0)))
    assert kept[b"before"] == 1
    assert kept[b"after"] == 2
    until = time.monotonic() + 5
    while clients() and time.monotonic() < until:
        time.sleep(0.1)
    assert clients() == []  # none that was given up goes on trying


def clients() -> list[str]:
    """Threads of clients of the event log."""
    return [thread.name for thread in threading.enumerate() if "footfall" in thread.name]


def test_a_short_absence_costs_an_append_nothing_but_time(kafka: Service, topic: str) -> None:
    with KafkaEventLog(cluster(kafka, topic), 1, None) as log:
        log.append([b"before"])
        kafka.send_signal(signal.SIGSTOP)
        threading.Timer(1, kafka.send_signal, [signal.SIGCONT]).start()
        log.append([b"meanwhile"])
        assert [record.lines for record in log.read(0, *log.bounds(0))] == [b"before", b"meanwhile"]


# Who may


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Service]:
    """A Kafka that wants TLS and a password."""
    with running_services(tmp_path_factory.mktemp("secure"), ["kafka"], certificates) as services:
        yield services["kafka"]


def as_user(server: Service, topic: str, password: str, ca: Path) -> Settings:
    url = f"kafka://{USER}:{password}@{server.address}/{topic}"
    return from_environment({"FOOTFALL_EVENT_LOG": url, "FOOTFALL_CA": str(ca)})


def test_with_a_password_and_tls(secure: Service, certificates: Certificates, topic: str) -> None:
    with open_event_log(as_user(secure, topic, secure.secret, certificates.ca), "") as log:
        log.append([b"x"])
        assert sum(log.bounds(part)[1] for part in log.partitions()) == 1
        assert [record.lines for part in log.partitions() for record in log.read(part, *log.bounds(part))] == [b"x"]


def test_who_has_a_wrong_password_is_told_so_and_no_secret(
    secure: Service, certificates: Certificates, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"Kafka at {secure.address} .*: .*refuses? the user {USER}, or the password"
    refused_in_time(as_user(secure, topic, "not-this-one", certificates.ca), said, caplog)
    assert "not-this-one" not in caplog.text


def test_a_server_with_a_certificate_of_another_ca_is_not_trusted(
    secure: Service, certificates: Certificates, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = certificates.ca.with_name("other.pem")
    said = f"Kafka at {secure.address} .*: its certificate is not trusted: set FOOTFALL_CA"
    refused_in_time(as_user(secure, topic, secure.secret, other), said, caplog)
    assert secure.secret not in caplog.text


def refused_in_time(settings_: Settings, said: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with open_event_log(settings_, "") as log:
        for use in (lambda: log.append([b"x"]), log.partitions):
            began = time.monotonic()
            with pytest.raises(EventLogUnavailable, match=said) as refused:
                use()
            assert time.monotonic() - began < 10
            assert settings_.event_log
            assert str(settings_.event_log.password) not in str(refused.value)


@pytest.mark.parametrize(("host", "said"), [("nowhere.invalid:9092", "no such host"), ("127.0.0.1:1", "ECONNREFUSED")])
def test_a_server_that_is_not_there_is_named(host: str, said: str) -> None:
    settings_ = from_environment({"FOOTFALL_EVENT_LOG": f"kafka://{host}/events"})
    expected = pytest.raises(EventLogUnavailable, match=rf"Kafka at {host} \(FOOTFALL_EVENT_LOG\): .*{said}")
    with open_event_log(settings_, "") as log, expected:
        log.append([b"x"])
