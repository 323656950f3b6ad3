"""Deployments: the list, and what belongs to one flow."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from managedd.ui import deployed
from managedd.ui.page import page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.ui.asking import Ask

MAX_POOLS: Final = 200
MAX_RUNS: Final = 20


@page("/deployments", template="deployments.html", section="deployments")
async def deployments(ask: Ask) -> dict[str, Any]:
    """A page of the deployments that were asked for."""
    chosen = deployed.chosen(ask.query)
    asked = {"limit": deployed.PAGE_SIZE, "offset": chosen.offset, "sort": "NAME_ASC"}
    found = await ask.post("/deployments/filter", {**chosen.body, **asked})
    return {
        "title": "Deployments",
        "chosen": chosen,
        "page_size": deployed.PAGE_SIZE,
        "total": await ask.post("/deployments/count", chosen.body),
        "pools": await ask.post("/work_pools/filter", {"limit": MAX_POOLS}),
        **await listed(ask, found),
    }


@page("/flows/flow/{id}", template="flow.html", section="deployments")
async def flow(ask: Ask, id: str) -> dict[str, Any]:
    """A flow: its deployments and its last runs."""
    found = await ask.get(f"/flows/{id}")
    of_flow = {"flows": {"id": {"any_": [found["id"]]}}}
    among = await ask.post("/deployments/filter", {**of_flow, "limit": deployed.PAGE_SIZE, "sort": "NAME_ASC"})
    return {
        "title": found["name"],
        "flow": found,
        "total": await ask.post("/deployments/count", of_flow),
        **await due(ask, of_flow),
        **await listed(ask, among),
    }


async def listed(ask: Ask, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a table of these deployments shows."""
    flow_ids = sorted({each["flow_id"] for each in found})
    flows = (
        await ask.post("/flows/filter", {"flows": {"id": {"any_": flow_ids}}, "limit": len(flow_ids)}) if found else []
    )
    ran = (
        await ask.post("/managed/deployments/latest_runs/filter", {"deployment_ids": [each["id"] for each in found]})
        if found
        else []
    )
    return {
        "deployments": found,
        "flow_names": {each["id"]: each["name"] for each in flows},
        "latest": {each["deployment_id"]: each for each in ran},
        "schedule_text": deployed.schedule_text,
        "may_run": ask.may("POST /deployments/{id}/create_flow_run"),
        "is_missing": deployed.is_missing,
    }


async def due(ask: Ask, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The runs that were due last, and how many ever were."""
    until_now = {"flow_runs": {"expected_start_time": {"before_": datetime.now(UTC).isoformat()}}}
    body = {**chosen, **until_now}
    last = {"sort": "EXPECTED_START_TIME_DESC", "limit": MAX_RUNS}
    return {
        "runs": await ask.post("/flow_runs/filter", {**body, **last}),
        "run_count": await ask.post("/flow_runs/count", body),
    }
