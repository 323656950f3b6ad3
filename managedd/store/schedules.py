"""Schedules of deployments: what is bespoke about them, and which of them the scheduler has to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from managedd.errors import conflict, not_found
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT_SCHEDULE
from managedd.store.transaction import IntegrityFault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire

MAX_PER_DEPLOYMENT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Hungry:
    """A schedule with fewer runs ahead than it should have."""

    id: str
    workspace_id: str
    deployment_id: str
    schedule: Mapping[str, Any]
    """As it is stored."""
    max_scheduled_runs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A schedule of a deployment."""

    id: str
    schedule: Mapping[str, Any]
    """As it is stored."""
    active: bool


def of_deployment(tx: Tx, deployment_id: str) -> list[Wire]:
    """The deployment's schedules, the one that was changed last first."""
    clause = ("deployment_schedules.deployment_id = ?", [deployment_id])
    return rows.find(tx, DEPLOYMENT_SCHEDULE, [], "UPDATED_DESC", MAX_PER_DEPLOYMENT, extra=clause)


def slugs(tx: Tx, deployment_id: str) -> dict[str, str | None]:
    """The deployment's schedules: id → slug."""
    found = tx.all(
        "SELECT id, slug FROM deployment_schedules WHERE deployment_id = ? AND workspace_id = ? ORDER BY created, id",
        (deployment_id, tx.workspace),
    )
    return {row["id"]: row["slug"] for row in found}


def active(tx: Tx, deployment_id: str) -> dict[str, Any]:
    """The deployment's active schedules: id → the schedule as it is stored."""
    found = tx.all(
        "SELECT id, schedule FROM deployment_schedules WHERE deployment_id = ? AND workspace_id = ? AND active ORDER BY id",
        (deployment_id, tx.workspace),
    )
    return {row["id"]: orjson.loads(row["schedule"]) for row in found}


def stored(tx: Tx, deployment_id: str) -> list[Stored]:
    """The deployment's schedules, active or not, in the order in which they were made."""
    found = tx.all(
        "SELECT id, schedule, active FROM deployment_schedules WHERE deployment_id = ? AND workspace_id = ? ORDER BY rowid",
        (deployment_id, tx.workspace),
    )
    return [Stored(id=row["id"], schedule=orjson.loads(row["schedule"]), active=bool(row["active"])) for row in found]


def add(tx: Tx, deployment_id: str, values: Mapping[str, Any]) -> str:
    """The deployment has one more schedule; its id. Raises ManagedError(CONFLICT) when the slug is taken."""
    count = tx.scalar("SELECT count(*) FROM deployment_schedules WHERE deployment_id = ?", (deployment_id,))
    if count >= MAX_PER_DEPLOYMENT:
        raise conflict(f"A deployment may have at most {MAX_PER_DEPLOYMENT} schedules.")
    try:
        return rows.insert(tx, DEPLOYMENT_SCHEDULE, {**values, "deployment_id": deployment_id})
    except IntegrityFault as fault:
        raise _slug_taken(fault) from fault


def change(tx: Tx, deployment_id: str, schedule_id: str, values: Mapping[str, Any]) -> None:
    """The deployment's schedule has `values`. Raises ManagedError NOT_FOUND, or CONFLICT when the slug is taken."""
    rows.need(tx, DEPLOYMENT_SCHEDULE, id=schedule_id, deployment_id=deployment_id)
    try:
        rows.patch(tx, DEPLOYMENT_SCHEDULE, schedule_id, values)
    except IntegrityFault as fault:
        raise _slug_taken(fault) from fault


def _slug_taken(fault: IntegrityFault) -> Exception:
    unique = fault.constraint.startswith("UNIQUE")
    return conflict("Schedule slugs must be unique within a deployment.") if unique else fault


def free_slugs(tx: Tx, schedule_ids: list[str]) -> None:
    """These schedules have no slug, so that others may take what they had."""
    tx.executemany(
        "UPDATE deployment_schedules SET slug = NULL WHERE id = ? AND workspace_id = ?",
        [(schedule_id, tx.workspace) for schedule_id in schedule_ids],
    )


def remove(tx: Tx, deployment_id: str, schedule_id: str) -> None:
    """The deployment no longer has this schedule. Raises ManagedError(NOT_FOUND)."""
    done = tx.execute(
        "DELETE FROM deployment_schedules WHERE id = ? AND deployment_id = ? AND workspace_id = ?",
        (schedule_id, deployment_id, tx.workspace),
    )
    if not done.rowcount:
        raise not_found(DEPLOYMENT_SCHEDULE.label, schedule_id)


def remove_all(tx: Tx, deployment_id: str) -> None:
    """The deployment has no schedule."""
    tx.execute(
        "DELETE FROM deployment_schedules WHERE deployment_id = ? AND workspace_id = ?", (deployment_id, tx.workspace)
    )


# What lies ahead, for the engine: over all workspaces, and only what may run. The run's terms match the index flow_runs_schedule.
_AHEAD = """
SELECT s.id, s.workspace_id, s.deployment_id, s.schedule, s.max_scheduled_runs, count(r.id) AS ahead,
       max(r.next_scheduled_start_time) AS last_us, min(coalesce(s.max_scheduled_runs, :max_runs), :max_runs) AS most
FROM deployment_schedules AS s
JOIN deployments AS d ON d.id = s.deployment_id
LEFT JOIN flow_runs AS r ON r.schedule_id = s.id AND r.state_type = 'SCHEDULED' AND r.next_scheduled_start_time > :now
WHERE s.active AND NOT d.paused AND s.id > :after
GROUP BY s.id
"""


def hungry(tx: Tx, *, min_runs: int, max_runs: int, horizon_us: int, after: str, limit: int) -> list[Hungry]:
    """Active schedules after id `after` that have fewer than `min_runs` runs ahead or none later than `horizon_us`, by id.

    Those that have as many as they may (`max_runs`, or their own maximum) are not among them.
    """
    found = tx.all(
        f"SELECT id, workspace_id, deployment_id, schedule, max_scheduled_runs FROM ({_AHEAD}) "
        "WHERE ahead < most AND (ahead < :min_runs OR last_us < :horizon) ORDER BY id LIMIT :limit",
        {
            "now": tx.now,
            "min_runs": min_runs,
            "max_runs": max_runs,
            "horizon": horizon_us,
            "after": after,
            "limit": limit,
        },
    )
    return [Hungry(**{**dict(row), "schedule": orjson.loads(row["schedule"])}) for row in found]


def first_to_run_dry(tx: Tx, *, max_runs: int, before_us: int) -> int | None:
    """When the first active schedule has no run ahead any more, if that is before `before_us`; microseconds."""
    moment: int | None = tx.scalar(
        f"SELECT min(last_us) FROM ({_AHEAD}) WHERE last_us < :before",
        {"now": tx.now, "max_runs": max_runs, "after": "", "before": before_us},
    )
    return moment
