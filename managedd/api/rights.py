"""The one table of who may use which operation, and the check before every handler. What is not in it is the host's own.

Reading is free to every run of a workspace: a flow loads blocks and variables and watches the runs that it has started. Changing is not:
a run changes itself, what is below it, and what a flow makes in passing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd import ids
from managedd.errors import forbidden
from managedd.model.access import Level, OfRuns, Rule
from managedd.store import lineage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.api.context import Actor, Services
    from managedd.api.operation import Operation
    from managedd.store.database import Tx

_TABLE: Final = (
    (Rule(Level.ANY, OfRuns.FREE), """
        GET /health
        GET /ready
        GET /hello
        GET /openapi.json
        GET /version
        GET /admin/version
        GET /admin/storage
        GET /csrf-token
        GET /me/
        GET /me/workspaces
        GET /me/accounts
        GET /me/login
        GET /accounts/{account}/settings
        GET /collections/views/{view}
        GET /collections/work_pool_types
    """),
    (Rule(Level.VIEW, OfRuns.FREE), """
        GET /flows/{id}
        GET /flows/name/{name}
        POST /flows/count
        POST /flows/filter
        POST /flows/paginate
        GET /deployments/{id}
        GET /deployments/name/{flow_name}/{deployment_name}
        GET /deployments/{id}/schedules
        GET /deployments/{id}/work_queue_check
        POST /deployments/count
        POST /deployments/filter
        POST /deployments/paginate
        GET /flow_runs/{id}
        GET /flow_runs/{id}/logs/download
        POST /flow_runs/count
        POST /flow_runs/filter
        POST /flow_runs/paginate
        GET /flow_run_states/
        GET /flow_run_states/{id}
        GET /task_runs/{id}
        POST /task_runs/count
        POST /task_runs/filter
        POST /task_runs/paginate
        GET /task_run_states/
        GET /task_run_states/{id}
        POST /events/filter
        GET /events/filter/next
        POST /events/count-by/{countable}
        WS /events/out
        POST /logs/filter
        WS /logs/out
        GET /work_pools/{name}
        POST /work_pools/count
        POST /work_pools/filter
        POST /work_pools/{name}/concurrency_status
        GET /work_pools/{work_pool_name}/queues/{name}
        POST /work_pools/{work_pool_name}/queues/filter
        POST /work_pools/{work_pool_name}/workers/filter
        GET /work_queues/{id}
        GET /work_queues/name/{name}
        GET /work_queues/{id}/status
        POST /work_queues/filter
        POST /work_queues/{id}/concurrency_status
        GET /variables/{id}
        GET /variables/name/{name}
        POST /variables/count
        POST /variables/filter
        GET /block_types/{id}
        GET /block_types/slug/{slug}
        GET /block_types/slug/{slug}/block_documents
        GET /block_types/slug/{slug}/block_documents/name/{block_document_name}
        POST /block_types/filter
        GET /block_schemas/{id}
        GET /block_schemas/checksum/{checksum}
        POST /block_schemas/filter
        GET /block_capabilities/
        GET /block_documents/{id}
        POST /block_documents/count
        POST /block_documents/filter
        GET /artifacts/{id}
        GET /artifacts/{key}/latest
        POST /artifacts/count
        POST /artifacts/filter
        POST /artifacts/latest/count
        POST /artifacts/latest/filter
        GET /concurrency_limits/{id}
        GET /concurrency_limits/tag/{tag}
        POST /concurrency_limits/filter
        GET /v2/concurrency_limits/{id_or_name}
        POST /v2/concurrency_limits/filter
        GET /automations/{id}
        GET /automations/related-to/{resource_id}
        POST /automations/count
        POST /automations/filter
        POST /automations/templates/validate
        POST /templates/validate
    """),
    (Rule(Level.VIEW, OfRuns.OWN_RUN), """
        GET /flow_runs/{id}/input/{key}
        POST /flow_runs/{id}/input/filter
    """),
    (Rule(Level.VIEW, OfRuns.NOTHING), """
        POST /managed/flow_runs/count-by/time
        GET /managed/deployments/{id}/schedules/times
        POST /managed/schedules/times
        POST /managed/artifacts/filter
        GET /managed/artifacts/{id}/data
        POST /managed/deployments/latest_runs/filter
        GET /managed/flow_runs/{id}/executions
        GET /managed/flow_runs/{id}/resources
        GET /managed/flow_runs/{id}/logs/download
        GET /managed/flow_runs/{id}/logs/page
        WS /managed/flow_runs/{id}/logs/tail
        GET /managed/usage
        GET /managed/plan
    """),
    (Rule(Level.RUN, OfRuns.FREE), """
        POST /flows/
        POST /events
        WS /events/in
        POST /logs/
        POST /flow_runs/{id}/input
        POST /concurrency_limits/increment
        POST /concurrency_limits/decrement
        POST /v2/concurrency_limits/increment
        POST /v2/concurrency_limits/increment-with-lease
        POST /v2/concurrency_limits/decrement
        POST /v2/concurrency_limits/decrement-with-lease
        POST /v2/concurrency_limits/leases/{lease_id}/renew
    """),
    (Rule(Level.RUN, OfRuns.STATED), """
        POST /flow_runs/
        POST /deployments/{id}/create_flow_run
        POST /task_runs/
        POST /artifacts/
        PATCH /artifacts/{id}
    """),
    (Rule(Level.RUN, OfRuns.OWN_RUN), """
        PATCH /flow_runs/{id}
        PATCH /flow_runs/{id}/labels
        POST /flow_runs/{id}/set_state
        POST /flow_runs/{id}/resume
        DELETE /flow_runs/{id}/input/{key}
    """),
    (Rule(Level.RUN, OfRuns.OWN_TASK_RUN), """
        PATCH /task_runs/{id}
        POST /task_runs/{id}/set_state
    """),
    (Rule(Level.RUN, OfRuns.NOTHING), """
        POST /flow_runs/bulk_set_state
        POST /deployments/{id}/create_flow_run/bulk
        POST /deployments/get_scheduled_flow_runs
        POST /work_pools/{name}/get_scheduled_flow_runs
        POST /work_queues/{id}/get_runs
        POST /work_pools/{work_pool_name}/workers/heartbeat
        WS /work_pools/{work_pool_name}/workers/connect
    """),
    (Rule(Level.BUILD, OfRuns.FREE), """
        POST /variables/
        PATCH /variables/{id}
        PATCH /variables/name/{name}
        POST /block_types/
        PATCH /block_types/{id}
        POST /block_types/install_system_block_types
        POST /block_schemas/
        POST /block_documents/
        PATCH /block_documents/{id}
    """),
    (Rule(Level.BUILD, OfRuns.NOTHING), """
        PATCH /flows/{id}
        DELETE /flows/{id}
        POST /flows/bulk_delete
        POST /deployments/
        PATCH /deployments/{id}
        DELETE /deployments/{id}
        POST /deployments/bulk_delete
        POST /deployments/{id}/resume_deployment
        POST /deployments/{id}/pause_deployment
        POST /deployments/{id}/schedule
        POST /deployments/{id}/schedules
        PATCH /deployments/{id}/schedules/{schedule_id}
        DELETE /deployments/{id}/schedules/{schedule_id}
        DELETE /flow_runs/{id}
        POST /flow_runs/bulk_delete
        DELETE /task_runs/{id}
        POST /work_pools/
        PATCH /work_pools/{name}
        DELETE /work_pools/{name}
        POST /work_pools/{work_pool_name}/queues
        PATCH /work_pools/{work_pool_name}/queues/{name}
        DELETE /work_pools/{work_pool_name}/queues/{name}
        DELETE /work_pools/{work_pool_name}/workers/{name}
        POST /work_queues/
        PATCH /work_queues/{id}
        DELETE /work_queues/{id}
        DELETE /variables/{id}
        DELETE /variables/name/{name}
        DELETE /block_types/{id}
        DELETE /block_schemas/{id}
        DELETE /block_documents/{id}
        DELETE /artifacts/{id}
        POST /concurrency_limits/
        DELETE /concurrency_limits/{id}
        DELETE /concurrency_limits/tag/{tag}
        POST /concurrency_limits/tag/{tag}/reset
        POST /v2/concurrency_limits/
        PATCH /v2/concurrency_limits/{id_or_name}
        DELETE /v2/concurrency_limits/{id_or_name}
        POST /automations/
        PUT /automations/{id}
        PATCH /automations/{id}
        DELETE /automations/{id}
        DELETE /automations/owned-by/{resource_id}
    """),
    (Rule(Level.ADMIN, OfRuns.NOTHING), """
        GET /managed/keys
        POST /managed/keys
        DELETE /managed/keys/{id_or_name}
        GET /managed/audit
    """),
    (Rule(Level.OVERSEE, OfRuns.NOTHING), """
        GET /managed/status
        GET /managed/usage/workspaces
        GET /managed/doctor
        POST /managed/doctor
        GET /managed/workspaces
        GET /managed/plans
        GET /managed/audit/all
        GET /managed/flow_runs
    """),
    (Rule(Level.OPERATE, OfRuns.NOTHING), """
        GET /managed/secrets
        POST /managed/secrets/rotate
        POST /managed/secrets/reseal
        PATCH /managed/workspace
        POST /managed/workspaces
        PATCH /managed/workspaces/{id}
        DELETE /managed/workspaces/{id}
    """),
)  # fmt: skip

RULES: Final = {line.strip(): rule for rule, lines in _TABLE for line in lines.strip().splitlines()}
"""By method and path as they are declared."""
_TRAFFIC: Final = frozenset(line.strip() for line in """
    POST /events
    POST /logs/
    POST /task_runs/
    PATCH /task_runs/{id}
    POST /task_runs/{id}/set_state
    POST /artifacts/
    PATCH /artifacts/{id}
    POST /concurrency_limits/increment
    POST /concurrency_limits/decrement
    POST /v2/concurrency_limits/increment
    POST /v2/concurrency_limits/increment-with-lease
    POST /v2/concurrency_limits/decrement
    POST /v2/concurrency_limits/decrement-with-lease
    POST /v2/concurrency_limits/leases/{lease_id}/renew
    POST /deployments/get_scheduled_flow_runs
    POST /work_pools/{name}/get_scheduled_flow_runs
    POST /work_queues/{id}/get_runs
    POST /work_pools/{work_pool_name}/workers/heartbeat
