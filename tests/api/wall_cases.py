"""For every operation, the requests in which something of others can be named: in the path, in the query, in the body, in filters."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from managedd import ids
from managedd.model.secrets import MASK
from managedd.orchestration.pool_types import default_template
from tests.api.deployed import CRON
from tests.api.test_automations import TRIGGER
from tests.api.world import NOW, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.api.operation import Operation
    from tests.api.world import Things

_NO = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One request."""

    operation: str
    """Method and path as they are declared."""
    path: str
    body: Any = _NO

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.operation.partition(" ")[0]

    @property
    def has_body(self) -> bool:
        """Whether a body is sent."""
        return self.body is not _NO


_OF_SEGMENT = {
    "flows": "flow", "deployments": "deployment", "flow_runs": "flow_run", "flow_run_states": "flow_run_state", "task_runs": "task_run",
    "task_run_states": "task_run_state", "work_queues": "work_queue", "variables": "variable", "block_types": "block_type",
    "block_schemas": "block_schema", "block_documents": "block_document", "artifacts": "artifact", "concurrency_limits": "tag_limit",
    "automations": "automation", "managed": "flow_run", "work_pools": "work_pool",
}  # fmt: skip
_OF_PARAMETER = {
    "flow_name": ("names", "flow"), "deployment_name": ("names", "deployment"), "schedule_id": ("ids", "schedule"),
    "work_pool_name": ("names", "work_pool"), "slug": ("names", "slug"), "block_document_name": ("names", "block_document"),
    "checksum": ("names", "checksum"), "tag": ("names", "tag"), "lease_id": ("ids", "lease"), "account": ("ids", "account"),
    "key": ("names", "input_key"),
}  # fmt: skip
_ELSEWHERE = {
    "GET /artifacts/{key}/latest": {"key": ("names", "artifact_key")},
    "GET /work_pools/{work_pool_name}/queues/{name}": {"name": ("names", "work_queue")},
    "PATCH /work_pools/{work_pool_name}/queues/{name}": {"name": ("names", "work_queue")},
    "DELETE /work_pools/{work_pool_name}/queues/{name}": {"name": ("names", "work_queue")},
    "DELETE /work_pools/{work_pool_name}/workers/{name}": {"name": ("names", "worker")},
    "GET /managed/deployments/{id}/schedules/times": {"id": ("ids", "deployment")},
    "GET /managed/artifacts/{id}/data": {"id": ("ids", "artifact")},
    "PATCH /managed/workspaces/{id}": {"id": ("ids", "workspace")},
    "DELETE /managed/workspaces/{id}": {"id": ("ids", "workspace")},
}
_CONSTANT = {"view": "aggregate-worker-metadata", "countable": "resource"}
_RESOURCES = ("flow_run", "task_run", "deployment", "flow", "work_queue", "work_pool", "block_document")


def _values(operation: Operation, things: Things) -> dict[str, list[str]]:
    """What each of the path's parameters can be of `things`."""
    segment = operation.path.strip("/").partition("/")[0]
    found: dict[str, list[str]] = {}
    for name in re.findall(r"{(\w+)}", operation.path):
        where = _ELSEWHERE.get(f"{operation.method} {operation.path}", {}).get(name) or _OF_PARAMETER.get(name)
        if name in _CONSTANT:
            found[name] = [_CONSTANT[name]]
        elif where is not None:
            found[name] = [getattr(things, where[0])[where[1]]]
        elif name == "id_or_name":
            kind = "key" if segment == "managed" else "limit"
            found[name] = [things.ids[kind], things.names[kind]]
        elif name == "resource_id":
            found[name] = [*_resource_ids(things), things.names["event"]]
        elif name == "name":
            found[name] = [things.names[_OF_SEGMENT[segment]]]
        elif segment == "concurrency_limits":
            found[name] = [things.ids["tag_limit"], things.ids["limit"]]
        else:
            found[name] = [things.ids[_OF_SEGMENT[segment]]]
    return found


def _resource_ids(things: Things) -> list[str]:
    return [f"prefect.{kind.replace('_', '-')}.{things.ids[kind]}" for kind in _RESOURCES]


