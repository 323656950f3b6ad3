"""What is deleted because its time is over, in steps small enough that nobody waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managedd.store.database import Tx

STEP = 500
"""Rows per transaction."""


def ended_runs_before(tx: Tx, moment_us: int) -> list[tuple[str, str]]:
    """(workspace, run) of runs that ended before the moment and have nothing left in an engine; at most a step."""
    rows = tx.all(
        "SELECT workspace_id, id FROM flow_runs WHERE end_time < ? AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') "
        "AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = flow_runs.id AND e.phase NOT IN ('FINALIZED', 'LOST')) "
        "LIMIT ?",
        (moment_us, STEP),
    )
    return [(row[0], row[1]) for row in rows]


def delete_runs(tx: Tx, run_ids: list[str]) -> None:
    """The runs are gone with their states, inputs, task runs and artifacts; their executions stay, because compute time is counted
    from them."""
    for run_id in run_ids:
        tx.execute("DELETE FROM artifacts WHERE flow_run_id = ?", (run_id,))
        tx.execute("DELETE FROM flow_runs WHERE id = ?", (run_id,))


def delete_expired_leases(tx: Tx) -> int:
    """Leases whose time is over are gone: they counted no longer anyway."""
    return tx.execute("DELETE FROM concurrency_leases WHERE expires_at < ?", (tx.now,)).rowcount


def exists_run(tx: Tx, run_id: str) -> bool:
    """Whether there is such a run, in any workspace."""
    return tx.one("SELECT 1 FROM flow_runs WHERE id = ?", (run_id,)) is not None
