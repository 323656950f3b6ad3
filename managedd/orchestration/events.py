"""Events enter here: stored once, and what they tell of task runs recorded, in the caller's transaction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from managedd import ids
from managedd.clock import to_us
from managedd.errors import ErrorCode, ManagedError
from managedd.model.events import Event, explaining_event, state_event
from managedd.orchestration import run_events, task_run_recorder
from managedd.store import event_sizes, lineage
from managedd.store import events as stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.model.states import State
    from managedd.store.database import Tx
    from managedd.wire.events import Event as WireEvent


MAX_EVENT_BYTES = 1_500_000
"""What one event may have (Prefect's bound): a query looks through the whole text of each that it meets."""


def from_wire(event: WireEvent) -> Event:
    """A client's event as the house keeps it. Raises ManagedError(TOO_LARGE)."""
    made = Event(
        id=event.id,
        occurred_us=to_us(event.occurred),
        event=event.event,
        resource=event.resource,
        related=event.related,
        payload=event.payload,
        follows=event.follows,
    )
    if (size_bytes := event_sizes.size_of(made)) > MAX_EVENT_BYTES:
        raise ManagedError(
            ErrorCode.TOO_LARGE,
            f"An event of {size_bytes:,} bytes is too large: {MAX_EVENT_BYTES:,} are allowed, its related resources included. "
            "Store what is large as an artifact or a result, and tell of it",
        )
    return made


def receive(tx: Tx, events: Iterable[Event]) -> list[Event]:
    """The events are stored and their task runs recorded; returns those that were new. Repeating it changes nothing."""
    fresh = stored.insert(tx, events)
    task_run_recorder.record(tx, fresh)
    return fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What became of events that a run has sent."""

    foreign: int
    """So many it may not tell."""
    excess: int
    """For so many there was no room any more."""
    is_first_excess: bool
    """Whether none of its execution's was left out for that before."""


def receive_from_run(
    tx: Tx, events: Sequence[Event], *, flow_run_id: str, execution_id: str, max_bytes: int | None
) -> Received:
    """Those of the events that the run may tell are received, by `receive`, as far as `max_bytes` of all that it tells allow."""
    own = run_events.own(tx, events, flow_run_id)
    room = math.inf if max_bytes is None else max_bytes - event_sizes.told(tx, flow_run_id)
    sizes = {event.id: event_sizes.size_of(event) for event in own}
    # What is sent again, as after a lost connection, takes no room.
    known = stored.known(tx, sizes) if sum(sizes.values()) > room else frozenset()
    within: list[Event] = []
    for event in own:
        size = 0 if event.id in known else sizes[event.id]
        # A small one may still fit where a large one does not: how a task run has ended is small.
        if size <= max(room, 0):
            room -= size
            within.append(event)
    fresh = receive(tx, within)
    excess = len(own) - len(within)
    told = sum(sizes[event.id] for event in fresh)
    is_first = bool(told or excess) and event_sizes.grow(tx, execution_id, told, excess)
    return Received(foreign=len(events) - len(own), excess=excess, is_first_excess=is_first)


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
