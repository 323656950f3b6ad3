"""Work Queues: any by id, as the engine inside a run reads its own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.clock import to_us
from managedd.store import rows
from managedd.store import work_pools as pool_rows
from managedd.store import work_queues as queue_rows
from managedd.store.resources import WORK_POOL, WORK_QUEUE
from managedd.wire.base import Limit, Offset, Page, Timestamp
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.flow_runs import FlowRunResponse
from managedd.wire.work_queues import (
    WorkQueueConcurrencyStatus,
    WorkQueueCreate,
    WorkQueueResponse,
    WorkQueueStatusDetail,
    WorkQueueUpdate,
)

TAG = "Work Queues"
AGENT_POOL = "default-agent-pool"
"""Where Prefect puts queues that are made without naming a pool."""


@operation("POST", "/work_queues/", tag=TAG, returns=WorkQueueResponse, status=201)
async def create_work_queue(ctx: Context, work_queue: WorkQueueCreate) -> rows.Wire:
    """The queue exists in the pool of agents, which is made when it is missing. 409 when there is one of that name."""
    values = work_queue.model_dump(mode="json")

    def body(tx: Any) -> rows.Wire:
        pool = rows.record(tx, WORK_POOL, name=AGENT_POOL)
        if pool is None:
            pool_rows.create(tx, {"name": AGENT_POOL, "type": "prefect-agent"})
            pool = pool_rows.named(tx, AGENT_POOL)
            if work_queue.name == queue_rows.DEFAULT_QUEUE:
                return rows.get(tx, WORK_QUEUE, pool["default_queue_id"])
        return rows.get(tx, WORK_QUEUE, queue_rows.create(tx, pool["id"], values))

    return await ctx.write(body)


@operation("GET", "/work_queues/{id}", tag=TAG, returns=WorkQueueResponse)
async def read_work_queue(ctx: Context, id: UUID) -> rows.Wire:
    """Get a work queue by id."""
    return await ctx.look(lambda tx: rows.get(tx, WORK_QUEUE, id))


@operation("GET", "/work_queues/name/{name}", tag=TAG, returns=WorkQueueResponse)
async def read_work_queue_by_name(ctx: Context, name: str) -> rows.Wire:
    """Get a work queue of the pool of agents by name."""
    return await ctx.look(lambda tx: rows.get(tx, WORK_QUEUE, queue_rows.named(tx, AGENT_POOL, name)))


@operation("POST", "/work_queues/filter", tag=TAG, returns=list[WorkQueueResponse])
async def read_work_queues(
    ctx: Context, *, limit: Limit = None, offset: Offset = 0, work_queues: WorkQueueFilter | None = None
) -> list[rows.Wire]:
    """Query for work queues of every pool, by name."""
    return await ctx.read(lambda tx: queue_rows.find(tx, [(WORK_QUEUE, work_queues)], None, limit, offset))


@operation("PATCH", "/work_queues/{id}", tag=TAG, status=204)
async def update_work_queue(ctx: Context, id: UUID, work_queue: WorkQueueUpdate) -> None:
    """The queue has the given values; a null concurrency limit is cleared. Waiting runs are looked at again."""
    changes = work_queue.model_dump(exclude_unset=True)
    await ctx.write(lambda tx: queue_rows.update(tx, str(id), changes))


@operation("DELETE", "/work_queues/{id}", tag=TAG, status=204)
async def delete_work_queue(ctx: Context, id: UUID) -> None:
    """The queue is gone; what waits in it keeps waiting without one. 403 for a pool's default queue."""
    await ctx.write(lambda tx: queue_rows.delete(tx, str(id)))


@operation("POST", "/work_queues/{id}/get_runs", tag=TAG, returns=list[FlowRunResponse])
async def read_work_queue_runs(
    ctx: Context, id: UUID, *, limit: Limit = None, scheduled_before: Timestamp | None = None
) -> list[rows.Wire]:
    """The runs that may be taken from the queue now; it is marked as polled, unless a web page asks."""
    before_us = None if scheduled_before is None else to_us(scheduled_before)
    size = rows.DEFAULT_LIMIT if limit is None else limit
    polls = ctx.headers.get("X-Prefect-UI", "").lower() not in {"true", "1"}

    def body(tx: Any) -> list[rows.Wire]:
        queue = rows.need(tx, WORK_QUEUE, id=id)
        pool = rows.need(tx, WORK_POOL, id=queue["work_pool_id"])
        if polls:
            queue_rows.mark_polled(tx, [queue["id"]])
        found = pool_rows.scheduled(tx, pool, [queue], before_us=before_us, after_us=None, limit=size)
        return [each["flow_run"] for each in found]

    return await ctx.write(body)


@operation("POST", "/work_queues/{id}/concurrency_status", tag=TAG, returns=WorkQueueConcurrencyStatus)
async def read_work_queue_concurrency_status(
    ctx: Context, id: UUID, *, page: Page = 1, limit: Limit = None
) -> rows.Wire:
    """The slots of the queue, and a page of who holds them."""
    size = rows.DEFAULT_LIMIT if limit is None else limit
    return await ctx.read(lambda tx: queue_rows.concurrency_status(tx, str(id), page=page, limit=size))


@operation("GET", "/work_queues/{id}/status", tag=TAG, returns=WorkQueueStatusDetail)
async def read_work_queue_status(ctx: Context, id: UUID) -> rows.Wire:
    """How the queue is doing."""
    return await ctx.read(lambda tx: queue_rows.health(tx, str(id)))