def _paths(operation: Operation, own: Things, named: Things) -> Iterator[str]:
    """The path with what is named in one parameter at least; the others are one's own, where a thing of one's own leads to it."""
    theirs, mine = _values(operation, named), _values(operation, own)
    for name in theirs:
        for value in theirs[name]:
            for others in (theirs, mine):
                chosen = {other: others[other][0] for other in theirs if other != name} | {name: value}
                yield re.sub(r"{(\w+)}", lambda found: chosen[found[1]].replace("/", "%2F"), operation.path)  # noqa: B023


# --- bodies ------------------------------------------------------------------------------------------------------------


def _created_run(own: Things, named: Things) -> list[Any]:
    run = {
        "flow_id": own.ids["flow"],
        "name": "r",
        "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": NOW}},
    }
    return [
        {**run, "flow_id": named.ids["flow"]},
        {**run, "deployment_id": named.ids["deployment"]},
        {**run, "deployment_id": named.ids["deployment"], "state": {"type": "RUNNING"}},
        {**run, "deployment_id": named.ids["deployment"], "job_variables": {"env": MASK}},
        {**run, "parent_task_run_id": named.ids["task_run"]},
        {**run, "parent_task_run_id": named.ids["task_run"], "state": {"type": "RUNNING"}},
        {**run, "work_pool_name": named.names["work_pool"]},
        {**run, "work_pool_name": own.names["work_pool"], "work_queue_name": named.names["work_queue"]},
        {**run, "infrastructure_document_id": named.ids["block_document"]},
        {**run, "idempotency_key": named.names["idempotency_key"]},
        {**run, "parameters": {"x": {"$ref": {"block_document_id": named.ids["block_document"]}}}},
    ]  # fmt: skip


def _run_of_deployment(own: Things, named: Things) -> list[Any]:
    return [
        {"name": "r", "parent_task_run_id": named.ids["task_run"]},
        {"name": "r", "work_queue_name": named.names["work_queue"]},
        {"name": "r", "infrastructure_document_id": named.ids["block_document"]},
        {"name": "r", "job_variables": {"env": {"$ref": {"block_document_id": named.ids["block_document"]}}}},
        {"name": "r", "job_variables": {"env": {"x": "{{ prefect.variables." + named.names["variable"] + " }}"}}},
        {"name": "r", "parameters": {"x": {"__prefect_kind": "workspace_variable", "variable_name": named.names["variable"]}}},
        {"name": "r", "idempotency_key": named.names["idempotency_key"]},
    ]  # fmt: skip


def _deployment(own: Things, named: Things) -> list[Any]:
    made = {"name": "d", "flow_id": own.ids["flow"]}
    return [
        {**made, "flow_id": named.ids["flow"]},
        {**made, "name": named.names["deployment"]},
        {**made, "work_pool_name": named.names["work_pool"]},
        {**made, "work_pool_name": own.names["work_pool"], "work_queue_name": named.names["work_queue"]},
        {**made, "storage_document_id": named.ids["block_document"]},
        {**made, "infrastructure_document_id": named.ids["block_document"]},
        {
            **made,
            "parameters": {"x": {"__prefect_kind": "workspace_variable", "variable_name": named.names["variable"]}},
        },
        {**made, "schedules": [{"schedule": CRON, "slug": named.names["schedule_slug"]}]},
    ]


def _document(own: Things, named: Things) -> list[Any]:
    kept = {"data": {}, "block_schema_id": own.ids["block_schema"], "block_type_id": own.ids["block_type"]}
    inside = {"$ref": {"block_document_id": named.ids["block_document"]}}
    return [
        {**kept, "name": "a", "data": {"x": inside}},
        {**kept, "name": "b", "block_schema_id": named.ids["block_schema"]},
        {**kept, "name": "c", "block_type_id": named.ids["block_type"]},
        {**kept, "name": "d", "block_schema_id": named.ids["block_schema"], "block_type_id": named.ids["block_type"]},
        {**kept, "name": named.names["block_document"]},
    ]


def _task_run(own: Things, named: Things) -> list[Any]:
    task = {"name": "t", "task_key": ids.new_id(), "dynamic_key": "0", "flow_run_id": own.ids["flow_run"]}
    inputs = {"x": [{"input_type": "task_run", "id": named.ids["task_run"]}]}
    return [
        {**task, "flow_run_id": named.ids["flow_run"]},
        {**task, "id": named.ids["task_run"]},
        {**task, "flow_run_id": None, "id": named.ids["task_run"]},
        {**task, "task_inputs": inputs, "dynamic_key": "1"},
        {**task, "task_key": named.names["task_key"]},
    ]


