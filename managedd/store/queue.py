"""The queue: which runs of managed pools are due and may go, and how full their limits are. Slots are counted from rows."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from types import MappingProxyType
from typing import TYPE_CHECKING

from managedd.model.limits import AWAITING_HOST, AWAITING_HOURS, SLACK, Needs
from managedd.store.families import PARENT
from managedd.store.flow_runs import LEAVING
from managedd.store.resources import OCCUPYING_SQL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from managedd.store.database import Row, Tx

MANAGED = "prefect:managed"
"""The pool type whose runs this daemon runs itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueHead:
    """A work queue that has due runs, with what is taken of each limit above it."""

    workspace_id: str
    plan: str
    work_pool_id: str
    work_queue_id: str
    priority: int
    workspace_taken: int
    workspace_given_us: int | None
    """When a run of the workspace was claimed last; None: none ever was."""
    pool_limit: int | None
    pool_taken: int
    pool_given_us: int | None
    queue_limit: int | None
    queue_taken: int
    starts_taken: float
    """Of the workspace's bucket of starts, at `starts_as_of` (microseconds)."""
    starts_as_of: int
    is_paused: bool
    """It, or its pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A due run."""

    id: str
    due_at: int
    awaited_slot: bool
    """It waited for its deployment's slot; its scheduled time is only when it would have looked again."""
    orphaned: bool
    """Its deployment is gone."""
    state_name: str
    state_us: int
    """Since when it is in that state."""
    parent_id: str | None = None
    """The run that has made it, holds room on the host, and may wait for it."""
    is_refused: bool = False
    """It waits for the host, and its deployment is full and cancels whoever finds it so: that takes no room."""
    needs: Needs | None = None
    """Of a run that waits for the host: what it needs of it, as far as that is on record."""


_LIVE = "EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST'))"
# Deployments none of whose runs may go now, counted once for all runs that wait.
_HELD = f"(SELECT count(*) FROM flow_runs AS o WHERE o.deployment_id = d.id AND o.state_type IN {OCCUPYING_SQL})"
_FULL = f"""
full AS MATERIALIZED (
    SELECT d.id, d.concurrency_limit AS slots, d.concurrency_options ->> 'collision_strategy' IS 'CANCEL_NEW' AS refuses FROM deployments AS d
    WHERE d.concurrency_limit IS NOT NULL AND (d.concurrency_limit <= {_HELD}
        OR d.concurrency_limit <= {_HELD} + (SELECT count(*) FROM {LEAVING} AND e.deployment_id = d.id))
)
"""
# What is due in queue q. A run that finds its deployment full is told so once: then it waits for the slot.
_DUE = f"""
r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' AND r.next_scheduled_start_time <= :now
AND r.state_name <> 'AwaitingConcurrencySlot'
AND (r.deployment_id IS NULL OR r.deployment_id NOT IN (SELECT id FROM full WHERE slots <= 0)) AND NOT {_LIVE}
"""
# What waits for a slot of its deployment is due when there is one.
_WAITING = f"""
r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' AND r.state_name = 'AwaitingConcurrencySlot'
AND (r.deployment_id IS NULL OR r.deployment_id NOT IN (SELECT id FROM full)) AND NOT {_LIVE}
"""
LINGERING = f"""
lingering AS MATERIALIZED (
    SELECT e.workspace_id AS workspace_id, e.work_pool_id AS pool_id, r.work_queue_id AS queue_id
    FROM executions AS e INDEXED BY executions_open LEFT JOIN flow_runs AS r ON r.id = e.flow_run_id
    WHERE e.phase NOT IN ('FINALIZED', 'LOST') AND e.phase <> 'EXITED'
      AND (r.state_type IS NULL OR r.work_queue_id IS NULL OR r.state_type NOT IN {OCCUPYING_SQL})
)
"""
"""Containers whose run holds no slot: it has ended or was deleted and its process is leaving, or it waits in its process (a pause, the
next try), or its pool or queue was deleted while it ran. What they use, nobody else can: they count for the workspace, the pool and the
queue, whose limits are limits of containers; for the deployment only what is leaving does, as a run that waits gives its slot there back."""
_DUE_RUNS = "flow_runs AS r INDEXED BY flow_runs_queue"
_WAITING_RUNS = "flow_runs AS r INDEXED BY flow_runs_waiting"


