"""A real access log, from import to report, against an independent count straight over the log."""

import os
from datetime import date, timedelta
from pathlib import Path

import pytest

from ingestion.files import no_progress
from ingestion.importer import import_access_log
from ingestion.site_time import hour_key, hour_of
from tests.e2e.access_log_oracle import report as oracle
from tests.e2e.compare import differences
from tests.e2e.conftest import NOW

LOG = Path(__file__).parents[3] / "shared" / "data" / "apache_logs"
SITE = "semicomplete.com"
DATES = ["2015-05-17", "2015-05-18", "2015-05-19", "2015-05-20"]

pytestmark = pytest.mark.skipif(
    not LOG.exists() and not os.environ.get("CI"), reason="the log is not part of the project"
)


@pytest.fixture(scope="module")
def logged(home):
    with home("2015-05-17") as it:
        imported = import_access_log(LOG, SITE, it.stores.settings, it.stores.ledger, it.stores.lake, NOW, no_progress)
        assert imported.lines == 10_000
        it.materialize()
        yield it


def test_the_report_of_all_dates_is_that_of_the_log(logged):
    assert list(differences(oracle(LOG, SITE), logged.report(SITE))) == []


@pytest.mark.parametrize("day", DATES)
def test_the_report_of_each_date_is_that_of_the_log(logged, day):
    truth = oracle(LOG, SITE, date.fromisoformat(day), date.fromisoformat(day))
    assert list(differences(truth, logged.report(SITE, day, day))) == []


def test_the_accounts_balance(logged):
    pipeline = logged.report(SITE)["pipeline"]
    assert pipeline["received"] == 10_000
    assert pipeline["received"] == pipeline["accepted"] + sum(pipeline["rejected"].values())
    assert pipeline["accepted"] == pipeline["counted"] + pipeline["bots"] + pipeline["duplicates"]


def test_a_second_import_changes_nothing_and_nothing_is_stale(logged):
    again = import_access_log(
        LOG, SITE, logged.stores.settings, logged.stores.ledger, logged.stores.lake, NOW, no_progress
    )
    assert again.lines == 0
    assert set(logged.materialize().values()) == {0}


def test_the_same_hours_again_in_another_order_change_no_row(logged):
    before = logged.report_hashes()
    logged.materialize("2015-05-19T01", None)
    logged.materialize(None, "2015-05-19T01")
    assert logged.report_hashes() == before
    assert set(logged.materialize().values()) == {0}


def test_six_single_hours_and_then_the_rest_on_the_embedded_default_end_in_the_same_report_tables(logged, home):
    """Around a midnight. The importers' salts are random, so visitors' ids differ; nothing that is reported does."""
    with home("2015-05-17", servers={}) as other:
        import_access_log(LOG, SITE, other.stores.settings, other.stores.ledger, other.stores.lake, NOW, no_progress)
        hours = ["2015-05-18T21", "2015-05-19T02", "2015-05-18T23", "2015-05-19T01", "2015-05-19T00", "2015-05-18T22"]
        for hour in hours:
            other.materialize(hour, hour_key(hour_of(hour) + timedelta(hours=1)))
        other.materialize()
        assert other.report_hashes() == logged.report_hashes()
