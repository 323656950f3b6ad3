"""Where a run or a deployment goes: pool and queue by name → queue id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd.errors import invalid, not_found
from managedd.store import rows
from managedd.store.resources import WORK_QUEUE

if TYPE_CHECKING:
    from managedd.store.database import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A queue in a pool; no id: nothing was named."""

    work_queue_id: str | None = None
    work_queue_name: str | None = None
    work_pool_id: str | None = None
    work_pool_type: str | None = None

    def columns(self) -> dict[str, str | None]:
        """The columns of a flow run or deployment."""
        return {"work_queue_id": self.work_queue_id, "work_queue_name": self.work_queue_name}


def place(tx: Tx, pool_name: str | None, queue_name: str | None) -> Place:
    """The queue that the names mean; a pool without a queue means its default one, a queue that is missing is made.

    Raises ManagedError(NOT_FOUND) when the pool does not exist.
    """
    if pool_name is None:
        return Place(work_queue_name=queue_name)
    pool = tx.one(
        "SELECT p.id, p.type, p.default_queue_id, q.name AS default_name FROM work_pools AS p "
        "LEFT JOIN work_queues AS q ON q.id = p.default_queue_id WHERE p.name = ? AND p.workspace_id = ?",
        (pool_name, tx.workspace),
    )
    if pool is None:
        raise not_found("Work pool", pool_name)
    if queue_name is None or queue_name == pool["default_name"]:
        queue_id, queue_name = pool["default_queue_id"], pool["default_name"]
    else:
        queue_id = ensure_queue(tx, pool["id"], queue_name)
    return Place(
        work_queue_id=queue_id, work_queue_name=queue_name, work_pool_id=pool["id"], work_pool_type=pool["type"]
    )


def ensure_queue(tx: Tx, pool_id: str, name: str) -> str:
    """The id of the pool's queue called `name`, made with the lowest priority when it is missing."""
    found: str | None = tx.scalar("SELECT id FROM work_queues WHERE work_pool_id = ? AND name = ?", (pool_id, name))
    if found is not None:
        return found
    if name in {".", ".."}:
        raise invalid(
            f"work_queue_name: {name!r} can't be a queue's name: clients take it for a place in the path of a URL"
        )
    last: int = tx.scalar("SELECT coalesce(max(priority), 0) FROM work_queues WHERE work_pool_id = ?", (pool_id,))
    return rows.insert(tx, WORK_QUEUE, {"work_pool_id": pool_id, "name": name, "priority": last + 1})
