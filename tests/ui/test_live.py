"""Pages that are kept up to date, as a program sees them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import ClientSession, web

from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.ui import live
from managedd.ui.site import Site

if TYPE_CHECKING:
    from tests.ui.conftest import Pages

pytestmark = pytest.mark.anyio


async def test_whoever_leaves_a_live_page_is_no_failure(
    site: Pages, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = anyio.Event()
    send = live._send

    async def noted(response: web.StreamResponse, text: str) -> None:
        try:
            await send(response, text)
        except ConnectionError:
            tried.set()
            raise

    monkeypatch.setattr(live, "_send", noted)
    monkeypatch.setattr(live, "PACE_SECONDS", 0.0)
    api = Api(site.services, Listener.CLIENTS)
    # As the daemon serves: a handler goes on when its client has gone.
    runner = web.AppRunner(api.application(Site(site.services, api)))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession() as session:
            response = await session.get(f"{url}/work-pools", headers={"Accept": live.TYPE})
            assert (await response.content.readline()).startswith(b"id: ")
            response.close()
            with anyio.fail_after(60):
                number = 0
                while not tried.is_set():
                    number += 1
                    await session.post(f"{url}/api/work_pools/", json={"name": f"p{number}", "type": "process"})
            assert (await session.get(f"{url}/work-pools")).status == 200
    finally:
        await runner.cleanup()

    assert [each.message for each in caplog.records if each.name == "aiohttp.server"] == []


async def test_the_more_pages_are_looked_at_the_less_often_each_is_made_again() -> None:
    """However many there are, making them again takes no more than its share of a processor."""
    watched = live.Watched()
    with ExitStack() as tabs:
        tabs.enter_context(watched.one())
        assert watched.pace_seconds(0.02) == live.PACE_SECONDS
        for _ in range(49):
            tabs.enter_context(watched.one())
        assert 50 * 0.02 / watched.pace_seconds(0.02) == pytest.approx(live.SHARE)
        assert watched.pace_seconds(3.0) == live.SLOWEST_SECONDS
    with watched.one():
        assert watched.pace_seconds(0.02) == live.PACE_SECONDS