""".strip().splitlines())  # fmt: skip
"""What the engine in a run, or a worker, does all the time: the audit log would be full of it."""
RECORDED: Final = (
    frozenset(line for line, rule in RULES.items() if rule.level >= Level.RUN and not line.startswith(("GET ", "WS ")))
    - _TRAFFIC
)
"""What stands in the audit log, unless a run has done it: all that changes something and is no traffic."""
UNLISTED: Final = Rule(Level.OPERATE, OfRuns.NOTHING)
_OWN: Final = frozenset({OfRuns.OWN_RUN, OfRuns.OWN_TASK_RUN})
_RUN_ALONE: Final = "A run's key opens what is its own run's, or below it"


def rule_of(operation: Operation) -> Rule:
    """Who may use the operation."""
    return RULES.get(operation.line, UNLISTED)


def is_recorded(operation: Operation) -> bool:
    """Whether it stands in the audit log when somebody has used it."""
    return operation.line in RECORDED


async def check(services: Services, operation: Operation, actor: Actor, path: Mapping[str, str]) -> None:
    """Returns when the actor may use the operation on what the path names. Raises ManagedError(FORBIDDEN)."""
    rule = rule_of(operation)
    if actor.flow_run_id is None:
        if actor.level < rule.level:
            held = (
                f"key {actor.name!r} has {actor.level.owner}"
                if actor.kind == "key"
                else "server.auth_string is not enough"
            )
            raise forbidden(f"{operation.line} needs {rule.level.owner}; {held}")
        return
    if rule.runs is OfRuns.NOTHING:
        raise forbidden(f"{_RUN_ALONE}: it does not open {operation.line}")
    if rule.runs not in _OWN or not ids.is_uuid(path["id"]):
        # What is no id at all is told so by the handler.
        return
    which = ids.canonical(path["id"])
    if rule.runs is OfRuns.OWN_TASK_RUN:
        await services.db.look(lambda tx: _own_task_run(tx, actor, which), workspace=actor.workspace_id)
    elif which != actor.flow_run_id:
        await services.db.look(lambda tx: own(tx, actor, flow_runs=(which,)), workspace=actor.workspace_id)


def _own_task_run(tx: Tx, actor: Actor, task_run_id: str) -> None:
    own(tx, actor, task_runs=(task_run_id,))
    if lineage.is_nobodys(tx, task_run_id):
        raise forbidden(f"{_RUN_ALONE}: task run {task_run_id!r} belongs to no flow run")


def own(
    tx: Tx, actor: Actor, *, flow_runs: tuple[str | None, ...] = (), task_runs: tuple[str | None, ...] = ()
) -> None:
    """Returns when it is no run that asks, or each of these is the run's own or below it; None is nobody's. Raises ManagedError(FORBIDDEN).

    A task run that is not known yet passes: what tells of it may come after what names it.
    """
    if actor.flow_run_id is None:
        return
    runs = {_canonical(run) for run in flow_runs if run is not None} - {actor.flow_run_id}
    if runs and (foreign := lineage.first_foreign(tx, runs, actor.flow_run_id)) is not None:
        raise forbidden(f"{_RUN_ALONE}: flow run {foreign!r} is not")
    tasks = {_canonical(task) for task in task_runs if task is not None}
    if tasks and (others := lineage.foreign_task_runs(tx, tasks, actor.flow_run_id)):
        raise forbidden(f"{_RUN_ALONE}: task run {min(others)!r} is not")


def _canonical(text: str) -> str:
    return ids.canonical(text) if ids.is_uuid(text) else text


def shown(actor: Actor, include_secrets: bool) -> bool:
    """Whether secrets are in the answer: when that was asked for, by a run, or by who may run flows. Raises ManagedError(FORBIDDEN)."""
    if include_secrets and actor.flow_run_id is None and actor.level < Level.RUN:
        raise forbidden(f"include_secrets needs {Level.RUN.owner}; key {actor.name!r} has {actor.level.owner}")
    return include_secrets
