"""From the event log to the lake: what was not read yet becomes raw objects of its arrival hours, byte for byte.

Ranges of offsets tile each partition of the log: reading begins where the ledger ends. An hour's range ends at the first
record that the log took in a later hour. What is taken in the current hour so far is read too; the next pull goes on there.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime
from itertools import chain

import zstandard

from ingestion.event_log import EventLog
from ingestion.lake import Lake
from ingestion.ledger import PARTITIONS_A_LOG, OffsetRange
from ingestion.site_time import HOUR, from_datetime, hour_key, hour_of

OBJECT_BYTES = 64_000_000
"""Raw lines of an object, unpacked, or a little more: what a reader holds in memory."""
READERS = 4
"""Partitions that are read side by side: two processors are busy, and each reader holds an object."""
COMPRESSION_LEVEL = 3
"""Of zstd, as imports have it: 720 MB/s on one processor. 1 would be half as fast again."""


class LogTruncated(Exception):
    """The event log ends below what was read of it: it is not the log that it was. Nothing was changed."""


def unread(
    log: EventLog,
    read_until: Mapping[int, tuple[int, str]],
    start: datetime,
    last: datetime,
    now: datetime,
    number: int = 0,
) -> list[Iterator[OffsetRange]]:
    """For each partition of a log (of which the ledger has the number) the ranges to read, up to the arrival hour `last`. Raises
    LogTruncated before any is read.

    The current hour takes whatever the log holds: were the log's clock ahead, its records would otherwise wait for it."""
    every = list[Iterator[OffsetRange]]()
    for partition in log.partitions():
        numbered = number * PARTITIONS_A_LOG + partition
        begin, hour = read_until.get(numbered, (0, hour_key(start)))
        first, end = log.bounds(partition)
        if end < begin:
            raise LogTruncated(
                f"partition {partition} of the event log ends at offset {end}, but it was read to {begin}: the log was emptied "
                "or replaced. Bring the old one back, or set FOOTFALL_EVENT_LOG to a new topic"
            )
        hours = _hours(hour_of(hour), min(last, now))
        lost = [OffsetRange(numbered, begin, first, hour, lost=True)] if begin < first else []
        every.append(chain(lost, _by_hour(log, numbered, max(begin, first), end, hours, now)))
    return every


def _hours(first: datetime, last: datetime) -> Sequence[datetime]:
    """Whole hours, both included; the first one even where the clock stepped back below it."""
    return [first + number * HOUR for number in range(max(0, (last - first) // HOUR) + 1)]


def _by_hour(
    log: EventLog, numbered: int, begin: int, end: int, hours: Sequence[datetime], now: datetime
) -> Iterator[OffsetRange]:
    def ended(hour: datetime) -> int:
        """The offset where an hour's range ends. Records are appended meanwhile; those are of the current hour."""
        if hour + HOUR > now:
            return end
        found = log.offset_at(numbered % PARTITIONS_A_LOG, from_datetime(hour + HOUR))
        return end if found is None else min(found, end)

    while begin < end and hours:
        skipped = bisect_right(hours, begin, key=ended)
        hours = hours[skipped:]
        if hours and (ends := ended(hours[0])) > begin:
            yield OffsetRange(numbered, begin, ends, hour_key(hours[0]))
            begin = ends


def pull(log: EventLog, lake: Lake, partitions: Sequence[Iterator[OffsetRange]]) -> Iterator[OffsetRange]:
    """Reads ranges into raw objects: each that it gives has its object written, and can be listed. `READERS` partitions are read
    side by side, each in its order and with one object in memory. What goes wrong with one of them ends all."""
    readers = [_read(log, lake, ranges) for ranges in partitions]
    try:
        with ThreadPoolExecutor(READERS, "reader") as pool:
            yield from _side_by_side(pool, readers)
    finally:
        for reader in readers:
            reader.close()


def _side_by_side(pool: ThreadPoolExecutor, readers: Sequence[Iterator[OffsetRange]]) -> Iterator[OffsetRange]:
    waiting, reading = deque(readers), dict[Future[OffsetRange | None], Iterator[OffsetRange]]()
    while waiting or reading:
        while waiting and len(reading) < READERS:
            reader = waiting.popleft()
            reading[pool.submit(next, reader, None)] = reader
        for done in wait(reading, return_when=FIRST_COMPLETED).done:
            reader = reading.pop(done)
            if read := done.result():
                reading[pool.submit(next, reader, None)] = reader
                yield read


def _read(log: EventLog, lake: Lake, ranges: Iterator[OffsetRange]) -> Generator[OffsetRange]:
    """The ranges of one partition, cut where an object is full."""
    for wanted in ranges:
        if wanted.lost:
            yield wanted
            continue
        raw, first = RawLines(), wanted.first
        for record in log.read(wanted.log_partition % PARTITIONS_A_LOG, wanted.first, wanted.end):
            raw.add(record.lines)
            if raw.size >= OBJECT_BYTES:
                yield _written(lake, wanted, first, record.offset + 1, raw)
                raw, first = RawLines(), record.offset + 1
        if first < wanted.end:
            yield _written(lake, wanted, first, wanted.end, raw)


class RawLines:
    """The lines of an object, without blank ones, in as many pieces as there were records: joined they would be there twice."""

    def __init__(self) -> None:
        self.rows = self.size = 0
        self._pieces: list[bytes] = []

    def add(self, lines: bytes) -> None:
        """The lines of a record, whose last one may have no end."""
        kept = [line for line in lines.split(b"\n") if line and not line.isspace()]
        self.rows += len(kept)
        self.size += len(lines)
        if kept:
            self._pieces.append(b"\n".join((*kept, b"")))

    def packed(self) -> bytes:
        """All of them as one frame of zstd, which tells its size."""
        packer = zstandard.ZstdCompressor(COMPRESSION_LEVEL).compressobj(size=sum(map(len, self._pieces)))
        return b"".join([*map(packer.compress, self._pieces), packer.flush()])


def _written(lake: Lake, wanted: OffsetRange, first: int, end: int, raw: RawLines) -> OffsetRange:
    if not raw.rows:
        return OffsetRange(wanted.log_partition, first, end, wanted.hour)
    name = f"raw/hour={wanted.hour}/p{wanted.log_partition:02d}-{first:012d}-{end - 1:012d}.ndjson.zst"
    return OffsetRange(wanted.log_partition, first, end, wanted.hour, lake.put(name, raw.packed(), rows=raw.rows))
