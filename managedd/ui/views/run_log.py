"""A run's log on a page of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.ui.page import page

if TYPE_CHECKING:
    from managedd.ui.asking import Ask


@page("/runs/flow-run/{id}/log", template="run_log.html", section="runs", topics=())
async def run_log(ask: Ask, id: str) -> dict[str, Any]:
    """The whole window for one log; it keeps itself up to date."""
    run = await ask.get(f"/flow_runs/{id}")
    return {"title": f"Log of {run['name']}", "run": run}
