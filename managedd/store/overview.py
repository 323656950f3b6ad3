"""The operator's view: every workspace, pool and queue with its slots, why each queue's next run waits, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.clock import iso
from managedd.model.limits import AWAITING_HOST, TokenBucket
from managedd.model.metering import month_of, used_of
from managedd.store import executions, plans, rows, usage
from managedd.store.flow_runs import slots_leaving
from managedd.store.queue import LINGERING, MANAGED
from managedd.store.resources import OCCUPYING_SQL, WORK_POOL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from managedd.model.metering import Month
    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire

MAX_FOUND_RUNS = 20
MAX_LIMITED = 10
_ALL = -1
_TIMES = frozenset(
    {
        "claimed_at",
        "pulled_at",
        "created_at",
        "installed_at",
        "started_at",
        "exited_at",
        "finalized_at",
        "stop_requested_at",
    }
)
_REPORTED = (
    "id, flow_run_id, attempt, phase, driver, image, memory_limit_bytes, cpu_limit, time_limit_seconds, claimed_at, pulled_at, "
    "created_at, installed_at, started_at, exited_at, finalized_at, exit_code, oom_killed, peak_memory_bytes, stop_requested_at, stop_reason, "
    "end_cause, end_message, evidence"
)


# --- slots and queues --------------------------------------------------------------------------------------------------


def workspaces(tx: Tx, zone: tzinfo) -> list[Wire]:
    """Every workspace with the slots of its plan, which only runs of managed pools take, and this month's compute minutes."""
    found = tx.all(
        f"""
        SELECT w.id, w.account_id, a.handle AS account, w.handle, w.plan,
               (SELECT count(*) FROM flow_runs AS r JOIN work_queues AS q ON q.id = r.work_queue_id
                JOIN work_pools AS p ON p.id = q.work_pool_id
                WHERE q.workspace_id = w.id AND p.type = '{MANAGED}' AND r.state_type IN {OCCUPYING_SQL}) AS slots_taken
        FROM workspaces AS w JOIN accounts AS a ON a.id = w.account_id WHERE w.removed IS NULL ORDER BY a.handle, w.handle
        """
    )
    known, month = plans.every(tx), month_of(tx.now, zone)
    used = usage.used_by_all(tx, month, zone)
    shown = []
    for row in found:
        plan = known.get(row["plan"]) or plans.nothing(row["plan"])
        shown.append(
            {
                **dict(row),
                "slots": plan.concurrent_runs,
                "compute_minutes_used": used[row["id"]].minutes,
                "compute_minutes": plan.compute_minutes,
            }
        )
    return shown


def pools(tx: Tx, among: Sequence[Wire], engine_problem: str | None, zone: tzinfo) -> list[Wire]:
    """Every work pool of the workspaces with its queues, most urgent first, and why the next run of each waits."""
    shown = []
    month, unstarted = month_of(tx.now, zone), executions.unstarted(tx)
    for each in among:
        workspace = {**each, "used_up": _used_up(each, unstarted.get(each["id"], 0), month)}
        scoped = tx.scoped(workspace["id"])
        for pool in rows.find(scoped, WORK_POOL, [], "NAME_ASC", _ALL, is_answer=False):
            queues = [
                _queue(tx, workspace, pool, queue, engine_problem)
                for queue in tx.all(
                    "SELECT id, name, priority, is_paused, concurrency_limit FROM work_queues WHERE work_pool_id = ? "
                    "ORDER BY priority, id",
                    (pool["id"],),
                )
            ]
            shown.append(
                {
                    "id": pool["id"],
                    "workspace_id": workspace["id"],
                    "name": pool["name"],
                    "type": pool["type"],
                    "status": pool["status"],
                    "slots_taken": pool["active_slots"],
                    "slots": pool["concurrency_limit"],
                    "queues": queues,
                }
            )
    return shown


def _used_up(workspace: Wire, unstarted: int, month: Month) -> str | None:
    """How the compute time of a workspace stands that has none left, by which nothing of it is started; None: it has some."""
    limit, used = workspace["compute_minutes"], workspace["compute_minutes_used"]
    if limit is None or used + unstarted < limit:
        return None
    return used_of(limit, used, kept=unstarted, plan=workspace["plan"], month=month)


def _queue(tx: Tx, workspace: Wire, pool: Wire, queue: Row, engine_problem: str | None) -> Wire:
    counted = tx.one(
        f"""
        SELECT (SELECT count(*) FROM flow_runs WHERE work_queue_id = :queue AND state_type IN {OCCUPYING_SQL}) AS taken,
               count(*) FILTER (WHERE {_DUE}) AS due, count(*) FILTER (WHERE NOT ({_DUE})) AS later
        FROM flow_runs AS r WHERE r.work_queue_id = :queue AND r.state_type = 'SCHEDULED'
        """,
        {"queue": queue["id"], "now": tx.now},
    )
    assert counted is not None
    made: Wire = {
        "id": queue["id"],
        "name": queue["name"],
        "priority": queue["priority"],
        "is_paused": bool(queue["is_paused"]),
        "slots_taken": counted["taken"],
        "slots": queue["concurrency_limit"],
        "due": counted["due"],
        "later": counted["later"],
    }
    made["head"] = _head(tx, workspace, pool, made, engine_problem)
    return made


