"""Executions: one attempt to run a flow run, in one container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.bus import Topic
from managedd.model.executions import NEXT, EndCause, Execution, Phase
from managedd.model.limits import Needs
from managedd.model.metering import Noted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.store.database import Row, Tx

_COLUMNS = (
    "id, workspace_id, flow_run_id, attempt, phase, driver, handle, image, memory_limit_bytes, cpu_limit, time_limit_seconds, "
    "claimed_at, created_at, started_at, installed_at, exited_at, finalized_at, exit_code, oom_killed, peak_memory_bytes, "
    "stop_requested_at, stop_reason, end_cause, end_message"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """Whose key it is."""

    execution_id: str
    flow_run_id: str
    workspace_id: str
    account_id: str


def _load(row: Row) -> Execution:
    values: dict[str, Any] = dict(zip(row.keys(), row, strict=True))
    values["phase"] = Phase(values["phase"])
    values["handle"] = None if values["handle"] is None else orjson.loads(values["handle"])
    values["oom_killed"] = bool(values["oom_killed"])
    for name in ("stop_reason", "end_cause"):
        values[name] = None if values[name] is None else EndCause(values[name])
    return Execution(**values)


def insert(
    tx: Tx,
    *,
    flow_run_id: str,
    work_pool_id: str | None,
    driver: str,
    execution_id: str | None = None,
    needs: Needs | None = None,
) -> Execution:
    """A CLAIMED execution of the run exists, and `needs` of the host is reserved for it; its attempt is one more than the run's last.

    Raises IntegrityFault (CONFLICT) when the run has a live one.
    """
    attempt = tx.scalar("SELECT coalesce(max(attempt), 0) + 1 FROM executions WHERE flow_run_id = ?", (flow_run_id,))
    execution_id = execution_id or ids.new_id()
    tx.execute(
        "INSERT INTO executions (id, workspace_id, flow_run_id, work_pool_id, attempt, phase, driver, claimed_at, memory_limit_bytes, "
        "cpu_limit, deployment_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT deployment_id FROM flow_runs WHERE id = ?))",
        (
            execution_id,
            tx.workspace,
            flow_run_id,
            work_pool_id,
            attempt,
            Phase.CLAIMED.value,
            driver,
            tx.now,
            None if needs is None else needs.memory_bytes,
            None if needs is None else needs.cpus,
            flow_run_id,
        ),
    )
    tx.publish(Topic.EXECUTIONS)
    found = get(tx, execution_id)
    assert found is not None
    return found


def get(tx: Tx, execution_id: str) -> Execution | None:
    """The execution, of whatever workspace, or None: the engine works across workspaces."""
    row = tx.one(f"SELECT {_COLUMNS} FROM executions WHERE id = ?", (execution_id,))
    return None if row is None else _load(row)


def of_run(tx: Tx, flow_run_id: str) -> list[Execution]:
    """Every execution of a run, first attempt first."""
    return [
        _load(r)
        for r in tx.all(f"SELECT {_COLUMNS} FROM executions WHERE flow_run_id = ? ORDER BY attempt", (flow_run_id,))
    ]


def open_ones(tx: Tx) -> list[Execution]:
    """Every execution that has not ended, oldest claim first."""
    rows = tx.all(f"SELECT {_COLUMNS} FROM executions WHERE phase NOT IN ('FINALIZED', 'LOST') ORDER BY claimed_at, id")
    return [_load(row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What tells whether anything has changed for the execution's runner."""

    phase: str
    stop_requested_at: int | None
    state_id: str | None
    """The run's state; None: the run is gone."""


def marks(tx: Tx) -> dict[str, Mark]:
    """The mark of every execution that has not ended, by its id."""
    found = tx.all(
        "SELECT e.id, e.phase, e.stop_requested_at, r.state_id FROM executions AS e LEFT JOIN flow_runs AS r ON r.id = e.flow_run_id "
        "WHERE e.phase NOT IN ('FINALIZED', 'LOST')"
    )
    return {row[0]: Mark(phase=row[1], stop_requested_at=row[2], state_id=row[3]) for row in found}


