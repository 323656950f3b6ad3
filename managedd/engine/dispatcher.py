"""The dispatcher: due runs → PENDING + an execution, in one transaction; then a runner for each.

PENDING is the lock: the rules give it to one proposer, and the execution is inserted in the same transaction, so that a crash leaves
either both or neither. Commits wake it; the poll is the safety net. It looks on a reader first and writes only where there is something
to claim, so that looking costs nobody the writer.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio

from managedd import failpoints
from managedd.bus import Bus, Topic
from managedd.engine.evidence import end_state
from managedd.engine.limiter import Limiter, Limits, Shortage
from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import AWAITING_HOST, AWAITING_HOURS, Needs
from managedd.model.states import StateType, scheduled_details
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import executions, flow_runs, queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from managedd.clock import Clock
    from managedd.model.executions import Execution
    from managedd.store.database import Database, Tx
    from managedd.store.queue import Candidate, QueueHead

log = get_log("dispatcher")

BATCH: Final = 64
"""At most so many runs are claimed in one transaction."""
SECOND_US: Final = 1_000_000
SET_ASIDE_SECONDS: Final = 60.0
"""How long a run that can't even be claimed is left alone, so that the others go on."""
REST_SECONDS: Final = 0.02
RIGHT_OF_WAY_SECONDS: Final = 300.0
"""How long smaller runs may pass one that the host has no room for."""
NOTHING: Final = Needs(memory_bytes=0, cpus=0)


