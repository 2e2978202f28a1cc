"""Raw lines of many requests to few records of the event log, by one thread: who waits for a commit waits together."""

import threading
from collections import deque
from concurrent.futures import Future
from contextlib import AbstractContextManager

from ingestion.event_log import MAX_RECORD_BYTES, EventLog, EventLogUnavailable

MAX_WAITING_BYTES = 64_000_000
RECORDS_AT_ONCE = 16


class Appender:
    """Appends what is submitted. Its futures are done when the event log has the lines on disk."""

    def __init__(self, log: AbstractContextManager[EventLog]) -> None:
        self._log = log
        self._waiting: deque[tuple[bytes, Future[None]]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="appender", daemon=True)
        self._thread.start()

    def submit(self, lines: list[bytes]) -> "Future[None]":
        """Lines of one request. Raises EventLogUnavailable when too much waits already, or after `close`."""
        content = b"\n".join(lines)
        done: Future[None] = Future()
        with self._changed:
            if self._closing or self._waiting_bytes + len(content) > MAX_WAITING_BYTES:
                raise EventLogUnavailable("the event log does not keep up")
            self._waiting.append((content, done))
            self._waiting_bytes += len(content)
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
                self._append(log, taken)

    def _take(self) -> list[tuple[list[bytes], list["Future[None]"]]]:
        """Records, each of whole requests, with the futures of those."""
        records: list[tuple[list[bytes], list[Future[None]]]] = []
        size = MAX_RECORD_BYTES
        while self._waiting:
            content, done = self._waiting[0]
            if size + len(content) + 1 > MAX_RECORD_BYTES:
                if len(records) == RECORDS_AT_ONCE:
                    break
                records.append(([], []))
                size = 0
            self._waiting.popleft()
            self._waiting_bytes -= len(content)
            size += len(content) + 1
            records[-1][0].append(content)
            records[-1][1].append(done)
        return records

    def _append(self, log: EventLog, records: list[tuple[list[bytes], list["Future[None]"]]]) -> None:
        problem: BaseException | None = None
        try:
            log.append([b"\n".join(contents) for contents, _ in records])
        except Exception as failure:  # whatever it is, nobody may wait for ever
            problem = failure
        for _, futures in records:
            for done in futures:
                if problem:
                    done.set_exception(problem)
                else:
                    done.set_result(None)
