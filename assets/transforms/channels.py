"""Where a visit came from, as one ordered table: the first rule that matches decides.

The names follow Google Analytics 4 (https://support.google.com/analytics/answer/9756891).
"""

import polars as pl

DIRECT = "Direct / None"

_medium = pl.col("utm_medium").str.to_lowercase()

RULES: tuple[tuple[str, pl.Expr], ...] = (
    ("Direct", pl.col("source") == DIRECT),
    ("Paid Other", _medium.str.contains("^(cpc|ppc|retargeting|paid.*)$")),
    ("Email", _medium.is_in(["email", "e-mail", "e_mail", "e mail"])),
    ("Affiliates", _medium.is_in(["affiliate", "affiliates"])),
    (
        "Organic Social",
        _medium.is_in(["social", "social-network", "social-media", "sm", "social network", "social media"]),
    ),
    ("Organic Search", _medium == "organic"),
    ("Referral", pl.lit(True)),
)


def channel() -> pl.Expr:
    """The channel of a row with `source` and `utm_medium`."""
    return pl.coalesce(pl.when(matches).then(pl.lit(name)) for name, matches in RULES)