def running_in(tx: Tx, workspace_id: str) -> list[Execution]:
    """The workspace's executions that were started and that nobody has asked to stop."""
    found = tx.all(
        f"SELECT {_COLUMNS} FROM executions INDEXED BY executions_open WHERE phase NOT IN ('FINALIZED', 'LOST') "
        "AND phase = 'RUNNING' AND workspace_id = ? AND stop_requested_at IS NULL ORDER BY claimed_at, id",
        (workspace_id,),
    )
    return [_load(row) for row in found]


def workspaces_running(tx: Tx) -> frozenset[str]:
    """The workspaces in which there are such."""
    found = tx.all(
        "SELECT DISTINCT workspace_id FROM executions INDEXED BY executions_open WHERE phase NOT IN ('FINALIZED', 'LOST') "
        "AND phase = 'RUNNING' AND stop_requested_at IS NULL"
    )
    return frozenset(row[0] for row in found)


def unstarted(tx: Tx) -> dict[str, int]:
    """How many executions were claimed and have not been started, of each workspace that has such."""
    found = tx.all(
        "SELECT workspace_id, count(*) FROM executions INDEXED BY executions_open WHERE phase NOT IN ('FINALIZED', 'LOST') "
        "AND phase <> 'EXITED' AND started_at IS NULL GROUP BY workspace_id"
    )
    return {row[0]: row[1] for row in found}


def reserved(tx: Tx) -> Needs:
    """What all executions that may be running were promised of the host."""
    row = tx.one(
        "SELECT coalesce(sum(memory_limit_bytes), 0) AS memory, coalesce(sum(cpu_limit), 0.0) AS cpus "
        "FROM executions INDEXED BY executions_open WHERE phase NOT IN ('FINALIZED', 'LOST') AND phase <> 'EXITED'"
    )
    assert row is not None
    return Needs(memory_bytes=row["memory"], cpus=row["cpus"])


def ended_by_us(tx: Tx, flow_run_id: str) -> str | None:
    """Why this daemon ended the run's last execution, in words; None when the run ended by itself, or has no execution."""
    row = tx.one(
        "SELECT stop_reason, end_cause, end_message FROM executions WHERE flow_run_id = ? ORDER BY attempt DESC LIMIT 1",
        (flow_run_id,),
    )
    if row is None:
        return None
    cause = row["end_cause"] or row["stop_reason"]
    if cause is None or cause == EndCause.COMPLETED.value:
        return None
    return row["end_message"] or f"it was ended ({cause})"


def live_of_run(tx: Tx, flow_run_id: str) -> Execution | None:
    """The run's execution that has not ended, or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM executions WHERE flow_run_id = ? AND phase NOT IN ('FINALIZED', 'LOST')",
        (flow_run_id,),
    )
    return None if row is None else _load(row)


def open_among(tx: Tx, execution_ids: Sequence[str]) -> frozenset[str]:
    """Those of the executions that have not ended."""
    asked = orjson.dumps(execution_ids).decode()
    found = tx.all(
        "SELECT id FROM executions WHERE id IN (SELECT value FROM json_each(?)) AND phase NOT IN ('FINALIZED', 'LOST')",
        (asked,),
    )
    return frozenset(row[0] for row in found)


def may_run(tx: Tx, execution_id: str) -> bool:
    """Whether the execution's process may be there."""
    return bool(
        tx.scalar("SELECT phase IN ('CLAIMED', 'CREATED', 'RUNNING') FROM executions WHERE id = ?", (execution_id,))
    )


def advance(
    tx: Tx, execution_id: str, from_: Iterable[Phase], to: Phase, changes: Mapping[str, Any] | None = None
) -> Execution | None:
    """The execution is in `to` with `changes`, or None when it was not in one of `from_`. Nothing else writes `phase`.

    Raises ValueError for a move that `NEXT` does not have.
    """
    sources = [phase.value for phase in from_]
    if not all(to in NEXT[Phase(source)] for source in sources):
        raise ValueError(f"no move from {sources} to {to}")
    values = {"phase": to.value, **_encode(changes or {})}
    assigned = ", ".join(f"{name} = ?" for name in values)
    row = tx.one(
        f"UPDATE executions SET {assigned} WHERE id = ? AND phase IN (SELECT value FROM json_each(?)) RETURNING {_COLUMNS}",
        (*values.values(), execution_id, orjson.dumps(sources).decode()),
    )
    if row is None:
        return None
    tx.publish(Topic.EXECUTIONS)
    return _load(row)


