"""The plans in force, and which one a workspace is on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson

from managedd.bus import Topic
from managedd.errors import not_found
from managedd.model.limits import HostLimits, OnExhausted, Plan
from managedd.store import meta, queue
from managedd.store.resources import OCCUPYING_SQL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Tx

_HOST = "host_limits"
"""A fact of the store."""


def replace(tx: Tx, plans: Iterable[Plan]) -> None:
    """These plans are in force and no other; what waits is looked at again."""
    tx.execute("DELETE FROM plans")
    for plan in plans:
        tx.execute("INSERT INTO plans (name, limits) VALUES (?, ?)", (plan.name, orjson.dumps(asdict(plan)).decode()))
    queue.forget_needs(tx)
    tx.publish(Topic.SLOTS)


def every(tx: Tx) -> dict[str, Plan]:
    """All plans, by name."""
    return {row["name"]: _load(row["limits"]) for row in tx.all("SELECT name, limits FROM plans ORDER BY name")}


def of_workspace(tx: Tx, workspace_id: str) -> Plan:
    """The plan that the workspace is on. Raises ManagedError(NOT_FOUND) when there is no such workspace."""
    row = tx.one(
        "SELECT w.plan, p.limits FROM workspaces AS w LEFT JOIN plans AS p ON p.name = w.plan WHERE w.id = ?",
        (workspace_id,),
    )
    if row is None:
        raise not_found("Workspace", workspace_id)
    return nothing(row["plan"]) if row["limits"] is None else _load(row["limits"])


def in_use(tx: Tx, workspace_id: str) -> tuple[int, int]:
    """How many managed pools the workspace has, and how many runs of them hold a slot."""
    pools = tx.scalar(
        f"SELECT count(*) FROM work_pools WHERE workspace_id = ? AND type = '{queue.MANAGED}'", (workspace_id,)
    )
    runs = tx.scalar(
        "SELECT count(*) FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id "
        "JOIN work_pools AS p ON p.id = q.work_pool_id "
        f"WHERE q.workspace_id = ? AND p.type = '{queue.MANAGED}' AND r.state_type IN {OCCUPYING_SQL}",
        (workspace_id,),
    )
    return pools, runs


def put_host(tx: Tx, host: HostLimits) -> None:
    """What runs may reserve of the host is known to whoever checks what somebody asks for."""
    meta.put(tx, _HOST, orjson.dumps(asdict(host)).decode())


def host(tx: Tx) -> HostLimits:
    """What runs may reserve of the host, as the engine told it last; no limits before it did."""
    found = meta.get(tx, _HOST)
    return HostLimits() if found is None else HostLimits(**orjson.loads(found))


def nothing(name: str) -> Plan:
    """What a plan allows that the settings do not have: it must not mean "no limits"."""
    return Plan(name=name, concurrent_runs=0, managed_pools=0, compute_hours=0)


def _load(limits: str) -> Plan:
    values: dict[str, Any] = orjson.loads(limits)
    images = values["images"]
    return Plan(
        **{
            **values,
            "on_exhausted": OnExhausted(values["on_exhausted"]),
            "images": None if images is None else tuple(images),
        }
    )
