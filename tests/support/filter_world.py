"""Random small worlds of rows, and random filters over them: few values of each kind, so that filters meet rows."""

from __future__ import annotations

import types
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel

from managedd.model.states import StateType
from managedd.wire.filters.artifacts import ArtifactCollectionFilter, ArtifactFilter
from managedd.wire.filters.blocks import BlockDocumentFilter, BlockSchemaFilter, BlockTypeFilter
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.logs import LogFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.filters.variables import VariableFilter
from managedd.wire.filters.work_pools import WorkPoolFilter
from managedd.wire.filters.work_queues import WorkQueueFilter

if TYPE_CHECKING:
    from random import Random

Row = dict[str, Any]
World = dict[str, list[Row]]
"""Table → rows; times are datetimes, JSON is Python."""

FILTERS: dict[str, type[BaseModel]] = {
    "flows": FlowFilter,
    "work_pools": WorkPoolFilter,
    "work_queues": WorkQueueFilter,
    "deployments": DeploymentFilter,
    "flow_runs": FlowRunFilter,
    "task_runs": TaskRunFilter,
    "artifacts": ArtifactFilter,
    "artifact_collections": ArtifactCollectionFilter,
    "variables": VariableFilter,
    "block_types": BlockTypeFilter,
    "block_schemas": BlockSchemaFilter,
    "block_documents": BlockDocumentFilter,
    "logs": LogFilter,
}
RELATED: dict[str, tuple[str, ...]] = {
    "flows": ("flow_runs", "task_runs", "deployments", "work_pools"),
    "flow_runs": ("flows", "task_runs", "deployments", "work_pools", "work_queues"),
    "task_runs": ("flows", "flow_runs", "deployments"),
    "deployments": ("flows", "flow_runs", "task_runs", "work_pools", "work_queues"),
    "artifacts": ("flow_runs", "task_runs", "flows", "deployments"),
    "artifact_collections": ("flow_runs", "task_runs", "flows", "deployments"),
    "block_documents": ("block_types", "block_schemas"),
    "block_types": ("block_schemas",),
}
"""Table → those whose filters its endpoint takes too."""
SORTS: dict[str, tuple[str, ...]] = {
    "flows": ("CREATED_DESC", "UPDATED_DESC", "NAME_ASC", "NAME_DESC"),
    "deployments": ("CREATED_DESC", "UPDATED_DESC", "NAME_ASC", "NAME_DESC"),
    "flow_runs": (
        "ID_DESC", "START_TIME_ASC", "START_TIME_DESC", "EXPECTED_START_TIME_ASC", "EXPECTED_START_TIME_DESC", "NAME_ASC",
        "NAME_DESC", "NEXT_SCHEDULED_START_TIME_ASC", "END_TIME_DESC",
    ),
    "task_runs": (
        "ID_DESC", "EXPECTED_START_TIME_ASC", "EXPECTED_START_TIME_DESC", "NAME_ASC", "NAME_DESC",
        "NEXT_SCHEDULED_START_TIME_ASC", "END_TIME_DESC",
    ),
    "artifacts": ("CREATED_DESC", "UPDATED_DESC", "ID_DESC", "KEY_DESC", "KEY_ASC"),
    "artifact_collections": ("CREATED_DESC", "UPDATED_DESC", "ID_DESC", "KEY_DESC", "KEY_ASC"),
    "variables": ("CREATED_DESC", "UPDATED_DESC", "NAME_DESC", "NAME_ASC"),
    "block_documents": ("NAME_DESC", "NAME_ASC", "BLOCK_TYPE_AND_NAME_ASC"),
    "logs": ("TIMESTAMP_ASC", "TIMESTAMP_DESC"),
    # Not the client's choice, but the order in which they are answered.
    "work_pools": ("NAME_ASC",),
    "work_queues": ("NAME_ASC",),
    "block_types": ("NAME_ASC",),
    "block_schemas": ("CREATED_DESC",),
}  # fmt: skip

_START = datetime(2026, 3, 1, tzinfo=UTC)
TIMES = tuple(_START + timedelta(hours=hour, microseconds=hour % 2) for hour in range(6))
NAMES = ("alpha", "Alpha-2", "beta%", "b_ta", "ünï", "beta", "a", "zeta")
TAGS = ("red", "Red", "blue", "10%", "x y")
PARTS = ("", "a", "A", "%", "_", "eta", "ALPHA", "b_t", "ü", "2")
STATES = (
    ("SCHEDULED", "Scheduled"), ("SCHEDULED", "Late"), ("PENDING", "Pending"), ("RUNNING", "Running"), ("RUNNING", "Retrying"),
    ("COMPLETED", "Completed"), ("FAILED", "Failed"), (None, None),
)  # fmt: skip
QUERIES = ("", "  ", "alpha", "-alpha", "alpha beta", "+beta -x", '"two words"', "!b_ta", "100%")
KINDS = ("MANUAL", "DEPLOYMENT", "AUTOMATION")


