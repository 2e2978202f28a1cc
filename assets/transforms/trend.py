"""Moving averages of hourly traffic, for many sites at once. For one series, element by element, see moving_average.py.

Counts are whole numbers, so sums come from exact prefix sums: the sum over the N hours that end with h is the prefix sum at h
less the one at h - N.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

WINDOWS = (3, 24, 168)
"""Hours."""
LONGEST = max(WINDOWS)
MEASURES = ("pageviews", "events", "visitors")


def moving_averages(traffic: pl.DataFrame, first_hours: pl.DataFrame, hours: Sequence[datetime]) -> pl.DataFrame:
    """Averages at each of `hours` of each site that had events in the 168 hours that end with it.

    `traffic` has a row (site, hour, pageviews, events, visitors) for each site and hour with traffic, from 167 hours before
    the first of `hours`; an hour without a row counts zero. `first_hours` (site, first_hour) says since when a site has
    traffic: the divisor is min(N, hours since then, both included). Columns out: site, hour, `<measure>_<N>h_average`.
    """
    wanted = pl.DataFrame({"hour": hours}, schema={"hour": pl.Datetime("ms", "UTC")}).sort("hour")
    sums = (
        traffic.sort("site", "hour")
        .select("site", "hour", *(pl.col(measure).cum_sum().over("site") for measure in MEASURES))
        .sort("hour", "site")
    )
    grid = (
        traffic.select("site").unique().join(first_hours, on="site")
        .join(wanted, how="cross")
        .filter(pl.col("hour") >= pl.col("first_hour"))
        .sort("hour", "site")
    )  # fmt: skip
    for window in (0, *WINDOWS):
        grid = _with_sums(grid, sums, window)
    age = (pl.col("hour") - pl.col("first_hour")).dt.total_hours() + 1
    return (
        grid.filter(pl.col("events_0") > pl.col(f"events_{LONGEST}"))
        .with_columns(
            ((pl.col(f"{measure}_0") - pl.col(f"{measure}_{window}")) / pl.min_horizontal(age, pl.lit(window))).alias(
                f"{measure}_{window}h_average"
            )
            for measure in MEASURES
            for window in WINDOWS
        )
        .select("hour", "site", *(f"{measure}_{window}h_average" for measure in MEASURES for window in WINDOWS))
        .sort("hour", "site")
    )


def _with_sums(grid: pl.DataFrame, sums: pl.DataFrame, window: int) -> pl.DataFrame:
    """Adds each measure's prefix sum `window` hours before the hour, as `<measure>_<window>`."""
    until = sums.rename({measure: f"{measure}_{window}" for measure in MEASURES} | {"hour": "until"})
    return (
        grid.with_columns(until=pl.col("hour") - timedelta(hours=window))
        .join_asof(until, on="until", by="site", strategy="backward", check_sortedness=False)
        .drop("until")
        .with_columns(pl.col(f"{measure}_{window}").fill_null(0) for measure in MEASURES)
    )
