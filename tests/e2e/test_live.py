"""The live traffic of `make run`: it passes the collector's door, and a second run sends what happened since."""

import json
from datetime import UTC, datetime, timedelta

from ingestion.event_log import open_event_log
from ingestion.files import no_progress
from orchestration.live import send_live_traffic


def test_visitors_of_the_last_hours_send_to_a_collector_and_none_of_them_twice(home, tmp_path):
    now = datetime.now(UTC)
    with home("2026-11-01") as it:
        for site in ("laden.example", "herald.example", "bazaar.example", "docs.example", "group.example"):
            it.stores.ledger.add_site(site, "UTC")
        earlier = now - timedelta(hours=2)
        first = send_live_traffic(it.stores, tmp_path, earlier, no_progress)
        later = send_live_traffic(it.stores, tmp_path, now, no_progress)
        again = send_live_traffic(it.stores, tmp_path, now, no_progress)
        assert first.accepted > later.accepted > 0
        assert "unknown_site" not in first.refused and first.refused["malformed_json"] > 0
        assert (again.accepted, again.refused.total()) == (0, 0)
        with open_event_log(it.stores.settings, it.stores.postgres_url) as log:
            records = [record for part in log.partitions() for record in log.read(part, *log.bounds(part))]
        lines = [line for record in records for line in record.lines.splitlines()]
        kept = [json.loads(line) for line in lines]
        assert (
            len({event["event_id"] for event in kept if event["domain"] != "group.example"})
            <= first.accepted + later.accepted
        )
        assert {event.get("country") for event in kept} == {None}, "only an import states a country"
        assert all(event["ip"] is None or event["ip"].endswith((".0", "::")) for event in kept if "ip" in event)