def heads(tx: Tx) -> list[QueueHead]:
    """Every queue with a run that may go, first those of the workspaces that hold the fewest slots."""
    found = tx.all(
        f"""
        WITH {_FULL},
        taken AS MATERIALIZED (
            SELECT q.id AS queue_id, q.work_pool_id AS pool_id, q.workspace_id AS workspace_id, count(*) AS runs
            FROM flow_runs AS r INDEXED BY flow_runs_occupying
            JOIN work_queues AS q ON q.id = r.work_queue_id JOIN work_pools AS p ON p.id = q.work_pool_id
            WHERE p.type = '{MANAGED}' AND r.state_type IN {OCCUPYING_SQL}
            GROUP BY q.id
        ),
        {LINGERING}
        SELECT q.workspace_id, w.plan, q.work_pool_id, q.id AS work_queue_id, q.priority,
               coalesce((SELECT sum(runs) FROM taken WHERE workspace_id = q.workspace_id), 0)
                   + (SELECT count(*) FROM lingering WHERE workspace_id = q.workspace_id) AS workspace_taken,
               (SELECT max(claimed_at) FROM executions INDEXED BY executions_workspace WHERE workspace_id = q.workspace_id) AS workspace_given_us,
               (SELECT max(claimed_at) FROM executions INDEXED BY executions_pool WHERE work_pool_id = p.id) AS pool_given_us,
               p.concurrency_limit AS pool_limit,
               coalesce((SELECT sum(runs) FROM taken WHERE pool_id = p.id), 0)
                   + (SELECT count(*) FROM lingering WHERE pool_id = p.id) AS pool_taken,
               q.concurrency_limit AS queue_limit,
               coalesce((SELECT runs FROM taken WHERE queue_id = q.id), 0)
                   + (SELECT count(*) FROM lingering WHERE queue_id = q.id) AS queue_taken,
               w.starts_taken, w.starts_as_of, p.is_paused OR q.is_paused AS is_paused
        FROM work_pools AS p JOIN work_queues AS q ON q.work_pool_id = p.id JOIN workspaces AS w ON w.id = q.workspace_id
        WHERE p.type = '{MANAGED}'
          AND (EXISTS (SELECT 1 FROM {_DUE_RUNS} WHERE {_DUE}) OR EXISTS (SELECT 1 FROM {_WAITING_RUNS} WHERE {_WAITING}))
        ORDER BY workspace_taken, q.workspace_id, q.priority, q.id
        """,
        {"now": tx.now},
    )
    return [QueueHead(**{**dict(row), "is_paused": bool(row["is_paused"])}) for row in found]


def candidates(tx: Tx, work_queue_id: str, limit: int, *, not_named: str = AWAITING_HOST) -> list[Candidate]:
    """The queue's due runs in states of another name than `not_named`, in the order in which they were due: a slot waited for does not
    cost the turn."""
    found = tx.all(
        f"""
        WITH {_FULL}, q AS (SELECT :queue AS id),
        due AS (SELECT r.id, r.deployment_id, r.next_scheduled_start_time AS due_at, 0 AS awaited_slot FROM q CROSS JOIN {_DUE_RUNS}
                WHERE {_DUE} AND r.state_name <> :name ORDER BY r.next_scheduled_start_time LIMIT :limit),
        waiting AS (SELECT r.id, r.deployment_id, r.expected_start_time AS due_at, 1 AS awaited_slot FROM q CROSS JOIN {_WAITING_RUNS}
                    WHERE {_WAITING} ORDER BY r.expected_start_time LIMIT :limit)
        SELECT c.id, c.due_at, c.awaited_slot, c.deployment_id IS NOT NULL AND d.id IS NULL AS orphaned, r.state_name, r.state_timestamp,
               {PARENT} AS parent_id
        FROM (SELECT * FROM due UNION ALL SELECT * FROM waiting) AS c CROSS JOIN flow_runs AS r ON r.id = c.id
        LEFT JOIN deployments AS d ON d.id = c.deployment_id
        ORDER BY c.due_at, c.id LIMIT :limit
        """,
        {"queue": work_queue_id, "now": tx.now, "limit": limit, "name": not_named},
    )
    return [_candidate(row) for row in found]


