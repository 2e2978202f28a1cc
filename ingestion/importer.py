"""A trusted import: a file's lines become raw objects of the hours in which they happened, listed together at the end.

file ── lines ── protocol ── identity ── hours ── raw/hour=…/import-<content>-0001.ndjson.zst ── ledger
"""

import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import zstandard

from ingestion.event import NO_SITE, Event, RawLine, encode
from ingestion.files import ImportRefused, Progress, numbered_lines, opened
from ingestion.identity import ImportSalts, assigned_event_id, identified
from ingestion.lake import Lake, LakeObject
from ingestion.ledger import Ledger
from ingestion.protocols import access_log, ndjson
from ingestion.protocols.line import Line
from ingestion.settings import Settings
from ingestion.site_time import MINUTE_MS, floor_hour, from_datetime, hour_key, hour_of, to_datetime

BUFFERED_BYTES = 64_000_000
"""Raw lines held in memory before they are written, over all hours."""


@dataclass(frozen=True)
class Imported:
    """What an import did. `lines` is 0 where the same content had been imported before."""

    lines: int
    accepted: int
    rejected: Counter[str]
    first_hour: datetime | None
    last_hour: datetime | None


def import_access_log(
    file: Path, site: str, settings: Settings, ledger: Ledger, lake: Lake, now: datetime, progress: Progress
) -> Imported:
    """Imports the page views of an access log (plain or gzip). Raises ImportRefused."""
    read = lambda line: access_log.read_line(line, site)  # noqa: E731
    return _Import(file, "access-log", site, read, settings, ledger, lake, from_datetime(now), progress).run()


def import_events(
    file: Path, settings: Settings, ledger: Ledger, lake: Lake, now: datetime, progress: Progress
) -> Imported:
    """Imports events in the wire format, one a line (plain or gzip). Raises ImportRefused."""
    read = lambda line: ndjson.read_line(line, from_datetime(now))  # noqa: E731
    return _Import(file, "events", None, read, settings, ledger, lake, from_datetime(now), progress).run()


@dataclass
class _Import:
    file: Path
    kind: str
    site: str | None
    read: Callable[[bytes], Line | None]
    settings: Settings
    ledger: Ledger
    lake: Lake
    now: int
    progress: Progress

    def run(self) -> Imported:
        content = self._content_hash()
        with self.ledger.excluding(f"import {content}"):
            if self.ledger.has_import(content):
                return Imported(0, 0, Counter(), None, None)
            writer = _HourWriter(self.lake, content)
            raw_lines = _RawLines(self.ledger.secret("event_id_key"), self.ledger.time_zones())
            try:
                accepted, rejected = self._write(raw_lines, writer)
                objects = writer.finish()
            except BaseException:
                self.lake.delete(writer.names())
                raise
            # From here on nothing is removed: who is interrupted now does not know whether the objects are listed.
            self.ledger.list_import(content, self.kind, self.site, raw_lines.sites, objects)
            return Imported(
                accepted + rejected.total(),
                accepted,
                rejected,
                hour_of(min(objects)),
                hour_of(max(objects)),
            )

    def _write(self, raw_lines: "_RawLines", writer: "_HourWriter") -> tuple[int, Counter[str]]:
        """Writes the file's lines; how many were accepted, and how many rejected for which reason."""
        accepted, rejected = 0, Counter[str]()
        waiting: list[RawLine] = []
        hour: int | None = None
        for number, line in numbered_lines(self.file, self.progress):
            read = self.read(line)
            if read is None:
                continue
            its_hour = self._hour_of(read, number)
            hour = hour if its_hour is None else its_hour
            for raw in raw_lines.of(read, line, number):
                accepted, rejected = _counted(raw, accepted, rejected)
                if hour is None:
                    waiting.append(raw)
                else:
                    for earlier in waiting:
                        writer.add(hour, earlier)
                    waiting.clear()
                    writer.add(hour, raw)
        if hour is None:
            raise ImportRefused(self._unreadable())
        return accepted, rejected

    def _hour_of(self, read: Line, number: int) -> int | None:
        """The hour of a line that has a time. An event outside of all partitions refuses the whole file."""
        if read.instant is None:
            return None
        early, late = read.instant < from_datetime(self.settings.start), read.instant > self.now + MINUTE_MS
        if not early and not late:
            return floor_hour(read.instant)
        if read.event is None:
            return None
        moment = to_datetime(read.instant).isoformat()
        if early:
            raise ImportRefused(
                f"line {number} of {self.file} is of {moment}, before FOOTFALL_START ({self.settings.start.isoformat()}): "
                f"set FOOTFALL_START={to_datetime(read.instant).date()} or earlier; nothing was imported"
            )
        raise ImportRefused(
            f"line {number} of {self.file} is of {moment}, in the future (it is {to_datetime(self.now).isoformat()}): "
            "correct its time, or this machine's clock (FOOTFALL_START bounds only the past); nothing was imported"
        )

    def _unreadable(self) -> str:
        what = (
            "an access-log line in the common or combined format"
            if self.kind == "access-log"
            else "an event in JSON with a time"
        )
        return f"no line of {self.file} is {what}; nothing was imported"

    def _content_hash(self) -> str:
        """The identity of an import: a hash of its kind, its site, and what the file holds."""
        digest = hashlib.blake2b(f"{self.kind}\0{self.site}\0".encode(), digest_size=16)
        empty = True
        with opened(self.file) as (stream, _):
            while block := stream.read(1 << 20):
                empty = False
                digest.update(block)
        if empty:
            raise ImportRefused(f"{self.file} is empty; nothing was imported")
        return digest.hexdigest()


