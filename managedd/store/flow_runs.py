"""Flow runs: loading what the rules need, and writing what they decided."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.bus import Topic
from managedd.clock import iso
from managedd.errors import not_found
from managedd.model.flow_runs import FlowRunFacts, flow_policy_facts
from managedd.model.states import State, StateType
from managedd.store.filtering import to_param
from managedd.store.resources import OCCUPYING_SQL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire

_FACTS = """
SELECT r.*, s.id AS s_id, s.type AS s_type, s.name AS s_name, s.timestamp AS s_timestamp, s.message AS s_message,
       s.state_details AS s_details, s.data AS s_data,
       d.id AS d_id, d.concurrency_limit AS d_limit, d.concurrency_options AS d_options
FROM flow_runs AS r
LEFT JOIN flow_run_states AS s ON s.id = r.state_id
LEFT JOIN deployments AS d ON d.id = r.deployment_id AND d.workspace_id = r.workspace_id
WHERE r.id = ? AND r.workspace_id = ?
"""
_DEPLOYMENT = (
    "SELECT id AS d_id, concurrency_limit AS d_limit, concurrency_options AS d_options FROM deployments WHERE id = ?"
)
_NO_DEPLOYMENT = {"d_id": None, "d_limit": None, "d_options": None}
_NEW = {
    "run_count": 0, "start_time": None, "end_time": None, "total_run_time": 0, "expected_start_time": None, "next_scheduled_start_time": None,
    "work_queue_id": None, "deployment_id": None, "parent_task_run_id": None, "infrastructure_pid": None, "empirical_policy": "{}",
}  # fmt: skip
"""What a run is that has just been made, where nothing else is said: the defaults of its columns."""


def loaded_state(row: Row, prefix: str = "s_") -> State | None:
    """The state in columns `<prefix>id` … of a joined row."""
    if row[f"{prefix}id"] is None:
        return None
    data = row[f"{prefix}data"]
    return State(
        id=row[f"{prefix}id"],
        type=StateType(row[f"{prefix}type"]),
        name=row[f"{prefix}name"],
        timestamp_us=row[f"{prefix}timestamp"],
        message=row[f"{prefix}message"],
        details=orjson.loads(row[f"{prefix}details"]),
        data=None if data is None else orjson.loads(data),
    )


def facts(
    tx: Tx, run_id: str, *, api_version: tuple[int, ...] | None, client_version: str | None
) -> tuple[FlowRunFacts, Row]:
    """What the rules may know of the run, and its row. Raises ManagedError(NOT_FOUND)."""
    row = tx.one(_FACTS, (run_id, tx.workspace))
    if row is None:
        raise not_found("Flow run", run_id)
    return _known(tx, row, loaded_state(row), api_version=api_version, client_version=client_version), row


def facts_of_new(
    tx: Tx, row: Mapping[str, Any], *, api_version: tuple[int, ...] | None, client_version: str | None
) -> FlowRunFacts:
    """What the rules may know of a run that is about to be stored as `row`."""
    deployment = None
    if row.get("deployment_id") is not None:
        deployment = tx.one(_DEPLOYMENT, (row["deployment_id"],))
    whole = {**_NEW, **row, **(_NO_DEPLOYMENT if deployment is None else dict(deployment))}
    return _known(tx, whole, None, api_version=api_version, client_version=client_version)


def _known(
    tx: Tx,
    row: Row | Mapping[str, Any],
    current: State | None,
    *,
    api_version: tuple[int, ...] | None,
    client_version: str | None,
) -> FlowRunFacts:
    options = orjson.loads(row["d_options"]) if row["d_options"] else None
    limit = row["d_limit"]
    return FlowRunFacts(
        now_us=tx.now,
        run_id=row["id"],
        current=current,
        run_count=row["run_count"],
        start_time_us=row["start_time"],
        end_time_us=row["end_time"],
        total_run_time_us=row["total_run_time"],
        expected_start_time_us=row["expected_start_time"],
        next_scheduled_start_time_us=row["next_scheduled_start_time"],
        work_queue_id=row["work_queue_id"],
        deployment_id=row["deployment_id"],
        deployment_exists=row["deployment_id"] is None or row["d_id"] is not None,
        concurrency_limit=limit,
        slots_taken=0 if limit is None else slots_taken(tx, row["deployment_id"], but=row["id"]),
        slots_leaving=0 if limit is None else slots_leaving(tx, row["deployment_id"], but=row["id"]),
        collision_strategy=(options or {}).get("collision_strategy") or "ENQUEUE",
        parent_task_run_id=row["parent_task_run_id"],
        infrastructure_pid=row["infrastructure_pid"],
        api_version=api_version,
        client_version=client_version,
        **flow_policy_facts(orjson.loads(row["empirical_policy"])),
    )


def slots_taken(tx: Tx, deployment_id: str, *, but: str) -> int:
    """How many other runs of the deployment hold a slot: always counted from rows."""
    taken: int = tx.scalar(
        f"SELECT count(*) FROM flow_runs WHERE deployment_id = ? AND state_type IN {OCCUPYING_SQL} AND id <> ?",
        (deployment_id, but),
    )
    return taken


LEAVING = f"""
executions AS e INDEXED BY executions_deployment
LEFT JOIN flow_runs AS l ON l.id = e.flow_run_id LEFT JOIN flow_run_states AS ls ON ls.id = l.state_id
WHERE e.deployment_id IS NOT NULL AND e.phase NOT IN ('EXITED', 'FINALIZED', 'LOST')
  AND NOT EXISTS (SELECT 1 FROM flow_runs AS h INDEXED BY flow_runs_holding
                  WHERE h.deployment_id = e.deployment_id AND h.id = e.flow_run_id AND h.state_type IN {OCCUPYING_SQL})
  AND NOT coalesce(l.state_type = 'PAUSED' AND NOT coalesce(json_extract(ls.state_details, '$.pause_reschedule'), 0)
                   OR l.state_name = 'AwaitingRetry' AND json_extract(l.empirical_policy, '$.retry_type') = 'in_process', 0)
