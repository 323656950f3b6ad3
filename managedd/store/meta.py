"""Small facts of this installation that must outlive the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from managedd.store.database import Tx


def get(tx: Tx, key: str) -> str | None:
    """The fact called `key`, or None."""
    found: str | None = tx.scalar("SELECT value FROM meta WHERE key = ?", (key,))
    return found


def put(tx: Tx, key: str, value: str) -> None:
    """The fact called `key` is `value`."""
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def keep(tx: Tx, key: str, value: str) -> str:
    """The fact called `key`: what it was, else `value` from now on."""
    tx.execute("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, value))
    found: str = tx.scalar("SELECT value FROM meta WHERE key = ?", (key,))
    return found
