"""Work pools in a browser: made, edited, paused and deleted, told what a plan refuses, and shown to who may only look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from managedd import ids
from managedd.model.access import Role
from managedd.model.limits import HostLimits
from managedd.orchestration.pool_types import default_template
from managedd.store import plans
from tests.api.deployed import flow_of
from tests.support.api_keys import bearer, make_key
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]


async def pool(site: Pages, name: str, **more: Any) -> dict[str, Any]:
    body = {"name": name, "type": "prefect:managed", "base_job_template": default_template("prefect:managed"), **more}
    status, made = await site.api.post("/work_pools/", body)
    assert status == 201, made
    return dict(made)


async def test_from_an_empty_store_to_a_pool_that_is_edited_paused_and_deleted(site: Pages, looking: Looking) -> None:
    page = looking.page
    looking.expected.append("status of 422")
    await looking.go(f"{site.url}/")
    await page.get_by_role("link", name="Create work pool").click()
    await page.get_by_role("link", name="Prefect Managed").click()
    await page.get_by_role("heading", name="Plan pro").wait_for()
    await page.wait_for_url("**/new?type=*")
    await looking.ready()
    assert "250 h of 250 h of compute time are left" in await page.inner_text("main")

    await page.get_by_label("Name", exact=False).first.fill("etl")
    await page.get_by_label("Environment Variables").fill("STAGE=test")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("heading", name="etl", level=1).wait_for()
    assert "STAGE=test" in await page.inner_text("main")

    await page.get_by_role("link", name="Edit", exact=True).click()
    await page.wait_for_url("**/edit")
    await looking.ready()
    await page.get_by_role("link", name="Queues of this pool: 1").click()
    await page.get_by_role("row", name="default").wait_for()
    await page.get_by_role("link", name="Add queue").wait_for()
    await page.get_by_label("Description").fill("For **everything** of the [warehouse](https://example.org)")
    await page.get_by_label("Pip Packages").fill("pandas>=2\nrequests")
    await page.get_by_label("Memory Limit").fill("64Gi")
    await page.get_by_label("Concurrency limit").fill("2")
    await page.get_by_role("button", name="Save").click()
    memory = page.get_by_label("Memory Limit")
    await page.locator("[aria-invalid=true]").wait_for()
    assert await memory.get_attribute("aria-invalid") == "true"
    told = str(await memory.get_attribute("aria-describedby")).split()[-1]
    assert "more than plan 'pro' allows, 2.0 GiB" in await page.locator(f"id={told}").inner_text()
    assert await looking.barriers() == []

    await memory.fill("512Mi")
    await page.get_by_role("button", name="Save").click()
    await page.wait_for_url("**/work-pool/etl")
    await looking.ready()
    await page.get_by_text("pandas>=2").wait_for()
    assert "0 of 2 running" in await page.inner_text("main")
    assert await page.locator(".markdown strong").inner_text() == "everything"
    _, kept = await site.api.get("/work_pools/etl")
    defaults = {
        name: part.get("default") for name, part in kept["base_job_template"]["variables"]["properties"].items()
    }
    assert (defaults["pip_packages"], defaults["memory_limit"]) == (["pandas>=2", "requests"], "512Mi")
    assert (defaults["env"], defaults["image"], kept["concurrency_limit"]) == ({"STAGE": "test"}, None, 2)

    await page.get_by_role("button", name="Pause").click()
    await page.get_by_text("The pool is paused").wait_for()
    await page.get_by_role("link", name="Work pools").first.click()
    await page.wait_for_url("**/work-pools")
    await looking.ready()
    card = page.locator(".card", has_text="etl")
    await card.get_by_text("For everything of the warehouse").wait_for()
    await card.get_by_text("Paused").wait_for()
    await card.locator("summary").click()
    await card.get_by_role("button", name="Resume").click()
    await card.get_by_text("Ready").wait_for()

    await card.locator("summary").click()
    await card.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Keep it as it is").click()
    assert (await site.api.get("/work_pools/etl"))[0] == 200
    await card.locator("summary").click()
    await card.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_text("No work pools yet").wait_for()
    assert (await site.api.get("/work_pools/etl"))[0] == 404


async def test_queues_are_added_changed_paused_and_deleted(site: Pages, looking: Looking) -> None:
    await pool(site, "etl - nightly")
    page = looking.page
    await looking.go(f"{site.url}/work-pools/work-pool/{quote('etl - nightly')}")
    await page.get_by_role("link", name="Add queue").click()
    await page.wait_for_url("**/new-queue")
    await looking.ready()
    await page.get_by_label("Name").fill("urgent")
    await page.get_by_label("Description").fill(HOSTILE)
    await page.get_by_label("Priority").fill("1")
    await page.get_by_role("button", name="Add queue").click()

    row = page.locator("tr", has_text="urgent")
    await row.get_by_role("link", name="urgent").click()
    await page.wait_for_url("**/queue/urgent")
    await looking.ready()
    await page.get_by_label("Concurrency limit").fill("3")
    await page.get_by_role("button", name="Save").click()
    await row.locator("td", has_text="3").wait_for()
    await looking.ready()
    await row.locator("summary").click()
    await row.get_by_role("button", name="Pause").click()
    await row.get_by_text("Paused").wait_for()
    _, queue = await site.api.get("/work_pools/etl%20-%20nightly/queues/urgent")
    assert (queue["priority"], queue["concurrency_limit"], queue["is_paused"]) == (1, 3, True)
    assert queue["description"] == HOSTILE
    assert not await looking.is_hacked()

    await row.locator("summary").click()
    await row.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await row.wait_for(state="detached")
    default = page.locator("tr", has_text="default").first
    await default.locator("summary").click()
    assert await default.get_by_role("button", name="Delete").count() == 0


async def test_every_card_has_its_own_queues_and_pools_go_on_where_a_page_ends(site: Pages, looking: Looking) -> None:
    page = looking.page
    for number in range(61):
        body = {"name": f"p{number:02}", "type": "process"}
        assert (await site.api.post("/work_pools/", body))[0] == 201
    for number in range(210):
        body = {"name": f"q{number:03}", "priority": number + 2}
        assert (await site.api.post("/work_pools/p00/queues", body))[0] == 201
    await looking.go(f"{site.url}/work-pools")
    await page.get_by_text("1–60 of 61").wait_for()
    cards = page.locator(".card.pool")
    assert await cards.count() == 60
    assert await cards.filter(has_text="default").count() == 60, "many queues of one pool take none from another"
    full = cards.filter(has=page.get_by_role("link", name="p00", exact=True))
    assert await full.locator("a.tag").count() == 9
    await full.get_by_role("link", name="more").click()
    await page.wait_for_url("**/p00#queues")
    await looking.ready()
    assert await page.get_by_role("table", name="Queues of p00").locator("tbody tr").count() == 211
    await looking.go(f"{site.url}/work-pools?offset=60")
    assert await cards.count() == 1
    await looking.go(f"{site.url}/work-pools?offset=600")
    await page.get_by_role("link", name="To the first page").wait_for()


async def test_nothing_that_people_write_runs_or_breaks_a_narrow_dark_page(site: Pages, browser: Browser) -> None:
    template = default_template("prefect:managed") or {}
    properties = template["variables"]["properties"]
    properties["env"] |= {"default": {"A": HOSTILE}, "title": HOSTILE, "description": HOSTILE}
    properties["pip_packages"]["title"] = f"Packages {HOSTILE}"
    made = await pool(site, "wärehouse 'x' \"y\"", description=HOSTILE, concurrency_limit=1, base_job_template=template)
    at = f"/work-pools/work-pool/{quote(made['name'], safe='')}"
    status, other = await site.api.post("/work_pools/", {"name": "mine", "type": HOSTILE})
    assert status == 201, other
    flow_id = await flow_of(site.api)
    body = {"name": "d", "flow_id": flow_id, "work_pool_name": made["name"], "job_variables": {}}
    status, deployment = await site.api.post("/deployments/", body)
    assert status == 201, deployment
    status, run = await site.api.post(f"/deployments/{deployment['id']}/create_flow_run", {"name": HOSTILE})
    assert status == 201, run
    await site.services.db.write(
        lambda tx: tx.execute(
            "UPDATE flow_runs SET state_type = 'RUNNING', start_time = created WHERE id = ?", (run["id"],)
        ),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )

    async with Looking.opened(browser, size=NARROW, scheme="dark") as looking:
        for path in ("/work-pools", at, f"{at}/edit", f"{at}/queue/default", f"{at}/new-queue", "/work-pools/new",
                     "/work-pools/work-pool/mine", "/work-pools/new?type=prefect:managed"):  # fmt: skip
            await looking.go(f"{site.url}{path}")
            assert not await looking.is_hacked()
            assert await looking.barriers() == [], path
            wide = await looking.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, path
        await looking.go(f"{site.url}{at}")
        text = await looking.page.inner_text("main")
        assert HOSTILE in text
        assert "1 of 1 running" in text

        await looking.go(f"{site.url}{at}/edit")
        await looking.page.get_by_role("button", name="Save").click()
        await looking.page.get_by_role("heading", name=made["name"]).wait_for()
        _, kept = await site.api.get(f"/work_pools/{quote(made['name'], safe='')}")
        assert kept["base_job_template"] == made["base_job_template"], "what nobody has touched is as it was"
        assert kept["description"] == HOSTILE
        looking.check()


async def test_a_pool_without_a_template_says_so_and_takes_that_of_its_type(site: Pages, looking: Looking) -> None:
    page = looking.page
    for name, kind in (("bare", "prefect:managed"), ("ours", "nomad:of-our-own")):
        assert (await site.api.post("/work_pools/", {"name": name, "type": kind}))[0] == 201
    await looking.go(f"{site.url}/work-pools/work-pool/ours/edit")
    await page.get_by_text("made without a base job template").wait_for()
    assert await page.get_by_role("button", name="Take the template").count() == 0
    await looking.go(f"{site.url}/work-pools/work-pool/bare/edit")
    assert await page.get_by_label("Pip Packages").count() == 0
    assert await looking.barriers() == []
    await page.get_by_role("button", name="Take the template of prefect:managed").click()
    await page.get_by_label("Pip Packages").wait_for()
    assert await page.get_by_text("made without a base job template").count() == 0
    _, kept = await site.api.get("/work_pools/bare")
    assert kept["base_job_template"] == default_template("prefect:managed")


async def test_a_plan_that_is_full_says_so_before_and_after(site: Pages, looking: Looking) -> None:
    looking.expected.append("status of 403")
    for number in range(5):
        await pool(site, f"p{number}")
    await site.services.db.write(
        lambda tx: plans.put_host(tx, HostLimits(run_memory_bytes=1 << 30, run_seconds=3600)),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )
    await looking.go(f"{site.url}/work-pools/new?type=prefect:managed")
    text = await looking.page.inner_text("main")
    assert "Plan pro allows 5 managed pools, and there are 5." in text
    assert "1 GiB, at most 2 GiB" in text

    await looking.page.get_by_label("Name").first.fill("sixth")
    await looking.page.get_by_role("button", name="Create").click()
    alert = looking.page.get_by_role("alert")
    await alert.wait_for()
    assert "maximum number of managed work pools" in await alert.inner_text()


async def test_a_viewer_sees_everything_and_is_offered_nothing(closed_site: Pages, looking: Looking) -> None:
    db = closed_site.services.db
    body = {"name": "etl", "type": "prefect:managed", "base_job_template": default_template("prefect:managed")}
    headers = bearer(await make_key(db, Role.DEVELOPER))
    async with closed_site.http.post("/api/work_pools/", json=body, headers=headers) as response:
        assert response.status == 201, await response.text()
    key = await make_key(db, Role.VIEWER)

    await looking.page.goto(f"{closed_site.url}/work-pools")
    await looking.page.get_by_label("Key").fill(key)
    await looking.page.get_by_role("button", name="Sign in").click()
    await looking.page.get_by_role("link", name="etl").wait_for()
    assert await looking.page.get_by_role("link", name="Create work pool").count() == 0
    assert await looking.page.locator(".card summary").count() == 0
    await looking.go(f"{closed_site.url}/work-pools/work-pool/etl")
    assert await looking.page.locator("main [data-call], main a[href$='/edit'], main summary").count() == 0
    assert "Defaults of its runs" in await looking.page.inner_text("main")
    await looking.go(f"{closed_site.url}/work-pools/work-pool/etl/queue/default")
    assert await looking.page.locator("main form, main [data-call]").count() == 0

    looking.expected.append("status of 403")
    refused = await looking.page.goto(f"{closed_site.url}/work-pools/work-pool/etl/edit")
    assert refused is not None
    assert refused.status == 403