"""
"""Executions `e` of deployments that may still be running though nothing is left for them to do: their flow runs have ended, were deleted,
are suspended or scheduled anew. One that waits in its process (a pause, the next try there) has given its slot back."""


def slots_leaving(tx: Tx, deployment_id: str, *, but: str) -> int:
    """How many containers of other runs of the deployment, that have nothing left to do, may still be there."""
    leaving: int = tx.scalar(
        f"SELECT count(*) FROM {LEAVING} AND e.deployment_id = ? AND e.flow_run_id <> ?", (deployment_id, but)
    )
    return leaving


def write_state(tx: Tx, runs: str, run_id: str, state: State, changes: Mapping[str, Any]) -> None:
    """The run of table `runs` (flow_runs or task_runs) is in `state`, its columns changed; a policy patch is merged.

    The state row of a task run may be there already (its event was sent twice): then it stays.
    """
    add_state(tx, runs, run_id, state)
    values = dict(changes)
    policy = values.pop("empirical_policy", None)
    terms = [f"{name} = ?" for name in values]
    params = [to_param(value) for value in values.values()]
    if policy is not None:
        # SQLite's json_patch drops a member whose patch is null, which is what absent means to the client.
        terms.append("empirical_policy = json_patch(empirical_policy, ?)")
        params.append(orjson.dumps(policy).decode())
    tx.execute(
        f"UPDATE {runs} SET {', '.join(terms)}, updated = ? WHERE id = ? AND workspace_id = ?",
        (*params, tx.now, run_id, tx.workspace),
    )


def add_state(tx: Tx, runs: str, run_id: str, state: State) -> None:
    """The state is one of the run's, and who watches runs is woken."""
    states, owner = ("flow_run_states", "flow_run_id") if runs == "flow_runs" else ("task_run_states", "task_run_id")
    tx.execute(
        f"INSERT INTO {states} (id, workspace_id, {owner}, type, name, timestamp, message, state_details, data) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            state.id,
            tx.workspace,
            run_id,
            state.type.value,
            state.name,
            state.timestamp_us,
            state.message,
            orjson.dumps(dict(state.details)).decode(),
            None if state.data is None else orjson.dumps(state.data).decode(),
        ),
    )
    tx.publish(Topic.RUNS)