def _uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def _tags(random: Random) -> list[str]:
    return random.sample(TAGS, random.choice((0, 0, 1, 1, 2, 3)))


def _maybe(random: Random, values: Any, empty: float = 0.3) -> Any:
    return None if not values or random.random() < empty else random.choice(values)


def make_world(random: Random) -> World:
    """Rows of one workspace that refer to each other, some to nothing."""

    def base(**values: Any) -> Row:
        return {"id": _uuid(random), "created": random.choice(TIMES), "updated": random.choice(TIMES), **values}

    def ids(rows: list[Row]) -> list[str]:
        return [row["id"] for row in rows]

    def run_columns() -> Row:
        type_, name = random.choice(STATES)
        times = ("expected_start_time", "next_scheduled_start_time", "start_time", "end_time")
        return {
            "name": random.choice(NAMES), "tags": _tags(random), "state_type": type_, "state_name": name,
            **{column: _maybe(random, TIMES) for column in times},
        }  # fmt: skip

    few = (0, 1, 2, 3)
    flows = [base(name=name, tags=_tags(random)) for name in random.sample(NAMES, random.choice((1, 2, 3)))]
    pools = [
        base(name=name, type=random.choice(("prefect:managed", "process")), default_queue_id=None)
        for name in random.sample(NAMES, random.choice(few))
    ]
    queues = [
        base(name=name, work_pool_id=pool["id"])
        for pool in pools
        for name in random.sample(NAMES, random.choice((0, 1, 2)))
    ]
    deployments = [
        base(
            name=name, flow_id=flow["id"], paused=random.random() < 0.5, tags=_tags(random),
            work_queue_id=_maybe(random, ids(queues)), work_queue_name=_maybe(random, NAMES[:3]),
        )
        for flow in flows
        for name in random.sample(NAMES, random.choice((0, 1, 2)))
    ]  # fmt: skip
    flow_runs = [
        base(
            **run_columns(), flow_id=random.choice(flows)["id"], deployment_id=_maybe(random, ids(deployments)),
            work_queue_id=_maybe(random, ids(queues)), work_queue_name=_maybe(random, NAMES[:3]),
            flow_version=_maybe(random, NAMES[:3]), idempotency_key=_maybe(random, [f"k{number}"]), parent_task_run_id=None,
            created_by=_maybe(random, [{"id": _uuid(random), "type": kind, "display_value": "x"} for kind in KINDS]),
        )
        for number in range(random.choice((0, 1, 3, 5, 8)))
    ]  # fmt: skip
    task_runs = [
        base(
            **run_columns(),
            flow_run_id=_maybe(random, ids(flow_runs)),
            task_key=random.choice(NAMES),
            dynamic_key=str(number),
        )
        for number in range(random.choice((0, 1, 3, 6)))
    ]
    # A task run stands for at most one subflow, and a run is no part of itself.
    parents = ids(task_runs)
    random.shuffle(parents)
    for run in flow_runs:
        if parents and random.random() < 0.4:
            run["parent_task_run_id"] = parents.pop()
    artifacts = [
        base(
            key=_maybe(random, NAMES[:4]), type=_maybe(random, ("markdown", "table", "link")),
            flow_run_id=_maybe(random, ids(flow_runs)), task_run_id=_maybe(random, ids(task_runs)),
        )
        for _ in range(random.choice((0, 2, 5)))
    ]  # fmt: skip
    latest = {row["key"]: row for row in artifacts if row["key"] is not None}
    collections = [
        base(key=key, latest_id=row["id"], **{c: row[c] for c in ("type", "flow_run_id", "task_run_id")})
        for key, row in latest.items()
    ]
    block_types = [base(name=name, slug=name) for name in random.sample(NAMES, random.choice(few))]
    schemas = [
        base(
            checksum=f"sha256:{number}", block_type_id=random.choice(block_types)["id"], capabilities=_tags(random),
            version=random.choice(("1", "2", "non-versioned")),
        )
        for number in range(random.choice(few) if block_types else 0)
    ]  # fmt: skip
    documents = []
    for schema in schemas:
        kind = next(row for row in block_types if row["id"] == schema["block_type_id"])
        documents += [
            base(
                name=f"{name}-{schema['checksum'][-1]}",
                block_type_id=kind["id"],
                block_type_name=kind["name"],
                block_schema_id=schema["id"],
                is_anonymous=random.random() < 0.4,
            )
            for name in random.sample(NAMES, random.choice((0, 1, 2)))
        ]
    logs = [
        {
            # As a line's position, which its own id hides, is written by the store of these tests.
            "id": f"00000000-0000-8000-8000-{number:012x}", "name": random.choice(NAMES), "level": random.choice((10, 20, 40)),
            "message": random.choice((*NAMES, "two words", "100%", "two  words")), "timestamp": random.choice(TIMES),
            "flow_run_id": _maybe(random, ids(flow_runs)), "task_run_id": _maybe(random, ids(task_runs)),
        }
        for number in range(1, random.choice((1, 4, 9)))
    ]  # fmt: skip
    return {
        "flows": flows, "work_pools": pools, "work_queues": queues, "deployments": deployments, "flow_runs": flow_runs,
        "task_runs": task_runs, "artifacts": artifacts, "artifact_collections": collections,
        "variables": [base(name=name, value=1, tags=_tags(random)) for name in random.sample(NAMES, random.choice(few))],
        "block_types": block_types, "block_schemas": schemas, "block_documents": documents, "logs": logs,
    }  # fmt: skip


