"""Deployments: what is bespoke about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.bus import Topic
from managedd.clock import iso
from managedd.errors import not_found
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW_RUN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from managedd.store.database import Tx
    from managedd.store.rows import Wire


def by_names(tx: Tx, flow_name: str, name: str) -> Wire:
    """The deployment `name` of the flow `flow_name`. Raises ManagedError(NOT_FOUND)."""
    deployment_id = tx.scalar(
        "SELECT deployments.id FROM flows JOIN deployments ON deployments.flow_id = flows.id "
        "WHERE flows.workspace_id = ? AND flows.name = ? AND deployments.name = ?",
        (tx.workspace, flow_name, name),
    )
    if deployment_id is None:
        raise not_found(DEPLOYMENT.label, f"{flow_name}/{name}")
    return rows.get(tx, DEPLOYMENT, deployment_id)


def need(tx: Tx, deployment_id: str) -> dict[str, Any]:
    """The deployment for Python, JSON parsed. Raises ManagedError(NOT_FOUND)."""
    return rows.need(tx, DEPLOYMENT, id=deployment_id)


def updated(tx: Tx, deployment_id: str) -> int | None:
    """When the deployment was last changed, microseconds; None when there is none."""
    moment: int | None = tx.scalar(
        "SELECT updated FROM deployments WHERE id = ? AND workspace_id = ?", (deployment_id, tx.workspace)
    )
    return moment


def pool_of(tx: Tx, flow_id: str, name: str) -> str | None:
    """The name of the pool that the flow's deployment `name` has, if there is such a deployment and it has one."""
    found = rows.record(tx, DEPLOYMENT, flow_id=flow_id, name=name)
    return None if found is None else found["work_pool_name"]


def id_of(tx: Tx, flow_id: str, name: str) -> str | None:
    """The id of the flow's deployment `name`, if there is one."""
    found: str | None = tx.scalar(
        "SELECT id FROM deployments WHERE flow_id = ? AND name = ? AND workspace_id = ?", (flow_id, name, tx.workspace)
    )
    return found


def upsert(tx: Tx, key: Mapping[str, Any], sent: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[str, bool]:
    """The deployment with `key` (flow_id and name) has the values `sent`; a new one also `defaults`. Its id, and whether it is new."""
    found = id_of(tx, key["flow_id"], key["name"])
    if found is None:
        return rows.insert(tx, DEPLOYMENT, {**defaults, **sent, **key}), True
    rows.patch(tx, DEPLOYMENT, found, sent)
    return found, False


_UNSTARTED = (
    "deployment_id = ? AND workspace_id = ? AND state_type = 'SCHEDULED' AND state_name <> 'AwaitingConcurrencySlot' "
    "AND run_count = 0"
)


def drop_scheduled(tx: Tx, deployment_id: str, *, schedule_id: str | None = None, overdue: bool = False) -> int:
    """The runs that the scheduler made for the deployment and that nothing has begun are gone; how many those were.

    With `schedule_id`, only that schedule's. Those that are due already stay, unless `overdue`.
    """
    sql = f"DELETE FROM flow_runs WHERE {_UNSTARTED} AND auto_scheduled = 1"
    params: list[Any] = [deployment_id, tx.workspace]
    if schedule_id is not None:
        sql += " AND schedule_id = ?"
        params.append(schedule_id)
    if not overdue:
        sql += " AND next_scheduled_start_time > ?"
        params.append(tx.now)
    dropped = tx.execute(sql, params).rowcount
    if dropped:
        tx.publish(Topic.RUNS)
    return dropped


def replan(tx: Tx, deployment_id: str, *, schedule_id: str | None = None, overdue: bool = False) -> None:
    """What the deployment (or one schedule of it) was going to run is planned anew: the old runs are gone, the scheduler is awake."""
    drop_scheduled(tx, deployment_id, schedule_id=schedule_id, overdue=overdue)
    tx.publish(Topic.SCHEDULES)


def pause(tx: Tx, deployment_id: str, *, paused: bool) -> None:
    """The deployment is paused, and what it had scheduled is gone; or it is not, and is scheduled at once."""
    rows.patch(tx, DEPLOYMENT, deployment_id, {"paused": paused})
    if paused:
        drop_scheduled(tx, deployment_id, overdue=True)
    tx.publish(Topic.SCHEDULES)


def delete(tx: Tx, deployment_id: str) -> None:
    """The deployment, its schedules and its waiting runs are gone; runs that began stay. Raises ManagedError(NOT_FOUND)."""
    tx.execute(f"DELETE FROM flow_runs WHERE {_UNSTARTED}", (deployment_id, tx.workspace))
    rows.delete(tx, DEPLOYMENT, deployment_id)
    tx.publish(Topic.RUNS, Topic.SLOTS, Topic.SCHEDULES)


def poll(tx: Tx, deployment_ids: Sequence[str], before_us: int | None, limit: int | None) -> list[Wire]:
    """The runs of these deployments that are scheduled not later than `before_us`, in due order; the deployments count as polled."""
    wanted = orjson.dumps(list(deployment_ids)).decode()
    # `updated` stays: it tells of changes that somebody made.
    tx.execute(
        "UPDATE deployments SET last_polled = ? WHERE workspace_id = ? AND id IN (SELECT value FROM json_each(?))",
        (tx.now, tx.workspace, wanted),
    )
    sql = "flow_runs.state_type = 'SCHEDULED' AND flow_runs.deployment_id IN (SELECT value FROM json_each(?))"
    params: list[Any] = [wanted]
    if before_us is not None:
        sql += " AND flow_runs.next_scheduled_start_time <= ?"
        params.append(before_us)
    return rows.find(tx, FLOW_RUN, [], "NEXT_SCHEDULED_START_TIME_ASC", limit, extra=(sql, params))


def latest_runs(tx: Tx, deployment_ids: Sequence[str]) -> list[Wire]:
    """Of each of these deployments the run that was due last, if one ever was, in no particular order: what a list says of it."""
    latest = (
        "SELECT r.id FROM flow_runs AS r WHERE r.deployment_id = value AND r.workspace_id = ? "
        "AND r.expected_start_time <= ? ORDER BY r.expected_start_time DESC LIMIT 1"
    )
    found = tx.all(
        "SELECT deployment_id, id, name, state_type, state_name, start_time, expected_start_time, end_time FROM flow_runs "
        f"WHERE id IN (SELECT ({latest}) FROM json_each(?))",
        (tx.workspace, tx.now, orjson.dumps(list(deployment_ids)).decode()),
    )
    return [
        {**dict(row), **{name: None if row[name] is None else iso(row[name]) for name in _TIMES_OF_RUN}}
        for row in found
    ]


_TIMES_OF_RUN = ("start_time", "expected_start_time", "end_time")


def missing_documents(tx: Tx, document_ids: Sequence[str]) -> list[str]:
    """Which of these block documents do not exist in this workspace."""
    found = tx.all(
        "SELECT id FROM block_documents WHERE workspace_id = ? AND id IN (SELECT value FROM json_each(?))",
        (tx.workspace, orjson.dumps(list(document_ids)).decode()),
    )
    known = {row["id"] for row in found}
    return [document_id for document_id in document_ids if document_id not in known]