def state_wire(state: State) -> Wire:
    """A state that was just written, as reading it would give it."""
    return {
        "id": state.id,
        "type": state.type.value,
        "name": state.name,
        "timestamp": iso(state.timestamp_us),
        "message": state.message,
        "state_details": dict(state.details),
        "data": state.data,
    }


def patched(policy: str, patch: Mapping[str, Any]) -> str:
    """A stored policy (JSON) with `patch` merged: a member that is null is dropped."""
    merged = {**orjson.loads(policy), **patch}
    return orjson.dumps({name: value for name, value in merged.items() if value is not None}).decode()


def by_idempotency_key(tx: Tx, flow_id: str, key: str) -> str | None:
    """The id of the flow's run that was created with `key`, or None."""
    found: str | None = tx.scalar(
        "SELECT id FROM flow_runs WHERE flow_id = ? AND idempotency_key = ? AND workspace_id = ?",
        (flow_id, key, tx.workspace),
    )
    return found


def merge_labels(tx: Tx, run_id: str, labels: Mapping[str, Any]) -> None:
    """The run's labels include `labels`. Raises ManagedError(NOT_FOUND)."""
    done = tx.execute(
        "UPDATE flow_runs SET labels = json_patch(labels, ?), updated = ? WHERE id = ? AND workspace_id = ?",
        (orjson.dumps(dict(labels)).decode(), tx.now, run_id, tx.workspace),
    )
    if not done.rowcount:
        raise not_found("Flow run", run_id)


def delete(tx: Tx, run_id: str) -> None:
    """The run, its states, inputs and task runs are gone; its artifacts stay. Raises ManagedError(NOT_FOUND).

    A live execution is asked to stop; the engine removes what is left of it.
    """
    done = tx.execute("DELETE FROM flow_runs WHERE id = ? AND workspace_id = ?", (run_id, tx.workspace))
    if not done.rowcount:
        raise not_found("Flow run", run_id)
    tx.publish(Topic.RUNS, Topic.SLOTS, Topic.EXECUTIONS)


def set_infrastructure(tx: Tx, run_id: str, pid: str) -> None:
    """The run is known to have infrastructure, so that a cancel asks it to stop instead of ending the run at once."""
    tx.execute(
        "UPDATE flow_runs SET infrastructure_pid = ? WHERE id = ? AND workspace_id = ?", (pid, run_id, tx.workspace)
    )


def current(tx: Tx, run_id: str) -> State | None:
    """The run's state, of whatever workspace; None when there is no such run or it has no state. For the engine."""
    row = tx.one(
        "SELECT s.id AS s_id, s.type AS s_type, s.name AS s_name, s.timestamp AS s_timestamp, s.message AS s_message, "
        "s.state_details AS s_details, s.data AS s_data FROM flow_runs AS r JOIN flow_run_states AS s ON s.id = r.state_id "
        "WHERE r.id = ?",
        (run_id,),
    )
    return None if row is None else loaded_state(row)


def retries_in_process(tx: Tx, run_id: str) -> bool:
    """Whether the run waits in its own process for its next try; a run that a user retries gets a new one."""
    found = tx.scalar(
        "SELECT json_extract(empirical_policy, '$.retry_type') FROM flow_runs WHERE id = ? AND state_name = 'AwaitingRetry'",
        (run_id,),
    )
    return bool(found == "in_process")


def cancelling_since(tx: Tx, run_id: str, after_us: int) -> int | None:
    """When the run was last asked to cancel, if that was after the given moment."""
    found = tx.scalar(
        "SELECT max(timestamp) FROM flow_run_states WHERE flow_run_id = ? AND type = 'CANCELLING' AND timestamp >= ?",
        (run_id, after_us),
    )
    return None if found is None else int(found)


def explain(tx: Tx, state_id: str, message: str) -> None:
    """The state has another message; nothing else of it changes."""
    tx.execute("UPDATE flow_run_states SET message = ? WHERE id = ?", (message, state_id))
