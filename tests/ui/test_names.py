"""Names that say in which direction they are written turn round nothing but themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from managedd.ui.rendering import environment
from tests.api.deployed import flow_of

if TYPE_CHECKING:
    from tests.ui.conftest import Pages
    from tests.ui.looking import Looking

pytestmark = pytest.mark.anyio

TURNED: Final = "safe\u202egnp.exe"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("Delete the pool “a” and its queues?", "Delete the pool “\u2068a\u2069” and its queues?"),
        ("Delete “a”b\u2069\u202ec”?", "Delete “\u2068a”b\u202ec\u2069”?"),
        ("Delete it?", "Delete it?"),
    ],
)
def test_a_name_in_a_question_is_kept_apart(asked: str, told: str) -> None:
    parts = environment().get_template("parts.html").module
    assert str(parts.apart(asked)).strip("\n") == told  # type: ignore[attr-defined]


@pytest.mark.browser
async def test_what_follows_a_turned_name_stands_where_it_does_after_any_other(site: Pages, looking: Looking) -> None:
    page = looking.page
    flow_id = await flow_of(site.api, TURNED)
    status, made = await site.api.post("/deployments/", {"name": TURNED, "flow_id": flow_id})
    assert status == 201, made
    assert (await site.api.post("/flow_runs/", {"flow_id": flow_id, "deployment_id": made["id"], "state": {"type": "RUNNING"}}))[0] == 201  # fmt: skip
    await looking.go(f"{site.url}/runs?since=any")
    cell = await page.locator("td[data-label^=Flow]").bounding_box()
    link = await page.locator("td[data-label^=Flow] a").bounding_box()
    assert cell
    assert link
    assert link["x"] > cell["x"] + 60, "the flow's name stands before it"
    await looking.go(f"{site.url}/deployments")
    for each in await page.locator("th[scope=row] a").all():
        assert await each.evaluate("link => getComputedStyle(link).unicodeBidi") == "isolate"

    assert (await site.api.post("/work_pools/", {"name": TURNED, "type": "process"}))[0] == 201
    await looking.go(f"{site.url}/work-pools")
    await page.get_by_label("Actions of").click()
    await page.get_by_role("button", name="Delete").click()
    assert f"“\u2068{TURNED}\u2069” and its queues?" in await page.locator("#question").inner_text()
