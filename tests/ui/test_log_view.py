"""The live log viewer, as somebody uses it who looks for what went wrong."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.model.logs import LogRecord
from managedd.model.states import StateType
from managedd.store import logs
from tests.api.test_sockets import a_run, move
from tests.ui.looking import HOSTILE, NARROW, Looking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

MESSAGES = "[...document.querySelectorAll('.log-message')].map(each => each.textContent)"
IN_SIGHT = """() => {
  const box = document.querySelector('.log-scroll').getBoundingClientRect();
  return [...document.querySelectorAll('.log-line')].filter(each => {
    const place = each.getBoundingClientRect();
    return place.bottom > box.top + 1 && place.top < box.bottom - 1;
  }).map(each => each.querySelector('.log-message').textContent);
}"""


async def write(site: Pages, run: str, *texts: str, level: int = 20, name: str = "stdout") -> None:
    at_us = site.services.clock.now_us()
    records = [LogRecord(name, level, text, at_us + n, run) for n, text in enumerate(texts)]
    await site.services.logs.write(lambda tx: logs.append(tx, records), workspace=ids.DEFAULT_WORKSPACE_ID)


def numbered(first: int, last: int) -> list[str]:
    return [f"line {n}" for n in range(first, last + 1)]


async def shown(looking: Looking, text: str) -> None:
    """The text is a line that is in sight."""
    await looking.page.wait_for_function(f"text => ({IN_SIGHT})().includes(text)", arg=text)


async def opened(looking: Looking, url: str, run: str) -> None:
    await looking.go(f"{url}/runs/flow-run/{run}/log")
    await looking.page.get_by_text("Live", exact=True).wait_for()


async def still(looking: Looking) -> None:
    """A key's scrolling, which goes on for a while, has ended."""
    await looking.page.evaluate("""async () => {
      const box = document.querySelector('.log-scroll');
      for (let before = -1, calm = 0; calm < 12; calm = box.scrollTop === before ? calm + 1 : 0, before = box.scrollTop) {
        await new Promise(requestAnimationFrame);
      }
    }""")


async def place(looking: Looking) -> str:
    return str(await looking.page.locator(".log-place").text_content())


async def test_a_log_is_followed_searched_filtered_and_ends(site: Pages, looking: Looking) -> None:
    run, page = await a_run(site.api), looking.page
    await write(site, run, *numbered(1, 999))
    await write(site, run, "it broke", level=40, name="prefect.flow_runs")
    await write(site, run, *numbered(1001, 3000))
    await opened(looking, site.url, run)
    await shown(looking, "line 3000")

    await write(site, run, "one more")
    await shown(looking, "one more")
    assert (await page.evaluate(MESSAGES))[-3:] == ["line 2999", "line 3000", "one more"]

    await page.locator(".log-scroll").focus()
    await page.keyboard.press("PageUp")
    await page.get_by_role("button", name="Follow", pressed=False).wait_for()
    await still(looking)
    before = await page.evaluate(IN_SIGHT)
    await write(site, run, "while away", "and again")
    await page.get_by_role("button", name="2 new lines").wait_for()
    assert await page.evaluate(IN_SIGHT) == before
    await page.get_by_role("button", name="2 new lines").click()
    await shown(looking, "and again")
    await page.get_by_role("button", name="Follow", pressed=True).wait_for()

    await page.get_by_role("button", name="First error").click()
    await page.get_by_text("Line 1,000", exact=True).wait_for()
    await shown(looking, "it broke")
    assert await page.locator(".log-line.found .log-message").text_content() == "it broke"
    await page.get_by_role("button", name="Next error").click()
    await page.get_by_text("None after this").wait_for()

    search = page.get_by_role("searchbox", name="Search the whole log")
    await search.fill("LINE 20")
    await search.press("Enter")
    await page.get_by_text("Line 2,000", exact=True).wait_for()
    await search.press("Enter")
    await page.get_by_text("Line 2,001", exact=True).wait_for()
    assert await page.evaluate("CSS.highlights.get('log-search').size") > 10
    await search.press("Shift+Enter")
    await page.get_by_text("Line 2,000", exact=True).wait_for()
    await search.press("Shift+Enter")
    await page.get_by_text("Line 209", exact=True).wait_for()
    await shown(looking, "line 209")

    await page.locator(".log-scroll").focus()
    await page.keyboard.press("Home")
    await shown(looking, "line 1")
    await page.keyboard.press("End")
    await shown(looking, "and again")

    await page.get_by_role("combobox", name="Level").select_option("Errors")
    await page.get_by_text("Lines 1–1 of 1").wait_for()
    assert await page.evaluate(MESSAGES) == ["it broke"]
    await write(site, run, "not shown")
    await write(site, run, "broken again", level=50)
    await shown(looking, "broken again")
    assert await page.evaluate(MESSAGES) == ["it broke", "broken again"]

    await move(site.api, run, StateType.COMPLETED)
    await page.get_by_text("The run has ended: Completed").first.wait_for()
    assert await looking.barriers() == []


