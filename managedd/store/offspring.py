"""What goes on inside a flow run's own process: the flow runs below it that have no place of their own, and their task runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managedd.store.database import Tx

LIVE_SQL = "('SCHEDULED', 'PENDING', 'RUNNING', 'CANCELLING', 'PAUSED')"
IN_PROCESS = "{run}.deployment_id IS NULL AND {run}.work_queue_id IS NULL AND {run}.infrastructure_pid IS NULL"
"""Whether flow run `{run}`, which has a parent, runs in its parent's process: whatever else there is was sent to a pool."""
DEFERRED = (
    "EXISTS (SELECT 1 FROM task_run_states AS d WHERE d.task_run_id = {task}.id AND d.workspace_id = {task}.workspace_id "
    "AND json_extract(d.state_details, '$.deferred'))"
)
"""Whether task run `{task}` is a background task: a task worker runs it, and it outlives the flow that asked for it."""
WAITED_FOR = (
    "EXISTS (SELECT 1 FROM flow_runs AS c WHERE c.parent_task_run_id = {task}.id AND c.workspace_id = {task}.workspace_id "
    f"AND c.state_type IN {LIVE_SQL})"
)
"""Whether task run `{task}` stands for a flow run that goes on."""

# UNION, not UNION ALL: a circle of parents, which only broken data has, ends too. CROSS JOIN keeps SQLite to the indexes.
TREE = f"""
WITH RECURSIVE tree(id) AS (
    SELECT :top
    UNION
    SELECT r.id FROM tree CROSS JOIN task_runs AS t ON t.flow_run_id = tree.id
    CROSS JOIN flow_runs AS r ON r.parent_task_run_id = t.id AND r.workspace_id = t.workspace_id WHERE {IN_PROCESS.format(run="r")}
)
"""
"""Flow run :top and those below it in its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A flow run or task run that has not ended."""

    id: str
    state_type: str


def open_runs(tx: Tx, top: str, limit: int) -> list[Child]:
    """Flow runs below `top`, in its process, that have not ended."""
    found = tx.all(
        f"{TREE} SELECT r.id, r.state_type FROM tree CROSS JOIN flow_runs AS r ON r.id = tree.id "
        f"WHERE r.id <> :top AND r.state_type IN {LIVE_SQL} LIMIT :limit",
        {"top": top, "limit": limit},
    )
    return [Child(id=row[0], state_type=row[1]) for row in found]


def open_task_runs(tx: Tx, top: str, limit: int) -> list[Child]:
    """Task runs of `top` and of what is below it in its process, that have not ended; not those that others run."""
    found = tx.all(
        f"{TREE} SELECT t.id, t.state_type FROM tree CROSS JOIN task_runs AS t ON t.flow_run_id = tree.id "
        f"WHERE t.state_type IN {LIVE_SQL} AND NOT {WAITED_FOR.format(task='t')} AND NOT {DEFERRED.format(task='t')} LIMIT :limit",
        {"top": top, "limit": limit},
    )
    return [Child(id=row[0], state_type=row[1]) for row in found]
