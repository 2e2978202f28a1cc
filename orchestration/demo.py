"""The main job from end to end: sample traffic or an access log, through every station, to a printed report."""

import hashlib
import json
import os
import shlex
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from ingestion.files import ImportRefused, numbered_lines
from ingestion.importer import import_access_log, import_events
from ingestion.protocols import access_log
from ingestion.settings import from_environment
from ingestion.simulation.traffic import simulate
from ingestion.site_time import to_datetime
from ingestion.stores import open_stores
from orchestration.cli import materialize_all, say_imported
from orchestration.live import Sent, send_live_traffic
from orchestration.progress import progress_bar

SEED, FIRST, DAYS = 1, date(2026, 3, 27), 4
SHOWN = "laden.example"


class Shown(NamedTuple):
    """A report to print; without dates, of all there are."""

    site: str
    first: date | None = None
    last: date | None = None


def demo_of_sample() -> list[Shown]:
    """Sample traffic of five sites: imported, over a change of the clocks, and live, of the last hours."""
    settings = from_environment()
    directory = settings.home / "sample"
    directory.mkdir(parents=True, exist_ok=True)
    written = simulate(directory, seed=SEED, first_date=FIRST, days=DAYS)
    click.echo(f"1. sample traffic: {written.lines:,} lines of {len(written.sites)} sites in {directory}")
    with open_stores(settings) as stores:
        for site in json.loads((directory / "sites.json").read_text()):
            stores.ledger.add_site(site["site"], site["timezone"])
        file = directory / "events.ndjson"
        with progress_bar("2. importing", "bytes") as progress:
            say_imported(file, import_events(file, settings, stores.ledger, stores.lake, datetime.now(UTC), progress))
        with progress_bar("3. live traffic", "events") as progress:
            sent = send_live_traffic(stores, directory / "live", datetime.now(UTC), progress)
        _say_sent(sent)
        materialize_all(stores)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    return [
        Shown(SHOWN, FIRST, FIRST + timedelta(days=DAYS - 1)),
        Shown(SHOWN, yesterday, yesterday + timedelta(days=1)),
    ]


def _say_sent(sent: Sent) -> None:
    reasons = ", ".join(f"{events:,} {reason}" for reason, events in sent.refused.most_common())
    click.echo(
        f"live traffic of the last hours, sent to a collector: {sent.accepted:,} events accepted, "
        f"{sent.refused.total():,} refused" + (f" ({reasons})" if reasons else "")
    )


def demo_of_access_log(log: Path, site: str | None) -> list[Shown]:
    """An access log, in a home of its own that begins where the log does."""
    start, guessed = _first_date_and_site(log)
    site = site or guessed
    os.environ["FOOTFALL_HOME"] = str(
        from_environment().home / f"log-{hashlib.blake2b(str(log.resolve()).encode()).hexdigest()[:8]}"
    )
    os.environ["FOOTFALL_START"] = str(start)
    settings = from_environment()
    click.echo(
        f"1. {log} begins on {start} and is taken as the log of {site} (SITE=… says otherwise).\n"
        f"   For more: FOOTFALL_HOME={shlex.quote(str(settings.home))} FOOTFALL_START={start} footfall report {site}"
    )
    with open_stores(settings) as stores:
        with progress_bar("2. importing", "bytes") as progress:
            done = import_access_log(log, site, settings, stores.ledger, stores.lake, datetime.now(UTC), progress)
        say_imported(log, done)
        materialize_all(stores)
    return [Shown(site)]


def _first_date_and_site(log: Path) -> tuple[date, str]:
    """The date of the earliest line, and the host that most page views were referred from: a site's own links."""
    earliest: int | None = None
    hosts: Counter[str] = Counter()
    for _, line in numbered_lines(log):
        read = access_log.read_line(line, "site.invalid")
        if read.instant is not None:
            earliest = read.instant if earliest is None else min(earliest, read.instant)
        if read.event and read.event.referrer:
            hosts[(urlsplit(read.event.referrer).hostname or "").removeprefix("www.")] += 1
    if earliest is None:
        raise ImportRefused(
            f"no line of {log} is an access-log line in the common or combined format; nothing was imported"
        )
    hosts.pop("", None)
    return to_datetime(earliest).date(), hosts.most_common(1)[0][0] if hosts else "www.example.com"
