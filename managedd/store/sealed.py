"""Envelopes: for each row with something secret in it one row of `sealed`. What stands in the row itself shows masks, or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.store.cipher import Place

if TYPE_CHECKING:
    from managedd.store.transaction import Tx

STEP_ROWS = 100
"""How many envelopes one transaction makes anew: a few milliseconds, so that nobody waits long behind it."""


def put(tx: Tx, table: str, row_id: str, value: Any) -> None:
    """The row's secret is `value`, anything that JSON can say."""
    place = Place(table=table, workspace_id=tx.workspace, row_id=row_id)
    ring = tx.vault.ring
    tx.execute(
        "INSERT INTO sealed (kind, row_id, workspace_id, key_id, envelope) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (kind, row_id) DO UPDATE SET workspace_id = excluded.workspace_id, key_id = excluded.key_id, envelope = excluded.envelope",
        (table, row_id, tx.workspace, ring.current.id, ring.seal(place, orjson.dumps(value))),
    )


def get(tx: Tx, table: str, row_id: str) -> Any | None:
    """The row's secret, or None when it has none. Raises CannotOpen."""
    envelope = tx.scalar(
        "SELECT envelope FROM sealed WHERE kind = ? AND row_id = ? AND workspace_id = ?", (table, row_id, tx.workspace)
    )
    return None if envelope is None else opened(tx, table, row_id, envelope)


def opened(tx: Tx, table: str, row_id: str, envelope: bytes) -> Any:
    """What is in the envelope of that row. Raises CannotOpen."""
    place = Place(table=table, workspace_id=tx.workspace, row_id=row_id)
    return orjson.loads(tx.opened(place, envelope))


def drop(tx: Tx, table: str, row_id: str) -> None:
    """The row has no secret."""
    tx.execute("DELETE FROM sealed WHERE kind = ? AND row_id = ? AND workspace_id = ?", (table, row_id, tx.workspace))


def renew(tx: Tx, limit: int = STEP_ROWS) -> int:
    """At most `limit` envelopes that other keys have made are made anew with the current one; how many those were."""
    ring = tx.vault.ring
    found = tx.all(
        # Two ranges, because an index can't find what is not equal.
        "SELECT kind, row_id, workspace_id, envelope FROM sealed WHERE key_id < ? OR key_id > ? LIMIT ?",
        (ring.current.id, ring.current.id, limit),
    )
    for row in found:
        place = Place(table=row["kind"], workspace_id=row["workspace_id"], row_id=row["row_id"])
        tx.execute(
            "UPDATE sealed SET key_id = ?, envelope = ? WHERE kind = ? AND row_id = ?",
            (ring.current.id, ring.seal(place, ring.open(place, row["envelope"])), row["kind"], row["row_id"]),
        )
    return len(found)


def counts(tx: Tx) -> dict[str, int]:
    """How many envelopes each key has made, by the key's id."""
    return {row[0]: row[1] for row in tx.all("SELECT key_id, count(*) FROM sealed GROUP BY key_id")}