# What waits for the host in queue q, known by its needs. Whoever was told so had no live execution, and gets one by being claimed alone:
# only where somebody forces that state upon a run is there one.
_PARKED = f"""
r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' AND r.state_name = '{AWAITING_HOST}' AND r.next_scheduled_start_time <= :now
"""
# Whoever could not go with room on the host either is not looked for, and keeps it from nobody.
_HAS_SLOT = "(r.deployment_id IS NULL OR r.deployment_id NOT IN (SELECT id FROM full))"
_PARKED_RUNS = "flow_runs AS r INDEXED BY flow_runs_parked"
_CHILD_RUNS = "flow_runs AS r INDEXED BY flow_runs_children"
_VARYING_RUNS = "flow_runs AS r INDEXED BY flow_runs_varying"
_TOLD_RUNS = "flow_runs AS r INDEXED BY flow_runs_told"
# The list is the index's own condition: SQLite does not see that one name is in it.
_TOLD = (
    f"r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' AND r.state_name IN ('{AWAITING_HOURS}', '{AWAITING_HOST}')"
)
_FITS = f"r.needs_memory_bytes <= :memory AND r.needs_cpus <= :cpus + {SLACK!r}"


def parked(
    tx: Tx,
    work_queue_id: str,
    limit: int,
    *,
    free: Needs,
    since_before_us: int,
    children: bool = True,
    rooms: Mapping[str, Needs] = MappingProxyType({}),
    page: int = 0,
) -> list[Candidate]:
    """Of the queue's runs that wait for the host while their deployments have slots, at most `limit` each: those that fit into what is
    free, those whose needs are not on record, and a page (the last is followed by the first) of those whose needs vary. And the first
    that fits not and has waited since before then, and those that their full deployments refuse. With `children`, also those that fit of
    runs that hold room; and by `rooms`, what is beside each of these, the first of theirs that has waited and has room beside its own. In
    the order in which they were due."""
    found = tx.all(
        f"""
        WITH {_FULL}, q AS (SELECT :queue AS id),
        unknown AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM q CROSS JOIN {_PARKED_RUNS}
                    WHERE {_PARKED} AND {_HAS_SLOT} AND r.needs_memory_bytes IS NULL ORDER BY due_at LIMIT :limit),
        fitting AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM q CROSS JOIN {_PARKED_RUNS}
                    WHERE {_PARKED} AND {_HAS_SLOT} AND {_FITS} ORDER BY due_at LIMIT :limit),
        varying AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM q CROSS JOIN {_VARYING_RUNS}
                    WHERE {_PARKED} AND r.needs_vary = 1 AND {_HAS_SLOT} ORDER BY due_at LIMIT :limit OFFSET :limit * (:page % max(1,
                        (SELECT count(*) + :limit - 1 FROM q CROSS JOIN {_VARYING_RUNS}
                         WHERE {_PARKED} AND r.needs_vary = 1 AND {_HAS_SLOT}) / :limit))),
        -- Looked for only where there is one.
        somebody AS (SELECT 1 FROM q CROSS JOIN {_TOLD_RUNS}
                     WHERE {_TOLD} AND r.state_name = '{AWAITING_HOST}' AND r.state_timestamp <= :before LIMIT 1),
        waited AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM somebody CROSS JOIN q CROSS JOIN {_DUE_RUNS}
                   WHERE {_DUE} AND {_HAS_SLOT} AND r.state_name = '{AWAITING_HOST}' AND r.state_timestamp <= :before
                     AND r.needs_memory_bytes IS NOT NULL AND NOT ({_FITS}) AND {PARENT} IS NULL ORDER BY due_at LIMIT 1),
        child AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM q CROSS JOIN {_CHILD_RUNS}
                  WHERE :children AND {_PARKED} AND r.parent_task_run_id IS NOT NULL AND {_HAS_SLOT} AND {_FITS} AND {PARENT} IS NOT NULL
                  ORDER BY due_at LIMIT :limit),
        -- By itself: nothing is kept for a child that has no room beside its parent.
        waited_child AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM somebody CROSS JOIN q CROSS JOIN {_CHILD_RUNS}
                         WHERE {_PARKED} AND r.parent_task_run_id IS NOT NULL AND {_HAS_SLOT} AND r.state_timestamp <= :before
                           AND r.needs_memory_bytes <= :most_beside AND NOT ({_FITS})
                           AND r.needs_memory_bytes <= (:memory_beside ->> ('$."' || {PARENT} || '"'))
                           AND r.needs_cpus <= (:cpus_beside ->> ('$."' || {PARENT} || '"')) + {SLACK!r}
                         ORDER BY due_at LIMIT 1),
        refusing AS MATERIALIZED (SELECT id FROM full WHERE refuses AND slots > 0),
        refused AS (SELECT r.id, r.next_scheduled_start_time AS due_at FROM q CROSS JOIN refusing AS d
                    CROSS JOIN flow_runs AS r INDEXED BY flow_runs_scheduled ON r.deployment_id = d.id
                    WHERE {_PARKED} ORDER BY due_at LIMIT :limit)
        SELECT c.id, c.due_at, 0 AS awaited_slot, r.deployment_id IS NOT NULL AND d.id IS NULL AS orphaned, r.state_name, r.state_timestamp,
               {PARENT} AS parent_id, coalesce(r.deployment_id IN (SELECT id FROM refusing), 0) AS is_refused,
               r.needs_memory_bytes, r.needs_cpus, r.needs_vary
        FROM (SELECT * FROM unknown UNION SELECT * FROM fitting UNION SELECT * FROM child UNION SELECT * FROM varying
              UNION SELECT * FROM waited UNION SELECT * FROM waited_child UNION SELECT * FROM refused) AS c
        CROSS JOIN flow_runs AS r ON r.id = c.id LEFT JOIN deployments AS d ON d.id = r.deployment_id
        WHERE NOT {_LIVE}
        ORDER BY c.due_at, c.id
        """,
        {
            "queue": work_queue_id,
            "now": tx.now,
            "limit": limit,
            "memory": free.memory_bytes,
            "cpus": free.cpus,
            "before": since_before_us,
            "children": children,
            "most_beside": max((room.memory_bytes for room in rooms.values()), default=0),
            "memory_beside": dumps({run_id: room.memory_bytes for run_id, room in rooms.items()}),
            "cpus_beside": dumps({run_id: room.cpus for run_id, room in rooms.items()}),
            "page": page,
        },
    )
    return [
        _candidate(row, None if row[8] is None else _needs(row[8], row[9], row[10]), is_refused=bool(row[7]))
        for row in found
    ]


