"""Deploying, changing a deployment, and running one.

Each comes in two steps. The first reads: it checks what was sent, which may cost the processor something, and so never holds up the
writer. The second writes what the first found good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from managedd.errors import ErrorCode, ManagedError, conflict, not_found
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration import deployment_rules as checks
from managedd.orchestration import pool_rules
from managedd.orchestration.parameters import HydrationContext, check_parameters, hydrate
from managedd.orchestration.scheduling import run_labels
from managedd.orchestration.transition import Client, create_run, to_proposed
from managedd.store import concealing, deployments, plans, rows, schedules
from managedd.store.placement import ensure_queue, place
from managedd.store.resources import DEPLOYMENT, FLOW, WORK_POOL
from managedd.store.variable_values import VariableValues

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.store.database import Tx
    from managedd.wire.deployments import DeploymentCreate, DeploymentFlowRunCreate, DeploymentUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A deployment that was found good."""

    body: DeploymentCreate
    sent: Mapping[str, Any]
    schedules: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of a deployment that was found good."""

    deployment_id: str
    body: DeploymentUpdate
    sent: Mapping[str, Any]
    schedules: checks.SchedulePlan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDraft:
    """A run of a deployment that was found good."""

    body: DeploymentFlowRunCreate
    deployment: Mapping[str, Any]
    parameters: Mapping[str, Any]


def draft(tx: Tx, body: DeploymentCreate) -> Draft:
    """The request, checked. Raises ManagedError."""
    checks.check_limits(body)
    flow = rows.need(tx, FLOW, id=body.flow_id)
    sent = checks.sent_columns(body)
    if body.labels is not None:
        sent["labels"] = {**flow["labels"], "prefect.flow.id": body.flow_id, **body.labels}
    _check_documents(tx, sent)
    if body.enforce_parameter_schema and body.parameter_openapi_schema is not None:
        _check_new_parameters(tx, body.parameters, body.parameter_openapi_schema)
    pool_name = _pool_name(body, deployments.pool_of(tx, body.flow_id, body.name))
    if pool_name is not None:
        present = deployments.id_of(tx, body.flow_id, body.name)
        given = body.job_variables if present is None else _without_masks(tx, present, body.job_variables)
        _check_pool(tx, pool_name, given, doing="Error creating deployment")
    return Draft(body=body, sent=sent, schedules=tuple(map(checks.new_schedule, body.schedules)))


def save(tx: Tx, good: Draft) -> tuple[str, bool]:
    """The deployment is as it was drafted, its schedules replaced, its runs planned anew; its id, and whether it is new."""
    body = good.body
    key = {"flow_id": body.flow_id, "name": body.name}
    placed = _placed(tx, body, deployments.pool_of(tx, body.flow_id, body.name))
    deployment_id, created = deployments.upsert(tx, key, {**good.sent, **placed}, checks.default_columns(body))
    schedules.remove_all(tx, deployment_id)
    for values in good.schedules:
        schedules.add(tx, deployment_id, values)
    deployments.replan(tx, deployment_id)
    return deployment_id, created


def draft_change(tx: Tx, deployment_id: str, body: DeploymentUpdate) -> Change:
    """The request, checked against the deployment. Raises ManagedError."""
    checks.check_limits(body)
    deployment = deployments.need(tx, deployment_id)
    sent = checks.sent_columns(body)
    _check_documents(tx, sent)
    merged = {**deployment, **sent}
    parameters = (
        hydrate(merged["parameters"], _context(tx), what="deployment") if "parameters" in sent else merged["parameters"]
    )
    if merged["enforce_parameter_schema"] and sent.keys() & {
        "parameters", "parameter_openapi_schema", "enforce_parameter_schema"
    }:  # fmt: skip
        schema = sent.get("parameter_openapi_schema") or deployment["parameter_openapi_schema"]
        check_parameters(parameters, schema, ignore_required=True, doing="Error updating deployment")
    pool_name = _pool_name(body, deployment["work_pool_name"])
    if pool_name is not None and (body.work_pool_name is not None or "job_variables" in sent):
        given = _without_masks(tx, deployment_id, merged["job_variables"])
        _check_pool(tx, pool_name, given, doing="Error updating deployment")
    plan = None
    if "schedules" in body.model_fields_set:
        plan = checks.plan_schedules(schedules.slugs(tx, deployment_id), body.schedules)
    return Change(deployment_id=deployment_id, body=body, sent=sent, schedules=plan)


def change(tx: Tx, good: Change) -> None:
    """The deployment is changed and its runs are planned anew. Raises ManagedError(NOT_FOUND) when it is gone."""
    deployment_id = good.deployment_id
    deployment = deployments.need(tx, deployment_id)
    rows.patch(tx, DEPLOYMENT, deployment_id, {**good.sent, **_placed(tx, good.body, deployment["work_pool_name"])})
    if good.schedules is not None:
        _apply(tx, deployment_id, good.schedules)
    deployments.replan(tx, deployment_id)


def draft_run(tx: Tx, deployment_id: str, body: DeploymentFlowRunCreate) -> RunDraft:
    """The request, checked against the deployment. Raises ManagedError: NOT_FOUND, BAD_REQUEST for placeholders that stand for
    nothing, CONFLICT for parameters that don't fit, INVALID for job variables that don't.
    """
    return _draft_run(tx, deployments.need(tx, deployment_id), body)


def _draft_run(tx: Tx, deployment: Mapping[str, Any], body: DeploymentFlowRunCreate) -> RunDraft:
    parameters = hydrate({**deployment["parameters"], **body.parameters}, _context(tx))
    enforced = body.enforce_parameter_schema
    if deployment["enforce_parameter_schema"] if enforced is None else enforced:
        check_parameters(parameters, deployment["parameter_openapi_schema"])
    checks.check_parameters_size(parameters)
    pool = None if deployment["work_pool_id"] is None else rows.need(tx, WORK_POOL, id=deployment["work_pool_id"])
    if pool is not None:
        checks.check_job_variables(
            plans.of_workspace(tx, tx.workspace),
            plans.host(tx),
            pool_in_clear(tx, pool),
            *variables_in_clear(tx, deployment, body.job_variables),
            ignore_required=False,
            doing="Error creating flow run",
        )
    elif body.work_queue_name is not None:
        raise ManagedError(
            ErrorCode.BAD_REQUEST,
            f"Cannot create flow run in work queue {body.work_queue_name!r}: the deployment is not associated with a work pool.",
        )
    return RunDraft(body=body, deployment=deployment, parameters=parameters)


def draft_runs(tx: Tx, deployment_id: str, bodies: Sequence[DeploymentFlowRunCreate]) -> list[RunDraft | ManagedError]:
    """Each request, checked against the deployment, or why it is no good. Raises ManagedError(NOT_FOUND)."""
    deployment = deployments.need(tx, deployment_id)
    drafts: list[RunDraft | ManagedError] = []
    for body in bodies:
        try:
            drafts.append(_draft_run(tx, deployment, body))
        except ManagedError as error:
            drafts.append(error)
    return drafts


def start_all(tx: Tx, drafts: Sequence[RunDraft | ManagedError], *, client: Client) -> list[dict[str, Any]]:
    """A run exists for each draft that is good; what became of each, as the wire tells it."""
    results: list[dict[str, Any]] = []
    for good in drafts:
        try:
            if isinstance(good, ManagedError):
                raise good
            run_id, _ = start(tx, good, client=client)
        except ManagedError as error:
            results.append({"flow_run_id": None, "status": "FAILED", "error": error.message})
        else:
            results.append({"flow_run_id": run_id, "status": "CREATED", "error": None})
    return results


def start(tx: Tx, good: RunDraft, *, client: Client) -> tuple[str, bool]:
    """The run exists: its id, and whether it is new; one with the same idempotency key is taken instead.

    Raises ManagedError(NOT_FOUND) when the deployment is gone. If it was changed since the draft, the request is checked again.
    """
    deployment_id = good.deployment["id"]
    updated = deployments.updated(tx, deployment_id)
    if updated is None:
        raise not_found(DEPLOYMENT.label, deployment_id)
    if updated != good.deployment["updated"]:
        good = draft_run(tx, deployment_id, good.body)
    body, deployment = good.body, good.deployment
    values = body.model_dump(
        mode="json", exclude={"state", "parameters", "tags", "labels", "work_queue_name", "enforce_parameter_schema"}
    )
    queue_id, queue_name = deployment["work_queue_id"], deployment["work_queue_name"]
    if body.work_queue_name is not None:
        queue_id, queue_name = ensure_queue(tx, deployment["work_pool_id"], body.work_queue_name), body.work_queue_name
    values |= {
        "flow_id": deployment["flow_id"],
        "deployment_id": deployment_id,
        "deployment_version": deployment["version"],
        "parameters": good.parameters,
        "tags": list(dict.fromkeys([*deployment["tags"], *body.tags])),
        "labels": run_labels(deployment, body.labels),
        "work_queue_id": queue_id,
        "work_queue_name": queue_name,
        "infrastructure_document_id": body.infrastructure_document_id or deployment["infrastructure_document_id"],
    }
    state = ProposedState(type=StateType.SCHEDULED) if body.state is None else to_proposed(body.state)
    return create_run(tx, values, state, client=client)


def _context(tx: Tx) -> HydrationContext:
    return HydrationContext(variables=VariableValues(tx))


def _check_new_parameters(tx: Tx, parameters: Mapping[str, Any], schema: Any) -> None:
    try:
        given = hydrate(parameters, _context(tx), what="deployment")
    except ManagedError:
        return  # a variable that does not exist yet may exist when it runs
    check_parameters(given, schema, ignore_required=True, doing="Error creating deployment")


def _check_pool(tx: Tx, pool_name: str, job_variables: Mapping[str, Any], *, doing: str) -> None:
    pool = rows.need(tx, WORK_POOL, name=pool_name)
    # Also where nothing is sent: the pool's own defaults are what its runs ask for.
    plan = plans.of_workspace(tx, tx.workspace)
    checks.check_job_variables(
        plan, plans.host(tx), pool_in_clear(tx, pool), job_variables, ignore_required=True, doing=doing
    )


def pool_in_clear(tx: Tx, pool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The pool with its template as jobs are made of it: never for an answer to a client."""
    return {**pool, "base_job_template": concealing.in_clear(tx, concealing.WORK_POOLS, pool, "base_job_template")}


