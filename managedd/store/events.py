"""Events: stored once each, read by filter, followed by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from managedd.bus import Topic
from managedd.clock import iso
from managedd.model.events import RESOURCE_ID, RESOURCE_ROLE, Event
from managedd.store import meta, tails
from managedd.store.event_filters import compile_event_filter
from managedd.store.page_bytes import weighed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.model.event_counts import Spans
    from managedd.store.database import Database, Row, Tx
    from managedd.store.rows import Wire
    from managedd.store.tables import Clause
    from managedd.wire.filters.events import EventFilter

SLACK_US = 60_000_000
"""How far a sender's clock may be ahead of ours before a back-fill misses its events."""
CATCH_UP_EVENTS = 200
"""How many events one transaction puts into the indexes: some milliseconds, which others wait for."""
GLIMPSED = 500
_LISTED = "events.id, events.occurred, events.received, events.event, events.resource, events.related, events.payload, events.follows"
_LARGE = (4, 5, 6)
"""The places of resource, related and payload in it."""
_INSERT = (
    "INSERT INTO events (id, workspace_id, occurred, received, event, resource_id, resource, related, payload, follows) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (workspace_id, id) DO NOTHING RETURNING position"
)


def insert(tx: Tx, events: Iterable[Event]) -> list[Event]:
    """The events are stored; returns those that were not before: an event is known by its id."""
    fresh = [event for event in events if _insert(tx, event)]
    if fresh:
        tx.publish(Topic.EVENTS)
    return fresh


def known(tx: Tx, event_ids: Iterable[str]) -> frozenset[str]:
    """Those of the events that are stored."""
    asked = (tx.workspace, orjson.dumps(list(event_ids)).decode())
    sql = "SELECT id FROM events WHERE workspace_id = ? AND id IN (SELECT value FROM json_each(?))"
    return frozenset(row[0] for row in tx.all(sql, asked))


def _insert(tx: Tx, event: Event) -> bool:
    position = tx.scalar(
        _INSERT,
        (
            event.id,
            tx.workspace,
            event.occurred_us,
            tx.now,
            event.event,
            event.resource_id,
            _json(event.resource),
            _json(event.related),
            _json(event.payload),
            event.follows,
        ),
    )
    return position is not None


def _json(value: Any) -> str:
    return orjson.dumps(value, default=list).decode()


# --- indexes -----------------------------------------------------------------------------------------------------------

_INDEXED_TO = "events_indexed_to"
"""A fact of the store: the position of the last event that is in the indexes."""
_UNINDEXED = "FROM events WHERE position > ? AND position <= ?"
_WORKSPACE = "(SELECT key FROM event_workspaces WHERE event_workspaces.workspace_id = events.workspace_id)"
_CATCH_UP = (
    f"INSERT OR IGNORE INTO event_workspaces (workspace_id) SELECT DISTINCT workspace_id {_UNINDEXED}",
    (
        "INSERT OR IGNORE INTO event_related (workspace, resource_id, position, role) "
        f"SELECT {_WORKSPACE}, resource_id, position, '' {_UNINDEXED}"
    ),
    (
        "INSERT OR IGNORE INTO event_related (workspace, resource_id, position, role) "
        f"SELECT {_WORKSPACE}, json_extract(thing.value, '$.\"{RESOURCE_ID}\"'), position, json_extract(thing.value, '$.\"{RESOURCE_ROLE}\"') "
        "FROM events, json_each(events.related) AS thing WHERE position > ? AND position <= ?"
    ),
    "UPDATE events SET indexed = 1 WHERE position > ? AND position <= ?",
)


async def settle(db: Database) -> None:
    """Every event that was stored before is found by queries."""
    newest = await db.look(head)
    while await db.look(indexed_to) < newest:
        if not await db.write(lambda tx: catch_up(tx, CATCH_UP_EVENTS), durable=False):
            return  # the newest are gone


def catch_up(tx: Tx, limit: int) -> int:
    """The next events, at most `limit`, are found by queries; returns how many."""
    begin = indexed_to(tx)
    end = tx.scalar(
        "SELECT max(position) FROM (SELECT position FROM events WHERE position > ? ORDER BY position LIMIT ?)",
        (begin, limit),
    )
    if end is None:
        return 0
    for statement in _CATCH_UP:
        done = tx.execute(statement, (begin, end)).rowcount
    meta.put(tx, _INDEXED_TO, str(end))
    return done


def indexed_to(tx: Tx) -> int:
    """The position of the last event that queries find."""
    return int(meta.get(tx, _INDEXED_TO) or 0)


