"""The dispatcher: due runs → PENDING + an execution, in one transaction; then a runner for each.

PENDING is the lock: the rules give it to one proposer, and the execution is inserted in the same transaction, so that a crash leaves
either both or neither. Commits wake it; the poll is the safety net.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from managedd.bus import Bus, Topic
from managedd.errors import ManagedError
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType, scheduled_details
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import executions, flow_runs, queue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from managedd.clock import Clock
    from managedd.model.executions import Execution
    from managedd.store.database import Database, Tx
    from managedd.store.queue import Candidate, QueueHead

log = get_log("dispatcher")

BATCH = 64
"""At most so many runs are claimed in one transaction."""
SECOND_US = 1_000_000


class Dispatcher:
    """Claims due runs while their limits have slots."""

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
    ) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._driver = driver
        self._plan_slots = plan_slots
        self._poll_seconds = poll_seconds
        self._key_hash = key_hash
        self._start = start

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
        claimed = await self._db.write(self._claim)
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

    def _claim(self, tx: Tx) -> list[Execution]:
        for workspace, run_id in queue.cancelling_without_execution(tx, BATCH):
            message = "The flow run was cancelled before it had a container."
            propose(tx.scoped(workspace), run_id, ProposedState(type=StateType.CANCELLED, message=message))
        claimed: list[Execution] = []
        taken_workspace: dict[str, int] = {}
        taken_pool: dict[str, int] = {}
        for head in queue.heads(tx):
            in_workspace = taken_workspace.get(head.workspace_id, 0)
            in_pool = taken_pool.get(head.work_pool_id, 0)
            room = min(self._room(head, in_workspace, in_pool), BATCH - len(claimed))
            if room <= 0:
                continue
            done = self._claim_from(tx.scoped(head.workspace_id), head, room)
            claimed += done
            taken_workspace[head.workspace_id] = in_workspace + len(done)
            taken_pool[head.work_pool_id] = in_pool + len(done)
        return claimed

    def _room(self, head: QueueHead, in_workspace: int, in_pool: int) -> int:
        limits = (
            (self._plan_slots.get(head.plan), head.workspace_taken + in_workspace),
            (head.pool_limit, head.pool_taken + in_pool),
            (head.queue_limit, head.queue_taken),
        )
        return min((limit - taken for limit, taken in limits if limit is not None), default=BATCH)

    def _claim_from(self, tx: Tx, head: QueueHead, room: int) -> list[Execution]:
        claimed = []
        for candidate in queue.candidates(tx, head.work_queue_id, room):
            execution = self._claim_run(tx, head, candidate)
            if execution is not None:
                claimed.append(execution)
        return claimed

    def _claim_run(self, tx: Tx, head: QueueHead, candidate: Candidate) -> Execution | None:
        if candidate.orphaned:
            message = "The deployment of this run was deleted before the run could start."
            propose(tx, candidate.id, ProposedState(type=StateType.CRASHED, message=message), force=True)
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
