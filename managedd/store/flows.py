"""Flows: what is bespoke about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.bus import Topic
from managedd.errors import not_found
from managedd.store import deployments, executions, flow_runs, rows
from managedd.store.resources import FLOW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire

RUNS_PER_STEP = 200
TASK_RUNS_PER_STEP = 500
_SOME_RUNS = "SELECT id FROM flow_runs WHERE flow_id = ? LIMIT ?"
_THEIR_TASK_RUNS = f"SELECT t.rowid FROM ({_SOME_RUNS}) AS r CROSS JOIN task_runs AS t ON t.flow_run_id = r.id LIMIT ?"


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


def delete_some(tx: Tx, flow_id: str) -> bool:
    """At most a step of the flow's runs is gone, or, when that is all that was left of it, the flow too: True.

    What runs of it is asked to stop. Its deployments go first, so that nothing comes after. A flow with a great many runs takes many
    steps, each a transaction of its own: whoever else writes is not held up, and what a crash leaves is a smaller flow. Raises
    ManagedError(NOT_FOUND).
    """
    rows.get(tx, FLOW, flow_id)
    for row in tx.all("SELECT id FROM deployments WHERE flow_id = ?", (flow_id,)):
        deployments.delete(tx, row["id"])
    tx.publish(Topic.RUNS, Topic.SLOTS)
    limits = (flow_id, RUNS_PER_STEP, TASK_RUNS_PER_STEP)
    if tx.execute(f"DELETE FROM task_runs WHERE rowid IN ({_THEIR_TASK_RUNS})", limits).rowcount == TASK_RUNS_PER_STEP:
        return False
    runs = [row[0] for row in tx.all(_SOME_RUNS, (flow_id, RUNS_PER_STEP))]
    for run_id in runs:
        executions.abandon(tx, run_id)
        flow_runs.delete(tx, run_id)
    if len(runs) == RUNS_PER_STEP:
        return False
    rows.delete(tx, FLOW, flow_id)
    return True
