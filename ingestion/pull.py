"""From the event log to the lake: what was not read yet becomes raw objects of its arrival hours, byte for byte.

Ranges of offsets tile each partition of the log: reading begins where the ledger ends. An hour's range ends at the first
record that the log took in a later hour. What is taken in the current hour so far is read too; the next pull goes on there.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import zstandard

from ingestion.event_log import EventLog
from ingestion.lake import Lake
from ingestion.ledger import OffsetRange
from ingestion.site_time import HOUR, from_datetime, hour_key, hour_of

OBJECT_BYTES = 64_000_000
"""Raw lines of an object, unpacked, or a little more: what a reader holds in memory."""


class LogTruncated(Exception):
    """The event log ends below what was read of it: it is not the log that it was. Nothing was changed."""


def unread(
    log: EventLog, read_until: Mapping[int, tuple[int, str]], start: datetime, last: datetime, now: datetime
) -> Iterator[OffsetRange]:
    """The ranges to read, up to the arrival hour `last`, each of one partition and hour. Raises LogTruncated.

    The current hour takes whatever the log holds: were the log's clock ahead, its records would otherwise wait for it."""
    for partition in log.partitions():
        begin, hour = read_until.get(partition, (0, hour_key(start)))
        first, end = log.bounds(partition)
        if end < begin:
            raise LogTruncated(
                f"partition {partition} of the event log ends at offset {end}, but it was read to {begin}: the log was emptied "
                "or replaced. Bring the old one back, or set FOOTFALL_EVENT_LOG to a new topic and start a new home"
            )
        if begin < first:
            yield OffsetRange(partition, begin, first, hour, lost=True)
            begin = first
        yield from _by_hour(log, partition, begin, end, _hours(hour_of(hour), min(last, now)), now)


def _hours(first: datetime, last: datetime) -> Sequence[datetime]:
    """Whole hours, both included; the first one even where the clock stepped back below it."""
    return [first + number * HOUR for number in range(max(0, (last - first) // HOUR) + 1)]


def _by_hour(
    log: EventLog, partition: int, begin: int, end: int, hours: Sequence[datetime], now: datetime
) -> Iterator[OffsetRange]:
    def ended(hour: datetime) -> int:
        """The offset where an hour's range ends. Records are appended meanwhile; those are of the current hour."""
        if hour + HOUR > now:
            return end
        found = log.offset_at(partition, from_datetime(hour + HOUR))
        return end if found is None else min(found, end)

    while begin < end and hours:
        skipped = bisect_right(hours, begin, key=ended)
        hours = hours[skipped:]
        if hours and (ends := ended(hours[0])) > begin:
            yield OffsetRange(partition, begin, ends, hour_key(hours[0]))
            begin = ends


def pull(log: EventLog, lake: Lake, ranges: Iterator[OffsetRange]) -> Iterator[OffsetRange]:
    """Reads ranges into raw objects: each that it gives has its object written, and can be listed. Memory holds one object."""
    for wanted in ranges:
        if wanted.lost:
            yield wanted
            continue
        lines, size, first = list[bytes](), 0, wanted.first
        for record in log.read(wanted.log_partition, wanted.first, wanted.end):
            lines += [line for line in record.lines.split(b"\n") if line and not line.isspace()]
            size += len(record.lines)
            if size >= OBJECT_BYTES:
                yield _written(lake, wanted, first, record.offset + 1, lines)
                lines, size, first = [], 0, record.offset + 1
        if first < wanted.end:
            yield _written(lake, wanted, first, wanted.end, lines)


def _written(lake: Lake, wanted: OffsetRange, first: int, end: int, lines: Sequence[bytes]) -> OffsetRange:
    if not lines:
        return OffsetRange(wanted.log_partition, first, end, wanted.hour)
    name = f"raw/hour={wanted.hour}/p{wanted.log_partition:02d}-{first:012d}-{end - 1:012d}.ndjson.zst"
    packed = zstandard.compress(b"\n".join(lines) + b"\n", 3)
    return OffsetRange(wanted.log_partition, first, end, wanted.hour, lake.put(name, packed, rows=len(lines)))
