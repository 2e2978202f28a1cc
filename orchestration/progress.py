"""Progress of long work: a bar on a terminal, a line for each finished step elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[..., None]
"""Called with (done, total) and, where work has steps, the step's name."""


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Report]:
    """Shows how far the work is, on standard error: standard output is the result's."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_log(console, title)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(done: int, total: int, step: str = "") -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(f"{title} {step}".strip(), total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield show


def _plain_log(console: Console, title: str) -> Report:
    began = time.monotonic()

    def show(done: int, total: int, step: str = "") -> None:
        if done == total:
            label = f"{title} {step}".strip()
            console.print(
                f"{label}: {done:,} of {total:,}, {time.monotonic() - began:.1f} s", highlight=False, soft_wrap=True
            )

    return show
