"""Work measured in a process of its own, so that its peak memory is its own."""

import multiprocessing
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = 2


@dataclass(frozen=True)
class Measured:
    """What some work returned, how long it took, and the most memory that its process has had (MiB)."""

    result: Any
    seconds: float
    peak_mib: float
    before_mib: float
    """The peak before the work began: imports and the like."""


def alone(work: Callable[..., Any], *arguments: Any) -> Measured:
    """Runs a function of a module in a fresh process with `THREADS` threads, and measures it there."""
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, work, arguments).result()


def _measured(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Measured:
    before = peak_mib()
    began = time.perf_counter()
    result = work(*arguments)
    return Measured(result, time.perf_counter() - began, peak_mib(), before)


def peak_mib() -> float:
    """The most memory that this process has had. `ru_maxrss` would be at least the parent's: Linux hands it on through exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
