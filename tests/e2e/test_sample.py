"""Sample traffic, from import to report, against the truth that was written beside it."""

import json
from datetime import date

import pytest

from ingestion.files import no_progress
from ingestion.importer import import_events
from ingestion.simulation.traffic import simulate
from tests.e2e.compare import differences
from tests.e2e.conftest import NOW

SEED, FIRST, DAYS, VISITORS = 7, date(2026, 3, 27), 4, 1_500
SITES = ["laden.example", "herald.example", "bazaar.example", "docs.example", "group.example"]


@pytest.fixture(scope="module")
def sampled(home, tmp_path_factory):
    sample = tmp_path_factory.mktemp("sample")
    simulate(sample, seed=SEED, first_date=FIRST, days=DAYS, visitors=VISITORS)
    with home("2015-05-17") as it:
        for site in json.loads((sample / "sites.json").read_text()):
            it.stores.ledger.add_site(site["site"], site["timezone"])
        import_events(sample / "events.ndjson", it.stores.settings, it.stores.ledger, it.stores.lake, NOW, no_progress)
        it.materialize()
        yield it, json.loads((sample / "truth.json").read_text())


@pytest.mark.parametrize("site", SITES)
def test_the_report_is_the_truth(sampled, site):
    it, truth = sampled
    assert list(differences(truth[site], it.report(site, truth[site]["from"], truth[site]["to"]))) == []


def test_the_days_of_a_range_are_those_of_each_date(sampled):
    it, truth = sampled
    for site in SITES:
        for day in truth[site]["days"]:
            one = it.report(site, day["date"], day["date"])
            assert list(differences({"date": day["date"], **one["totals"]}, day)) == []
