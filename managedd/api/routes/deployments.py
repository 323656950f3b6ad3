"""Deployments: deploy, read, filter, change, pause, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from pydantic import Field

from managedd.api import foretelling
from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.clock import from_us
from managedd.orchestration import deployment_rules
from managedd.orchestration import deployments as deploying
from managedd.store import deployments as stored
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN, WORK_POOL, WORK_QUEUE
from managedd.wire.base import Limit, Offset, Page
from managedd.wire.deployments import (
    DeploymentBulkDeleteResponse,
    DeploymentCreate,
    DeploymentPaginationResponse,
    DeploymentResponse,
    DeploymentUpdate,
)
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.sorting import DeploymentSort
from managedd.wire.work_queues import WorkQueue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from managedd.store.database import Tx
    from managedd.wire.schedules import DeploymentScheduleCreate, DeploymentScheduleUpdate

TAG = "Deployments"
RELATED = (FLOW, FLOW_RUN, TASK_RUN, DEPLOYMENT, WORK_POOL, WORK_QUEUE)
"""The tables of a filter's members, in the order in which handlers list them."""
BulkLimit = Annotated[int, Field(ge=1, le=50, description="Maximum number of deployments to delete. Defaults to 50.")]


async def validate_schedules(
    ctx: Context, sent: Sequence[DeploymentScheduleCreate | DeploymentScheduleUpdate] | None
) -> None:
    """Returns when all that was sent can be evaluated. Raises ManagedError: INVALID, TOO_MANY."""
    wanted = [each.schedule for each in sent or () if each.schedule is not None]
    if wanted:
        now = from_us(ctx.services.clock.now_us())
        await ctx.services.foretelling.reckoned(
            foretelling.source(ctx),
            lambda: deployment_rules.validate(wanted, now, foretelling.rest),
            waiting=foretelling.VALIDATIONS,
        )


@operation("POST", "/deployments/", tag=TAG, returns=DeploymentResponse)
async def create_deployment(ctx: Context, deployment: DeploymentCreate) -> Reply:
    """The deployment exists (201), or the one of the same flow and name has the given values (200); its schedules are replaced."""
    await validate_schedules(ctx, deployment.schedules)
    good = await ctx.read(lambda tx: deploying.draft(tx, deployment))

    def body(tx: Tx) -> Reply:
        deployment_id, created = deploying.save(tx, good)
        return Reply(body=rows.get(tx, DEPLOYMENT, deployment_id), status=201 if created else 200)

    return await ctx.write(body)


@operation("PATCH", "/deployments/{id}", tag=TAG, status=204)
async def update_deployment(ctx: Context, id: UUID, deployment: DeploymentUpdate) -> None:
    """The deployment has the given values; members that were not sent stay as they were, and its runs are scheduled anew."""
    await validate_schedules(ctx, deployment.schedules)
    good = await ctx.read(lambda tx: deploying.draft_change(tx, str(id), deployment))
    await ctx.change(lambda tx: deploying.change(tx, good), lambda tx: rows.get(tx, DEPLOYMENT, id))


@operation("GET", "/deployments/name/{flow_name}/{deployment_name}", tag=TAG, returns=DeploymentResponse)
async def read_deployment_by_name(ctx: Context, flow_name: str, deployment_name: str) -> rows.Wire:
    """Get a deployment using the name of the flow and the deployment."""
    return await ctx.look(lambda tx: stored.by_names(tx, flow_name, deployment_name))


@operation("GET", "/deployments/{id}", tag=TAG, returns=DeploymentResponse)
async def read_deployment(ctx: Context, id: UUID) -> rows.Wire:
    """Get a deployment by id."""
    return await ctx.look(lambda tx: rows.get(tx, DEPLOYMENT, id))


@operation("POST", "/deployments/filter", tag=TAG, returns=list[DeploymentResponse])
async def read_deployments(
    ctx: Context,
    *,
    limit: Limit = None,
    offset: Offset = 0,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
    sort: DeploymentSort = DeploymentSort.NAME_ASC,
) -> list[rows.Wire]:
    """Query for deployments."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.find(tx, DEPLOYMENT, filters, sort, limit, offset))


@operation("POST", "/deployments/paginate", tag=TAG, returns=DeploymentPaginationResponse)
async def paginate_deployments(
    ctx: Context,
    *,
    limit: Limit = None,
    page: Page = 1,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
    sort: DeploymentSort = DeploymentSort.NAME_ASC,
) -> rows.Wire:
    """One page of deployments, with the count of all."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.paginate(tx, DEPLOYMENT, filters, sort, limit, page))


@operation("POST", "/deployments/count", tag=TAG, returns=int)
async def count_deployments(
    ctx: Context,
    *,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
) -> int:
    """How many deployments the filters admit."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.count(tx, DEPLOYMENT, filters))


@operation("DELETE", "/deployments/{id}", tag=TAG, status=204)
async def delete_deployment(ctx: Context, id: UUID) -> None:
    """The deployment is gone, with its schedules and the runs that nothing has begun."""
    await ctx.write(lambda tx: stored.delete(tx, str(id)))


@operation("POST", "/deployments/bulk_delete", tag=TAG, returns=DeploymentBulkDeleteResponse)
async def bulk_delete_deployments(
    ctx: Context, *, deployments: DeploymentFilter | None = None, limit: BulkLimit = 50
) -> rows.Wire:
    """The deployments that the filter admits are gone."""

    def body(tx: Tx) -> list[str]:
        page = rows.find(tx, DEPLOYMENT, [(DEPLOYMENT, deployments)], DeploymentSort.NAME_ASC, limit)
        found = [deployment["id"] for deployment in page]
        for deployment_id in found:
            stored.delete(tx, deployment_id)
        return found

    return {"deleted": await ctx.write(body)}


@operation("POST", "/deployments/{id}/resume_deployment", tag=TAG)
async def resume_deployment(ctx: Context, id: UUID) -> None:
    """The deployment is not paused; its runs are scheduled at once."""
    await ctx.write(lambda tx: stored.pause(tx, str(id), paused=False))


@operation("POST", "/deployments/{id}/pause_deployment", tag=TAG)
async def pause_deployment(ctx: Context, id: UUID) -> None:
    """The deployment is paused, and the runs that were scheduled for it are gone."""
    await ctx.write(lambda tx: stored.pause(tx, str(id), paused=True))


@operation("GET", "/deployments/{id}/work_queue_check", tag=TAG, returns=list[WorkQueue], extra={"deprecated": True})
async def work_queue_check_for_deployment(ctx: Context, id: UUID) -> list[rows.Wire]:
    """The work queue that takes the deployment's runs; empty when it has none."""

    def body(tx: Tx) -> list[rows.Wire]:
        queue_id = stored.need(tx, str(id))["work_queue_id"]
        return [] if queue_id is None else [rows.get(tx, WORK_QUEUE, queue_id)]

    return await ctx.read(body)
