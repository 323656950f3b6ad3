"""Pictures of every page, light and dark, wide and narrow: `.venv/bin/python -m tests.ui.pictures [FOLDER]`.

Each is made by a browser from the pages themselves, over a store that is filled as clients and the engine fill it, at a time that stands still.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from base64 import b64decode
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

from playwright.async_api import async_playwright
from pydantic import SecretStr

from managedd.clock import to_us
from managedd.ui.page import every_page
from tests.api.conftest import services_in
from tests.support.chromium import ensure_chromium
from tests.support.clock import ManualClock
from tests.ui.conftest import serving
from tests.ui.looking import Looking
from tests.ui.pictured_world import BEGIN, NOW, World, build

if TYPE_CHECKING:
    from playwright.async_api import Browser

FOLDER: Final = Path(__file__).parents[2] / "docs" / "pictures"
SIZES: Final = {"wide": (1280, 900), "narrow": (390, 800)}
SCHEMES: Final = ("light", "dark")
MOST_PIXELS: Final = 1600
"""Of a page's height."""
QUALITY: Final = 34
BESIDE: Final = ("sign_in", "failure")
"""Templates of what is shown where no page is."""


def name_of(template: str) -> str:
    """What a page's pictures are called: several addresses of one page have the same ones."""
    return template.removesuffix(".html").replace("_", "-")


def names() -> set[str]:
    """Of all pictures that have to be there."""
    pages = {name_of(each) for each in (*(page.template for page in every_page()), *BESIDE)}
    return {f"{page}-{size}-{scheme}.webp" for page, size, scheme in product(pages, SIZES, SCHEMES)}


def addresses(world: World) -> dict[str, str]:
    """Where each page is, by its name. Raises KeyError for a page that nobody has a place for yet."""
    deployment, run = world.deployments["nightly"]["id"], world.runs["orders-again"]["id"]
    filled = {
        "/work-pools/work-pool/{name}": "/work-pools/work-pool/etl",
        "/work-pools/new": "/work-pools/new?type=prefect:managed",
        "/work-pools/work-pool/{name}/edit": "/work-pools/work-pool/etl/edit",
        "/work-pools/work-pool/{name}/queue/{queue}": "/work-pools/work-pool/etl/queue/backfill",
        "/work-pools/work-pool/{name}/new-queue": "/work-pools/work-pool/etl/new-queue",
        "/flow-runs/flow-run/{id}": f"/flow-runs/flow-run/{run}",
        "/work-queues/work-queue/{id}": "/work-pools/work-pool/etl/queue/backfill",
        "/work-pools/work-pool/{name}/worker/{id}": "/work-pools/work-pool/etl",
        "/concurrency-limits/concurrency-limit/{id}": "/concurrency-limits",
        "/automations/automation/{id}": f"/automations/automation/{world.automation}",
        "/events/event/{occurred}/{id}": f"/automations/automation/{world.automation}",
        "/flows/flow/{id}": f"/flows/flow/{world.deployments['nightly']['flow_id']}",
        "/deployments/deployment/{id}": f"/deployments/deployment/{deployment}",
        "/deployments/deployment/{id}/run": f"/deployments/deployment/{deployment}/run",
        "/deployments/deployment/{id}/edit": f"/deployments/deployment/{deployment}/edit",
        "/deployments/deployment/{id}/new-schedule": f"/deployments/deployment/{deployment}/new-schedule",
        "/deployments/deployment/{id}/schedule/{schedule}": f"/deployments/deployment/{deployment}/schedule/{world.deployments['nightly']['schedules'][0]['id']}",
        "/runs/flow-run/{id}": f"/runs/flow-run/{run}",
        "/runs/flow-run/{id}/resume": f"/runs/flow-run/{world.runs['backfill-2021']['id']}/resume",
        "/runs/flow-run/{id}/log": f"/runs/flow-run/{run}/log",
        "/runs/task-run/{id}": f"/runs/task-run/{world.task_run}",
        "/blocks/block/{id}": f"/blocks/block/{world.block}",
        "/blocks/catalog/{slug}": "/blocks/catalog/secret",
        "/blocks/catalog/{slug}/create": "/blocks/catalog/secret/create",
        "/settings/blocks/catalog/{slug}/create": "/blocks/catalog/secret/create",
        "/blocks/block/{id}/edit": f"/blocks/block/{world.block}/edit",
        "/auth/client": "/auth/client?callback=http://localhost:4321",
    }
    return {
        name_of(page.template): filled[page.path] if "{" in page.path else filled.get(page.path, page.path)
        for page in every_page()
    }


async def take(looking: Looking) -> bytes:
    """A picture of the page as it is, down to its end or to `MOST_PIXELS`."""
    page = looking.page
    width = await page.evaluate("innerWidth")
    height = min(MOST_PIXELS, await page.evaluate("document.documentElement.scrollHeight"))
    driven = await looking.context.new_cdp_session(page)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    options = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True, "clip": clip}
    shot = await driven.send("Page.captureScreenshot", options)
    return b64decode(shot["data"])


async def _look(browser: Browser, url: str, pages: dict[str, str], folder: Path) -> None:
    for (size, pixels), scheme in product(SIZES.items(), SCHEMES):
        async with Looking.opened(browser, size=pixels, scheme=scheme) as looking:
            await looking.page.clock.set_fixed_time(NOW)
            for name, path in pages.items():
                await looking.page.goto(url + path)
                if name not in {name_of(each) for each in BESIDE}:
                    await looking.ready()
                if await looking.page.locator(".log-scroll").count():
                    await looking.page.locator(".log-line").first.wait_for()
                width = await looking.page.evaluate("document.documentElement.scrollWidth")
                if width > pixels[0]:
                    print(f"{name} is {width} pixels wide, {size}", file=sys.stderr)
                (folder / f"{name}-{size}-{scheme}.webp").write_bytes(await take(looking))
            looking.expected = ["404"]
            looking.check()


async def main(folder: Path) -> None:
    """All of them are in the folder."""
    clock = ManualClock(to_us(BEGIN))
    with tempfile.TemporaryDirectory() as data:
        async with services_in(Path(data), clock) as services, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=ensure_chromium(), args=["--no-sandbox"])
            async with serving(services) as site:
                world = await build(site, clock)
                await _look(browser, site.url, {**addresses(world), "failure": "/nothing-here"}, folder)
            server = services.settings.server.model_copy(update={"auth_string": SecretStr("admin:secret")})
            services.settings = services.settings.model_copy(update={"server": server})
            async with serving(services) as site:
                await _look(browser, site.url, {"sign-in": "/sign-in?to=/runs"}, folder)
            await browser.close()


if __name__ == "__main__":
    to_folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    to_folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(to_folder))
    print(f"{len(names())} pictures, {sum(each.stat().st_size for each in to_folder.iterdir()):,} bytes")