def _artifact(own: Things, named: Things) -> list[Any]:
    return [
        {"key": named.names["artifact_key"], "data": "x"},
        {"key": "mine", "data": "x", "flow_run_id": named.ids["flow_run"]},
        {"key": "mine", "data": "x", "task_run_id": named.ids["task_run"]},
    ]


def _events(own: Things, named: Things) -> list[Any]:
    return [[each] for each in task_events(own, named)]


def task_events(own: Things, named: Things) -> list[dict[str, Any]]:
    """Events that would change another's flow runs and task runs, or take their places."""
    state = {"type": "COMPLETED", "name": "Completed"}
    payload: dict[str, Any] = {"intended": {"from": "PENDING", "to": "COMPLETED"}, "initial_state": None, "validated_state": {**state, "state_details": {}, "data": None},
               "task_run": {"task_key": "k", "dynamic_key": "9", "name": "t", "tags": [], "empirical_policy": {}, "task_inputs": {}}}  # fmt: skip

    def of_task(task: str, run: str, event_id: str) -> dict[str, Any]:
        about = {
            "prefect.resource.id": f"prefect.task-run.{task}",
            "prefect.orchestration": "client",
            "prefect.state-type": "COMPLETED",
        }
        related = [{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}]
        made = told(event_id, "prefect.task-run.Completed", "", related=related, payload=payload)
        return {**made, "resource": about}

    return [
        of_task(named.ids["task_run"], named.ids["flow_run"], ids.new_id()),
        of_task(named.ids["task_run"], own.ids["flow_run"], ids.new_id()),
        of_task(own.ids["task_run"], named.ids["flow_run"], ids.new_id()),
        of_task(own.ids["task_run"], own.ids["flow_run"], named.ids["task_run_state"]),
        told(named.ids["event"], named.names["event"], f"prefect.flow-run.{named.ids['flow_run']}"),
        told(ids.new_id(), "prefect.flow-run.Completed", f"prefect.flow-run.{named.ids['flow_run']}"),
        told(ids.new_id(), "prefect.deployment.disabled", f"prefect.deployment.{named.ids['deployment']}"),
    ]


def _line(own: Things, named: Things) -> list[Any]:
    line = {"name": "n", "level": 20, "message": "m", "timestamp": NOW}
    return [
        [{**line, "flow_run_id": named.ids["flow_run"]}],
        [{**line, "flow_run_id": own.ids["flow_run"], "task_run_id": named.ids["task_run"]}],
        [{**line, "task_run_id": named.ids["task_run"]}],
    ]


def _automation(own: Things, named: Things) -> list[Any]:
    made = {"name": "a", "trigger": TRIGGER}
    run = {"type": "run-deployment", "source": "selected", "deployment_id": named.ids["deployment"]}
    return [
        {**made, "actions": [run]},
        {**made, "actions": [{**run, "job_variables": {"env": MASK}}]},
        {**made, "actions": [{"type": "pause-work-pool", "source": "selected", "work_pool_id": named.ids["work_pool"]}]},
        {**made, "actions": [], "owner_resource": f"prefect.deployment.{named.ids['deployment']}"},
    ]  # fmt: skip


def _taking(own: Things, named: Things) -> list[Any]:
    names = [named.names["limit"], f"tag:{named.names['tag']}", f"deployment:{named.ids['deployment']}"]
    return [
        {"slots": 3, "names": names},
        {"slots": 1, "names": names, "holder": {"type": "task_run", "id": named.ids["task_run"]}},
        {"slots": 1, "names": [own.names["limit"]], "holder": {"type": "flow_run", "id": named.ids["flow_run"]}},
    ]


def _tag_taking(own: Things, named: Things) -> list[Any]:
    return [
        {"names": [named.names["tag"]], "task_run_id": named.ids["task_run"]},
        {"names": [own.names["tag"]], "task_run_id": named.ids["task_run"]},
    ]


def _changes(named: Things) -> list[Any]:
    return [
        {"work_pool_name": named.names["work_pool"]},
        {"work_queue_name": named.names["work_queue"]},
        {"storage_document_id": named.ids["block_document"]},
        {"infrastructure_document_id": named.ids["block_document"]},
    ]


