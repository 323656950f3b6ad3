"""Engines orchestrate their task runs themselves and tell of it in events; from those the rows are made.

Events may come twice and in any order: the row is what folding all of them in their own order gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from managedd import ids
from managedd.model.events import RESOURCE_ID
from managedd.model.states import State, default_name
from managedd.store import events as stored
from managedd.store import task_runs
from managedd.store.task_runs import Applied, Change
from managedd.wire.recorded import TaskRunPayload

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.model.events import Event
    from managedd.store.database import Tx

_TASK_RUN: Final = "prefect.task-run."
_FLOW_RUN: Final = "prefect.flow-run."
TASK_RUN_EVENTS: Final = "prefect.task-run"
"""What the names of events about task runs begin with."""


def task_run_of(event: Event) -> str | None:
    """The id of the task run that the event is about, or None."""
    return object_id(event.resource_id, _TASK_RUN)


def flow_run_of(event: Event) -> str | None:
    """The id of the flow run to which the event says that its task run belongs, or None."""
    labels = event.related_in_role("flow-run")
    return None if labels is None else object_id(labels[RESOURCE_ID], _FLOW_RUN)


def change_of(event: Event) -> Change | None:
    """What the event tells of a task run, or None: another kind of event, or one that the server's own rules made."""
    if not event.event.startswith(TASK_RUN_EVENTS) or event.resource.get("prefect.orchestration") != "client":
        return None
    task_run_id, flow_run_id = task_run_of(event), flow_run_of(event)
    labels = event.related_in_role("flow-run")
    if task_run_id is None or (labels is not None and flow_run_id is None):
        return None
    try:
        payload = TaskRunPayload.model_validate(event.payload)
    except ValueError:
        return None
    return Change(
        task_run_id=task_run_id,
        flow_run_id=flow_run_id,
        state=_state(event, payload, flow_run_id),
        columns={name: getattr(payload.task_run, name) for name in payload.task_run.model_fields_set},
    )


def _state(event: Event, payload: TaskRunPayload, flow_run_id: str | None) -> State:
    state = payload.validated_state
    details = state.state_details.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    if flow_run_id is not None:
        details["flow_run_id"] = flow_run_id
    return State(
        id=event.id,
        type=state.type,
        name=state.name or default_name(state.type),
        timestamp_us=event.occurred_us,
        message=state.message,
        data=state.data,
        details=details,
    )


def object_id(resource_id: str, prefix: str) -> str | None:
    """The id in a resource's id with that prefix, or None."""
    text = resource_id.removeprefix(prefix)
    return ids.canonical(text) if resource_id.startswith(prefix) and ids.is_uuid(text) else None


def fold(changes: Iterable[Change]) -> tuple[Change, dict[str, Any]] | None:
    """The latest change, and the columns that all of them together give; None when there is none."""
    ordered = sorted(changes, key=lambda change: change.order)
    columns: dict[str, Any] = {}
    for change in ordered:
        columns.update(change.columns)
    return (ordered[-1], columns) if ordered else None


def record(tx: Tx, events: Iterable[Event]) -> None:
    """The task runs that the events, which are stored already, tell of are rows with their states."""
    changes = [change for change in map(change_of, events) if change is not None]
    overtaken = {
        change.task_run_id
        for change in sorted(changes, key=lambda change: change.order)
        if task_runs.apply(tx, change) is Applied.OLDER
    }
    for task_run_id in sorted(overtaken):
        _refold(tx, task_run_id)


def _refold(tx: Tx, task_run_id: str) -> None:
    """An event came after later ones: what only it knows is put below what they said."""
    history = map(change_of, stored.of_resource(tx, f"{_TASK_RUN}{task_run_id}"))
    folded = fold(change for change in history if change is not None)
    if folded is not None:
        latest, columns = folded
        task_runs.rewrite(tx, task_run_id, latest.state.id, columns)
