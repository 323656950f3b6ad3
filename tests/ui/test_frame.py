"""What all pages have in common, in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