STATE = {"state": {"type": "CANCELLED"}, "force": True}
BESIDE_FILTERS: dict[str, dict[str, Any]] = {
    "/flow_runs/bulk_set_state": {"state": STATE["state"]},
    "/managed/flow_runs/count-by/time": {
        "start": "2026-01-01T00:00:00Z",
        "interval_seconds": 31_622_400,
        "intervals": 400,
    },
}
"""What operations with filters need besides."""
BODIES: dict[str, Any] = {
    "POST /flows/": lambda own, named: [{"name": named.names["flow"]}],
    "PATCH /flows/{id}": lambda own, named: [{"tags": ["x"]}],
    "POST /deployments/": _deployment,
    "PATCH /deployments/{id}": lambda own, named: [{"paused": True}, *_changes(named)],
    "POST /deployments/{id}/create_flow_run": lambda own, named: [{}, *_run_of_deployment(own, named)],
    "POST /deployments/{id}/create_flow_run/bulk": lambda own, named: [[each] for each in _run_of_deployment(own, named)],
    "POST /deployments/get_scheduled_flow_runs": lambda own, named: [{"deployment_ids": [named.ids["deployment"]]}],
    "POST /deployments/{id}/schedule": lambda own, named: [{}],
    "POST /deployments/{id}/schedules": lambda own, named: [[{"schedule": CRON, "slug": named.names["schedule_slug"]}]],
    "PATCH /deployments/{id}/schedules/{schedule_id}": lambda own, named: [{"active": False}],
    "POST /flow_runs/": _created_run,
    "PATCH /flow_runs/{id}": lambda own, named: [{"name": "x"}, {"job_variables": {"env": MASK}}],
    "PATCH /flow_runs/{id}/labels": lambda own, named: [{"x": "y"}],
    "POST /flow_runs/{id}/set_state": lambda own, named: [STATE, {"state": {"type": "RUNNING"}}],
    "POST /flow_runs/bulk_set_state": lambda own, named: [{**STATE, "flow_runs": {"id": {"any_": [named.ids["flow_run"]]}}}],
    "POST /flow_runs/{id}/resume": lambda own, named: [{}, {"run_input": {"x": 1}}],
    "POST /flow_runs/{id}/input": lambda own, named: [{"key": named.names["input_key"], "value": "1"}, {"key": "k", "value": "1"}],
    "POST /flow_runs/{id}/input/filter": lambda own, named: [{"prefix": "", "limit": 10}, {"prefix": named.names["input_key"]}],
    "POST /task_runs/": _task_run,
    "PATCH /task_runs/{id}": lambda own, named: [{"name": "x"}],
    "POST /task_runs/{id}/set_state": lambda own, named: [STATE],
    "POST /events": _events,
    "POST /events/filter": lambda own, named: [{"filter": each} for each in event_filters(named)],
    "POST /events/count-by/{countable}": lambda own, named: [
        {"filter": each, "time_unit": "week", "time_interval": 1} for each in event_filters(named)
    ],
    "POST /logs/": _line,
    "POST /logs/filter": lambda own, named: [{"logs": {"text": {"query": named.names["word"]}}}],
    "POST /work_pools/": lambda own, named: [
        {"name": named.names["work_pool"], "type": "process", "base_job_template": default_template("process")}
    ],
    "PATCH /work_pools/{name}": lambda own, named: [{"is_paused": True}, {"concurrency_limit": 0}],
    "POST /work_pools/{name}/get_scheduled_flow_runs": lambda own, named: [{}, {"work_queue_names": [named.names["work_queue"]]}],
    "POST /work_pools/{work_pool_name}/queues": lambda own, named: [{"name": named.names["work_queue"]}, {"name": "q"}],
    "PATCH /work_pools/{work_pool_name}/queues/{name}": lambda own, named: [{"is_paused": True}],
    "POST /work_pools/{work_pool_name}/workers/heartbeat": lambda own, named: [{"name": named.names["worker"]}],
    "POST /work_queues/": lambda own, named: [{"name": named.names["work_queue"]}],
    "PATCH /work_queues/{id}": lambda own, named: [{"is_paused": True}, {"name": named.names["work_queue"]}],
    "POST /variables/": lambda own, named: [{"name": named.names["variable"], "value": 1}],
    "PATCH /variables/{id}": lambda own, named: [{"value": 2}],
    "PATCH /variables/name/{name}": lambda own, named: [{"value": 2}],
    "POST /block_types/": lambda own, named: [{"name": named.names["slug"].title(), "slug": named.names["slug"]}],
    "PATCH /block_types/{id}": lambda own, named: [{"description": "x"}],
    "POST /block_schemas/": lambda own, named: [
        {"fields": {"title": "x"}, "block_type_id": named.ids["block_type"], "capabilities": []},
        {"fields": {"title": "y", "block_schema_references": {"x": {"block_type_slug": named.names["slug"], "block_schema_checksum": "z"}}},
         "block_type_id": own.ids["block_type"], "capabilities": []},
    ],
    "POST /block_documents/": _document,
    "PATCH /block_documents/{id}": lambda own, named: [
        {"data": {"x": 1}},
        {"data": {"x": {"$ref": {"block_document_id": named.ids["block_document"]}}}},
        {"data": {}, "block_schema_id": named.ids["block_schema"]},
    ],
    "POST /artifacts/": _artifact,
    "PATCH /artifacts/{id}": lambda own, named: [{"data": "x"}],
    "POST /concurrency_limits/": lambda own, named: [{"tag": named.names["tag"], "concurrency_limit": 9}],
    "POST /concurrency_limits/tag/{tag}/reset": lambda own, named: [{"slot_override": [named.ids["task_run"]]}, {}],
    "POST /concurrency_limits/increment": _tag_taking,
    "POST /concurrency_limits/decrement": _tag_taking,
    "POST /v2/concurrency_limits/": lambda own, named: [{"name": named.names["limit"], "limit": 1}],
    "PATCH /v2/concurrency_limits/{id_or_name}": lambda own, named: [{"limit": 0}, {"active": False}],
    "POST /v2/concurrency_limits/increment": lambda own, named: _taking(own, named)[:1],
    "POST /v2/concurrency_limits/increment-with-lease": _taking,
    "POST /v2/concurrency_limits/decrement": lambda own, named: _taking(own, named)[:1],
    "POST /v2/concurrency_limits/decrement-with-lease": lambda own, named: [{"lease_id": named.ids["lease"]}],
    "POST /v2/concurrency_limits/leases/{lease_id}/renew": lambda own, named: [{"lease_duration": 300}],
    "POST /automations/": _automation,
    "PUT /automations/{id}": _automation,
    "PATCH /automations/{id}": lambda own, named: [{"enabled": False}],
    "POST /templates/validate": lambda own, named: ["{{ flow_run.name }}"],
    "POST /automations/templates/validate": lambda own, named: ["{{ flow_run.name }}"],
    "POST /managed/deployments/latest_runs/filter": lambda own, named: [{"deployment_ids": [named.ids["deployment"]]}],
    "POST /managed/schedules/times": lambda own, named: [{"schedule": CRON}],
    "PATCH /managed/workspace": lambda own, named: [{"plan": "free"}],
    "POST /managed/keys": lambda own, named: [{"name": named.names["key"], "role": "viewer"}],
    "POST /managed/workspaces": lambda own, named: [{"account": "x", "handle": "y"}],
    "PATCH /managed/workspaces/{id}": lambda own, named: [{"name": "x"}],
}  # fmt: skip
"""What is sent to operations whose body is no filter alone."""
ON_ONES_OWN: dict[str, Callable[[Things], list[Any]]] = {
    "PATCH /deployments/{id}": _changes,
    "PATCH /work_queues/{id}": lambda named: [{"name": named.names["work_queue"]}],
    "PATCH /variables/{id}": lambda named: [{"name": named.names["variable"]}],
    "PATCH /v2/concurrency_limits/{id_or_name}": lambda named: [{"name": named.names["limit"]}],
    "PATCH /block_documents/{id}": lambda named: [
        {"data": {"x": {"$ref": {"block_document_id": named.ids["block_document"]}}}},
        {"data": {}, "block_schema_id": named.ids["block_schema"]},
    ],
}
"""Changes of one's own things that name another's."""
QUERIES: dict[str, Callable[[Things], list[str]]] = {
    "GET /flow_run_states/": lambda named: [f"flow_run_id={named.ids['flow_run']}"],
    "GET /task_run_states/": lambda named: [f"task_run_id={named.ids['task_run']}"],
    "GET /csrf-token": lambda named: [f"client={ids.new_id()}"],
    "GET /events/filter/next": lambda named: ["page-token=x"],
    "GET /managed/flow_runs": lambda named: [f"which={named.ids['flow_run']}", f"which={named.names['flow_run']}"],
    "GET /me/login": lambda named: ["callback=http://localhost:1"],
}


