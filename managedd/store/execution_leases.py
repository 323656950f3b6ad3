"""Leases on concurrency slots that the process of an execution held: nobody renews them once it is gone, nor gives them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from managedd.store import concurrency
from managedd.store.offspring import DEFERRED, TREE

if TYPE_CHECKING:
    from managedd.store.database import Tx

# What hold no slots, because nothing limits, need no more than to be gone.
_EMPTY = """
DELETE FROM concurrency_leases INDEXED BY concurrency_leases_execution
WHERE execution_id = ? AND NOT EXISTS (SELECT 1 FROM concurrency_lease_slots AS s WHERE s.lease_id = concurrency_leases.id)
"""
_BY_EXECUTION = "SELECT id FROM concurrency_leases INDEXED BY concurrency_leases_execution WHERE execution_id = ?"
# What a holder's id names is only looked for where slots were taken outside of containers: of one workspace these are few.
_BY_HOLDER = f"""
{TREE}
SELECT c.id FROM concurrency_leases AS c INDEXED BY concurrency_leases_elsewhere
WHERE c.workspace_id = :workspace AND c.execution_id IS NULL AND c.holder IS NOT NULL AND c.expires_at > :now
  AND EXISTS (SELECT 1 FROM concurrency_lease_slots AS s WHERE s.lease_id = c.id) AND (
    json_extract(c.holder, '$.type') = 'flow_run' AND json_extract(c.holder, '$.id') IN (SELECT id FROM tree)
    OR json_extract(c.holder, '$.type') = 'task_run' AND EXISTS (
        SELECT 1 FROM task_runs AS t WHERE t.id = json_extract(c.holder, '$.id') AND t.flow_run_id IN (SELECT id FROM tree)
            AND NOT {DEFERRED.format(task="t")}))
"""


def release_all(tx: Tx, execution_id: str, flow_run_id: str) -> int:
    """What was taken from the execution's container, and what its flow run, the ones in its process and their task runs hold of
    limits with a lease, is free again; how many leases that were."""
    empty = tx.execute(_EMPTY, (execution_id,)).rowcount
    found = {row[0] for row in tx.all(_BY_EXECUTION, (execution_id,))}
    holders = {"top": flow_run_id, "workspace": tx.workspace, "now": tx.now}
    found |= {row[0] for row in tx.all(_BY_HOLDER, holders)}
    if found:
        concurrency.release_all(tx, sorted(found))
    return empty + len(found)