# --- queries -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One page of a query, and how many events there are in all."""

    events: list[Wire]
    total: int
    head: int
    """The position of the newest of them."""


def find(tx: Tx, filter_: EventFilter, *, limit: int, offset: int = 0, known: tuple[int, int] | None = None) -> Found:
    """A page of the events that `filter_` admits, in its order. Later pages are told what is `known` by the first: total and head.

    So they fit together, whatever comes meanwhile: an event may come long after it occurred.
    """
    sql, params = _scoped(tx, filter_)
    total, head = known or _extent(tx, filter_)
    if known is not None:
        # No index is chosen by it.
        sql, params = f"{sql} AND +events.position <= ?", [*params, head]
    if filter_.id.id:
        limit = min(limit, len(filter_.id.id))
    order = f"occurred {filter_.order.value}, position {filter_.order.value}"
    source = f"SELECT {_LISTED}, events.position FROM events WHERE {sql}"
    if _distinct(filter_):
        ranked = (
            f"SELECT {_LISTED}, events.position, row_number() OVER (PARTITION BY resource_id ORDER BY {order}) AS place "
            f"FROM events WHERE {sql}"
        )
        source = f"SELECT * FROM ({ranked}) WHERE place = 1"
    found = weighed(tx.execute(f"{source} ORDER BY {order} LIMIT ? OFFSET ?", [*params, limit, offset]), _LARGE)
    return Found(events=[to_wire(row) for row in found], total=total, head=head)


def count(tx: Tx, filter_: EventFilter) -> int:
    """How many events, or with `distinct` resources, `filter_` admits."""
    return _extent(tx, filter_)[0]


def _extent(tx: Tx, filter_: EventFilter) -> tuple[int, int]:
    """How many, and the position of the newest of them: not that of the newest of all, which would tell when others' come."""
    sql, params = _scoped(tx, filter_)
    counted = "count(DISTINCT events.resource_id)" if _distinct(filter_) else "count(*)"
    found = tx.one(f"SELECT {counted}, max(events.position) FROM events WHERE {sql}", params)
    assert found is not None
    return found[0], found[1] or 0


def _distinct(filter_: EventFilter) -> bool:
    return filter_.resource is not None and filter_.resource.distinct


def _scoped(tx: Tx, filter_: EventFilter) -> Clause:
    sql, params = compile_event_filter(filter_, tx.workspace)
    return f"events.workspace_id = ? AND events.indexed = 1 AND {sql}", [tx.workspace, *params]


def to_wire(row: Row) -> Wire:
    """A stored event as it goes over the wire; JSON columns are unparsed fragments."""
    return {
        "occurred": iso(row["occurred"]),
        "event": row["event"],
        "resource": orjson.Fragment(row["resource"]),
        "related": orjson.Fragment(row["related"]),
        "payload": orjson.Fragment(row["payload"]),
        "id": row["id"],
        "follows": row["follows"],
        "received": iso(row["received"]),
    }


def of_resource(tx: Tx, resource_id: str) -> list[Event]:
    """Every stored event about the resource, in their order. For a write transaction: the newest are indexed first."""
    while catch_up(tx, CATCH_UP_EVENTS) == CATCH_UP_EVENTS:
        pass
    rows = tx.all(
        f"SELECT {_LISTED} FROM events WHERE workspace_id = ? AND resource_id = ? AND indexed = 1 ORDER BY occurred, id",
        (tx.workspace, resource_id),
    )
    return [_load(row) for row in rows]


def _load(row: Row) -> Event:
    return Event(
        id=row["id"],
        occurred_us=row["occurred"],
        event=row["event"],
        resource=orjson.loads(row["resource"]),
        related=orjson.loads(row["related"]),
        payload=orjson.loads(row["payload"]),
        follows=row["follows"],
    )


# --- tails -------------------------------------------------------------------------------------------------------------


def head(tx: Tx) -> int:
    """The position of the newest event."""
    return tails.head(tx, "events", "position")


def before(tx: Tx, since_us: int) -> int:
    """The position behind which every event of this workspace lies that occurred, and was received, since then.

    Our own clock is asked too: else one event dated ahead would make every reader begin at it, however long ago it came.
    """
    sql = (
        "SELECT position FROM events INDEXED BY events_received "
        "WHERE indexed = 1 AND workspace_id = ? AND received >= ? AND occurred >= ? ORDER BY received, position LIMIT 1"
    )
    # What came before a clock was set back lies before what came since, and was received later than now.
    firsts = [tx.scalar(sql, (tx.workspace, from_us, since_us)) for from_us in (since_us - SLACK_US, tx.now + SLACK_US)]
    # Not the head: what came in since the indexes were brought up to date is not found here.
    return min((first - 1 for first in firsts if first is not None), default=indexed_to(tx))


