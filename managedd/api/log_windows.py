"""The newest lines of the runs that somebody follows: read from the store once, sent to all who follow.

A window is the end of one run's log, from a floor on, in messages that are ready to be sent. A follower is a cursor: behind the floor it
reads the store by itself, above it takes what the window has, and several thousand of them cost one reading. Nothing is queued for
anybody: whoever is slow falls behind the floor and reads what it missed from the store.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel

from managedd.api import patience
from managedd.bus import Subscription, Topic
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.store import log_ends, log_pages, rows
from managedd.store.resources import FLOW_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from managedd.bus import Bus
    from managedd.clock import Clock
    from managedd.store.database import Database, Tx
    from managedd.store.log_ends import Standing
    from managedd.store.log_pages import Batch, Key
    from managedd.store.rows import Wire

log = get_log("log_windows")

IDLE_SECONDS: Final = 30.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.02
"""Between two turns at least, however many commits there are; the first news after a silence is read at once."""
LONGEST_PACE_SECONDS: Final = 0.25
WINDOW_BYTES: Final = 1024 * 1024
ALL_WINDOWS_BYTES: Final = 32 * 1024 * 1024
BATCH_OVERHEAD_BYTES: Final = 256
PAGES_PER_TURN: Final = 8
WAVE: Final = 50
"""So many followers are woken at a time: between two waves others have their turn."""
SETTLE_US: Final = 5_000_000
"""Runs that we don't execute send their last lines after their final state: so long after it they are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Whether a run's log can still grow."""

    state: Wire | None
    """The final one; None: not done."""
    done: bool
    wait_seconds: float = IDLE_SECONDS
    """When to look again."""


def ending(tx: Tx, flow_run_id: str, standing: Standing | None) -> Ending:
    """A run has ended when its state is final and what it ran in, if that was ours, is over. Raises ManagedError(NOT_FOUND)."""
    if standing is not None and (not standing.is_final or standing.is_open):
        return Ending(state=None, done=False)
    if standing is not None and not standing.is_executed:
        left_us = standing.state_us + SETTLE_US - tx.now
        if left_us > 0:
            return Ending(state=None, done=False, wait_seconds=left_us / 1_000_000)
    # Only of what has ended a whole row is read: several hundred may be followed, and each change of any run asks for all of them.
    return Ending(state=rows.get(tx, FLOW_RUN, flow_run_id)["state"], done=True)


class Window:
    """The end of one run's log. Belongs to the event loop."""

    def __init__(self) -> None:
        self.floor = 0
        """Above it every line is in here; what is behind it is in the store."""
        self.final: Wire | None = None
        """The run's last state, once every line is in here."""
        self.followers = 0
        self.is_open = False
        """Whether the floor is known."""
        self.look_at = 0.0
        """When to look at the run's state again, monotonic seconds."""
        self.size_bytes = 0
        self._ending: Ending | None = None
        self._failure: ManagedError | None = None
        self._batches: list[Batch] = []
        self._lasts: list[int] = []
        self._waves: list[_Wave] = []

    def after(self, cursor: int) -> tuple[bytes, int] | None:
        """A message of lines behind `cursor`, which is not behind the floor, and the cursor behind them; None: there is no line yet.

        Raises ManagedError when the run is gone.
        """
        at = bisect_right(self._lasts, cursor)
        if at == len(self._lasts):
            if self._failure is not None:
                raise self._failure
            return None
        first = self._batches[at].after(cursor)
        texts, size, last = [first], len(first), self._lasts[at]
        for batch in self._batches[at + 1 :]:
            # Whoever lags takes more at a time.
            if size + len(batch.text) >= log_pages.BATCH_BYTES:
                break
            texts.append(batch.text)
            size += len(batch.text) + 1
            last = batch.last
        return (first if len(texts) == 1 else b"\n".join(texts)), last

    async def news(self) -> None:
        """Returns when something has changed since this was called."""
        if not self._waves or self._waves[-1].waiting >= WAVE:
            self._waves.append(_Wave())
        wave = self._waves[-1]
        wave.waiting += 1
        await wave.event.wait()

    async def wake(self) -> None:
        """Everybody who waits for news goes on, one wave after the other."""
        waves, self._waves = self._waves, []
        for wave in waves:
            wave.event.set()
            await anyio.lowlevel.checkpoint()

    def open(self, floor: int) -> None:
        """Lines behind `floor` will come."""
        self.floor, self.is_open = floor, True

    def add(self, batches: Sequence[Batch]) -> None:
        """More lines came."""
        for batch in batches:
            self._batches.append(batch)
            self._lasts.append(batch.last)
            self.size_bytes += len(batch.text) + BATCH_OVERHEAD_BYTES

    def shrink(self, limit_bytes: int) -> None:
        """No more than `limit_bytes` are held, but for one message."""
        gone = 0
        while self.size_bytes > limit_bytes and gone < len(self._batches) - 1:
            self.size_bytes -= len(self._batches[gone].text) + BATCH_OVERHEAD_BYTES
            gone += 1
        if gone:
            self.floor = self._lasts[gone - 1]
            del self._batches[:gone], self._lasts[:gone]

    def learn(self, found: Ending | ManagedError, now: float) -> None:
        """What the run's row says; lines that were stored before it may still have to be read."""
        if isinstance(found, ManagedError):
            self._failure = found
            self.look_at = now + IDLE_SECONDS
        else:
            self._ending = found
            self.look_at = now + (IDLE_SECONDS if found.done else found.wait_seconds)

    def settle(self) -> bool:
        """Every line that was stored when the run was last looked at is in here; True when that tells more than before."""
        if self._failure is not None:
            return True
        if self.final is None and self._ending is not None and self._ending.done:
            self.final = self._ending.state
            return True
        return False


