"""Raw lines of many requests to few records of the event log, by one thread: who waits for a commit waits together."""

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import NamedTuple

from ingestion.event_log import MAX_RECORD_BYTES, EventLog, EventLogUnavailable

MAX_WAITING_BYTES = 64_000_000
BYTES_AT_ONCE = 16_000_000
"""What one append takes of it, and the rest of the last request."""


class _Request(NamedTuple):
    lines: list[bytes]
    size: int
    done: "Future[None]"


class Appender:
    """Appends what is submitted. Its futures are done when the event log has the lines on disk."""

    def __init__(self, log: AbstractContextManager[EventLog]) -> None:
        self._log = log
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._thread.start()

    def submit(self, lines: list[bytes]) -> "Future[None]":
        """Lines of one request, each with an event id: of a future that failed, the log may have some all the same. A future
        that is cancelled before its turn comes is not appended. Raises EventLogUnavailable when too much waits already, or
        after `close`."""
        size = sum(map(len, lines)) + len(lines)
        done: Future[None] = Future()
        with self._changed:
            if self._closing or self._waiting_bytes + size > MAX_WAITING_BYTES:
                raise EventLogUnavailable("the event log does not keep up")
            self._waiting.append(_Request(lines, size, done))
            self._waiting_bytes += size
            self._changed.notify()
        return done

    def close(self) -> None:
        """Appends what waits, and ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        with self._log as log:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._waiting or self._closing)
                    if not self._waiting:
                        return
                    taken = self._take()
                if taken:
                    self._append(log, taken)

    def _take(self) -> list[_Request]:
        """Whole requests, in their order, without those whose sender was told already that they were not kept."""
        taken: list[_Request] = []
        size = 0
        while self._waiting and size < BYTES_AT_ONCE:
            request = self._waiting.popleft()
            self._waiting_bytes -= request.size
            if request.done.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                taken.append(request)
                size += request.size
        return taken

    def _append(self, log: EventLog, taken: list[_Request]) -> None:
        problem: Exception | None = None
        try:
            log.append(records_of(line for request in taken for line in request.lines))
        except Exception as failure:  # whatever it is, nobody may wait for ever
            problem = failure
        for request in taken:
            if problem:
                request.done.set_exception(problem)
            else:
                request.done.set_result(None)


def records_of(lines: Iterable[bytes]) -> list[bytes]:
    """Lines joined to records of at most MAX_RECORD_BYTES; a line that is longer is one by itself."""
    records: list[list[bytes]] = []
    size = 0
    for line in lines:
        if not records or size + len(line) > MAX_RECORD_BYTES:
            records.append([])
            size = 0
        records[-1].append(line)
        size += len(line) + 1
    return [b"\n".join(record) for record in records]