def children(
    tx: Tx, work_queue_id: str, limit: int, *, free: Needs, parents: Collection[str] | None = None
) -> list[Candidate]:
    """The queue's runs that wait for the host and fit into what is free, while their deployments have slots, of these runs that hold
    room; of all that do, if none are named. In the order in which they were due."""
    found = tx.all(
        f"""
        WITH {_FULL}, q AS (SELECT :queue AS id), parents AS MATERIALIZED (SELECT value AS id FROM json_each(:parents))
        SELECT r.id, r.next_scheduled_start_time AS due_at, 0 AS awaited_slot, 0 AS orphaned, r.state_name, r.state_timestamp,
               {PARENT} AS parent_id, 0 AS is_refused, r.needs_memory_bytes, r.needs_cpus, r.needs_vary
        FROM q CROSS JOIN {_CHILD_RUNS}
        WHERE {_PARKED} AND r.parent_task_run_id IS NOT NULL AND {_HAS_SLOT} AND {_FITS}
          AND (r.deployment_id IS NULL OR r.deployment_id IN (SELECT id FROM deployments)) AND NOT {_LIVE}
          AND CASE WHEN :parents IS NULL THEN {PARENT} IS NOT NULL ELSE {PARENT} IN (SELECT id FROM parents) END
        ORDER BY due_at LIMIT :limit
        """,
        {
            "queue": work_queue_id,
            "now": tx.now,
            "limit": limit,
            "memory": free.memory_bytes,
            "cpus": free.cpus,
            "parents": None if parents is None else dumps(sorted(parents)),
        },
    )
    return [_candidate(row, _needs(row[8], row[9], row[10])) for row in found]


