"""Sockets that a key has opened end with it: one look at what has ended serves all of them."""

from __future__ import annotations

import math
from collections import defaultdict
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio

from managedd.api import patience
from managedd.bus import Topic
from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.observe import get_log
from managedd.store import executions, web_sessions, workspaces
from managedd.store import keys as stored_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.bus import Bus, Subscription
    from managedd.store.database import Database, Tx

log = get_log("key_watch")

LOOK_SECONDS: Final = 60.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.05
"""Between two looks at least, however many executions move."""


class HeldBy(Enum):
    """What a credential ends with."""

    EXECUTION = "execution"
    """A run's key."""
    KEY = "key"
    SESSION = "session"
    """Of a browser; it ends by signing out, with time, or with its key."""
    WORKSPACE = "workspace"
    """What opens any ends with the one that it has opened."""


class Holder(NamedTuple):
    """With what a socket ends."""

    kind: HeldBy
    id: str


def holders(credentials: Holder | None, workspace_id: str) -> tuple[Holder, ...]:
    """With what a socket ends that opens this workspace: with its credential, and with the workspace, which the default one never does."""
    if credentials is not None and credentials.kind in {HeldBy.KEY, HeldBy.EXECUTION}:
        # Of this workspace alone: it ends with it.
        return (credentials,)
    workspaces_own = None if workspace_id == DEFAULT_WORKSPACE_ID else Holder(HeldBy.WORKSPACE, workspace_id)
    return tuple(each for each in (credentials, workspaces_own) if each is not None)


class KeyWatch:
    """What to end with which credential. Belongs to the event loop."""

    def __init__(self, db: Database, bus: Bus) -> None:
        self._db = db
        self._bus = bus
        self._look_at = 0.0
        """The next look, by the loop's clock: when the first of what is watched expires, or LOOK_SECONDS after the last."""
        self._ends: defaultdict[Holder, set[Callable[[], None]]] = defaultdict(set)
        self._woken: Subscription | None = None

    @contextmanager
    def watching(self, holder: Holder, end: Callable[[], None]) -> Iterator[None]:
        """`end` is called once the execution is over or the key opens nothing any more, or soon if so already, while the block lasts."""
        self._ends[holder].add(end)
        if self._woken is not None:
            self._woken.wake()
        try:
            yield
        finally:
            self._ends[holder].discard(end)
            if not self._ends[holder]:
                del self._ends[holder]

    async def run(self) -> None:
        """Looks for as long as it is not cancelled; asleep while no key has opened a socket."""
        with self._bus.subscribe(Topic.EXECUTIONS, Topic.KEYS) as woken:
            self._woken = woken
            try:
                if self._ends:
                    woken.wake()
                while True:
                    await woken.wait(self._until_next_look())
                    await patience.done(self._look, woken, log, "key_watch.postponed")
                    await anyio.sleep(PACE_SECONDS)
            finally:
                self._woken = None

    def _until_next_look(self) -> float | None:
        if not self._ends:
            return None
        return max(0.0, self._look_at - anyio.current_time())

    async def _look(self) -> None:
        if not self._ends:
            return
        asked = list(self._ends)
        ended, expires_seconds = await self._db.read(lambda tx: _found(tx, asked))
        self._look_at = anyio.current_time() + min(LOOK_SECONDS, expires_seconds)
        for holder in ended:
            for end in list(self._ends.get(holder, ())):
                end()


def _found(tx: Tx, holders: list[Holder]) -> tuple[list[Holder], float]:
    """Those of the holders that are over, and in how many seconds the first of the others expires."""
    nexts = (
        stored_keys.next_end(tx, _ids(holders, HeldBy.KEY)),
        web_sessions.next_end(tx, _ids(holders, HeldBy.SESSION)),
    )
    return _ended(tx, holders), min(
        ((end_us - tx.now) / 1_000_000 for end_us in nexts if end_us is not None), default=math.inf
    )


def _ended(tx: Tx, holders: list[Holder]) -> list[Holder]:
    """Those of the holders that are over."""
    still = {
        HeldBy.EXECUTION: executions.open_among(tx, _ids(holders, HeldBy.EXECUTION)),
        HeldBy.KEY: stored_keys.living_among(tx, _ids(holders, HeldBy.KEY)),
        HeldBy.SESSION: web_sessions.living_among(tx, _ids(holders, HeldBy.SESSION)),
        HeldBy.WORKSPACE: workspaces.existing(tx, _ids(holders, HeldBy.WORKSPACE)),
    }
    return [holder for holder in holders if holder.id not in still[holder.kind]]


def _ids(holders: list[Holder], kind: HeldBy) -> list[str]:
    return [holder.id for holder in holders if holder.kind is kind]
