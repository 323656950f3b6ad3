"""When pages that are looked at are made again: once for all who see the same, and all of them together in a share of a processor.

Whoever looks waits for wake-ups of its own; who comes first after one makes the page, and the others take what was made. A page rests
between two makings for as long as its part of the share needs: what it costs is what the processors did meanwhile, in equal parts where
several are made at a time. Not the time that passes: where others keep the processors busy, that says nothing of the page.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator

    from managedd.bus import Bus, Subscription, Topic

PACE_SECONDS: Final = 1.0
"""Between two makings of one page at least."""
SLOWEST_SECONDS: Final = 15.0
"""And at most, however many pages are looked at."""
SHARE: Final = 0.4
"""Of a processor: what making pages again takes, all of them together. The rest is for runs."""
PAGES_OF_ONE: Final = 100
"""Pages that are kept up to date for one key, or one session: whoever shares an address with others can't take what is theirs."""
AT_ONCE: Final = 3
"""Pages that are made at a time: one that waits for the store, or for the host's doctor, keeps no other one."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a page was when it was made last."""

    mark: str
    """What tells it from another content."""
    event: bytes
    """As it is sent; empty: it could not be made now."""
    is_last: bool = False
    """Whether there is nothing more to come."""


class Meter:
    """How much of the processors each of several works takes that go on at a time."""

    def __init__(self, read: Callable[[], float] = time.process_time) -> None:
        self._read = read
        self._at = 0.0
        self._open: list[Taken] = []

    @contextmanager
    def one(self) -> Iterator[Taken]:
        """What the block takes."""
        taken = Taken()
        self._share_out()
        self._open.append(taken)
        try:
            yield taken
        finally:
            self._share_out()
            self._open.remove(taken)

    def _share_out(self) -> None:
        now = self._read()
        for taken in self._open:
            taken.seconds += (now - self._at) / len(self._open)
        self._at = now


class Taken:
    """A part of what the processors did."""

    def __init__(self) -> None:
        self.seconds = 0.0


class Watched:
    """The pages that are looked at. Belongs to the event loop."""

    def __init__(self) -> None:
        self._shown: dict[Hashable, Shown] = {}
        self._of_persons: Counter[str] = Counter()
        self.room = anyio.Semaphore(AT_ONCE)
        self.meter = Meter()

    @contextmanager
    def looking(self, asked: Hashable, bus: Bus, topics: tuple[Topic, ...], every_seconds: float) -> Iterator[Look]:
        """One more looks at a page, as long as the block lasts. `asked` says all that its content depends on."""
        shown = self._shown.get(asked) or self._shown.setdefault(asked, Shown(self, bus, topics, every_seconds))
        with bus.subscribe(*topics) as woken:
            shown.lookers.add(woken)
            try:
                yield Look(shown, woken)
            finally:
                shown.lookers.discard(woken)
                if not shown.lookers:
                    shown.close()
                    del self._shown[asked]

    @contextmanager
    def person(self, who: str | None) -> Iterator[None]:
        """One more page is kept up to date for them, as long as the block lasts. Raises ManagedError(TOO_MANY); never for None."""
        if who is None:
            yield
            return
        if self._of_persons[who] >= PAGES_OF_ONE:
            raise ManagedError(
                ErrorCode.TOO_MANY, f"Too many open pages: {PAGES_OF_ONE} of the same key are kept up to date already."
            )
        self._of_persons[who] += 1
        try:
            yield
        finally:
            self._of_persons[who] -= 1
            if not self._of_persons[who]:
                del self._of_persons[who]

    def pace_seconds(self, cost_seconds: float) -> float:
        """How long a page that takes so much of a processor to make is left as it is: each has the same part of the share."""
        return max(PACE_SECONDS, min(SLOWEST_SECONDS, cost_seconds * len(self._shown) / SHARE))


class Shown:
    """One page, as all see it who may see the same of it."""

    def __init__(self, watched: Watched, bus: Bus, topics: tuple[Topic, ...], every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self.lookers: set[Subscription] = set()
        self._watched = watched
        self._stack = ExitStack()
        self._changed = self._stack.enter_context(bus.subscribe(*topics))
        self._lock = anyio.Lock()
        self._made: Made | None = None
        self._is_stale = True
        self._cost_seconds: float | None = None
        self._began = self._rests_until = -math.inf

    def close(self) -> None:
        """Nobody looks any more."""
        self._stack.close()

    @property
    def rest_seconds(self) -> float:
        """How long it is left as it is."""
        return max(0.0, self._rests_until - anyio.current_time())

    async def made(self, make: Callable[[], Awaitable[Made]], woken: Subscription) -> Made:
        """What it is now, by `make` where nobody else has just made it; `woken` is up again when that may be old. Raises what `make` raises."""
        async with self._lock:
            made = self._made
            if made is None or (self._is_due() and not made.is_last and not self.rest_seconds):
                async with self._watched.room:
                    made = await self._make(make, woken)
            elif self._is_due():
                woken.wake()
            return made

    def _is_due(self) -> bool:
        self._is_stale |= self._changed.take()
        # Who waits for a time to pass is not told so to the millisecond.
        return self._is_stale or anyio.current_time() - self._began > 0.9 * self.every_seconds

    async def _make(self, make: Callable[[], Awaitable[Made]], woken: Subscription) -> Made:
        self._began = anyio.current_time()
        self._changed.take()
        self._is_stale = True
        with self._watched.meter.one() as taken:
            made = await make()
        # What changed meanwhile is told by its own flag. What could not be made is tried again.
        self._is_stale = not made.event
        self._note(taken.seconds)
        if self._made is None or made.mark != self._made.mark:
            for each in self.lookers - {woken}:
                each.wake()
        self._made = made
        return made

    def _note(self, seconds: float) -> None:
        """What it cost; the first time does not count, as templates are read in it, and one dear time after cheap ones may be somebody else's."""
        before, self._cost_seconds = self._cost_seconds, seconds
        cost = 0.0 if before is None else min(seconds, 2 * before)
        self._rests_until = self._began + self._watched.pace_seconds(cost)


class Look:
    """One who looks at a page."""

    def __init__(self, shown: Shown, woken: Subscription) -> None:
        self._shown = shown
        self._woken = woken
        # What was loaded a moment ago may be another page now.
        self._woken.wake()

    async def wait(self, at_most_seconds: float) -> bool:
        """Whether the page may be another one by now; else the time has passed."""
        return await self._woken.wait(at_most_seconds)

    async def made(self, make: Callable[[], Awaitable[Made]]) -> Made:
        """What the page is, once it has rested. Raises what `make` raises."""
        await anyio.sleep(self._shown.rest_seconds)
        return await self._shown.made(make, self._woken)
