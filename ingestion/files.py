"""Files to import, plain or gzip, read as lines in bounded memory."""

import gzip
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from ingestion.event import MAX_LINE_BYTES

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are done."""

LINES_A_REPORT = 10_000


class ImportRefused(Exception):
    """The file cannot be imported, and nothing of it was. The message says why and what to do."""


def no_progress(done: int, total: int) -> None:
    """For work that nobody watches."""


def numbered_lines(file: Path, progress: Progress = no_progress) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, without their ends, each cut after the longest that is accepted. Raises ImportRefused."""
    with opened(file) as (stream, position):
        total, number = file.stat().st_size, 0
        while line := stream.readline(MAX_LINE_BYTES + 2):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := stream.readline(MAX_LINE_BYTES)):
                pass
            yield number, (line.removeprefix(BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
            if number % LINES_A_REPORT == 0:
                progress(position(), total)
        progress(total, total)


@contextmanager
def opened(file: Path) -> Iterator[tuple[BinaryIO, Callable[[], int]]]:
    """The file's bytes, unpacked where it is gzip, and how far into the file it has been read. Raises ImportRefused."""
    try:
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw, raw.tell
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise ImportRefused(f"{file} is a damaged gzip file ({problem}); nothing was imported") from None
    except OSError as problem:
        raise ImportRefused(f"{file} cannot be read: {problem.strerror}; nothing was imported") from None
