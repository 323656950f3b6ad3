"""Work pools: all of them under the workspace's compute hours, one of them, and its queues."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from managedd import ids
from managedd.errors import ErrorCode, ManagedError
from managedd.ui import compute_hours, listing
from managedd.ui.forms import template_fields
from managedd.ui.page import Sent, page
from managedd.ui.words import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

POOLS_PAGE: Final = 60
MAX_CARD_QUEUES: Final = 8
"""On the card of a pool; its own page has all of them."""
MAX_RECENT: Final = 10
MAX_DEPLOYMENTS: Final = 50
MANAGED: Final = "prefect:managed"


@page("/", template="work_pools.html", section="work-pools")
@page("/work-pools", template="work_pools.html", section="work-pools")
async def work_pools(ask: Ask) -> dict[str, Any]:
    """A card for each pool, under the workspace's compute hours."""
    offset = listing.read(ask.query).offset
    pools = await ask.post("/work_pools/filter", {"limit": POOLS_PAGE, "offset": offset})
    return {
        "title": "Work pools",
        "pools": pools,
        "total": await ask.post("/work_pools/count", {}),
        "offset": offset,
        "page_size": POOLS_PAGE,
        "queues": {each["id"]: await _card_queues(ask, each) for each in pools},
        "max_queues": MAX_CARD_QUEUES,
        "may": rights(ask),
        **await plan_and_hours(ask),
    }


async def _pool(ask: Ask, name: str) -> dict[str, Any]:
    """The pool; where the address has its id, the way to the one with its name."""
    try:
        found: dict[str, Any] = await ask.get(f"/work_pools/{segment(name)}")
    except ManagedError as error:
        if error.code is not ErrorCode.NOT_FOUND or not ids.is_uuid(name):
            raise
        by_id = await ask.post("/work_pools/filter", {"work_pools": {"id": {"any_": [name]}}, "limit": 1})
        if not by_id:
            raise
        raise Sent(f"work-pools/work-pool/{segment(by_id[0]['name'])}") from None
    return found


@page("/work-pools/work-pool/{name}", template="work_pool.html", section="work-pools")
async def work_pool(ask: Ask, name: str) -> dict[str, Any]:
    """All there is to know of one pool."""
    path = segment(name)
    pool = await _pool(ask, name)
    mine = {"work_pools": {"name": {"any_": [pool["name"]]}}}
    is_managed = pool["type"] == MANAGED
    recent = {**mine, "sort": "EXPECTED_START_TIME_DESC", "limit": MAX_RECENT}
    return {
        "title": pool["name"],
        "pool": pool,
        "is_managed": is_managed,
        "plan": await ask.get("/managed/plan") if is_managed else None,
        "queues": await queues_of(ask, pool["name"]),
        "workers": [] if is_managed else await ask.post(f"/work_pools/{path}/workers/filter", {"limit": 50}),
        "runs": await ask.post("/flow_runs/filter", recent | {"flow_runs": {"start_time": {"is_null_": False}}}),
        "waiting": await ask.post("/flow_runs/count", mine | {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}),
        "deployments": await ask.post("/deployments/filter", {**mine, "sort": "NAME_ASC", "limit": MAX_DEPLOYMENTS}),
        "deployment_count": await ask.post("/deployments/count", mine),
        "defaults": template_fields(pool["base_job_template"]),
        "may": rights(ask),
    }  # fmt: skip


async def plan_and_hours(ask: Ask) -> dict[str, Any]:
    """What the workspace may do, and what of this month's compute hours is left."""
    usage = await ask.get("/managed/usage")
    found = compute_hours.outlook(usage, datetime.now(UTC))
    limit = usage["limit_minutes"]
    return {
        "usage": usage,
        "plan": await ask.get("/managed/plan"),
        "hours_share": None if limit is None else usage["used_minutes"] / limit if limit else 1.0,
        "outlook": compute_hours.sentence(found, usage["resets"]),
    }


def rights(ask: Ask) -> dict[str, bool]:
    """What is offered to whoever asks."""
    return {
        "create": ask.may("POST /work_pools/"),
        "change": ask.may("PATCH /work_pools/{name}"),
        "delete": ask.may("DELETE /work_pools/{name}"),
        "create_queue": ask.may("POST /work_pools/{work_pool_name}/queues"),
        "change_queue": ask.may("PATCH /work_pools/{work_pool_name}/queues/{name}"),
        "delete_queue": ask.may("DELETE /work_pools/{work_pool_name}/queues/{name}"),
    }


async def queues_of(ask: Ask, pool: str) -> list[dict[str, Any]]:
    """All queues of the pool, most urgent first."""
    path = f"/work_pools/{segment(pool)}/queues/filter"
    return await listing.whole(lambda bounds: ask.post(path, bounds))


async def _card_queues(ask: Ask, pool: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pool's most urgent queues, and one more where there are more."""
    path = f"/work_pools/{segment(pool['name'])}/queues/filter"
    found: list[dict[str, Any]] = await ask.post(path, {"limit": MAX_CARD_QUEUES + 1})
    return found