def page_after(tx: Tx, filter_: EventFilter, cursor: int, *, until: int | None = None) -> tails.Page:
    """What `filter_` admits of the events after `cursor`, up to and with the position `until` if one is given, as frames of `/events/out`."""
    admitted = compile_event_filter(filter_, None)
    return tails.page_after(tx, "events", "position", _LISTED, admitted, cursor, _frame, time="occurred", until=until)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventGlimpse:
    """What can be told of an event without reading all of it."""

    position: int
    workspace_id: str
    key: str
    """Its name."""
    resource_id: str


def glimpse(tx: Tx, cursor: int) -> tails.Glimpses[EventGlimpse]:
    """The events of all workspaces after position `cursor`, the first `GLIMPSED`."""
    seen = [
        EventGlimpse(position=row[0], workspace_id=row[1], key=row[2], resource_id=row[3])
        for row in tx.execute(
            "SELECT position, workspace_id, event, resource_id FROM events NOT INDEXED "
            f"WHERE position > ? ORDER BY position LIMIT {GLIMPSED}",
            (cursor,),
        )
    ]
    return tails.Glimpses(seen=seen, cursor=seen[-1].position if seen else cursor, more=len(seen) == GLIMPSED)


def _frame(row: Row) -> bytes:
    return orjson.dumps({"type": "event", "event": to_wire(row)})


# --- counts ------------------------------------------------------------------------------------------------------------

_LABEL = """coalesce(
    (SELECT value FROM json_each(events.resource) WHERE key = 'prefect.resource.name'),
    (SELECT value FROM json_each(events.resource) WHERE key = 'prefect.name'),
    events.resource_id)"""


def count_by_time(tx: Tx, filter_: EventFilter, spans: Spans) -> list[Wire]:
    """One count for each span, 0 where nothing happened."""
    sql, params = _scoped(tx, filter_)
    rows = tx.all(
        f"SELECT (events.occurred - ?) / ? AS span, count(*) FROM events WHERE {sql} GROUP BY span",
        [spans.start_us, spans.step_us, *params],
    )
    counts = {row[0]: row[1] for row in rows}
    made = []
    for index in range(spans.count):
        start_us, end_us = spans.bounds(index)
        made.append(_count(str(index), iso(start_us), counts.get(index, 0), start_us, end_us))
    return made


def count_by_name(tx: Tx, filter_: EventFilter) -> list[Wire]:
    """How often each event happened, the most frequent first."""
    return _grouped(tx, filter_, "events.event", "events.event")


def count_by_resource(tx: Tx, filter_: EventFilter) -> list[Wire]:
    """How many events each resource has under its newest name, the one with most first."""
    return _grouped(tx, filter_, "events.resource_id", _LABEL)


def _grouped(tx: Tx, filter_: EventFilter, value: str, label: str) -> list[Wire]:
    sql, params = _scoped(tx, filter_)
    rows = tx.all(
        f"SELECT {value} AS value, {label} AS label, count(*), min(events.occurred), max(events.occurred) AS newest "
        f"FROM events WHERE {sql} GROUP BY 1, 2 ORDER BY newest",
        params,
    )
    merged: dict[str, tuple[str, int, int, int]] = {}
    for thing, name, amount, oldest_us, newest_us in rows:
        _, before_amount, before_us, _ = merged.get(thing, (name, 0, oldest_us, newest_us))
        merged[thing] = (name, before_amount + amount, min(before_us, oldest_us), newest_us)
    counts = [_count(thing, *counted) for thing, counted in merged.items()]
    return sorted(counts, key=lambda count: (-count["count"], count["label"], count["value"]))


def _count(value: str, label: str, amount: int, start_us: int, end_us: int) -> Wire:
    return {"value": value, "label": label, "count": amount, "start_time": iso(start_us), "end_time": iso(end_us)}


# --- retention ---------------------------------------------------------------------------------------------------------


def delete_received_before(tx: Tx, moment_us: int, limit: int) -> int:
    """At most `limit` events of any workspace that were received before the moment are gone; returns how many."""
    # Workspace by workspace, as the index has them: no index of all is kept for this alone.
    return tx.execute(
        "DELETE FROM events WHERE position IN ("
        "SELECT old.position FROM event_workspaces CROSS JOIN events AS old INDEXED BY events_received "
        "ON old.workspace_id = event_workspaces.workspace_id WHERE old.indexed = 1 AND old.received < ? LIMIT ?)",
        (moment_us, limit),
    ).rowcount
