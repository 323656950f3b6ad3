"""Automations: what shall happen when events are seen, or are not."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import ValidationError

from managedd.api import json_bounds
from managedd.api.context import Context, Reply
from managedd.api.operation import EMBED, operation
from managedd.errors import ManagedError, invalid
from managedd.orchestration.deployment_rules import check_job_variables
from managedd.orchestration.deployments import pool_in_clear, variables_in_clear
from managedd.store import automations as automation_rows
from managedd.store import plans, rows
from managedd.store.resources import AUTOMATION, DEPLOYMENT, WORK_POOL
from managedd.wire.actions import RunDeployment
from managedd.wire.automations import Automation, AutomationCreate, AutomationPartialUpdate, AutomationUpdate
from managedd.wire.base import Limit, Offset
from managedd.wire.filters.automations import AutomationFilter
from managedd.wire.sorting import AutomationSort

TAG = "Automations"


@operation("POST", "/automations/", tag=TAG, returns=Automation, status=201)
async def create_automation(ctx: Context, automation: AutomationCreate) -> rows.Wire:
    """The automation exists; its triggers have ids of the server's."""
    await ctx.read(lambda tx: _check_actions(tx, automation))
    values = automation.model_dump(mode="json")
    return await ctx.write(lambda tx: rows.get(tx, AUTOMATION, automation_rows.create(tx, values)))


@operation("PUT", "/automations/{id}", tag=TAG, status=204)
async def update_automation(ctx: Context, id: UUID, automation: AutomationUpdate) -> None:
    """The automation is the given one; its owner stays."""
    await ctx.read(lambda tx: _check_actions(tx, automation))
    values = automation.model_dump(mode="json")
    await ctx.write(lambda tx: automation_rows.replace(tx, str(id), values))


@operation("PATCH", "/automations/{id}", tag=TAG, status=204)
async def patch_automation(ctx: Context, id: UUID, automation: AutomationPartialUpdate) -> None:
    """The automation is on or off. 422 when it may not be on."""

    def body(tx: Any) -> None:
        current = rows.need(tx, AUTOMATION, id=id)
        if "enabled" in automation.model_fields_set:
            _check_whole({**current, "enabled": automation.enabled})
            automation_rows.set_enabled(tx, str(id), enabled=automation.enabled)

    await ctx.write(body)


@operation("DELETE", "/automations/{id}", tag=TAG, status=204)
async def delete_automation(ctx: Context, id: UUID) -> None:
    """The automation is gone."""
    await ctx.write(lambda tx: rows.delete(tx, AUTOMATION, id))


@operation("POST", "/automations/filter", tag=TAG, returns=list[Automation])
async def read_automations(
    ctx: Context,
    *,
    sort: AutomationSort = AutomationSort.NAME_ASC,
    limit: Limit = None,
    offset: Offset = 0,
    automations: AutomationFilter | None = None,
) -> list[rows.Wire]:
    """Query for automations."""
    return await ctx.read(lambda tx: rows.find(tx, AUTOMATION, [(AUTOMATION, automations)], sort, limit, offset))


@operation("POST", "/automations/count", tag=TAG, returns=int)
async def count_automations(ctx: Context, *, automations: Annotated[AutomationFilter | None, EMBED] = None) -> int:
    """How many automations the filter admits."""
    return await ctx.read(lambda tx: rows.count(tx, AUTOMATION, [(AUTOMATION, automations)]))


@operation("GET", "/automations/{id}", tag=TAG, returns=Automation)
async def read_automation(ctx: Context, id: UUID) -> rows.Wire:
    """Get an automation by id."""
    return await ctx.look(lambda tx: rows.get(tx, AUTOMATION, id))


@operation("GET", "/automations/related-to/{resource_id}", tag=TAG, returns=list[Automation])
async def read_automations_related_to_resource(ctx: Context, resource_id: str) -> list[rows.Wire]:
    """The automations that a resource owns, or that act on it."""
    return await ctx.read(lambda tx: automation_rows.related_to(tx, resource_id))


@operation("DELETE", "/automations/owned-by/{resource_id}", tag=TAG, status=202)
async def delete_automations_owned_by_resource(ctx: Context, resource_id: str) -> None:
    """The resource owns no automation; every deploy asks for this."""
    await ctx.write(lambda tx: automation_rows.delete_owned_by(tx, resource_id))


@operation("POST", "/templates/validate", tag=TAG)
async def validate_template(ctx: Context, *, template: str = "") -> Reply:
    """204 for a template that actions may use, 422 with what is wrong for any other."""
    return _validate(template)


@operation("POST", "/automations/templates/validate", tag=TAG)
async def validate_automation_template(ctx: Context, *, template: str = "") -> Reply:
    """204 for a template that actions may use, 422 with what is wrong for any other."""
    return _validate(template)


def _validate(template: str) -> Reply:
    # Here, because it is asked for rarely, and each start would load Jinja for it.
    from managedd.orchestration import templates  # noqa: PLC0415

    try:
        templates.check(template)
    except ManagedError as error:
        return Reply(body={"error": {"line": 1, "message": error.message, "source": template}}, status=422)
    return Reply(status=204)


def _check_actions(tx: Any, automation: AutomationUpdate) -> None:
    """The job variables with which deployments shall run fit their pools."""
    for action in automation.actions:
        if not (isinstance(action, RunDeployment) and action.deployment_id is not None and action.job_variables):
            continue
        deployment = rows.need(tx, DEPLOYMENT, id=action.deployment_id)
        if deployment["work_pool_id"] is None:
            continue
        pool = rows.need(tx, WORK_POOL, id=deployment["work_pool_id"])
        check_job_variables(
            plans.of_workspace(tx, tx.workspace),
            plans.host(tx),
            pool_in_clear(tx, pool),
            *variables_in_clear(tx, deployment, action.job_variables),
            ignore_required=False,
            doing="Error creating automation",
        )


def _check_whole(stored: rows.Wire) -> None:
    names = AutomationUpdate.model_fields
    try:
        AutomationUpdate.model_validate({name: value for name, value in stored.items() if name in names})
    except ValidationError as error:
        raise invalid(json_bounds.first(error)["msg"]) from None
