"""The sweep: whatever comes, whenever, and whatever failed, is in the reports within an hour or by the next look."""

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
import psycopg
import pytest
from dagster._core.test_utils import create_run_for_test

from ingestion.collector.door import Door, Sender
from ingestion.identity import ImportSalts
from ingestion.site_time import from_datetime, hour_key
from tests.e2e.clock import Clock
from tests.e2e.conftest import Home
from tests.factories import append_at

SITE = "shop.example"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
FIREFOX = Sender("198.51.100.7", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
DOOR = Door({SITE: "Europe/Berlin"}.get, ImportSalts(b"key"))


def line(path: str, came: datetime, late: timedelta = timedelta()) -> bytes:
    """A page view as the collector appends it."""
    event = {
        "domain": SITE,
        "name": "pageview",
        "url": f"https://{SITE}{path}",
        "timestamp": from_datetime(came - late),
    }
    (raw,) = DOOR.open(json.dumps(event).encode(), FIREFOX, from_datetime(came)).lines
    return raw


def reported(it: Home, happened: dict[str, datetime]) -> set[str]:
    """The paths in the reports of dates, whose hour has as many page views as it has paths there."""
    with psycopg.connect(it.stores.postgres_url) as connection:
        if not connection.execute("select to_regclass('reports.report_site_hours')").fetchone()[0]:
            return set()
        connection.execute("set time zone 'UTC'")
        page_views = dict(
            connection.execute("select to_char(hour, 'YYYY-MM-DD\"T\"HH24'), pageviews from reports.report_site_hours")
        )
        paths = connection.execute("select value from reports.report_breakdown_days where dimension = 'page'")
        hours = {path: hour_key(happened[path]) for (path,) in paths}
    wanted = Counter(hours.values())
    return {path for path, hour in hours.items() if page_views.get(hour, 0) >= wanted[hour]}


@pytest.fixture
def shop(home):
    with home("2026-11-01") as it:
        it.stores.ledger.add_site(SITE, "Europe/Berlin")
        from orchestration.environment import dagster_environment

        os.environ.update(dagster_environment(it.stores))
        yield it


def test_an_event_is_reported_within_an_hour_whatever_the_minute_in_which_it_came(shop):
    """Given runs of hours of 4 minutes and runs of dates of 9, and an event right after each minute's ticks, every other one up to
    59 hours late."""
    clock = Clock(shop.stores, NOON, takes={"hourly": timedelta(minutes=4), "daily": timedelta(minutes=9)})
    came, happened, lag = dict[str, datetime](), dict[str, datetime](), dict[str, timedelta]()
    held: list[tuple[datetime, bytes]] = []
    while len(lag) < 60:
        at = clock.now
        for job in clock.step():
            if job == "daily":
                lag |= {path: at - came[path] for path in reported(shop, happened) - lag.keys()}
        minute = len(came)
        if minute < 60:
            path, late = f"/minute-{minute}", timedelta(hours=minute % 2 * minute)
            came[path] = at + timedelta(seconds=1)
            happened[path] = came[path] - late
            held.append((came[path], line(path, came[path], late)))
        if not clock.is_busy:
            for moment, raw in held:
                append_at(shop.stores, moment, raw)
            held.clear()
        assert at < NOON + timedelta(hours=3), f"never reported: {came.keys() - lag.keys()}"
    worst = max(lag.values())
    assert timedelta(minutes=50) < worst <= timedelta(hours=1), f"{worst} after it came"


def page_views(it: Home) -> dict[str, int]:
    """By hour with some, from the reports; the days must add up to the same."""
    report = it.report(SITE, "2026-11-16", "2026-11-24")
    found = {hour["hour"][:13]: hour["pageviews"] for hour in report["hours"] if hour["pageviews"]}
    assert sum(found.values()) == report["totals"]["pageviews"] == sum(day["pageviews"] for day in report["days"])
    assert (
        report["pipeline"]["received"]
        == report["pipeline"]["accepted"]
        == report["pipeline"]["counted"]
        == sum(found.values())
    )
    return found


def swept(clock: Clock) -> list[bool]:
    """One look of each schedule, with its runs."""
    clock.tick("sweep_hours")
    hours = clock.run_all()
    clock.tick("sweep_dates")
    return hours + clock.run_all()


def newest_hour_check(it: Home, now: datetime) -> bool:
    from assets.checks import what_came_is_reported

    return what_came_is_reported(it.stores, now).passed


def test_a_scheduler_that_stood_still_for_three_days_and_runs_that_fail_leave_no_hole(shop):
    moments = [NOON - timedelta(days=3) + timedelta(hours=5 * number, minutes=number) for number in range(15)]
    for moment in moments:
        append_at(shop.stores, moment, line("/a", moment))
    wanted = {hour_key(moment): 1 for moment in moments}
    clock = Clock(shop.stores, NOON)
    assert not newest_hour_check(shop, NOON)
    with psycopg.connect(shop.stores.postgres_url, autocommit=True) as server:
        server.execute("alter table landing.traffic rename to gone")
        assert swept(clock) == [False, False]  # hours without traffic, report tables without their source
        server.execute("alter table landing.gone rename to traffic")
    clock.now += timedelta(minutes=15)
    assert swept(clock) == [True, True]
    assert page_views(shop) == wanted
    assert clock.tick("sweep_hours") == clock.tick("sweep_dates") == []
    # a late event reaches its own hour and date by the next looks, and what looks back over them
    clock.now += timedelta(minutes=15)
    append_at(shop.stores, clock.now, line("/late", clock.now, timedelta(hours=70)))
    assert swept(clock) == [True, True]
    clock.now += timedelta(minutes=15)
    assert swept(clock) == [True, True]
    late = hour_key(clock.now - timedelta(minutes=15, hours=70))
    assert page_views(shop) == {**wanted, late: wanted.get(late, 0) + 1}
    averages = {hour["hour"][:13]: hour["pageviews_24h_average"] for hour in shop.report(SITE)["hours"]}
    first = min(moments).replace(minute=0)
    for hour, average in averages.items():
        at = datetime.fromisoformat(hour + ":00+00:00")
        if average is not None and at <= clock.now:
            window = [hour_key(at - timedelta(hours=back)) for back in range(24)]
            seen = sum({**wanted, late: wanted.get(late, 0) + 1}.get(hour, 0) for hour in window)
            assert average == pytest.approx(seen / min(24, (at - first) // timedelta(hours=1) + 1))
    assert newest_hour_check(shop, NOON + timedelta(hours=9))


def test_what_is_in_flight_is_not_requested_again_and_what_came_lately_goes_before_history(shop):
    clock = Clock(shop.stores, NOON)
    old = NOON - timedelta(days=18)
    for moment in (old, NOON):
        append_at(shop.stores, moment, line("/a", moment))
    first, *rest = clock.tick("sweep_hours")
    assert first["dagster/asset_partition_range_end"] == hour_key(NOON) and first["dagster/priority"] == "1"
    assert [tags["dagster/priority"] for tags in rest] == ["0"]
    clock.now += timedelta(minutes=15)
    assert clock.tick("sweep_hours") == []
    assert clock.run_all() == [True, True]
    assert len(clock.tick("sweep_hours")) == 1  # the site turned out to be older than its averages said
    assert clock.run_all() == [True]
    assert clock.tick("sweep_hours") == []


def test_an_hour_that_cannot_be_recomputed_keeps_no_other_from_the_reports(shop):
    clock = Clock(shop.stores, NOON)
    hours = [NOON - timedelta(hours=back) for back in (3, 2, 1)]
    for moment in hours:
        append_at(shop.stores, moment, line("/a", moment))
    assert swept(clock) == [True, True]
    (raw,) = shop.stores.ledger.raw_objects(hour_key(hours[1]))
    shop.stores.lake.put(raw.name, b"something else", raw.rows)
    with psycopg.connect(shop.stores.postgres_url, autocommit=True) as server:  # as after a change of a rule table
        server.execute("update footfall.published set inputs = '{}' where asset = 'events'")
    append_at(shop.stores, NOON, line("/new", NOON))
    clock.now += timedelta(minutes=5)
    assert swept(clock) == [True, True]
    assert page_views(shop) == {hour_key(moment): 1 for moment in [*hours, NOON]}
    from assets.checks import RAW_IS_WHOLE

    (check,) = clock.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("events"), RAW_IS_WHOLE.name), limit=1
    )
    assert not check.event.asset_check_evaluation.passed
    assert hour_key(hours[1]) in str(check.event.asset_check_evaluation.metadata)


def test_an_account_that_does_not_balance_stays_red_until_it_is_mended(shop):
    clock = Clock(shop.stores, NOON)
    append_at(shop.stores, NOON, line("/a", NOON))
    assert swept(clock) == [True, True]
    with psycopg.connect(shop.stores.postgres_url, autocommit=True) as server:
        for lines, succeeded in ((5, False), (-5, True)):
            server.execute(
                "update footfall.raw_objects set lines = lines + %s where hour = %s", [lines, hour_key(NOON)]
            )
            clock.now += timedelta(hours=1)
            append_at(shop.stores, clock.now, line("/b", clock.now))
            clock.tick("sweep_hours")
            assert clock.run_all() == [succeeded]


def test_one_poison_event_stops_nothing(shop):
    """Given a site whose name and path are as long as they may be, and lines that somebody else appended to the log."""
    site = ("\U0001f375" * 70)[:63]
    shop.stores.ledger.add_site(site, "UTC")
    longest = {
        "domain": site,
        "name": "\U0001f375" * 120,
        "url": f"https://{site}/" + "a" * 1_700,
        "utm_source": "\U0001f375" * 2_000,
    }
    event = {
        **longest,
        "timestamp": from_datetime(NOON),
        "event_id": "0192f0c1-2345-7abc-8def-0123456789ab",
        "visitor_id": "v",
    }
    poison = [
        json.dumps(event).encode(),
        b'{"rejected":"a\\u0000b"}',
        b'{"rejected":"too_old","domain":"\\u0000"}',
        b"\xff",
    ]
    append_at(shop.stores, NOON, *poison, line("/good", NOON))
    clock = Clock(shop.stores, NOON)
    assert swept(clock) == [True, True]
    assert page_views(shop) == {hour_key(NOON): 1}
    assert shop.report(site)["totals"]["events"] == 1


def test_a_backfill_that_waits_does_not_keep_the_sweep_from_what_is_new(shop):
    clock = Clock(shop.stores, NOON)
    append_at(shop.stores, NOON, line("/a", NOON))
    hour = hour_key(NOON)
    tags = {"dagster/asset_partition_range_start": hour, "dagster/asset_partition_range_end": hour}
    backfill = create_run_for_test(clock.instance, job_name="hourly", tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
    assert len(clock.tick("sweep_hours")) == 1
    clock.queue.clear()
    clock.instance.delete_run(backfill.run_id)
