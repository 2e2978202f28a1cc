"""The Dagster UI in a browser, clicked as an operator clicks it: an hour is materialized, three dates are backfilled.

FOOTFALL_SCREENSHOT=docs/dagster-ui.png .venv/bin/pytest tests/e2e/test_dagster_ui.py    also pictures the asset graph
"""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, Request, Response, expect, sync_playwright

from ingestion.simulation.traffic import simulate
from tests.orchestration.test_up import Up, schedules, stop_schedule, until

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
FIRST = datetime.now(UTC).date() - timedelta(days=4)
HOUR = f"{FIRST}T12"
DATES = [str(FIRST + timedelta(days=days)) for days in range(3)]
SECONDS = 1000
SCREENSHOT = os.environ.get("FOOTFALL_SCREENSHOT", "")

if os.environ.get("CI") != "true" and not CHROMIUM.exists():
    pytest.skip("needs Debian's chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`footfall up` with traffic of a few days imported, and nothing computed. The schedules are off: the person at the mouse decides."""
    folder = tmp_path_factory.mktemp("ui")
    up = Up.at(
        folder / "home",
        FOOTFALL_START=str(FIRST - timedelta(days=2)),
        FOOTFALL_HOURLY_MINUTES="60",
        FOOTFALL_DAILY_MINUTES="60",
    )
    simulate(folder / "sample", seed=3, first_date=FIRST, days=1, visitors=60)
    code, said = up.run("import", "events", str(folder / "sample" / "events.ndjson"))
    assert code == 0, said
    up.start()
    up.wait_until_ready()
    for name in schedules(up):
        stop_schedule(up, name)
    yield up
    up.run("down")
    until(lambda: not up.living(), 30)  # `down` does not wait for the last breath of `up`


@pytest.fixture
def page(it: Up) -> Iterator[Page]:
    """A browser's page, of which no request may fail, nor go elsewhere."""
    problems: list[str] = []

    def failed(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # a question that the next page no longer needs answered
            problems.append(f"{request.method} {request.url}: {request.failure}")

    def answered(response: Response) -> None:
        if response.status >= 400 or f"http://{it.environment['FOOTFALL_DAGSTER']}/" not in response.url:
            problems.append(f"{response.status} {response.url}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            base_url=f"http://{it.environment['FOOTFALL_DAGSTER']}", viewport={"width": 1400, "height": 900}
        )
        page.on("requestfailed", failed)
        page.on("response", answered)
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        yield page
        browser.close()
    assert problems == []


def test_the_graph_shows_every_asset(it, page):
    page.set_viewport_size({"width": 1400, "height": 2400})  # what is out of sight is not drawn
    open_graph(page)
    page.keyboard.press("Alt+e")  # expands all groups
    names = {node["assetKey"]["path"][-1] for node in it.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]}
    assert len(names) >= 19
    until(lambda: all(any(shown.fullmatch(name) for shown in nodes(page)) for name in names), 30)


def test_an_hour_is_materialized_by_clicking(it, page):
    launch(page, "hourly", HOUR, "Launch 1 run", "Launched run")
    turns_green(it, page, "traffic", [HOUR])
    turns_green(it, page, "events", [HOUR])
    page.goto("/runs")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible()


def test_three_dates_are_backfilled_by_clicking(it, page):
    launch(page, "daily", f"[{DATES[0]}...{DATES[-1]}]", "Launch backfill", "Created backfill")
    for asset in ("report_site_days", "report_breakdown_days", "visits"):
        turns_green(it, page, asset, DATES)
    assert it.runs("FAILURE") == []


def turns_green(it: Up, page: Page, asset: str, partitions: list[str]) -> None:
    """In the page of an asset's partitions, which counts by itself, and in what is stored."""
    page.goto(f"/assets/{asset}?view=partitions&partition={partitions[0]}")
    expect(page.get_by_text(f"Materialized ({len(partitions)})")).to_be_visible(timeout=120 * SECONDS)
    page.reload()
    expect(page.get_by_text("Materialized", exact=True)).to_be_visible()
    assert materialized(it, asset) == partitions


@pytest.mark.skipif(not SCREENSHOT, reason="only for the README")
def test_a_picture_of_the_graph(it, page):
    """Given that everything is computed, so that all is green."""
    for job, asset in (("hourly", "traffic"), ("daily", "visits")):
        every = about(it, asset)["partitionKeys"]
        it.succeeds(it.launch(job, every[0], every[-1]))
    groups = ",".join(f"global@global:{group}" for group in ("collect", "hourly", "daily", "reports"))
    open_graph(page, expanded=groups)
    page.locator("button:has([aria-label=panel_show_right])").click()
    until(lambda: len(nodes(page)) > 15, 30)
    page.wait_for_timeout(3 * SECONDS)  # until it has stopped moving
    centre(page)
    page.screenshot(path=SCREENSHOT)


def open_graph(page: Page, **parameters: str) -> None:
    page.goto(f"/asset-groups?{urlencode(parameters)}")
    page.get_by_text("Hide navigation").click()
    expect(page.get_by_text("Materialize all")).to_be_visible()


def nodes(page: Page) -> list[re.Pattern[str]]:
    """The names on the graph, some of them shortened in the middle."""
    shown = page.locator("foreignObject").all_text_contents()
    return [re.compile(re.escape(name).replace("…", ".*")) for name in shown if name]


def centre(page: Page) -> None:
    """Drags the graph to the middle of what is seen of it."""
    boxes = [box for node in page.locator("foreignObject").all() if (box := node.bounding_box())]
    left, right = min(box["x"] for box in boxes), max(box["x"] + box["width"] for box in boxes)
    top, bottom = min(box["y"] for box in boxes), max(box["y"] + box["height"] for box in boxes)
    size = page.viewport_size
    assert size
    page.mouse.move(size["width"] - 200, size["height"] - 60)
    page.mouse.down()
    page.mouse.move(
        size["width"] - 200 + (60 + size["width"]) / 2 - (left + right) / 2,
        size["height"] - 60 + (90 + size["height"]) / 2 - (top + bottom) / 2,
        steps=5,
    )
    page.mouse.up()


def launch(page: Page, job: str, partitions: str, button: str, said: str) -> None:
    """Types the partitions into the dialog of a job's "Materialize all", and clicks on what launches them."""
    page.goto(f"/locations/footfall/jobs/{job}")
    page.get_by_role("button", name="Materialize all").click()
    dialog = page.get_by_role("dialog")
    text, confirm = dialog.get_by_role("textbox").first, dialog.get_by_role("button", name="Confirm")
    expect(text.or_(confirm)).to_be_visible()
    if confirm.is_visible():  # it asks where what comes before was never made
        confirm.click()
    text.fill(partitions)
    text.press("Enter")
    dialog.get_by_role("button", name=button).click()
    expect(page.get_by_text(said)).to_be_visible(timeout=30 * SECONDS)


def materialized(it: Up, asset: str) -> list[str]:
    return sorted(found["partition"] for found in about(it, asset)["latestMaterializationByPartition"] if found)


def about(it: Up, asset: str) -> dict[str, Any]:
    query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
        partitionKeys latestMaterializationByPartition { partition } } } }"""
    node: dict[str, Any] = it.ask(query, key={"path": [asset]})["assetNodeOrError"]
    return node
