"""Concurrency limits: slots in use are the live leases' slots, plus what was taken without a lease.

A lease that has expired counts for nothing from that moment, whether or not anybody has swept it up. A limit that decays (a rate limit)
takes its slots back by itself, so there a lease frees nothing that has not come back already, and holds nothing that has.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError, conflict, invalid, not_found
from managedd.model.slots import SlotLimit
from managedd.store import executions, rows
from managedd.store.resources import CONCURRENCY_LIMIT
from managedd.store.transaction import IntegrityFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire

_SELECT = """
SELECT l.*, coalesce((
    SELECT sum(s.slots) FROM concurrency_lease_slots AS s JOIN concurrency_leases AS c ON c.id = s.lease_id
    WHERE s.limit_id = l.id AND c.expires_at > :now
), 0) AS leased
FROM concurrency_limits AS l
"""
FOREVER_SECONDS = 100 * 366 * 86_400.0
"""How long leases of clients last that can't renew one."""
_JITTER = (0.7, 1.3)
"""Clients that were refused together shall not come back together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquired:
    """The limits of the names, and the lease when one was asked for."""

    limits: list[Wire]
    lease_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No slots are free."""

    retry_after_seconds: float

    def error(self) -> ManagedError:
        """What the client is told."""
        return ManagedError(
            ErrorCode.LOCKED, "No concurrency slots are free.", retry_after_seconds=self.retry_after_seconds
        )


def create(tx: Tx, values: Mapping[str, Any]) -> str:
    """The limit exists and its id is returned. Raises ManagedError(CONFLICT) when the name is taken."""
    row = {**values, "unleased_slots": values.get("active_slots", 0), "unleased_at": tx.now}
    try:
        limit_id = rows.insert(tx, CONCURRENCY_LIMIT, row)
    except IntegrityFault:
        raise conflict(f"A concurrency limit named {values['name']!r} already exists.") from None
    tx.publish(Topic.SLOTS)
    return limit_id


def wire(tx: Tx, limit_id: str) -> Wire:
    """The limit with its slots as they are now. Raises ManagedError(NOT_FOUND)."""
    return _wire(tx, rows.get(tx, CONCURRENCY_LIMIT, limit_id))


def find(tx: Tx, limit: int | None, offset: int, *, prefix: str = "") -> list[Wire]:
    """Limits whose name starts with `prefix`, by name."""
    clause = ("substr(concurrency_limits.name, 1, length(?)) = ?", [prefix, prefix])
    return [_wire(tx, row) for row in rows.find(tx, CONCURRENCY_LIMIT, [], "NAME_ASC", limit, offset, extra=clause)]


def resolve(tx: Tx, id_or_name: str) -> str:
    """The id of the limit with that id or name. Raises ManagedError(NOT_FOUND)."""
    found = None
    if ids.is_uuid(id_or_name):
        found = rows.record(tx, CONCURRENCY_LIMIT, id=ids.canonical(id_or_name))
    found = found or rows.record(tx, CONCURRENCY_LIMIT, name=id_or_name)
    if found is None:
        raise not_found(CONCURRENCY_LIMIT.label, id_or_name)
    return str(found["id"])


def update(tx: Tx, limit_id: str, changes: Mapping[str, Any]) -> None:
    """The limit has `changes`; null is no change. A number of active slots below what leases hold ends leases' holds on it, oldest first."""
    current = _one(tx, limit_id)
    kept = {name: value for name, value in changes.items() if value is not None}
    # What was taken and denied so far goes on from now at the new rate.
    kept.setdefault("denied_slots", current.denied_at(tx.now))
    wanted = kept.pop("active_slots", None)
    decays = kept.get("slot_decay_per_second", current.decay_per_second) > 0
    moved = current.leased * (decays - current.decays)
    kept |= {"unleased_slots": max(0.0, current.unleased_at(tx.now) + moved), "unleased_at": tx.now}
    if wanted is not None:
        kept["unleased_slots"] = wanted if decays else max(0, wanted - _keep_leases(tx, limit_id, wanted))
    try:
        rows.patch(tx, CONCURRENCY_LIMIT, limit_id, kept)
    except IntegrityFault:
        raise conflict(f"A concurrency limit named {kept['name']!r} already exists.") from None
    tx.publish(Topic.SLOTS)


