"""What a flow run belongs to: its parents, and the things that its events name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from managedd.model.events import Named, RunSurroundings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Row, Tx

_ANCESTORS = """
WITH RECURSIVE above(id) AS (
    SELECT flow_runs.id FROM flow_runs WHERE flow_runs.id = ? AND flow_runs.workspace_id = ?
    UNION
    SELECT task_runs.flow_run_id FROM above
    JOIN flow_runs ON flow_runs.id = above.id
    JOIN task_runs ON task_runs.id = flow_runs.parent_task_run_id AND task_runs.workspace_id = flow_runs.workspace_id
    WHERE task_runs.flow_run_id IS NOT NULL
)
SELECT 1 FROM above WHERE id = ?
"""
_FOREIGN = """
WITH RECURSIVE above(asked, id) AS (
    SELECT flow_runs.id, flow_runs.id FROM json_each(:asked) AS given
    JOIN flow_runs ON flow_runs.id = given.value AND flow_runs.workspace_id = :workspace
    UNION
    SELECT above.asked, task_runs.flow_run_id FROM above
    JOIN flow_runs ON flow_runs.id = above.id
    JOIN task_runs ON task_runs.id = flow_runs.parent_task_run_id AND task_runs.workspace_id = flow_runs.workspace_id
    WHERE task_runs.flow_run_id IS NOT NULL
)
SELECT value FROM json_each(:asked) WHERE value <> :of AND value NOT IN (SELECT asked FROM above WHERE id = :of)
"""
# UNION, not UNION ALL: a circle of parents, which only broken data has, ends too.


def is_descendant(tx: Tx, run_id: str, of: str) -> bool:
    """Whether the flow run is `of` itself, or was started below it: subflows of any depth, runs of deployments too."""
    return run_id == of or tx.scalar(_ANCESTORS, (run_id, tx.workspace, of)) is not None


def first_foreign(tx: Tx, run_ids: Iterable[str], of: str) -> str | None:
    """One of `run_ids` that is neither `of` nor below it, or None."""
    found: str | None = tx.scalar(f"{_FOREIGN} LIMIT 1", _asked(tx, run_ids, of))
    return found


def foreign(tx: Tx, run_ids: Iterable[str], of: str) -> frozenset[str]:
    """Those of `run_ids` that are neither `of` nor below it; an unknown run is foreign."""
    return frozenset(row[0] for row in tx.all(_FOREIGN, _asked(tx, run_ids, of)))


def foreign_task_runs(tx: Tx, task_run_ids: Iterable[str], of: str) -> frozenset[str]:
    """Those of `task_run_ids` that belong to somebody else than the flow run `of` and those below it.

    A task run of no flow run is nobody's, and so is an unknown one: what tells of it may come after what names it. Another workspace's is
    unknown here.
    """
    owners = owners_of(tx, task_run_ids)
    others = foreign(tx, {owner for owner in owners.values() if owner not in {None, of}}, of)
    return frozenset(task for task, owner in owners.items() if owner in others)


def owners_of(tx: Tx, task_run_ids: Iterable[str]) -> dict[str, str | None]:
    """The flow runs that the task runs belong to, None for no flow run's, by their ids; those that are not known are left out."""
    asked = orjson.dumps(list(task_run_ids)).decode()
    rows = tx.all(
        "SELECT id, flow_run_id FROM task_runs WHERE id IN (SELECT value FROM json_each(?)) AND workspace_id = ?",
        (asked, tx.workspace),
    )
    return {row["id"]: row["flow_run_id"] for row in rows}


def is_nobodys(tx: Tx, task_run_id: str) -> bool:
    """Whether the task run is there and belongs to no flow run."""
    return bool(
        tx.scalar(
            "SELECT 1 FROM task_runs WHERE id = ? AND workspace_id = ? AND flow_run_id IS NULL",
            (task_run_id, tx.workspace),
        )
    )


