"""Keys of people and programs: hashes, never the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from managedd import ids
from managedd.bus import Topic
from managedd.errors import conflict, not_found
from managedd.model.access import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.store.database import Row, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it may be shown. Moments in microseconds."""

    id: str
    workspace_id: str
    name: str
    role: Role
    hint: str
    created: int
    expires: int | None
    last_used: int | None
    revoked: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose key it is."""

    key_id: str
    name: str
    role: Role
    workspace_id: str
    account_id: str


_LIVES = "k.revoked IS NULL AND (k.expires IS NULL OR k.expires > :now)"
_SELECT = (
    "SELECT k.id, k.workspace_id, k.name, k.role, k.hint, k.created, k.expires, k.last_used, k.revoked FROM keys AS k"
)


def create(
    tx: Tx, *, workspace_id: str, name: str, role: Role, key_hash: str, hint: str, expires_us: int | None = None
) -> Key:
    """The workspace has the key. Raises ManagedError(CONFLICT) when one that is not revoked has the name."""
    if tx.scalar("SELECT EXISTS (SELECT 1 FROM keys WHERE workspace_id = ? AND name = ? AND revoked IS NULL)", (workspace_id, name)):  # fmt: skip
        raise conflict(f"There is a key {name!r} in this workspace already: revoke it first, or choose another name")
    key_id = ids.new_id()
    tx.execute(
        "INSERT INTO keys (id, workspace_id, name, role, key_hash, hint, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (key_id, workspace_id, name, role.value, key_hash, hint, tx.now, expires_us),
    )
    tx.publish(Topic.KEYS)
    return get(tx, workspace_id, key_id)


def get(tx: Tx, workspace_id: str, which: str) -> Key:
    """The workspace's key of that id, or, among those that are not revoked, of that name. Raises ManagedError(NOT_FOUND)."""
    row = tx.one(
        f"{_SELECT} WHERE k.workspace_id = :workspace AND (k.id = :which OR (k.name = :which AND k.revoked IS NULL)) "
        "ORDER BY k.id = :which DESC LIMIT 1",
        {"workspace": workspace_id, "which": which},
    )
    if row is None:
        raise not_found("Key", which)
    return _key(row)


def every(tx: Tx, workspace_id: str, limit: int, offset: int = 0) -> list[Key]:
    """A page of the workspace's keys, the revoked ones among them, newest first."""
    rows = tx.all(
        f"{_SELECT} WHERE k.workspace_id = ? ORDER BY k.created DESC, k.id DESC LIMIT ? OFFSET ?",
        (workspace_id, limit, offset),
    )
    return [_key(row) for row in rows]


def revoke(tx: Tx, workspace_id: str, which: str) -> Key:
    """The key opens nothing any more, and what it has opened ends. Raises as `get`."""
    key = get(tx, workspace_id, which)
    tx.execute("UPDATE keys SET revoked = ? WHERE id = ? AND revoked IS NULL", (tx.now, key.id))
    tx.publish(Topic.KEYS)
    return get(tx, workspace_id, key.id)


def holder(tx: Tx, key_hash: str) -> Holder | None:
    """Whose key has that hash, while it lives."""
    return _holder(tx, "k.key_hash = :which", key_hash)


def holder_by_id(tx: Tx, key_id: str) -> Holder | None:
    """Whose key has that id, while it lives."""
    return _holder(tx, "k.id = :which", key_id)


def _holder(tx: Tx, where: str, which: str) -> Holder | None:
    row = tx.one(
        "SELECT k.id, k.name, k.role, k.workspace_id, w.account_id FROM keys AS k JOIN workspaces AS w ON w.id = k.workspace_id "
        f"WHERE {where} AND {_LIVES}",
        {"which": which, "now": tx.now},
    )
    if row is None:
        return None
    return Holder(key_id=row[0], name=row[1], role=Role(row[2]), workspace_id=row[3], account_id=row[4])


def living_among(tx: Tx, key_ids: Iterable[str]) -> set[str]:
    """Those of the keys that still open something."""
    asked = orjson.dumps(list(key_ids)).decode()
    rows = tx.all(
        f"SELECT k.id FROM keys AS k WHERE k.id IN (SELECT value FROM json_each(:asked)) AND {_LIVES}",
        {"asked": asked, "now": tx.now},
    )
    return {row[0] for row in rows}


def next_end(tx: Tx, key_ids: Iterable[str]) -> int | None:
    """When the first of the keys that still open something will expire; None when none of them does."""
    asked = orjson.dumps(list(key_ids)).decode()
    found: int | None = tx.scalar(
        f"SELECT min(k.expires) FROM keys AS k WHERE k.id IN (SELECT value FROM json_each(:asked)) AND {_LIVES}",
        {"asked": asked, "now": tx.now},
    )
    return found


def counts(tx: Tx) -> dict[str, int]:
    """How many keys open something, of each workspace that has such."""
    rows = tx.all(
        f"SELECT k.workspace_id, count(*) FROM keys AS k WHERE {_LIVES} GROUP BY k.workspace_id", {"now": tx.now}
    )
    return {row[0]: row[1] for row in rows}


def any_lives(tx: Tx) -> bool:
    """Whether there is a key that opens something."""
    return bool(tx.scalar(f"SELECT EXISTS (SELECT 1 FROM keys AS k WHERE {_LIVES})", {"now": tx.now}))


def note_uses(tx: Tx, uses: Mapping[str, int]) -> None:
    """The keys were used at these moments last."""
    for key_id, at_us in uses.items():
        tx.execute("UPDATE keys SET last_used = max(coalesce(last_used, 0), ?) WHERE id = ?", (at_us, key_id))


def forget(tx: Tx, *, before_us: int, limit: int) -> int:
    """At most `limit` keys that opened nothing any more before the moment are gone; returns how many."""
    ended = "SELECT id FROM keys WHERE min(coalesce(revoked, expires), coalesce(expires, revoked)) < ? LIMIT ?"
    return tx.execute(f"DELETE FROM keys WHERE id IN ({ended})", (before_us, limit)).rowcount


def _key(row: Row) -> Key:
    return Key(**{**dict(row), "role": Role(row["role"])})
