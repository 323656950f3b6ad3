"""What time itself does to runs: schedules become runs, runs become Late, pauses end, children of runs that ended badly end with them.

`fill` is woken when a deployment or a schedule changes; the rest sleeps until the next moment that the rows know of. Each method does
all there is to do at the clock's present moment and may be called at any time and any number of times.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from managedd.bus import Topic
from managedd.clock import from_us
from managedd.engine.evidence import end_state
from managedd.errors import ErrorCode, ManagedError
from managedd.model.amounts import human_seconds
from managedd.model.executions import EndCause
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.observe import get_log
from managedd.orchestration import lifecycle, rules, scheduling
from managedd.orchestration.transition import propose, propose_late, propose_task
from managedd.store import changes, flow_runs, overdue, schedules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from anyio.abc import TaskStatus

    from managedd.bus import Bus
    from managedd.clock import Clock
    from managedd.config import SchedulerSection
    from managedd.store.database import Database, Tx
    from managedd.store.overdue import Overdue
    from managedd.store.schedules import Hungry

SCHEDULES_PER_BATCH = 100
WRITES_AT_ONCE = 16
"""They share commits."""
RUNS_PER_BATCH = 200
LOOK_SECONDS = 5.0
"""The longest sleep between two looks at what is overdue: a run that was committed meanwhile may be due before all others."""
SHORTEST_SLEEP_SECONDS = 0.02
CANCELLING_TIMEOUT_SECONDS = 300
CHILDREN_LOOKBACK_SECONDS = 600
"""Children of a run may report to us some time after it was cancelled."""
FIRST_LOOKBACK_SECONDS = 86_400
_MICROSECONDS = 1_000_000

_log = get_log(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Idle:
    """Why a schedule gave no run."""

    schedule: Mapping[str, Any]
    until_us: int = 0
    """Nothing is in reach, and nobody need ask again before."""
    reason: str | None = None
    """What is wrong with it: told once, not every round."""


class Scheduler:
    """Owns nothing but its rhythm: all that it knows is in the rows."""

    def __init__(self, db: Database, bus: Bus, clock: Clock, settings: SchedulerSection) -> None:
        self._db = db
        self._bus = bus
        self._clock = clock
        self._settings = settings
        self._idle: dict[str, _Idle] = {}
        """What the last round of `fill` learned of schedules that gave no run."""
        self._children_since_us: int | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Schedules and runs are looked after until it is cancelled."""
        with self._bus.subscribe(Topic.SCHEDULES) as woken:
            task_status.started()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_on, self.tick, self._next_look_seconds, anyio.sleep, name="scheduler.tick")
                tasks.start_soon(self._keep_on, self.fill, self._next_fill_seconds, woken.wait, name="scheduler.fill")

    async def _keep_on(
        self,
        work: Callable[[], Awaitable[Any]],
        pause_seconds: Callable[[], Awaitable[float]],
        sleep: Callable[[float], Awaitable[Any]],
    ) -> None:
        while True:
            seconds = LOOK_SECONDS
            try:
                await work()
                seconds = await pause_seconds()
            except Exception:
                # A fault of the store or of one row must not end what every deployment relies on.
                _log.exception("scheduler.failed", work=work.__name__)
            await sleep(max(seconds, SHORTEST_SLEEP_SECONDS))

    # Schedules

    async def fill(self) -> int:
        """Every active schedule of a deployment that is not paused has its runs ahead; how many were made."""
        made, after = 0, ""
        before, self._idle = self._idle, {}
        while True:
            batch = await self._db.read(lambda tx, after=after: self._hungry(tx, after))  # type: ignore[misc]
            for start in range(0, len(batch), WRITES_AT_ONCE):
                made += await self._fill_some(batch[start : start + WRITES_AT_ONCE], before)
            if len(batch) < SCHEDULES_PER_BATCH:
                break
            after = batch[-1].id
        return made

    def _hungry(self, tx: Tx, after: str) -> list[Hungry]:
        settings = self._settings
        horizon_us = tx.now + round(settings.min_horizon_seconds * _MICROSECONDS)
        return schedules.hungry(
            tx, min_runs=settings.min_runs, max_runs=settings.max_runs, horizon_us=horizon_us, after=after, limit=SCHEDULES_PER_BATCH
        )  # fmt: skip

    async def _fill_some(self, some: Sequence[Hungry], before: Mapping[str, _Idle]) -> int:
        made = 0

        async def fill_one(hungry: Hungry) -> None:
            nonlocal made
            known = before.get(hungry.id)
            known = known if known is not None and known.schedule == hungry.schedule else None
            try:
                if known is not None and self._clock.now_us() < known.until_us:
                    self._idle[hungry.id] = known
                else:
                    # Not `made += await …`: that reads before it waits, and others add meanwhile.
                    new = await self._fill_one(hungry)
                    made += new
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                if known is None or known.reason != reason:
                    ids = {"schedule_id": hungry.id, "deployment_id": hungry.deployment_id}
                    _log.warning("schedule.skipped", reason=reason, **ids)
                self._idle[hungry.id] = _Idle(schedule=hungry.schedule, reason=reason)

        async with anyio.create_task_group() as tasks:
            for hungry in some:
                tasks.start_soon(fill_one, hungry, name=f"scheduler.fill:{hungry.id}")
        return made

    async def _fill_one(self, hungry: Hungry) -> int:
        now_us = self._clock.now_us()
        # On a thread of its own: a rule may take a while to evaluate, and neither the loop nor the writer should wait for it.
        reach = self._reach(now_us, hungry.max_scheduled_runs)
        planned = await anyio.to_thread.run_sync(scheduling.plan, hungry.id, hungry.schedule, reach)
        if not planned.moments:
            self._idle[hungry.id] = _Idle(schedule=hungry.schedule, until_us=now_us + self._rest_us())
            return 0
        return await self._db.write(lambda tx: scheduling.schedule_runs(tx, planned), workspace=hungry.workspace_id)

    def _reach(self, now_us: int, max_scheduled_runs: int | None) -> scheduling.Reach:
        settings, now = self._settings, from_us(now_us)
        return scheduling.Reach(
            start=now,
            end=now + timedelta(seconds=settings.max_horizon_seconds),
            min_runs=settings.min_runs,
            max_runs=min(settings.max_runs, max_scheduled_runs or settings.max_runs),
            min_time=timedelta(seconds=settings.min_horizon_seconds),
        )

    def _rest_us(self) -> int:
        """Nothing came within the maximum horizon, so nothing is missed in half of it."""
        seconds = min(self._settings.min_horizon_seconds, self._settings.max_horizon_seconds / 2)
        return round(seconds * _MICROSECONDS)

    async def _next_fill_seconds(self) -> float:
        """Until the interval is over, or a schedule that may have but few runs ahead has none."""
        interval = self._settings.interval_seconds
        before_us = self._clock.now_us() + round(interval * _MICROSECONDS)
        dry_us = await self._db.read(
            lambda tx: schedules.first_to_run_dry(tx, max_runs=self._settings.max_runs, before_us=before_us)
        )
        return interval if dry_us is None else (dry_us - self._clock.now_us()) / _MICROSECONDS

    # What is overdue

    async def tick(self) -> None:
        """Nothing is overdue at the clock's present moment."""
        await self.mark_late()
        await self.expire_pauses()
        await self.end_children()
        await self.end_cancelling()
        await self.tell_lapsed()

    async def _next_look_seconds(self) -> float:
        late_after_us = round(self._settings.late_after_seconds * _MICROSECONDS)

        def moments(tx: Tx) -> list[int]:
            due_us, pause_us = overdue.first_due(tx), overdue.first_pause_end(tx)
            return [moment for moment in (due_us and due_us + late_after_us, pause_us) if moment is not None]

        now_us = self._clock.now_us()
        ahead = [(moment - now_us) / _MICROSECONDS for moment in await self._db.read(moments)]
        # What is still overdue after a round was refused by the rules: it is asked again, but not at once.
        return min([seconds for seconds in ahead if seconds > 0] + [LOOK_SECONDS])

    async def mark_late(self) -> int:
        """Runs that should have started `late_after_seconds` ago are Late; how many became it."""
        due_us = self._clock.now_us() - round(self._settings.late_after_seconds * _MICROSECONDS)
        return await self._sweep(
            lambda tx: overdue.late(tx, due_before_us=due_us, limit=RUNS_PER_BATCH),
            lambda tx, run: propose_late(tx, run.id).created,
        )

    async def expire_pauses(self) -> int:
        """Runs whose pause ended without anyone resuming them have failed; how many."""
        return await self._sweep(lambda tx: overdue.paused_too_long(tx, limit=RUNS_PER_BATCH), _expire_pause)

    async def end_children(self) -> int:
        """What ran below a cancelled run is cancelled too, or is being cancelled if it runs in a place of its own; what ran in the process
        of a crashed one has crashed; how many."""
        now_us = self._clock.now_us()
        since_us = self._children_since_us or now_us - FIRST_LOOKBACK_SECONDS * _MICROSECONDS
        done = await self._sweep(
            lambda tx: overdue.orphaned_subflows(tx, since_us=since_us, limit=RUNS_PER_BATCH), _end_subflow
        )
        done += await self._sweep(
            lambda tx: overdue.orphaned_task_runs(tx, since_us=since_us, limit=RUNS_PER_BATCH), _end_task_run
        )
        self._children_since_us = now_us - CHILDREN_LOOKBACK_SECONDS * _MICROSECONDS
        return done

    async def end_cancelling(self) -> int:
        """Runs that nobody ends are cancelled after a while: those outside our containers, whose process is gone; how many."""
        before_us = self._clock.now_us() - CANCELLING_TIMEOUT_SECONDS * _MICROSECONDS
        return await self._sweep(
            lambda tx: overdue.stuck_cancelling(tx, since_before_us=before_us, limit=RUNS_PER_BATCH), _end_cancelling
        )

    async def tell_lapsed(self) -> None:
        """What workers have stopped asking about is told to be not ready."""
        if await self._db.read(changes.lapsed):
            await self._db.write(lifecycle.lapse)

    async def _sweep(self, find: Callable[[Tx], list[Overdue]], settle: Callable[[Tx, Overdue], bool]) -> int:
        """Every run that `find` gives is settled, batch by batch, while that changes anything; how many were changed."""
        total = 0
        while True:
            found = await self._db.read(find)
            changed = await self._settle(found, settle) if found else 0
            total += changed
            if len(found) < RUNS_PER_BATCH or not changed:
                return total

    async def _settle(self, found: Sequence[Overdue], settle: Callable[[Tx, Overdue], bool]) -> int:
        try:
            return await self._db.write(lambda tx: sum(settle(tx.scoped(run.workspace_id), run) for run in found))
        except Exception as error:
            code = error.code if isinstance(error, ManagedError) else ErrorCode.INTERNAL
            if code is ErrorCode.UNAVAILABLE:
                raise
            # One of them is at fault, or was deleted since: alone, it spoils nothing for the others.
            if len(found) == 1:
                if code is not ErrorCode.NOT_FOUND:
                    _log.exception("run.skipped", run_id=found[0].id)
                return 0
        return sum([await self._settle([run], settle) for run in found])


