"""RingMovingAverage against a deque of the same elements and the exact mean by fractions.Fraction."""

import random
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from math import copysign, inf, isfinite, isnan, nan, nextafter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.transforms.moving_average import MovingAverage, RingMovingAverage

LARGEST = 1.7976931348623157e308
SMALLEST = 5e-324

finite = st.one_of(
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, SMALLEST, -SMALLEST, LARGEST, -LARGEST, 2**53 + 1, 10**400, -(10**400)]),
)
elements = st.one_of(finite, st.sampled_from([nan, inf, -inf]))
sizes = st.integers(1, 8)


def is_finite(value: float) -> bool:
    return isinstance(value, int) or isfinite(value)


def fraction_mean(window: deque[float]) -> Fraction:
    return sum(map(Fraction, window), Fraction(0)) / len(window)


def special_mean(window: deque[float]) -> float:
    """IEEE's own sum of the special elements: NaN spreads, and so does inf - inf."""
    return sum(value for value in window if not is_finite(value))


def assert_mean(average: RingMovingAverage, window: deque[float]) -> None:
    if not window:
        assert average.mean is None
        assert average.exact_mean is None
    elif all(map(is_finite, window)):
        assert average.exact_mean == fraction_mean(window)
        assert_nearest_float(average, fraction_mean(window))
    else:
        assert repr(average.mean) == repr(special_mean(window))
        with pytest.raises(ValueError, match="no exact mean"):
            _ = average.exact_mean


def assert_nearest_float(average: RingMovingAverage, exact: Fraction) -> None:
    try:
        nearest = float(exact)
    except OverflowError:
        with pytest.raises(OverflowError):
            _ = average.mean
    else:
        assert average.mean == nearest
        assert type(average.mean) is float


def assert_elements(average: MovingAverage, window: deque[float]) -> None:
    expected = list(window)
    assert len(average) == len(expected)
    assert all(got is wanted for got, wanted in zip(average, expected, strict=True))
    assert all(average[index] is expected[index] for index in range(-len(expected), len(expected)))
    assert list(reversed(average)) == expected[::-1]
    for outside in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError, match=f"index {outside} is outside a window of {len(expected)} elements"):
            _ = average[outside]


def filled(size: int, values: list[float]) -> RingMovingAverage:
    average = RingMovingAverage(size)
    for value in values:
        average.add(value)
    return average


def wide_values(count: int) -> Iterator[float]:
    """Floats from 1e-9 to 1e16 of both signs, evenly over the exponents; the same at every run."""
    source = random.Random(20240229)
    return (source.choice((-1.0, 1.0)) * 10.0 ** source.uniform(-9, 16) for _ in range(count))


# Any elements, any size


@settings(max_examples=300, deadline=None)
@given(sizes, st.lists(elements, max_size=40))
def test_every_add_matches_the_oracle(size: int, values: list[float]) -> None:
    average, window = RingMovingAverage(size), deque[float](maxlen=size)
    assert_mean(average, window)
    for value in values:
        average.add(value)
        window.append(value)
        assert_mean(average, window)
        assert_elements(average, window)


@settings(deadline=None)
@given(sizes, st.lists(elements, max_size=20), st.slices(8))
def test_a_slice_is_that_of_the_list(size: int, values: list[float], part: slice) -> None:
    assert filled(size, values)[part] == values[-size:][part]


