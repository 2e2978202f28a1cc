"""The mean of the last N elements, exact however many came before."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import inf, isfinite, isnan, nan
from typing import overload

_UNIT_BITS = 1074  # the smallest float above 0 is 2**-1074


class MovingAverage(Sequence[float], ABC):
    """The mean of the last N elements added, and those elements, oldest first.

    As a sequence it holds at most N elements: index 0 is the oldest, -1 the newest.
    """

    @abstractmethod
    def add(self, value: float) -> None:
        """Take in the newest element; the oldest leaves if there are N already."""

    @property
    @abstractmethod
    def mean(self) -> float | None:
        """The mean of the elements held, in their unit; None if there are none."""


class RingMovingAverage(MovingAverage):
    """A moving average over a ring of `size` elements, with an exact running sum.

    Elements are ints of any size and floats, kept as they were added. The sum is an integer, so nothing
    is rounded until the mean is read, and an element leaves no trace once it has left the window.
    The memory is that of the elements held; O(1) counts an operation on integers as one step.
    Not safe to share between threads without a lock.

    >>> average = RingMovingAverage(2)
    >>> for value in (1e16, 1, 2):
    ...     average.add(value)
    >>> average.mean, list(average)
    (1.5, [1, 2])
    """

    def __init__(self, size: int) -> None:
        """Start empty; TypeError if `size` is not an int (a bool is not), ValueError if it is below 1."""
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size must be an int, got {size!r}")
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size!r}")
        self._size = size
        self._ring: list[float] = []
        self._oldest = 0
        self._sum_in_units = 0
        self._nans = 0
        self._positive_infinities = 0
        self._negative_infinities = 0

    @property
    def size(self) -> int:
        """N: how many elements the window holds when full."""
        return self._size

    def add(self, value: float) -> None:
        """Take in the newest element; the oldest leaves if the window is full. O(1).

        TypeError, and no change, if `value` is neither int nor float: a bool is no measurement, and a
        Fraction or a Decimal has no exact place in a sum of binary units.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"an element must be an int or a float, got {type(value).__name__}")
        if len(self._ring) < self._size:
            self._ring.append(value)
        else:
            self._tally(self._ring[self._oldest], -1)
            self._ring[self._oldest] = value
            self._oldest = (self._oldest + 1) % self._size
        self._tally(value, 1)

    @property
    def mean(self) -> float | None:
        """The float nearest to the exact mean, ties to even. O(1).

        None if there are no elements: NaN would look like a window that holds one, and an empty window
        is how every window starts, not an error. NaN while the window holds a NaN or both infinities,
        an infinity while it holds only that one. Zero is 0.0 whatever the signs of the zeros held.
        OverflowError if ints take the mean beyond the largest float; `exact_mean` has it still.
        """
        if not self._ring:
            return None
        if self._nans or (self._positive_infinities and self._negative_infinities):
            return nan
        if self._positive_infinities or self._negative_infinities:
            return inf if self._positive_infinities else -inf
        return self._sum_in_units / (len(self._ring) << _UNIT_BITS)

    @property
    def exact_mean(self) -> Fraction | None:
        """The mean with no rounding, None if there are no elements; ValueError if one is not finite. O(1)."""
        if not self._ring:
            return None
        if self._nans or self._positive_infinities or self._negative_infinities:
            raise ValueError("a window that holds a NaN or an infinity has no exact mean")
        return Fraction(self._sum_in_units, len(self._ring) << _UNIT_BITS)

    def __len__(self) -> int:
        return len(self._ring)

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        """The element at `index`, oldest first, O(1), or IndexError; the list of those in a slice, O(N)."""
        if isinstance(index, slice):
            return list(self)[index]
        if not -len(self._ring) <= index < len(self._ring):
            raise IndexError(f"index {index} is outside a window of {len(self._ring)} elements")
        return self._ring[(self._oldest + index) % len(self._ring)]

    def __iter__(self) -> Iterator[float]:
        """The elements held now, oldest first; adds made while iterating do not show."""
        return iter(self._ring[self._oldest :] + self._ring[: self._oldest])

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self._size}, len={len(self._ring)})"

    def _tally(self, value: float, step: int) -> None:
        """Count `value` in (step 1) or out (step -1)."""
        if isinstance(value, int) or isfinite(value):
            self._sum_in_units += step * _units(value)
        elif isnan(value):
            self._nans += step
        elif value > 0:
            self._positive_infinities += step
        else:
            self._negative_infinities += step


def _units(value: float) -> int:
    """`value` in units of 2**-1074: a whole number for every int and every finite float."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT_BITS + 1 - denominator.bit_length())
