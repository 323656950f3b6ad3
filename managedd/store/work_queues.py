"""Work queues: priorities that are distinct within a pool, who holds their slots, and what is late."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.bus import Topic
from managedd.clock import iso
from managedd.errors import ErrorCode, ManagedError, conflict, not_found
from managedd.store import rows
from managedd.store.resources import OCCUPYING_SQL, QUEUE_POLLED_SECONDS, WORK_POOL, WORK_QUEUE
from managedd.store.transaction import IntegrityFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire

DEFAULT_QUEUE = "default"


def create(tx: Tx, pool_id: str, values: Mapping[str, Any]) -> str:
    """The pool has the queue and its id is returned; without a priority it gets the first that is free.

    A priority that another queue has is taken over, and that queue and those after it move down. Raises ManagedError(CONFLICT)
    when the pool has a queue of that name.
    """
    wanted = values.get("priority")
    try:
        queue_id = rows.insert(
            tx,
            WORK_QUEUE,
            {
                **values,
                "work_pool_id": pool_id,
                "description": values.get("description") or "",
                "priority": _free_priority(tx, pool_id) if wanted is None else wanted,
            },
        )
    except IntegrityFault:
        raise conflict(f"A work queue named {values['name']!r} already exists in this work pool.") from None
    if wanted is not None:
        _make_room(tx, pool_id, queue_id, wanted)
    tx.publish(Topic.SLOTS)
    return queue_id


def update(tx: Tx, queue_id: str, changes: Mapping[str, Any]) -> None:
    """The queue has `changes`; a null name, description or priority means no change. Raises ManagedError(NOT_FOUND, CONFLICT)."""
    queue = rows.need(tx, WORK_QUEUE, id=queue_id)
    kept = {
        name: value
        for name, value in changes.items()
        if value is not None or name in {"concurrency_limit", "filter", "last_polled"}
    }
    try:
        rows.patch(tx, WORK_QUEUE, queue_id, kept)
    except IntegrityFault:
        raise conflict(f"A work queue named {kept['name']!r} already exists in this work pool.") from None
    if "name" in kept:
        # Deployments and runs carry the name of their queue beside its id; what has run keeps the name of its day.
        tx.execute("UPDATE deployments SET work_queue_name = ? WHERE work_queue_id = ?", (kept["name"], queue_id))
        tx.execute(
            "UPDATE flow_runs SET work_queue_name = ? WHERE work_queue_id = ? AND state_type = 'SCHEDULED'",
            (kept["name"], queue_id),
        )
    if "priority" in kept:
        _make_room(tx, queue["work_pool_id"], queue_id, kept["priority"])
    tx.publish(Topic.SLOTS)


def delete(tx: Tx, queue_id: str) -> None:
    """The queue is gone; its deployments and runs keep its name and wait without a queue.

    Raises ManagedError(NOT_FOUND), or FORBIDDEN for a pool's default queue.
    """
    queue = rows.need(tx, WORK_QUEUE, id=queue_id)
    if tx.scalar(
        "SELECT 1 FROM work_pools WHERE id = ? AND default_queue_id = ?", (queue["work_pool_id"], queue["id"])
    ):
        raise ManagedError(ErrorCode.FORBIDDEN, "The default queue of a work pool can't be deleted.")
    rows.delete(tx, WORK_QUEUE, queue_id)
    tx.publish(Topic.SLOTS)


def in_pool(tx: Tx, pool: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The pool's queue called `name`. Raises ManagedError(NOT_FOUND)."""
    found = rows.record(tx, WORK_QUEUE, work_pool_id=pool["id"], name=name)
    if found is None:
        raise not_found(WORK_QUEUE.label, f"{pool['name']}/{name}")
    return found


def named(tx: Tx, pool_name: str, name: str) -> str:
    """The id of the queue called `name` of the pool called `pool_name`. Raises ManagedError(NOT_FOUND)."""
    pool = rows.record(tx, WORK_POOL, name=pool_name)
    if pool is None:
        raise not_found(WORK_POOL.label, pool_name)
    return str(in_pool(tx, pool, name)["id"])


