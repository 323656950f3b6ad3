"""How much runs have told by their own keys: written in the transaction of the events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from managedd.model.events import Event
    from managedd.store.database import Tx

OVERHEAD_BYTES: Final = 200
"""What an event counts besides its texts, and as much again for each thing that it involves: about what its indexes take."""


def size_of(event: Event) -> int:
    """What the event counts, bytes."""
    things = [dict(event.resource), *map(dict, event.related)]
    texts = len(orjson.dumps(things)) + len(orjson.dumps(event.payload)) + len(event.event.encode(errors="replace"))
    return texts + OVERHEAD_BYTES * (1 + len(things))


def told(tx: Tx, flow_run_id: str) -> int:
    """What the run has told in all of its attempts, bytes."""
    found: int = tx.scalar("SELECT coalesce(sum(event_bytes), 0) FROM executions WHERE flow_run_id = ?", (flow_run_id,))
    return found


def grow(tx: Tx, execution_id: str, more_bytes: int, left_out: int) -> bool:
    """The execution has told so much more, and so many events were left out; returns whether those are its first."""
    before: int = tx.scalar(
        "UPDATE executions SET event_bytes = event_bytes + ?, events_left_out = events_left_out + ? WHERE id = ? "
        "RETURNING events_left_out - ?",
        (more_bytes, left_out, execution_id, left_out),
    )
    return left_out > 0 and before == 0