@settings(deadline=None)
@given(sizes, st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_no_neighbouring_float_is_nearer_to_the_exact_mean(size: int, values: list[float]) -> None:
    mean = filled(size, values).mean
    exact = fraction_mean(deque(values, maxlen=size))
    assert mean is not None
    for neighbour in filter(isfinite, (nextafter(mean, -inf), nextafter(mean, inf))):
        assert abs(Fraction(mean) - exact) <= abs(Fraction(neighbour) - exact)


@settings(deadline=None)
@given(sizes, st.lists(elements, max_size=20), st.data())
def test_what_has_left_the_window_leaves_no_trace(size: int, before: list[float], data: st.DataObject) -> None:
    window = data.draw(st.lists(finite, min_size=size, max_size=size))
    assert filled(size, before + window).exact_mean == filled(size, window).exact_mean


# The edges


@pytest.mark.parametrize(
    ("size", "values", "mean"),
    [
        pytest.param(3, [1, 2], 1.5, id="not full yet"),
        pytest.param(3, [9, 1, 2, 3], 2.0, id="the oldest has left"),
        pytest.param(1, [1, 2, 7], 7.0, id="a window of one"),
        pytest.param(2, [1e308, 1e308], 1e308, id="the sum overflows, the mean does not"),
        pytest.param(3, [LARGEST] * 3, LARGEST, id="the largest float"),
        pytest.param(3, [LARGEST, -LARGEST, 3.0], 1.0, id="cancelling"),
        pytest.param(2, [SMALLEST, SMALLEST], SMALLEST, id="the smallest float"),
        pytest.param(2, [SMALLEST, 0.0], 0.0, id="half the smallest, a tie to even"),
        pytest.param(2, [3 * SMALLEST, 0.0], 2 * SMALLEST, id="one and a half, a tie to even"),
        pytest.param(1, [1e16, 1e-9], 1e-9, id="the large one left nothing behind"),
        pytest.param(2, [2**53 + 1, 2**53 + 1], 2.0**53, id="an int between floats, a tie to even"),
        pytest.param(2, [10**400, 2 - 10**400], 1.0, id="ints beyond the floats"),
        pytest.param(2, [1, 0.5], 0.75, id="an int and a float"),
        pytest.param(2, [-0.0, -0.0], 0.0, id="negative zeros"),
        pytest.param(2, [nan, 1.0], nan, id="NaN"),
        pytest.param(2, [inf, 1.0], inf, id="infinity"),
        pytest.param(2, [-inf, 10**400], -inf, id="negative infinity and a huge int"),
        pytest.param(2, [inf, -inf], nan, id="both infinities"),
        pytest.param(2, [nan, inf], nan, id="NaN and infinity"),
        pytest.param(2, [nan, inf, 1.0], inf, id="NaN has left"),
        pytest.param(2, [inf, -inf, 1.0], -inf, id="one infinity has left"),
        pytest.param(2, [inf, inf, 1.0], inf, id="one of two equal infinities has left"),
        pytest.param(2, [nan, -inf, 0.5, 1.5], 1.0, id="finite again"),
    ],
)
def test_mean(size: int, values: list[float], mean: float) -> None:
    got = filled(size, values).mean
    assert got is not None
    assert (isnan(got) and isnan(mean)) or (got == mean and copysign(1, got) == copysign(1, mean))


def test_the_mean_of_none_is_none() -> None:
    assert RingMovingAverage(3).mean is None
    assert RingMovingAverage(3).exact_mean is None


def test_a_mean_beyond_the_floats_is_refused_exact_and_forgotten() -> None:
    average = filled(2, [10**400, 10**400 + 1])
    with pytest.raises(OverflowError):
        _ = average.mean
    assert average.exact_mean == 10**400 + Fraction(1, 2)
    average.add(1)
    average.add(2)
    assert average.mean == 1.5


def test_elements_are_kept_as_added() -> None:
    assert [repr(value) for value in filled(4, [1, 1.0, -0.0, 2**80])] == ["1", "1.0", "-0.0", str(2**80)]


def test_iteration_shows_the_elements_held_when_it_began() -> None:
    average = filled(2, [1, 2])
    elements_then = iter(average)
    average.add(3)
    assert (list(elements_then), list(average)) == ([1, 2], [2, 3])


@pytest.mark.parametrize("size", [0, -1, -(10**30)])
def test_a_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size must be at least 1, got {size}"):
        RingMovingAverage(size)


@pytest.mark.parametrize("size", [True, 2.0, "3", None, nan])
def test_a_size_that_is_no_int_is_refused(size: object) -> None:
    with pytest.raises(TypeError, match=f"size must be an int, got {size!r}"):
        RingMovingAverage(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [True, "1", None, Fraction(1, 3), Decimal("0.1"), 1j, [1.0]])
def test_an_element_of_another_type_is_refused_and_changes_nothing(value: object) -> None:
    average = filled(2, [1, 2])
    with pytest.raises(TypeError, match=f"an element must be an int or a float, got {type(value).__name__}"):
        average.add(value)  # type: ignore[arg-type]
    assert (list(average), average.mean) == ([1, 2], 1.5)


def test_size_and_repr_of_elements_too_long_to_print() -> None:
    average = filled(3, [10**5000, 1])
    assert average.size == 3
    assert repr(average) == "RingMovingAverage(size=3, len=2)"


def test_it_is_a_moving_average() -> None:
    assert isinstance(RingMovingAverage(1), MovingAverage)
    with pytest.raises(TypeError, match="abstract"):
        MovingAverage()  # type: ignore[abstract]


# Drift


def test_no_drift_in_100_000_adds_where_a_float_sum_drifts() -> None:
    size = 1_000
    average, window = RingMovingAverage(size), deque[float]()
    exact_sum, float_sum = Fraction(0), 0.0
    float_sum_wrong = 0
    for value in wide_values(100_000):
        average.add(value)
        window.append(value)
        exact_sum, float_sum = exact_sum + Fraction(value), float_sum + value
        if len(window) > size:
            left = window.popleft()
            exact_sum, float_sum = exact_sum - Fraction(left), float_sum - left
        nearest = exact_sum.numerator / (exact_sum.denominator * len(window))
        assert average.mean == nearest
        float_sum_wrong += float_sum / len(window) != nearest
    assert float_sum_wrong > 90_000


def test_a_quiet_stretch_shows_nothing_of_the_loud_one_before() -> None:
    values = [*wide_values(10_000), *[1e-9] * 100]
    assert filled(100, values).mean == 1e-9
    float_sum = 0.0
    for added, left in zip(values, [0.0] * 100 + values, strict=False):
        float_sum += added
        float_sum -= left
    assert abs(float_sum / 100 - 1e-9) > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_drift_in_10_million_adds() -> None:
    """Every 1,000th mean against a sum made anew, so that the oracle has no past to drift from.

    A window a little longer than the step: every value is in one comparison, at every turn of the ring.
    """
    size, step = 1_009, 1_000
    average, window = RingMovingAverage(size), deque[float](maxlen=size)
    values = wide_values(10_000_000)
    compared = 0
    while batch := list(islice(values, step)):
        for value in batch:
            average.add(value)
        window.extend(batch)
        exact = fraction_mean(window)
        assert average.exact_mean == exact
        assert average.mean == float(exact)
        compared += 1
    assert compared == 10_000


# Cost


def seconds_for_1_000(average: RingMovingAverage) -> float:
    """The best of five, for 1,000 adds and means."""

    def once() -> float:
        start = time.perf_counter()
        for value in range(1_000):
            average.add(value)
            _ = average.mean
        return time.perf_counter() - start

    return min(once() for _ in range(5))


def test_the_time_of_an_add_and_a_mean_does_not_grow_with_the_window() -> None:
    small, large = filled(10, [0.1] * 10), filled(100_000, [0.1] * 100_000)
    assert seconds_for_1_000(large) < 20 * seconds_for_1_000(small)


def test_the_memory_does_not_grow_with_the_adds() -> None:
    average = filled(100, list(wide_values(1_000)))
    tracemalloc.start()
    try:
        for value in wide_values(20_000):
            average.add(value)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 10_000
