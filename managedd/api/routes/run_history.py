"""Managed: how many flow runs there were, by time and state."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.routes.flow_runs import RELATED
from managedd.clock import to_us
from managedd.errors import invalid
from managedd.store import rows, run_history
from managedd.wire.base import Timestamp
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.filters.work_queues import WorkQueueFilter
from managedd.wire.managed import RunsOfInterval

MAX_INTERVALS = 500
LAST_US = 253_402_300_799_999_999
"""Of the last moment that can be written."""
Seconds = Annotated[int, Field(ge=1, le=31_622_400)]
By = Literal["expected_start_time", "start_time"]
Intervals = Annotated[int, Field(ge=1, le=MAX_INTERVALS)]


@operation("POST", "/managed/flow_runs/count-by/time", tag="Managed", returns=list[RunsOfInterval])
async def count_flow_runs_by_time(
    ctx: Context,
    *,
    start: Timestamp,
    interval_seconds: Seconds,
    intervals: Intervals,
    by: By = "expected_start_time",
    flows: FlowFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    deployments: DeploymentFilter | None = None,
    work_pools: WorkPoolFilter | None = None,
    work_pool_queues: WorkQueueFilter | None = None,
) -> list[rows.Wire]:
    """Count the flow runs that the filters admit, in each interval of expected start times (`by`: or of starts), by the type of their state."""
    filters = list(zip(RELATED, (flows, flow_runs, task_runs, deployments, work_pools, work_pool_queues), strict=True))
    first, length = to_us(start), interval_seconds * 1_000_000
    if first + intervals * length > LAST_US:
        raise invalid("The last interval ends after the year 9999")
    return await ctx.read(
        lambda tx: run_history.counted(tx, filters, start_us=first, interval_us=length, intervals=intervals, by=by)
    )