def evidence(tx: Tx, execution_id: str) -> dict[str, Any]:
    """What shows how the execution ended, as far as it is on record."""
    found = tx.scalar("SELECT evidence FROM executions WHERE id = ?", (execution_id,))
    return {} if found is None else dict(orjson.loads(found))


def note(tx: Tx, execution_id: str, changes: Mapping[str, Any]) -> None:
    """The execution has `changes`; its phase is as it was."""
    if "phase" in changes:
        raise ValueError("only advance() writes phase")
    values = _encode(changes)
    assigned = ", ".join(f"{name} = ?" for name in values)
    tx.execute(f"UPDATE executions SET {assigned} WHERE id = ?", (*values.values(), execution_id))
    tx.publish(Topic.EXECUTIONS)


def note_ran(tx: Tx, seen: Mapping[str, tuple[int, int]]) -> None:
    """For how long each of these was seen to run is on record, and how long ago that was, in microseconds. Nobody is woken: nothing has
    happened to them."""
    tx.execute(
        "UPDATE executions SET ran_us = seen.value ->> 0, seen_at = ? - (seen.value ->> 1) FROM json_each(?) AS seen "
        "WHERE executions.id = seen.key AND executions.phase = 'RUNNING' AND coalesce(executions.ran_us, 0) <= seen.value ->> 0",
        (tx.now, orjson.dumps(dict(seen)).decode()),
    )


def note_unwatched(tx: Tx, execution_ids: Iterable[str]) -> None:
    """Of these, which somebody else has started, nobody knows how long they ran, unless it is on record."""
    tx.execute(
        "UPDATE executions SET ran_us = 0, seen_at = started_at "
        "WHERE ran_us IS NULL AND id IN (SELECT value FROM json_each(?))",
        (orjson.dumps(list(execution_ids)).decode(),),
    )


def noted(tx: Tx, execution_id: str) -> Noted | None:
    """For how long it was seen to run, and when; None: nothing is on record."""
    row = tx.one("SELECT ran_us, seen_at FROM executions WHERE id = ?", (execution_id,))
    if row is None or row["ran_us"] is None or row["seen_at"] is None:
        return None
    return Noted(ran_us=row["ran_us"], at_us=row["seen_at"])


def request_stop(tx: Tx, execution_id: str, reason: EndCause) -> bool:
    """The wish to stop is on record, unless there was one already or it has ended: the first reason stays."""
    done = tx.execute(
        "UPDATE executions SET stop_requested_at = ?, stop_reason = ? "
        "WHERE id = ? AND stop_requested_at IS NULL AND phase NOT IN ('FINALIZED', 'LOST')",
        (tx.now, reason.value, execution_id),
    )
    if done.rowcount:
        tx.publish(Topic.EXECUTIONS)
    return bool(done.rowcount)


def abandon(tx: Tx, flow_run_id: str) -> None:
    """The run's live execution, if any, is asked to stop because nobody wants the run any more."""
    live = live_of_run(tx, flow_run_id)
    if live is not None:
        request_stop(tx, live.id, EndCause.CANCEL)


def by_key_hash(tx: Tx, hashed: str) -> KeyOwner | None:
    """Whose key has that hash, while its execution has not ended."""
    row = tx.one(
        "SELECT e.id AS execution_id, e.flow_run_id, e.workspace_id, w.account_id FROM executions AS e "
        "JOIN workspaces AS w ON w.id = e.workspace_id WHERE e.key_hash = ? AND e.phase NOT IN ('FINALIZED', 'LOST')",
        (hashed,),
    )
    return None if row is None else KeyOwner(**dict(row))


def _encode(changes: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in changes.items():
        if name in {"handle", "evidence"} and value is not None:
            made[name] = orjson.dumps(value).decode()
        elif isinstance(value, bool):
            made[name] = int(value)
        else:
            made[name] = getattr(value, "value", value)
    return made
