"""What a request about a deployment may ask for, and the columns it means: pure checks."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from managedd.errors import ManagedError, invalid
from managedd.model import schedules
from managedd.model.secrets import hidden
from managedd.orchestration.job_variables import find_references, merge, render, secret_values, validate_job_variables
from managedd.orchestration.managed_job import managed_job
from managedd.orchestration.plan_rules import check_host, check_job
from managedd.wire.base import MAX_PARAMETERS_BYTES, json_size_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from managedd.model.limits import HostLimits, Plan
    from managedd.wire.deployments import DeploymentCreate, DeploymentUpdate
    from managedd.wire.schedules import DeploymentScheduleCreate, DeploymentScheduleUpdate, Schedule

_BESIDE = {"flow_id", "name", "schedules", "work_pool_name", "work_queue_name", "labels", "global_concurrency_limit_id"}
"""Members of a request that are not simply columns."""
_NOT_NULL = {"parameters", "job_variables", "enforce_parameter_schema"}
"""Columns where null means "as it was"."""
EMPTY_SCHEMA: Mapping[str, Any] = {"type": "object", "properties": {}}
"""The parameter schema of a deployment that was created without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulePlan:
    """What becomes of a deployment's schedules."""

    replaces_all: bool
    """The present ones go first."""
    freed: tuple[str, ...] = ()
    """Ids whose slug is given up first, because it changes."""
    changes: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """Id → columns."""
    additions: tuple[Mapping[str, Any], ...] = ()


def sent_columns(body: DeploymentCreate | DeploymentUpdate) -> dict[str, Any]:
    """The columns that the request names; where a column has no null, null leaves it as it was."""
    sent = body.model_dump(mode="json", include=body.model_fields_set - _BESIDE)
    return {name: value for name, value in sent.items() if value is not None or name not in _NOT_NULL}


def default_columns(body: DeploymentCreate) -> dict[str, Any]:
    """The columns of a new deployment."""
    columns = body.model_dump(mode="json", exclude=_BESIDE)
    if "parameter_openapi_schema" not in body.model_fields_set:
        columns["parameter_openapi_schema"] = dict(EMPTY_SCHEMA)
    return columns


def check_limits(body: DeploymentCreate | DeploymentUpdate) -> None:
    """Returns unless the request wants a limit that is not offered."""
    if body.global_concurrency_limit_id is not None:
        raise invalid(
            "global_concurrency_limit_id: a limit that several deployments share is not offered; "
            "set concurrency_limit, or take the slots in the flow with `concurrency(…)`"
        )


def check_parameters_size(parameters: Mapping[str, Any]) -> None:
    """Returns when the parameters are no larger than a run may have; each part may have been, and all together not."""
    size_bytes = json_size_bytes(dict(parameters))
    if size_bytes > MAX_PARAMETERS_BYTES:
        raise invalid(f"parameters: at most {MAX_PARAMETERS_BYTES:,} bytes of JSON are allowed, not {size_bytes:,}")


def check_job_variables(
    plan: Plan,
    host: HostLimits,
    pool: Mapping[str, Any],
    deployment_vars: Mapping[str, Any],
    run_vars: Mapping[str, Any] | None = None,
    *,
    ignore_required: bool,
    doing: str,
) -> None:
    """Returns when the variables fit the pool's template, and for a managed pool mean something that plan and host allow: else an INVALID
    error names the variable. What refers to a block or a variable is left for the run's start.
    """
    template = pool["base_job_template"]
    with _nothing_secret_told(template, deployment_vars, run_vars):
        validate_job_variables(template, deployment_vars, run_vars, ignore_required=ignore_required, doing=doing)
        if pool["type"].endswith(":managed"):
            _check_managed(plan, host, template, merge(template, deployment_vars, run_vars), doing)


@contextmanager
def _nothing_secret_told(template: Mapping[str, Any], *layers: Mapping[str, Any] | None) -> Iterator[None]:
    """Errors say what is wrong without what the template calls secret: whoever reads them need not be who wrote it."""
    try:
        yield
    except ManagedError as error:
        secrets = secret_values(template, *layers)
        raise ManagedError(error.code, hidden(error.message, secrets), detail=error.detail) from None


def check_template_defaults(
    plan: Plan, host: HostLimits, pool_type: str, template: Mapping[str, Any], doing: str
) -> None:
    """Returns when what a managed pool's template gives by itself is something that plan and host allow: else an INVALID error names
    the variable. What it leaves to the operator, a deployment may still ask for.
    """
    if template and pool_type.endswith(":managed"):
        given = replace(host, run_memory_bytes=None, run_cpus=None)
        with _nothing_secret_told(template):
            _check_managed(plan, given, template, merge(template, {}, None), doing)


