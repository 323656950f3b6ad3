"""Runs that time has overtaken, over all workspaces: what is late, paused for too long, or left over from a parent that ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from managedd.store.offspring import DEFERRED, IN_PROCESS, WAITED_FOR
from managedd.store.offspring import LIVE_SQL as _LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Row, Tx

_MICROSECONDS_A_DAY = 86_400_000_000
_EPOCH_DAY = 2_440_587.5
"""The Julian day of 1970-01-01."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A run to be looked at."""

    id: str
    workspace_id: str
    deployment_id: str | None = None
    in_process: bool = True
    """It runs in its parent's process."""
    parent_type: str | None = None
    """How its parent ended."""
    parent_message: str | None = None


def _loaded(found: Iterable[Row]) -> list[Overdue]:
    return [Overdue(**dict(row)) for row in found]


def late(tx: Tx, *, due_before_us: int, limit: int) -> list[Overdue]:
    """Runs in "Scheduled" that were due before `due_before_us`, the longest due first."""
    return _loaded(
        tx.all(
            "SELECT id, workspace_id, deployment_id FROM flow_runs "
            "WHERE state_type = 'SCHEDULED' AND state_name = 'Scheduled' AND next_scheduled_start_time <= ? "
            "ORDER BY next_scheduled_start_time LIMIT ?",
            (due_before_us, limit),
        )
    )


def first_due(tx: Tx) -> int | None:
    """When the first run in "Scheduled" is or was due; microseconds."""
    moment: int | None = tx.scalar(
        "SELECT min(next_scheduled_start_time) FROM flow_runs WHERE state_type = 'SCHEDULED' AND state_name = 'Scheduled'"
    )
    return moment


# The client writes its times with or without a fraction, so they can't be compared as texts.
_PAUSE_END_US = f"(julianday(json_extract(s.state_details, '$.pause_timeout')) - {_EPOCH_DAY}) * {_MICROSECONDS_A_DAY}"
_PAUSED = "FROM flow_runs AS r JOIN flow_run_states AS s ON s.id = r.state_id WHERE r.state_type = 'PAUSED'"


def paused_too_long(tx: Tx, *, limit: int) -> list[Overdue]:
    """Paused runs whose pause has ended, to the millisecond."""
    return _loaded(
        tx.all(
            f"SELECT r.id, r.workspace_id, r.deployment_id {_PAUSED} AND {_PAUSE_END_US} < ? ORDER BY r.id LIMIT ?",
            (tx.now, limit),
        )
    )


def first_pause_end(tx: Tx) -> int | None:
    """When the first pause ends or ended; microseconds."""
    moment: float | None = tx.scalar(f"SELECT min({_PAUSE_END_US}) {_PAUSED}")
    return None if moment is None else int(moment)


# Few runs end so in a short time, and each leads to its children by an index; CROSS JOIN keeps SQLite to that order. The engine ends
# the children of what it runs itself; this is the net under it, and for runs outside our containers. One that crashed and has an
# execution yet may still be reporting the ends of its children itself.
_ENDED = (
    "FROM workspaces AS w "
    "CROSS JOIN flow_runs AS p ON p.workspace_id = w.id AND p.end_time >= ? AND (p.state_type = 'CANCELLED' OR (p.state_type = 'CRASHED' "
    "AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = p.id AND e.phase NOT IN ('FINALIZED', 'LOST')))) "
    "CROSS JOIN task_runs AS t ON t.flow_run_id = p.id "
)
_PARENT = (
    "p.state_type AS parent_type, (SELECT message FROM flow_run_states AS s WHERE s.id = p.state_id) AS parent_message"
)
_IS_IN_PROCESS = IN_PROCESS.format(run="r")


def orphaned_subflows(tx: Tx, *, since_us: int, limit: int) -> list[Overdue]:
    """Runs that go on below a run that was cancelled or crashed since then.

    Of those in a place of their own, a crash says nothing, and one that is being cancelled is not asked again.
    """
    return _loaded(
        tx.all(
            f"SELECT r.id, r.workspace_id, r.deployment_id, {_IS_IN_PROCESS} AS in_process, {_PARENT} {_ENDED} "
            f"CROSS JOIN flow_runs AS r ON r.parent_task_run_id = t.id AND r.workspace_id = t.workspace_id AND r.state_type IN {_LIVE} "
            f"WHERE ({_IS_IN_PROCESS}) OR (p.state_type = 'CANCELLED' AND r.state_type <> 'CANCELLING') ORDER BY r.id LIMIT ?",
            (since_us, limit),
        )
    )


def orphaned_task_runs(tx: Tx, *, since_us: int, limit: int) -> list[Overdue]:
    """Task runs that go on in a flow run that was cancelled or crashed since then; not those of a subflow that goes on, nor those that
    task workers run, unless they were cancelled with it."""
    return _loaded(
        tx.all(
            f"SELECT t.id, t.workspace_id, {_PARENT} {_ENDED} WHERE t.state_type IN {_LIVE} "
            f"AND NOT {WAITED_FOR.format(task='t')} AND (p.state_type = 'CANCELLED' OR NOT {DEFERRED.format(task='t')}) "
            "ORDER BY t.id LIMIT ?",
            (since_us, limit),
        )
    )


def stuck_cancelling(tx: Tx, *, since_before_us: int, limit: int) -> list[Overdue]:
    """Runs that have been cancelling since before then and have no container of ours: nobody is going to say that they ended."""
    return _loaded(
        tx.all(
            "SELECT id, workspace_id, deployment_id FROM flow_runs WHERE state_type = 'CANCELLING' AND state_timestamp <= ? "
            "AND NOT EXISTS (SELECT 1 FROM executions AS e WHERE e.flow_run_id = flow_runs.id "
            "AND e.phase NOT IN ('FINALIZED', 'LOST')) ORDER BY state_timestamp LIMIT ?",
            (since_before_us, limit),
        )
    )
