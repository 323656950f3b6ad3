"""Sessions of browsers: who signed in with which credential, for how long. Of tokens only hashes are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from managedd import ids
from managedd.bus import Topic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Tx


MOST_OF_ONE_KEY: Final = 100
"""Sessions at a time: else whoever may only look could fill the store by signing in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One browser's. Moments in microseconds."""

    id: str
    key_id: str | None
    """None: it was begun with `server.auth_string`, whose hash is the next."""
    auth_hash: str | None
    expires: int


_LIVES = (
    "s.expires > :now AND (s.key_id IS NULL OR EXISTS (SELECT 1 FROM keys AS k WHERE k.id = s.key_id AND k.revoked IS NULL "
    "AND (k.expires IS NULL OR k.expires > :now)))"
)


def begin(tx: Tx, *, token_hash: str, key_id: str | None, auth_hash: str | None, expires_us: int) -> None:
    """The session is there until that moment, until its key ends, or until its key has begun MOST_OF_ONE_KEY others."""
    tx.execute(
        "INSERT INTO web_sessions (id, token_hash, key_id, auth_hash, created, expires) VALUES (?, ?, ?, ?, ?, ?)",
        (ids.new_id(), token_hash, key_id, auth_hash, tx.now, expires_us),
    )
    older = "SELECT id FROM web_sessions WHERE key_id IS ? ORDER BY created DESC, id DESC LIMIT -1 OFFSET ?"
    if tx.execute(f"DELETE FROM web_sessions WHERE id IN ({older})", (key_id, MOST_OF_ONE_KEY)).rowcount:
        tx.publish(Topic.KEYS)


def find(tx: Tx, token_hash: str) -> Session | None:
    """The session of that token, while it lives."""
    row = tx.one(
        f"SELECT s.id, s.key_id, s.auth_hash, s.expires FROM web_sessions AS s WHERE s.token_hash = :hash AND {_LIVES}",
        {"hash": token_hash, "now": tx.now},
    )
    return None if row is None else Session(**dict(row))


def end(tx: Tx, token_hash: str) -> None:
    """The session is over, and what it has opened ends."""
    tx.execute("DELETE FROM web_sessions WHERE token_hash = ?", (token_hash,))
    tx.publish(Topic.KEYS)


def living_among(tx: Tx, session_ids: Iterable[str]) -> set[str]:
    """Those of the sessions that still open something."""
    asked = orjson.dumps(list(session_ids)).decode()
    rows = tx.all(
        f"SELECT s.id FROM web_sessions AS s WHERE s.id IN (SELECT value FROM json_each(:asked)) AND {_LIVES}",
        {"asked": asked, "now": tx.now},
    )
    return {row[0] for row in rows}


def next_end(tx: Tx, session_ids: Iterable[str]) -> int | None:
    """When the first of the sessions that still open something will expire, by itself or with its key; None when there is none."""
    asked = orjson.dumps(list(session_ids)).decode()
    found: int | None = tx.scalar(
        "SELECT min(min(s.expires, coalesce((SELECT k.expires FROM keys AS k WHERE k.id = s.key_id), s.expires))) FROM web_sessions AS s "
        f"WHERE s.id IN (SELECT value FROM json_each(:asked)) AND {_LIVES}",
        {"asked": asked, "now": tx.now},
    )
    return found


def forget(tx: Tx, *, before_us: int, limit: int) -> int:
    """At most `limit` sessions that ended before the moment are gone; returns how many."""
    ended = "SELECT id FROM web_sessions WHERE expires < ? LIMIT ?"
    return tx.execute(f"DELETE FROM web_sessions WHERE id IN ({ended})", (before_us, limit)).rowcount
