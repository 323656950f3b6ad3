"""The lookout: one look at all open executions after a commit, whoever of them has changed is woken.

So five hundred runs under way cost a commit one query, not five hundred.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from managedd.bus import Bus, Subscription, Topic
from managedd.observe import get_log
from managedd.store import executions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import TaskStatus

    from managedd.store.database import Database

log = get_log("lookout")

REST_SECONDS: Final = 0.02
"""Between two looks: a storm of commits is one look."""
FAILED_SECONDS: Final = 1.0


class _Watched:
    def __init__(self) -> None:
        self.woken = Subscription()
        self.mark: executions.Mark | None = None


class Lookout:
    """Wakes the watcher of an execution when its row or its run's state has changed."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus
        self._watched: dict[str, set[_Watched]] = {}
        self._somebody = Subscription()
        """Awake once there is a watcher."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Looks after every commit that may concern an execution, until cancelled."""
        with self._bus.subscribe(Topic.RUNS, Topic.EXECUTIONS) as woken:
            task_status.started()
            while True:
                await woken.wait()
                if not self._watched:
                    # What was committed concerns nobody; what is, once somebody watches, wakes as ever.
                    await self._somebody.wait()
                    continue
                try:
                    await self.once()
                except Exception as error:
                    # Nobody may be left asleep: what was not seen now is looked for again.
                    log.warning("look.postponed", reason=str(error))
                    woken.wake()
                    await anyio.sleep(FAILED_SECONDS)
                await anyio.sleep(REST_SECONDS)

    async def once(self) -> None:
        """Every watcher of what has changed since the last look is awake."""
        if not self._watched:
            return
        marks = await self._db.read(executions.marks)
        for execution_id, watchers in self._watched.items():
            mark = marks.get(execution_id)
            for watched in watchers:
                if mark != watched.mark:
                    watched.mark = mark
                    watched.woken.wake()

    @contextmanager
    def watching(self, execution_id: str) -> Iterator[Subscription]:
        """A subscription to changes of the execution and of its run's state, for as long as the block lasts."""
        watched = _Watched()
        self._watched.setdefault(execution_id, set()).add(watched)
        self._somebody.wake()
        try:
            yield watched.woken
        finally:
            self._watched[execution_id].discard(watched)
            if not self._watched[execution_id]:
                del self._watched[execution_id]
