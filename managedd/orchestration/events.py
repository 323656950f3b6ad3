"""Events enter here: stored once, and what they tell of task runs recorded, in the caller's transaction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.clock import to_us
from managedd.model.events import Event, explaining_event, state_event
from managedd.orchestration import run_events, task_run_recorder
from managedd.store import events as stored
from managedd.store import lineage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.model.states import State
    from managedd.store.database import Tx
    from managedd.wire.events import Event as WireEvent


def from_wire(event: WireEvent) -> Event:
    """A client's event as the house keeps it."""
    return Event(
        id=event.id,
        occurred_us=to_us(event.occurred),
        event=event.event,
        resource=event.resource,
        related=event.related,
        payload=event.payload,
        follows=event.follows,
    )


def receive(tx: Tx, events: Iterable[Event]) -> list[Event]:
    """The events are stored and their task runs recorded; returns those that were new. Repeating it changes nothing."""
    fresh = stored.insert(tx, events)
    task_run_recorder.record(tx, fresh)
    return fresh


def receive_from_run(tx: Tx, events: Sequence[Event], flow_run_id: str) -> int:
    """Those of the events that the run may tell are received, by `receive`; returns how many it may not."""
    own = run_events.own(tx, events, flow_run_id)
    receive(tx, own)
    return len(events) - len(own)


def emit_state_event(
    tx: Tx, run_id: str, state: State, previous: State | None, about: Mapping[str, Any] | None = None
) -> None:
    """The event that tells of the flow run's new state is stored; the run's row has the state already."""
    around = lineage.surroundings(tx, run_id)
    if around is not None:
        stored.insert(tx, [state_event(around, state, previous, about)])


def emit_explained(tx: Tx, run_id: str, state: State, message: str, about: Mapping[str, Any]) -> None:
    """An event that says what the run's client could not, when it told of that state, is stored: not one more of the state's own."""
    around = lineage.surroundings(tx, run_id)
    if around is not None:
        stored.insert(tx, [explaining_event(ids.new_id(), tx.now, around, replace(state, message=message), about)])
