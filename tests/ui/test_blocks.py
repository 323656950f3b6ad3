"""Blocks in the web pages: made and changed with a form of their type, without a stored secret ever coming back."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from managedd.model.access import Role
from managedd.ui import block_forms
from managedd.ui.controls import Kind
from tests.support.api_keys import make_key
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.async_api import Browser

    from managedd.ui.forms import Field
    from tests.ui.conftest import Pages

PASSWORD = {"type": "string", "format": "password", "writeOnly": True}
SECRET: dict[str, Any] = {
    "type": "object",
    "block_type_slug": "secret",
    "properties": {"value": {**PASSWORD, "title": "Value", "anyOf": [PASSWORD, {"type": "string"}, {"$ref": "#/definitions/J"}]}},
    "required": ["value"],
    "secret_fields": ["value"],
    "definitions": {"J": {}},
}  # fmt: skip
STORE: dict[str, Any] = {
    "type": "object",
    "block_type_slug": "store",
    "block_schema_references": {"token": {"block_type_slug": "secret"}, "other": {"block_type_slug": "secret"}},
    "properties": {
        "path": {"type": "string", "title": "Path", "position": 0, "description": HOSTILE},
        "size": {"type": "integer", "title": "Size", "default": 3, "position": 1},
        "token": {"$ref": "#/definitions/Secret", "position": 2},
        "other": {"anyOf": [{"$ref": "#/definitions/Secret"}, {"type": "null"}], "title": "Other", "position": 3},
        "login": {"$ref": "#/definitions/Login", "position": 4},
        "headers": {"type": "object", "title": "Headers", "default": {}, "position": 5},
        "pin": {"anyOf": [PASSWORD, {"type": "null"}], "title": "Pin", "default": None, "position": 6},
    },
    "required": ["path", "token", "login"],
    "secret_fields": ["token.value", "other.value", "login.password", "headers.*", "pin"],
    "definitions": {
        "Secret": {**SECRET, "title": "Token"},
        "Login": {
            "type": "object",
            "title": "Login",
            "properties": {"user": {"type": "string", "title": "User"}, "password": {**PASSWORD, "title": "Password"}},
            "required": ["user", "password"],
        },
    },
}


def by_name(fields: tuple[Field, ...]) -> Mapping[str, Field]:
    """The fields, and those in them."""
    return {each.name: each for field in fields for each in (field, *field.fields)}


def test_a_new_block_has_a_field_for_each_part_of_its_schema_and_a_choice_for_what_it_refers_to() -> None:
    found = by_name(block_forms.form(STORE, {"token": [("id-1", "mine")]}).fields)
    assert {name: field.kind for name, field in found.items()} == {
        "path": Kind.TEXT, "size": Kind.INTEGER, "token": Kind.CHOICE, "other": Kind.CHOICE, "login": Kind.GROUP,
        "login.user": Kind.TEXT, "login.password": Kind.SECRET, "headers": Kind.JSON, "pin": Kind.SECRET,
    }  # fmt: skip
    assert [(each.value, each.label) for each in found["token"].choices] == [
        ('{"$ref": {"block_document_id": "id-1"}}', "mine")
    ]
    assert (found["token"].required, found["other"].required, found["other"].empty) == (True, False, "null")
    assert "no block of the type secret yet" in found["other"].help
    value = by_name(block_forms.form(SECRET, {}).fields)["value"]
    assert (value.kind, value.required) == (Kind.SECRET, True)


def test_what_is_stored_and_secret_is_in_no_field_and_left_out_when_nothing_is_written() -> None:
    values = {
        "path": "p", "size": 4, "token": {"$ref": {"block_document_id": "id-1"}}, "headers": {"x": "********"},
        "login": {"user": "ann", "password": "********"}, "pin": "********",
    }  # fmt: skip
    made = block_forms.form(STORE, {"token": [("id-1", "mine")]}, values)
    found = by_name(made.fields)
    assert made.kept == {"login": {"password": "********"}}
    for name in ("login.password", "pin"):
        assert (found[name].value, found[name].empty, found[name].required) == ("", "", False), name
    assert (found["pin"].is_removable, found["login.password"].is_removable) == (True, False)
    assert found["token"].value == '{"$ref": {"block_document_id": "id-1"}}'
    # Left out it would stay as it is: nobody may think that an empty field has emptied it.
    assert found["size"].required


@pytest.mark.parametrize("stored", ["plain as day", {"deep": "plain as day"}, 12])
def test_a_secret_that_a_schema_forgets_to_list_is_in_no_field_either(stored: Any) -> None:
    schema = {"properties": {"key": PASSWORD, "name": {"type": "string"}}}
    document = {"data": {"key": stored, "name": "n"}, "block_document_references": {}}
    values = block_forms.values_of(document, schema)
    assert "plain as day" not in str(values)
    assert by_name(block_forms.form(schema, {}, values).fields)["key"].value == ""
    assert block_forms.as_json(values, schema).value == '{\n  "name": "n"\n}'


async def registered(site: Pages, name: str, fields: Mapping[str, Any], **more: Any) -> tuple[str, str]:
    """The ids of a new block type and its schema."""
    slug = str(fields["block_type_slug"])
    status, kind = await site.api.post("/block_types/", {"name": name, "slug": slug, **more})
    assert status == 201, kind
    status, schema = await site.api.post("/block_schemas/", {"block_type_id": kind["id"], "fields": fields})
    assert status == 201, schema
    return kind["id"], schema["id"]


async def data_of(site: Pages, url: str) -> dict[str, Any]:
    """The block's data in clear."""
    found = re.search(r"/blocks/block/([0-9a-f-]{36})", url)
    assert found is not None, url
    _, document = await site.api.get(f"/block_documents/{found[1]}?include_secrets=true")
    return {"name": document["name"], **document["data"]}