def find(tx: Tx, filters: rows.Filters, pool_id: str | None, limit: int | None, offset: int) -> list[Wire]:
    """Queues by priority; `pool_id` None: of every pool, by name."""
    if pool_id is None:
        return rows.find(tx, WORK_QUEUE, filters, "NAME_ASC", limit, offset)
    return rows.find(
        tx, WORK_QUEUE, filters, "PRIORITY_ASC", limit, offset, extra=("work_queues.work_pool_id = ?", [pool_id])
    )


def mark_polled(tx: Tx, queue_ids: Iterable[str]) -> None:
    """The queues and the deployments that send to them were asked about just now."""
    for queue_id in queue_ids:
        tx.execute("UPDATE work_queues SET last_polled = ? WHERE id = ?", (tx.now, queue_id))
        tx.execute("UPDATE deployments SET last_polled = ? WHERE work_queue_id = ?", (tx.now, queue_id))


def slots_taken(tx: Tx, queue_id: str) -> int:
    """How many runs of the queue hold a slot."""
    taken: int = tx.scalar(
        f"SELECT count(*) FROM flow_runs WHERE work_queue_id = ? AND state_type IN {OCCUPYING_SQL}", (queue_id,)
    )
    return taken


def slot_holders(tx: Tx, queue_id: str, limit: int, offset: int = 0) -> list[Wire]:
    """The queue's runs that hold a slot, ready for the wire, by id."""
    found = tx.all(
        "SELECT id, name, state_type, state_name, start_time, state_timestamp FROM flow_runs "
        f"WHERE work_queue_id = ? AND state_type IN {OCCUPYING_SQL} ORDER BY id LIMIT ? OFFSET ?",
        (queue_id, limit, offset),
    )
    return [
        {
            "id": run["id"],
            "name": run["name"],
            "state_type": run["state_type"],
            "state_name": run["state_name"],
            "start_time": None if run["start_time"] is None else iso(run["start_time"]),
            "state_timestamp": None if run["state_timestamp"] is None else iso(run["state_timestamp"]),
            "time_in_current_state": None
            if run["state_timestamp"] is None
            else max(0, tx.now - run["state_timestamp"]) / 1_000_000,
        }
        for run in found
    ]


def concurrency_status(tx: Tx, queue_id: str, *, page: int, limit: int) -> Wire:
    """The queue's slots and a page of their holders. Raises ManagedError(NOT_FOUND)."""
    queue = rows.get(tx, WORK_QUEUE, queue_id)
    taken = slots_taken(tx, queue_id)
    return {
        "active_slots": taken,
        "concurrency_limit": queue["concurrency_limit"],
        "flow_runs": slot_holders(tx, queue_id, limit, (page - 1) * limit),
        "count": taken,
        "limit": limit,
        "pages": -(-taken // limit) if limit else 0,
        "page": page,
    }


def health(tx: Tx, queue_id: str) -> Wire:
    """How the queue is doing: healthy when nothing is late and somebody asks for its runs, or needs not to."""
    queue = rows.get(tx, WORK_QUEUE, queue_id)
    late: int = tx.scalar(
        "SELECT count(*) FROM flow_runs WHERE work_queue_id = ? AND state_type = 'SCHEDULED' AND state_name = 'Late'",
        (queue_id,),
    )
    return {
        "healthy": late == 0 and queue["status"] == "READY",
        "late_runs_count": late,
        "last_polled": queue["last_polled"],
        "health_check_policy": {
            "maximum_late_runs": 0,
            "maximum_seconds_since_last_polled": QUEUE_POLLED_SECONDS,
        },
    }


def _priorities(tx: Tx, pool_id: str) -> list[tuple[str, int]]:
    found = tx.all("SELECT id, priority FROM work_queues WHERE work_pool_id = ? ORDER BY priority, id", (pool_id,))
    return [(row[0], row[1]) for row in found]


def _free_priority(tx: Tx, pool_id: str) -> int:
    taken = {priority for _, priority in _priorities(tx, pool_id)}
    return next(priority for priority in range(1, len(taken) + 2) if priority not in taken)


def _make_room(tx: Tx, pool_id: str, queue_id: str, wanted: int) -> None:
    """The queue is the only one with its priority: whoever is in the way moves down, as little as possible."""
    last = wanted
    for other, priority in _priorities(tx, pool_id):
        if other == queue_id or priority < wanted:
            continue
        if priority > last:
            break
        last += 1
        tx.execute("UPDATE work_queues SET priority = ? WHERE id = ?", (last, other))
