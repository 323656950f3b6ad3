"""How much of the event loop's time one reader of output takes itself, and when it rests so that others have theirs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

TURN_LINES: Final = 100
"""So many lines are taken in before others have their turn."""
BUSY_TURNS: Final = 20
"""Whoever has had more turns than that, less one for each `FORGET_SECONDS`, is a flood: what a run prints at once now and then is none."""
FORGET_SECONDS: Final = 1.0
MOST_REST: Final = 2.0
"""For so many times as long as it has worked a flood rests: what the log writer then does with its lines takes as long again."""
LEAST_REST: Final = 0.1
"""The same while others need none of the loop's time: who prints fast is read fast then, and not outrun by the engine's rotation."""
BUSY_SHARE: Final = 0.25
"""Others that take more of a rest than that need longer ones."""
LONGEST_WORK_SECONDS: Final = 0.1


class Floods:
    """Those who print much rest one after the other: however many they are, only one of them works between two turns of the loop.

    How long depends on what others do meanwhile: `clock` tells the loop's own processor seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._lock = anyio.Lock()
        self._rest = MOST_REST
        self._worked = 0.0
        """What floods have taken of the loop's time; the rest of it is others'."""

    async def rest(self, worked_seconds: float) -> None:
        """Others had their time."""
        self._worked += worked_seconds
        async with self._lock:
            began, used, worked = anyio.current_time(), self._clock(), self._worked
            await anyio.sleep(min(worked_seconds, LONGEST_WORK_SECONDS) * self._rest)
            others = self._clock() - used - (self._worked - worked)
            is_busy = others > (anyio.current_time() - began) * BUSY_SHARE
            self._rest = min(self._rest * 2, MOST_REST) if is_busy else max(self._rest / 2, LEAST_REST)


class Work:
    """What awaiting something takes of the loop's time by itself, without what others do while it waits."""

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._seconds = 0.0
        self._began = clock()

    def seconds(self) -> float:
        """So far; for whoever is being awaited."""
        return self._seconds + self._clock() - self._began

    async def of(self, work: Coroutine[Any, Any, None]) -> None:
        """Awaits it."""
        await _Steps(self, work)

    def begin(self) -> None:
        """It goes on."""
        self._began = self._clock()

    def pause(self) -> None:
        """It waits for something."""
        self._seconds += self._clock() - self._began


class _Steps:
    """A coroutine, one step of the loop after the other."""

    def __init__(self, work: Work, coroutine: Coroutine[Any, Any, None]) -> None:
        self._work = work
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        sent: Any = None
        raised: BaseException | None = None
        while True:
            self._work.begin()
            try:
                awaited = self._coroutine.send(sent) if raised is None else self._coroutine.throw(raised)
            except StopIteration:
                return
            finally:
                self._work.pause()
            sent = raised = None
            try:
                sent = yield awaited
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:
                raised = error


class Turns:
    """One reader's turns."""

    def __init__(self, floods: Floods, work: Work) -> None:
        self._floods = floods
        self._work = work
        self._lines = 0
        self._busy = 0.0
        self._began = self._worked_from = self._held_seconds = 0.0

    def held_back(self, seconds: float) -> None:
        """So long a line has waited for room: whoever is held back prints no less for it."""
        self._held_seconds += seconds

    async def took_one(self, *, is_kept: bool) -> None:
        """One more line was taken in, and others had their turn if it is theirs."""
        self._lines += 1
        if self._lines < TURN_LINES:
            return
        took = anyio.current_time() - self._began - self._held_seconds
        self._busy = min(max(0.0, self._busy + 1 - took / FORGET_SECONDS), BUSY_TURNS)
        if not is_kept or self._busy > BUSY_TURNS - 1:
            await self._floods.rest(self._work.seconds() - self._worked_from)
        else:
            await anyio.lowlevel.checkpoint()
        self._lines, self._held_seconds = 0, 0.0
        self._began, self._worked_from = anyio.current_time(), self._work.seconds()
