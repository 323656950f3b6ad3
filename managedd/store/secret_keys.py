"""The keys of what is secret: what the store knows of them, and how one follows another."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd.store.cipher import Key, KeyRing, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from managedd.store.transaction import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key as the store knows it."""

    id: str
    check_value: str
    made_us: int
    source: str
    """Where it was when it came in."""
    envelope: bytes | None
    """Holds the key itself, sealed by the one that follows it; None for the one that seals now."""

    def is_(self, key: Key) -> bool:
        """Whether `key` is this one."""
        return self.id == key.id and hmac.compare_digest(self.check_value, key.check_value)


def every(tx: Tx) -> list[StoredKey]:
    """The key that seals now first, then those that it follows."""
    found = tx.all(
        "SELECT key_id, check_value, made, source, envelope FROM secret_keys ORDER BY envelope IS NOT NULL, made"
    )
    return [StoredKey(id=row[0], check_value=row[1], made_us=row[2], source=row[3], envelope=row[4]) for row in found]


def adopt(tx: Tx, key: Key, source: str) -> None:
    """The store has no other key than this one. Only while nothing is sealed."""
    tx.execute("DELETE FROM secret_keys")
    _add(tx, key, source)


def succeed(tx: Tx, key: Key, source: str, old: Key) -> None:
    """`key` seals from now on; `old` stands in an envelope of it, until nothing needs it any more."""
    _add(tx, key, source)
    envelope = KeyRing(key).seal(_place(old.id), old.material)
    tx.execute("UPDATE secret_keys SET envelope = ? WHERE key_id = ?", (envelope, old.id))


def finish(tx: Tx) -> bool:
    """Whether nothing was left that another key than the current one has made; then the others are gone."""
    current = tx.vault.ring.current.id
    if tx.scalar("SELECT EXISTS (SELECT 1 FROM sealed WHERE key_id < ? OR key_id > ?)", (current, current)):
        return False
    tx.execute("DELETE FROM secret_keys WHERE key_id <> ?", (current,))
    return True


def ring(current: Key, stored: Sequence[StoredKey]) -> KeyRing:
    """`current` with the keys that it follows. Raises CannotOpen."""
    alone = KeyRing(current)
    olds = [Key(alone.open(_place(each.id), each.envelope)) for each in _followed(stored) if each.envelope is not None]
    return KeyRing(current, olds)


def _followed(stored: Iterable[StoredKey]) -> list[StoredKey]:
    return [each for each in stored if each.envelope is not None]


def _add(tx: Tx, key: Key, source: str) -> None:
    tx.execute(
        "INSERT INTO secret_keys (key_id, check_value, made, source) VALUES (?, ?, ?, ?)",
        (key.id, key.check_value, tx.now, source),
    )


def _place(key_id: str) -> Place:
    return Place(table="secret_keys", workspace_id="", row_id=key_id)
