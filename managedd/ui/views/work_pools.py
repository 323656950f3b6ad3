"""Work pools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.ui.page import page

if TYPE_CHECKING:
    from managedd.ui.asking import Ask


@page("/", template="work_pools.html", section="work-pools")
@page("/work-pools", template="work_pools.html", section="work-pools")
async def work_pools(ask: Ask) -> dict[str, Any]:
    """A card for each pool, under the workspace's compute hours."""
    pools = await ask.post("/work_pools/filter", {"limit": 200})
    return {"title": "Work pools", "pools": pools, "usage": await ask.get("/managed/usage")}
