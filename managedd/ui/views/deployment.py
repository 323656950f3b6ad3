"""Deployments: one, the form of a run with values of its own, and the form of the deployment itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from anyio import to_thread
from markupsafe import Markup

from managedd.ui import deployed, markdown, words
from managedd.ui.forms import Field, fields_of
from managedd.ui.page import Sent, page
from managedd.ui.views.deployments import MAX_POOLS, due

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

TIMES: Final = 5
MAX_QUEUES: Final = 200
MAX_AHEAD: Final = 5


@page("/deployments/deployment/{id}", template="deployment.html", section="deployments", every_seconds=20.0)
async def deployment(ask: Ask, id: str) -> dict[str, Any]:
    """All that is known of one deployment."""
    found = await ask.get(f"/deployments/{id}")
    of_deployment = {"deployments": {"id": {"any_": [found["id"]]}}}
    times = await ask.get(f"/managed/deployments/{found['id']}/schedules/times", count=TIMES)
    return {
        "title": found["name"],
        "deployment": found,
        "description": await described(ask, found["description"]),
        "flow": await ask.get(f"/flows/{found['flow_id']}"),
        "limit": _limit(found),
        "parameters": deployed.parameters(found["parameter_openapi_schema"], found["parameters"]),
        "schema": deployed.json_text(found["parameter_openapi_schema"] or {}),
        "is_missing": deployed.is_missing(found["parameter_openapi_schema"], found["parameters"]),
        "job_variables": deployed.json_text(found["job_variables"]) if found["job_variables"] else "",
        "pull_steps": deployed.json_text(found["pull_steps"]) if found["pull_steps"] else "",
        "schedules": [(each, _of(found["schedules"], each["schedule_id"])) for each in times],
        "schedule_text": deployed.schedule_text,
        "schedule_kind": deployed.schedule_kind,
        "json_text": deployed.json_text,
        **await due(ask, of_deployment),
        "ahead": await _ahead(ask, of_deployment),
        "may": {
            "run": ask.may("POST /deployments/{id}/create_flow_run"),
            "change": ask.may("PATCH /deployments/{id}"),
            "add": ask.may("POST /deployments/{id}/schedules"),
            "schedule": ask.may("PATCH /deployments/{id}/schedules/{schedule_id}"),
            "delete": ask.may("DELETE /deployments/{id}"),
        },
    }


async def described(ask: Ask, text: str | None) -> Markup:
    """What somebody has written, as HTML. To read it takes up to a second and a half, the first time."""
    if not text or not text.strip():
        return Markup("")
    return await to_thread.run_sync(markdown.html, text, limiter=ask.services.threads)


def _limit(found: Mapping[str, Any]) -> int | None:
    """How many of its runs there may be at once; None: as many as the pool allows."""
    limit = found["global_concurrency_limit"]
    return None if limit is None else limit["limit"]


def _of(schedules: list[dict[str, Any]], schedule_id: str) -> dict[str, Any]:
    """The schedule itself; one that was added in between is shown with its times alone."""
    return next(
        (each for each in schedules if each["id"] == schedule_id), {"schedule": {}, "slug": None, "parameters": {}}
    )


async def _ahead(ask: Ask, of_deployment: Mapping[str, Any]) -> list[Any]:
    now = datetime.now(UTC).isoformat()
    coming = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": now}}}
    body = {**of_deployment, **coming, "sort": "EXPECTED_START_TIME_ASC", "limit": MAX_AHEAD}
    found: list[Any] = await ask.post("/flow_runs/filter", body)
    return found


@page("/deployments/deployment/{id}/run", template="deployment_run.html", section="deployments", topics=())
async def custom_run(ask: Ask, id: str) -> dict[str, Any]:
    """The form of a run with parameters, job variables and a time of its own."""
    found = await changeable(ask, id, "POST /deployments/{id}/create_flow_run")
    variables = deployed.with_defaults(await _variables(ask, found["work_pool_name"]), found["job_variables"])
    return {
        "title": f"Run {found['name']}",
        "deployment": found,
        "parameters": fields_of(found["parameter_openapi_schema"], found["parameters"], at="/parameters"),
        "variables": _overrides(variables, {}) if found["work_pool_name"] else (),
    }


@page("/deployments/deployment/{id}/edit", template="deployment_edit.html", section="deployments", topics=())
async def edit(ask: Ask, id: str) -> dict[str, Any]:
    """The form of what may change on a deployment; `?pool=` has the fields as another work pool asks for them."""
    found = await changeable(ask, id, "PATCH /deployments/{id}")
    pool = ask.query.get("pool", found["work_pool_name"]) or None
    queues = await ask.post(f"/work_pools/{words.segment(pool)}/queues/filter", {"limit": MAX_QUEUES}) if pool else []
    parameters = fields_of(found["parameter_openapi_schema"], found["parameters"], at="/parameters", is_override=True)
    return {
        "title": f"Edit {found['name']}",
        "deployment": found,
        "pool": pool,
        "limit": _limit(found),
        "parameters": parameters,
        "pull_steps": deployed.json_text(found["pull_steps"]) if found["pull_steps"] else "",
        "variables": _overrides(await _variables(ask, pool), found["job_variables"]),
        "pools": await ask.post("/work_pools/filter", {"limit": MAX_POOLS}),
        "queues": queues,
    }


def _overrides(schema: Any, values: Mapping[str, Any]) -> tuple[Field, ...]:
    return fields_of(schema, values, at="/job_variables", is_override=True)


async def changeable(ask: Ask, id: str, line: str) -> dict[str, Any]:
    """The deployment; who may not do what the form is for is shown the deployment itself."""
    found: dict[str, Any] = await ask.get(f"/deployments/{id}")
    if not ask.may(line):
        raise Sent(f"deployments/deployment/{found['id']}")
    return found


async def _variables(ask: Ask, pool_name: str | None) -> Any:
    """The schema of the pool's variables."""
    if pool_name is None:
        return {}
    pool = await ask.get(f"/work_pools/{words.segment(pool_name)}")
    template = pool["base_job_template"]
    return template.get("variables") or {} if isinstance(template, dict) else {}
