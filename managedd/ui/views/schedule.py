"""One schedule of a deployment: the forms that make and change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd.errors import not_found
from managedd.ui import deployed
from managedd.ui.forms import fields_of
from managedd.ui.page import page
from managedd.ui.views.deployment import changeable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

NEW: Final[Mapping[str, Any]] = {
    "schedule": {"cron": ""},
    "active": True,
    "slug": None,
    "parameters": {},
    "max_scheduled_runs": None,
}
"""What the form of a schedule begins with."""


@page("/deployments/deployment/{id}/new-schedule", template="schedule.html", section="deployments", topics=())
async def new_schedule(ask: Ask, id: str) -> dict[str, Any]:
    """The form of one more schedule."""
    found = await changeable(ask, id, "POST /deployments/{id}/schedules")
    return {"title": f"New schedule of {found['name']}", "is_new": True, **_form(found, NEW)}


@page("/deployments/deployment/{id}/schedule/{schedule}", template="schedule.html", section="deployments", topics=())
async def schedule(ask: Ask, id: str, schedule: str) -> dict[str, Any]:
    """The form of what may change on a schedule: all of it but where it belongs."""
    found = await changeable(ask, id, "PATCH /deployments/{id}/schedules/{schedule_id}")
    chosen = next((each for each in found["schedules"] if each["id"] == schedule), None)
    if chosen is None:
        raise not_found("Schedule", schedule[:100])
    return {"title": f"Edit a schedule of {found['name']}", "is_new": False, **_form(found, chosen)}


def _form(deployment: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What both forms show. What the schedule leaves open counts as the deployment has it."""
    schema = deployed.with_defaults(deployment["parameter_openapi_schema"], deployment["parameters"])
    return {
        "deployment": deployment,
        "schedule": schedule,
        "kind": deployed.schedule_kind(schedule["schedule"]),
        "span_text": deployed.span_text,
        "parameters": fields_of(schema, schedule["parameters"], at="/parameters", is_override=True),
    }
