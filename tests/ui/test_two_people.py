"""Two people have the same thing open: neither undoes what the other one has saved, and nobody's typing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from managedd.bus import Topic
from tests.api.deployed import deploy, pool_of, read
from tests.ui.looking import Looking

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

REFUSED = "Somebody has changed this since you opened it"


async def save(page: Page) -> None:
    """The form is saved, and its page left."""
    here = page.url
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.wait_for_url(lambda url: url != here)


async def refused(page: Page) -> str:
    """What stands above the form that is not saved."""
    await page.get_by_role("button", name="Save", exact=True).click()
    alert = page.get_by_role("alert")
    await expect(alert).to_contain_text(REFUSED)
    return await alert.inner_text()


async def defaults(site: Pages) -> dict[str, Any]:
    _, pool = await site.api.get("/work_pools/mine")
    return {name: each.get("default") for name, each in pool["base_job_template"]["variables"]["properties"].items()}


async def test_two_people_who_edit_a_pool_do_not_undo_each_other(
    site: Pages, looking: Looking, browser: Browser
) -> None:
    await pool_of(site.api)
    looking.expected.append("412")
    url = f"{site.url}/work-pools/work-pool/mine/edit"
    async with Looking.opened(browser) as other:
        first, second = looking.page, other.page
        for each in (looking, other):
            await each.go(url)
        await second.get_by_label("Pip Packages").fill("pandas")
        await second.get_by_label("Description").fill("by B")
        await save(second)

        await first.get_by_label("Memory Limit").fill("512Mi")
        await first.get_by_label("Concurrency limit").fill("4")
        assert "base job template" in await refused(first)
        assert await first.get_by_label("Memory Limit").input_value() == "512Mi"
        assert await looking.barriers() == []
        await first.get_by_label("Memory Limit").fill("")
        await save(first)
        _, pool = await site.api.get("/work_pools/mine")
        assert (pool["description"], pool["concurrency_limit"]) == ("by B", 4), "of each what that one has changed"
        assert (await defaults(site))["pip_packages"] == ["pandas"]

        await looking.go(url)
        await first.get_by_label("Memory Limit").fill("512Mi")
        await save(first)
        now = await defaults(site)
        assert (now["pip_packages"], now["memory_limit"]) == (["pandas"], "512Mi")
        other.check()


async def test_a_deployment_that_is_deployed_again_under_an_open_form_keeps_what_is_new(
    site: Pages, looking: Looking
) -> None:
    await pool_of(site.api)
    schema = {"type": "object", "properties": {"day": {"type": "string"}, "rows": {"type": "integer"}}}
    kept: dict[str, Any] = {"work_pool_name": "mine", "parameter_openapi_schema": schema}
    made = await deploy(site.api, **kept, parameters={"day": "monday"}, tags=["a"])
    looking.expected.append("412")
    page = looking.page
    url = f"{site.url}/deployments/deployment/{made['id']}/edit"
    await looking.go(url)
    await deploy(
        site.api, **kept, expect=200, parameters={"day": "friday"}, tags=["b"], job_variables={"env": {"A": "1"}}
    )

    await page.get_by_label("Description", exact=True).fill("by A")
    await page.get_by_label("rows", exact=True).fill("3")
    assert "parameters" in await refused(page)
    assert await page.get_by_label("rows", exact=True).input_value() == "3"
    await page.get_by_label("rows", exact=True).fill("")
    await save(page)
    now = await read(site.api, made)
    assert (now["description"], now["parameters"], now["tags"]) == ("by A", {"day": "friday"}, ["b"])
    assert now["job_variables"] == {"env": {"A": "1"}}


async def test_a_form_on_a_page_that_is_kept_up_to_date_is_so_too_while_nobody_is_in_it(
    site: Pages, looking: Looking
) -> None:
    _, made = await site.api.post("/variables/", {"name": "rate", "value": "1", "tags": ["a"]})
    path = f"/variables/{made['id']}"

    async def change(body: dict[str, Any]) -> None:
        assert (await site.api.patch(path, body))[0] == 204
        site.services.bus.publish([Topic.EVENTS])

    page = looking.page
    looking.expected.append("412")
    await looking.go(f"{site.url}/variables")
    await page.get_by_label("Edit rate", exact=True).click()
    form = page.locator("details.edit form")
    value, tags = form.get_by_label("Value"), form.get_by_label("Tags")
    await change({"value": "2"})
    await expect(value).to_have_value('"2"')

    await value.fill("3")
    await change({"tags": ["b"]})
    await expect(page.locator("td .tag")).to_have_text("b")
    await expect(value).to_have_value("3")
    await expect(tags).to_have_value("a")
    async with page.expect_navigation():
        await form.get_by_role("button", name="Save").click()
    await looking.ready()
    _, now = await site.api.get(path)
    assert (now["value"], now["tags"]) == (3, ["b"])

    await page.get_by_label("Edit rate", exact=True).click()
    await value.fill("4")
    await change({"value": "5"})
    await expect(page.locator("td code")).to_have_text("5")
    assert "value" in await refused(page)
    await expect(value).to_have_value("4")
