"""Where two reports differ."""

import math
from collections.abc import Iterator
from typing import Any


def differences(truth: Any, ours: Any, path: str = "") -> Iterator[str]:
    """A line for each place in which two JSON values differ; floats may differ by 1e-9."""
    if isinstance(truth, dict) and isinstance(ours, dict):
        for key in sorted(truth.keys() | ours.keys()):
            if key not in truth or key not in ours:
                yield f"{path}.{key} is only in {'ours' if key in ours else 'the truth'}"
            else:
                yield from differences(truth[key], ours[key], f"{path}.{key}")
    elif isinstance(truth, list) and isinstance(ours, list):
        if len(truth) != len(ours):
            yield f"{path}: {len(truth)} in truth, {len(ours)} in ours"
        for index, (left, right) in enumerate(zip(truth, ours, strict=False)):
            yield from differences(left, right, f"{path}[{index}]")
    elif isinstance(truth, float) and isinstance(ours, float):
        if not math.isclose(truth, ours, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{path}: truth {truth}, ours {ours}"
    elif truth != ours:
        yield f"{path}: truth {truth!r}, ours {ours!r}"
