"""What all collectors share through PostgreSQL: the sites with their time zones, and the salts of dates.

A thread keeps both fresh. While PostgreSQL is down, what was read stays good: a salt is made two days ahead.
"""

import logging
import secrets
import threading
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from ingestion.event_log.postgres import PATIENCE, what_it_says

SECONDS_BETWEEN = 2.0
OVERLAP = timedelta(minutes=10)
"""Changes are asked for again so far back: a transaction may commit after one that began later."""
SALTS_AHEAD = timedelta(days=2)
SALT_KEPT = timedelta(days=4)
"""96 hours after the end of a date in UTC. Its last events come 84.5 hours after it, with the last time zone (UTC-12), the time
that they may be late (72 h) and the half hour in which the next date's events carry its hash."""
MAX_UNKNOWN = 10_000
LONG_AGO = datetime.min.replace(tzinfo=UTC)

log = logging.getLogger("footfall")


class NotReady(Exception):
    """PostgreSQL was not read yet, so that it is not known what to accept."""


class Directory:
    """Sites and salts, as of some seconds ago. `add_unknown`: a site that is not known is added, in UTC."""

    def __init__(self, url: str, *, add_unknown: bool) -> None:
        self._url, self._add_unknown = url, add_unknown
        self._time_zones: dict[str, str] = {}
        self._salts: dict[date, bytes] = {}
        self._seen = LONG_AGO
        self._fresh_at: float | None = None
        self._unknown: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="directory", daemon=True)
        self._thread.start()

    def time_zone(self, site: str) -> str | None:
        """A site's time zone; None if it is not known (yet). Raises NotReady while more sites wait to be added than fit."""
        known = self._time_zones.get(site)
        if known is None and self._add_unknown:
            if len(self._unknown) >= MAX_UNKNOWN:
                raise NotReady(f"{MAX_UNKNOWN:,} sites wait to be added")
            self._unknown.add(site)
            return "UTC"
        return known

    def salt(self, day: date) -> bytes:
        """The salt of a date. Raises NotReady while there is none."""
        salt = self._salts.get(day)
        if salt is None:
            raise NotReady(f"there is no salt for {day} yet")
        return salt

    def age(self) -> float | None:
        """Seconds since PostgreSQL was last read; None if it never was."""
        return None if self._fresh_at is None else time.monotonic() - self._fresh_at

    def close(self) -> None:
        """Ends; does not wait for a server that does not answer."""
        self._stop.set()
        self._thread.join(SECONDS_BETWEEN)

    def _keep_fresh(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True, application_name="footfall sites", **PATIENCE) as it:
                    while not self._stop.is_set():
                        self._refresh(it)
                        self._stop.wait(SECONDS_BETWEEN)
            except Exception as problem:  # whatever it is, the next try may succeed
                said = what_it_says(problem) if isinstance(problem, psycopg.Error) else type(problem).__name__
                log.warning("sites and salts could not be read: %s", said)
                self._stop.wait(SECONDS_BETWEEN)

    def _refresh(self, connection: "psycopg.Connection[Any]") -> None:
        """By PostgreSQL's clock: the wrong one of a single collector must not delete a salt of all."""
        (now,) = connection.execute("select now()").fetchone() or (LONG_AGO,)
        self._read_sites(connection, now)
        today = now.astimezone(UTC).date()
        if today + SALTS_AHEAD not in self._salts or min(self._salts) < today - SALT_KEPT:
            self._salts = shared_salts(connection, today)
        self._fresh_at = time.monotonic()
        self._add_sites(connection)

    def _read_sites(self, connection: "psycopg.Connection[Any]", now: datetime) -> None:
        self._time_zones.update(
            connection.execute(
                "select site, time_zone from footfall.sites where changed_at > %s", [self._seen]
            ).fetchall()
        )
        self._seen = now - OVERLAP

    def _add_sites(self, connection: "psycopg.Connection[Any]") -> None:
        adding = list(self._unknown)
        if adding:
            connection.execute(
                "insert into footfall.sites (site, time_zone) select unnest(%s::text[]), 'UTC' on conflict do nothing",
                [adding],
            )
            self._unknown.difference_update(adding)


def shared_salts(connection: "psycopg.Connection[Any]", today: date) -> dict[date, bytes]:
    """The salts of all dates that an event may have now or within `SALTS_AHEAD`. Makes those that are missing, whoever comes
    first, and deletes those that nobody needs any more."""
    oldest = today - SALT_KEPT
    days = [oldest + timedelta(days=number) for number in range((today + SALTS_AHEAD - oldest).days + 1)]
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into footfall.salts values (%s, %s) on conflict do nothing",
            [(day, secrets.token_bytes(32)) for day in days],
        )
        cursor.execute("delete from footfall.salts where date < %s", [oldest])
        cursor.execute("select date, salt from footfall.salts")
        return {day: bytes(salt) for day, salt in cursor}
