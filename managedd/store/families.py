"""Families: runs that other runs have made, and that these may wait for while they hold room on the host."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING

from managedd.model.limits import AWAITING_HOST, Needs
from managedd.store.offspring import IN_PROCESS, LIVE_SQL

if TYPE_CHECKING:
    from collections.abc import Collection

    from managedd.store.database import Row, Tx

_HOLDS_ROOM = "e.phase NOT IN ('FINALIZED', 'LOST') AND e.phase <> 'EXITED'"
# A flow within a flow has no container of its own: who holds room for it is the next one above. CROSS JOIN keeps SQLite to the indexes.
PARENT = f"""(
    SELECT (
        WITH RECURSIVE up(id, parent_task_run_id, is_inside) AS (
            SELECT m.id, m.parent_task_run_id, {IN_PROCESS.format(run="m")}
            UNION
            SELECT f.id, f.parent_task_run_id, {IN_PROCESS.format(run="f")} FROM up
            CROSS JOIN task_runs AS t ON t.id = up.parent_task_run_id AND t.workspace_id = r.workspace_id
            CROSS JOIN flow_runs AS f ON f.id = t.flow_run_id AND f.state_type IN {LIVE_SQL}
            WHERE up.is_inside
        )
        SELECT up.id FROM up CROSS JOIN executions AS e INDEXED BY executions_live ON e.flow_run_id = up.id AND {_HOLDS_ROOM} LIMIT 1)
    FROM task_runs AS mt CROSS JOIN flow_runs AS m ON m.id = mt.flow_run_id AND m.state_type IN {LIVE_SQL}
    WHERE mt.id = r.parent_task_run_id AND mt.workspace_id = r.workspace_id)
"""
"""The run that has made flow run `r`, or in whose process that was made, if it goes on and holds room on this host; else NULL: nobody
who waits for `r` keeps anything from others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A run that holds room on the host."""

    run_id: str
    parent_id: str | None
    """Who has made it, and holds room as well."""
    needs: Needs
    """What it holds."""


def holders(tx: Tx) -> list[Holder]:
    """Every run that holds room on the host."""
    found = tx.all(
        f"""
        SELECT r.id, {PARENT} AS parent_id, coalesce(e.memory_limit_bytes, 0) AS memory, coalesce(e.cpu_limit, 0.0) AS cpus
        FROM executions AS e INDEXED BY executions_open CROSS JOIN flow_runs AS r ON r.id = e.flow_run_id WHERE {_HOLDS_ROOM}
        """
    )
    return [_holder(row) for row in found]


def waiting_parents(tx: Tx) -> list[Holder]:
    """Every run that holds room on the host while a run below it has not begun, as it may wait for that; whoever was made first before
    those that it made."""
    found = tx.all(
        f"""
        WITH RECURSIVE above(id) AS (
            SELECT t.flow_run_id FROM flow_runs AS r INDEXED BY flow_runs_children CROSS JOIN task_runs AS t
                ON t.id = r.parent_task_run_id AND t.workspace_id = r.workspace_id
            WHERE r.state_type = 'SCHEDULED' AND r.parent_task_run_id IS NOT NULL
            UNION
            SELECT t.flow_run_id FROM above CROSS JOIN flow_runs AS r ON r.id = above.id CROSS JOIN task_runs AS t
                ON t.id = r.parent_task_run_id AND t.workspace_id = r.workspace_id
        )
        SELECT r.id, {PARENT} AS parent_id, coalesce(e.memory_limit_bytes, 0) AS memory, coalesce(e.cpu_limit, 0.0) AS cpus
        FROM above CROSS JOIN executions AS e INDEXED BY executions_live ON e.flow_run_id = above.id AND {_HOLDS_ROOM}
        CROSS JOIN flow_runs AS r ON r.id = above.id
        ORDER BY r.created, r.id
        """
    )
    return [_holder(row) for row in found]


def needs_below(tx: Tx, parents: Collection[str]) -> list[Needs | None]:
    """What those need that were made by these runs and have not begun; None: of one that waits for something else, or is not known."""
    found = tx.all(
        f"""
        SELECT DISTINCT r.needs_memory_bytes AS memory, r.needs_cpus AS cpus, r.state_name = '{AWAITING_HOST}' AS is_known
        FROM flow_runs AS r INDEXED BY flow_runs_children
        WHERE r.state_type = 'SCHEDULED' AND r.parent_task_run_id IS NOT NULL AND {PARENT} IN (SELECT value FROM json_each(?))
        """,
        (dumps(sorted(parents)),),
    )
    return [
        Needs(memory_bytes=row["memory"], cpus=row["cpus"]) if row["is_known"] and row["memory"] is not None else None
        for row in found
    ]


def _holder(row: Row) -> Holder:
    needs = Needs(memory_bytes=row["memory"], cpus=row["cpus"])
    return Holder(run_id=row["id"], parent_id=row["parent_id"], needs=needs)
