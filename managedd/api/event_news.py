"""Whom new events may concern: each event is looked at once, and only the sockets are woken whose filters may admit it.

What runs in a container holds two sockets that wait for one kind of event each; were all woken by every commit, a few hundred runs would
use a processor up for nothing. Whoever is woken asks the store with its whole filter: here nothing is decided but who need not.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from managedd.bus import Topic
from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log
from managedd.store import events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.bus import Bus, Subscription
    from managedd.store.database import Database
    from managedd.store.events import Glimpse
    from managedd.wire.filters.events import EventFilter

log = get_log("event_news")

IDLE_SECONDS: Final = 30.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.01
"""Between two turns at least, however many commits there are; the first news after a silence is looked at at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interest:
    """What a filter asks of an event's own name and resource; None: nothing."""

    workspace_id: str
    names: frozenset[str] | None = None
    prefixes: tuple[str, ...] | None = None
    resources: frozenset[str] | None = None

    def may_admit(self, event: Glimpse) -> bool:
        """False: the filter leaves the event out, whatever else it asks for."""
        return (
            event.workspace_id == self.workspace_id
            and (self.names is None or event.name in self.names)
            and (self.prefixes is None or event.name.startswith(self.prefixes))
            and (self.resources is None or event.resource_id in self.resources)
        )


def interest(workspace_id: str, filter_: EventFilter) -> Interest:
    """Of the filter, what can be told of an event without reading it; an empty list asks for nothing, as in the filter."""
    name, resource = filter_.event, filter_.resource
    return Interest(
        workspace_id=workspace_id,
        names=frozenset(name.name) if name is not None and name.name else None,
        prefixes=tuple(name.prefix) if name is not None and name.prefix else None,
        resources=frozenset(resource.id) if resource is not None and resource.id else None,
    )


class Follower:
    """One socket's view."""

    def __init__(self, interest: Interest, opened: anyio.Event) -> None:
        self.interest = interest
        self._opened = opened
        self._first: int | None = None
        self._woken = anyio.Event()

    async def opened(self) -> None:
        """From now on it is woken: what is stored by now must still be read."""
        await self._opened.wait()

    async def wait(self, cursor: int) -> int:
        """Returns when there is something to read, and behind which position, `cursor` or later."""
        await self._woken.wait()
        self._woken = anyio.Event()
        first, self._first = self._first, None
        return cursor if first is None else max(cursor, first - 1)

    def tell(self, position: int) -> None:
        """The event at that position may be for it."""
        if self._first is None:
            self._first = position
            self._woken.set()


class EventNews:
    """All who follow events, and their one reader. Belongs to the event loop."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus
        self._named: defaultdict[str, set[Follower]] = defaultdict(set)
        """Those who wait for events of certain names, by name."""
        self._others: set[Follower] = set()
        self._count = 0
        self._cursor = 0
        self._opened = anyio.Event()
        self._woken: Subscription | None = None

    @contextmanager
    def following(self, interest: Interest) -> Iterator[Follower]:
        """A view for as long as the block lasts."""
        follower = Follower(interest, self._opened)
        places = [self._others] if interest.names is None else [self._named[name] for name in interest.names]
        for place in places:
            place.add(follower)
        self._count += 1
        if self._woken is not None and not self._opened.is_set():
            self._woken.wake()
        try:
            yield follower
        finally:
            self._count -= 1
            for place in places:
                place.discard(follower)
            for name in interest.names or ():
                if not self._named.get(name):
                    self._named.pop(name, None)

    async def run(self) -> None:
        """Looks for as long as it is not cancelled; asleep while nobody follows."""
        with self._bus.subscribe(Topic.EVENTS) as woken:
            self._woken = woken
            try:
                if self._count:
                    woken.wake()
                while True:
                    await woken.wait(IDLE_SECONDS if self._count else None)
                    await self._turn_safely(woken)
                    await anyio.sleep(PACE_SECONDS)
            finally:
                self._woken = None

    async def _turn_safely(self, woken: Subscription) -> None:
        try:
            await self._turn()
        except ManagedError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            log.warning("event_news.postponed", reason=error.message)
            woken.wake()
            await anyio.sleep(error.retry_after_seconds or 1.0)

    async def _turn(self) -> None:
        if not self._count:
            # The next one who follows begins with what is stored then.
            if self._opened.is_set():
                self._opened = anyio.Event()
            return
        if not self._opened.is_set():
            self._cursor = await self._db.look(events.head)
            self._opened.set()
        while seen := await self._db.read(lambda tx: events.glimpse(tx, self._cursor)):
            for event in seen:
                self._tell(event)
            self._cursor = seen[-1].position

    def _tell(self, event: Glimpse) -> None:
        for place in (self._others, self._named.get(event.name, ())):
            for follower in place:
                if follower.interest.may_admit(event):
                    follower.tell(event.position)