class _Unclaimable(Exception):
    """A candidate whose rows break the claim; whatever was claimed with it is undone and tried again without it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """The candidate gets what it needs."""

    head: QueueHead
    candidate: Candidate
    needs: Needs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tell:
    """The candidate is told, by a state, what it waits for or why it can never go."""

    head: QueueHead
    candidate: Candidate
    state: ProposedState


class _Line:
    """The candidates of one pool, in the order in which they may go."""

    def __init__(self, waiting: list[tuple[QueueHead, Candidate]]) -> None:
        self._waiting = deque(sorted(waiting, key=lambda pair: (pair[0].priority, pair[1].due_at, pair[1].id)))
        self.head = waiting[0][0]

    def first_due(self) -> int:
        return self._waiting[0][1].due_at

    def next(self) -> tuple[QueueHead, Candidate]:
        return self._waiting.popleft()

    def __bool__(self) -> bool:
        return bool(self._waiting)


class Dispatcher:
    """Claims due runs while their limits have slots and the container engine answers."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        clock: Clock,
        *,
        driver: str,
        limits: Limits,
        needs: Callable[[Tx, str], Needs],
        poll_seconds: float,
        key_hash: Callable[[str], str],
        start: Callable[[Execution], None],
        may_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._driver = driver
        self._limits = limits
        self._needs = needs
        self._poll_seconds = poll_seconds
        self._key_hash = key_hash
        self._start = start
        self._may_claim = may_claim
        self._set_aside: dict[str, float] = {}
        """Runs that can't be claimed, and until when they are left alone."""

    async def run(self) -> None:
        """Claims until cancelled. A failing store is waited for, never died of."""
        with self._bus.subscribe(Topic.QUEUE, Topic.SLOTS, Topic.EXECUTIONS, Topic.SCHEDULES) as woken:
            while True:
                try:
                    again = await self.tick()
                except ManagedError as error:
                    log.warning("dispatch.postponed", reason=error.message)
                    again = False
                    await anyio.sleep(error.retry_after_seconds or 1.0)
                if not again:
                    await woken.wait(await self._until_next())

    async def tick(self) -> bool:
        """What is due and has slots is claimed and started; True: there may be more."""
        try:
            if not await self._db.read(self._something_to_do):
                # Whoever commits much must not keep us looking at what can't go.
                await anyio.sleep(REST_SECONDS)
                return False
            claimed = await self._db.write(self._claim)
        except _Unclaimable as culprit:
            log.exception("run.set_aside", flow_run_id=culprit.run_id, seconds=SET_ASIDE_SECONDS)
            self._set_aside[culprit.run_id] = self._clock.monotonic() + SET_ASIDE_SECONDS
            return True
        failpoints.reach("claim.committed")
        for execution in claimed:
            log.info(
                "run.claimed", flow_run_id=execution.flow_run_id, execution_id=execution.id, attempt=execution.attempt
            )
            self._start(execution)
        return len(claimed) >= BATCH

    async def _until_next(self) -> float:
        try:
            due = await self._db.read(queue.next_due)
        except ManagedError:
            due = None
        if due is None:
            return self._poll_seconds
        return min(self._poll_seconds, max(0.0, (due - self._clock.now_us()) / SECOND_US))

    def _something_to_do(self, tx: Tx) -> bool:
        if queue.cancelling_without_execution(tx, 1):
            return True
        return self._may_claim() and any(True for _ in self._steps(tx, Limiter(tx, self._limits)))

    def _claim(self, tx: Tx) -> list[Execution]:
        for workspace, run_id in queue.cancelling_without_execution(tx, BATCH):
            propose(tx.scoped(workspace), run_id, end_state(EndCause.CANCEL_EARLY))
        claimed: list[Execution] = []
        if not self._may_claim():
            return claimed
        limiter = Limiter(tx, self._limits)
        for step in islice(self._steps(tx, limiter), BATCH):
            execution = self._claim_run(tx.scoped(step.head.workspace_id), step)
            if execution is not None and isinstance(step, _Claim):
                # The next step is reckoned with this one.
                limiter.take(step.head, step.needs)
                claimed.append(execution)
        failpoints.reach("claim.uncommitted")
        return claimed

    def _steps(self, tx: Tx, limiter: Limiter) -> Iterator[_Claim | _Tell]:
        """What there is to do, in order: who has least goes first, workspace before pool before run."""
        taken: Counter[str] = Counter()
        lines, untold = self._lines(tx, limiter)
        for line in lines:
            taken[line.head.workspace_id] = line.head.workspace_taken
            taken[line.head.work_pool_id] = line.head.pool_taken
        closed = False
        while lines := [line for line in lines if line]:
            line = min(
                lines,
                key=lambda line: (taken[line.head.workspace_id], taken[line.head.work_pool_id], line.first_due()),
            )
            head, candidate = line.next()
            shortage = limiter.shortage(head)
            if shortage is Shortage.HOURS and candidate.state_name != AWAITING_HOURS:
                yield _waits(head, candidate, AWAITING_HOURS, limiter.hours_message(head))
            if shortage is not None:
                continue
            needs = self._needs_of(tx, candidate)
            if not limiter.could_fit(needs):
                yield _Tell(head=head, candidate=candidate, state=_too_large(limiter.host_message(needs)))
            elif closed or not limiter.fits(needs):
                closed = closed or self._has_right_of_way(candidate)
                if candidate.state_name != AWAITING_HOST:
                    yield _waits(head, candidate, AWAITING_HOST, limiter.host_message(needs))
            else:
                taken.update((head.workspace_id, head.work_pool_id))
                yield _Claim(head=head, candidate=candidate, needs=needs)
        # Last: thousands who can't go, and are to be told so, must not keep out one who can.
        for head, candidate in untold:
            yield _waits(head, candidate, AWAITING_HOURS, limiter.hours_message(head))

    def _has_right_of_way(self, candidate: Candidate) -> bool:
        """Whether it has waited for the host for so long that smaller ones must not pass it any more."""
        waited_us = self._clock.now_us() - candidate.state_us
        return candidate.state_name == AWAITING_HOST and waited_us > RIGHT_OF_WAY_SECONDS * SECOND_US

    def _needs_of(self, tx: Tx, candidate: Candidate) -> Needs:
        try:
            return NOTHING if candidate.orphaned else self._needs(tx, candidate.id)
        except Exception as error:
            if isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE:
                raise
            raise _Unclaimable(candidate.id) from error

    def _lines(self, tx: Tx, limiter: Limiter) -> tuple[list[_Line], list[tuple[QueueHead, Candidate]]]:
        """What may go, pool by pool; and of what must wait for compute hours, those that were not told so yet."""
        now = self._clock.monotonic()
        self._set_aside = {run_id: until for run_id, until in self._set_aside.items() if until > now}
        by_pool: dict[str, list[tuple[QueueHead, Candidate]]] = {}
        untold: list[tuple[QueueHead, Candidate]] = []
        limit = BATCH + len(self._set_aside)
        for head in queue.heads(tx):
            shortage = limiter.shortage(head)
            if shortage is Shortage.HOURS:
                waiting = queue.candidates(tx, head.work_queue_id, limit, not_named=AWAITING_HOURS)
                untold += [(head, candidate) for candidate in waiting if candidate.id not in self._set_aside]
            if shortage is not None:
                continue
            found = queue.candidates(tx, head.work_queue_id, limit)
            by_pool.setdefault(head.work_pool_id, []).extend(
                (head, candidate) for candidate in found if candidate.id not in self._set_aside
            )
        return [_Line(waiting) for waiting in by_pool.values() if waiting], untold

    def _claim_run(self, tx: Tx, step: _Claim | _Tell) -> Execution | None:
        """The execution of who may go; None for who was told something, or whom the rules refuse."""
        try:
            if isinstance(step, _Claim):
                return self._claimed(tx, step)
            propose(tx, step.candidate.id, step.state)
            return None
        except Exception as error:
            if isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE:
                raise
            raise _Unclaimable(step.candidate.id) from error

    def _claimed(self, tx: Tx, step: _Claim) -> Execution | None:
        candidate = step.candidate
        if candidate.orphaned:
            propose(tx, candidate.id, end_state(EndCause.ORPHANED), force=True)
            return None
        # Whoever waited for a slot is due now, not when it would have looked again.
        details = scheduled_details(tx.now) if candidate.awaited_slot else {}
        outcome = propose(tx, candidate.id, ProposedState(type=StateType.PENDING, details=details))
        if outcome.status is not Status.ACCEPT:
            return None
        execution = executions.insert(
            tx, flow_run_id=candidate.id, work_pool_id=step.head.work_pool_id, driver=self._driver, needs=step.needs
        )
        executions.note(tx, execution.id, {"key_hash": self._key_hash(execution.id)})
        flow_runs.set_infrastructure(tx, candidate.id, f"managedd:{execution.id}")
        return execution


def _waits(head: QueueHead, candidate: Candidate, name: str, message: str) -> _Tell:
    """It keeps its place in the queue, and says what it waits for."""
    details = scheduled_details(candidate.due_at)
    state = ProposedState(type=StateType.SCHEDULED, name=name, message=message, details=details)
    return _Tell(head=head, candidate=candidate, state=state)


def _too_large(message: str) -> ProposedState:
    return end_state(EndCause.SPEC, detail=f"{message} It never will: lower memory_limit or cpu_limit.")
