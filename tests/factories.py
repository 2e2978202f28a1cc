"""Events as the lake keeps them, from the naive events of ingestion.simulation.truth; and records of the event log, at any instant."""

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta

import polars as pl
import psycopg
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from ingestion.event_log import open_event_log
from ingestion.lake_events import EVENTS
from ingestion.settings import Settings
from ingestion.simulation.truth import Event
from ingestion.site_time import date_bounds, floor_hour, from_datetime, to_datetime
from ingestion.stores import Stores

CARRIED_MS = 30 * 60 * 1000
FILLED = {"source": "Direct / None", "channel": "Direct"} | dict.fromkeys(
    ("country", "region", "city", "browser", "browser_version", "os", "os_version", "device"), "(not set)"
)


def lake_row(event: Event) -> dict[str, object]:
    """One row of EVENTS. A cookieless visitor's id names the date, so that it differs from date to date."""
    began, ended = date_bounds(event.timezone, event.date)
    who = f"{event.ip}|{event.user_agent}"
    carried = event.timestamp - began < CARRIED_MS
    return {
        **dict.fromkeys(EVENTS),
        **FILLED,
        **event.attributes,
        "site": event.site,
        "date": event.date,
        "date_began": to_datetime(began),
        "date_ended": to_datetime(ended),
        "timestamp": to_datetime(event.timestamp),
        "position": event.line,
        "event_id": event.event_id or f"line-{event.line:06d}",
        "object": f"raw/hour={to_datetime(floor_hour(event.timestamp)):%Y-%m-%dT%H}/import-0001",
        "visitor_id": event.visitor_id or f"{event.date} {who}",
        "previous_visitor_id": None if event.visitor_id or not carried else f"{event.date - timedelta(days=1)} {who}",
        "cookieless": event.visitor_id is None,
        "bot": event.bot,
        "name": event.name,
        "path": event.path,
        "interactive": event.interactive,
    }


def lake_frame(events: Sequence[Event]) -> pl.DataFrame:
    return pl.DataFrame([lake_row(event) for event in events], schema=EVENTS, orient="row")


def append_at(stores: Stores, moment: datetime, *records: bytes) -> None:
    """Appends to the event log as it does itself, at another instant."""
    if stores.settings.event_log:
        _append_to_kafka(stores.settings, from_datetime(moment), records)
    else:
        _append_to_postgres(stores.postgres_url, from_datetime(moment), records)


def _append_to_postgres(url: str, instant_ms: int, records: Sequence[bytes]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for lines in records:
            connection.execute(
                """with taken as (
                       insert into footfall.event_log_end as known (next_offset, appended_at) values (1, %s)
                       on conflict (one) do update set next_offset = known.next_offset + 1,
                           appended_at = greatest(known.appended_at, excluded.appended_at)
                       returning next_offset - 1 as log_offset, appended_at)
                   insert into footfall.event_log select log_offset, appended_at, %s from taken""",
                [instant_ms, lines],
            )


def _append_to_kafka(settings: Settings, instant_ms: int, records: Sequence[bytes]) -> None:
    """The topic takes the producer's time for as long as this takes."""
    assert settings.event_log
    with open_event_log(settings, "") as log:
        log.partitions()  # makes the topic, and refuses one with a wrong clock
    servers, topic = [str(host) for host in settings.event_log.hosts], settings.event_log.name
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        _set_clock(admin, topic, "CreateTime")
        with closing(KafkaProducer(bootstrap_servers=servers, acks="all")) as producer:
            sent = [producer.send(topic, lines, timestamp_ms=instant_ms) for lines in records]
            assert {future.get(10).timestamp for future in sent} == {instant_ms}
        _set_clock(admin, topic, "LogAppendTime")


def _set_clock(admin: KafkaAdminClient, topic: str, clock: str) -> None:
    wanted = {"message.timestamp.type": clock, "retention.ms": "-1"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    for _ in range(200):
        if clock in str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])):
            return
        time.sleep(0.02)
    raise AssertionError(f"{topic} does not take {clock}")
