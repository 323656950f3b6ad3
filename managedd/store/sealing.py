"""What an earlier version, or an earlier template, left in clear is put into envelopes: a few rows in each transaction.

Where it goes on stands in the store, so that a crash in the middle costs nothing; rows in clear can be read until they are sealed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from managedd import failpoints
from managedd.store import concealing, sealed
from managedd.store.concealing import AUTOMATIONS, DEPLOYMENTS, FLOW_RUNS, WORK_POOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.store.database import Database
    from managedd.store.transaction import Row, Tx

DOCUMENTS: Final = "block_documents"
_COLUMNS: Final = {
    DEPLOYMENTS: ("job_variables",),
    FLOW_RUNS: ("job_variables",),
    WORK_POOLS: ("base_job_template",),
    AUTOMATIONS: ("actions", "actions_on_trigger", "actions_on_resolve"),
}
_OF_POOL = "work_queue_id IN (SELECT id FROM work_queues WHERE work_pool_id = :pool)"
_WITH_VARIABLES = "SELECT rowid, id, workspace_id, work_queue_id, job_variables FROM"
_ROWS: Final = {
    DEPLOYMENTS: f"{_WITH_VARIABLES} deployments WHERE job_variables <> '{{}}' AND {_OF_POOL}",
    FLOW_RUNS: f"{_WITH_VARIABLES} flow_runs WHERE job_variables NOT IN ('{{}}', 'null') AND {_OF_POOL}",
    WORK_POOLS: "SELECT rowid, * FROM work_pools WHERE true",
    AUTOMATIONS: "SELECT rowid, * FROM automations WHERE true",
    DOCUMENTS: "SELECT rowid, id, workspace_id, data FROM block_documents WHERE true",
}
WINDOW_ROWS: Final = 500
"""How many rows one transaction looks at: whether it finds one to seal or all of them, nobody waits long behind it."""


def left(tx: Tx) -> bool:
    """Whether something may stand in clear that should not."""
    return bool(tx.scalar("SELECT EXISTS (SELECT 1 FROM unsealed)"))


async def seal_all(db: Database) -> int:
    """What stood in clear before the call is sealed; how many rows had something."""
    total, more = 0, await db.read(left)
    while more:
        done = await db.write(step)
        failpoints.reach("secrets.sealed")
        total += done or 0
        more = done is not None
    if total:
        # The write-ahead log still has the pages as they were.
        await db.checkpoint()
    return total


def step(tx: Tx, window: int = WINDOW_ROWS) -> int | None:
    """The next few rows are sealed; how many of them had something in clear, None when there is nothing left to look at."""
    # Pools first: what they call secret is looked for in the others.
    todo = tx.one(
        "SELECT kind, work_pool_id, after_rowid FROM unsealed ORDER BY kind = 'work_pools' DESC, kind LIMIT 1"
    )
    if todo is None:
        return None
    # What the rows had is overwritten on its pages, in this transaction only: it costs more than it is worth for anything else.
    usual = tx.scalar("PRAGMA secure_delete")
    tx.execute("PRAGMA secure_delete = ON")
    try:
        return _step(tx, todo, window)
    finally:
        tx.execute(f"PRAGMA secure_delete = {usual}")


def _step(tx: Tx, todo: Row, window: int) -> int:
    kind, pool, after = todo["kind"], todo["work_pool_id"], todo["after_rowid"]
    looked_at = f"SELECT rowid FROM {kind} WHERE rowid > ? ORDER BY rowid LIMIT ?"
    upto, count = tx.all(f"SELECT max(rowid), count(*) FROM ({looked_at})", (after, window))[0]
    found = tx.all(f"{_ROWS[kind]} AND rowid > :after AND rowid <= :upto", {"after": after, "upto": upto, "pool": pool})
    seal: Callable[[Tx, str, Row], bool] = _document if kind == DOCUMENTS else _columns
    sealed_rows = sum(seal(tx.scoped(row["workspace_id"]), kind, row) for row in found)
    if count < window:
        tx.execute("DELETE FROM unsealed WHERE kind = ? AND work_pool_id = ?", (kind, pool))
    else:
        tx.execute("UPDATE unsealed SET after_rowid = ? WHERE kind = ? AND work_pool_id = ?", (upto, kind, pool))
    return sealed_rows


def _document(tx: Tx, kind: str, row: Row) -> bool:
    if sealed.get(tx, kind, row["id"]) is not None:
        return False
    sealed.put(tx, kind, row["id"], orjson.loads(row["data"]))
    tx.execute("UPDATE block_documents SET data = '{}' WHERE id = ?", (row["id"],))
    return True


def _columns(tx: Tx, kind: str, row: Row) -> bool:
    columns: dict[str, Any] = {name: row[name] for name in _COLUMNS[kind]}
    secret = _CONCEAL[kind](tx, columns, row["id"])
    before = dict(row)
    changed = {name: value for name, value in columns.items() if name not in before or value != before[name]}
    if secret is not None:
        secret.keep(tx, kind, row["id"])
    if changed:
        assigned = ", ".join(f"{name} = ?" for name in changed)
        mark = tx.scalar("SELECT coalesce(max(rowid), 0) FROM changes")
        tx.execute(f"UPDATE {kind} SET {assigned} WHERE id = ?", (*changed.values(), row["id"]))
        # Nobody has changed anything.
        tx.execute("DELETE FROM changes WHERE rowid > ?", (mark,))
    return bool(changed)


_CONCEAL: Final = {
    DEPLOYMENTS: concealing.deployment,
    FLOW_RUNS: concealing.flow_run,
    WORK_POOLS: concealing.work_pool,
    AUTOMATIONS: concealing.automation,
}
