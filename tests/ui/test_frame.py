"""What all pages have in common, in a browser."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from managedd import ids
from managedd.api.sockets import Sockets
from managedd.store.workspaces import create
from managedd.ui import assets
from tests.support.api_keys import make_key
from tests.ui.conftest import not_found, serving
from tests.ui.looking import HOSTILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Page, Request

    from managedd.api.context import Services
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]


async def test_a_page_shows_what_others_change_without_being_loaded_again(site: Pages, looking: Looking) -> None:
    await looking.go(f"{site.url}/work-pools")
    await looking.page.evaluate("window.before = document.querySelector('h1')")

    await site.api.post("/work_pools/", {"name": "first", "type": "prefect:managed"})

    await looking.page.get_by_role("link", name="first").wait_for()
    assert await looking.page.evaluate("window.before === document.querySelector('h1')")
    assert await looking.barriers() == []


async def test_everything_works_behind_a_path_prefix(site: Pages, looking: Looking) -> None:
    """The proxy takes `/tools/flows` off; nobody told the daemon."""
    async with behind_prefix(site, "/tools/flows") as url:
        await looking.go(url)
        await looking.page.evaluate("fetch('./api/work_pools/', {method: 'POST', body: '{\"name\": \"x\", \"type\": \"prefect:managed\"}', headers: {'Content-Type': 'application/json'}})")  # fmt: skip
        await looking.page.get_by_role("link", name="x", exact=True).wait_for()
        await looking.page.get_by_role("link", name="Work pools").click()
        await looking.ready()
        assert looking.page.url == f"{url}work-pools"


async def test_a_session_behind_a_path_prefix_has_its_cookie_for_that_alone(
    closed_site: Pages, looking: Looking
) -> None:
    async with behind_prefix(closed_site, "/tools/flows") as url:
        await looking.page.goto(url)
        await looking.page.get_by_label("Key").fill(await make_key(closed_site.services.db))
        await looking.page.get_by_role("button", name="Sign in").click()
        await looking.ready()
        (cookie,) = await looking.context.cookies()
        assert cookie.get("path") == "/tools/flows"


async def test_a_lost_connection_is_said_and_made_good(services: Services, looking: Looking) -> None:
    looking.expected = ["ERR_", "Failed to load"]
    async with serving(services) as first:
        port = int(first.url.rpartition(":")[2])
        await looking.go(f"{first.url}/work-pools")
        banner = looking.page.get_by_text("The connection to managedd is lost")
        assert not await banner.is_visible()
    await banner.wait_for()
    services.sockets = Sockets()
    async with serving(services, port=port) as second:
        await second.api.post("/work_pools/", {"name": "meanwhile", "type": "prefect:managed"})
        await looking.page.get_by_role("link", name="meanwhile").wait_for()
        assert not await banner.is_visible()


async def test_what_does_not_exist_is_said_on_a_page(site: Pages, looking: Looking) -> None:
    looking.expected = ["404"]
    await looking.page.goto(f"{site.url}/nowhere/{HOSTILE}")
    assert await looking.page.get_by_role("heading", name="404").count() == 1
    assert await looking.barriers() == []
    assert not await looking.is_hacked()


async def test_a_menu_closes_by_escape_and_by_choosing_something_else(site: Pages, looking: Looking) -> None:
    for number in range(2):
        account, workspace = ids.new_id(), ids.new_id()
        await site.services.db.write(
            partial(create, account_id=account, account=f"a{number}", workspace_id=workspace, handle="w", plan="pro")
        )
    await looking.go(f"{site.url}/work-pools")
    summary = looking.page.locator(".who summary")
    await summary.click()
    await looking.page.get_by_role("link", name="a1/w").wait_for()
    await looking.page.keyboard.press("Escape")
    assert not await looking.page.get_by_role("link", name="a1/w").is_visible()
    assert await summary.evaluate("each => each === document.activeElement")
    await summary.click()
    await looking.page.get_by_role("link", name="a1/w").click()
    await looking.ready()
    assert f"/account/{account}/workspace/{workspace}/work-pools" in looking.page.url


async def test_the_first_page_is_small_and_soon_there(site: Pages, looking: Looking) -> None:
    asked: list[Request] = []
    looking.page.on("requestfinished", lambda request: asked.append(request))  # noqa: PLW0108 (Playwright marks it)
    await looking.go(f"{site.url}/work-pools")
    sizes = [(await request.sizes())["responseBodySize"] for request in asked]
    assert sum(sizes) < 100_000, sizes
    scripts = {name for request in asked if (name := request.url.rpartition("/")[2]).endswith(".js")}
    assert scripts == {assets.ENTRY, *assets.modules()}, "the page names all that its script imports"
    # Scripts are modules: they have run, and whatever is pressed then is heard.
    ready = await looking.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    print(f"{sum(sizes)} bytes in {len(sizes)} answers, ready for what is pressed after {ready:.0f} ms")


async def test_tabs_that_nobody_looks_at_take_no_connection_from_the_others(site: Pages, looking: Looking) -> None:
    """A browser has six to a host. Its headless windows are never hidden: the test says it in their place."""
    tabs = [looking.page, *[await looking.context.new_page() for _ in range(7)]]
    for tab in tabs:
        await tab.goto(f"{site.url}/work-pools", timeout=10_000)
        await tab.wait_for_selector("html[data-ready]")
        await _look(tab, is_hidden=True)
    await site.api.post("/work_pools/", {"name": "meanwhile", "type": "prefect:managed"})
    await _look(tabs[0], is_hidden=False)
    await tabs[0].get_by_role("link", name="meanwhile").wait_for()
    assert await tabs[1].get_by_role("link", name="meanwhile").count() == 0


async def _look(tab: Page, *, is_hidden: bool) -> None:
    await tab.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


async def test_what_a_proxy_answers_instead_is_said(site: Pages, looking: Looking) -> None:
    looking.expected = ["502"]
    await looking.go(f"{site.url}/settings/variables")
    await looking.page.route("**/api/variables/", lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>"))
    await looking.page.get_by_label("Name").fill("colour")
    await looking.page.get_by_role("button", name="Make the variable").click()
    await looking.page.get_by_role("alert").get_by_text("502").wait_for()


@asynccontextmanager
async def behind_prefix(site: Pages, prefix: str) -> AsyncIterator[str]:
    """A proxy that takes the prefix off and says nothing of it; yields the address of the pages below it."""

    async def passed_on(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name != "Accept-Encoding"}
        body = await request.read()
        path = request.rel_url.raw_path_qs.removeprefix(prefix)
        async with session.request(
            request.method, site.url + path, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name not in {"Content-Length", "Transfer-Encoding", "Connection"}:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            return response

    app = web.Application()
    app.router.add_route("*", prefix + "/{path:.*}", passed_on)
    app.router.add_route("*", "/{path:.*}", not_found)
    async with ClientSession(auto_decompress=False) as session, TestServer(app) as server:
        yield f"{server.make_url(prefix)}/"
        # A proxy that ends waits for what it passes on.
        await site.services.sockets.close_all()
