"""The pages by keyboard alone: where the focus goes, that it is seen, and that nothing takes it away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from playwright.async_api import expect

from managedd.clock import to_us
from tests.api.conftest import services_in
from tests.support.clock import ManualClock
from tests.ui.conftest import serving
from tests.ui.looking import NARROW, Looking
from tests.ui.pictured_world import BEGIN, NOW, build
from tests.ui.pictures import addresses

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.async_api import Browser, Locator

    from tests.ui.conftest import Pages

pytestmark = [pytest.mark.anyio, pytest.mark.browser]

MOST_STOPS = 150
FOCUSED = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const seen = (window.stops ??= new Map());
  if (!seen.has(element)) seen.set(element, seen.size);
  const place = element.getBoundingClientRect(), style = getComputedStyle(element);
  const x = Math.min(innerWidth - 1, Math.max(0, place.left + place.width / 2));
  const y = Math.min(innerHeight - 1, Math.max(0, place.top + Math.min(place.height / 2, 20)));
  const hit = document.elementFromPoint(x, y);
  const name = element.ariaLabel || element.labels?.[0]?.textContent || element.textContent || element.title || "";
  return {
    number: seen.get(element),
    what: `${element.localName} ${name.trim().replace(/\\s+/g, " ").slice(0, 60)}`,
    wrong: Object.entries({
      "has no outline": style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
      "is hidden": element.checkVisibility({opacityProperty: true, visibilityProperty: true}) && place.width > 1 && place.height > 1,
      "is out of sight": place.bottom > 0 && place.top < innerHeight && place.right > 0 && place.left < innerWidth,
      "is covered": !hit || element.contains(hit) || hit.contains(element),
    }).filter(([, isRight]) => !isRight).map(([why]) => why),
  };
}"""
"""The element that has the focus: its number, in the order in which they were come to, and what is wrong with it; null: none has."""


async def stops(looking: Looking) -> list[dict[str, Any]]:
    """What the key Tab comes to, from the page's beginning to its end."""
    found: list[dict[str, Any]] = []
    for _ in range(MOST_STOPS):
        await looking.page.keyboard.press("Tab")
        stop = await looking.page.evaluate(FOCUSED)
        # A field of a date has several stops of its own.
        if stop is None or stop["number"] < len(found) - 1:
            return found
        if stop["number"] == len(found):
            found.append(stop)
    raise AssertionError(f"no end: {found[-3:]}")


async def press(looking: Looking, *keys: str) -> None:
    for key in keys:
        await looking.page.keyboard.press(key)


async def tab_to(looking: Looking, wanted: Locator) -> None:
    """The key Tab was pressed until the focus is there."""
    for _ in range(MOST_STOPS):
        await press(looking, "Tab")
        if await wanted.evaluate("each => each === document.activeElement"):
            return
    raise AssertionError("the key Tab does not come there")


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_all_that_tab_comes_to_is_seen_on_every_page(tmp_path: Path, looking: Looking, browser: Browser) -> None:
    clock = ManualClock(to_us(BEGIN))
    async with services_in(tmp_path, clock) as services, serving(services) as site:
        pages = addresses(await build(site, clock))
        async with Looking.opened(browser, size=NARROW) as narrow:
            for window in (looking, narrow):
                await window.page.clock.set_fixed_time(NOW)
                for name, path in pages.items():
                    await window.go(site.url + path)
                    found = await stops(window)
                    assert len(found) > 1, name
                    assert [(name, each["what"], each["wrong"]) for each in found if each["wrong"]] == []
            narrow.check()


async def test_the_skip_link_leads_to_the_content(site: Pages, looking: Looking) -> None:
    await looking.go(f"{site.url}/work-pools")
    await press(looking, "Tab")
    skip = looking.page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await press(looking, "Enter")
    await expect(looking.page.get_by_role("main")).to_be_focused()
    await press(looking, "Tab")
    await expect(looking.page.get_by_role("link", name="Create work pool").first).to_be_focused()


async def test_a_menu_its_question_and_the_way_back(site: Pages, looking: Looking) -> None:
    page = looking.page
    await site.api.post("/work_pools/", {"name": "first", "type": "prefect:managed"})
    await looking.go(f"{site.url}/work-pools")
    menu = page.locator(".card summary")
    delete = page.get_by_role("button", name="Delete")
    await tab_to(looking, menu)
    await press(looking, "Enter", "Tab")
    await expect(page.get_by_role("link", name="Edit")).to_be_focused()

    # Who goes on behind the menu's end finds it closed.
    await tab_to(looking, delete)
    await press(looking, "Tab")
    await expect(delete).not_to_be_visible()
    await press(looking, "Shift+Tab")
    await expect(menu).to_be_focused()

    await press(looking, "Enter")
    await tab_to(looking, delete)
    await press(looking, "Enter")
    dialog = page.get_by_role("dialog", name="Delete the work pool")
    await expect(dialog.get_by_role("button", name="Keep it as it is")).to_be_focused()
    await press(looking, "Escape")
    await expect(dialog).to_have_count(0)
    await expect(menu).to_be_focused()

    await press(looking, "Enter")
    await tab_to(looking, delete)
    await press(looking, "Enter", "Tab", "Enter")
    await page.get_by_text("No work pools yet").wait_for()


async def test_what_changes_meanwhile_leaves_the_focus_where_it_is(site: Pages, looking: Looking) -> None:
    page = looking.page
    for name in ("b", "d"):
        await site.api.post("/work_pools/", {"name": name, "type": "prefect:managed"})
    await looking.go(f"{site.url}/work-pools")
    link = page.get_by_role("link", name="d", exact=True)
    await tab_to(looking, link)
    for name in ("a", "c", "e"):
        await site.api.post("/work_pools/", {"name": name, "type": "prefect:managed"})
        await page.get_by_role("link", name=name, exact=True).wait_for()
        await expect(link).to_be_focused()
    # An open menu stays open, and the focus in it.
    menu = page.locator(".card", has=link).locator("summary")
    await tab_to(looking, menu)
    await press(looking, "Enter", "Tab")
    edit = page.locator(".card", has=link).get_by_role("link", name="Edit")
    await expect(edit).to_be_focused()
    await site.api.patch("/work_pools/a", {"description": "changed meanwhile"})
    await page.get_by_text("changed meanwhile").wait_for()
    await expect(edit).to_be_focused()
    # What has gone takes the focus with it, and the next stop is what came after it.
    await press(looking, "Escape")
    await site.api.delete("/work_pools/d")
    await link.wait_for(state="detached")
    await press(looking, "Tab")
    await expect(page.get_by_role("link", name="e", exact=True)).to_be_focused()


async def test_what_is_told_is_closed_by_keyboard(site: Pages, looking: Looking) -> None:
    looking.expected = ["409", "404"]
    page = looking.page
    await site.api.post("/work_pools/", {"name": "first", "type": "prefect:managed"})
    await looking.go(f"{site.url}/work-pools")
    await page.route("**/api/work_pools/first", lambda route: route.fulfill(status=404, json={"detail": "It is gone."}))
    menu = page.locator(".card summary")
    await tab_to(looking, menu)
    await press(looking, "Enter")
    await tab_to(looking, page.get_by_role("button", name="Pause"))
    await press(looking, "Enter")
    told = page.locator(".toast")
    await told.get_by_text("It is gone.").wait_for()
    await press(looking, "Escape")
    await expect(told).to_have_count(0)
    await expect(menu).to_be_focused()