_DUE = "coalesce(r.next_scheduled_start_time, r.created) <= :now OR r.state_name = 'AwaitingConcurrencySlot'"


def _head(tx: Tx, workspace: Wire, pool: Wire, queue: Wire, engine_problem: str | None) -> Wire | None:
    run = tx.one(
        f"""
        SELECT r.id, r.name, r.state_name, s.message, coalesce(r.next_scheduled_start_time, r.created) AS due_at, {_DUE} AS is_due, d.id AS deployment_id,
               d.name AS deployment, d.concurrency_limit AS deployment_slots,
               (SELECT count(*) FROM flow_runs AS o WHERE o.deployment_id = d.id AND o.state_type IN {OCCUPYING_SQL})
                   AS deployment_taken,
               EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = r.id AND e.phase NOT IN ('FINALIZED', 'LOST'))
                   AS is_ending
        FROM flow_runs AS r LEFT JOIN deployments AS d ON d.id = r.deployment_id LEFT JOIN flow_run_states AS s ON s.id = r.state_id
        WHERE r.work_queue_id = :queue AND r.state_type = 'SCHEDULED'
        ORDER BY r.next_scheduled_start_time, r.id LIMIT 1
        """,
        {"queue": queue["id"], "now": tx.now},
    )
    if run is None:
        return None
    lingering = tx.all(
        f"WITH {LINGERING} SELECT pool_id, queue_id FROM lingering WHERE workspace_id = ?", (workspace["id"],)
    )
    found = {
        **dict(run),
        "lingering": lingering,
        "leaving": 0 if run["deployment_id"] is None else slots_leaving(tx, run["deployment_id"], but=run["id"]),
        "starts": _starts_wait(tx, workspace["id"]),
    }
    waits_for, reason = _obstacle(workspace, pool, queue, found, engine_problem)
    return {
        "id": run["id"],
        "name": run["name"],
        "state_name": run["state_name"],
        "due": iso(run["due_at"]),
        "waits_for": waits_for,
        "reason": reason,
    }


def _starts_wait(tx: Tx, workspace_id: str) -> int | None:
    """Until when the workspace's plan starts no run of it; None: it starts one now."""
    row = tx.one("SELECT starts_taken, starts_as_of FROM workspaces WHERE id = ?", (workspace_id,))
    plan = plans.of_workspace(tx, workspace_id)
    if row is None or plan.start_burst is None or plan.starts_per_minute is None or row["starts_as_of"] > tx.now:
        return None
    bucket = TokenBucket(
        capacity=plan.start_burst,
        refill_per_second=plan.starts_per_minute / 60,
        taken=row["starts_taken"],
        as_of_us=row["starts_as_of"],
    )
    return None if bucket.has(1, tx.now) else bucket.ready_us(1, tx.now)


def _obstacle(workspace: Wire, pool: Wire, queue: Wire, run: Wire, engine_problem: str | None) -> tuple[str, str]:
    """The first thing in the way, from the widest to the narrowest."""
    if not run["is_due"]:
        return "time", f"scheduled for {iso(run['due_at'])}"
    if pool["is_paused"]:
        return "work_pool_paused", f"work pool {pool['name']!r} is paused"
    if queue["is_paused"]:
        return "work_queue_paused", f"work queue {queue['name']!r} is paused"
    managed = pool["type"] == MANAGED
    if managed and engine_problem is not None:
        return "engine", engine_problem
    if managed and workspace["used_up"] is not None:
        # What it was told when it began to wait may be another plan's, or yesterday's.
        return "compute_hours", workspace["used_up"]
    lingering = [row["pool_id"] == pool["id"] for row in run["lingering"]] if managed else []
    in_queue = sum(row["queue_id"] == queue["id"] for row in run["lingering"]) if managed else 0
    slots = [
        (
            "work_pool_slots",
            f"work pool {pool['name']!r}",
            pool["active_slots"],
            sum(lingering),
            pool["concurrency_limit"],
        ),
        ("work_queue_slots", f"work queue {queue['name']!r}", queue["slots_taken"], in_queue, queue["slots"]),
        (
            "deployment_slots",
            f"deployment {run['deployment']!r}",
            run["deployment_taken"],
            run["leaving"],
            run["deployment_slots"],
        ),
    ]
    if managed:
        owner = f"plan {workspace['plan']!r} of workspace {workspace['handle']!r}"
        slots.insert(0, ("workspace_slots", owner, workspace["slots_taken"], len(lingering), workspace["slots"]))
    for waits_for, whose, taken, also, limit in slots:
        if limit is not None and taken + also >= limit:
            leaving = f", and {also} by containers of runs that have ended or wait" if also else ""
            return waits_for, f"{whose}: {taken} of {limit} slots taken{leaving}"
    if managed and run["starts"] is not None:
        return "starts", f"plan {workspace['plan']!r} starts no more runs until {iso(run['starts'])}"
    if managed and run["state_name"] == AWAITING_HOST:
        return "host_capacity", run["message"]
    if run["is_ending"]:
        return "attempt", "its last attempt is being finished"
    if not managed:
        return "worker", "a worker has to fetch it" if pool["status"] == "READY" else "no worker of the pool is online"
    return "nothing", "about to start"


