"""Task Runs: the placeholders of subflows and deployments, background tasks, and reading what events recorded."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Actor, Context, Reply
from managedd.api.operation import operation
from managedd.api.rights import own
from managedd.api.routes.flow_runs import answer
from managedd.errors import forbidden
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration.transition import create_task_run as create
from managedd.orchestration.transition import propose_task, to_proposed
from managedd.store import lineage, rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN
from managedd.wire.base import Limit, Offset, Page
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.sorting import TaskRunSort
from managedd.wire.states import OrchestrationResult, StateCreate
from managedd.wire.task_runs import TaskRun, TaskRunCreate, TaskRunPaginationResponse, TaskRunUpdate

TAG = "Task Runs"
RELATED = (FLOW, FLOW_RUN, TASK_RUN, DEPLOYMENT)
"""The tables of a filter's members, in the order in which handlers list them."""


@operation("POST", "/task_runs/", tag=TAG, returns=TaskRun, status=201)
async def create_task_run(ctx: Context, task_run: TaskRunCreate) -> Reply:
    """The task run exists (201); one of the same flow run, task key and dynamic key is answered instead (200)."""
    state = ProposedState(type=StateType.PENDING) if task_run.state is None else to_proposed(task_run.state)
    values = task_run.model_dump(mode="json", exclude={"state"})
    if values.get("id") is None:
        values.pop("id", None)

    def body(tx: Any) -> tuple[Any, bool]:
        _check_owner(tx, ctx.actor, values["flow_run_id"], values.get("id"))
        task_run_id, created = create(tx, values, state)
        return rows.get(tx, TASK_RUN, task_run_id), created

    made, created = await ctx.write(body)
    return Reply(body=made, status=201 if created else 200)


def _check_owner(tx: Any, actor: Actor, flow_run_id: str | None, task_run_id: str | None) -> None:
    """Returns when there is that flow run, and the actor may give it that task run. Raises ManagedError(FORBIDDEN or NOT_FOUND)."""
    own(tx, actor, flow_runs=(flow_run_id,), task_runs=(task_run_id,))
    if actor.kind == "run" and task_run_id is not None and lineage.has_flow_runs_below(tx, task_run_id):
        raise forbidden(f"Flow runs hang below task run {task_run_id!r} already: a run's key does not make it its own")
    if flow_run_id is not None:
        rows.get(tx, FLOW_RUN, flow_run_id)


@operation("GET", "/task_runs/{id}", tag=TAG, returns=TaskRun)
async def read_task_run(ctx: Context, id: UUID) -> rows.Wire:
    """Get a task run by id."""
    return await ctx.look(lambda tx: rows.get(tx, TASK_RUN, id))


@operation("PATCH", "/task_runs/{id}", tag=TAG, status=204)
async def update_task_run(ctx: Context, id: UUID, task_run: TaskRunUpdate) -> None:
    """The task run has the given values."""
    changes = task_run.model_dump(mode="json", exclude_unset=True)
    await ctx.write(lambda tx: rows.patch(tx, TASK_RUN, id, changes))


@operation("DELETE", "/task_runs/{id}", tag=TAG, status=204)
async def delete_task_run(ctx: Context, id: UUID) -> None:
    """The task run is gone."""
    await ctx.write(lambda tx: rows.delete(tx, TASK_RUN, id))


@operation("POST", "/task_runs/filter", tag=TAG, returns=list[TaskRun])
async def read_task_runs(
    ctx: Context,
    *,
    sort: TaskRunSort = TaskRunSort.ID_DESC,
    limit: Limit = None,
    offset: Offset = 0,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> list[rows.Wire]:
    """Query for task runs."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments), strict=True))
    return await ctx.read(lambda tx: rows.find(tx, TASK_RUN, filters, sort, limit, offset))


@operation("POST", "/task_runs/count", tag=TAG, returns=int)
async def count_task_runs(
    ctx: Context,
    *,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> int:
    """How many task runs the filters admit."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments), strict=True))
    return await ctx.read(lambda tx: rows.count(tx, TASK_RUN, filters))


@operation("POST", "/task_runs/paginate", tag=TAG, returns=TaskRunPaginationResponse)
async def paginate_task_runs(
    ctx: Context,
    *,
    sort: TaskRunSort = TaskRunSort.ID_DESC,
    limit: Limit = None,
    page: Page = 1,
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> rows.Wire:
    """One page of task runs, with the count of all."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments), strict=True))
    return await ctx.read(lambda tx: rows.paginate(tx, TASK_RUN, filters, sort, limit, page))


@operation("POST", "/task_runs/{id}/set_state", tag=TAG, returns=OrchestrationResult)
async def set_task_run_state(ctx: Context, id: UUID, *, state: StateCreate, force: bool = False) -> Reply:
    """The task run is in the state that the rules allow; the answer says which and why."""
    proposed = to_proposed(state)
    return answer(await ctx.write(lambda tx: propose_task(tx, str(id), proposed, force=force)))
