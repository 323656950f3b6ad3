"""The page that `prefect cloud login` opens in a browser, with a listener as the command's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from managedd import ids
from managedd.model.access import Role
from managedd.store.workspaces import create
from tests.support.api_keys import bearer, make_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "*", "Access-Control-Allow-Headers": "*"}


@asynccontextmanager
async def waiting() -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """The command's listener: its address, and what it was told."""
    told: list[tuple[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        if request.method == "POST":
            told.append((request.path, await request.json()))
        return web.json_response({}, headers=CORS)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    async with TestServer(app) as server:
        yield f"http://localhost:{server.port}", told


async def sign_in(site: Pages, looking: Looking, way: str, key: str) -> None:
    await looking.page.goto(site.url + way)
    await looking.page.get_by_label("Key").fill(key)
    await looking.page.get_by_role("button", name="Sign in").click()
    await looking.ready()


async def test_an_admin_makes_a_key_for_the_command_that_waits(closed_site: Pages, looking: Looking) -> None:
    db, account, workspace = closed_site.services.db, ids.new_id(), ids.new_id()
    await db.write(
        lambda tx: create(tx, account_id=account, account="acme", workspace_id=workspace, handle="w", plan="pro")
    )
    async with waiting() as (callback, told):
        key = await make_key(db, Role.ADMIN, workspace=workspace)
        await sign_in(closed_site, looking, f"/auth/client?callback={callback}", key)
        await looking.page.get_by_text("The key opens acme/w").wait_for()
        assert await looking.barriers() == []
        await looking.page.get_by_role("button", name="Make a key and hand it over").click()
        await looking.page.get_by_text("the command has its key").wait_for()
        ((path, body),) = told
        assert path == "/success"
        assert body["api_key"] not in {key, ""}
        mine = await closed_site.http.get("/api/me/workspaces", headers=bearer(body["api_key"]))
        assert [each["workspace_id"] for each in await mine.json()] == [workspace]
        assert body["api_key"] not in await looking.page.content()


async def test_who_may_make_none_hands_over_their_own_or_refuses(closed_site: Pages, looking: Looking) -> None:
    async with waiting() as (callback, told):
        key = await make_key(closed_site.services.db, Role.RUNNER)
        await sign_in(closed_site, looking, f"/auth/client?callback={callback}/", key)
        await looking.page.get_by_label("Your key").fill(key)
        await looking.page.get_by_role("button", name="Hand it over").click()
        await looking.page.get_by_text("the command has its key").wait_for()
        await looking.go(f"{closed_site.url}/auth/client?callback={callback}")
        await looking.page.get_by_role("button", name="Refuse").click()
        await looking.page.get_by_text("Refused.").wait_for()
        assert told == [("/success", {"api_key": key}), ("/failure", {"reason": "It was refused in the browser."})]


async def test_the_page_sends_keys_to_that_address_alone(site: Pages, looking: Looking) -> None:
    looking.expected = ["ERR_", "Content Security Policy", "Content-Security-Policy", "422"]
    policies = [
        (await site.http.get(path)).headers["Content-Security-Policy"]
        for path in ("/auth/client?callback=http://localhost:4321", "/settings")
    ]
    assert ["connect-src 'self' http://localhost:4321;" in each for each in policies] == [True, False]
    for wrong in ("", "http://example.com:1", "http://localhost:1%20https://evil.example"):
        assert (await site.http.get(f"/auth/client?callback={wrong}")).status == 422
    await looking.go(f"{site.url}/auth/client?callback=http://localhost:9")
    await looking.page.get_by_role("button", name="Make a key and hand it over").click()
    await looking.page.get_by_text("The command does not answer").wait_for()
