"""Processes of services, found by their command lines: the number in a file may be another's by now."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

POLL_SECONDS = 0.05

IsWanted = Callable[[str], bool]


def processes_with(is_wanted: IsWanted) -> list[int]:
    """Numbers of the living processes that have such an argument. One that has ended and waits for its parent has none."""
    return [number for number, arguments in _command_lines() if any(map(is_wanted, arguments))]


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    if sys.platform == "linux":
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                yield int(folder.name), os.fsdecode((folder / "cmdline").read_bytes()).split("\0")
    else:  # an argument with spaces is not found
        listed = subprocess.run(["ps", "-axwwo", "pid=,command="], capture_output=True, text=True).stdout
        for line in listed.splitlines():
            number, *arguments = line.split()
            yield int(number), arguments


def end(living: Callable[[], list[int]], request: signal.Signals, seconds: float) -> None:
    """Asks processes to end, and kills those that have not within these seconds. They are looked up until none is left."""
    send(living(), request)
    until = time.monotonic() + seconds
    while left := living():
        if time.monotonic() > until:
            send(left, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def send(processes: list[int], number: signal.Signals) -> None:
    """Sends a signal to those that still live."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