async def test_a_search_backwards_begins_with_the_last_line_and_goes_round(site: Pages, looking: Looking) -> None:
    run, page = await a_run(site.api), looking.page
    await write(site, run, "the needle")
    await opened(looking, site.url, run)
    previous, found = page.get_by_role("button", name="Previous"), page.locator(".log-found")

    async def goes_to(text: str) -> None:
        await previous.click()
        await found.get_by_text(text).wait_for()

    await page.get_by_role("searchbox", name="Search the whole log").fill("needle")
    await goes_to("Line 1")
    await write(site, run, *numbered(2, 700), "the last needle")
    await page.get_by_role("button", name="Follow", pressed=False).click()
    await shown(looking, "the last needle")
    await goes_to("Line 701")
    await shown(looking, "the last needle")
    await goes_to("Line 1")
    await goes_to("None before this")
    await goes_to("Line 701")
    await page.get_by_role("searchbox", name="Search the whole log").fill("line 69")
    # What is in sight is searched too, from its last line on.
    await goes_to("Line 699")


async def test_lines_are_copied_wrapped_and_downloaded(site: Pages, looking: Looking) -> None:
    run, page = await a_run(site.api), looking.page
    await write(site, run, "first\n  second row", "long " * 200)
    await opened(looking, site.url, run)
    await shown(looking, "first\n  second row")
    await page.evaluate("getSelection().selectAllChildren(document.querySelector('.log-line'))")
    copied = await page.evaluate("getSelection().toString()")
    assert "first\n  second row" in copied
    assert "INFO" in copied

    wide = "() => document.querySelector('.log-scroll').scrollWidth > document.querySelector('.log-scroll').clientWidth"
    assert not await page.evaluate(wide)
    await page.get_by_role("button", name="Wrap").click()
    await page.wait_for_function(wide)

    await page.locator("summary", has_text="Download").click()
    async with page.expect_download() as begun:
        await page.get_by_role("link", name="As JSON lines").click()
    download = await begun.value
    assert download.suggested_filename == f"{run}.jsonl"


async def test_a_hostile_log_runs_nothing_and_hides_nothing(site: Pages, looking: Looking) -> None:
    run, page = await a_run(site.api), looking.page
    bomb = "".join(f"\x1b[{n % 110}m{n}" for n in range(900))
    nested, turned = "\x1b]8;;javascript:window.hacked=1\x1b\\link\x1b]8;;\x1b\\", "abc \u202e cba \u2066 x"
    lines = [HOSTILE, bomb, "\x1b]" * 1500 + "kept", nested, turned, "10%\r20%\x08", "y" * 1_000_000]
    await write(site, run, *lines, name=HOSTILE[:200])
    await opened(looking, site.url, run)
    await page.get_by_role("button", name="Show all 1,000,000 characters").wait_for()
    texts = await page.evaluate(MESSAGES)
    assert texts[0] == HOSTILE
    assert texts[1].startswith("0123456789101112")
    assert texts[2].endswith("kept")
    assert texts[3:6] == ["link", "abc ‹U+202E› cba ‹U+2066› x", "10%␍20%␈"]
    assert len(texts[6]) == 4000
    assert await page.evaluate("document.querySelectorAll('.log-line *').length") < 1_000
    await page.get_by_role("button", name="Show all 1,000,000 characters").click()
    await page.get_by_text("download the log to have them").wait_for()
    # A line that comes while one looks is cut as well.
    await write(site, run, "z" * 500_000)
    await page.get_by_role("button", name="Follow", pressed=False).click()
    await page.get_by_role("button", name="Show all 500,000 characters").wait_for()
    assert not await looking.is_hacked()


async def test_a_narrow_dark_window_shows_the_same(site: Pages, browser: Browser) -> None:
    run = await a_run(site.api)
    await write(site, run, *numbered(1, 30))
    await write(
        site, run, *(f"\x1b[{n}mcolour {n}\x1b[0m" for n in [*range(30, 38), *range(40, 48), *range(90, 98), 7, 2])
    )
    await write(site, run, "warned", level=30)
    await write(site, run, "\x1b[32mfailed\x1b[0m", level=40, name="managedd")
    for size, scheme in ((NARROW, "dark"), (NARROW, "light"), ((1280, 900), "dark")):
        async with Looking.opened(browser, size=size, scheme=scheme) as window:
            await opened(window, site.url, run)
            await shown(window, "failed")
            assert await window.barriers() == []
            assert await window.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            window.check()