def _expire_pause(tx: Tx, run: Overdue) -> bool:
    facts, _ = flow_runs.facts(tx, run.id, api_version=None, client_version=None)
    if facts.current is None or not rules.pause_expired(facts.current, tx.now):
        return False
    return propose(tx, run.id, rules.pause_expired_state(facts.current), force=True).created


def _with_parent(run: Overdue) -> ProposedState:
    if run.parent_type == StateType.CANCELLED.value:
        return end_state(EndCause.PARENT_CANCELLED)
    return end_state(EndCause.PARENT_ENDED, detail=run.parent_message or "the parent flow run has crashed")


def _end_subflow(tx: Tx, run: Overdue) -> bool:
    if run.in_process:
        return propose(tx, run.id, _with_parent(run), force=True).created
    # It runs in a place of its own, and is told to stop.
    message = end_state(EndCause.PARENT_CANCELLED).message
    return propose(tx, run.id, ProposedState(type=StateType.CANCELLING, message=message)).created


def _end_task_run(tx: Tx, run: Overdue) -> bool:
    return propose_task(tx, run.id, _with_parent(run), force=True).created


def _end_cancelling(tx: Tx, run: Overdue) -> bool:
    elapsed = human_seconds(CANCELLING_TIMEOUT_SECONDS)
    return propose(tx, run.id, end_state(EndCause.CANCEL_STUCK, elapsed=elapsed)).created