class _Wave:
    """Some of those who wait."""

    __slots__ = ("event", "waiting")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.waiting = 0


class LogWindows:
    """The windows of all runs that are followed, and their one reader. Belongs to the event loop."""

    def __init__(self, db: Database, logs: Database, bus: Bus, clock: Clock) -> None:
        self._db = db
        self._logs = logs
        self._bus = bus
        self._clock = clock
        self._windows: dict[Key, Window] = {}
        self._cursor = 0
        self._woken = self._asleep = Subscription()
        """What wakes the reader: while nobody follows, no commit does."""

    def __len__(self) -> int:
        return len(self._windows)

    @contextmanager
    def following(self, workspace_id: str, flow_run_id: str) -> Iterator[Window]:
        """The run's window, for as long as the block lasts; it is open soon."""
        key = (workspace_id, flow_run_id)
        window = self._windows.get(key)
        if window is None or window.final is not None:
            # A run that had ended may have been set on its way again.
            window = self._windows[key] = Window()
            self._woken.wake()
        window.followers += 1
        try:
            yield window
        finally:
            window.followers -= 1
            if not window.followers and self._windows.get(key) is window:
                del self._windows[key]

    async def run(self) -> None:
        """Reads for as long as it is not cancelled; asleep while nobody follows."""
        topics = (Topic.RUNS, Topic.EXECUTIONS)
        while True:
            if not self._windows:
                await self._asleep.wait()
            with self._bus.subscribe(Topic.LOGS, *topics) as woken, self._bus.subscribe(*topics) as moved:
                self._woken = woken
                woken.wake()
                try:
                    await self._look_on(woken, moved)
                finally:
                    self._woken = self._asleep

    async def _look_on(self, woken: Subscription, moved: Subscription) -> None:
        while self._windows:
            await woken.wait(self._until_next_look())
            began = time.thread_time()
            if self._windows:
                await self._turn_safely(woken, moved)
            # As long as the loop has worked, so that however many follow, others have their time.
            worked = time.thread_time() - began
            await anyio.sleep(min(max(worked, PACE_SECONDS), LONGEST_PACE_SECONDS))

    def _until_next_look(self) -> float:
        now = self._clock.monotonic()
        looks = (window.look_at for window in self._windows.values() if window.final is None)
        nearest = min(looks, default=now + IDLE_SECONDS)
        return min(max(nearest - now, PACE_SECONDS), IDLE_SECONDS)

    async def _turn_safely(self, woken: Subscription, moved: Subscription) -> None:
        states_moved = moved.take()
        done = await patience.done(lambda: self._turn(states_moved), woken, log, "log_windows.postponed")
        if states_moved and not done:
            moved.wake()

    async def _turn(self, states_moved: bool) -> None:
        """What is new was read, and whoever waits for it was woken."""
        windows = dict(self._windows)
        now = self._clock.monotonic()
        asked = [
            key
            for key, window in windows.items()
            if window.final is None and (states_moved or not window.is_open or window.look_at <= now)
        ]
        if not any(window.is_open for window in windows.values()):
            self._cursor = await self._logs.read(log_pages.head)
        changed = {key: window for key, window in windows.items() if not window.is_open}
        # The states first: lines are stored before the state that follows them, so what is read after it is complete.
        if asked:
            for key, found in (await self._db.read(lambda tx: _endings(tx, asked))).items():
                windows[key].learn(found, now)
        for window in changed.values():
            window.open(self._cursor)
        try:
            if await self._read(windows, changed):
                changed |= {key: window for key, window in windows.items() if window.settle()}
            else:
                self._woken.wake()
        finally:
            for window in changed.values():
                await window.wake()

    async def _read(self, windows: Mapping[Key, Window], changed: dict[Key, Window]) -> bool:
        """Lines were added to `windows`, and those that got some to `changed`; False when there are more."""
        limit_bytes = min(WINDOW_BYTES, ALL_WINDOWS_BYTES // len(windows))
        for _ in range(PAGES_PER_TURN):
            page = await self._logs.read(lambda tx: log_pages.news_after(tx, windows, self._cursor))
            self._cursor = page.cursor
            for key, batches in page.batches.items():
                windows[key].add(batches)
                windows[key].shrink(limit_bytes)
                changed[key] = windows[key]
            if not page.more:
                return True
        return False


def _endings(tx: Tx, keys: Sequence[Key]) -> dict[Key, Ending | ManagedError]:
    found: dict[Key, Ending | ManagedError] = {}
    standings = log_ends.standings(tx, keys)
    for workspace_id, flow_run_id in keys:
        standing = standings.get((workspace_id, flow_run_id))
        try:
            found[workspace_id, flow_run_id] = ending(tx.scoped(workspace_id), flow_run_id, standing)
        except ManagedError as error:
            found[workspace_id, flow_run_id] = error
    return found