async def test_in_its_runs_page_the_log_stays_as_it_is_while_the_page_changes(site: Pages, looking: Looking) -> None:
    run, page = await a_run(site.api), looking.page
    await write(site, run, *numbered(1, 500))
    await looking.go(f"{site.url}/runs/flow-run/{run}")
    await shown(looking, "line 500")
    await page.locator(".log-scroll").focus()
    await page.keyboard.press("Home")
    await shown(looking, "line 1")
    await page.evaluate("window.before = document.querySelector('.log-line')")

    await move(site.api, run, StateType.RUNNING)
    await page.locator("main .badge", has_text="Running").first.wait_for()

    assert await page.evaluate("window.before === document.querySelector('.log-line') && window.before.isConnected")
    await shown(looking, "line 1")
    assert await page.evaluate("document.activeElement.className.includes('log-scroll')")
    await page.get_by_role("link", name="Only the log").click()
    await shown(looking, "line 500")


async def test_an_empty_log_says_so_until_its_first_line(site: Pages, looking: Looking) -> None:
    run = await a_run(site.api)
    await opened(looking, site.url, run)
    await looking.page.get_by_text("No lines yet").wait_for()
    await write(site, run, "the first")
    await shown(looking, "the first")
    await write(site, run, "the second")
    await shown(looking, "the second")
    assert await place(looking) == "Lines 1–2 of 2"


# --- a connection that is lost -----------------------------------------------------------------------------------------


class Wire:
    """A way to the daemon that can be cut."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        self._open |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        writer.close()
        self._open.discard(writer)


@asynccontextmanager
async def wire_to(site: Pages) -> AsyncIterator[Wire]:
    wire = Wire(int(site.url.rpartition(":")[2]))
    await wire.mend()
    yield wire
    await wire.cut()


@pytest.mark.parametrize("missed", [50, 1200])
async def test_after_a_lost_connection_each_line_is_there_once_and_in_order(
    site: Pages, looking: Looking, missed: int
) -> None:
    run = await a_run(site.api)
    looking.expected += ["WebSocket", "Failed to load resource"]
    await write(site, run, *numbered(1, 100))
    async with wire_to(site) as wire:
        await opened(looking, f"http://127.0.0.1:{wire.port}", run)
        await shown(looking, "line 100")
        await write(site, run, *numbered(101, 110))
        await shown(looking, "line 110")
        await wire.cut()
        await looking.page.get_by_text("Connection lost; trying again").wait_for()
        await write(site, run, *numbered(111, 110 + missed))
        await wire.mend()
        last = 110 + missed
        await shown(looking, f"line {last}")
        await looking.page.get_by_text("Live", exact=True).wait_for()
        await write(site, run, *numbered(last + 1, last + 5))
        await shown(looking, f"line {last + 5}")
        texts = await looking.page.evaluate(MESSAGES)
        assert texts == numbered(last + 5 - len(texts) + 1, last + 5)
        assert (await place(looking)).endswith(f"of {last + 5:,}")
        await looking.page.goto("about:blank")


# --- colours of terminals ----------------------------------------------------------------------------------------------


SEQUENCES: dict[str, list[list[str]]] = {
    "plain": [["plain", ""]],
    "\x1b[31mred\x1b[0m no": [["red", "f1"], [" no", ""]],
    "\x1b[1;4;92mx\x1b[22;39my": [["x", "a-bold a-underline f10"], ["y", "a-underline"]],
    "\x1b[38;5;196mr\x1b[38;2;0;0;255mb\x1b[48;5;22mg": [["r", "f9"], ["b", "f12"], ["g", "b2"]],
    "\x1b[38;5mx": [["x", ""]],
    "\x1b[mx\x1b[2K\x1b[10;5Hy\x1b(Bz": [["xyz", ""]],
    "\x1b]0;title\x07shown": [["shown", ""]],
    "\x1b]0;never ended": [["]0;never ended", ""]],
    "\x1b[12": [["[12", ""]],
    "\x1b": [],
    "\x1b[31m\x1b[32m": [],
}


async def test_colours_of_terminals_are_classes_and_nothing_else_of_theirs_is_done(
    site: Pages, looking: Looking
) -> None:
    await opened(looking, site.url, await a_run(site.api))
    found = await looking.page.evaluate(
        """async texts => {
          const { pieces } = await import(document.querySelector("script[type=module]").src.replace("app.js", "log-text.js"));
          return texts.map(text => pieces(text).map(each => [each.text, each.classes]));
        }""",
        list(SEQUENCES),
    )
    assert dict(zip(SEQUENCES, found, strict=True)) == SEQUENCES
