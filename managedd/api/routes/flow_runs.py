"""Flow Runs: create, read, filter, propose states, resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from managedd.api.context import Actor, Context, Reply
from managedd.api.operation import EMBED, operation
from managedd.api.rights import own
from managedd.api.versions import client_of
from managedd.bus import Topic
from managedd.errors import forbidden, not_found
from managedd.orchestration import resuming
from managedd.orchestration.scheduling import KEY_PREFIX
from managedd.orchestration.transition import Outcome, create_run, propose, to_proposed
from managedd.store import executions, flow_runs, rows
from managedd.store.placement import place
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN, WORK_POOL, WORK_QUEUE
from managedd.wire.base import KeyValueLabels, Limit, Offset, Page
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.flow_runs import (
    FlowRunBulkDeleteResponse,
    FlowRunBulkSetStateResponse,
    FlowRunCreate,
    FlowRunPaginationResponse,
    FlowRunResponse,
    FlowRunUpdate,
)
from managedd.wire.sorting import FlowRunSort
from managedd.wire.states import OrchestrationResult, StateCreate

TAG = "Flow Runs"
RELATED = (FLOW, FLOW_RUN, TASK_RUN, DEPLOYMENT, WORK_POOL, WORK_QUEUE)
"""The tables of a filter's members, in the order in which handlers list them."""


CHOICES = {"work_pool_name", "work_queue_name", "job_variables"}
"""Where a run runs, and as what: in a pool with workers of the user's own, any command of theirs."""


def answer(outcome: Outcome) -> Reply:
    """201 when a state was written, else 200."""
    return Reply(body=outcome.wire(), status=201 if outcome.created else 200)


@operation("POST", "/flow_runs/", tag=TAG, returns=FlowRunResponse, status=201)
async def create_flow_run(ctx: Context, flow_run: FlowRunCreate) -> Reply:
    """The flow run exists (201); one with the same flow and idempotency_key is answered instead (200)."""
    state = None if flow_run.state is None else to_proposed(flow_run.state)
    values = flow_run.model_dump(mode="json", exclude={"state", "work_pool_name", "work_queue_name"})
    client = client_of(ctx.headers)

    def body(tx: Any) -> tuple[Any, bool]:
        _check_named(tx, ctx.actor, flow_run)
        placed = place(tx, flow_run.work_pool_name, flow_run.work_queue_name)
        run_id, created = create_run(tx, {**values, **placed.columns()}, state, client=client)
        return rows.get(tx, FLOW_RUN, run_id), created

    made, created = await ctx.write(body)
    return Reply(body=made, status=201 if created else 200)


def _check_named(tx: Any, actor: Actor, flow_run: FlowRunCreate) -> None:
    """Returns when what the run is to belong to is there, and the actor may put it there. Raises ManagedError(FORBIDDEN or NOT_FOUND)."""
    own(tx, actor, task_runs=(flow_run.parent_task_run_id,))
    if actor.kind == "run":
        _check_chooses_no_place(flow_run.model_dump(include=CHOICES))
        check_is_no_schedules(flow_run.idempotency_key)
    rows.get(tx, FLOW, flow_run.flow_id)
    if flow_run.deployment_id is not None:
        rows.get(tx, DEPLOYMENT, flow_run.deployment_id)


def _check_chooses_no_place(chosen: Mapping[str, Any]) -> None:
    """Returns unless a run chooses where and as what another one runs. Raises ManagedError(FORBIDDEN)."""
    names = [name for name, value in chosen.items() if value]
    if names:
        raise forbidden(f"A run's key does not set a run's {', '.join(names)}: it runs a deployment")


def check_is_no_schedules(idempotency_key: str | None) -> None:
    """Returns unless a run's key would make the run that a schedule is to make. Raises ManagedError(FORBIDDEN)."""
    if idempotency_key is not None and idempotency_key.startswith(KEY_PREFIX):
        raise forbidden(
            f"A run's key uses no idempotency_key that begins with {KEY_PREFIX!r}: those are the schedules'"
        )


@operation("GET", "/flow_runs/{id}", tag=TAG, returns=FlowRunResponse)
async def read_flow_run(ctx: Context, id: UUID) -> rows.Wire:
    """Get a flow run by id."""
    return await ctx.look(lambda tx: rows.get(tx, FLOW_RUN, id))


@operation("PATCH", "/flow_runs/{id}", tag=TAG, status=204)
async def update_flow_run(ctx: Context, id: UUID, flow_run: FlowRunUpdate) -> None:
    """The flow run has the given values; members that were not sent stay as they were."""
    changes = flow_run.model_dump(mode="json", exclude_unset=True)
    if ctx.actor.kind == "run":
        _check_chooses_no_place({name: value for name, value in changes.items() if name in CHOICES})

    def body(tx: Any) -> None:
        rows.patch(tx, FLOW_RUN, id, changes)
        if "job_variables" in changes:
            # What it waits for may be there for what it asks for now.
            tx.publish(Topic.QUEUE)

    await ctx.write(body)


