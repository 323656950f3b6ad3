"""Work Pools: the queues of a pool, by name."""

from __future__ import annotations

from typing import Any

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.store import rows
from managedd.store import work_pools as pool_rows
from managedd.store import work_queues as queue_rows
from managedd.store.resources import WORK_QUEUE
from managedd.wire.base import Limit, Offset
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.work_queues import (
    WorkQueueCreate,
    WorkQueueResponse,
    WorkQueueUpdate,
)

TAG = "Work Pools"


@operation("POST", "/work_pools/{work_pool_name}/queues", tag=TAG, returns=WorkQueueResponse, status=201)
async def create_work_queue(ctx: Context, work_pool_name: str, work_queue: WorkQueueCreate) -> rows.Wire:
    """The pool has the queue; one whose priority it takes moves down. 409 when the pool has one of that name."""
    values = work_queue.model_dump(mode="json")

    def body(tx: Any) -> rows.Wire:
        pool = pool_rows.named(tx, work_pool_name)
        return rows.get(tx, WORK_QUEUE, queue_rows.create(tx, pool["id"], values))

    return await ctx.write(body)


@operation("GET", "/work_pools/{work_pool_name}/queues/{name}", tag=TAG, returns=WorkQueueResponse)
async def read_work_queue(ctx: Context, work_pool_name: str, name: str) -> rows.Wire:
    """Read a queue of a work pool."""
    return await ctx.look(lambda tx: rows.get(tx, WORK_QUEUE, queue_rows.named(tx, work_pool_name, name)))


@operation("POST", "/work_pools/{work_pool_name}/queues/filter", tag=TAG, returns=list[WorkQueueResponse])
async def read_work_queues(
    ctx: Context,
    work_pool_name: str,
    *,
    work_queues: WorkQueueFilter | None = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> list[rows.Wire]:
    """The pool's queues that the filter admits, most urgent first."""

    def body(tx: Any) -> list[rows.Wire]:
        pool = pool_rows.named(tx, work_pool_name)
        return queue_rows.find(tx, [(WORK_QUEUE, work_queues)], pool["id"], limit, offset)

    return await ctx.read(body)


@operation("PATCH", "/work_pools/{work_pool_name}/queues/{name}", tag=TAG, status=204)
async def update_work_queue(ctx: Context, work_pool_name: str, name: str, work_queue: WorkQueueUpdate) -> None:
    """The queue has the given values; a null concurrency limit is cleared. Waiting runs are looked at again."""
    changes = work_queue.model_dump(exclude_unset=True)
    await ctx.change(
        lambda tx: queue_rows.update(tx, queue_rows.named(tx, work_pool_name, name), changes),
        lambda tx: rows.get(tx, WORK_QUEUE, queue_rows.named(tx, work_pool_name, name)),
    )


@operation("DELETE", "/work_pools/{work_pool_name}/queues/{name}", tag=TAG, status=204)
async def delete_work_queue(ctx: Context, work_pool_name: str, name: str) -> None:
    """The queue is gone; what waits in it keeps waiting without one. 403 for the pool's default queue."""
    await ctx.write(lambda tx: queue_rows.delete(tx, queue_rows.named(tx, work_pool_name, name)))
