"""Task runs that engines orchestrate themselves: rows made from what their events tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import orjson

from managedd.model.states import StateType
from managedd.store import lineage, rows
from managedd.store.resources import TASK_RUN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.model.states import State
    from managedd.store.database import Row, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step of a task run: the state that it entered, and the columns that came with it."""

    task_run_id: str
    flow_run_id: str | None
    state: State
    columns: Mapping[str, Any]
    """Python values by column; `task_key` and `dynamic_key` are always among them."""

    @property
    def order(self) -> tuple[int, str]:
        """What sorts the steps of one task run."""
        return self.state.timestamp_us, self.state.id


class Applied(Enum):
    """What became of a change."""

    NEWEST = "newest"
    """The row shows it."""
    OLDER = "older"
    """The row shows a later state; this one only joined the history."""
    REFUSED = "refused"
    """Its flow run is gone."""


def apply(tx: Tx, change: Change) -> Applied:
    """The change is part of the task run's history, and the row shows the latest. Repeating it changes nothing."""
    if change.flow_run_id is not None and not _flow_run_exists(tx, change.flow_run_id):
        return Applied.REFUSED
    found = _find(tx, change)
    if found is None:
        columns = {"name": "", **change.columns, **_shown(tx, change, None), "id": change.task_run_id}
        rows.insert(tx, TASK_RUN, columns)
        _insert_state(tx, change.task_run_id, change.state)
        return Applied.NEWEST
    _insert_state(tx, found["id"], change.state)
    later = found["state_timestamp"] is not None and change.order <= (found["state_timestamp"], found["state_id"])
    if later and not (change.state.is_terminal and _was_guessed(tx, found)):
        return Applied.OLDER
    rows.patch(tx, TASK_RUN, found["id"], {**change.columns, **_shown(tx, change, found)})
    return Applied.NEWEST


def rewrite(tx: Tx, task_run_id: str, state_id: str, columns: Mapping[str, Any]) -> None:
    """The row has `columns`, if it still shows that state."""
    if (
        tx.scalar("SELECT state_id FROM task_runs WHERE id = ? AND workspace_id = ?", (task_run_id, tx.workspace))
        == state_id
    ):
        rows.patch(tx, TASK_RUN, task_run_id, columns)


def _flow_run_exists(tx: Tx, flow_run_id: str) -> bool:
    return tx.one("SELECT 1 FROM flow_runs WHERE id = ? AND workspace_id = ?", (flow_run_id, tx.workspace)) is not None


def _was_guessed(tx: Tx, found: Row) -> bool:
    """Whether the row's end is one that no event told: it was ended with its process, and its own word for it is still on its way."""
    return found["state_type"] in {StateType.CRASHED.value, StateType.CANCELLED.value} and not tx.scalar(
        "SELECT EXISTS (SELECT 1 FROM events WHERE workspace_id = ? AND id = ?)", (tx.workspace, found["state_id"])
    )


_FOUND = "SELECT id, flow_run_id, state_id, state_type, state_timestamp FROM task_runs"


def _find(tx: Tx, change: Change) -> Row | None:
    """The row with the change's natural key, else with its id: a run that starts again may name the same task anew."""
    found = None
    if change.flow_run_id is not None:
        key = (change.flow_run_id, change.columns["task_key"], change.columns["dynamic_key"])
        found = tx.one(f"{_FOUND} WHERE flow_run_id = ? AND task_key = ? AND dynamic_key = ?", key)
    return found or tx.one(f"{_FOUND} WHERE id = ? AND workspace_id = ?", (change.task_run_id, tx.workspace))


def _shown(tx: Tx, change: Change, found: Row | None) -> dict[str, Any]:
    """What the row shows of the change. Once flow runs hang below a task run, what it belongs to is told by nobody anew: they would change hands with it."""
    state, owner = change.state, change.flow_run_id
    had = None if found is None else found["flow_run_id"]
    if owner != had and had is None and lineage.has_flow_runs_below(tx, change.task_run_id):
        owner = None
    return {
        "flow_run_id": owner,
        "state_id": state.id,
        "state_type": state.type,
        "state_name": state.name,
        "state_timestamp": state.timestamp_us,
    }


def _insert_state(tx: Tx, task_run_id: str, state: State) -> None:
    details = {**state.details, "task_run_id": task_run_id}
    tx.execute(
        "INSERT INTO task_run_states (id, workspace_id, task_run_id, type, name, timestamp, message, state_details, data) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (
            state.id,
            tx.workspace,
            task_run_id,
            state.type.value,
            state.name,
            state.timestamp_us,
            state.message,
            orjson.dumps(details).decode(),
            None if state.data is None else orjson.dumps(state.data).decode(),
        ),
    )
