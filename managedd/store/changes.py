"""What triggers note of made, changed and deleted things (migration 0004), and the status of each that was told last."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from managedd.model.changes import Change
from managedd.store import rows
from managedd.store.resources import (
    DEPLOYMENT,
    QUEUE_POLLED_SECONDS,
    SERVERLESS,
    WORK_POOL,
    WORK_QUEUE,
    is_serverless,
    online_pools,
)

if TYPE_CHECKING:
    from managedd.store.database import Tx

STATUS_TABLES: Final = {"deployment": DEPLOYMENT, "work-pool": WORK_POOL, "work-queue": WORK_QUEUE}
TAKEN: Final = 50
"""How many changes one transaction tells: some tens of milliseconds, which others wait for. A flow may go with thousands of deployments."""
LAPSED: Final = 200
"""How many of a kind one look finds."""


_SERVERLESS: Final = " OR ".join(f"pool.type LIKE '%{ending}'" for ending in SERVERLESS)
_POOL_OF: Final = {
    "work-queue": "work_pools AS pool WHERE pool.id = thing.work_pool_id",
    "deployment": "work_queues AS queue JOIN work_pools AS pool ON pool.id = queue.work_pool_id WHERE queue.id = thing.work_queue_id",
}


def take(tx: Tx) -> list[Change]:
    """What was changed first, at most `TAKEN`, of whatever workspace; it is noted no longer."""
    noted = tx.all(
        "SELECT position, kind, id, workspace_id, before, after FROM changes ORDER BY position LIMIT ?", (TAKEN,)
    )
    if noted:
        tx.execute("DELETE FROM changes WHERE position <= ?", (noted[-1]["position"],))
    return [
        Change(
            kind=row["kind"],
            id=row["id"],
            workspace_id=row["workspace_id"],
            before=_loaded(row["before"]),
            after=_loaded(row["after"]),
        )
        for row in noted
    ]


def are_left(tx: Tx) -> bool:
    """Whether there is something to take: the next write transaction, whatever it is for, takes it."""
    return bool(tx.scalar("SELECT EXISTS (SELECT 1 FROM changes)"))


def _loaded(text: str | None) -> dict[str, Any] | None:
    return None if text is None else orjson.loads(text)


def new_status(tx: Tx, change: Change) -> tuple[Change, str] | None:
    """The thing as it is and its status, when that is another than was told last: now it is told. None when it is gone, too."""
    table = STATUS_TABLES[change.kind]
    found = rows.by(tx, table, id=change.id)
    if found is None:
        return None
    told = tx.execute(
        f"UPDATE {table.name} SET status_told = ? WHERE id = ? AND status_told <> ?",
        (found["status"], change.id, found["status"]),
    ).rowcount
    if not told:
        return None
    as_it_is = replace(change, before=None, after=rows.record(tx, table, id=change.id))
    return as_it_is, found["status"]


def lapsed(tx: Tx) -> list[Change]:
    """What was READY and has not been polled, or heard of, for too long: its status is another now."""
    moment = tx.now - QUEUE_POLLED_SECONDS * 1_000_000
    found = []
    for kind, pool in _POOL_OF.items():
        table = STATUS_TABLES[kind].name
        found += [
            Change(kind=kind, id=row["id"], workspace_id=row["workspace_id"])
            for row in tx.all(
                f"SELECT id, workspace_id FROM {table} AS thing WHERE status_told = 'READY' AND last_polled <= ? "
                f"AND NOT EXISTS (SELECT 1 FROM {pool} AND ({_SERVERLESS})) ORDER BY last_polled LIMIT {LAPSED}",
                (moment,),
            )
        ]
    return found + _left_pools(tx)


def _left_pools(tx: Tx) -> list[Change]:
    ready = tx.all("SELECT id, workspace_id, type FROM work_pools WHERE status_told = 'READY'")
    hybrid = [row for row in ready if not is_serverless(row["type"])]
    online = online_pools(tx, [row["id"] for row in hybrid]) if hybrid else set()
    return [
        Change(kind="work-pool", id=row["id"], workspace_id=row["workspace_id"])
        for row in hybrid
        if row["id"] not in online
    ]


def note(tx: Tx, noted: list[Change]) -> None:
    """The things are looked at before this transaction ends: their status may be another."""
    tx.executemany(
        "INSERT INTO changes (kind, id, workspace_id) VALUES (?, ?, ?)",
        [(change.kind, change.id, change.workspace_id) for change in noted],
    )
