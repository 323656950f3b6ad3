"""Settings, usage and the host in the web pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.model.access import Role
from tests.support.api_keys import bearer, make_key
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

PLACES = ("", "/keys", "/variables", "/blocks", "/concurrency-limits", "/workspaces", "/audit")


async def test_a_key_is_made_shown_once_used_and_revoked(site: Pages, looking: Looking) -> None:
    page = looking.page
    await looking.go(f"{site.url}/settings/keys")
    await page.get_by_label("Name").fill("a/b")
    await page.get_by_role("button", name="Make the key").click()
    await page.get_by_text("should match pattern").wait_for()
    looking.expected = ["422"]
    assert await page.get_by_label("Name").get_attribute("aria-invalid") == "true"
    await page.get_by_label("Name").fill("Ann's laptop")
    await page.get_by_label("Role").select_option("viewer")
    await page.get_by_role("button", name="Make the key").click()
    made = page.locator("code.made")
    await page.get_by_text("it is not shown again").wait_for()
    key = await made.inner_text()
    assert (await site.http.get("/api/managed/usage", headers=bearer(key))).status == 200
    row = page.get_by_role("row", name="Ann's laptop")
    await row.wait_for()
    assert await made.is_visible()
    assert await looking.barriers() == []

    await row.get_by_role("button", name="Revoke").click()
    await page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    await page.get_by_text("revoked").wait_for()
    assert key not in await page.content()
    assert (await site.http.get("/api/managed/usage", headers=bearer(key))).status == 401


async def test_variables_and_limits_are_made_changed_and_deleted_and_strangers_text_stays_text(
    site: Pages, looking: Looking
) -> None:
    page = looking.page
    looking.expected = ["422", "409"]
    await looking.go(f"{site.url}/settings/variables")
    await page.get_by_label("Name").fill(HOSTILE)
    await page.get_by_role("button", name="Make the variable").click()
    await page.locator("[aria-invalid=true]").wait_for()
    await page.get_by_label("Name").fill("colour")
    await page.get_by_label("Value").fill(HOSTILE)
    await page.get_by_label("Tags").fill(f"one\n{HOSTILE}")
    await page.get_by_role("button", name="Make the variable").click()
    row = page.get_by_role("row", name="colour")
    await row.wait_for()
    assert HOSTILE in await row.inner_text()
    await row.get_by_text("Edit").click()
    await row.get_by_label("Value").fill("blue")
    await row.get_by_role("button", name="Save").click()
    await page.get_by_role("cell", name="blue").wait_for()
    assert (await site.api.get("/variables/name/colour"))[1]["value"] == "blue"
    await row.get_by_text("Edit").click()
    await row.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_text("There are none.").wait_for()

    await looking.go(f"{site.url}/settings/concurrency-limits")
    for word, name, fields in (
        ("New limit by name", "Make the limit", {"Name": "database", "Slots": "3"}),
        ("New limit by tag", "Make the limit", {"Tag": HOSTILE, "Task runs at a time": "2"}),
    ):
        form = page.locator("details", has_text=word)
        await form.get_by_text(word).click()
        for label, value in fields.items():
            await form.get_by_label(label, exact=False).first.fill(value)
        await form.get_by_role("button", name=name).click()
        await page.get_by_role("row", name=next(iter(fields.values()))).wait_for()
    await page.get_by_role("row", name="database").get_by_role("button", name="Switch off").click()
    await page.get_by_role("row", name="database").get_by_role("button", name="Switch on").wait_for()
    assert not await looking.is_hacked()


async def test_secrets_of_blocks_are_never_shown(site: Pages, looking: Looking) -> None:
    block = await _secret_block(site)
    await looking.go(f"{site.url}/settings/blocks")
    await looking.page.get_by_role("link", name="token").click()
    await looking.ready()
    assert looking.page.url == f"{site.url}/blocks/block/{block}"
    text = await looking.page.content()
    assert "********" in text
    assert "hunter2" not in text


async def test_workspaces_are_made_and_put_on_other_plans_and_what_was_done_is_in_the_audit_log(
    site: Pages, looking: Looking
) -> None:
    page = looking.page
    looking.expected = ["422"]
    await looking.go(f"{site.url}/settings/workspaces")
    await page.get_by_label("Account").fill("acme")
    await page.get_by_role("textbox", name="Workspace").fill("red")
    await page.get_by_label("Name for people").fill(HOSTILE)
    await page.get_by_role("button", name="Make the workspace").click()
    row = page.get_by_role("row", name="acme/red")
    await row.get_by_text("Edit").click()
    await row.get_by_label("Plan").fill("gold")
    await row.get_by_role("button", name="Save").click()
    await row.get_by_text("there is no plan").wait_for()
    await row.get_by_label("Plan").fill("free")
    await row.get_by_role("button", name="Save").click()
    await page.get_by_role("row", name="acme/red").get_by_role("cell", name="free").wait_for()

    await row.get_by_role("link", name="acme/red").click()
    await looking.ready()
    assert "/workspace/" in page.url
    await page.get_by_role("link", name="Settings").click()
    await looking.ready()
    await page.get_by_role("heading", name="Plan free").wait_for()
    assert "/api/accounts/" in await page.locator("[data-api-url]").inner_text()
    await site.api.post("/variables/", {"name": "v", "value": 1})
    await looking.go(f"{site.url}/settings/audit")
    await page.get_by_role("cell", name="POST /variables/").wait_for()
    assert not await looking.is_hacked()


async def test_the_host_says_what_the_doctor_says(site: Pages, looking: Looking) -> None:
    finding = {"name": HOSTILE, "level": "problem", "seen": "it is on fire", "mend": "call somebody", "facts": {}, "group": "host"}  # fmt: skip

    async def examine() -> dict[str, object]:
        counts = {"ok": 0, "note": 0, "warning": 0, "problem": 1}
        return {"version": "0", "healthy": False, "counts": counts, "findings": [finding]}

    site.services.examinations.examine = examine
    await looking.go(f"{site.url}/host")
    await looking.page.get_by_text("Nobody has asked").wait_for()
    await looking.page.get_by_role("button", name="Examine this host").click()
    await looking.page.get_by_text("call somebody").wait_for()
    await looking.page.get_by_text("1 problem, 0 warnings, 0 notes").wait_for()
    assert await looking.barriers() == []
    assert not await looking.is_hacked()


@pytest.mark.parametrize(("size", "scheme"), [(NARROW, "dark"), ((1280, 900), "light")])
async def test_everybody_can_use_these_pages(site: Pages, browser: Browser, size: tuple[int, int], scheme: str) -> None:
    await site.api.post("/variables/", {"name": "v", "value": {"a": [1, 2]}, "tags": ["x"]})
    await site.api.post("/v2/concurrency_limits/", {"name": "l", "limit": 1})
    await _secret_block(site)
    async with Looking.opened(browser, size=size, scheme=scheme) as looking:
        for path in ("/usage", "/host", *(f"/settings{place}" for place in PLACES)):
            await looking.go(site.url + path)
            assert await looking.barriers() == [], path
            width = await looking.page.evaluate("document.documentElement.scrollWidth")
            assert width <= size[0], f"{path} is {width} pixels wide"
        looking.check()


async def test_a_viewer_sees_neither_keys_nor_what_it_may_not_do(closed_site: Pages, looking: Looking) -> None:
    auth = {"Authorization": "Basic YWRtaW46c2VjcmV0"}
    await closed_site.api.post("/variables/", {"name": "v", "value": 1}, headers=auth)
    page = looking.page
    looking.expected = ["403"]
    await page.goto(f"{closed_site.url}/settings/variables")
    await page.get_by_label("Key").fill(await make_key(closed_site.services.db, Role.VIEWER))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("rowheader", name="v", exact=True).wait_for()
    assert await page.get_by_role("button", name="Make the variable").count() == 0
    assert await page.get_by_text("Edit").count() == 0
    for name in ("Keys", "Workspaces", "Audit log", "Host"):
        assert await page.get_by_role("link", name=name, exact=True).count() == 0, name
    await page.goto(f"{closed_site.url}/settings/keys")
    await page.get_by_role("heading", name="403").wait_for()


async def _secret_block(site: Pages) -> str:
    _, kind = await site.api.post("/block_types/", {"name": "Secret", "slug": "secret"})
    fields = {"type": "object", "properties": {"value": {"type": "string", "format": "password"}}, "secret_fields": ["value"], "block_type_slug": "secret"}  # fmt: skip
    _, schema = await site.api.post("/block_schemas/", {"block_type_id": kind["id"], "fields": fields})
    sent = {"name": "token", "data": {"value": "hunter2"}, "block_type_id": kind["id"], "block_schema_id": schema["id"]}
    status, made = await site.api.post("/block_documents/", sent)
    assert status == 201, made
    return str(made["id"])
