"""Runs: the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.clock import from_us
from managedd.ui import charts, run_filters
from managedd.ui.page import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.ui.asking import Ask
    from managedd.ui.run_filters import RunFilter


@page("/runs", template="runs.html", section="runs")
async def runs(ask: Ask) -> dict[str, Any]:
    """A page of the runs that were asked for, with what they came to over time."""
    chosen = run_filters.read(ask.query)
    now = from_us(ask.services.clock.now_us())
    body = chosen.body(now)
    asked = {**body, "sort": chosen.sort, "limit": run_filters.PAGE_SIZE, "offset": chosen.offset}
    found = await ask.post("/flow_runs/filter", asked)
    history = await ask.post("/managed/flow_runs/count-by/time", chosen.history(now))
    total = await ask.post("/flow_runs/count", body)
    stacks = charts.stacks(history)
    return {
        "title": "Runs",
        "chosen": chosen,
        "runs": found,
        "total": total,
        "page_size": run_filters.PAGE_SIZE,
        "states": run_filters.STATES,
        "ranges": {"1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days", "any": "Any time"},
        "ahead": {"now": "Up to now", "1d": "A day ahead", "7d": "7 days ahead", "any": "Any time ahead"},
        "sorts": run_filters.SORTS,
        "choices": await _choices(ask, chosen),
        "flow_names": await names(ask, "flows", [], (run["flow_id"] for run in found)),
        "deployment_names": await names(ask, "deployments", [], (run["deployment_id"] for run in found)),
        "stacks": stacks,
        "beyond": max(0, total - sum(stacks.totals.values())),
        "durations": charts.durations(found),
    }


async def _choices(ask: Ask, chosen: RunFilter) -> list[dict[str, Any]]:
    """What can be chosen by its name, and what of it is, each as (value, name)."""
    flows = await names(ask, "flows", [], chosen.flow)
    picked = await _picked(ask, chosen.deployment)
    return [
        {"name": "flow", "kind": "flows", "label": "Flow", "chosen": [(each, flows.get(each, "deleted")) for each in chosen.flow]},
        {"name": "deployment", "kind": "deployments", "label": "Deployment", "chosen": picked},
        {"name": "pool", "kind": "work_pools", "label": "Work pool", "chosen": [(each, each) for each in chosen.pool]},
    ]  # fmt: skip


async def _picked(ask: Ask, deployments: Sequence[str]) -> list[tuple[str, str]]:
    """The deployments, each with the name that it has with its flow's."""
    if not deployments:
        return []
    wanted = {"deployments": {"id": {"any_": list(deployments)}}, "limit": len(deployments)}
    found = {each["id"]: each for each in await ask.post("/deployments/filter", wanted)}
    flows = await names(ask, "flows", [], (each["flow_id"] for each in found.values()))
    return [
        (each, f"{flows.get(found[each]['flow_id'], '')}/{found[each]['name']}" if each in found else "deleted")
        for each in deployments
    ]


async def names(
    ask: Ask, kind: str, known: Sequence[Mapping[str, Any]], wanted: Iterable[str | None]
) -> dict[str, str]:
    """The names of flows or deployments by id: those that are known, and those that have to be asked for."""
    found = {each["id"]: str(each["name"]) for each in known}
    missing = {each for each in wanted if each is not None} - found.keys()
    if missing:
        asked = {kind: {"id": {"any_": sorted(missing)}}, "limit": len(missing)}
        found |= {each["id"]: str(each["name"]) for each in await ask.post(f"/{kind}/filter", asked)}
    return found
