"""Log lines on their way to the store: a queue for each execution, served in turns, all of them bounded.

Whoever prints without end fills its own queue and waits there; what another prints meets at most the batch that is being written and
one turn of the others.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import anyio

T = TypeVar("T")

LANE_LINES: Final = 1_000
"""Of one execution, those that are being written included."""


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """One line in its queue."""

    number: int
    """In the order of handing in, over all queues."""
    lane: str
    chars: int
    item: T


class _Lane(Generic[T]):
    def __init__(self) -> None:
        self.waiting: deque[Waiting[T]] = deque()
        self.lines = 0
        """Not given back yet."""
        self.chars = 0


class Lanes(Generic[T]):
    """The queues. Belongs to the event loop."""

    def __init__(self, *, chars: int) -> None:
        self._chars_limit = chars
        self._lane_chars_limit = chars // 8
        self._chars = 0
        self._lanes: dict[str, _Lane[T]] = {}
        self._turns: deque[str] = deque()
        """The queues that are not empty, the next one first."""
        self._freed = anyio.Event()
        self.handed_in = 0
        """How many lines were ever handed in."""
        self.waiting = 0
        self.is_closed = False

    async def put(self, name: str, item: T, chars: int, *, urgent: bool = False) -> bool:
        """The line is in its queue, once that has room; one that is urgent needs none. False: the queues are closed."""
        while not (self.is_closed or urgent or self._has_room(name, chars)):
            await self._freed.wait()
        if self.is_closed:
            return False
        lane = self._lanes.setdefault(name, _Lane())
        if not lane.waiting:
            self._turns.append(name)
        self.handed_in += 1
        lane.waiting.append(Waiting(self.handed_in, name, chars, item))
        lane.lines += 1
        lane.chars += chars
        self._chars += chars
        self.waiting += 1
        return True

    def take(self, lines: float = math.inf) -> list[Waiting[T]]:
        """At most so many lines, one of each queue in turn; their room is kept until they are given back."""
        taken: list[Waiting[T]] = []
        while self._turns and len(taken) < lines:
            name = self._turns.popleft()
            lane = self._lanes[name]
            taken.append(lane.waiting.popleft())
            if lane.waiting:
                self._turns.append(name)
        self.waiting -= len(taken)
        return taken

    def give_back(self, taken: list[Waiting[T]]) -> None:
        """The lines are stored: others have their room."""
        for one in taken:
            lane = self._lanes[one.lane]
            lane.lines -= 1
            lane.chars -= one.chars
            self._chars -= one.chars
            if not lane.lines:
                del self._lanes[one.lane]
        freed, self._freed = self._freed, anyio.Event()
        freed.set()

    def oldest(self) -> float:
        """The number of the line that has waited longest; infinite when there is none."""
        return min((self._lanes[name].waiting[0].number for name in self._turns), default=math.inf)

    def close(self) -> None:
        """Nothing is taken in any more."""
        self.is_closed = True
        self._freed.set()

    def _has_room(self, name: str, chars: int) -> bool:
        lane = self._lanes.get(name)
        # One line of each always has room, however long: nobody waits because of others alone.
        if lane is None:
            return True
        return (
            lane.lines < LANE_LINES
            and lane.chars + chars <= self._lane_chars_limit
            and self._chars + chars <= self._chars_limit
        )
