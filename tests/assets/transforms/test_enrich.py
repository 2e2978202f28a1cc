"""Enrichment's fast ways say what the plain ones say: the standard library of URLs, the crawler library of agents."""

from collections.abc import Sequence
from urllib.parse import SplitResult, parse_qs, urlsplit

import crawleruseragents
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.transforms.enrich import UTM, enrich
from assets.transforms.parse import PARSED

AUTHORITIES = (
    "shop.example",
    "WWW.Shop.Example:8080",
    "me:secret@www.shop.example:80",
    "[2001:db8::1]:80",
    "forum.example",
)
REST = ("/", "//", "?", "#", "@", ":", "http://", "é", "%20", "+", "&", "=", "x", *(f"{name}=" for name in UTM))
urls = st.builds(
    lambda scheme, authority, delimiter, rest: f"{scheme}://{authority}{delimiter}{''.join(rest)}",
    st.sampled_from(["https", "HTTP", "android-app"]),
    st.sampled_from(AUTHORITIES),
    st.sampled_from(["/", "?", "#"]),
    st.lists(st.sampled_from(REST), max_size=12),
)


def enriched(**columns: Sequence[object]) -> list[dict[str, object]]:
    rows = len(next(iter(columns.values())))
    sent = {"site": ["shop.example"] * rows, "timestamp": [0] * rows, **columns}
    parsed = pl.DataFrame({name: sent.get(name, [None] * rows) for name in PARSED}, schema=PARSED)
    return enrich(parsed, {}).rows(named=True)


def host(url: SplitResult) -> str:
    return (url.hostname or "").removeprefix("www.")


@given(st.lists(urls, min_size=1, max_size=20))
def test_pages_and_campaigns_are_what_the_standard_library_reads(sent: list[str]) -> None:
    for url, row in zip(map(urlsplit, sent), enriched(url=sent), strict=True):
        assert str(row["hostname"]).strip("[]") == host(url)
        assert row["path"] == (url.path or "/")
        campaign = parse_qs(url.query)
        assert {name: row[name] for name in UTM} == {name: campaign.get(name, [None])[0] for name in UTM}


@given(st.lists(urls, min_size=1, max_size=20))
def test_a_foreign_referrer_is_its_host_and_path_and_the_source(sent: list[str]) -> None:
    for url, row in zip(map(urlsplit, sent), enriched(referrer=sent), strict=True):
        if host(url) == "shop.example":
            assert (row["referrer"], row["source"]) == (None, "Direct / None")
        else:
            assert str(row["referrer"]).replace("[", "").replace("]", "") == host(url) + url.path
            assert str(row["source"]).strip("[]") == host(url)


@pytest.mark.parametrize(
    "referrer", [None, "", "forum.example/t", "//forum.example/t", "https:forum.example", "1http://forum.example", "-"]
)
def test_a_referrer_that_is_no_absolute_url_is_none(referrer: str | None) -> None:
    (row,) = enriched(referrer=[referrer])
    assert (row["referrer"], row["source"], row["channel"]) == (None, "Direct / None", "Direct")


def test_bots_are_what_the_crawler_library_says() -> None:
    crawlers = [agent for crawler in crawleruseragents.CRAWLER_USER_AGENTS_DATA for agent in crawler["instances"]]
    people = [
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/604.1",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "a browser that nobody knows\nof two lines",
    ]
    agents = crawlers + people + [agent.upper() for agent in crawlers[::7]]
    said = [row["bot"] for row in enriched(user_agent=agents)]
    assert said == [crawleruseragents.is_crawler(agent) for agent in agents]
    assert not any(said[len(crawlers) : len(crawlers) + len(people)])


def test_what_was_stated_is_kept() -> None:
    stated = {"browser": "Lynx", "os": "Plan 9", "device": "Tablet", "source": "a friend", "channel": "Email", "utm_source": "s", "bot": True, "country": "DE"}  # fmt: skip
    agent = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36"
    (row,) = enriched(**{name: [value] for name, value in stated.items()}, user_agent=[agent], url=["https://a.example/?utm_source=other&utm_medium=email"])  # fmt: skip
    assert {name: row[name] for name in stated} == stated
    assert (row["browser_version"], row["utm_medium"]) == ("138.0", "email")


def test_a_value_that_no_index_could_hold_is_cut_and_others_are_not() -> None:
    rows = enriched(name=["x", "x"], utm_campaign=["\U0001f375" * 501, "a" * 2_000], source=["é" * 1_001, None])
    assert [row["utm_campaign"] for row in rows] == ["\U0001f375" * 500, "a" * 2_000]
    assert rows[0]["source"] == "é" * 500
