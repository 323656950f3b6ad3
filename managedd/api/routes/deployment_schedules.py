"""Deployments: their schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.routes.deployments import TAG, validate_schedules
from managedd.bus import Topic
from managedd.orchestration import deployment_rules as checks
from managedd.store import deployments, rows, schedules
from managedd.store.resources import DEPLOYMENT_SCHEDULE
from managedd.wire.schedules import DeploymentSchedule, DeploymentScheduleCreate, DeploymentScheduleUpdate

if TYPE_CHECKING:
    from managedd.store.database import Tx


@operation("GET", "/deployments/{id}/schedules", tag=TAG, returns=list[DeploymentSchedule])
async def read_deployment_schedules(ctx: Context, id: UUID) -> list[rows.Wire]:
    """The deployment's schedules, the one that was changed last first."""

    def body(tx: Tx) -> list[rows.Wire]:
        deployments.need(tx, str(id))
        return schedules.of_deployment(tx, str(id))

    return await ctx.read(body)


@operation("POST", "/deployments/{id}/schedules", tag=TAG, returns=list[DeploymentSchedule], status=201)
async def create_deployment_schedules(
    ctx: Context, id: UUID, schedules: list[DeploymentScheduleCreate]
) -> list[rows.Wire]:
    """The deployment has these schedules too, and runs are planned for them."""
    await validate_schedules(ctx, schedules)
    good = list(map(checks.new_schedule, schedules))
    return await ctx.write(lambda tx: _add(tx, str(id), good))


def _add(tx: Tx, deployment_id: str, good: list[dict[str, object]]) -> list[rows.Wire]:
    deployments.need(tx, deployment_id)
    added = [schedules.add(tx, deployment_id, values) for values in good]
    tx.publish(Topic.SCHEDULES)
    return [rows.get(tx, DEPLOYMENT_SCHEDULE, schedule_id) for schedule_id in added]


@operation("PATCH", "/deployments/{id}/schedules/{schedule_id}", tag=TAG, status=204)
async def update_deployment_schedule(
    ctx: Context, id: UUID, schedule_id: UUID, schedule: DeploymentScheduleUpdate
) -> None:
    """The schedule has the given values; members that were not sent stay as they were, and its runs are planned anew."""
    await validate_schedules(ctx, [schedule])
    changes = checks.changed_schedule(schedule)

    def body(tx: Tx) -> None:
        schedules.change(tx, str(id), str(schedule_id), changes)
        deployments.replan(tx, str(id), schedule_id=str(schedule_id))

    await ctx.change(body, lambda tx: rows.get(tx, DEPLOYMENT_SCHEDULE, schedule_id))


@operation("DELETE", "/deployments/{id}/schedules/{schedule_id}", tag=TAG, status=204)
async def delete_deployment_schedule(ctx: Context, id: UUID, schedule_id: UUID) -> None:
    """The schedule is gone, and with it the runs that were scheduled by it and that nothing has begun."""

    def body(tx: Tx) -> None:
        schedules.remove(tx, str(id), str(schedule_id))
        deployments.replan(tx, str(id), schedule_id=str(schedule_id), overdue=True)

    await ctx.write(body)
