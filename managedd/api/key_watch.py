"""Sockets that a run's key has opened end with it: one look at what has ended serves all of them."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from managedd.api import patience
from managedd.bus import Topic
from managedd.observe import get_log
from managedd.store import executions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.bus import Bus, Subscription
    from managedd.store.database import Database

log = get_log("key_watch")

LOOK_SECONDS: Final = 60.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.05
"""Between two looks at least, however many executions move."""


class KeyWatch:
    """What to end with which execution. Belongs to the event loop."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus
        self._ends: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)
        self._woken: Subscription | None = None

    @contextmanager
    def watching(self, execution_id: str, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called once the execution is over, or soon if it is already, while the block lasts."""
        self._ends[execution_id].add(end)
        if self._woken is not None:
            self._woken.wake()
        try:
            yield
        finally:
            self._ends[execution_id].discard(end)
            if not self._ends[execution_id]:
                del self._ends[execution_id]

    async def run(self) -> None:
        """Looks for as long as it is not cancelled; asleep while no run's key has opened a socket."""
        with self._bus.subscribe(Topic.EXECUTIONS) as woken:
            self._woken = woken
            try:
                if self._ends:
                    woken.wake()
                while True:
                    await woken.wait(LOOK_SECONDS if self._ends else None)
                    await patience.done(self._look, woken, log, "key_watch.postponed")
                    await anyio.sleep(PACE_SECONDS)
            finally:
                self._woken = None

    async def _look(self) -> None:
        if not self._ends:
            return
        asked = list(self._ends)
        still = await self._db.read(lambda tx: executions.open_among(tx, asked))
        for execution_id in asked:
            if execution_id not in still:
                for end in list(self._ends.get(execution_id, ())):
                    end()
