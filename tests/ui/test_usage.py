"""Usage in the web pages: months, days, who used the most, and tables for spreadsheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.deployed import deploy, pool_of
from tests.api.test_usage import ran
from tests.ui.looking import NARROW, WIDE

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]


async def test_a_month_is_shown_by_day_and_by_who_used_the_most(site: Pages, looking: Looking) -> None:
    page = looking.page
    await pool_of(site.api)
    often = await deploy(site.api, "often", work_pool_name="mine")
    hostile = await deploy(site.api, "'; DROP & co", work_pool_name="mine")
    for day in (3, 10, 11):
        await ran(site.api, often, f"2026-05-{day:02}T10:00:00Z", f"2026-05-{day:02}T12:05:00Z")
    await ran(site.api, hostile, "2026-05-12T10:00:00Z", "2026-05-12T10:00:10Z")

    await looking.go(f"{site.url}/usage")
    await page.get_by_text("Nothing ran in").wait_for()
    await looking.go(f"{site.url}/usage?month=2026-05")
    await page.get_by_text("6 h 16 min used of 250 h").wait_for()
    rows = page.locator("section", has_text="Who used the most").locator("tbody tr")
    assert [(await row.inner_text()).split("\t")[1] for row in await rows.all()] == ["6 h 15 min", "1 min"]
    assert await page.locator("svg[aria-label*='each day of 2026-05'] rect").count() == 4
    await page.get_by_text("The same in numbers").click()
    await page.get_by_role("row", name="2026-05-11 2 h 5 min").wait_for()
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="CSV by deployment").click()
    assert (await waiting.value).suggested_filename == "usage-2026-05-by-deployment.csv"
    assert await looking.barriers() == []
    assert await page.get_by_text("'; DROP & co").count() == 1
    await page.get_by_label("Month").select_option(index=0)
    await page.get_by_role("button", name="Show").click()
    await looking.ready()
    assert "month=2026-05" not in page.url


@pytest.mark.parametrize("size", [NARROW, WIDE])
async def test_the_button_stands_beside_its_field_not_between_it_and_its_name(
    site: Pages, looking: Looking, size: tuple[int, int]
) -> None:
    await looking.page.set_viewport_size({"width": size[0], "height": size[1]})
    await looking.go(f"{site.url}/usage")
    field = await looking.page.get_by_role("combobox", name="Month").bounding_box()
    button = await looking.page.get_by_role("button", name="Show").bounding_box()
    assert field
    assert button
    assert abs(field["y"] + field["height"] - button["y"] - button["height"]) <= 1


async def test_who_sees_every_workspace_reads_any_month_by_workspace(site: Pages, looking: Looking) -> None:
    page = looking.page
    await pool_of(site.api)
    made = await deploy(site.api, "often", work_pool_name="mine")
    await ran(site.api, made, "2026-05-10T10:00:00Z", "2026-05-10T12:05:00Z")
    assert (await site.api.post("/managed/workspaces", {"account": "acme", "handle": "idle"}))[0] == 201
    await looking.go(f"{site.url}/usage?month=2026-05")
    rows = page.locator("section", has_text="By workspace").locator("tbody tr")
    told = [[cell.strip() for cell in (await row.inner_text()).split("\t")] for row in await rows.all()]
    assert told == [["default/default", "pro", "2 h 5 min of 250 h"], ["acme/idle", "pro", "0 min of 250 h"]]
    async with page.expect_download() as waiting:
        await page.get_by_role("link", name="CSV by workspace").click()
    assert (await waiting.value).suggested_filename == "usage-2026-05-by-workspace.csv"


async def test_only_months_that_the_workspace_has_are_offered(site: Pages, looking: Looking) -> None:
    await looking.go(f"{site.url}/usage")
    assert await looking.page.get_by_label("Month").locator("option").count() == 1
    looking.expected = ["404", "422"]
    await looking.page.goto(f"{site.url}/usage?month=0001-01")
    await looking.page.get_by_text("There is no usage of 0001-01: this workspace begins with").wait_for()
    await looking.page.goto(f"{site.url}/usage?month=0000-00")
    await looking.page.get_by_text("A month is written 20").wait_for()


async def test_what_is_no_month_is_said(site: Pages, looking: Looking) -> None:
    looking.expected = ["422"]
    await looking.page.goto(f"{site.url}/usage?month=soon")
    await looking.page.get_by_role("heading", name="422").wait_for()
