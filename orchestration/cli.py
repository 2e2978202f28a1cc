"""The `footfall` command."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from ingestion.event import site_name
from ingestion.event_log import EventLogUnavailable
from ingestion.event_store import EventStoreUnavailable, find_visitor, open_event_store
from ingestion.files import ImportRefused
from ingestion.importer import Imported, import_access_log, import_events
from ingestion.lake import LakeFailed
from ingestion.ledger import LedgerUnreachable, LogReplaced, SiteExists
from ingestion.postgres import PostgresFailed, stop_postgres
from ingestion.pull import LogTruncated
from ingestion.settings import SettingsError, from_environment
from ingestion.site_time import UnknownTimeZone, zone
from ingestion.stores import Stores, ask_event_log, open_stores
from ingestion.sweep import sweep_unlisted
from orchestration.progress import progress_bar
from orchestration.services import (
    Service,
    ServiceFailed,
    environment_of,
    find_services,
    services_folder,
    start_services,
    stop_services,
)

SPOKEN: tuple[type[Exception], ...] = (
    EventLogUnavailable,
    EventStoreUnavailable,
    ImportRefused,
    LakeFailed,
    LedgerUnreachable,
    LogReplaced,
    LogTruncated,
    PostgresFailed,
    ServiceFailed,
    SettingsError,
    SiteExists,
    UnknownTimeZone,
)
"""Errors whose message is for the person at the keyboard."""


def main() -> None:
    """Runs a command; what goes wrong becomes one clear line and an exit code other than 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        footfall.main(standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


@contextmanager
def _stores() -> Iterator[Stores]:
    """The stores, or a message that says why not."""
    with _spoken(), open_stores(from_environment()) as stores:
        yield stores


@contextmanager
def _spoken(*more: type[Exception]) -> Iterator[None]:
    spoken: tuple[type[Exception], ...] = (*SPOKEN, *more)
    try:
        yield
    except spoken as problem:
        raise click.ClickException(str(problem)) from None
    except PermissionError as problem:
        raise click.ClickException(f"{problem.filename}: permission denied (FOOTFALL_HOME must be writable)") from None


def _hour(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    """A UTC hour or date as typed."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is neither an hour nor a date: write it like 2026-11-22T13 or 2026-11-22"
        ) from None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment.minute or moment.second or moment.microsecond:
        raise click.BadParameter(f"{value!r} is not a whole hour (UTC)")
    return moment


def _date(_: click.Context, __: click.Parameter, value: str | None) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a date: write it like 2026-11-22") from None


def _site(_: click.Context, __: click.Parameter, value: str) -> str:
    name = site_name(value)
    if name is None:
        raise click.BadParameter(f"{value!r} cannot be a site: use its domain, such as shop.example")
    return name


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("footfall"), prog_name="footfall")
def footfall() -> None:
    """Web analytics that you run yourself, with a history that can be recomputed.

    Settings are environment variables: FOOTFALL_HOME (default ./.footfall), FOOTFALL_START (2020-01-01),
    FOOTFALL_POSTGRES and FOOTFALL_LAKE (default: embedded, under FOOTFALL_HOME). See the README for all of them.
    """


@footfall.group("import")
def import_() -> None:
    """Bring history: a file becomes raw events of the hours in which they happened."""


_file = click.argument("file", type=click.Path(path_type=Path))


@import_.command("events")
@_file
def import_events_command(file: Path) -> None:
    """Import FILE, events in the wire format, one JSON object a line (plain or gzip)."""
    with _stores() as stores, progress_bar(f"Importing {file.name}", "bytes") as progress:
        done = import_events(file, stores.settings, stores.ledger, stores.lake, datetime.now(UTC), progress)
    say_imported(file, done)


@import_.command("access-log")
@_file
@click.option("--site", required=True, callback=_site, help="The site that the log is of, by its domain.")
def import_access_log_command(file: Path, site: str) -> None:
    """Import FILE, a web server's access log in the common or combined format (plain or gzip)."""
    with _stores() as stores, progress_bar(f"Importing {file.name}", "bytes") as progress:
        done = import_access_log(file, site, stores.settings, stores.ledger, stores.lake, datetime.now(UTC), progress)
    say_imported(file, done)


def say_imported(file: Path, done: Imported) -> None:
    """Print what an import did, and what to do next."""
    if not done.lines:
        click.echo(f"{file}: imported before, nothing changed")
        return
    reasons = ", ".join(f"{lines:,} {reason}" for reason, lines in done.rejected.most_common())
    click.echo(
        f"{file}: {done.lines:,} lines received, {done.accepted:,} accepted, {done.rejected.total():,} rejected"
        + (f" ({reasons})" if reasons else "")
        + f"; {done.first_hour:%Y-%m-%dT%H} to {done.last_hour:%Y-%m-%dT%H} UTC. Next: footfall materialize"
    )


@footfall.command()
@click.option("--from", "first", callback=_hour, help="First arrival hour (UTC), such as 2026-11-22T13.")
@click.option("--to", "end", callback=_hour, help="The arrival hour after the last (UTC).")
def materialize(first: datetime | None, end: datetime | None) -> None:
    """Compute, in this process: the arrival hours, then every hour and date that they touch.

    Without bounds: everything that is missing, or was made from something else than what is there now.
    """
    if first and end and first >= end:
        raise click.UsageError(f"--from {first:%Y-%m-%dT%H} is not before --to {end:%Y-%m-%dT%H}")
    with _stores() as stores:
        materialize_all(stores, first, end)


def materialize_all(stores: Stores, first: datetime | None = None, end: datetime | None = None) -> None:
    """Materialize, with a progress bar, and print how many partitions were made."""
    prepare_dagster(stores)
    from orchestration.materialize import MaterializeFailed
    from orchestration.materialize import materialize as run

    with _spoken(MaterializeFailed), progress_bar("Materializing", "partitions") as progress:
        counts = run(stores, first, end, datetime.now(UTC), progress)
        sweep_unlisted(stores.ledger, stores.lake, datetime.now(UTC))
    made = ", ".join(f"{count:,} {asset}" for asset, count in counts.items() if count)
    click.echo(f"materialized {made}" if made else "nothing to materialize: everything is up to date")


def prepare_dagster(stores: Stores) -> None:
    """Sets what Dagster and dbt read when they are imported. They take seconds to import: only who needs them does."""
    from orchestration.environment import dagster_environment

    os.environ.update(dagster_environment(stores))


@footfall.command()
def collector() -> None:
    """Take events by HTTP, at FOOTFALL_COLLECTOR (default 127.0.0.1:8000), until it is ended by Ctrl-C.

    POST /api/event takes one event or an array; /health and /metrics are for machines.
    """
    from ingestion.collector.server import PortInUse, refuse_port_in_use, serve

    with _spoken(PortInUse), _stores() as stores:
        refuse_port_in_use(stores.settings.collector, "FOOTFALL_COLLECTOR")
        ask_event_log(stores.settings, stores.postgres_url)
        os.environ["FOOTFALL_POSTGRES"] = stores.postgres_url
        serve(stores.settings)


@footfall.command()
@click.argument("site", callback=_site)
@click.argument("visitor")
@click.option(
    "--events",
    "most",
    default=50,
    show_default=True,
    type=click.IntRange(1),
    help="How many of the latest events to show.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def visitor(site: str, visitor: str, most: int, as_json: bool) -> None:
    """Print what is known of VISITOR on SITE, and the visitor's timeline.

    VISITOR is the id that the site supplied, or the cookieless hash that events carry.
    """
    from serving.page import page_console
    from serving.visitor import print_visitor, visitor_as_json

    with _stores() as stores, open_event_store(stores.settings, stores.postgres_url) as store:
        found = find_visitor(store, site, visitor)
        if found is None:
            raise click.ClickException(
                f"no visitor {visitor!r} is known on {site} (footfall materialize brings new events to the event store)"
            )
        timeline = store.timeline(site, visitor, most)
    if as_json:
        click.echo(visitor_as_json(found, timeline))
    else:
        print_visitor(found, timeline, page_console())


@footfall.command()
@click.argument("site", callback=_site)
@click.option("--from", "first", callback=_date, help="First date, of the site's time zone.")
@click.option("--to", "last", callback=_date, help="Last date, included.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def report(site: str, first: date | None, last: date | None, as_json: bool) -> None:
    """Print the report of SITE; without dates, of all its dates."""
    from serving.page import page_console, print_report

    found = _report(site, first, last)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        print_report(found, page_console())


def _report(site: str, first: date | None, last: date | None) -> dict[str, Any]:
    from serving.report import BadRange, NoSuchSite, NothingPublished
    from serving.report import report as build

    with _spoken(BadRange, NoSuchSite, NothingPublished), _stores() as stores:
        return build(stores, site, first, last)


@footfall.group()
def sites() -> None:
    """The sites that are measured."""


@sites.command("add")
@click.argument("site", callback=_site)
@click.option(
    "--timezone", default="UTC", show_default=True, help="IANA name, such as Europe/Berlin: its dates are the site's."
)
def add_site(site: str, timezone: str) -> None:
    """Add SITE, by its domain."""
    with _spoken():
        zone(timezone)
    with _stores() as stores:
        added = stores.ledger.add_site(site, timezone)
    click.echo(f"{site} {'added' if added else 'is there already'}, in {timezone}")


@sites.command("list")
def list_sites() -> None:
    """List the sites and their time zones."""
    with _stores() as stores:
        for site, time_zone in stores.ledger.time_zones().items():
            click.echo(f"{site}\t{time_zone}")


@footfall.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same bytes.")
@click.option("--from", "first", callback=_date, default="2026-03-27", show_default=True, help="First date.")
@click.option("--days", default=4, show_default=True, type=click.IntRange(1, 366))
@click.option("--visitors", default=2_800, show_default=True, type=click.IntRange(1, 1_000_000))
def simulate(directory: Path, seed: int, first: date, days: int, visitors: int) -> None:
    """Write realistic sample traffic to DIRECTORY, and the true metrics of it.

    sites.json (sites and time zones), events.ndjson (for `footfall import events`), truth.json (by site, what
    `footfall report --json` must print).
    """
    from ingestion.simulation.traffic import simulate as write

    with _spoken():
        directory.mkdir(parents=True, exist_ok=True)
        written = write(directory, seed=seed, first_date=first, days=days, visitors=visitors)
    click.echo(f"{directory}: {written.lines:,} lines of {len(written.sites)} sites, {written.first} to {written.last}")


@footfall.command()
@click.option(
    "--log", type=click.Path(path_type=Path, dir_okay=False), help="An access log, instead of sample traffic."
)
@click.option(
    "--site",
    callback=lambda c, p, value: value and _site(c, p, value),
    help="Whose log it is. [default: the host of most referrers]",
)
def demo(log: Path | None, site: str | None) -> None:
    """The main job, from traffic to a printed report: sample traffic, or an access log."""
    from orchestration.demo import demo_of_access_log, demo_of_sample

    with _spoken():
        shown = demo_of_access_log(log, site) if log else demo_of_sample()
    from serving.page import page_console, print_report

    for wanted in shown:
        print_report(_report(*wanted), page_console())


@footfall.command()
def up() -> None:
    """Run everything, until Ctrl-C: the collector, the Dagster UI, and the schedules that keep reports at most an hour behind."""
    from ingestion.collector.server import PortInUse
    from orchestration.up import UpFailed
    from orchestration.up import up as run

    with _spoken(UpFailed, PortInUse):
        settings = from_environment()
        run(settings, click.echo)


@footfall.command()
def down() -> None:
    """End what Footfall has started under FOOTFALL_HOME: `footfall up`, the embedded PostgreSQL, and `footfall services`."""
    from orchestration.up import down as end

    with _spoken():
        settings = from_environment()
        ran = {"footfall up": end(settings), "PostgreSQL": stop_postgres(settings.home)}
        stopped = [*(name for name, did in ran.items() if did), *stop_services(services_folder(settings.home))]
    say_stopped(stopped)


def say_stopped(names: Sequence[str]) -> None:
    """Print what was ended."""
    click.echo(f"stopped {', '.join(names)}" if names else "nothing was running")


@footfall.group()
def services() -> None:
    """Kafka, Cassandra, S3 and PostgreSQL on this machine, for this home: real ones, without Docker.

    They run on until `footfall services stop`, and keep their ports, passwords and data. They listen to this machine alone, and
    Kafka and Cassandra let in everybody on it.
    """


@services.command("start")
def start_services_command() -> None:
    """Start those that do not run, and wait until all answer. The first time, programs are downloaded."""
    with _spoken():
        settings = from_environment()
        started = start_services(services_folder(settings.home), maven=settings.maven)
    say_services(started)
    click.echo('To use them: eval "$(footfall services env)"')


@services.command("stop")
def stop_services_command() -> None:
    """End them. Their data stays."""
    with _spoken():
        stopped = stop_services(services_folder(from_environment().home))
    say_stopped(stopped)


@services.command("status")
def show_services() -> None:
    """Show which of them run, and where."""
    with _spoken():
        found = find_services(services_folder(from_environment().home))
    say_services(found)


@services.command("env")
def export_services() -> None:
    """Print the settings with which Footfall uses them, passwords included, for `eval` in a shell."""
    with _spoken():
        found = find_services(services_folder(from_environment().home))
    if missing := [name for name, service in found.items() if not service.is_running]:
        raise click.ClickException(f"{', '.join(missing)}: not running (footfall services start)")
    for name, value in environment_of(found).items():
        click.echo(f"export {name}={shlex.quote(value)}")


def say_services(services: Mapping[str, Service]) -> None:
    """Print a line for each: its name, whether it runs, where, and its log."""
    for name, service in services.items():
        if service.was_started:
            state = "running" if service.is_running else "stopped"
            click.echo(f"{name:<11} {state:<8} {service.address:<16} {service.log}")
        else:
            click.echo(f"{name:<11} never started")
