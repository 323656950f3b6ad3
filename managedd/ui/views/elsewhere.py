"""Addresses that the client makes of things whose page has another address, or that have no more to show than what the API tells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Never

from managedd.errors import ErrorCode, ManagedError, not_found
from managedd.ui import deployed
from managedd.ui.page import Sent, page
from managedd.ui.words import segment

if TYPE_CHECKING:
    from managedd.ui.asking import Ask


@page("/flow-runs/flow-run/{id}", template="flow_run.html", section="runs")
async def of_flow_run(ask: Ask, id: str) -> Never:
    """As `prefect.runtime.flow_run.ui_url` has it."""
    run = await ask.get(f"/flow_runs/{segment(id)}")
    raise Sent(f"runs/flow-run/{run['id']}")


@page("/work-queues/work-queue/{id}", template="work_queue.html", section="work-pools")
async def of_work_queue(ask: Ask, id: str) -> Never:
    """A queue's page is below its pool's."""
    queue = await ask.get(f"/work_queues/{segment(id)}")
    raise Sent(f"work-pools/work-pool/{segment(queue['work_pool_name'])}/queue/{segment(queue['name'])}")


@page("/work-pools/work-pool/{name}/worker/{id}", template="work_pool.html", section="work-pools")
async def of_worker(ask: Ask, name: str, id: str) -> Never:
    """Workers stand on the page of their pool."""
    pool = await ask.get(f"/work_pools/{segment(name)}")
    raise Sent(f"work-pools/work-pool/{segment(pool['name'])}")


@page("/concurrency-limits/concurrency-limit/{id}", template="settings_limits.html", section="settings")
async def of_concurrency_limit(ask: Ask, id: str) -> Never:
    """Limits by tag and by name stand in one list."""
    try:
        await ask.get(f"/concurrency_limits/{segment(id)}")
    except ManagedError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        await ask.get(f"/v2/concurrency_limits/{segment(id)}")
    raise Sent("concurrency-limits")


@page("/automations/automation/{id}", template="thing.html", section="settings")
async def automation(ask: Ask, id: str) -> dict[str, Any]:
    """An automation: what the API tells of it."""
    found = await ask.get(f"/automations/{segment(id)}")
    return _thing("Automation", found["name"], found)


@page("/events/event/{occurred}/{id}", template="thing.html", section="runs", topics=())
async def event(ask: Ask, occurred: str, id: str) -> dict[str, Any]:
    """An event of the day `occurred`, `2026-11-23`, whatever zone that was reckoned in: what the API tells of it."""
    try:
        day = datetime.fromisoformat(occurred).replace(tzinfo=UTC)
        window = {"since": (day - timedelta(days=1)).isoformat(), "until": (day + timedelta(days=2)).isoformat()}
    except (ValueError, OverflowError):
        raise not_found("Event", id[:100]) from None
    found = await ask.post("/events/filter", {"filter": {"occurred": window, "id": {"id": [id]}}, "limit": 1})
    if not found["events"]:
        raise not_found("Event", id[:100])
    told = found["events"][0]
    return _thing("Event", told["event"], told)


def _thing(kind: str, name: str, told: Any) -> dict[str, Any]:
    return {"title": f"{kind} {name}", "kind": kind, "name": name, "told": deployed.json_text(told)}
