"""Settings, usage and the host in the web pages."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from managedd.model.access import Role
from tests.support.api_keys import bearer, make_key
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from playwright.async_api import Browser, Locator, Page

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


async def test_variables_of_any_kind_are_made_found_changed_and_deleted(site: Pages, looking: Looking) -> None:
    page = looking.page
    looking.expected = ["422", "409"]
    await looking.go(f"{site.url}/settings/variables")
    new = page.locator("form", has=page.get_by_role("button", name="Make the variable"))
    await new.get_by_label("Name").fill(HOSTILE)
    await new.get_by_role("button").click()
    await new.locator("[aria-invalid=true]").wait_for()
    given = {
        "text": HOSTILE, "number": "12.5", "quoted": '"12"', "nothing": "null", "none": "", "sentence": "two words",
        "object": '{"a": [1, {"b": null}], "big": 12345678901234567890}', "list": "[]", "no": "false",
    }  # fmt: skip
    for name, text in given.items():
        await new.get_by_label("Name").fill(name)
        await new.get_by_label("Value").fill(text)
        await new.get_by_label("Tags").fill(f"one\n{HOSTILE}")
        await new.get_by_role("button").click()
        await _row(page, name).wait_for()
        await looking.ready()
    kept = {each["name"]: each["value"] for each in (await site.api.post("/variables/filter", {}))[1]}
    assert kept == {
        "text": HOSTILE, "number": 12.5, "quoted": "12", "nothing": None, "none": "", "sentence": "two words",
        "object": {"a": [1, {"b": None}], "big": 12345678901234567890}, "list": [], "no": False,
    }  # fmt: skip
    for name in given:
        async with page.expect_navigation():
            await _row(page, name).get_by_text("Edit").click()
            await _row(page, name).get_by_role("button", name="Save").click()
        await looking.ready()
    assert {each["name"]: each["value"] for each in (await site.api.post("/variables/filter", {}))[1]} == kept

    await page.get_by_role("searchbox").fill("objec")
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("heading", name="1 variable", exact=True).wait_for()
    row = page.get_by_role("row", name="object")
    await row.get_by_text("Edit").click()
    await row.get_by_label("Name").fill("objective")
    await row.get_by_label("Value").fill("blue")
    await row.get_by_label("Tags").fill("")
    await row.get_by_role("button", name="Save").click()
    await page.get_by_role("cell", name="blue").wait_for()
    assert "q=objec" in page.url
    changed = (await site.api.get("/variables/name/objective"))[1]
    assert (changed["value"], changed["tags"]) == ("blue", [])
    await page.get_by_role("row", name="objective").get_by_text("Edit").click()
    await page.get_by_role("row", name="objective").get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_text("Nothing has such a name.").wait_for()
    assert not await looking.is_hacked()


async def test_limits_are_made_changed_switched_freed_and_deleted(site: Pages, looking: Looking) -> None:
    page = looking.page
    looking.expected = ["409"]
    await looking.go(f"{site.url}/settings/concurrency-limits")
    by_name = page.locator("form", has=page.get_by_role("button", name="Make the limit by name"))
    await by_name.get_by_label("Name").fill("database")
    await by_name.get_by_label("Slots").fill("3")
    await by_name.get_by_role("button").click()
    row = page.get_by_role("row", name="database")
    await row.get_by_text("0 of 3").wait_for()
    await looking.ready()
    by_tag = page.locator("form", has=page.get_by_role("button", name="Make the limit by tag"))
    await by_tag.get_by_label("Tag").fill(HOSTILE)
    await by_tag.get_by_label("Task runs at a time").fill("2")
    await by_tag.get_by_role("button").click()
    await page.get_by_role("row", name="task runs with the tag").wait_for()
    await looking.ready()

    task_run = str(uuid4())
    taken = {"names": ["database"], "slots": 2, "mode": "concurrency"}
    assert (await site.api.post("/v2/concurrency_limits/increment", taken))[0] == 200
    held = {"names": [HOSTILE], "task_run_id": task_run}
    assert (await site.api.post("/concurrency_limits/increment", held))[0] == 200
    await row.get_by_text("2 of 3").wait_for()
    tagged = page.get_by_role("row", name="task runs with the tag")
    await tagged.get_by_text("1 of 2").wait_for()
    await tagged.get_by_text("Held by").click()
    await tagged.get_by_role("link", name=task_run).wait_for()
    assert await looking.barriers() == []

    await row.get_by_text("Edit").click()
    await row.get_by_label("Name").fill("warehouse")
    await row.get_by_label("Slots").fill("4")
    await row.get_by_label("Given back each second").fill("0.5")
    await row.get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name="warehouse")
    await row.get_by_text("of 4").wait_for()
    await looking.ready()
    await row.get_by_label("Actions of warehouse").click()
    await row.get_by_role("button", name="Switch off").click()
    await row.get_by_text("off", exact=True).wait_for()
    await tagged.get_by_label("Actions of").click()
    await tagged.get_by_role("button", name="Free all slots").click()
    await page.get_by_role("dialog").get_by_role("button", name="Free all slots").click()
    await tagged.get_by_text("0 of 2").wait_for()
    await tagged.get_by_text("Edit").click()
    await tagged.get_by_label("Slots").fill("7")
    await tagged.get_by_role("button", name="Save").click()
    await tagged.get_by_text("0 of 7").wait_for()
    await looking.ready()
    await tagged.get_by_label("Actions of").click()
    await tagged.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_role("heading", name="1 limit", exact=True).wait_for()
    found = (await site.api.post("/v2/concurrency_limits/filter", {}))[1]
    assert [(each["name"], each["limit"], each["active"]) for each in found] == [("warehouse", 4, False)]
    assert not await looking.is_hacked()


async def test_lists_go_on_where_a_page_ends(site: Pages, looking: Looking) -> None:
    page = looking.page
    for number in range(60):
        sent = {"name": f"n{number:03}", "limit": 1}
        assert (await site.api.post("/v2/concurrency_limits/", sent))[0] == 201
        key = {"name": f"n{number:03}", "role": "viewer"}
        assert (await site.api.post("/managed/keys", key))[0] == 201
        variable = {"name": f"n{number:03}", "value": number}
        assert (await site.api.post("/variables/", variable))[0] == 201
        assert (await site.api.post("/managed/workspaces", {"account": "a", "handle": f"n{number:03}"}))[0] == 201
    for place, what, many in (
        ("concurrency-limits", "limits", 60), ("keys", "keys", 60), ("variables", "variables", 60), ("workspaces", "workspaces", 61),
    ):  # fmt: skip
        await looking.go(f"{site.url}/settings/{place}")
        await page.get_by_role("heading", name=f"{many} {what}", exact=True).wait_for()
        await page.get_by_role("link", name="After").click()
        await page.get_by_text(f"51–{many} of {many}").wait_for()
        assert await page.locator("table").first.locator("tbody tr").count() == many - 50
        await page.get_by_role("link", name="Before").click()
        await page.get_by_text(f"1–50 of {many}").wait_for()
        await page.get_by_role("searchbox").fill("N01")
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("heading", name=f"10 {what}", exact=True).wait_for()
        await looking.go(f"{site.url}/settings/{place}?offset=5000")
        await page.get_by_role("link", name="To the first page").wait_for()
    await looking.go(f"{site.url}/settings/audit?actor=operator")
    await page.get_by_role("link", name="Earlier").click()
    await page.get_by_role("link", name="Newest").click()
    await page.get_by_role("link", name="Newest").wait_for(state="detached")
    assert "actor=operator" in page.url


async def test_workspaces_are_made_and_put_on_other_plans_and_what_was_done_is_in_the_audit_log(
    site: Pages, looking: Looking
) -> None:
    page = looking.page
    looking.expected = ["422"]
    await looking.go(f"{site.url}/settings/workspaces")
    await page.get_by_label("Account").fill("acme")
    await page.get_by_role("textbox", name="Workspace").fill("red")
    await page.get_by_role("textbox", name="Name for people", exact=True).fill(HOSTILE)
    await page.get_by_role("button", name="Make the workspace").click()
    row = page.get_by_role("row", name="acme/red")
    await row.get_by_text("Edit").click()
    await row.get_by_label("Handle").fill("Not one")
    await row.get_by_role("button", name="Save").click()
    await row.locator("[aria-invalid=true]").wait_for()
    await row.get_by_label("Handle").fill("reds")
    await row.get_by_label("Plan").select_option("free")
    await row.get_by_label("Name for people").fill(f"Reds {HOSTILE}")
    await row.get_by_role("button", name="Save").click()
    row = page.get_by_role("row", name="acme/reds")
    await row.get_by_role("cell", name="free").wait_for()
    await row.get_by_text("Reds <img").wait_for()
    await looking.ready()

    await row.get_by_role("link", name="acme/reds").click()
    await looking.ready()
    assert "/workspace/" in page.url
    await page.get_by_role("link", name="Settings").click()
    await looking.ready()
    await page.get_by_role("heading", name="Plan free").wait_for()
    assert "/api/accounts/" in await page.locator("[data-api-url]").inner_text()
    await site.api.post("/variables/", {"name": "v", "value": 1})
    await looking.go(f"{site.url}/settings/audit")
    await page.get_by_role("cell", name="POST /variables/").wait_for()

    looking.expected += ["404"]
    await looking.go(f"{site.url}/settings/workspaces")
    await page.get_by_role("table", name="Plans").get_by_role("row", name="pro 10 5 250 2 GiB").wait_for()
    default = page.get_by_role("row", name="default/default")
    assert await default.get_by_label("Actions of").count() == 0
    await default.get_by_text("Edit").click()
    await default.get_by_label("Name for people").fill("House")
    await default.get_by_role("button", name="Save").click()
    await default.get_by_text("House").wait_for()
    await looking.ready()
    await row.get_by_label("Actions of").click()
    await row.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await row.wait_for(state="detached")
    await page.get_by_role("heading", name="1 workspace", exact=True).wait_for()
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
    await site.api.post("/concurrency_limits/", {"tag": "t", "concurrency_limit": 1})
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


def _row(page: Page, name: str) -> Locator:
    """The row of that very name."""
    return page.locator("tr", has=page.get_by_role("rowheader", name=name, exact=True))
