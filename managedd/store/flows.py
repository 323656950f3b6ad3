"""Flows: what is bespoke about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.bus import Topic
from managedd.errors import not_found
from managedd.store import deployments, executions, rows
from managedd.store.resources import FLOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire

_LIVE_RUNS = """
SELECT executions.flow_run_id FROM executions JOIN flow_runs ON flow_runs.id = executions.flow_run_id
WHERE executions.phase NOT IN ('FINALIZED', 'LOST') AND flow_runs.flow_id = ?
"""


def upsert(tx: Tx, values: Mapping[str, Any]) -> tuple[Wire, bool]:
    """The flow called `values["name"]`, as it was if there was one, and whether it is new."""
    found = rows.by(tx, FLOW, name=values["name"])
    if found is not None:
        return found, False
    return rows.get(tx, FLOW, rows.insert(tx, FLOW, values)), True


def by_name(tx: Tx, name: str) -> Wire:
    """The flow called `name`. Raises ManagedError(NOT_FOUND)."""
    found = rows.by(tx, FLOW, name=name)
    if found is None:
        raise not_found(FLOW.label, name)
    return found


def delete(tx: Tx, flow_id: str) -> None:
    """The flow is gone, and with it its deployments and runs; what runs of it is asked to stop. Raises ManagedError(NOT_FOUND)."""
    rows.get(tx, FLOW, flow_id)
    for row in tx.all("SELECT id FROM deployments WHERE flow_id = ?", (flow_id,)):
        deployments.delete(tx, row["id"])
    for row in tx.all(_LIVE_RUNS, (flow_id,)):
        executions.abandon(tx, row["flow_run_id"])
    rows.delete(tx, FLOW, flow_id)
    tx.publish(Topic.RUNS, Topic.SLOTS)
