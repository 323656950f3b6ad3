"""Every resource's `Table`, and how resources filter each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.store import concealing, log_keys, positions, text_search
from managedd.store.filtering import combine, compile_leaf, compile_nested, names_any, to_param
from managedd.store.tables import BASE, Clause, Column, Kind, Nested, Related, Table, columns, exists, joined
from managedd.wire.filters.leaves import IdAny

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.store.database import Tx

OCCUPYING_SQL = "('PENDING', 'RUNNING', 'CANCELLING')"
"""State types that hold a slot, as in `model.states.OCCUPYING` (a test compares them)."""
TERMINAL_SQL = "('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"
"""The same of `model.states.TERMINAL`."""


# --- flows -----------------------------------------------------------------------------------------------------------


def _flow_deployment(value: Any) -> Clause | None:
    if value.is_null_ is None:
        return None
    sql, params = exists("SELECT 1 FROM deployments WHERE deployments.flow_id = flows.id")
    return (f"NOT {sql}" if value.is_null_ else sql), params


FLOW = Table(
    name="flows",
    label="Flow",
    columns=columns("flows", BASE + "name tags:tags labels:json"),
    filters={"deployment": _flow_deployment},
)

# --- work pools, queues, workers ---------------------------------------------------------------------------------------

WORKER_MISSED_HEARTBEATS = 3
"""After so many intervals without a heartbeat a worker is OFFLINE (Prefect's foreman)."""


SERVERLESS = (":managed", ":push")
"""How the types of pools end that have no workers."""


def is_serverless(pool_type: str) -> bool:
    """Whether the daemon itself runs this pool's runs, without workers."""
    return pool_type.endswith(SERVERLESS)


def online_pools(tx: Tx, pool_ids: list[str]) -> set[str]:
    """Those of the pools that have a worker that is ONLINE."""
    rows = tx.all(
        "SELECT DISTINCT work_pool_id FROM workers WHERE work_pool_id IN (SELECT value FROM json_each(?)) "
        "AND last_heartbeat_time + ? * coalesce(heartbeat_interval_seconds, 30) * 1000000 > ?",
        (orjson.dumps(pool_ids).decode(), WORKER_MISSED_HEARTBEATS, tx.now),
    )
    return {row[0] for row in rows}


def _pool_slots(tx: Tx, pool_ids: list[str]) -> dict[str, int]:
    rows = tx.all(
        "SELECT work_queues.work_pool_id, count(*) FROM flow_runs JOIN work_queues ON work_queues.id = flow_runs.work_queue_id "
        f"WHERE flow_runs.state_type IN {OCCUPYING_SQL} AND work_queues.work_pool_id IN (SELECT value FROM json_each(?)) "
        "GROUP BY work_queues.work_pool_id",
        (orjson.dumps(pool_ids).decode(),),
    )
    return {row[0]: row[1] for row in rows}


def _finish_pools(tx: Tx, page: list[dict[str, Any]]) -> None:
    pool_ids = [pool["id"] for pool in page]
    online, slots = online_pools(tx, pool_ids), _pool_slots(tx, pool_ids)
    for pool in page:
        ready = is_serverless(pool["type"]) or pool["id"] in online
        pool["status"] = "PAUSED" if pool["is_paused"] else "READY" if ready else "NOT_READY"
        pool["active_slots"] = slots.get(pool["id"], 0)


WORK_POOL = Table(
    name="work_pools",
    label="Work pool",
    columns=columns(
        "work_pools",
        BASE + "name description type base_job_template:json is_paused:bool concurrency_limit:int "
        "default_queue_id:id storage_configuration:json",
    ),
    conceal=concealing.work_pool,
    finish=_finish_pools,
)

QUEUE_POLLED_SECONDS = 60
"""A queue whose workers asked within this time is READY (Prefect's foreman)."""


def _finish_queues(tx: Tx, page: list[dict[str, Any]]) -> None:
    rows = tx.all(
        f"SELECT work_queue_id, count(*) FROM flow_runs WHERE state_type IN {OCCUPYING_SQL} "
        "AND work_queue_id IN (SELECT value FROM json_each(?)) GROUP BY work_queue_id",
        (orjson.dumps([queue["id"] for queue in page]).decode(),),
    )
    slots = {row[0]: row[1] for row in rows}
    for queue in page:
        polled = queue.pop("polled_us")
        ready = is_serverless(queue.pop("work_pool_type") or "") or (
            polled is not None and polled > tx.now - QUEUE_POLLED_SECONDS * 1_000_000
        )
        queue["status"] = "PAUSED" if queue["is_paused"] else "READY" if ready else "NOT_READY"
        queue["active_slots"] = slots.get(queue["id"], 0)


WORK_QUEUE = Table(
    name="work_queues",
    label="Work queue",
    columns=(
        *columns(
            "work_queues",
            BASE
            + "name description is_paused:bool concurrency_limit:int priority:int work_pool_id:id filter:json last_polled:time",
        ),
        joined("work_pool_name", "queue_pool.name"),
        joined("work_pool_type", "queue_pool.type"),
        joined("polled_us", "work_queues.last_polled", Kind.INT),
    ),
    joins="LEFT JOIN work_pools AS queue_pool ON queue_pool.id = work_queues.work_pool_id",
    finish=_finish_queues,
)


def _finish_workers(tx: Tx, page: list[dict[str, Any]]) -> None:
    for worker in page:
        seen = worker.pop("seen_us")
        interval = worker["heartbeat_interval_seconds"] or 30
        online = seen is not None and seen + WORKER_MISSED_HEARTBEATS * interval * 1_000_000 > tx.now
        worker["status"] = "ONLINE" if online else "OFFLINE"


WORKER = Table(
    name="workers",
    label="Worker",
    columns=(
        *columns(
            "workers",
            BASE + "name work_pool_id:id last_heartbeat_time:time heartbeat_interval_seconds:real metadata:json-",
        ),
        joined("seen_us", "workers.last_heartbeat_time", Kind.INT),
    ),
    finish=_finish_workers,
)

# --- deployments -------------------------------------------------------------------------------------------------------


def _finish_deployments(tx: Tx, page: list[dict[str, Any]]) -> None:
    from managedd.store import rows  # noqa: PLC0415 - rows reads RELATIONS from here

    wanted = orjson.dumps([deployment["id"] for deployment in page]).decode()
    schedules: dict[str, list[Any]] = {deployment["id"]: [] for deployment in page}
    clause = ("deployment_schedules.deployment_id IN (SELECT value FROM json_each(?))", [wanted])
    for schedule in rows.find(tx, DEPLOYMENT_SCHEDULE, [], "CREATED_ASC", limit=100 * len(page), extra=clause):
        schedules[schedule["deployment_id"]].append(schedule)
    for deployment in page:
        pool_type, polled = deployment.pop("work_pool_type"), deployment.pop("polled_us")
        ready = is_serverless(pool_type or "") or (
            polled is not None and polled > tx.now - QUEUE_POLLED_SECONDS * 1_000_000
        )
        deployment["schedules"] = schedules[deployment["id"]]
        deployment["status"] = "READY" if ready else "NOT_READY"
        deployment["global_concurrency_limit"] = _deployment_limit(deployment)
        # Upstream moved the number into global_concurrency_limit and sends null here.
        deployment["concurrency_limit"] = None


def _deployment_limit(deployment: dict[str, Any]) -> dict[str, Any] | None:
    if deployment["concurrency_limit"] is None:
        return None
    return {
        "id": deployment["id"],
        "created": deployment["created"],
        "updated": deployment["updated"],
        "active": True,
        "name": f"deployment:{deployment['id']}",
        "limit": deployment["concurrency_limit"],
        "active_slots": deployment["slots_taken"],
        "slot_decay_per_second": 0.0,
    }


def _flow_or_deployment_name(value: Any) -> Clause | None:
    if not value.like_:
        return None
    pattern = f"%{value.like_}%"
    return (
        "deployments.name LIKE ? OR EXISTS (SELECT 1 FROM flows WHERE flows.id = deployments.flow_id AND flows.name LIKE ?)",
        [pattern, pattern],
    )


DEPLOYMENT = Table(
    name="deployments",
    label="Deployment",
    columns=(
        *columns(
            "deployments",
            BASE
            + "name version version_id:id version_info:json description flow_id:id paused:bool concurrency_limit:int "
            "concurrency_options:json job_variables:json parameters:json tags:tags labels:json work_queue_id:id "
            "last_polled:time parameter_openapi_schema:json path pull_steps:json entrypoint storage_document_id:id "
            "infrastructure_document_id:id created_by:json updated_by:json enforce_parameter_schema:bool work_queue_name",
        ),
        joined("work_pool_id", "deployment_queue.work_pool_id"),
        joined("work_pool_name", "deployment_pool.name"),
        joined("work_pool_type", "deployment_pool.type"),
        joined("polled_us", "deployments.last_polled", Kind.INT),
        joined(
            "slots_taken",
            f"(SELECT count(*) FROM flow_runs WHERE flow_runs.deployment_id = deployments.id AND flow_runs.state_type IN {OCCUPYING_SQL})",
            Kind.INT,
        ),
    ),
    joins=(
        "LEFT JOIN work_queues AS deployment_queue ON deployment_queue.id = deployments.work_queue_id "
        "LEFT JOIN work_pools AS deployment_pool ON deployment_pool.id = deployment_queue.work_pool_id"
    ),
    filters={"flow_or_deployment_name": _flow_or_deployment_name},
    conceal=concealing.deployment,
    finish=_finish_deployments,
)
DEPLOYMENT_SCHEDULE = Table(
    name="deployment_schedules",
    label="Deployment schedule",
    columns=columns(
        "deployment_schedules",
        BASE + "deployment_id:id schedule:json active:bool max_scheduled_runs:int parameters:json slug",
    ),
)

# --- flow runs ---------------------------------------------------------------------------------------------------------


def _parent_flow_run(value: Any) -> Clause | None:
    if value.any_ is None:
        return None
    # The list gives the index; that the one who called is of the same workspace is asked of each row.
    own, _ = exists(
        "SELECT 1 FROM task_runs AS parent WHERE parent.id = flow_runs.parent_task_run_id AND parent.workspace_id = flow_runs.workspace_id"
    )
    callers = "SELECT caller.id FROM task_runs AS caller WHERE caller.flow_run_id IN (SELECT value FROM json_each(?))"
    wanted = orjson.dumps([to_param(v) for v in value.any_]).decode()
    return f"flow_runs.parent_task_run_id IN ({callers}) AND {own}", [wanted]


def _state_filter(table: str) -> Nested:
    return Nested(
        fields={
            "type": Column(name="type", expr=f"{table}.state_type"),
            "name": Column(name="name", expr=f"{table}.state_name"),
        }
    )


LIVE_TYPES = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
"""State types that a run can still leave, in the words of the index `flow_runs_live` (a test compares them)."""
_IS_LIVE = f"flow_runs.state_type IN ({', '.join(repr(type_) for type_ in LIVE_TYPES)})"
_RUN_STATE = _state_filter("flow_runs")


def _only_live(state: Any) -> bool:
    wanted = None if state is None or state.type is None or state.operator == "or_" else state.type.any_
    return bool(wanted) and set(wanted or ()) <= set(LIVE_TYPES)


def _run_state(value: Any) -> Clause | None:
    clause = compile_nested(value, _RUN_STATE)
    if clause is None or not _only_live(value):
        return clause
    # SQLite uses a partial index only where it reads the index's own condition.
    return f"{_IS_LIVE} AND ({clause[0]})", clause[1]


def _runs_led(model: Any) -> bool:
    return names_any(model, "id", "name", "deployment_id", "parent_task_run_id", "parent_flow_run_id") or (
        model.operator != "or_" and _only_live(model.state)
    )


_BEGAN = "coalesce(flow_runs.start_time, flow_runs.expected_start_time)"


def _start_time(value: Any) -> Clause | None:
    # A run that has not begun counts by when it should; whether it has a start is asked of the start itself.
    window = compile_leaf(value.model_copy(update={"is_null_": None}), Column(name="start_time", expr=_BEGAN))
    begun = value.model_copy(update={"before_": None, "after_": None})
    has_one = compile_leaf(begun, Column(name="start_time", expr="flow_runs.start_time"))
    return combine([clause for clause in (window, has_one) if clause is not None], value)


def _created_by(value: Any) -> Clause | None:
    clauses: list[Clause] = []
    for member, wanted in (("id", value.id_), ("type", value.type_)):
        if wanted is not None:
            listed = orjson.dumps([to_param(v) for v in wanted]).decode()
            clauses.append(
                (f"json_extract(flow_runs.created_by, '$.{member}') IN (SELECT value FROM json_each(?))", [listed])
            )
    if value.is_null_ is not None:
        clauses.append((f"flow_runs.created_by IS {'' if value.is_null_ else 'NOT '}NULL", []))
    return combine(clauses, value)


_STATE_FIELDS = ("id", "type", "name", "timestamp", "message", "state_details", "data")


def _finish_runs(tx: Tx, page: list[dict[str, Any]]) -> None:
    now = tx.now
    for run in page:
        state = {name: run.pop(f"state${name}") for name in _STATE_FIELDS}
        since_us, expected, start, total = (run.pop(f"{name}_us") for name in ("since", "expected", "start", "total"))
        run["state"] = None if state["id"] is None else state
        running = run["state_type"] == "RUNNING" and since_us is not None
        run["estimated_run_time"] = (total + (max(0, now - since_us) if running else 0)) / 1_000_000
        late = 0
        if expected is not None:
            if start is not None:
                late = start - expected
            elif run["state_type"] not in _TERMINAL_NAMES:
                late = now - expected
        run["estimated_start_time_delta"] = max(0, late) / 1_000_000


_TERMINAL_NAMES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


def _state_columns(table: str) -> tuple[Column, ...]:
    kinds = {"id": Kind.ID, "timestamp": Kind.TIME, "state_details": Kind.JSON, "data": Kind.JSON}
    return (
        *(joined(f"state${name}", f"run_state.{name}", kinds.get(name, Kind.TEXT)) for name in _STATE_FIELDS),
        joined("since_us", f"{table}.state_timestamp", Kind.INT),
        joined("expected_us", f"{table}.expected_start_time", Kind.INT),
        joined("start_us", f"{table}.start_time", Kind.INT),
        joined("total_us", f"{table}.total_run_time", Kind.INT),
    )


FLOW_RUN = Table(
    name="flow_runs",
    label="Flow run",
    columns=(
        *columns(
            "flow_runs",
            BASE
            + "name flow_id:id state_id:id deployment_id:id deployment_version work_queue_id:id work_queue_name flow_version "
            "parameters:json idempotency_key context:json empirical_policy:json tags:tags labels:json parent_task_run_id:id "
            "state_type state_name run_count:int expected_start_time:time next_scheduled_start_time:time start_time:time "
            "end_time:time total_run_time:duration auto_scheduled:bool infrastructure_document_id:id infrastructure_pid "
            "created_by:json job_variables:json state_timestamp:time- client_version:- schedule_id:id-",
        ),
        joined("work_pool_id", "run_queue.work_pool_id"),
        joined("work_pool_name", "run_pool.name"),
        *_state_columns("flow_runs"),
    ),
    joins=(
        "LEFT JOIN flow_run_states AS run_state ON run_state.id = flow_runs.state_id "
        "LEFT JOIN work_queues AS run_queue ON run_queue.id = flow_runs.work_queue_id "
        "LEFT JOIN work_pools AS run_pool ON run_pool.id = run_queue.work_pool_id"
    ),
    filters={
        "state": _run_state,
        "start_time": _start_time,
        "parent_flow_run_id": _parent_flow_run,
        "created_by": _created_by,
    },
    sorts={
        "START_TIME_ASC": f"{_BEGAN} ASC, flow_runs.rowid ASC",
        "START_TIME_DESC": f"{_BEGAN} DESC, flow_runs.rowid DESC",
        "ID_DESC": "flow_runs.id DESC",
    },
    leads=_runs_led,
    own_orders=frozenset({"ID_DESC", "NAME_ASC", "NAME_DESC"}),
    windows=frozenset({"expected_start_time", "start_time", "end_time"}),
    conceal=concealing.flow_run,
    finish=_finish_runs,
)
FLOW_RUN_STATE = Table(
    name="flow_run_states",
    label="Flow run state",
    columns=columns(
        "flow_run_states", "id:id flow_run_id:id- type name timestamp:time message state_details:json data:json"
    ),
)
FLOW_RUN_INPUT = Table(
    name="flow_run_inputs",
    label="Flow run input",
    columns=columns("flow_run_inputs", BASE + "flow_run_id:id key value sender"),
)

# --- task runs ---------------------------------------------------------------------------------------------------------


def _subflow_runs(value: Any) -> Clause | None:
    if value.exists_ is None:
        return None
    sql, params = exists(
        "SELECT 1 FROM flow_runs AS child WHERE child.parent_task_run_id = task_runs.id AND child.workspace_id = task_runs.workspace_id"
    )
    return (sql if value.exists_ else f"NOT {sql}"), params


def _task_flow_run_id(value: Any) -> Clause | None:
    # Ids say enough about whether there is one; `is_null_` is false unless said otherwise.
    if value.is_null_:
        return "task_runs.flow_run_id IS NULL", []
    if value.any_ is not None:
        return compile_leaf(IdAny(any_=value.any_), Column(name="flow_run_id", expr="task_runs.flow_run_id"))
    return None if value.is_null_ is None else ("task_runs.flow_run_id IS NOT NULL", [])


TASK_RUN = Table(
    name="task_runs",
    label="Task run",
    columns=(
        *columns(
            "task_runs",
            BASE
            + "name flow_run_id:id task_key dynamic_key cache_key cache_expiration:time task_version empirical_policy:json "
            "tags:tags labels:json state_id:id task_inputs:json state_type state_name run_count:int flow_run_run_count:int "
            "expected_start_time:time next_scheduled_start_time:time start_time:time end_time:time total_run_time:duration "
            "state_timestamp:time-",
        ),
        *_state_columns("task_runs"),
    ),
    joins="LEFT JOIN task_run_states AS run_state ON run_state.id = task_runs.state_id AND run_state.workspace_id = task_runs.workspace_id",
    filters={
        "state": _state_filter("task_runs"),
        "subflow_runs": _subflow_runs,
        "flow_run_id": _task_flow_run_id,
    },
    sorts={"ID_DESC": "task_runs.id DESC"},
    leads=lambda model: names_any(model, "id", "flow_run_id"),
    own_orders=frozenset({"ID_DESC"}),
    windows=frozenset({"expected_start_time", "end_time"}),
    finish=_finish_runs,
)
TASK_RUN_STATE = Table(
    name="task_run_states",
    label="Task run state",
    columns=columns(
        "task_run_states", "id:id task_run_id:id- type name timestamp:time message state_details:json data:json"
    ),
)

# --- what runs leave behind ----------------------------------------------------------------------------------------------

ARTIFACT = Table(
    name="artifacts",
    label="Artifact",
    columns=columns("artifacts", BASE + "key type description data:json metadata_:json flow_run_id:id task_run_id:id"),
    sorts={"ID_DESC": "artifacts.id DESC"},
)
ARTIFACT_COLLECTION = Table(
    name="artifact_collections",
    label="Artifact",
    columns=(
        *columns("artifact_collections", BASE + "key latest_id:id"),
        joined("type", "latest.type"),
        joined("description", "latest.description"),
        joined("data", "latest.data", Kind.JSON),
        joined("metadata_", "latest.metadata_", Kind.JSON),
        joined("flow_run_id", "latest.flow_run_id"),
        joined("task_run_id", "latest.task_run_id"),
    ),
    joins="LEFT JOIN artifacts AS latest ON latest.id = artifact_collections.latest_id",
    joins_choose=True,
    sorts={"ID_DESC": "artifact_collections.id DESC"},
)
VARIABLE = Table(
    name="variables",
    label="Variable",
    columns=columns("variables", BASE + "name value:json! tags:tags"),
)

# --- blocks --------------------------------------------------------------------------------------------------------------


def _block_capabilities(value: Any) -> Clause | None:
    if not value.all_:
        return None
    return (
        "NOT EXISTS (SELECT 1 FROM json_each(?) WHERE value NOT IN (SELECT value FROM json_each(block_schemas.capabilities)))",
        [orjson.dumps(value.all_).decode()],
    )


BLOCK_TYPE = Table(
    name="block_types",
    label="Block type",
    columns=columns(
        "block_types", BASE + "name slug logo_url documentation_url description code_example is_protected:bool"
    ),
)
BLOCK_SCHEMA = Table(
    name="block_schemas",
    label="Block schema",
    columns=columns("block_schemas", BASE + "checksum fields:json block_type_id:id capabilities:tags version"),
    filters={"block_capabilities": _block_capabilities},
)
BLOCK_DOCUMENT = Table(
    name="block_documents",
    label="Block document",
    columns=(
        *columns("block_documents", BASE + "name data:json block_schema_id:id block_type_id:id is_anonymous:bool"),
        joined("block_type_name", "document_type.name"),
    ),
    joins="LEFT JOIN block_types AS document_type ON document_type.id = block_documents.block_type_id",
    joins_choose=True,
    sorts={
        "BLOCK_TYPE_AND_NAME_ASC": "document_type.name ASC, block_documents.name ASC, block_documents.rowid ASC",
    },
)

# --- limits, automations, executions ---------------------------------------------------------------------------------------

CONCURRENCY_LIMIT = Table(
    name="concurrency_limits",
    label="Concurrency limit",
    columns=columns(
        "concurrency_limits",
        BASE
        + "active:bool name limit:int slot_decay_per_second:real avg_slot_occupancy_seconds:real denied_slots:real "
        "unleased_slots:real unleased_at:int-",
    ),
)
AUTOMATION = Table(
    name="automations",
    label="Automation",
    columns=columns(
        "automations",
        BASE
        + "name description enabled:bool tags:tags trigger:json actions:json actions_on_trigger:json actions_on_resolve:json "
        "owner_resource:-",
    ),
    conceal=concealing.automation,
)

# --- logs (a file of their own) ----------------------------------------------------------------------------------------------


def _log_text(value: Any) -> Clause | None:
    return text_search.clause("(logs.message || ' ' || logs.name)", value.query)


SEVERE = 30
"""From this level on (WARNING) lines have indexes of their own."""
_LEVEL = Column(name="level", kind=Kind.INT, expr="logs.level")


def _log_level(value: Any) -> Clause | None:
    clause = compile_leaf(value, _LEVEL)
    if clause is None or value.ge_ is None or value.ge_ < SEVERE:
        return clause
    # In the words of those indexes: SQLite uses them for no number that it is told later.
    return f"logs.level >= {SEVERE} AND {clause[0]}", clause[1]


def _finish_logs(tx: Tx, page: list[dict[str, Any]]) -> None:
    given = positions.of(tx, "logs")
    for line in page:
        line["id"] = given.id(line["id"])


LOG = Table(
    name="logs",
    label="Log",
    columns=(
        joined("id", "logs.id", Kind.INT),
        joined("created", "logs.timestamp", Kind.TIME),
        joined("updated", "logs.timestamp", Kind.TIME),
        *columns("logs", "name level:int message timestamp:time"),
        joined("flow_run_id", log_keys.RUN_ID, Kind.ID),
        joined("task_run_id", log_keys.TASK_RUN_ID, Kind.ID),
    ),
    filters={
        "text": _log_text,
        "level": _log_level,
        "flow_run_id": Column(name="flow_run_id", kind=Kind.ID, expr="logs.flow_run", keys="log_runs"),
        "task_run_id": Column(name="task_run_id", kind=Kind.ID, expr="logs.task_run", keys="log_task_runs"),
    },
    scope=f"logs.workspace = {log_keys.OF_WORKSPACE}",
    sorts={
        "TIMESTAMP_ASC": "logs.timestamp ASC, logs.id ASC",
        "TIMESTAMP_DESC": "logs.timestamp DESC, logs.id DESC",
    },
    finish=_finish_logs,
)

_FLOW = "JOIN flows ON flows.id = flow_runs.flow_id"
_DEPLOYMENT = "JOIN deployments ON deployments.id = flow_runs.deployment_id"
_TASK_RUNS = "JOIN task_runs ON task_runs.flow_run_id = flow_runs.id"
_POOL_OF_DEPLOYMENT = "JOIN work_queues ON work_queues.id = deployments.work_queue_id JOIN work_pools ON work_pools.id = work_queues.work_pool_id"


def _through_flow_run(key: str) -> Related:
    joins = {"flow_runs": "", "flows": _FLOW, "deployments": _DEPLOYMENT}
    return Related(base="flow_runs", on=f"flow_runs.id = {key}", joins=joins, key=key)


def _direct(base: str, on: str, key: str | None = None) -> Related:
    return Related(base=base, on=on, joins={base: ""}, key=key)


RELATIONS: Mapping[str, Sequence[Related]] = {
    "flows": (
        Related(
            base="deployments",
            on="deployments.flow_id = flows.id",
            joins={"deployments": "", "work_pools": _POOL_OF_DEPLOYMENT},
        ),
        Related(base="flow_runs", on="flow_runs.flow_id = flows.id", joins={"flow_runs": "", "task_runs": _TASK_RUNS}),
    ),
    "flow_runs": (
        _direct("deployments", "deployments.id = flow_runs.deployment_id", "flow_runs.deployment_id"),
        Related(
            base="work_queues",
            on="work_queues.id = flow_runs.work_queue_id",
            joins={"work_pools": "JOIN work_pools ON work_pools.id = work_queues.work_pool_id"},
        ),
        _direct("work_queues", "work_queues.id = flow_runs.work_queue_id", "flow_runs.work_queue_id"),
        _direct("flows", "flows.id = flow_runs.flow_id", "flow_runs.flow_id"),
        _direct("task_runs", "task_runs.flow_run_id = flow_runs.id"),
    ),
    "task_runs": (_through_flow_run("task_runs.flow_run_id"),),
    "deployments": (
        _direct("flows", "flows.id = deployments.flow_id", "deployments.flow_id"),
        Related(
            base="flow_runs",
            on="flow_runs.deployment_id = deployments.id",
            joins={"flow_runs": "", "task_runs": _TASK_RUNS},
        ),
        Related(
            base="work_queues",
            on="work_queues.id = deployments.work_queue_id",
            joins={"work_queues": "", "work_pools": "JOIN work_pools ON work_pools.id = work_queues.work_pool_id"},
            key="deployments.work_queue_id",
        ),
    ),
    "artifacts": (
        _through_flow_run("artifacts.flow_run_id"),
        _direct("task_runs", "task_runs.id = artifacts.task_run_id", "artifacts.task_run_id"),
    ),
    "artifact_collections": (
        _through_flow_run("latest.flow_run_id"),
        _direct("task_runs", "task_runs.id = latest.task_run_id", "latest.task_run_id"),
    ),
    "block_documents": (
        _direct("block_types", "block_types.id = block_documents.block_type_id", "block_documents.block_type_id"),
        _direct(
            "block_schemas", "block_schemas.id = block_documents.block_schema_id", "block_documents.block_schema_id"
        ),
    ),
    "block_types": (
        _direct("block_schemas", "block_schemas.block_type_id = block_types.id"),
        _direct("block_documents", "block_documents.block_type_id = block_types.id"),
    ),
}
"""Queried table → the ways from it to the tables that may filter it."""


def worker_status_clause(status: list[str], now_us: int) -> Clause:
    """Workers whose status is one of `status` now: status is derived, so the clause needs the time."""
    online = (
        "coalesce(workers.last_heartbeat_time + ? * coalesce(workers.heartbeat_interval_seconds, 30) * 1000000 > ?, 0)"
    )
    return f"CASE WHEN {online} THEN 'ONLINE' ELSE 'OFFLINE' END IN (SELECT value FROM json_each(?))", [
        WORKER_MISSED_HEARTBEATS,
        now_us,
        orjson.dumps(status).decode(),
    ]