def _check_managed(
    plan: Plan, host: HostLimits, template: Mapping[str, Any], values: Mapping[str, Any], doing: str
) -> None:
    configuration = _known(render(template.get("job_configuration") or {}, values))
    try:
        job = managed_job(configuration)
        check_job(job, plan, image_is_chosen=bool(configuration.get("image")))
        check_host(job, host, plan)
    except ManagedError as error:
        raise invalid(f"{doing}: {error.message}") from None


def _known(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """What of the configuration holds no reference."""
    known = {name: value for name, value in configuration.items() if not find_references(value)}
    env = configuration.get("env")
    if "env" not in known and isinstance(env, dict):
        known["env"] = {name: value for name, value in env.items() if not find_references(value)}
    return known


def new_schedule(body: DeploymentScheduleCreate) -> dict[str, Any]:
    """The columns of a new schedule, which `validate` has found good."""
    columns = body.model_dump(mode="json", exclude={"schedule", "replaces"})
    return {**columns, "schedule": stored_form(body.schedule.model_dump(mode="json"))}


def changed_schedule(body: DeploymentScheduleUpdate) -> dict[str, Any]:
    """The columns that the request changes; null only ever clears the maximum of scheduled runs."""
    sent = body.model_dump(mode="json", include=body.model_fields_set - {"replaces"})
    columns = {name: value for name, value in sent.items() if value is not None or name == "max_scheduled_runs"}
    if "schedule" in columns:
        columns["schedule"] = stored_form(columns["schedule"])
    return columns


def stored_form(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The schedule as it is stored. Raises ManagedError(INVALID) for a wrong shape."""
    return schedules.to_json(schedules.from_json(schedule))


def validate(sent: Sequence[Schedule], now: datetime, rest: Callable[[], None] | None = None) -> None:
    """Returns when all of these can be evaluated; else an INVALID error names the field and what is allowed.

    Apart from all that reads and writes: it may take the processor for some hundred milliseconds, with a `rest` every few steps.
    """
    from managedd.orchestration import recurrence  # noqa: PLC0415  # with the first schedule: it brings libraries

    effort = recurrence.effort_of(len(sent), rest)
    for schedule in sent:
        recurrence.validate(schedules.from_json(schedule.model_dump(mode="json")), now, effort=effort)


def plan_schedules(existing: Mapping[str, str | None], sent: Sequence[DeploymentScheduleUpdate]) -> SchedulePlan:
    """What `sent` makes of the deployment's schedules `existing` (id → slug).

    When all of both have slugs, a schedule is changed where its slug (or the one that it `replaces`) exists and added
    where it does not; the others stay. When the existing ones have none, `sent` takes their place. Raises
    ManagedError(INVALID) where it would be unclear which schedule is meant.
    """
    targeted = bool(existing) and all(existing.values())
    if not targeted:
        return SchedulePlan(replaces_all=True, additions=tuple(_added(schedule) for schedule in sent))
    if not all(schedule.slug for schedule in sent):
        raise invalid(
            "Please provide a slug for each schedule in your request to ensure schedules are updated correctly."
        )
    by_slug = {slug: schedule_id for schedule_id, slug in existing.items() if slug}
    replaced = _replaced(sent, by_slug)
    changes, additions = [], []
    for schedule in sent:
        found = by_slug.get(schedule.replaces or str(schedule.slug))
        if found is None:
            additions.append(_added(schedule))
        else:
            changes.append((found, changed_schedule(schedule)))
    freed = tuple(by_slug[slug] for slug in replaced if slug in by_slug)
    return SchedulePlan(replaces_all=False, freed=freed, changes=tuple(changes), additions=tuple(additions))


def _replaced(sent: Sequence[DeploymentScheduleUpdate], by_slug: Mapping[str, str]) -> list[str]:
    """The slugs that are given up, once it is clear that no two schedules end up with one."""
    replaced = [schedule.replaces for schedule in sent if schedule.replaces]
    for slug in replaced:
        if replaced.count(slug) > 1:
            raise invalid(f"Multiple schedules have 'replaces' targeting the same slug: {slug}")
    for schedule in sent:
        if schedule.replaces and schedule.slug in by_slug and schedule.slug not in replaced:
            raise invalid(
                f"Cannot rename schedule from '{schedule.replaces}' to '{schedule.slug}': "
                f"a schedule with slug '{schedule.slug}' already exists."
            )
    return replaced


def _added(schedule: DeploymentScheduleUpdate) -> dict[str, Any]:
    columns = changed_schedule(schedule)
    if "schedule" not in columns:
        raise invalid("Unable to create new deployment schedules without a schedule configuration.")
    return columns
