"""A page that is open while the daemon is killed and started again, and while another version of it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread

from managedd.api.sockets import Sockets
from managedd.ui import assets, live
from managedd.ui.rendering import environment
from tests.support.daemon import LiveDaemon
from tests.ui.conftest import serving
from tests.ui.test_log_view import MESSAGES, numbered, shown

if TYPE_CHECKING:
    from pathlib import Path

    from aiohttp.web import StreamResponse

    from managedd.api.context import Services
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

LOST = "The connection to managedd is lost"


class Daemon:
    """A daemon of its own process, without runs, and one run's log in it."""

    def __init__(self, folder: Path) -> None:
        self._daemon = LiveDaemon(
            folder, docker_host=None, settings={"runs": {"driver": "process"}, "process": {"trusted": True}}
        )
        self._run = ""
        self._lines = 0

    @property
    def page(self) -> str:
        return f"{self._daemon.url}/../runs/flow-run/{self._run}"

    async def start(self) -> None:
        await to_thread.run_sync(partial(self._daemon.start, engine=False))

    async def kill(self) -> None:
        await to_thread.run_sync(self._daemon.kill)

    async def make_run(self) -> None:
        flow = await self._post("/flows/", {"name": "f"})
        self._run = (await self._post("/flow_runs/", {"flow_id": flow["id"], "state": {"type": "RUNNING"}}))["id"]

    async def write(self, count: int) -> str:
        """So many lines more; returns the last one's message."""
        first, self._lines = self._lines + 1, self._lines + count
        about = {"name": "x", "level": 20, "timestamp": "2026-01-01T00:00:00Z", "flow_run_id": self._run}
        await self._post("/logs/", [{**about, "message": text} for text in numbered(first, self._lines)])
        return f"line {self._lines}"

    async def _post(self, path: str, body: Any) -> Any:
        return await to_thread.run_sync(self._daemon.api.post, path, body)


async def test_a_page_outlives_a_daemon_that_is_killed_and_each_line_of_its_log_is_there_once(
    tmp_path: Path, looking: Looking
) -> None:
    looking.expected = ["ERR_", "Failed to load", "WebSocket"]
    daemon, page = Daemon(tmp_path), looking.page
    await daemon.start()
    try:
        await daemon.make_run()
        last = await daemon.write(100)
        await looking.go(daemon.page)
        await shown(looking, last)
        await page.evaluate("window.before = true")

        await daemon.kill()
        await page.get_by_text(LOST).wait_for()
        await page.get_by_text("Connection lost; trying again").wait_for()

        await daemon.start()
        last = await daemon.write(50)
        await page.get_by_text(LOST).wait_for(state="hidden", timeout=30_000)
        await shown(looking, last)
        await page.get_by_text("Live", exact=True).wait_for()
        await shown(looking, await daemon.write(5))
        texts = await page.evaluate(MESSAGES)
        assert texts == numbered(155 - len(texts) + 1, 155)
        assert await page.evaluate("window.before")
    finally:
        await daemon.kill()


async def test_a_newer_daemons_page_is_loaded_anew_unless_somebody_has_typed(
    services: Services, looking: Looking, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    looking.expected = ["ERR_", "Failed to load"]
    page, typing = looking.page, await looking.context.new_page()
    async with serving(services) as old:
        port = int(old.url.rpartition(":")[2])
        await looking.go(f"{old.url}/work-pools")
        await typing.goto(f"{old.url}/settings/variables")
        await typing.wait_for_selector("html[data-ready]")
        await typing.get_by_label("Name").fill("half a na")
        await page.evaluate("window.before = true")
    await page.get_by_text(LOST).wait_for()

    newer = "0123456789ab"
    monkeypatch.setattr(assets, "version", lambda: newer)
    environment.cache_clear()
    request.addfinalizer(environment.cache_clear)
    services.sockets = Sockets()
    async with serving(services, port=port):
        await page.wait_for_function("() => window.before === undefined", timeout=20_000)
        await looking.ready()
        assert newer in await page.evaluate("document.querySelector('script[type=module]').src")
        await page.get_by_text(LOST).wait_for(state="hidden")

        await typing.get_by_text("managedd is another version now").wait_for(timeout=20_000)
        assert await typing.get_by_label("Name").input_value() == "half a na"
        await typing.get_by_role("button", name="Load again").click()
        await typing.get_by_text("managedd is another version now").wait_for(state="hidden")
        assert newer in await typing.evaluate("document.querySelector('script[type=module]').src")


async def test_a_page_that_comes_back_old_is_loaded_once_and_not_without_end(
    site: Pages, looking: Looking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a proxy keeps pages: the daemon's streams are of another version than its pages."""
    loads: list[str] = []
    looking.page.on("load", lambda page: loads.append(page.url))
    send = live._send

    async def of_another_version(response: StreamResponse, data: bytes) -> None:
        await send(response, data.replace(assets.version().encode(), b"0123456789ab"))

    monkeypatch.setattr(live, "_send", of_another_version)
    await looking.page.goto(f"{site.url}/work-pools")
    await looking.page.get_by_text("managedd is another version now").wait_for()
    assert len(loads) == 2