def event_filters(named: Things) -> list[dict[str, Any]]:
    """Filters of events that would find another's."""
    things = [*_resource_ids(named), f"prefect.artifact.{named.ids['artifact']}"]
    return [
        {"resource": {"id": things}},
        {"resource": {"id_prefix": [things[0][:30]]}},
        {"resource": {"labels": {"word": named.names["word"]}}},
        {"related": {"id": things}},
        {"related": {"resources_in_roles": [[things[3], "flow"]]}},
        {"any_resource": {"id": things}},
        {"any_resource": {"labels": {"prefect.resource.id": things}}},
        {"event": {"name": [named.names["event"]]}},
        {"event": {"prefix": [named.names["event"]]}},
        {"id": {"id": [named.ids["event"]]}},
        {"text": {"query": named.names["word"]}},
    ]


# --- filters -----------------------------------------------------------------------------------------------------------


def _members(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield name, part


def _filters(model: type[BaseModel], named: Things) -> Iterator[dict[str, Any]]:
    """Every filter of the model whose one condition names ids, or names, of `named`."""
    for name, part in _members(model):
        for condition in _conditions(part, named):
            yield {name: condition}
        yield from ({name: inner} for inner in _filters(part, named))


def _conditions(model: type[BaseModel], named: Things) -> Iterator[dict[str, Any]]:
    for operator in model.model_fields:
        if not operator.endswith("_"):
            continue
        values: list[Any] = [
            list(named.ids.values()),
            list(named.names.values()),
            named.names["flow_run"],
            named.names["deployment"],
        ]
        for value in values:
            try:
                model.model_validate({operator: value})
            except ValidationError:
                continue
            yield {operator: value}
            if isinstance(value, str):
                yield from (
                    {operator: other} for other in (named.names["flow"], named.names["word"], named.names["work_pool"])
                )
                break


def _filter_bodies(operation: Operation, named: Things) -> Iterator[dict[str, Any]]:
    """The bodies of an operation in which one member is a filter that names something of `named`."""
    body = operation.signature.body_type
    if not (isinstance(body, type) and issubclass(body, BaseModel)) or operation.signature.body_members is None:
        return
    destroys = "bulk" in operation.path
    for filter_ in _filters(body, named):
        # What is not another's is all of one's own.
        if destroys and "not_" in str(filter_):
            continue
        yield {**filter_, **BESIDE_FILTERS.get(operation.path, {})}


# --- all of it ---------------------------------------------------------------------------------------------------------


def _queries(key: str, named: Things) -> list[str]:
    return QUERIES[key](named) if key in QUERIES else []


def cases(operation: Operation, own: Things, named: Things) -> list[Case]:
    """Every request to the operation that names something of `named`; one without a place for that is sent once as it is."""
    key = f"{operation.method} {operation.path}"
    paths = list(dict.fromkeys(_paths(operation, own, named))) or [operation.path]
    bodies = BODIES[key](own, named) if key in BODIES else []
    filters = list(_filter_bodies(operation, named))
    found = [Case(operation=key, path=f"{path}?{query}") for query in _queries(key, named) for path in paths]
    found += [Case(operation=key, path=path, body=body) for path in paths for body in bodies]
    found += [Case(operation=key, path=path, body=body) for path in paths[:1] for body in filters]
    if key in ON_ONES_OWN:
        ((mine, *_),) = [list(_paths(operation, own, own))]
        found += [Case(operation=key, path=mine, body=body) for body in ON_ONES_OWN[key](named)]
    if key.startswith("POST /deployments/{id}/create_flow_run"):
        mine = operation.path.replace("{id}", own.ids["deployment"])
        found += [Case(operation=key, path=mine, body=body) for body in bodies]
    if not found:
        body: dict[str, Any] = {"body": {}} if operation.signature.body is not None else {}
        found = [Case(operation=key, path=path, **body) for path in paths]
    return found
