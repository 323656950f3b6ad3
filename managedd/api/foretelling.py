"""Reckoning with schedules that somebody has just sent: outside of the store's transactions, and with little of the processor.

A rule may take some hundred milliseconds of pure Python before it is clear that it never fires. That keeps no reader of the store, and between
a few steps the thread sleeps: the event loop is not kept waiting for the interpreter.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
from anyio import to_thread

from managedd.api.limits import source_of
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.api.context import Context

T = TypeVar("T")

THREADS: Final = 2
"""So one source keeps no other one waiting, as it has one of them at most."""
WAITING: Final = 1
"""Of one source that asks when a schedule would come, beside the one that is reckoned: a page asks again with each change."""
VALIDATIONS: Final = 50
"""Of one source that deploys, likewise."""
REST_SECONDS: Final = 0.001
"""After less than a millisecond of work each: the loop gets the interpreter as soon as it has something to do."""


def source(ctx: Context) -> str:
    """Who counts as one: the holder of a key or a session, else whoever comes from one address."""
    held = ctx.actor.holder
    return source_of(ctx.request, ctx.actor) if held is None else held.id


def rest() -> None:
    """The thread leaves the interpreter to others."""
    time.sleep(REST_SECONDS)


class Foretelling:
    """Whose schedules are reckoned with. Belongs to the event loop."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(THREADS)
        self._of_sources: Counter[str] = Counter()
        self._locks: dict[str, anyio.Lock] = {}

    async def reckoned(self, source: str, reckon: Callable[[], T], *, waiting: int = WAITING) -> T:
        """What `reckon` gives, on a thread: of one source one at a time, while at most so many wait. Raises ManagedError(TOO_MANY), and
        what `reckon` raises.
        """
        with self._counted(source, waiting + 1) as lock:
            async with lock:
                return await to_thread.run_sync(reckon, limiter=self._limiter)

    @contextmanager
    def _counted(self, source: str, at_most: int) -> Iterator[anyio.Lock]:
        if self._of_sources[source] >= at_most:
            raise ManagedError(
                ErrorCode.TOO_MANY,
                f"{source} has sent {at_most} schedules that are still reckoned with: ask again when they are answered.",
                retry_after_seconds=1.0,
            )
        self._of_sources[source] += 1
        try:
            yield self._locks.setdefault(source, anyio.Lock())
        finally:
            self._of_sources[source] -= 1
            if not self._of_sources[source]:
                del self._of_sources[source], self._locks[source]
