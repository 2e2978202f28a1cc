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

SECONDS_BETWEEN = 2.0
OVERLAP = timedelta(minutes=10)
"""Changes are asked for again so far back: a transaction may commit after one that began later."""
SALTS_AHEAD = timedelta(days=2)
SALT_KEPT = timedelta(days=4)
"""96 hours after the end of a date in UTC. Its last events come 84.5 hours after it, with the last time zone (UTC-12), the time
that they may be late (72 h) and the half hour in which the next date's events carry its hash."""

log = logging.getLogger("footfall")


class NotReady(Exception):
    """PostgreSQL was not read yet, so nothing can be accepted."""


class Directory:
    """Sites and salts, as of some seconds ago. `add_unknown`: a site that is not known is added, in UTC."""

    def __init__(self, url: str, *, add_unknown: bool) -> None:
        self._url, self._add_unknown = url, add_unknown
        self._time_zones: dict[str, str] = {}
        self._salts: dict[date, bytes] = {}
        self._seen = datetime.min.replace(tzinfo=UTC)
        self._fresh_at: float | None = None
        self._unknown: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_fresh, name="directory", daemon=True)
        self._thread.start()

    def time_zone(self, site: str) -> str | None:
        """A site's time zone; None if it is not known (yet)."""
        known = self._time_zones.get(site)
        if known is None and self._add_unknown and len(self._unknown) < 10_000:
            self._unknown.add(site)
            return "UTC"
        return known

    def salt(self, day: date) -> bytes:
        """The salt of a date. Raises NotReady while there is none."""
        if day not in self._salts:
            raise NotReady(f"there is no salt for {day} yet")
        return self._salts[day]

    def age(self) -> float | None:
        """Seconds since PostgreSQL was last read; None if it never was."""
        return None if self._fresh_at is None else time.monotonic() - self._fresh_at

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _keep_fresh(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(
                    self._url, autocommit=True, connect_timeout=5, application_name="footfall sites"
                ) as it:
                    while not self._stop.is_set():
                        self._refresh(it)
                        self._stop.wait(SECONDS_BETWEEN)
            except psycopg.Error as problem:
                log.warning("sites and salts could not be read: %s", " ".join(str(problem).split()))
                self._stop.wait(SECONDS_BETWEEN)

    def _refresh(self, connection: "psycopg.Connection[Any]") -> None:
        self._add_sites(connection)
        self._read_sites(connection)
        today = datetime.now(UTC).date()
        if today + SALTS_AHEAD not in self._salts or min(self._salts) < today - SALT_KEPT:
            self._read_salts(connection, today)
        self._fresh_at = time.monotonic()

    def _add_sites(self, connection: "psycopg.Connection[Any]") -> None:
        adding = list(self._unknown)
        if adding:
            connection.execute(
                "insert into footfall.sites (site, time_zone) select unnest(%s::text[]), 'UTC' on conflict do nothing",
                [adding],
            )
            self._unknown.difference_update(adding)

    def _read_sites(self, connection: "psycopg.Connection[Any]") -> None:
        changed: list[tuple[str, str, datetime]] = connection.execute(
            "select site, time_zone, changed_at from footfall.sites where changed_at > %s", [self._seen]
        ).fetchall()
        self._time_zones.update({site: time_zone for site, time_zone, _ in changed})
        self._seen = max((at - OVERLAP for _, _, at in changed), default=self._seen)

    def _read_salts(self, connection: "psycopg.Connection[Any]", today: date) -> None:
        """Makes the salts that are missing, whoever comes first, and forgets those that nobody needs."""
        oldest = today - SALT_KEPT
        days = [oldest + timedelta(days=number) for number in range((today + SALTS_AHEAD - oldest).days + 1)]
        with connection.cursor() as cursor:
            cursor.executemany(
                "insert into footfall.salts values (%s, %s) on conflict do nothing",
                [(day, secrets.token_bytes(32)) for day in days],
            )
            cursor.execute("delete from footfall.salts where date < %s", [oldest])
            cursor.execute("select date, salt from footfall.salts")
            self._salts = {day: bytes(salt) for day, salt in cursor}
