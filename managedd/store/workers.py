"""Workers of hybrid pools: known by their heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.errors import not_found
from managedd.store import rows
from managedd.store.filtering import combine, compile_filter
from managedd.store.resources import WORKER, worker_status_clause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire
    from managedd.store.tables import Clause
    from managedd.wire.filters.workers import WorkerFilter, WorkerFilterStatus

STATUSES = ("ONLINE", "OFFLINE")


def heartbeat(
    tx: Tx, pool_id: str, name: str, *, interval_seconds: int | None, metadata: Mapping[str, Any] | None
) -> str:
    """The pool has a worker called `name`, heard of just now; its id is returned. What is not told stays as it was."""
    told = None if metadata is None else orjson.dumps(metadata).decode()
    worker_id: str = tx.scalar(
        """
        INSERT INTO workers (id, workspace_id, work_pool_id, name, last_heartbeat_time, heartbeat_interval_seconds, metadata, created, updated)
        VALUES (:id, :workspace, :pool, :name, :now, :interval, :metadata, :now, :now)
        ON CONFLICT (work_pool_id, name) DO UPDATE SET
            last_heartbeat_time = excluded.last_heartbeat_time,
            heartbeat_interval_seconds = coalesce(excluded.heartbeat_interval_seconds, heartbeat_interval_seconds),
            metadata = coalesce(excluded.metadata, metadata),
            updated = excluded.updated
        RETURNING id
        """,
        {
            "id": ids.new_id(),
            "workspace": tx.workspace,
            "pool": pool_id,
            "name": name,
            "now": tx.now,
            "interval": interval_seconds,
            "metadata": told,
        },
    )
    return worker_id


def find(
    tx: Tx,
    pool_id: str,
    model: WorkerFilter | None,
    limit: int | None,
    offset: int,
) -> list[Wire]:
    """The pool's workers that `model` admits, last heard of first."""
    sql, params = "workers.work_pool_id = ?", [pool_id]
    admitted = None if model is None else _admitted(tx, model)
    if admitted is not None:
        sql, params = f"{sql} AND ({admitted[0]})", [*params, *admitted[1]]
    return rows.find(tx, WORKER, [], "LAST_HEARTBEAT_TIME_DESC", limit, offset, extra=(sql, params))


def _admitted(tx: Tx, model: WorkerFilter) -> Clause | None:
    clauses: list[Clause | None] = []
    if model.last_heartbeat_time is not None:
        clauses.append(compile_filter(model.model_copy(update={"status": None}), WORKER))
    if model.status is not None:
        clauses.append(_status_clause(tx, model.status))
    return combine(clauses, model)


def _status_clause(tx: Tx, status: WorkerFilterStatus | None) -> Clause | None:
    """Status is derived from the last heartbeat, so no column holds it."""
    if status is None or (status.any_ is None and not status.not_any_):
        return None
    wanted = [s for s in STATUSES if (status.any_ is None or s in status.any_) and s not in (status.not_any_ or [])]
    return worker_status_clause(wanted, tx.now)


def delete(tx: Tx, pool_id: str, name: str) -> None:
    """The pool knows no worker called `name`. Raises ManagedError(NOT_FOUND)."""
    done = tx.execute("DELETE FROM workers WHERE work_pool_id = ? AND name = ?", (pool_id, name))
    if not done.rowcount:
        raise not_found(WORKER.label, name)