def delete(tx: Tx, limit_id: str) -> None:
    """The limit is gone; leases hold nothing of it any more. Raises ManagedError(NOT_FOUND)."""
    rows.delete(tx, CONCURRENCY_LIMIT, limit_id)
    _drop_empty(tx)
    tx.publish(Topic.SLOTS)


def acquire(
    tx: Tx,
    names: Sequence[str],
    slots: int,
    mode: str,
    *,
    lease_seconds: float | None = None,
    holder: Mapping[str, Any] | None = None,
    execution_id: str | None = None,
    renewable: bool = True,
) -> Acquired | Refused:
    """`slots` of every active limit among `names` are taken, or none of any; names without a limit limit nothing.

    With `lease_seconds` they are taken on a lease. A renewable one is made even when nothing limits: the client will renew it. Raises
    ManagedError(INVALID) when that many slots can never be had, or a rate is asked of limits that don't decay; CONFLICT when the
    execution that the lease is for has ended.
    """
    if execution_id is not None and not executions.may_run(tx, execution_id):
        raise conflict("The container of this run has ended: it gets no more slots.")
    limits = _named(tx, names)
    active = [limit for limit in limits if limit.active]
    _check(active, slots, mode)
    if not all(limit.has_room(slots, tx.now) for limit in active):
        return _refuse(tx, active, slots)
    lease_id = None
    if lease_seconds is not None and (active or renewable):
        lease_id = _lease(tx, lease_seconds, holder, execution_id)
    for limit in active:
        if lease_id is not None:
            tx.execute(
                "INSERT INTO concurrency_lease_slots (lease_id, limit_id, slots) VALUES (?, ?, ?)",
                (lease_id, limit.id, slots),
            )
        if lease_id is None or limit.decays:
            _count(tx, limit, slots)
    return Acquired(
        limits=[{"id": limit.id, "name": limit.name, "limit": limit.limit} for limit in limits], lease_id=lease_id
    )


def give_back(tx: Tx, names: Sequence[str], slots: int, occupancy_seconds: float | None) -> list[Wire]:
    """`slots` that were taken without a lease are free again; the limits of the names are returned."""
    limits = _named(tx, names)
    for limit in limits:
        if limit.active:
            _count(tx, limit, -slots)
            if occupancy_seconds is not None:
                _learn(tx, limit, slots, occupancy_seconds)
    tx.publish(Topic.SLOTS)
    return [{"id": limit.id, "name": limit.name, "limit": limit.limit} for limit in limits]


def release(tx: Tx, lease_id: str) -> None:
    """The lease and its hold on slots are gone; one that is not known changes nothing."""
    known = tx.scalar("SELECT 1 FROM concurrency_leases WHERE id = ? AND workspace_id = ?", (lease_id, tx.workspace))
    if known is not None:
        release_all(tx, [lease_id])


def release_all(tx: Tx, lease_ids: Sequence[str]) -> None:
    """These leases, which are the workspace's, and their hold on slots are gone: each limit is written once."""
    wanted = orjson.dumps(list(lease_ids)).decode()
    held = tx.all(
        "SELECT s.limit_id, s.slots, c.created, c.expires_at FROM json_each(?) AS w CROSS JOIN concurrency_leases AS c ON c.id = w.value "
        "CROSS JOIN concurrency_lease_slots AS s ON s.lease_id = c.id ORDER BY s.limit_id, c.created, c.id",
        (wanted,),
    )
    for limit_id, of_limit in groupby(held, key=lambda row: row["limit_id"]):
        _give_back(tx, _one(tx, limit_id), list(of_limit))
    tx.execute("DELETE FROM concurrency_leases WHERE id IN (SELECT value FROM json_each(?))", (wanted,))
    tx.publish(Topic.SLOTS)


def _give_back(tx: Tx, limit: SlotLimit, leases: Sequence[Row]) -> None:
    """What the leases hold of the limit is counted where it decays, and how long it was held is learned."""
    if limit.decays:
        _count(tx, limit, -sum(row["slots"] for row in leases if row["expires_at"] > tx.now))
    average = limit
    for row in leases:
        learned = average.average_after(row["slots"], (tx.now - row["created"]) / 1_000_000)
        average = replace(average, average_occupancy_seconds=learned)
    _note_average(tx, limit.id, average.average_occupancy_seconds)


