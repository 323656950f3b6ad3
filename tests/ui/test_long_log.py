"""A log of a million lines in the viewer: every place of it is near, and the tab stays small."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.model.logs import LogRecord
from managedd.store import logs
from tests.api.test_sockets import a_run
from tests.ui.test_log_view import MESSAGES, opened, place, shown, still, write

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from managedd.store.database import Tx
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = [pytest.mark.anyio, pytest.mark.browser, pytest.mark.slow]

LINES = 1_000_000
BATCH = 50_000
BROKEN = 654_321
MAX_TAB_BYTES = 200_000_000
MAX_ROWS = 600


async def fill(site: Pages, run: str) -> None:
    """The run's lines, `line 1` and so on; one of them is an error."""
    await site.services.logs.write(
        lambda tx: logs.append(tx, [LogRecord("stdout", 20, "line 1", 1_790_000_000_000_000, run)]),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )

    def more(first: int) -> Any:
        def insert(tx: Tx) -> None:
            tx.execute(
                "WITH RECURSIVE numbers(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
                "INSERT INTO logs (workspace, flow_run, name, level, timestamp, message) SELECT workspace, flow_run, name, "
                "iif(n = ?, 40, 20), timestamp + n, 'line ' || n || iif(n % 10, '', ' and something more of what runs tell') "
                "FROM logs, numbers WHERE logs.id = (SELECT min(id) FROM logs)",
                (first, min(first + BATCH - 1, LINES), BROKEN),
            )

        return insert

    for first in range(2, LINES + 1, BATCH):
        await site.services.logs.write(more(first), workspace=ids.DEFAULT_WORKSPACE_ID)


class Tab:
    """What the browser's renderers take of the host's memory."""

    def __init__(self, browser: Browser, looking: Looking) -> None:
        self._browser = browser
        self._looking = looking
        self.highest: dict[str, int] = {}

    async def look(self) -> None:
        """Notes the sizes, each at its highest."""
        session = await self._looking.context.new_cdp_session(self._looking.page)
        await session.send("Performance.enable")
        told = await session.send("Performance.getMetrics")
        metrics = {each["name"]: each["value"] for each in told["metrics"]}
        await session.detach()
        found = {"heap": int(metrics["JSHeapUsedSize"]), "nodes": int(metrics["Nodes"]), **await self._of_process()}
        for name, value in found.items():
            self.highest[name] = max(self.highest.get(name, 0), value)

    async def _of_process(self) -> dict[str, int]:
        session = await self._browser.new_browser_cdp_session()
        told = await session.send("SystemInfo.getProcessInfo")
        await session.detach()
        largest = {"private": 0, "resident": 0}
        for each in told["processInfo"]:
            if each["type"] != "renderer":
                continue
            sizes = _sizes(int(each["id"]))
            if sizes["resident"] > largest["resident"]:
                largest = sizes
        return largest


def _sizes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    told = dict(line.split(":", 1) for line in lines)
    sizes = {name: int(told[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem", "VmRSS")}
    return {"private": sizes["RssAnon"] + sizes["RssShmem"], "resident": sizes["VmRSS"]}


async def scroll_to(looking: Looking, share: float) -> None:
    """As somebody does who takes hold of the scroll bar."""
    await looking.page.evaluate(
        "share => { const box = document.querySelector('.log-scroll'); box.scrollTop = share * (box.scrollHeight - box.clientHeight); }",
        share,
    )


@pytest.mark.timeout(900)
async def test_a_million_lines_are_scrolled_searched_and_followed_in_a_small_tab(
    site: Pages, looking: Looking, browser: Browser
) -> None:
    run, page = await a_run(site.api), looking.page
    page.set_default_timeout(60_000)
    await fill(site, run)
    tab = Tab(browser, looking)
    await opened(looking, site.url, run)
    await page.get_by_text("of 1,000,000").wait_for()
    await tab.look()

    await scroll_to(looking, 0.5)
    await page.wait_for_function("() => /Lines (49|50)\\d,/.test(document.querySelector('.log-place').textContent)")
    texts = await page.evaluate(MESSAGES)
    numbers = [int(text.split()[1]) for text in texts]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] < 500_000 < numbers[-1]
    for number in range(1, 20):
        await scroll_to(looking, number * 0.05)
        await page.wait_for_timeout(50)
        await tab.look()
    await page.locator(".log-scroll").focus()
    await page.keyboard.press("Home")
    await shown(looking, "line 1")

    # Through many rows, one wheel's turn after the other, each line follows the one before.
    await page.locator(".log-scroll").hover()
    seen: list[int] = []
    while not seen or seen[-1] < 1_500:
        await page.mouse.wheel(0, 1_500)
        await still(looking)
        numbers = [int(text.split()[1]) for text in await page.evaluate(MESSAGES)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert not seen or numbers[0] <= seen[-1]
        seen = numbers
        assert len(numbers) <= MAX_ROWS
    await tab.look()

    await page.get_by_role("button", name="First error").click()
    await page.get_by_text(f"Line {BROKEN:,}", exact=True).wait_for()
    await shown(looking, f"line {BROKEN}")
    search = page.get_by_role("searchbox", name="Search the whole log")
    await search.fill("line 987654")
    await search.press("Enter")
    await page.get_by_text("Line 987,654", exact=True).wait_for()
    await shown(looking, "line 987654")
    await tab.look()

    await page.locator(".log-scroll").focus()
    await page.keyboard.press("End")
    await page.get_by_role("button", name="Follow", pressed=True).wait_for()
    for first in range(LINES + 1, LINES + 40_001, 500):
        await write(site, run, *(f"line {n} that comes while one looks" for n in range(first, first + 500)))
        if first % 5_000 == 1:
            await tab.look()
    last = LINES + 40_000
    await shown(looking, f"line {last} that comes while one looks")
    assert (await place(looking)).endswith(f"of {last:,}")
    numbers = [int(text.split()[1]) for text in await page.evaluate(MESSAGES)]
    assert numbers == list(range(last - len(numbers) + 1, last + 1))
    await tab.look()
    logging.getLogger(__name__).info("at its highest: %s", tab.highest)
    assert tab.highest["heap"] < MAX_TAB_BYTES
    assert tab.highest["private"] < MAX_TAB_BYTES
    assert await page.locator(".log-line").count() <= MAX_ROWS