@pytest.mark.anyio
@pytest.mark.browser
async def test_blocks_are_made_loaded_changed_and_deleted_without_showing_a_secret(
    site: Pages, looking: Looking
) -> None:
    page = looking.page
    looking.expected = ["422", "409"]
    await looking.go(f"{site.url}/settings/blocks")
    await page.get_by_role("link", name="New block").click()
    await page.get_by_role("heading", name="No block types yet").wait_for()
    assert "prefect block register" in await page.inner_text("main")

    await registered(site, "Secret", SECRET, description=f"**bold** {HOSTILE}")
    await registered(site, "Store", STORE, code_example='```python\nStore.load("BLOCK_NAME")\n```')
    # Where Prefect's command line points to.
    await looking.go(f"{site.url}/blocks/catalog/store/create")
    await page.get_by_text("does not exist yet").get_by_role("link", name="secret").click()
    await page.wait_for_url("**/secret/create")
    await looking.ready()
    await page.get_by_label("Name").fill("My token")
    await page.get_by_label("Value").fill("hunter2")
    await page.get_by_role("button", name="Create").click()
    await page.locator("#name[aria-invalid=true]").wait_for()
    await page.get_by_label("Name").fill("my-token")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_text('Block.load("secret/my-token")').wait_for()
    assert "hunter2" not in await page.content()
    assert await data_of(site, page.url) == {"name": "my-token", "value": "hunter2"}

    await looking.go(f"{site.url}/blocks/catalog/store/create")
    await page.get_by_label("Name").fill("warehouse")
    await page.get_by_label("Path").fill(HOSTILE)
    await page.get_by_label("Token").select_option("my-token")
    await page.get_by_label("User").fill("ann")
    await page.get_by_label("Password").fill("pass 1")
    await page.get_by_label("Headers").fill('{"x": "sesame"}')
    await page.get_by_label("Pin").fill("1234")
    await page.get_by_role("button", name="Create").click()
    await page.get_by_role("link", name="Edit").wait_for()
    made = await data_of(site, page.url)
    assert made == {
        "name": "warehouse", "path": HOSTILE, "size": 3, "token": {"value": "hunter2"}, "other": None,
        "login": {"user": "ann", "password": "pass 1"}, "headers": {"x": "sesame"}, "pin": "1234",
    }  # fmt: skip
    shown = await page.content()
    assert not [each for each in ("hunter2", "pass 1", "sesame", "1234") if each in shown]
    await page.get_by_text("Example of the type").click()
    await page.get_by_text('Store.load("warehouse")').wait_for()
    await page.get_by_role("link", name="secret/my-token").wait_for()
    assert HOSTILE in await page.inner_text("main")

    await page.get_by_role("link", name="Edit").click()
    await page.wait_for_url("**/edit")
    await looking.ready()
    assert not [each for each in ("hunter2", "pass 1", "sesame", "1234") if each in await page.content()]
    assert await page.get_by_label("Password").input_value() == ""
    assert await page.get_by_label("Token").locator("option:checked").inner_text() == "my-token"
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text('Block.load("store/warehouse")').wait_for()
    assert await data_of(site, page.url) == made, "what nobody has touched is as it was"

    await page.get_by_role("link", name="Edit").click()
    await page.wait_for_url("**/edit")
    await looking.ready()
    await page.get_by_label("Password").fill("pass 2")
    await page.get_by_label("Size").fill("9")
    await page.get_by_label("Other").select_option("my-token")
    await page.get_by_label("Take the stored value away").check()
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text('Block.load("store/warehouse")').wait_for()
    assert await data_of(site, page.url) == {
        **made, "size": 9, "other": {"value": "hunter2"}, "pin": None, "login": {"user": "ann", "password": "pass 2"},
    }  # fmt: skip

    await looking.go(f"{page.url}/edit?as=json")
    data = page.get_by_label("Data")
    assert "********" in await data.input_value()
    await data.fill("{")
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text("This is no JSON").wait_for()
    await data.fill('{"path": "/srv", "login": {"user": "bob", "password": "********"}}')
    await page.get_by_role("button", name="Save").click()
    await page.get_by_text('Block.load("store/warehouse")').wait_for()
    changed = await data_of(site, page.url)
    assert (changed["path"], changed["size"]) == ("/srv", 9)
    assert changed["login"] == {"user": "bob", "password": "pass 2"}

    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_role("heading", name="1 block").wait_for()
    assert not await looking.is_hacked()