def renew(tx: Tx, lease_id: str, lease_seconds: float) -> bool:
    """Whether the lease was still held; then it lasts `lease_seconds` from now. What has expired may be somebody else's already."""
    done = tx.execute(
        "UPDATE concurrency_leases SET expires_at = ? WHERE id = ? AND workspace_id = ? AND expires_at > ?",
        (tx.now + round(lease_seconds * 1_000_000), lease_id, tx.workspace, tx.now),
    )
    return done.rowcount > 0


def holders(tx: Tx, limit_id: str) -> list[tuple[str, dict[str, Any]]]:
    """(lease, holder) of the live leases on the limit that say who holds them, oldest first."""
    found = tx.all(
        "SELECT c.id, c.holder FROM concurrency_lease_slots AS s JOIN concurrency_leases AS c ON c.id = s.lease_id "
        "WHERE s.limit_id = ? AND c.expires_at > ? AND c.holder IS NOT NULL ORDER BY c.created, c.id",
        (limit_id, tx.now),
    )
    return [(row["id"], orjson.loads(row["holder"])) for row in found]


def hold(tx: Tx, limit_id: str, task_run_ids: Iterable[str], lease_seconds: float) -> None:
    """Each of the task runs holds one slot of the limit, whether there is room or not."""
    for task_run_id in task_run_ids:
        lease_id = _lease(tx, lease_seconds, {"type": "task_run", "id": task_run_id})
        tx.execute(
            "INSERT INTO concurrency_lease_slots (lease_id, limit_id, slots) VALUES (?, ?, 1)", (lease_id, limit_id)
        )


_HELD_BY = """
SELECT DISTINCT c.id FROM concurrency_leases AS c INDEXED BY concurrency_leases_holder
CROSS JOIN concurrency_lease_slots AS s ON s.lease_id = c.id CROSS JOIN concurrency_limits AS l ON l.id = s.limit_id
WHERE c.holder IS NOT NULL AND json_extract(c.holder, '$.id') = ? AND c.workspace_id = ? AND c.expires_at > ?
  AND l.name IN (SELECT value FROM json_each(?))
"""


def is_held(tx: Tx, name: str, holder_id: str) -> bool:
    """Whether the holder has a live lease on the limit of that name."""
    return bool(_held_by(tx, [name], holder_id))


def let_go(tx: Tx, names: Sequence[str], holder_id: str) -> list[Wire]:
    """The leases of the holder on limits of the names are gone; these limits are returned."""
    limits = _named(tx, names)
    if held := _held_by(tx, names, holder_id):
        release_all(tx, held)
    return [{"id": limit.id, "name": limit.name, "limit": limit.limit} for limit in limits]


def _held_by(tx: Tx, names: Sequence[str], holder_id: str) -> list[str]:
    wanted = orjson.dumps(list(names)).decode()
    return [row[0] for row in tx.all(_HELD_BY, (holder_id, tx.workspace, tx.now, wanted))]


def _check(active: Sequence[SlotLimit], slots: int, mode: str) -> None:
    if any(limit.limit < slots for limit in active):
        raise invalid("Slots requested is greater than the limit")
    steady = [limit.name for limit in active if not limit.decays]
    if mode == "rate_limit" and steady:
        raise invalid(
            "Only concurrency limits with slot decay can be used for rate limiting. "
            f"The following limits do not have a decay configured: {','.join(steady)!r}"
        )


def _refuse(tx: Tx, active: Sequence[SlotLimit], slots: int) -> Refused:
    waits = [limit.wait_seconds(slots, tx.now) for limit in active if not limit.has_room(slots, tx.now)]
    for limit in active:
        tx.execute(
            "UPDATE concurrency_limits SET unleased_slots = ?, denied_slots = ?, unleased_at = ? WHERE id = ?",
            (limit.unleased_at(tx.now), limit.denied_at(tx.now) + slots, tx.now, limit.id),
        )
    return Refused(retry_after_seconds=max(0.1, max(waits) * random.uniform(*_JITTER)))