def make_query(random: Random, world: World, tables: tuple[str, ...] = tuple(FILTERS)) -> dict[str, Any]:
    """What a client may ask: `table`, `filters` (table → JSON), `sort`, `limit`, `offset`."""
    table = random.choice(tables)
    # Asked for without a filter, documents that have no name are left out: the endpoint then makes one that says so.
    chosen = [table] if table == "block_documents" or random.random() < 0.8 else []
    chosen += [other for other in RELATED.get(table, ()) if random.random() < 0.35]
    return {
        "table": table,
        "filters": {name: make_filter(random, FILTERS[name], name, world) for name in chosen},
        "sort": random.choice(SORTS[table]),
        "limit": random.choice((200, 200, 0, 1, 3)),
        "offset": random.choice((0, 0, 0, 1, 2)),
    }


def make_filter(random: Random, model: type[BaseModel], table: str, world: World) -> dict[str, Any]:
    """A filter of `model` as JSON; about two of its parts are there."""
    names = [name for name in model.model_fields if name not in {"operator", "concurrency_limit"}]
    made: dict[str, Any] = {}
    for name in random.sample(names, min(len(names), random.choice((0, 1, 1, 2, 2, 3)))):
        made[name] = _part(random, _inner(model.model_fields[name].annotation), table, name, world)
    if "operator" in model.model_fields and random.random() < 0.5:
        made["operator"] = random.choice(("and_", "or_"))
    return made


def _part(random: Random, model: type[BaseModel], table: str, field: str, world: World) -> dict[str, Any]:
    made: dict[str, Any] = {}
    fields = [name for name in model.model_fields if name != "operator"]
    for name in fields:
        if len(fields) > 1 and random.random() < 0.45 and name != "query":
            continue
        inner = _inner(model.model_fields[name].annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            made[name] = _part(random, inner, table, f"{field}_{name}", world)
        else:
            made[name] = _operand(random, name, _pool(table, field, name, world))
    if field in {"state_type", "state_name"} and {"any_", "not_any_"} <= set(made):
        # Prefect drops such a filter by an oversight; here it means what it says.
        del made["not_any_"]
    if "operator" in model.model_fields and random.random() < 0.5:
        made["operator"] = random.choice(("and_", "or_"))
    return made


def _operand(random: Random, operator: str, pool: list[Any]) -> Any:
    match operator:
        case "is_null_" | "exists_" | "eq_":
            return random.random() < 0.5
        case "like_":
            return random.choice(PARTS)
        case "startswith_":
            return random.sample(PARTS, random.choice((1, 2)))
        case "before_" | "after_":
            return random.choice(TIMES).isoformat()
        case "ge_" | "le_":
            return random.choice((0, 10, 20, 30))
        case "query":
            return random.choice(QUERIES)
        case _:
            return random.sample(pool, min(len(pool), random.choice((0, 1, 1, 2, 3))))


def _pool(table: str, field: str, operator: str, world: World) -> list[Any]:
    if field in {"tags", "block_capabilities"}:
        return [*TAGS, "none"]
    if field == "state_type":
        return [type_.value for type_ in StateType]
    if operator in {"id_", "type_"}:
        member = operator.rstrip("_")
        found = [run["created_by"][member] for run in world["flow_runs"] if run["created_by"]]
    elif field == "parent_flow_run_id":
        found = [run["id"] for run in world["flow_runs"]]
    else:
        found = [row[field] for row in world[table] if isinstance(row.get(field), str)]
    nobody = "00000000-0000-4000-8000-00000000dead" if field.endswith("id") or operator == "id_" else "none"
    return sorted({*found, nobody})


def _inner(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        return next(option for option in get_args(annotation) if option is not type(None))
    return annotation
