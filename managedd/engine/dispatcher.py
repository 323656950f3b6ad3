"""The dispatcher: due runs → PENDING + an execution, in one transaction; then a runner for each.

PENDING is the lock: the rules give it to one proposer, and the execution is inserted in the same transaction, so that a crash leaves
either both or neither. Commits wake it; the poll is the safety net. It looks on a reader first and writes only where there is something
to claim, so that looking costs nobody the writer.
"""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Final

import anyio

from managedd import failpoints
from managedd.bus import Bus, Topic
from managedd.engine.evidence import end_state
from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType, scheduled_details
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import executions, flow_runs, queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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


class _Unclaimable(Exception):
    """A candidate whose rows break the claim; whatever was claimed with it is undone and tried again without it."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class _Slots:
    """What may still be claimed within one transaction."""

    def __init__(self, plan_slots: Mapping[str, int | None]) -> None:
        self._plan_slots = plan_slots
        self._claimed: Counter[str] = Counter()

    def free(self, head: QueueHead) -> bool:
        limits = (
            (self._plan_slots.get(head.plan), head.workspace_taken, head.workspace_id),
            (head.pool_limit, head.pool_taken, head.work_pool_id),
            (head.queue_limit, head.queue_taken, head.work_queue_id),
        )
        return all(limit is None or taken + self._claimed[owner] < limit for limit, taken, owner in limits)

    def take(self, head: QueueHead) -> None:
        self._claimed.update((head.workspace_id, head.work_pool_id, head.work_queue_id))


class Dispatcher:
    """Claims due runs while their limits have slots and the container engine answers."""

    def __init__(
        self,
        db: Database,
        bus: Bus,
        clock: Clock,
        *,
        driver: str,
        plan_slots: Mapping[str, int | None],
        poll_seconds: float,
        key_hash: Callable[[str], str],
        start: Callable[[Execution], None],
        may_claim: Callable[[], bool] = lambda: True,
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._driver = driver
        self._plan_slots = plan_slots
        self._poll_seconds = poll_seconds
        self._key_hash = key_hash
        self._start = start
        self._may_claim = may_claim
        self._set_aside: dict[str, float] = {}
        """Runs that can't be claimed, and until when they are left alone."""

    async def run(self) -> None:
        """Claims until cancelled. A failing store is waited for, never died of."""
        with self._bus.subscribe(Topic.RUNS, Topic.SLOTS, Topic.EXECUTIONS, Topic.SCHEDULES) as woken:
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
        if not await self._db.read(self._something_to_do):
            return False
        try:
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
        slots = _Slots(self._plan_slots)
        return self._may_claim() and any(slots.free(head) for head in queue.heads(tx))

    def _claim(self, tx: Tx) -> list[Execution]:
        for workspace, run_id in queue.cancelling_without_execution(tx, BATCH):
            propose(tx.scoped(workspace), run_id, end_state(EndCause.CANCEL_EARLY))
        claimed: list[Execution] = []
        if not self._may_claim():
            return claimed
        slots = _Slots(self._plan_slots)
        for workspace, heads in groupby(queue.heads(tx), key=lambda head: head.workspace_id):
            for head, candidate in self._in_order(tx, heads):
                if len(claimed) >= BATCH:
                    break
                if not slots.free(head):
                    continue
                execution = self._claim_run(tx.scoped(workspace), head, candidate)
                if execution is not None:
                    slots.take(head)
                    claimed.append(execution)
        failpoints.reach("claim.uncommitted")
        return claimed

    def _in_order(self, tx: Tx, heads: Iterable[QueueHead]) -> list[tuple[QueueHead, Candidate]]:
        """What may go in one workspace: by priority, then in due order over all queues of that priority."""
        now = self._clock.monotonic()
        self._set_aside = {run_id: until for run_id, until in self._set_aside.items() if until > now}
        found = [
            (head, candidate)
            for head in heads
            for candidate in queue.candidates(tx, head.work_queue_id, BATCH + len(self._set_aside))
            if candidate.id not in self._set_aside
        ]
        return sorted(found, key=lambda pair: (pair[0].priority, pair[1].due_at, pair[1].id))

    def _claim_run(self, tx: Tx, head: QueueHead, candidate: Candidate) -> Execution | None:
        try:
            return self._claimed(tx, head, candidate)
        except Exception as error:
            if isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE:
                raise
            raise _Unclaimable(candidate.id) from error

    def _claimed(self, tx: Tx, head: QueueHead, candidate: Candidate) -> Execution | None:
        if candidate.orphaned:
            propose(tx, candidate.id, end_state(EndCause.ORPHANED), force=True)
            return None
        # Whoever waited for a slot is due now, not when it would have looked again.
        details = scheduled_details(tx.now) if candidate.awaited_slot else {}
        outcome = propose(tx, candidate.id, ProposedState(type=StateType.PENDING, details=details))
        if outcome.status is not Status.ACCEPT:
            return None
        execution = executions.insert(tx, flow_run_id=candidate.id, work_pool_id=head.work_pool_id, driver=self._driver)
        executions.note(tx, execution.id, {"key_hash": self._key_hash(execution.id)})
        flow_runs.set_infrastructure(tx, candidate.id, f"managedd:{execution.id}")
        return execution
