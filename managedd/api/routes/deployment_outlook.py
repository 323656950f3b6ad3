"""Deployments: what a page shows beside them, and Prefect's operations do not tell: when schedules come next, and what ran last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from managedd.api import foretelling
from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.clock import from_us, iso, to_us
from managedd.errors import ManagedError
from managedd.model.schedules import from_json
from managedd.orchestration import scheduling
from managedd.store import deployments, schedules
from managedd.store.rows import Wire
from managedd.wire.base import Id
from managedd.wire.deployments import LatestRun, LatestRunsFilter
from managedd.wire.schedules import NextTimes, ScheduleTimes, ScheduleToForetell

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx

TAG = "Managed"
NONE_FOUND = (
    "No time was found within the work that foretelling may take: the rule never fires, or DTSTART lies far back. "
    "Whether it is taken is said when it is saved."
)
Count = Annotated[int, Field(ge=1, le=50)]


@operation("GET", "/managed/deployments/{id}/schedules/times", tag=TAG, returns=list[ScheduleTimes])
async def read_schedule_times(ctx: Context, id: Id, *, count: Count = 5) -> list[Wire]:
    """Read when each of the deployment's schedules comes next, also of those that are off."""

    def look(tx: Tx) -> list[Wire]:
        deployments.need(tx, id)
        return [_times(tx, schedule, count) for schedule in schedules.stored(tx, id)]

    return await ctx.read(look)


def _times(tx: Tx, schedule: schedules.Stored, count: int) -> Wire:
    problem = None
    times: list[str] = []
    try:
        times = _next(tx, schedule.schedule, count)
    except ManagedError as error:
        problem = error.message
    zone = schedule.schedule.get("timezone") or "UTC"
    return {
        "schedule_id": schedule.id,
        "active": schedule.active,
        "timezone": zone,
        "times": times,
        "problem": problem,
    }


def _next(tx: Tx, schedule: Mapping[str, Any], count: int) -> list[str]:
    found = scheduling.next_times(from_json(schedule), from_us(tx.now), count)
    return [iso(to_us(moment)) for moment in found]


@operation("POST", "/managed/schedules/times", tag=TAG, returns=NextTimes)
async def foretell_schedule(ctx: Context, asked: ScheduleToForetell) -> Wire:
    """Read when a schedule would come, stored or not: as the scheduler reckons, within far less work; refused where its text means nothing."""

    schedule = from_json(asked.schedule.model_dump(mode="json"))
    now = from_us(ctx.services.clock.now_us())
    ahead = await ctx.services.foretelling.reckoned(
        foretelling.source(ctx), lambda: scheduling.foretold(schedule, now, asked.count, foretelling.rest)
    )
    problem = None
    if not ahead.is_whole:
        problem = "No further time was found within the work that foretelling may take." if ahead.times else NONE_FOUND
    times = [iso(to_us(moment)) for moment in ahead.times]
    return {"timezone": schedule.timezone or "UTC", "times": times, "problem": problem}


@operation("POST", "/managed/deployments/latest_runs/filter", tag=TAG, returns=list[LatestRun])
async def read_latest_runs(ctx: Context, wanted: LatestRunsFilter) -> list[Wire]:
    """Read which run of each of these deployments was due last, and what became of it."""
    return await ctx.read(lambda tx: deployments.latest_runs(tx, wanted.deployment_ids))
