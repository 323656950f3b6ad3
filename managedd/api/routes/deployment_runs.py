"""Deployments: their runs, asked for, polled and scheduled ahead."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from pydantic import AfterValidator, WithJsonSchema

from managedd.api.context import Actor, Context, Reply
from managedd.api.operation import operation
from managedd.api.rights import own
from managedd.api.routes.deployments import TAG
from managedd.api.routes.flow_runs import check_is_no_schedules
from managedd.api.versions import client_of
from managedd.clock import from_us, to_us
from managedd.errors import ErrorCode, ManagedError, forbidden
from managedd.orchestration import deployments as deploying
from managedd.orchestration import scheduling
from managedd.orchestration.pool_types import MANAGED
from managedd.store import deployments as stored
from managedd.store import rows
from managedd.store.resources import FLOW_RUN, WORK_POOL
from managedd.wire.base import Id, Limit, NullUnsaid, Timestamp
from managedd.wire.deployments import DeploymentFlowRunCreate
from managedd.wire.flow_runs import FlowRunBulkCreateResponse, FlowRunResponse

if TYPE_CHECKING:
    from managedd.store.database import Tx

BULK_CREATE_LIMIT = 100
RUNS_PER_WRITE = 100
"""So that a large backfill holds up the writer for moments only."""
MAX_SCHEDULED_AT_ONCE = 10_000
MAX_DURATION_SECONDS = 100 * 366 * 86_400


def _run_count(count: int) -> int:
    if not 0 <= count <= MAX_SCHEDULED_AT_ONCE:
        raise ValueError(f"between 0 and {MAX_SCHEDULED_AT_ONCE:,} runs can be asked for at once")
    return count


def _duration(seconds: float) -> float:
    if not 0 <= seconds <= MAX_DURATION_SECONDS:
        raise ValueError(f"must lie between 0 and {MAX_DURATION_SECONDS:,} seconds")
    return seconds


Moment = Annotated[Timestamp | None, NullUnsaid()]
RunCount = Annotated[Annotated[int, AfterValidator(_run_count)] | None, NullUnsaid()]
Duration = Annotated[
    Annotated[float, AfterValidator(_duration), WithJsonSchema({"type": "number", "format": "time-delta"})] | None,
    NullUnsaid(),
]


@operation("POST", "/deployments/{id}/create_flow_run", tag=TAG, returns=FlowRunResponse)
async def create_flow_run_from_deployment(ctx: Context, id: UUID, flow_run: DeploymentFlowRunCreate) -> Reply:
    """A run of the deployment exists (201); one with the same idempotency key is answered instead (200).

    Parameters and job variables that are not given come from the deployment, tags are added to its tags, and without a state the run
    is scheduled for now.
    """
    good = await ctx.read(lambda tx: deploying.draft_run(tx, str(id), flow_run))
    client, parent = client_of(ctx.headers), flow_run.parent_task_run_id

    def body(tx: Tx) -> Reply:
        own(tx, ctx.actor, task_runs=(parent,))
        _check_choices(tx, ctx.actor, good)
        run_id, created = deploying.start(tx, good, client=client)
        return Reply(body=rows.get(tx, FLOW_RUN, run_id), status=201 if created else 200)

    return await ctx.write(body)


def _check_choices(tx: Tx, actor: Actor, draft: deploying.RunDraft) -> None:
    """Returns unless a run chooses a queue, a schedule's place, or job variables of a pool whose workers are the user's own.

    Raises ManagedError(FORBIDDEN).
    """
    if actor.kind != "run":
        return
    check_is_no_schedules(draft.body.idempotency_key)
    if draft.body.work_queue_name is not None:
        raise forbidden("A run's key does not set a run's work_queue_name: the deployment's is taken")
    pool_id = draft.deployment["work_pool_id"]
    if draft.body.job_variables and (pool_id is None or rows.need(tx, WORK_POOL, id=pool_id)["type"] != MANAGED):
        raise forbidden(
            f"A run's key sets job_variables only in pools of the type {MANAGED}: others' workers would do what they say"
        )


@operation("POST", "/deployments/{id}/create_flow_run/bulk", tag=TAG, returns=FlowRunBulkCreateResponse)
async def bulk_create_flow_runs_from_deployment(
    ctx: Context, id: UUID, flow_runs: list[DeploymentFlowRunCreate]
) -> rows.Wire:
    """A run of the deployment exists for each item that is good; for the others the answer says why not."""
    if len(flow_runs) > BULK_CREATE_LIMIT:
        message = f"Cannot create more than {BULK_CREATE_LIMIT} flow runs at once."
        raise ManagedError(ErrorCode.BAD_REQUEST, message)
    client = client_of(ctx.headers)
    drafts = await ctx.read(lambda tx: deploying.draft_runs(tx, str(id), flow_runs))
    return {"results": await ctx.write(lambda tx: deploying.start_all(tx, drafts, client=client))}


@operation("POST", "/deployments/get_scheduled_flow_runs", tag=TAG, returns=list[FlowRunResponse])
async def get_scheduled_flow_runs_for_deployments(
    ctx: Context, *, deployment_ids: list[Id], scheduled_before: Moment = None, limit: Limit = None
) -> list[rows.Wire]:
    """The scheduled runs of the deployments in due order: how a process that serves them asks for work."""
    before_us = None if scheduled_before is None else to_us(scheduled_before)
    return await ctx.write(lambda tx: stored.poll(tx, deployment_ids, before_us, limit))


@operation("POST", "/deployments/{id}/schedule", tag=TAG)
async def schedule_deployment(
    ctx: Context,
    id: UUID,
    *,
    start_time: Moment = None,
    end_time: Moment = None,
    min_time: Duration = None,
    min_runs: RunCount = None,
    max_runs: RunCount = None,
) -> None:
    """The runs of the deployment's schedules exist from `start_time` on: at least `min_runs` and until `min_time` seconds later,
    at most `max_runs` and until `end_time`. For a backfill, give times in the past.
    """
    settings = ctx.services.settings.scheduler
    start = start_time or from_us(ctx.services.clock.now_us())
    reach = scheduling.Reach(
        start=scheduling.shifted(start, timedelta(microseconds=-1)),  # a time that is `start` itself counts
        end=end_time or scheduling.shifted(start, timedelta(seconds=settings.max_horizon_seconds)),
        min_runs=settings.min_runs if min_runs is None else min_runs,
        max_runs=settings.max_runs if max_runs is None else max_runs,
        min_time=timedelta(seconds=settings.min_horizon_seconds if min_time is None else min_time),
    )
    for planned in await ctx.read(lambda tx: scheduling.plan_deployment(tx, str(id), reach)):
        for part in planned.parts(RUNS_PER_WRITE):
            await ctx.write(lambda tx, part=part: scheduling.schedule_runs(tx, part, paused=True))  # type: ignore[misc]