def has_flow_runs_below(tx: Tx, task_run_id: str) -> bool:
    """Whether there is a flow run that names the task run, which may not be there, as its parent."""
    return bool(
        tx.scalar(
            "SELECT 1 FROM flow_runs WHERE parent_task_run_id = ? AND workspace_id = ? LIMIT 1",
            (task_run_id, tx.workspace),
        )
    )


def _asked(tx: Tx, run_ids: Iterable[str], of: str) -> dict[str, str]:
    return {"asked": orjson.dumps(list(run_ids)).decode(), "workspace": tx.workspace, "of": of}


_SURROUNDINGS = """
SELECT r.id, r.name, r.tags, r.run_count, r.created_by,
       f.id AS flow_id, f.name AS flow_name, f.tags AS flow_tags,
       d.id AS deployment_id, d.name AS deployment_name, d.tags AS deployment_tags,
       q.id AS queue_id, q.name AS queue_name,
       p.id AS pool_id, p.name AS pool_name, p.type AS pool_type,
       t.id AS task_id, t.name AS task_name, t.tags AS task_tags
FROM flow_runs AS r
LEFT JOIN flows AS f ON f.id = r.flow_id
LEFT JOIN deployments AS d ON d.id = r.deployment_id AND d.workspace_id = r.workspace_id
LEFT JOIN work_queues AS q ON q.id = r.work_queue_id
LEFT JOIN work_pools AS p ON p.id = q.work_pool_id
LEFT JOIN task_runs AS t ON t.id = r.parent_task_run_id AND t.workspace_id = r.workspace_id
WHERE r.id = ? AND r.workspace_id = ?
"""


def surroundings(tx: Tx, run_id: str) -> RunSurroundings | None:
    """The flow run and what it belongs to, or None when there is no such run."""
    row = tx.one(_SURROUNDINGS, (run_id, tx.workspace))
    if row is None:
        return None
    return RunSurroundings(
        run=Named(id=row["id"], name=row["name"], tags=_tags(row["tags"])),
        run_count=row["run_count"],
        flow=_named(row, "flow"),
        deployment=_named(row, "deployment"),
        work_queue=_named(row, "queue", tags=False),
        work_pool=_named(row, "pool", tags=False, type_=row["pool_type"]),
        task_run=_named(row, "task"),
        created_by=None if row["created_by"] is None else orjson.loads(row["created_by"]),
    )


def around_deployment(tx: Tx, flow_id: str, queue_id: str | None) -> dict[str, Named | None]:
    """By kind, what a deployment belongs to, as far as it exists."""
    row = tx.one(
        "SELECT f.id AS flow_id, f.name AS flow_name, f.tags AS flow_tags, q.id AS queue_id, q.name AS queue_name, "
        "p.id AS pool_id, p.name AS pool_name, p.type AS pool_type FROM (SELECT 1) "
        "LEFT JOIN flows AS f ON f.id = ? LEFT JOIN work_queues AS q ON q.id = ? "
        "LEFT JOIN work_pools AS p ON p.id = q.work_pool_id",
        (flow_id, queue_id),
    )
    assert row is not None
    return {
        "flow": _named(row, "flow"),
        "work-queue": _named(row, "queue", tags=False),
        "work-pool": _named(row, "pool", tags=False, type_=row["pool_type"]),
    }


def around_queue(tx: Tx, pool_id: str) -> dict[str, Named | None]:
    """By kind, what a work queue belongs to, as far as it exists."""
    row = tx.one("SELECT id AS pool_id, name AS pool_name, type AS pool_type FROM work_pools WHERE id = ?", (pool_id,))
    return {} if row is None else {"work-pool": _named(row, "pool", tags=False, type_=row["pool_type"])}


def _named(row: Row, prefix: str, *, tags: bool = True, type_: str | None = None) -> Named | None:
    if row[f"{prefix}_id"] is None:
        return None
    return Named(
        id=row[f"{prefix}_id"],
        name=row[f"{prefix}_name"],
        tags=_tags(row[f"{prefix}_tags"]) if tags else (),
        type=type_,
    )


def _tags(text: str) -> tuple[str, ...]:
    return tuple(orjson.loads(text))
