"""Moving averages: the Polars version agrees with the data structure, element by element."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.transforms.moving_average import RingMovingAverage
from assets.transforms.rollup import TRAFFIC
from assets.transforms.trend import LONGEST, WINDOWS, moving_averages

START = datetime(2026, 3, 1, tzinfo=UTC)
FIRST_HOURS = {"site": pl.String, "first_hour": pl.Datetime("ms", "UTC")}

counts = st.dictionaries(st.integers(0, 700), st.integers(1, 10**15), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), counts, min_size=1), st.integers(0, 900), st.integers(1, 200))
def test_every_hour_has_the_mean_of_the_last_elements_since_the_first(sites, begin, length):
    hours = [START + timedelta(hours=hour) for hour in range(begin, begin + length)]
    window = (hours[0] - timedelta(hours=LONGEST - 1), hours[-1])
    traffic = pl.DataFrame(
        [(site, START + timedelta(hours=hour), n, n + 1, 1) for site, found in sites.items() for hour, n in found.items()],
        schema=TRAFFIC, orient="row",
    ).filter(pl.col("hour").is_between(*window))  # fmt: skip
    first_hours = pl.DataFrame(
        [(site, START + timedelta(hours=min(found))) for site, found in sites.items()], schema=FIRST_HOURS, orient="row"
    )
    ours = {
        (row["site"], row["hour"]): row for row in moving_averages(traffic, first_hours, hours).iter_rows(named=True)
    }

    wanted = {}
    for site, found in sites.items():
        averages = {n: RingMovingAverage(n) for n in WINDOWS}
        last = None
        for hour in range(min(found), begin + length):
            last = hour if hour in found else last
            for average in averages.values():
                average.add(found.get(hour, 0))
            if hour >= begin and hour - last < LONGEST:
                wanted[site, START + timedelta(hours=hour)] = {n: average.mean for n, average in averages.items()}
    assert ours.keys() == wanted.keys()
    for key, means in wanted.items():
        assert {n: ours[key][f"pageviews_{n}h_average"] for n in WINDOWS} == means


def test_no_traffic_gives_no_rows():
    nothing = moving_averages(pl.DataFrame(schema=TRAFFIC), pl.DataFrame(schema=FIRST_HOURS), [START])
    assert nothing.is_empty()