@operation("DELETE", "/flow_runs/{id}", tag=TAG, status=204)
async def delete_flow_run(ctx: Context, id: UUID) -> None:
    """The flow run is gone; if it was under way, its container is stopped and removed."""
    await ctx.write(lambda tx: _delete(tx, str(id)))


def _delete(tx: Any, run_id: str) -> None:
    # First, so that a run of another workspace costs what one costs that is not there.
    flow_runs.delete(tx, run_id)
    executions.abandon(tx, run_id)


@operation("POST", "/flow_runs/filter", tag=TAG, returns=list[FlowRunResponse])
async def read_flow_runs(
    ctx: Context,
    *,
    sort: FlowRunSort = FlowRunSort.ID_DESC,
    limit: Limit = None,
    offset: Offset = 0,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
) -> list[rows.Wire]:
    """Query for flow runs."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.find(tx, FLOW_RUN, filters, sort, limit, offset))


@operation("POST", "/flow_runs/count", tag=TAG, returns=int)
async def count_flow_runs(
    ctx: Context,
    *,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
) -> int:
    """How many flow runs the filters admit."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.count(tx, FLOW_RUN, filters))


@operation("POST", "/flow_runs/paginate", tag=TAG, returns=FlowRunPaginationResponse)
async def paginate_flow_runs(
    ctx: Context,
    *,
    sort: FlowRunSort = FlowRunSort.ID_DESC,
    limit: Limit = None,
    page: Page = 1,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
) -> rows.Wire:
    """One page of flow runs, with the count of all."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    return await ctx.read(lambda tx: rows.paginate(tx, FLOW_RUN, filters, sort, limit, page))


@operation("POST", "/flow_runs/{id}/set_state", tag=TAG, returns=OrchestrationResult)
async def set_flow_run_state(ctx: Context, id: UUID, *, state: StateCreate, force: bool = False) -> Reply:
    """The flow run is in the state that the rules allow; the answer says which and why."""
    client, proposed = client_of(ctx.headers), to_proposed(state)
    return answer(await ctx.write(lambda tx: propose(tx, str(id), proposed, force=force, client=client)))


@operation("POST", "/flow_runs/bulk_set_state", tag=TAG, returns=FlowRunBulkSetStateResponse)
async def bulk_set_flow_run_state(
    ctx: Context,
    *,
    flow_runs: FlowRunFilter | None = None,
    state: StateCreate,
    force: bool = False,
    limit: Limit = None,
) -> rows.Wire:
    """Each run that the filter admits is in the state that the rules allow for it."""
    client, proposed = client_of(ctx.headers), to_proposed(state)

    def body(tx: Any) -> list[rows.Wire]:
        found = rows.find(tx, FLOW_RUN, [(FLOW_RUN, flow_runs)], FlowRunSort.ID_DESC, limit)
        return [
            {"flow_run_id": run["id"], **propose(tx, run["id"], proposed, force=force, client=client).wire()}
            for run in found
        ]

    return {"results": await ctx.write(body)}


@operation("POST", "/flow_runs/bulk_delete", tag=TAG, returns=FlowRunBulkDeleteResponse)
async def bulk_delete_flow_runs(
    ctx: Context, *, flow_runs: FlowRunFilter | None = None, limit: Limit = None
) -> rows.Wire:
    """The runs that the filter admits are gone."""

    def body(tx: Any) -> list[str]:
        found = [run["id"] for run in rows.find(tx, FLOW_RUN, [(FLOW_RUN, flow_runs)], FlowRunSort.ID_DESC, limit)]
        for run_id in found:
            _delete(tx, run_id)
        return found

    return {"deleted": await ctx.write(body)}


@operation("POST", "/flow_runs/{id}/resume", tag=TAG, returns=OrchestrationResult)
async def resume_flow_run(
    ctx: Context, id: UUID, *, run_input: Annotated[dict[str, Any] | None, EMBED] = None
) -> Reply:
    """The paused flow run goes on, with `run_input` if it waits for one; a suspended one is scheduled again."""
    client = client_of(ctx.headers)
    return answer(await ctx.write(lambda tx: resuming.resume(tx, str(id), run_input, client=client)))


@operation("PATCH", "/flow_runs/{id}/labels", tag=TAG, status=204)
async def update_flow_run_labels(ctx: Context, id: UUID, labels: KeyValueLabels) -> None:
    """The run's labels include the given ones."""

    def body(tx: Any) -> None:
        if rows.by(tx, FLOW_RUN, id=id) is None:
            raise not_found(FLOW_RUN.label, id)
        flow_runs.merge_labels(tx, str(id), labels or {})

    await ctx.write(body)