def has_waited(tx: Tx, since_before_us: int) -> bool:
    """Whether anybody has been waiting for the host since before then."""
    found: int = tx.scalar(
        f"SELECT EXISTS (SELECT 1 FROM work_queues AS q CROSS JOIN {_TOLD_RUNS} "
        f"WHERE {_TOLD} AND r.state_name = '{AWAITING_HOST}' AND r.state_timestamp <= ?)",
        (since_before_us,),
    )
    return bool(found)


def _needs(memory_bytes: int, cpus: float, varies: int) -> Needs:
    return Needs(memory_bytes=memory_bytes, cpus=cpus, varies=bool(varies))


def no_longer_waiting(
    tx: Tx, work_queue_id: str, limit: int, *, is_kept: bool, has_hours: bool, free: Needs, since_before_us: int
) -> list[Candidate]:
    """The queue's runs that were told before then to wait for hours, or for the host, and do not wait for that any more: where the
    queue is not kept itself, those whose deployments are full."""
    found = tx.all(
        f"""
        WITH {_FULL}, q AS (SELECT :queue AS id),
        hours AS (SELECT r.id FROM q CROSS JOIN {_TOLD_RUNS}
                  WHERE {_TOLD} AND r.state_name = '{AWAITING_HOURS}' AND r.state_timestamp <= :before AND :is_kept AND :has_hours LIMIT :limit),
        host AS (SELECT r.id FROM q CROSS JOIN {_PARKED_RUNS}
                 WHERE {_PARKED} AND {_FITS} AND r.state_timestamp <= :before
                   AND (:is_kept OR r.deployment_id IN (SELECT id FROM full)) LIMIT :limit)
        SELECT r.id, r.next_scheduled_start_time, 0, 0, r.state_name, r.state_timestamp, NULL
        FROM (SELECT id FROM hours UNION ALL SELECT id FROM host) AS c CROSS JOIN flow_runs AS r ON r.id = c.id
        ORDER BY r.next_scheduled_start_time, r.id LIMIT :limit
        """,
        {
            "queue": work_queue_id,
            "now": tx.now,
            "limit": limit,
            "memory": free.memory_bytes,
            "cpus": free.cpus,
            "before": since_before_us,
            "is_kept": is_kept,
            "has_hours": has_hours,
        },
    )
    return [_candidate(row) for row in found]


