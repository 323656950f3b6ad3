"""One browser window, and what a test asks of every page in it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page

WIDE: Final = (1280, 900)
NARROW: Final = (390, 800)
HOSTILE: Final = (
    '<img src=x onerror="window.hacked=1">\'"--><script>window.hacked=1</script>{{7*7}}javascript:window.hacked=1'
)
"""For every field that takes text."""
_AXE_RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")


class Looking:
    """A window; `page` is Playwright's."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.context = context
        self.page = page
        self.complaints: list[str] = []
        self.expected: list[str] = []
        """Parts of complaints that a test has caused on purpose."""
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.set_default_timeout(10_000)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, browser: Browser, *, size: tuple[int, int] = WIDE, scheme: Any = "light"
    ) -> AsyncIterator[Looking]:
        """A window of a browser that knows no cookies yet."""
        context = await browser.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        try:
            yield cls(context, await context.new_page())
        finally:
            await context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{message.type}: {message.text}")

    async def go(self, url: str) -> None:
        """The page is there, and its scripts are ready."""
        await self.page.goto(url)
        await self.ready()

    async def ready(self) -> None:
        """The page's scripts are ready."""
        await self.page.wait_for_selector("html[data-ready]")

    def check(self) -> None:
        """Nothing was wrong so far but what was expected."""
        unexpected = [each for each in self.complaints if not any(part in each for part in self.expected)]
        assert unexpected == [], unexpected

    async def is_hacked(self) -> bool:
        """Whether a stranger's script has run."""
        return bool(await self.page.evaluate("window.hacked !== undefined"))

    async def barriers(self) -> list[str]:
        """What axe finds that shuts people out, serious or critical, each with its place."""
        axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        await self.page.evaluate(axe)
        found = await self.page.evaluate(
            "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations']})",
            list(_AXE_RULES),
        )
        return [
            f"{each['id']} ({each['impact']}): {node['html'][:200]}"
            for each in found["violations"]
            if each["impact"] in {"serious", "critical"}
            for node in each["nodes"]
        ]
