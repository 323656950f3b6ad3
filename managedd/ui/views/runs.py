"""Runs: the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd.clock import from_us
from managedd.ui import charts, run_filters
from managedd.ui.page import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.ui.asking import Ask

MAX_CHOICES: Final = 200
"""Of flows, deployments and pools to choose from."""


@page("/runs", template="runs.html", section="runs")
async def runs(ask: Ask) -> dict[str, Any]:
    """A page of the runs that were asked for, with what they came to over time."""
    chosen = run_filters.read(ask.query)
    now = from_us(ask.services.clock.now_us())
    body = chosen.body(now)
    asked = {**body, "sort": chosen.sort, "limit": run_filters.PAGE_SIZE, "offset": chosen.offset}
    found = await ask.post("/flow_runs/filter", asked)
    history = await ask.post("/managed/flow_runs/count-by/time", chosen.history(now))
    flows = await ask.post("/flows/filter", {"limit": MAX_CHOICES, "sort": "NAME_ASC"})
    deployments = await ask.post("/deployments/filter", {"limit": MAX_CHOICES, "sort": "NAME_ASC"})
    pools = await ask.post("/work_pools/filter", {"limit": MAX_CHOICES})
    return {
        "title": "Runs",
        "chosen": chosen,
        "runs": found,
        "total": await ask.post("/flow_runs/count", body),
        "page_size": run_filters.PAGE_SIZE,
        "states": run_filters.STATES,
        "ranges": {"1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days", "any": "Any time"},
        "ahead": {"now": "Up to now", "1d": "A day ahead", "7d": "7 days ahead", "any": "Any time ahead"},
        "sorts": run_filters.SORTS,
        "flows": await _with_chosen(ask, "flows", flows, chosen.flow),
        "deployments": await _with_chosen(ask, "deployments", deployments, chosen.deployment),
        "pools": pools,
        "flow_names": await names(ask, "flows", flows, (run["flow_id"] for run in found)),
        "deployment_names": await names(ask, "deployments", deployments, (run["deployment_id"] for run in found)),
        "stacks": charts.stacks(history),
        "durations": charts.durations(found),
        "spans": {run["id"]: _seconds(run) for run in found},
    }


async def _with_chosen(
    ask: Ask, kind: str, listed: list[dict[str, Any]], chosen: Sequence[str]
) -> list[dict[str, Any]]:
    """What there is to choose from, and what was chosen already, however many others there are."""
    missing = sorted(set(chosen) - {each["id"] for each in listed})
    if not missing:
        return listed
    return [*listed, *await ask.post(f"/{kind}/filter", {kind: {"id": {"any_": missing}}, "limit": len(missing)})]


def _seconds(run: Mapping[str, Any]) -> float | None:
    """How long it took; None: it has not ended, or never began."""
    if not (run["start_time"] and run["end_time"]):
        return None
    return charts.seconds_between(run["start_time"], run["end_time"])


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
