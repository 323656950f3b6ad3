"""Work Pools: create, read, change, delete; what workers may take; who holds the slots."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from managedd.api.context import Context
from managedd.api.operation import EMBED, operation
from managedd.clock import to_us
from managedd.orchestration import deployments, plan_rules, pool_rules, worker_variables
from managedd.store import rows
from managedd.store import work_pools as pool_rows
from managedd.store import work_queues as queue_rows
from managedd.store.resources import WORK_POOL
from managedd.wire.base import Limit, Offset, Page, Timestamp
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.work_pools import (
    WorkerFlowRunResponse,
    WorkPoolConcurrencyStatus,
    WorkPoolCreate,
    WorkPoolResponse,
    WorkPoolUpdate,
)

TAG = "Work Pools"
RunLimit = Annotated[int, Field(ge=0, le=200)]


@operation("POST", "/work_pools/", tag=TAG, returns=WorkPoolResponse, status=201)
async def create_work_pool(ctx: Context, work_pool: WorkPoolCreate) -> rows.Wire:
    """The work pool exists, with a queue called `default`. 409 when there is one of that name, 403 when the plan allows no more."""
    # On a reader's thread: checking a template costs the processor something, and must hold up neither the loop nor the writer.
    await ctx.read(
        lambda tx: deployments.check_new_pool(tx, work_pool.name, work_pool.type, work_pool.base_job_template)
    )
    values = work_pool.model_dump(mode="json")

    def body(tx: Any) -> rows.Wire:
        made = pool_rows.create(tx, values)
        plan_rules.check_room(tx, work_pool.type)
        return rows.get(tx, WORK_POOL, made)

    return await ctx.write(body)


@operation("GET", "/work_pools/{name}", tag=TAG, returns=WorkPoolResponse)
async def read_work_pool(ctx: Context, name: str) -> rows.Wire:
    """Read a work pool by name."""
    return await ctx.look(lambda tx: pool_rows.wire(tx, name))


@operation("POST", "/work_pools/filter", tag=TAG, returns=list[WorkPoolResponse])
async def read_work_pools(
    ctx: Context,
    *,
    work_pools: WorkPoolFilter | None = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> list[rows.Wire]:
    """Query for work pools, by name."""
    return await ctx.read(lambda tx: rows.find(tx, WORK_POOL, [(WORK_POOL, work_pools)], "NAME_ASC", limit, offset))


@operation("POST", "/work_pools/count", tag=TAG, returns=int)
async def count_work_pools(ctx: Context, *, work_pools: Annotated[WorkPoolFilter | None, EMBED] = None) -> int:
    """How many work pools the filter admits."""
    return await ctx.read(lambda tx: rows.count(tx, WORK_POOL, [(WORK_POOL, work_pools)]))


@operation("PATCH", "/work_pools/{name}", tag=TAG, status=204)
async def update_work_pool(ctx: Context, name: str, work_pool: WorkPoolUpdate) -> None:
    """The work pool has the given values; a null description or concurrency limit is cleared. Waiting runs are looked at again."""
    changes = work_pool.model_dump(mode="json", exclude_unset=True)

    def checked(tx: Any) -> str:
        pool = pool_rows.named(tx, name)
        deployments.check_pool_change(tx, pool, changes)
        return str(pool["id"])

    pool_id = await ctx.read(checked)
    await ctx.change(lambda tx: pool_rows.update(tx, pool_id, changes), lambda tx: rows.get(tx, WORK_POOL, pool_id))


@operation("DELETE", "/work_pools/{name}", tag=TAG, status=204)
async def delete_work_pool(ctx: Context, name: str) -> None:
    """The work pool, its queues and its workers are gone; runs under way go on, what waits keeps waiting without a queue."""
    pool_rules.check_delete(name)
    await ctx.write(lambda tx: pool_rows.delete(tx, pool_rows.named(tx, name)["id"]))


@operation("POST", "/work_pools/{name}/concurrency_status", tag=TAG, returns=WorkPoolConcurrencyStatus)
async def read_work_pool_concurrency_status(
    ctx: Context, name: str, *, page: Page = 1, limit: Limit = None, flow_run_limit: RunLimit = 10
) -> rows.Wire:
    """The slots of the pool and of a page of its queues, with at most `flow_run_limit` holders of each queue."""
    size = rows.DEFAULT_LIMIT if limit is None else limit
    return await ctx.read(
        lambda tx: pool_rows.concurrency_status(
            tx, pool_rows.named(tx, name), page=page, limit=size, run_limit=flow_run_limit
        )
    )


@operation("POST", "/work_pools/{name}/get_scheduled_flow_runs", tag=TAG, returns=list[WorkerFlowRunResponse])
async def get_scheduled_flow_runs(
    ctx: Context,
    name: str,
    *,
    work_queue_names: list[str] | None = None,
    scheduled_before: Timestamp | None = None,
    scheduled_after: Timestamp | None = None,
    limit: Limit = None,
) -> list[rows.Wire]:
    """The runs that a worker may take now, their job variables in clear; the queues and their deployments are marked as polled."""
    before_us = None if scheduled_before is None else to_us(scheduled_before)
    after_us = None if scheduled_after is None else to_us(scheduled_after)
    size = rows.DEFAULT_LIMIT if limit is None else limit

    def body(tx: Any) -> list[rows.Wire]:
        pool = pool_rows.named(tx, name)
        among = pool_rows.queues(tx, pool, work_queue_names or [])
        queue_rows.mark_polled(tx, [queue["id"] for queue in among])
        offered = pool_rows.scheduled(tx, pool, among, before_us=before_us, after_us=after_us, limit=size)
        return worker_variables.fill(tx, pool, offered)

    return await ctx.write(body)