def _counted(raw: RawLine, accepted: int, rejected: Counter[str]) -> tuple[int, Counter[str]]:
    if raw.rejected is None:
        return accepted + 1, rejected
    rejected[raw.rejected] += 1
    return accepted, rejected


class _RawLines:
    """Gives each line its identity: one raw line for each site that it names."""

    def __init__(self, event_id_key: bytes, time_zones: dict[str, str]) -> None:
        self._event_id_key = event_id_key
        self._time_zones = time_zones
        self._salts = ImportSalts(secrets.token_bytes(32))
        self._occurrences: Counter[bytes] = Counter()
        self.sites: dict[str, str] = {}
        """The sites of accepted events that the ledger does not know yet, and their time zone."""

    def of(self, read: Line, line: bytes, number: int) -> Iterator[RawLine]:
        if read.event is None:
            assert read.rejected is not None
            for site in read.sites or (NO_SITE,):
                yield RawLine(rejected=read.rejected.value, domain=site, line=number)
            return
        occurrence = self._occurrence(line) if read.event.event_id is None else 0
        for site in read.sites:
            yield self._raw_line(read.event, read.instant, site, line, number, occurrence)

    def _raw_line(
        self, event: Event, instant: int | None, site: str, line: bytes, number: int, occurrence: int
    ) -> RawLine:
        assert instant is not None
        event_id = event.event_id or assigned_event_id(self._event_id_key, site, line, occurrence)
        raw = identified(event, site, self._time_zone(site), instant, event_id, self._salts)
        raw.line = number
        return raw

    def _time_zone(self, site: str) -> str:
        if site not in self._time_zones:
            self._time_zones[site] = self.sites[site] = "UTC"
        return self._time_zones[site]

    def _occurrence(self, line: bytes) -> int:
        """1 for the first time that a line is in its file, 2 for the second, …"""
        key = hashlib.blake2b(line, digest_size=12).digest()
        self._occurrences[key] += 1
        return self._occurrences[key]


@dataclass
class _HourWriter:
    """Collects raw lines by hour and writes them as objects, in memory that is bounded over all hours."""

    lake: Lake
    content: str
    _buffers: defaultdict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    _buffered: int = 0
    _objects: defaultdict[str, list[LakeObject]] = field(default_factory=lambda: defaultdict(list))

    def add(self, hour: int, raw: RawLine) -> None:
        if raw.rejected is not None:
            raw.timestamp = hour
        line = encode(raw)
        self._buffers[hour].append(line)
        self._buffered += len(line)
        if self._buffered >= BUFFERED_BYTES:
            self._write()

    def finish(self) -> dict[str, list[LakeObject]]:
        """All objects, by arrival hour."""
        self._write()
        return dict(self._objects)

    def names(self) -> list[str]:
        return [item.name for items in self._objects.values() for item in items]

    def _write(self) -> None:
        for hour, lines in sorted(self._buffers.items()):
            partition = hour_key(to_datetime(hour))
            number = len(self._objects[partition]) + 1
            name = f"raw/hour={partition}/import-{self.content}-{number:04d}.ndjson.zst"
            packed = zstandard.compress(b"\n".join(lines) + b"\n", 3)
            self._objects[partition].append(self.lake.put(name, packed, rows=len(lines)))
        self._buffers.clear()
        self._buffered = 0
