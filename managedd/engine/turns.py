"""Whose turn it is: from the queues as they stand in one transaction to what is to be done with each run that is due. It writes nothing.

Whoever waits for the host is told so once, and what it needs stands in its row from then on: of thousands that wait, a look finds those that
fit by an index, wherever they stand in the line, and renders no job anew. What a run is claimed with is rendered at that moment. Of those whose
needs vary, because nobody says when a variable or a block changes, each look renders some more, one after the other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from math import ceil
from typing import TYPE_CHECKING, Final

from managedd.engine.evidence import end_state
from managedd.engine.keeping import Keeping, rooms
from managedd.engine.limiter import Shortage
from managedd.engine.order import SECOND_US, Line, Order
from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import AWAITING_HOST, AWAITING_HOURS, Needs
from managedd.model.states import StateType, scheduled_details
from managedd.store import queue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from managedd.engine.limiter import Limiter
    from managedd.store.database import Tx
    from managedd.store.queue import Candidate, QueueHead

BATCH: Final = 64
"""So many runs of a queue are looked at in one transaction, and of all of them so many dealt with."""
PARKED: Final = 16
"""The same of those that wait for the host and fit, or are asked anew."""
RIGHT_OF_WAY_SECONDS: Final = 300.0
"""How long smaller runs may pass one that the host has no room for."""
SETTLED_SECONDS: Final = 60.0
"""A run that does not wait any more for what it was told keeps that name at least so long: reasons come and go, states are rows."""
NOTHING: Final = Needs(memory_bytes=0, cpus=0)


class Unclaimable(Exception):
    """A candidate whose rows break the claim; whatever was claimed with it is undone and tried again without it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The candidate gets what it needs."""

    head: QueueHead
    candidate: Candidate
    needs: Needs
    takes: bool = True
    """False: nothing will be taken, as the rules refuse it, or end a run that has no deployment any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """The candidate is told, by a state, what it waits for or why it can never go."""

    head: QueueHead
    candidate: Candidate
    state: ProposedState
    needs: Needs | None = None
    """Of one that waits for the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The candidate waits for the host, as it was told, and what it needs is on record again."""

    head: QueueHead
    candidate: Candidate
    needs: Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """The candidate does not wait any more for what it was told: it is merely scheduled."""

    head: QueueHead
    candidate: Candidate
    state: ProposedState


Step = Claim | Tell | Note | PutBack


