"""The queue: which runs of managed pools are due and may go, and how full their limits are. Slots are counted from rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd.store.resources import OCCUPYING_SQL

if TYPE_CHECKING:
    from managedd.store.database import Tx

MANAGED = "prefect:managed"
"""The pool type whose runs this daemon runs itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHead:
    """A work queue that has due runs and is not paused, with what is taken of each limit above it."""

    workspace_id: str
    plan: str
    work_pool_id: str
    work_queue_id: str
    priority: int
    workspace_taken: int
    pool_limit: int | None
    pool_taken: int
    queue_limit: int | None
    queue_taken: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A due run."""

    id: str
    due_at: int
    awaited_slot: bool
    """It waited for its deployment's slot; its scheduled time is only when it would have looked again."""
    orphaned: bool
    """Its deployment is gone."""


_DUE = """
r.state_type = 'SCHEDULED'
AND (r.next_scheduled_start_time <= :now OR r.state_name = 'AwaitingConcurrencySlot')
AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST'))
"""
# A run that waits for a slot is due when there is one; one whose deployment allows none is never due.
_FREE = f"""
(r.deployment_id IS NULL OR d.id IS NULL OR d.concurrency_limit IS NULL
 OR d.concurrency_limit > (SELECT count(*) FROM flow_runs AS o WHERE o.deployment_id = d.id AND o.state_type IN {OCCUPYING_SQL})
 OR (d.concurrency_limit > 0 AND r.state_name <> 'AwaitingConcurrencySlot'))
"""


def heads(tx: Tx) -> list[QueueHead]:
    """Every queue with a due run, most urgent first: by priority within its pool, across workspaces by who holds the fewest slots."""
    found = tx.all(
        f"""
        WITH due AS (
            SELECT DISTINCT q.id AS queue_id
            FROM work_pools AS p JOIN work_queues AS q ON q.work_pool_id = p.id
            JOIN flow_runs AS r ON r.work_queue_id = q.id AND r.state_type = 'SCHEDULED'
            LEFT JOIN deployments AS d ON d.id = r.deployment_id
            WHERE p.type = '{MANAGED}' AND NOT p.is_paused AND NOT q.is_paused AND {_DUE} AND {_FREE}
        ),
        taken AS (
            SELECT q.id AS queue_id, q.work_pool_id AS pool_id, q.workspace_id AS workspace_id, count(*) AS runs
            FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id
            JOIN work_pools AS p ON p.id = q.work_pool_id
            WHERE p.type = '{MANAGED}' AND r.state_type IN {OCCUPYING_SQL}
            GROUP BY q.id
        )
        SELECT q.workspace_id, w.plan, q.work_pool_id, q.id AS work_queue_id, q.priority,
               coalesce((SELECT sum(runs) FROM taken WHERE workspace_id = q.workspace_id), 0) AS workspace_taken,
               p.concurrency_limit AS pool_limit,
               coalesce((SELECT sum(runs) FROM taken WHERE pool_id = p.id), 0) AS pool_taken,
               q.concurrency_limit AS queue_limit,
               coalesce((SELECT runs FROM taken WHERE queue_id = q.id), 0) AS queue_taken
        FROM due JOIN work_queues AS q ON q.id = due.queue_id
        JOIN work_pools AS p ON p.id = q.work_pool_id
        JOIN workspaces AS w ON w.id = q.workspace_id
        ORDER BY workspace_taken, q.priority, q.id
        """,
        {"now": tx.now},
    )
    return [QueueHead(**dict(row)) for row in found]


def candidates(tx: Tx, work_queue_id: str, limit: int) -> list[Candidate]:
    """The queue's runs that may go now, in due order."""
    found = tx.all(
        f"""
        SELECT r.id, coalesce(r.next_scheduled_start_time, r.created) AS due_at,
               r.state_name = 'AwaitingConcurrencySlot' AS awaited_slot,
               r.deployment_id IS NOT NULL AND d.id IS NULL AS orphaned
        FROM flow_runs AS r LEFT JOIN deployments AS d ON d.id = r.deployment_id
        WHERE r.work_queue_id = :queue AND {_DUE} AND {_FREE}
        ORDER BY r.next_scheduled_start_time, r.id LIMIT :limit
        """,
        {"queue": work_queue_id, "now": tx.now, "limit": limit},
    )
    return [Candidate(id=row[0], due_at=row[1], awaited_slot=bool(row[2]), orphaned=bool(row[3])) for row in found]


def next_due(tx: Tx) -> int | None:
    """When the next run of a managed pool becomes due, microseconds, or None."""
    due: int | None = tx.scalar(
        "SELECT min(r.next_scheduled_start_time) FROM work_pools AS p JOIN work_queues AS q ON q.work_pool_id = p.id "
        "JOIN flow_runs AS r ON r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' "
        f"WHERE p.type = '{MANAGED}' AND NOT p.is_paused AND NOT q.is_paused AND r.next_scheduled_start_time > ?",
        (tx.now,),
    )
    return due


def cancelling_without_execution(tx: Tx, limit: int) -> list[tuple[str, str]]:
    """(workspace, run) of managed runs that are CANCELLING while nothing of them exists."""
    found = tx.all(
        "SELECT r.workspace_id, r.id FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id "
        "JOIN work_pools AS p ON p.id = q.work_pool_id "
        f"WHERE r.state_type = 'CANCELLING' AND p.type = '{MANAGED}' AND NOT EXISTS "
        "(SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST')) LIMIT ?",
        (limit,),
    )
    return [(row[0], row[1]) for row in found]


def pool_of_run(tx: Tx, run_id: str) -> str | None:
    """The id of the run's work pool, or None."""
    found: str | None = tx.scalar(
        "SELECT q.work_pool_id FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id WHERE r.id = ?",
        (run_id,),
    )
    return found
