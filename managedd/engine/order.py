"""The order in which those that wait may go: workspaces take turns, within one its pools, and in a pool its line.

Who holds least goes first, and of those that hold as much the one that was given something least recently. That is fair, and starves who
needs much: smaller ones of workspaces that hold less take each place before there are enough of them. So whoever has waited too long goes
before those that need less, as far as these had a turn meanwhile. A crowd that waits has turns all the time, and passes nobody by that.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from managedd.model.limits import AWAITING_HOST, SLACK, Needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from managedd.store.queue import Candidate, QueueHead

Waiting = tuple["QueueHead", "Candidate"]
SECOND_US: Final = 1_000_000
OVERDUE_SECONDS: Final = 600.0
"""Whoever waits for the host, and has had no turn for so long for each run that its workspace holds, goes before smaller ones that had one."""


class Line:
    """The candidates of one pool, in the order in which they may go."""

    def __init__(self, waiting: Iterable[Waiting]) -> None:
        self._waiting = deque(sorted(waiting, key=lambda pair: (pair[0].priority, pair[1].due_at, pair[1].id)))
        self.head = self._waiting[0][0]

    def first(self) -> Waiting:
        return self._waiting[0]

    def take(self, pair: Waiting) -> Waiting:
        self._waiting.remove(pair)
        return pair

    def __iter__(self) -> Iterator[Waiting]:
        return iter(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting)


class Order:
    """The candidates of all lines, one after the other; what is given away meanwhile is reckoned in."""

    def __init__(self, lines: Iterable[Line], now_us: int, needs_of: Callable[[Candidate], Needs]) -> None:
        self._lines = list(lines)
        self._now_us = now_us
        self._needs_of = needs_of
        self._needs: dict[str, Needs] = {}
        """What those need who were compared, and have nothing on record: it is made of their whole job."""
        self._taken: Counter[str] = Counter()
        self._given_us: dict[str, int] = {}
        """When workspaces and pools were given something last."""
        self._late: dict[str, Waiting] = {}
        """Those who may go before others, who had no turn for longest first."""
        for head in (line.head for line in self._lines):
            self._taken[head.workspace_id], self._taken[head.work_pool_id] = head.workspace_taken, head.pool_taken
            self._given_us[head.workspace_id] = head.workspace_given_us or 0
            self._given_us[head.work_pool_id] = head.pool_given_us or 0

    def give(self, head: QueueHead) -> None:
        """A run of that queue was given what it needs."""
        for owner in (head.workspace_id, head.work_pool_id):
            self._taken[owner] += 1
            self._given_us[owner] = self._now_us

    def close(self) -> None:
        """The host is kept for somebody: of those who come now, it does not matter who goes before whom."""
        self._late.clear()

    def __iter__(self) -> Iterator[Waiting]:
        waiting = sorted((pair for line in self._lines for pair in line if self._is_late(*pair)), key=self._since_us)
        self._late = {pair[1].id: pair for pair in waiting}
        most = _most(candidate.needs for _, candidate in waiting)
        of_pool = {line.head.work_pool_id: line for line in self._lines}
        heap = [(self._key(line), number) for number, line in enumerate(self._lines)]
        heapify(heap)
        while heap:
            known, number = heappop(heap)
            line = self._lines[number]
            if not line:
                continue
            if (now := self._key(line)) != known:
                # What was given since can only put it back.
                heappush(heap, (now, number))
                continue
            first = line.first()
            going, asks = first, first[1].needs
            # Of those who may go before others, most often none needs more.
            if asks is None or _exceeds(most, asks):
                going = next((pair for pair in self._late.values() if self._passes(pair, first)), first)
            # Each goes once in a look.
            self._late.pop(going[1].id, None)
            yield of_pool[going[0].work_pool_id].take(going)
            if line:
                heappush(heap, (self._key(line), number))

    def _key(self, line: Line) -> tuple[int, int, int, int, int]:
        workspace, pool = line.head.workspace_id, line.head.work_pool_id
        due_at = line.first()[1].due_at
        return self._taken[workspace], self._given_us[workspace], self._taken[pool], self._given_us[pool], due_at

    def _is_late(self, head: QueueHead, candidate: Candidate) -> bool:
        """Whether it waits for the host, and has had no turn for so long that it may go before others at all."""
        since_us = max(candidate.state_us, self._given_us[head.work_pool_id])
        return (
            candidate.state_name == AWAITING_HOST
            and candidate.needs is not None
            and self._now_us - since_us >= OVERDUE_SECONDS * SECOND_US
        )

    def _since_us(self, waiting: Waiting) -> tuple[int, int, int]:
        """Since when its workspace had no turn; in a line, who stands before the others."""
        head, candidate = waiting
        return max(candidate.state_us, self._given_us[head.workspace_id]), head.priority, candidate.due_at

    def _passes(self, late: Waiting, first: Waiting) -> bool:
        """Whether the late one goes before the first of another line, though these hold less."""
        (head, candidate), (other, against) = late, first
        if head.work_pool_id == other.work_pool_id:
            return False
        mine, theirs = head.workspace_id, other.workspace_id
        if mine == theirs:
            mine, theirs = head.work_pool_id, other.work_pool_id
        since_us = max(candidate.state_us, self._given_us[mine])
        if self._now_us - since_us < OVERDUE_SECONDS * SECOND_US * max(1, self._taken[mine]):
            return False
        return self._given_us[theirs] > since_us and _exceeds(self._asks(candidate), self._asks(against))

    def _asks(self, candidate: Candidate) -> Needs:
        if candidate.needs is not None:
            return candidate.needs
        found = self._needs.get(candidate.id)
        if found is None:
            found = self._needs[candidate.id] = self._needs_of(candidate)
        return found


def _most(needs: Iterable[Needs | None]) -> Needs:
    """The most memory and the most processors that any of them asks for."""
    known = [each for each in needs if each is not None]
    memory_bytes, cpus = (each.memory_bytes for each in known), (each.cpus for each in known)
    return Needs(memory_bytes=max(memory_bytes, default=0), cpus=max(cpus, default=0.0))


def _exceeds(asked: Needs, against: Needs) -> bool:
    return asked.memory_bytes > against.memory_bytes or asked.cpus > against.cpus + SLACK
