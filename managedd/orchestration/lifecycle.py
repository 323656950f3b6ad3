"""Events of what was made, changed and deleted, of statuses, and of executions: each in the commit of what it tells,
or, when there are very many, in the next ones.

The store's triggers note every change, whoever made it; the end of every write transaction comes here (`Database.open(finish=tell)`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.model.changes import Change, happened, resource, status_event
from managedd.model.events import Event, related_things, related_to_run
from managedd.store import changes, events, lineage, workspaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from managedd.store.database import Database, Tx


def tell(tx: Tx) -> None:
    """What the transaction has changed is told by events; of very much, what came first, and the rest by the transactions after it."""
    for change in changes.take(tx):
        scoped = tx.scoped(change.workspace_id)
        if workspaces.exists(tx, change.workspace_id):
            events.insert(scoped, list(_events(scoped, change)))


async def tell_rest(db: Database) -> None:
    """Everything that was changed is told. Each transaction takes its share by itself."""
    while await db.look(changes.are_left):
        await db.write(lambda _: None, durable=False)


def lapse(tx: Tx) -> None:
    """What nobody polls any more is told to be not ready. For a write transaction whose end tells."""
    changes.note(tx, changes.lapsed(tx))


def _events(tx: Tx, change: Change) -> Iterator[Event]:
    told = list(happened(change))
    if told:
        related = tuple(_related(tx, change))
        for name, payload in told:
            yield _event(tx, name, change, related, payload)
    if change.kind in changes.STATUS_TABLES and (status := changes.new_status(tx, change)) is not None:
        as_it_is, now = status
        yield _event(tx, status_event(change.kind, now), as_it_is, tuple(_related(tx, as_it_is)), {})


def _event(
    tx: Tx, name: str, change: Change, related: tuple[Mapping[str, str], ...], payload: Mapping[str, Any]
) -> Event:
    return Event(
        id=ids.new_id(), occurred_us=tx.now, event=name, resource=resource(change), related=related, payload=payload
    )


def _related(tx: Tx, change: Change) -> Iterator[Mapping[str, str]]:
    seen = change.seen
    match change.kind:
        case "deployment":
            around = lineage.around_deployment(tx, seen["flow_id"], seen["work_queue_id"])
            yield from related_things(around, _tags(seen["tags"]))
        case "work-queue":
            yield from related_things(lineage.around_queue(tx, seen["work_pool_id"]), ())
        case "flow":
            yield from related_things({}, _tags(seen["tags"]))
        case "execution":
            run = lineage.surroundings(tx, seen["flow_run_id"])
            if run is not None:
                yield from related_to_run(run)


def _tags(tags: str | list[str]) -> list[str]:
    return orjson.loads(tags) if isinstance(tags, str) else tags
