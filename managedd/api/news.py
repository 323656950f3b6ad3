"""Whom new rows may concern: each is looked at once, and only the sockets are woken whose filters may admit it.

What runs in a container holds sockets that wait for one kind of event each, and people follow one run's lines each; were all woken by
every commit, a few hundred of them would use a processor up for nothing. Whoever is woken asks the store with its whole filter: here
nothing is decided but who need not.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

import anyio

from managedd.api import patience
from managedd.bus import Subscription
from managedd.observe import get_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.bus import Bus, Topic
    from managedd.store.database import Database, Tx
    from managedd.store.tails import Glimpses

log = get_log("news")

IDLE_SECONDS: Final = 30.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.01
"""Between two turns at least, however many commits there are; the first news after a silence is looked at at once."""


class Glimpse(Protocol):
    """What can be told of new rows without reading all of them."""

    @property
    def position(self) -> int:
        """Where the first of them is."""

    @property
    def key(self) -> str | None:
        """What interests are sorted by: an event's name, a line's run."""


G = TypeVar("G", bound=Glimpse)
G_contra = TypeVar("G_contra", bound=Glimpse, contravariant=True)


class Interest(Protocol[G_contra]):
    """What a filter asks of rows."""

    @property
    def keys(self) -> frozenset[str] | None:
        """Rows with other keys are left out; None: it asks for nothing."""

    def may_admit(self, glimpse: G_contra) -> bool:
        """False: the filter leaves the rows out, whatever else it asks for."""


class Follower(Generic[G]):
    """One socket's view."""

    def __init__(self, news: News[G], interest: Interest[G]) -> None:
        self.interest = interest
        self._news = news
        self._first: int | None = None
        self._woken = anyio.Event()

    async def opened(self) -> None:
        """From now on it is woken: what is stored by now must still be read."""
        await self._news.opened.wait()

    @property
    def until(self) -> int:
        """How far it can read: what lies behind that will wake it."""
        return self._news.cursor

    async def wait(self, cursor: int) -> int:
        """Returns when there is something to read, and behind which position, `cursor` or later."""
        await self._woken.wait()
        self._woken = anyio.Event()
        first, self._first = self._first, None
        return cursor if first is None else max(cursor, first - 1)

    def tell(self, position: int) -> None:
        """What is at that position may be for it. Positions come in any order between two of its looks."""
        self._first = position if self._first is None else min(self._first, position)
        self._woken.set()


class News(Generic[G]):
    """All who follow a table, and their one reader. Belongs to the event loop."""

    def __init__(
        self, db: Database, bus: Bus, topic: Topic, head: Callable[[Tx], int], glimpse: Callable[[Tx, int], Glimpses[G]]
    ) -> None:
        """`glimpse` tells of some of the rows behind a position, those of all workspaces."""
        self._db = db
        self._bus = bus
        self._topic = topic
        self._head = head
        self._glimpse = glimpse
        self._keyed: defaultdict[str, set[Follower[G]]] = defaultdict(set)
        self._others: set[Follower[G]] = set()
        """Those whose interests have no keys."""
        self._count = 0
        self._woken = self._asleep = Subscription()
        """What wakes the reader: while nobody follows, no commit does."""
        self.cursor = 0
        """Of what lies up to here, everybody was told."""
        self.opened = anyio.Event()
        """Set while those who follow are told of what is stored."""

    @contextmanager
    def following(self, interest: Interest[G]) -> Iterator[Follower[G]]:
        """A view for as long as the block lasts."""
        follower = Follower(self, interest)
        keys = interest.keys
        places = [self._others] if keys is None else [self._keyed[key] for key in keys]
        for place in places:
            place.add(follower)
        self._count += 1
        if not self.opened.is_set():
            self._woken.wake()
        try:
            yield follower
        finally:
            self._count -= 1
            for place in places:
                place.discard(follower)
            for key in keys or ():
                if not self._keyed.get(key):
                    self._keyed.pop(key, None)

    async def run(self) -> None:
        """Looks for as long as it is not cancelled; asleep while nobody follows."""
        while True:
            if not self._count:
                await self._asleep.wait()
            with self._bus.subscribe(self._topic) as woken:
                self._woken = woken
                woken.wake()
                try:
                    await self._look_on(woken)
                finally:
                    self._woken = self._asleep

    async def _look_on(self, woken: Subscription) -> None:
        while self._count:
            await woken.wait(IDLE_SECONDS)
            await patience.done(self._turn, woken, log, "news.postponed", topic=self._topic.value)
            await anyio.sleep(PACE_SECONDS)
        # The next one who follows begins with what is stored then.
        if self.opened.is_set():
            self.opened = anyio.Event()

    async def _turn(self) -> None:
        if not self.opened.is_set():
            self.cursor = await self._db.look(self._head)
            self.opened.set()
        more = True
        while more:
            found = await self._db.read(lambda tx: self._glimpse(tx, self.cursor))
            for one in found.seen:
                self._tell(one)
            self.cursor, more = found.cursor, found.more

    def _tell(self, glimpse: G) -> None:
        keyed = () if glimpse.key is None else self._keyed.get(glimpse.key, ())
        for place in (self._others, keyed):
            for follower in place:
                if follower.interest.may_admit(glimpse):
                    follower.tell(glimpse.position)
