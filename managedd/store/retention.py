"""What is deleted because its time is over, in steps small enough that nobody waits for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from managedd.store.resources import TERMINAL_SQL

if TYPE_CHECKING:
    from managedd.store.database import Tx

STEP = 500
"""Rows per transaction."""
_IS_OVER: Final = (
    f"r.state_type IN {TERMINAL_SQL} "
    "AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST'))"
)
"""Whether flow run `r` has ended and has nothing left in an engine."""


def ended_runs_before(tx: Tx, moment_us: int) -> list[str]:
    """Runs that ended before the moment and have nothing left in an engine; at most a step."""
    rows = tx.all(
        "SELECT r.id FROM workspaces AS w CROSS JOIN flow_runs AS r INDEXED BY flow_runs_ended "
        "WHERE r.workspace_id = w.id AND r.workspace_id IS NOT NULL AND r.end_time < ? "
        f"AND {_IS_OVER} LIMIT ?",
        (moment_us, STEP),
    )
    return [row[0] for row in rows]


def delete_some_of_run(tx: Tx, run_id: str) -> int:
    """At most a step of the run's task runs is gone, or, when it has none left, the run with its states, inputs and artifacts.

    Returns how many rows of the kind went; fewer than a step: the run itself is gone too. Its executions stay, because compute time
    is counted from them.
    """
    gone = tx.execute(
        "DELETE FROM task_runs WHERE rowid IN (SELECT rowid FROM task_runs WHERE flow_run_id = ? LIMIT ?)",
        (run_id, STEP),
    ).rowcount
    if gone < STEP:
        tx.execute(
            "DELETE FROM artifacts WHERE flow_run_id = :run AND workspace_id = (SELECT workspace_id FROM flow_runs WHERE id = :run)",
            {"run": run_id},
        )
        tx.execute("DELETE FROM flow_runs WHERE id = ?", (run_id,))
    return gone


def delete_expired_leases(tx: Tx) -> int:
    """Leases whose time is over are gone: they counted no longer anyway."""
    return tx.execute("DELETE FROM concurrency_leases WHERE expires_at < ?", (tx.now,)).rowcount


def logged_runs_after(tx: Tx, after: str) -> list[str]:
    """The next runs, by id, of whose log anything is known, of whatever workspace; at most a step. For the log store."""
    return [row[0] for row in tx.all("SELECT id FROM log_runs WHERE id > ? ORDER BY id LIMIT ?", (after, STEP))]


def runs_with_lines(tx: Tx, run_ids: list[str]) -> list[str]:
    """Those of the runs that have lines, besides one that tells of their removal. For the log store."""
    rows = tx.all(
        "SELECT r.id FROM json_each(?) AS given CROSS JOIN log_runs AS r ON r.id = given.value "
        "WHERE EXISTS (SELECT 1 FROM logs INDEXED BY logs_flow_run WHERE flow_run = r.key AND logs.id IS NOT r.removed)",
        (orjson.dumps(run_ids).decode(),),
    )
    return [row[0] for row in rows]


def long_ended(tx: Tx, run_ids: list[str], moment_us: int) -> list[tuple[str, str]]:
    """Workspace and id of those of the runs that ended before the moment and have nothing left in an engine."""
    rows = tx.all(
        "SELECT r.workspace_id, r.id FROM json_each(?) AS given CROSS JOIN flow_runs AS r ON r.id = given.value "
        f"WHERE r.end_time < ? AND {_IS_OVER}",
        (orjson.dumps(run_ids).decode(), moment_us),
    )
    return [(row[0], row[1]) for row in rows]


def gone_of(tx: Tx, run_ids: list[str]) -> list[str]:
    """Those of the runs that do not exist, in any workspace."""
    rows = tx.all(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM flow_runs AS r WHERE r.id = value)",
        (orjson.dumps(run_ids).decode(),),
    )
    return [row[0] for row in rows]


def cursors_after(tx: Tx, after: str) -> list[str]:
    """The next executions, by id, of which it is known how far their output was read. For the log store."""
    return [
        row[0]
        for row in tx.all(
            "SELECT execution_id FROM log_cursors WHERE execution_id > ? ORDER BY execution_id LIMIT ?", (after, STEP)
        )
    ]


def ended_of(tx: Tx, execution_ids: list[str]) -> list[str]:
    """Those of the executions that have ended for good, or are gone."""
    rows = tx.all(
        "SELECT value FROM json_each(?) WHERE NOT EXISTS "
        "(SELECT 1 FROM executions AS e WHERE e.id = value AND e.phase NOT IN ('FINALIZED', 'LOST'))",
        (orjson.dumps(execution_ids).decode(),),
    )
    return [row[0] for row in rows]