# --- executions --------------------------------------------------------------------------------------------------------


def running(tx: Tx, readings: Mapping[str, Mapping[str, Any]]) -> list[Wire]:
    """Every execution that has not ended, oldest claim first, with the latest reading of its container."""
    found = tx.all(
        """
        SELECT e.id, e.workspace_id, e.flow_run_id, r.name AS flow_run_name, r.state_name, p.name AS work_pool_name, e.attempt,
               e.phase, e.driver, e.image, e.claimed_at, e.started_at, e.installed_at, e.stop_reason, e.memory_limit_bytes, e.cpu_limit,
               e.time_limit_seconds
        FROM executions AS e LEFT JOIN flow_runs AS r ON r.id = e.flow_run_id LEFT JOIN work_pools AS p ON p.id = e.work_pool_id
        WHERE e.phase NOT IN ('FINALIZED', 'LOST') ORDER BY e.claimed_at, e.id
        """
    )
    return [
        {
            **_timed(row),
            "memory_bytes": readings.get(row["id"], {}).get("memory_bytes"),
            "peak_memory_bytes": readings.get(row["id"], {}).get("peak_memory_bytes"),
        }
        for row in found
    ]


def limited(tx: Tx, *, since_us: int) -> list[Wire]:
    """Of every workspace, the executions that a limit has ended since then, the last first: `MAX_LIMITED` at most."""
    found = tx.all(
        f"""
        SELECT e.id, e.workspace_id, e.flow_run_id, r.name AS flow_run_name, e.attempt, e.exited_at, e.end_cause, e.end_message,
               json_extract(e.evidence, '$.end.limit') AS "limit", json_extract(e.evidence, '$.end.reached') AS reached,
               json_extract(e.evidence, '$.end.unit') AS unit
        FROM executions AS e INDEXED BY executions_limited LEFT JOIN flow_runs AS r ON r.id = e.flow_run_id
        WHERE e.end_cause IN ('memory', 'time', 'quota', 'disk', 'pids') AND e.exited_at >= ? ORDER BY e.exited_at DESC LIMIT {MAX_LIMITED}
        """,
        (since_us,),
    )
    return [_timed(row) for row in found]


def executions_of(tx: Tx, flow_run_id: str) -> list[Wire]:
    """Every attempt of a run of this workspace, first one first, with its evidence."""
    found = tx.all(
        f"SELECT {_REPORTED} FROM executions WHERE flow_run_id = ? AND workspace_id = ? ORDER BY attempt",
        (flow_run_id, tx.workspace),
    )
    return [
        {**_timed(row), "oom_killed": bool(row["oom_killed"]), "evidence": orjson.Fragment(row["evidence"])}
        for row in found
    ]


def _timed(row: Row) -> Wire:
    return {
        name: iso(value) if name in _TIMES and value is not None else value
        for name, value in zip(row.keys(), row, strict=True)
    }


def find_runs(tx: Tx, which: str) -> list[Wire]:
    """The runs that `which` may mean, in every workspace, newest first: a whole id, the beginning of one, or a name."""
    found = tx.all(
        """
        SELECT r.id, w.account_id, r.workspace_id, r.name, r.state_type, r.state_name, r.created
        FROM (SELECT id FROM flow_runs WHERE :id <> '' AND id >= :id AND id < :id || 'g'
              UNION SELECT id FROM flow_runs WHERE workspace_id IN (SELECT id FROM workspaces) AND name = :name) AS f
        JOIN flow_runs AS r ON r.id = f.id JOIN workspaces AS w ON w.id = r.workspace_id AND w.removed IS NULL
        ORDER BY r.created DESC, r.id LIMIT :limit
        """,
        {"id": _id_prefix(which), "name": which, "limit": MAX_FOUND_RUNS},
    )
    return [{**dict(row), "created": iso(row["created"])} for row in found]


def _id_prefix(which: str) -> str:
    """`which` as the beginning of an id in its stored spelling, or nothing when no id begins so."""
    if ids.is_uuid(which):
        return ids.canonical(which)
    lowered = which.lower()
    return lowered if lowered and all(char in "0123456789abcdef-" for char in lowered) else ""
