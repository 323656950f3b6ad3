"""The audit log: who changed what, and who was refused. Never what a request or an answer held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from managedd.clock import iso
from managedd.errors import invalid
from managedd.model.shares import fair_share
from managedd.store import positions
from managedd.store.retention import STEP

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire

MAX_CHARS: Final = 200
"""Of each text that a client chooses."""


REFUSALS_SHARE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row: what was asked for, and how it was answered."""

    workspace_id: str | None
    """None: of the daemon as a whole."""
    actor: str
    """`operator`, `client`, `key`, `run` or `unknown`."""
    actor_id: str | None = None
    """The key's id, or the flow run's."""
    actor_name: str | None = None
    address: str | None = None
    """None: the socket in the data directory."""
    operation: str
    """Method and path as they are declared."""
    named: Mapping[str, str] = field(default_factory=dict)
    """What the path names, and what was made."""
    status: int
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows."""

    workspace_id: str | None = None
    """None: of every workspace, and of none."""
    since_us: int | None = None
    actor: str | None = None
    """A kind of actor, an id, or a name."""
    before: str | None = None
    """Only older rows than the one of this id."""


def add(tx: Tx, entries: Iterable[Entry]) -> None:
    """The rows are there, as of now."""
    tx.executemany(
        "INSERT INTO audit (at, workspace_id, actor, actor_id, actor_name, address, operation, named, status, times) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                tx.now, entry.workspace_id, entry.actor, entry.actor_id, entry.actor_name, entry.address, entry.operation,
                _names(entry.named), entry.status, entry.times,
            )
            for entry in entries
        ],
    )  # fmt: skip


def _names(named: Mapping[str, str]) -> str:
    if not named:
        return "{}"
    return orjson.dumps({name: value[:MAX_CHARS] for name, value in named.items()}).decode(errors="replace")


def page(tx: Tx, wanted: Wanted, limit: int) -> list[Wire]:
    """The newest `limit` rows that are wanted, newest first. Raises ManagedError(INVALID) where no row has had the id that is to follow."""
    given = positions.of(tx, "audit")
    before = None if wanted.before is None else given.position(wanted.before)
    if before is None and wanted.before is not None:
        raise invalid(f"before: {wanted.before} is no entry of this audit log; take `next` of the page before")
    terms = {
        "a.workspace_id = :workspace_id": wanted.workspace_id,
        "a.at >= :since_us": wanted.since_us,
        ":actor IN (a.actor, a.actor_id, a.actor_name)": wanted.actor,
        "a.id < :before": before,
    }
    where = " AND ".join(term for term, value in terms.items() if value is not None) or "true"
    rows = tx.all(
        "SELECT a.*, o.handle AS account, w.handle AS workspace FROM audit AS a LEFT JOIN workspaces AS w ON w.id = a.workspace_id "
        f"AND w.removed IS NULL LEFT JOIN accounts AS o ON o.id = w.account_id WHERE {where} ORDER BY a.id DESC LIMIT :limit",
        {
            "workspace_id": wanted.workspace_id,
            "since_us": wanted.since_us,
            "actor": wanted.actor,
            "before": before,
            "limit": limit,
        },
    )
    return [_shown(row, given.id(row["id"])) for row in rows]


def _shown(row: Row, id_: str) -> Wire:
    names = ("workspace_id", "account", "workspace", "actor", "actor_id", "actor_name", "address", "operation")
    shown = {name: row[name] for name in names}
    return {
        "id": id_,
        **shown,
        "at": iso(row["at"]),
        "named": orjson.loads(row["named"]),
        "status": row["status"],
        "times": row["times"],
    }


def forget(tx: Tx, *, before_us: int, keep_rows: int) -> int:
    """Some of the oldest rows are gone: older than the moment, or more than there may be. Returns how many, fewer than a step when
    there are no others.

    Each workspace has its share of the room, and what concerns none of them has one: whoever changes very much, or is refused often, pushes
    out their own. Refusals have a tenth of it, so that they push no change out.
    """
    gone = _forget_surplus(tx, "status >= 400", keep_rows // REFUSALS_SHARE)
    if gone == STEP:
        # Only when all of them that are too many have gone is it known which others are.
        return gone
    gone = tx.execute(
        "DELETE FROM audit WHERE id IN (SELECT id FROM (SELECT id, at FROM audit ORDER BY id LIMIT ?) WHERE at < ?)",
        (STEP, before_us),
    ).rowcount
    return gone if gone == STEP else gone + _forget_surplus(tx, "true", keep_rows)


def _forget_surplus(tx: Tx, which: str, room: int) -> int:
    """Of the rows for which `which` is true, at most a step is gone; of those who have most, the oldest."""
    if not tx.scalar("SELECT (SELECT max(id) FROM audit) - (SELECT min(id) FROM audit) >= ?", (room,)):
        return 0
    counts = {
        row[0]: row[1]
        for row in tx.all(f"SELECT workspace_id, count(*) FROM audit WHERE {which} GROUP BY workspace_id")
    }
    share = fair_share(counts.values(), room)
    if share is None:
        return 0
    left = STEP
    for workspace_id, count in sorted(counts.items(), key=lambda one: -one[1]):
        if not left or count <= share:
            break
        left -= tx.execute(
            f"DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE workspace_id IS ? AND {which} ORDER BY id LIMIT ?)",
            (workspace_id, min(left, count - share)),
        ).rowcount
    return STEP - left
