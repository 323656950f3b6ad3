"""The dispatcher: due runs → PENDING + an execution, in one transaction; then a runner for each.

PENDING is the lock: the rules give it to one proposer, and the execution is inserted in the same transaction, so that a crash leaves
either both or neither. Commits wake it; the poll is the safety net. It looks on a reader first and writes only where there is something
to claim, so that looking costs nobody the writer.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio

from managedd import failpoints
from managedd.bus import Bus, Topic
from managedd.engine.evidence import end_state
from managedd.engine.limiter import Limiter, Limits
from managedd.engine.order import SECOND_US
from managedd.engine.turns import BATCH, Claim, Note, PutBack, Tell, Turns, Unclaimable
from managedd.errors import ErrorCode, ManagedError
from managedd.model.amounts import human_seconds
from managedd.model.executions import EndCause
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType, scheduled_details
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import executions, flow_runs, queue, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.clock import Clock
    from managedd.engine.turns import Step
    from managedd.model.executions import Execution
    from managedd.model.limits import Needs
    from managedd.store.database import Database, Tx

log = get_log("dispatcher")

SET_ASIDE_SECONDS: Final = 60.0
"""How long a run that can't even be claimed is left alone, so that the others go on."""
REST_SECONDS: Final = 0.02
"""For each look in which there was nothing to do: whoever commits much must not keep us looking at what can't go."""
UNRESTED: Final = 5
"""So many of them may come at once: what is scheduled just after another run's end does not wait for that."""
UNHELD_SECONDS: Final = 900.0
"""How long a run may be Pending or Running by its creator's word alone: a client that sends a flow's code makes the run Pending, uploads,
and then schedules it."""
PUT_BACK_SECONDS: Final = 1.0
"""Between two transactions in which runs that do not wait any more for what they were told are put back to Scheduled."""


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
        self._ready_us: int | None = None
        """When, by what was seen last, a shortage ends by itself."""
        self._done: list[Step] = []
        """What the last transaction did."""
        self._put_back_at = clock.monotonic()
        self._rested_at = 0.0
        """When all looks that found nothing are rested from."""
        self._page = 0
        """Of those whose needs vary, whom to ask this time."""

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
        self._page += 1
        try:
            something, self._ready_us = await self._db.read(self._look)
            if not something:
                await self._rest()
                return False
            claimed = await self._db.write(self._claim)
        except Unclaimable as culprit:
            log.exception("run.set_aside", flow_run_id=culprit.run_id, seconds=SET_ASIDE_SECONDS)
            self._set_aside[culprit.run_id] = self._clock.monotonic() + SET_ASIDE_SECONDS
            return True
        failpoints.reach("claim.committed")
        for execution in claimed:
            log.info(
                "run.claimed", flow_run_id=execution.flow_run_id, execution_id=execution.id, attempt=execution.attempt
            )
            self._start(execution)
        if any(isinstance(step, PutBack) for step in self._done):
            self._put_back_at = self._clock.monotonic() + PUT_BACK_SECONDS
        # Of those whose needs were forgotten, a look sees a few.
        return len(self._done) >= BATCH or any(isinstance(step, Note) for step in self._done)

    async def _rest(self) -> None:
        now = anyio.current_time()
        self._rested_at = max(self._rested_at, now) + REST_SECONDS
        await anyio.sleep(max(0.0, self._rested_at - now - UNRESTED * REST_SECONDS))

    async def _until_next(self) -> float:
        """How long there is nothing to do by itself. The poll is for what nobody can foresee: a clock that is set."""
        try:
            moments = [await self._db.read(queue.next_due), self._ready_us]
        except ManagedError:
            moments = []
        due = min((moment for moment in moments if moment is not None), default=None)
        if due is None:
            return self._poll_seconds
        return min(self._poll_seconds, max(0.0, (due - self._clock.now_us()) / SECOND_US))

    def _look(self, tx: Tx) -> tuple[bool, int | None]:
        """Whether there is something to do; and when a shortage ends by itself."""
        if self._unheld(tx, 1):
            return True, None
        if not self._may_claim():
            return False, None
        turns = self._turns(tx, Limiter(tx, self._limits))
        return not turns.is_idle(put_back=self._may_put_back()), turns.ready_us

    def _claim(self, tx: Tx) -> list[Execution]:
        self._end_unheld(tx)
        claimed: list[Execution] = []
        self._done = []
        if not self._may_claim():
            return claimed
        limiter = Limiter(tx, self._limits)
        for step in islice(self._turns(tx, limiter).steps(put_back=self._may_put_back()), BATCH):
            self._done.append(step)
            execution = self._do(tx.scoped(step.head.workspace_id), step)
            if execution is not None and isinstance(step, Claim):
                # The next step is reckoned with this one.
                limiter.take(step.head, step.needs)
                claimed.append(execution)
        failpoints.reach("claim.uncommitted")
        return claimed

    def _unheld(self, tx: Tx, limit: int) -> list[queue.Unheld]:
        return queue.unheld(tx, limit, since_before_us=tx.now - int(UNHELD_SECONDS * SECOND_US))

    def _end_unheld(self, tx: Tx) -> None:
        for run in self._unheld(tx, BATCH):
            state = end_state(EndCause.CANCEL_EARLY)
            if not run.is_cancelling:
                state = end_state(EndCause.UNHELD, state=run.state_name, elapsed=human_seconds(UNHELD_SECONDS))
            propose(tx.scoped(run.workspace_id), run.run_id, state, force=True)

    def _turns(self, tx: Tx, limiter: Limiter) -> Turns:
        now = self._clock.monotonic()
        self._set_aside = {run_id: until for run_id, until in self._set_aside.items() if until > now}
        return Turns(tx, limiter, self._needs, set_aside=self._set_aside, page=self._page)

    def _may_put_back(self) -> bool:
        return self._clock.monotonic() >= self._put_back_at

    def _do(self, tx: Tx, step: Step) -> Execution | None:
        """The execution of who may go; None for who was told something, or whom the rules refuse."""
        try:
            if isinstance(step, Claim):
                return self._claimed(tx, step)
            if not isinstance(step, Note):
                propose(tx, step.candidate.id, step.state)
            if isinstance(step, Tell | Note) and step.needs is not None:
                queue.note_needs(tx, step.candidate.id, step.needs)
            return None
        except Exception as error:
            if isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE:
                raise
            raise Unclaimable(step.candidate.id) from error

    def _claimed(self, tx: Tx, step: Claim) -> Execution | None:
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
        usage.begin(tx, tx.workspace, self._limits.zone)
        executions.note(tx, execution.id, {"key_hash": self._key_hash(execution.id)})
        flow_runs.set_infrastructure(tx, candidate.id, f"managedd:{execution.id}")
        return execution