def variables_in_clear(
    tx: Tx, deployment: Mapping[str, Any], given: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """The deployment's job variables, and those that its run is given over them, without masks."""
    known = concealing.in_clear(tx, concealing.DEPLOYMENTS, deployment, "job_variables")
    return known, None if given is None else _without_masks(tx, deployment["id"], given)


def _without_masks(tx: Tx, deployment_id: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    return concealing.without_masks(tx, concealing.DEPLOYMENTS, deployment_id, "job_variables", given)


def check_new_pool(tx: Tx, name: str, pool_type: str, template: Mapping[str, Any]) -> None:
    """Returns when such a pool may be made; else a FORBIDDEN or INVALID error says why not."""
    pool_rules.check_new(name, pool_type, template)
    _check_template(tx, pool_type, template, "Error creating work pool")


def check_pool_change(tx: Tx, pool: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Returns when the pool may change so; else a FORBIDDEN or INVALID error says why not."""
    template = changes.get("base_job_template") or {}
    if template:
        template = concealing.without_masks(tx, concealing.WORK_POOLS, pool["id"], "base_job_template", template)
        changes = {**changes, "base_job_template": template}
    pool_rules.check_change(pool["name"], pool["type"], changes)
    _check_template(tx, pool["type"], template, "Error updating work pool")


def _check_template(tx: Tx, pool_type: str, template: Mapping[str, Any], doing: str) -> None:
    plan = plans.of_workspace(tx, tx.workspace)
    checks.check_template_defaults(plan, plans.host(tx), pool_type, template, doing)


def _check_documents(tx: Tx, sent: Mapping[str, Any]) -> None:
    for column, kind in (("infrastructure_document_id", "infrastructure"), ("storage_document_id", "storage")):
        document_id = sent.get(column)
        if document_id is not None and deployments.missing_documents(tx, [document_id]):
            raise conflict(f"Could not find the {kind} block {document_id}: it does not exist in this workspace.")


def _placed(tx: Tx, body: DeploymentCreate | DeploymentUpdate, present_pool: str | None) -> dict[str, str | None]:
    """The queue columns that the request means; none when it names neither pool nor queue.

    A queue alone is one of the pool that the deployment has.
    """
    if not body.model_fields_set & {"work_pool_name", "work_queue_name"}:
        return {}
    return place(tx, _pool_name(body, present_pool), body.work_queue_name).columns()


def _pool_name(body: DeploymentCreate | DeploymentUpdate, present: str | None) -> str | None:
    """The pool that the deployment will have."""
    return body.work_pool_name if "work_pool_name" in body.model_fields_set else present


def _apply(tx: Tx, deployment_id: str, plan: checks.SchedulePlan) -> None:
    if plan.replaces_all:
        schedules.remove_all(tx, deployment_id)
    schedules.free_slugs(tx, list(plan.freed))
    for schedule_id, values in plan.changes:
        schedules.change(tx, deployment_id, schedule_id, values)
    for values in plan.additions:
        schedules.add(tx, deployment_id, values)