@pytest.mark.anyio
@pytest.mark.browser
async def test_many_blocks_stand_on_pages_are_found_by_name_and_can_be_used_on_a_narrow_dark_screen(
    site: Pages, browser: Browser
) -> None:
    kind, schema = await registered(site, "Secret {{7*7}} '\"`", SECRET, description=HOSTILE, code_example=HOSTILE)
    store = await registered(site, "Store", STORE)
    for number in range(51):
        sent = {"name": f"b{number:03}", "data": {"value": "x"}, "block_type_id": kind, "block_schema_id": schema}
        status, last = await site.api.post("/block_documents/", sent)
        assert status == 201, last
    data = {"path": HOSTILE, "token": {"$ref": {"block_document_id": last["id"]}}, "login": {HOSTILE: [None]}, "pin": 3}
    sent = {"name": "odd", "data": {**data, "more": HOSTILE}, "block_type_id": store[0], "block_schema_id": store[1]}
    status, odd = await site.api.post("/block_documents/", sent)
    assert status == 201, odd
    async with Looking.opened(browser, size=NARROW, scheme="dark") as looking:
        page = looking.page
        await looking.go(f"{site.url}/settings/blocks")
        await page.get_by_text("1–50 of 52").wait_for()
        await page.get_by_role("link", name="After").click()
        await page.get_by_role("link", name="b050").wait_for()
        await page.get_by_role("searchbox", name="Name contains").fill("04")
        await page.get_by_role("button", name="Search").click()
        await page.get_by_role("heading", name="11 blocks").wait_for()
        for path in (
            "/settings/blocks", "/settings/blocks?q=nothing", "/settings/blocks?offset=500", "/blocks/catalog",
            "/blocks/catalog/store/create", "/blocks/catalog/secret/create?as=json", f"/blocks/block/{odd['id']}",
            f"/blocks/block/{odd['id']}/edit", f"/blocks/block/{odd['id']}/edit?as=json", f"/blocks/block/{last['id']}",
        ):  # fmt: skip
            await looking.go(site.url + path)
            assert await looking.barriers() == [], path
            assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
            assert not await looking.is_hacked(), path
        looking.check()


@pytest.mark.anyio
@pytest.mark.browser
async def test_a_viewer_is_offered_no_way_to_make_or_change_a_block(closed_site: Pages, looking: Looking) -> None:
    page = looking.page
    looking.expected = ["403"]
    await page.goto(f"{closed_site.url}/settings/blocks")
    await page.get_by_label("Key").fill(await make_key(closed_site.services.db, Role.VIEWER))
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="0 blocks").wait_for()
    assert await page.get_by_role("link", name="New block").count() == 0
    await page.goto(f"{closed_site.url}/blocks/catalog/secret/create")
    await page.get_by_role("heading", name="403").wait_for()
