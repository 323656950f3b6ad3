"""Deleting a workspace: at once for everybody who asks, in small steps for its rows.

What is left of it until the last step is one row that nobody is shown: requests that were under way when it was deleted may still write
something of it, and that goes as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd.bus import Topic
from managedd.errors import conflict
from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.model.executions import EndCause
from managedd.store import executions, retention, workspaces

if TYPE_CHECKING:
    from managedd.store.database import Tx

STEP: Final = retention.STEP
"""Rows per transaction."""
LINGER_US: Final = 3_600_000_000
"""So long the last row stays at least."""
_OPEN: Final = "e.phase NOT IN ('FINALIZED', 'LOST')"
_BEFORE_RUNS: Final = ("automations", "deployment_schedules", "deployments")
"""What makes new runs."""
_AFTER_RUNS: Final = (
    "task_runs", "artifact_collections", "artifacts", "flow_run_inputs", "flows", "workers", "work_queues", "work_pools", "variables",
    "block_documents", "block_schemas", "block_types", "concurrency_leases", "concurrency_limits", "usage", "usage_months", "executions",
    "events", "event_workspaces", "sealed", "keys",
)  # fmt: skip
"""What runs that are being stopped may still need, children first: what a row takes with it is in the tables before its own."""


def begin(tx: Tx, workspace_id: str, *, force: bool) -> None:
    """The workspace opens nothing any more, starts nothing, and its rows may go; with `force`, what runs in it is asked to stop.

    Raises ManagedError: NOT_FOUND, or CONFLICT for the default workspace and, without `force`, while runs are under way.
    """
    known = workspaces.need(tx, workspace_id)
    if workspace_id == DEFAULT_WORKSPACE_ID:
        raise conflict("The default workspace can't be deleted")
    count = under_way(tx, workspace_id)
    if count and not force:
        runs = "1 run is" if count == 1 else f"{count:,} runs are"
        raise conflict(f"{runs} under way in {known.account}/{known.handle}: wait, cancel them, or force")
    # Its handle is free from now on: no other can have this one.
    tx.execute(
        "UPDATE workspaces SET removed = :now, updated = :now, handle = '~' || id WHERE id = :id",
        {"now": tx.now, "id": workspace_id},
    )
    tx.execute("UPDATE keys SET revoked = ? WHERE workspace_id = ? AND revoked IS NULL", (tx.now, workspace_id))
    tx.execute("UPDATE work_pools SET is_paused = 1 WHERE workspace_id = ? AND NOT is_paused", (workspace_id,))
    for row in tx.all(f"SELECT id FROM executions AS e WHERE workspace_id = ? AND {_OPEN}", (workspace_id,)):
        executions.request_stop(tx, row[0], EndCause.CANCEL)
    tx.publish(Topic.KEYS, Topic.SLOTS)


def under_way(tx: Tx, workspace_id: str) -> int:
    """How many runs of the workspace have begun and not ended, or have something left in an engine."""
    found: int = tx.scalar(
        "SELECT count(*) FROM (SELECT id FROM flow_runs WHERE workspace_id = :id AND state_type IN ('PENDING', 'RUNNING', 'CANCELLING') "
        f"UNION SELECT flow_run_id FROM executions AS e WHERE workspace_id = :id AND {_OPEN})",
        {"id": workspace_id},
    )
    return found


def begun(tx: Tx) -> list[str]:
    """The workspaces that were deleted and are not gone, the first one first."""
    return [row[0] for row in tx.all("SELECT id FROM workspaces WHERE removed IS NOT NULL ORDER BY removed")]


def step(tx: Tx, workspace_id: str) -> bool:
    """About `STEP` rows of the deleted workspace are gone; False when there is nothing more to do now, because it is gone or has to wait."""
    for table in _BEFORE_RUNS:
        if _delete_some(tx, table, workspace_id):
            return True
    if _delete_some_runs(tx, workspace_id):
        return True
    if is_in_engine(tx, workspace_id):
        return False
    for table in _AFTER_RUNS:
        if _delete_some(tx, table, workspace_id):
            return True
    _delete_last(tx, workspace_id)
    return False


def is_in_engine(tx: Tx, workspace_id: str) -> bool:
    """Whether something of the workspace is left in an engine."""
    sql = f"SELECT EXISTS (SELECT 1 FROM executions AS e WHERE e.workspace_id = ? AND {_OPEN})"
    return bool(tx.scalar(sql, (workspace_id,)))


def _delete_some(tx: Tx, table: str, workspace_id: str) -> int:
    key = _KEYS.get(table, "rowid")
    sql = f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE workspace_id = ? LIMIT ?)"
    return tx.execute(sql, (workspace_id, STEP)).rowcount


_KEYS: Final = {"usage": "execution_id, day", "usage_months": "workspace_id, month", "sealed": "kind, row_id"}
"""Of tables without row ids."""


def _delete_some_runs(tx: Tx, workspace_id: str) -> bool:
    """Whether anything went; a run that has something left in an engine stays."""
    runs = tx.all(
        "SELECT r.id FROM flow_runs AS r WHERE r.workspace_id = ? "
        f"AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND {_OPEN}) LIMIT ?",
        (workspace_id, STEP // 5),
    )
    gone = 0
    for row in runs:
        gone += 1 + retention.delete_some_of_run(tx, row[0])
        if gone >= STEP:
            break
    return bool(runs)


def _delete_last(tx: Tx, workspace_id: str) -> None:
    account = tx.scalar("SELECT account_id FROM workspaces WHERE id = ?", (workspace_id,))
    gone = tx.execute("DELETE FROM workspaces WHERE id = ? AND removed <= ?", (workspace_id, tx.now - LINGER_US))
    if gone.rowcount:
        tx.execute(
            "DELETE FROM accounts WHERE id = :id AND NOT EXISTS (SELECT 1 FROM workspaces WHERE account_id = :id)",
            {"id": account},
        )
