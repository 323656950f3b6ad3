"""Work pools: made with their default queue, and the runs that a worker may take from them now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.bus import Topic
from managedd.errors import conflict, not_found
from managedd.store import rows, work_queues
from managedd.store.resources import FLOW_RUN, OCCUPYING_SQL, WORK_POOL, WORK_QUEUE
from managedd.store.transaction import IntegrityFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.store.database import Tx
    from managedd.store.rows import Wire


def create(tx: Tx, values: Mapping[str, Any]) -> str:
    """The pool and its default queue exist; the pool's id is returned. Raises ManagedError(CONFLICT) when the name is taken."""
    try:
        pool_id = rows.insert(tx, WORK_POOL, values)
    except IntegrityFault:
        raise conflict("A work pool with this name already exists.") from None
    queue_id = work_queues.create(
        tx, pool_id, {"name": work_queues.DEFAULT_QUEUE, "description": "The work pool's default queue."}
    )
    tx.execute("UPDATE work_pools SET default_queue_id = ? WHERE id = ?", (queue_id, pool_id))
    return pool_id


def named(tx: Tx, name: str) -> dict[str, Any]:
    """The pool called `name`. Raises ManagedError(NOT_FOUND)."""
    found = rows.record(tx, WORK_POOL, name=name)
    if found is None:
        raise not_found(WORK_POOL.label, name)
    return found


def wire(tx: Tx, name: str) -> Wire:
    """The pool called `name`, ready for the wire. Raises ManagedError(NOT_FOUND)."""
    found = rows.by(tx, WORK_POOL, name=name)
    if found is None:
        raise not_found(WORK_POOL.label, name)
    return found


def update(tx: Tx, pool_id: str, changes: Mapping[str, Any]) -> None:
    """The pool has `changes`; null clears its description and its limit, and is no change for anything else."""
    kept = {
        name: value
        for name, value in changes.items()
        if value is not None or name in {"description", "concurrency_limit"}
    }
    rows.patch(tx, WORK_POOL, pool_id, kept)
    tx.publish(Topic.SLOTS)


def delete(tx: Tx, pool_id: str) -> None:
    """The pool, its queues and its workers are gone; runs under way go on, deployments and waiting runs have no queue any more."""
    rows.delete(tx, WORK_POOL, pool_id)
    tx.publish(Topic.SLOTS)


def queues(tx: Tx, pool: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The pool's queues called `names`, or all, most urgent first. Raises ManagedError(NOT_FOUND) for a name it doesn't have."""
    if names:
        found = [work_queues.in_pool(tx, pool, name) for name in dict.fromkeys(names)]
    else:
        listed = tx.all("SELECT name FROM work_queues WHERE work_pool_id = ?", (pool["id"],))
        found = [work_queues.in_pool(tx, pool, row[0]) for row in listed]
    return sorted(found, key=lambda queue: (queue["priority"], queue["id"]))


def scheduled(
    tx: Tx,
    pool: Mapping[str, Any],
    among: Sequence[Mapping[str, Any]],
    *,
    before_us: int | None,
    after_us: int | None,
    limit: int,
) -> list[Wire]:
    """At most `limit` runs that a worker may take from the queues `among` now, most urgent queue first, each queue in due order.

    Nothing of a paused pool or queue, and no more than the pool and the queue have free slots. A run that its own process tries
    again is not offered.
    """
    if pool["is_paused"]:
        return []
    left = (
        limit
        if pool["concurrency_limit"] is None
        else min(limit, pool["concurrency_limit"] - slots_taken(tx, pool["id"]))
    )
    chosen: list[tuple[str, str]] = []
    for queue in among:
        if queue["is_paused"] or left <= 0:
            continue
        room = left
        if queue["concurrency_limit"] is not None:
            room = min(room, queue["concurrency_limit"] - work_queues.slots_taken(tx, queue["id"]))
        due = _due(tx, queue["id"], before_us, after_us, max(0, room))
        chosen.extend((run_id, queue["id"]) for run_id in due)
        left -= len(due)
    runs = _wires(tx, [run_id for run_id, _ in chosen])
    return [
        {"work_pool_id": pool["id"], "work_queue_id": queue_id, "flow_run": runs[run_id]} for run_id, queue_id in chosen
    ]


def slots_taken(tx: Tx, pool_id: str) -> int:
    """How many runs of the pool hold a slot."""
    taken: int = tx.scalar(
        "SELECT count(*) FROM flow_runs JOIN work_queues ON work_queues.id = flow_runs.work_queue_id "
        f"WHERE work_queues.work_pool_id = ? AND flow_runs.state_type IN {OCCUPYING_SQL}",
        (pool_id,),
    )
    return taken


def concurrency_status(tx: Tx, pool: Mapping[str, Any], *, page: int, limit: int, run_limit: int) -> Wire:
    """A page of the pool's queues with their slots, and at most `run_limit` holders of each."""
    mine = ("work_queues.work_pool_id = ?", [pool["id"]])
    total = rows.count(tx, WORK_QUEUE, [], extra=mine)
    found = rows.find(tx, WORK_QUEUE, [], "PRIORITY_ASC", limit, (page - 1) * limit, extra=mine)
    return {
        "active_slots": slots_taken(tx, pool["id"]),
        "concurrency_limit": pool["concurrency_limit"],
        "queues": [
            {
                "queue_id": queue["id"],
                "queue_name": queue["name"],
                "active_slots": queue["active_slots"],
                "concurrency_limit": queue["concurrency_limit"],
                "flow_runs": work_queues.slot_holders(tx, queue["id"], run_limit),
                "flow_run_count": queue["active_slots"],
            }
            for queue in found
        ],
        "count": total,
        "limit": limit,
        "pages": -(-total // limit) if limit else 0,
        "page": page,
    }


def _due(tx: Tx, queue_id: str, before_us: int | None, after_us: int | None, limit: int) -> list[str]:
    found = tx.all(
        """
        SELECT id FROM flow_runs
        WHERE work_queue_id = :queue AND state_type = 'SCHEDULED'
          AND (:before IS NULL OR next_scheduled_start_time <= :before)
          AND (:after IS NULL OR next_scheduled_start_time >= :after)
          AND coalesce(json_extract(empirical_policy, '$.retry_type'), '') <> 'in_process'
        ORDER BY next_scheduled_start_time, id LIMIT :limit
        """,
        {"queue": queue_id, "before": before_us, "after": after_us, "limit": limit},
    )
    return [row[0] for row in found]


def _wires(tx: Tx, run_ids: list[str]) -> dict[str, Wire]:
    mine = ("flow_runs.id IN (SELECT value FROM json_each(?))", [orjson.dumps(run_ids).decode()])
    return {run["id"]: run for run in rows.find(tx, FLOW_RUN, [], "ID_DESC", len(run_ids), extra=mine)}