def _count(tx: Tx, limit: SlotLimit, slots: int) -> None:
    tx.execute(
        "UPDATE concurrency_limits SET unleased_slots = ?, denied_slots = ?, unleased_at = ? WHERE id = ?",
        (max(0.0, limit.unleased_at(tx.now) + slots), limit.denied_at(tx.now), tx.now, limit.id),
    )


def _learn(tx: Tx, limit: SlotLimit, slots: int, occupancy_seconds: float) -> None:
    _note_average(tx, limit.id, limit.average_after(slots, occupancy_seconds))


def _note_average(tx: Tx, limit_id: str, average_seconds: float) -> None:
    tx.execute("UPDATE concurrency_limits SET avg_slot_occupancy_seconds = ? WHERE id = ?", (average_seconds, limit_id))


def _lease(tx: Tx, lease_seconds: float, holder: Mapping[str, Any] | None, execution_id: str | None = None) -> str:
    lease_id = ids.new_id()
    tx.execute(
        "INSERT INTO concurrency_leases (id, workspace_id, holder, expires_at, created, execution_id) VALUES (?, ?, ?, ?, ?, ?)",
        (
            lease_id,
            tx.workspace,
            None if holder is None else orjson.dumps(dict(holder)).decode(),
            tx.now + round(lease_seconds * 1_000_000),
            tx.now,
            execution_id,
        ),
    )
    return lease_id


def _keep_leases(tx: Tx, limit_id: str, wanted: int) -> int:
    """How many slots of the limit are leased after the oldest leases lost theirs, so that it is at most `wanted`."""
    held = tx.all(
        "SELECT s.lease_id, s.slots FROM concurrency_lease_slots AS s JOIN concurrency_leases AS c ON c.id = s.lease_id "
        "WHERE s.limit_id = ? AND c.expires_at > ? ORDER BY c.created DESC, c.id DESC",
        (limit_id, tx.now),
    )
    left = 0
    for row in held:
        if left + row["slots"] <= wanted:
            left += row["slots"]
            continue
        tx.execute(
            "DELETE FROM concurrency_lease_slots WHERE lease_id = ? AND limit_id = ?", (row["lease_id"], limit_id)
        )
    _drop_empty(tx)
    return left


def _drop_empty(tx: Tx) -> None:
    """Leases that hold nothing any more are gone, but for those that their clients renew."""
    tx.execute(
        "DELETE FROM concurrency_leases WHERE workspace_id = ? AND expires_at - created >= ? "
        "AND NOT EXISTS (SELECT 1 FROM concurrency_lease_slots AS s WHERE s.lease_id = concurrency_leases.id)",
        (tx.workspace, round(FOREVER_SECONDS * 1_000_000)),
    )


def _named(tx: Tx, names: Iterable[str]) -> list[SlotLimit]:
    found = tx.all(
        f"{_SELECT} WHERE l.workspace_id = :workspace AND l.name IN (SELECT value FROM json_each(:names)) ORDER BY l.name",
        {"now": tx.now, "workspace": tx.workspace, "names": orjson.dumps(list(names)).decode()},
    )
    return [_limit(row) for row in found]


def _one(tx: Tx, limit_id: str) -> SlotLimit:
    row = tx.one(
        f"{_SELECT} WHERE l.workspace_id = :workspace AND l.id = :id",
        {"now": tx.now, "workspace": tx.workspace, "id": limit_id},
    )
    if row is None:
        raise not_found(CONCURRENCY_LIMIT.label, limit_id)
    return _limit(row)


def _limit(row: Row) -> SlotLimit:
    return SlotLimit(
        id=row["id"],
        name=row["name"],
        limit=row["limit"],
        active=bool(row["active"]),
        decay_per_second=row["slot_decay_per_second"],
        unleased=row["unleased_slots"],
        denied=row["denied_slots"],
        as_of_us=row["unleased_at"],
        leased=row["leased"],
        average_occupancy_seconds=row["avg_slot_occupancy_seconds"],
    )


def _wire(tx: Tx, row: Wire) -> Wire:
    limit = _one(tx, row["id"])
    shown = {name: value for name, value in row.items() if name != "unleased_slots"}
    return {**shown, "active_slots": limit.shown(tx.now), "denied_slots": round(limit.denied_at(tx.now))}