class Turns:
    """The queues that have due runs, as they stand in the transaction."""

    def __init__(
        self,
        tx: Tx,
        limiter: Limiter,
        needs: Callable[[Tx, str], Needs],
        *,
        set_aside: Collection[str] = (),
        page: int = 0,
    ) -> None:
        self._tx = tx
        self._limiter = limiter
        self._needs = needs
        self._lines: list[Line] = []
        """What may go, pool by pool."""
        self._untold: list[tuple[QueueHead, Candidate]] = []
        """Of what must wait for compute hours, those that were not told so yet."""
        self._kept: list[QueueHead] = []
        """Queues of which nobody may go, for another reason."""
        self._open: list[QueueHead] = []
        """Queues whose runs may go."""
        self.ready_us: int | None = None
        """When the first shortage ends by itself."""
        self._set_aside = set_aside
        self._look(set_aside, page)

    def _look(self, set_aside: Collection[str], page: int) -> None:
        tx, limiter, also = self._tx, self._limiter, len(set_aside)
        by_pool: dict[str, list[tuple[QueueHead, Candidate]]] = {}
        ready: list[int | None] = []
        before_us = self._ago_us(RIGHT_OF_WAY_SECONDS)
        # Children may go where others must not: they are looked for besides where the host may be kept for somebody.
        may_be_kept = queue.has_waited(tx, before_us)
        beside = rooms(tx, limiter) if may_be_kept else {}
        for head in queue.heads(tx):
            shortage = limiter.shortage(head)
            if shortage is not None:
                ready.append(limiter.ready_us(head, shortage))
            if shortage is Shortage.HOURS:
                waiting = queue.candidates(tx, head.work_queue_id, BATCH + also, not_named=AWAITING_HOURS)
                self._untold += [(head, candidate) for candidate in waiting if candidate.id not in set_aside]
            elif shortage is not None:
                self._kept.append(head)
            else:
                self._open.append(head)
                found = queue.candidates(tx, head.work_queue_id, BATCH + also, not_named=AWAITING_HOST)
                found += queue.parked(
                    tx,
                    head.work_queue_id,
                    PARKED + also,
                    free=limiter.free(),
                    since_before_us=before_us,
                    children=may_be_kept,
                    rooms=beside,
                    page=page,
                )
                by_pool.setdefault(head.work_pool_id, []).extend(
                    (head, candidate) for candidate in found if candidate.id not in set_aside
                )
        self._lines = [Line(waiting) for waiting in by_pool.values() if waiting]
        self.ready_us = min((moment for moment in ready if moment is not None), default=None)

    def steps(self, *, put_back: bool) -> Iterator[Step]:
        """What there is to do, in order: who has least goes first, workspace before pool before run. Raises Unclaimable.

        Whoever does a Claim takes it from the limiter before the next step. Those who only are told something come after all who can go:
        thousands of them must not keep out one. With `put_back`, the last to come are those that do not wait any more for what they were told.
        """
        told: dict[str, list[Step]] = {}
        for step in self._in_turn():
            if isinstance(step, Claim) and step.takes:
                yield step
            else:
                told.setdefault(step.head.work_pool_id, []).append(step)
        for of_each_pool in zip_longest(*told.values()):
            yield from (step for step in of_each_pool if step is not None)
        yield from self._others(put_back=put_back)

    def is_idle(self, *, put_back: bool) -> bool:
        """Whether there is nothing to do. Raises Unclaimable."""
        return not any(True for _ in chain(self._in_turn(), self._others(put_back=put_back)))

    def _in_turn(self) -> Iterator[Step]:
        """What becomes of the candidates, one after the other."""
        limiter = self._limiter
        order = Order(self._lines, self._tx.now, self._needs_of)
        keeping = Keeping(self._tx, limiter)
        told: Counter[str] = Counter()
        share = ceil(BATCH / max(1, len(self._lines)))
        seen: set[str] = set()
        """Who goes, or is told something."""
        has_claimed = keeps_back = False
        for head, candidate in order:
            pool, needs, is_refused = head.work_pool_id, candidate.needs, candidate.is_refused
            if needs is None and told.total() >= BATCH and told[pool] >= share:
                # To see whether it can go is work. Its turn comes when those before it were told.
                continue
            has_right_of_way = self._has_right_of_way(candidate)
            if needs and not needs.varies and not limiter.fits(needs) and not (has_right_of_way or is_refused):
                # Those before it took the room. It knows what it waits for.
                continue
            shortage = limiter.shortage(head)
            if shortage is Shortage.HOURS and candidate.state_name != AWAITING_HOURS:
                told[pool] += 1
                yield _waits(head, candidate, AWAITING_HOURS, limiter.hours_message(head))
            if shortage is not None:
                continue
            is_full = queue.is_full(self._tx, candidate.id)
            if is_full and has_right_of_way and not is_refused:
                # A claim before it filled its deployment. Whom the host is kept for now, the next look finds.
                break
            if is_full and not is_refused and (candidate.awaited_slot or candidate.state_name == AWAITING_HOST):
                continue
            # Who has no deployment any more takes nothing, and ends.
            is_kept = not candidate.orphaned and keeping.is_from(head, candidate)
            keeps_back |= is_kept and candidate.parent_id is not None and needs is not None and limiter.fits(needs)
            step = self._step(head, candidate, is_kept=is_kept, is_full=is_full)
            if isinstance(step, Claim) and step.takes:
                order.give(head)
                has_claimed = True
            elif step is not None:
                told[pool] += 1
            if has_right_of_way and not isinstance(step, (Claim, Tell)):
                needs = candidate.needs if step is None else step.needs
                if needs is not None and keeping.keep(head, candidate, needs):
                    order.close()
            if step is not None:
                seen.add(candidate.id)
                yield step
        if keeps_back and not has_claimed:
            yield from self._passing(keeping, seen)

    def _passing(self, keeping: Keeping, seen: set[str]) -> Iterator[Step]:
        """Where nobody else goes: a child that stands behind many which are kept back; or one of these, where nothing moves by itself."""
        found = self._children(keeping.leaving(), seen)
        if not found and keeping.stands_still():
            found = self._children(None, seen)
        for head, candidate in found:
            step = self._step(head, candidate, is_kept=False, is_full=False)
            if step is not None:
                yield step
            if isinstance(step, Claim):
                return

    def _children(self, parents: Collection[str] | None, seen: set[str]) -> list[tuple[QueueHead, Candidate]]:
        if parents is not None and not parents:
            return []
        limit, free = PARKED + len(self._set_aside) + len(seen), self._limiter.free()
        return [
            (head, candidate)
            for head in self._open
            if self._limiter.shortage(head) is None
            for candidate in queue.children(self._tx, head.work_queue_id, limit, free=free, parents=parents)
            if candidate.id not in self._set_aside and candidate.id not in seen
        ]

    def _step(
        self, head: QueueHead, candidate: Candidate, *, is_kept: bool, is_full: bool
    ) -> Claim | Tell | Note | None:
        """What becomes of one who has all but room on the host, or a slot of its deployment; None: it waits on."""
        limiter, needs = self._limiter, candidate.needs
        if needs is None or needs.varies or (not is_kept and limiter.fits(needs)):
            # Who is about to go is asked anew: what is on record is where to look, and not what is reserved.
            needs = self._needs_of(candidate)
        if not limiter.could_fit(needs):
            return Tell(head=head, candidate=candidate, state=_too_large(limiter.host_message(needs)))
        # Without a slot, the rules refuse the claim: they say what such a run waits for, or cancel it.
        if is_full or (not is_kept and limiter.fits(needs)):
            return Claim(head=head, candidate=candidate, needs=needs, takes=not (is_full or candidate.orphaned))
        if candidate.state_name != AWAITING_HOST:
            return replace(_waits(head, candidate, AWAITING_HOST, limiter.host_message(needs)), needs=needs)
        return None if needs == candidate.needs else Note(head=head, candidate=candidate, needs=needs)

    def _others(self, *, put_back: bool) -> Iterator[Step]:
        for head, candidate in self._untold:
            yield _waits(head, candidate, AWAITING_HOURS, self._limiter.hours_message(head))
        if put_back:
            yield from self._put_back()

    def _put_back(self) -> Iterator[PutBack]:
        """Those who were told to wait for what is there again, while something plain keeps them: that writes no state of its own."""
        for head, is_kept in [*((head, True) for head in self._kept), *((head, False) for head in self._open)]:
            found = queue.no_longer_waiting(
                self._tx,
                head.work_queue_id,
                BATCH,
                is_kept=is_kept,
                has_hours=self._limiter.has_hours(head),
                free=self._limiter.free(),
                since_before_us=self._ago_us(SETTLED_SECONDS),
            )
            for candidate in found:
                state = ProposedState(type=StateType.SCHEDULED, details=scheduled_details(candidate.due_at))
                yield PutBack(head=head, candidate=candidate, state=state)

    def _ago_us(self, seconds: float) -> int:
        return self._tx.now - int(seconds * SECOND_US)

    def _has_right_of_way(self, candidate: Candidate) -> bool:
        """Whether it has waited for the host for so long that smaller ones must not pass it any more."""
        return candidate.state_name == AWAITING_HOST and candidate.state_us <= self._ago_us(RIGHT_OF_WAY_SECONDS)

    def _needs_of(self, candidate: Candidate) -> Needs:
        try:
            return NOTHING if candidate.orphaned else self._needs(self._tx, candidate.id)
        except Exception as error:
            if isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE:
                raise
            raise Unclaimable(candidate.id) from error


def _waits(head: QueueHead, candidate: Candidate, name: str, message: str) -> Tell:
    """It keeps its place in the queue, and says what it waits for."""
    details = scheduled_details(candidate.due_at)
    state = ProposedState(type=StateType.SCHEDULED, name=name, message=message, details=details)
    return Tell(head=head, candidate=candidate, state=state)


def _too_large(message: str) -> ProposedState:
    return end_state(EndCause.SPEC, detail=f"{message} It never will: lower memory_limit or cpu_limit.")
