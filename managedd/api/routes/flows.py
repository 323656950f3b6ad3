"""Flows: create, read, filter, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from pydantic import Field

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.store import flows as stored
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN, WORK_POOL
from managedd.wire.base import Limit, NullUnsaid, Offset, Page
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.flows import Flow, FlowBulkDeleteResponse, FlowCreate, FlowPaginationResponse, FlowUpdate
from managedd.wire.sorting import FlowSort

if TYPE_CHECKING:
    from managedd.store.database import Tx

TAG = "Flows"
RELATED = (FLOW, FLOW_RUN, TASK_RUN, DEPLOYMENT, WORK_POOL)
"""The tables of a filter's members, in the order in which handlers list them."""
BulkLimit = Annotated[int, Field(ge=1, le=50, description="Maximum number of flows to delete. Defaults to 50.")]


@operation("POST", "/flows/", tag=TAG, returns=Flow)
async def create_flow(ctx: Context, flow: FlowCreate) -> Reply:
    """The flow exists (201); one that had the name already is answered as it is (200)."""
    values = flow.model_dump(mode="json")
    body, created = await ctx.write(lambda tx: stored.upsert(tx, values))
    return Reply(body=body, status=201 if created else 200)


@operation("PATCH", "/flows/{id}", tag=TAG, status=204)
async def update_flow(ctx: Context, id: UUID, flow: FlowUpdate) -> None:
    """The flow has the given tags."""
    changes = flow.model_dump(mode="json", exclude_unset=True)
    await ctx.write(lambda tx: rows.patch(tx, FLOW, id, changes))


@operation("POST", "/flows/count", tag=TAG, returns=int)
async def count_flows(
    ctx: Context,
    *,
    flows: Annotated[FlowFilter | None, NullUnsaid()] = None,
    flow_runs: Annotated[FlowRunFilter | None, NullUnsaid()] = None,
    task_runs: Annotated[TaskRunFilter | None, NullUnsaid()] = None,
    deployments: Annotated[DeploymentFilter | None, NullUnsaid()] = None,
    work_pools: Annotated[WorkPoolFilter | None, NullUnsaid()] = None,
) -> int:
    """How many flows the filters admit."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools), strict=True))
    return await ctx.read(lambda tx: rows.count(tx, FLOW, filters))


@operation("GET", "/flows/name/{name}", tag=TAG, returns=Flow)
async def read_flow_by_name(ctx: Context, name: str) -> rows.Wire:
    """Get a flow by name."""
    return await ctx.look(lambda tx: stored.by_name(tx, name))


@operation("GET", "/flows/{id}", tag=TAG, returns=Flow)
async def read_flow(ctx: Context, id: UUID) -> rows.Wire:
    """Get a flow by id."""
    return await ctx.look(lambda tx: rows.get(tx, FLOW, id))


@operation("POST", "/flows/filter", tag=TAG, returns=list[Flow])
async def read_flows(
    ctx: Context,
    *,
    limit: Limit = None,
    offset: Offset = 0,
    flows: Annotated[FlowFilter | None, NullUnsaid()] = None,
    flow_runs: Annotated[FlowRunFilter | None, NullUnsaid()] = None,
    task_runs: Annotated[TaskRunFilter | None, NullUnsaid()] = None,
    deployments: Annotated[DeploymentFilter | None, NullUnsaid()] = None,
    work_pools: Annotated[WorkPoolFilter | None, NullUnsaid()] = None,
    sort: FlowSort = FlowSort.NAME_ASC,
) -> list[rows.Wire]:
    """Query for flows."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools), strict=True))
    return await ctx.read(lambda tx: rows.find(tx, FLOW, filters, sort, limit, offset))


@operation("DELETE", "/flows/{id}", tag=TAG, status=204)
async def delete_flow(ctx: Context, id: UUID) -> None:
    """The flow is gone, with its deployments and runs."""
    await _delete(ctx, str(id))


@operation("POST", "/flows/bulk_delete", tag=TAG, returns=FlowBulkDeleteResponse)
async def bulk_delete_flows(ctx: Context, *, flows: FlowFilter | None = None, limit: BulkLimit = 50) -> rows.Wire:
    """The flows that the filter admits are gone, with their deployments and runs."""

    def body(tx: Tx) -> list[str]:
        return [flow["id"] for flow in rows.find(tx, FLOW, [(FLOW, flows)], FlowSort.NAME_ASC, limit)]

    found = await ctx.read(body)
    for flow_id in found:
        await _delete(ctx, flow_id)
    return {"deleted": found}


async def _delete(ctx: Context, flow_id: str) -> None:
    # Others have their turn between two steps.
    while not await ctx.write(lambda tx: stored.delete_some(tx, flow_id)):
        pass


@operation("POST", "/flows/paginate", tag=TAG, returns=FlowPaginationResponse)
async def paginate_flows(
    ctx: Context,
    *,
    limit: Limit = None,
    page: Page = 1,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    sort: FlowSort = FlowSort.NAME_ASC,
) -> rows.Wire:
    """One page of flows, with the count of all."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools), strict=True))
    return await ctx.read(lambda tx: rows.paginate(tx, FLOW, filters, sort, limit, page))