def is_full(tx: Tx, run_id: str) -> bool:
    """Whether other runs, and containers of runs that have ended, hold all slots of the run's deployment."""
    full: int | None = tx.scalar(
        "SELECT CASE WHEN d.concurrency_limit IS NULL THEN 0 ELSE d.concurrency_limit <= "
        f"(SELECT count(*) FROM flow_runs AS o WHERE o.deployment_id = d.id AND o.state_type IN {OCCUPYING_SQL}) "
        f"+ (SELECT count(*) FROM {LEAVING} AND e.deployment_id = d.id) END "
        "FROM flow_runs AS r JOIN deployments AS d ON d.id = r.deployment_id WHERE r.id = :run",
        {"run": run_id},
    )
    return bool(full)


def note_needs(tx: Tx, run_id: str, needs: Needs) -> None:
    """What the run, which waits for the host, needs of it is on record."""
    tx.execute(
        "UPDATE flow_runs SET needs_memory_bytes = ?, needs_cpus = ?, needs_vary = ? WHERE id = ?",
        (needs.memory_bytes, needs.cpus, needs.varies, run_id),
    )


def forget_needs(tx: Tx) -> None:
    """Nothing is on record of what waiting runs need: the settings that it was made of may be others now."""
    tx.execute(
        "UPDATE flow_runs SET needs_memory_bytes = NULL, needs_cpus = NULL "
        f"WHERE state_type = 'SCHEDULED' AND state_name = '{AWAITING_HOST}' AND needs_memory_bytes IS NOT NULL"
    )


def _candidate(row: Row, needs: Needs | None = None, *, is_refused: bool = False) -> Candidate:
    return Candidate(
        id=row[0],
        due_at=row[1],
        awaited_slot=bool(row[2]),
        orphaned=bool(row[3]),
        state_name=row[4],
        state_us=row[5],
        parent_id=row[6],
        is_refused=is_refused,
        needs=needs,
    )


def next_due(tx: Tx) -> int | None:
    """When the next run of a managed pool becomes due, microseconds, or None."""
    due: int | None = tx.scalar(
        f"""
        SELECT min((SELECT min(r.next_scheduled_start_time) FROM {_DUE_RUNS}
                    WHERE r.work_queue_id = q.id AND r.state_type = 'SCHEDULED' AND r.next_scheduled_start_time > :now))
        FROM work_pools AS p JOIN work_queues AS q ON q.work_pool_id = p.id
        WHERE p.type = '{MANAGED}' AND NOT p.is_paused AND NOT q.is_paused
        """,
        {"now": tx.now},
    )
    return due


def is_unheld(tx: Tx, run_id: str) -> bool:
    """Whether the run is one of a managed pool and no execution of it may be running."""
    found: int = tx.scalar(
        "SELECT EXISTS (SELECT 1 FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id "
        f"JOIN work_pools AS p ON p.id = q.work_pool_id WHERE r.id = :run AND p.type = '{MANAGED}' AND NOT EXISTS ("
        "SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST') AND e.phase <> 'EXITED'))",
        {"run": run_id},
    )
    return bool(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheld:
    """A managed run that holds slots while nothing of it exists."""

    workspace_id: str
    run_id: str
    state_name: str
    is_cancelling: bool


def unheld(tx: Tx, limit: int, *, since_before_us: int) -> list[Unheld]:
    """Managed runs of which nothing exists: those that are CANCELLING, and those that have been PENDING or RUNNING since before then."""
    found = tx.all(
        "SELECT r.workspace_id, r.id AS run_id, r.state_name, r.state_type = 'CANCELLING' AS is_cancelling "
        "FROM flow_runs AS r INDEXED BY flow_runs_occupying JOIN work_queues AS q ON q.id = r.work_queue_id "
        "JOIN work_pools AS p ON p.id = q.work_pool_id "
        f"WHERE r.state_type IN {OCCUPYING_SQL} AND (r.state_type = 'CANCELLING' OR r.state_timestamp <= :before) "
        f"AND p.type = '{MANAGED}' AND NOT {_LIVE} LIMIT :limit",
        {"limit": limit, "before": since_before_us},
    )
    return [Unheld(**{**dict(row), "is_cancelling": bool(row["is_cancelling"])}) for row in found]
