"""The reconciler: rows and what the engine really has → what to do. `plan` is pure; `Reconciler` carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from managedd.errors import ManagedError
from managedd.model.executions import Phase
from managedd.observe import get_log
from managedd.store import executions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.clock import Clock
    from managedd.engine.fleet import Fleet
    from managedd.model.drivers import Driver, Found
    from managedd.model.executions import Execution
    from managedd.store.database import Database

log = get_log("reconciler")

SECOND_US = 1_000_000
CREATION_GRACE_SECONDS = 60.0
"""A container younger than this may belong to a create whose row is about to be written."""
INTERVAL_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervise:
    """An open execution without a runner gets one; the runner finds out what became of it: it adopts what runs, finishes what ended,
    creates again what was only claimed, and reports as lost what ran and is gone."""

    execution: Execution


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Something of ours that no open execution owns is removed."""

    found: Found


Action = Supervise | Remove


def plan(
    rows: Iterable[Execution], found: Iterable[Found], running: frozenset[str], *, now_us: int, daemon_started_us: int
) -> list[Action]:
    """What brings rows and engine together. `running`: executions that have a runner already.

    Only what this very process made may still wait for its row; what is older than the process has none coming.
    """
    open_rows = {row.id: row for row in rows}
    actions: list[Action] = [Supervise(execution=row) for row in open_rows.values() if row.id not in running]
    for item in found:
        age_us = now_us - item.created_at_us
        young = item.created_at_us >= daemon_started_us and age_us < CREATION_GRACE_SECONDS * SECOND_US
        if item.execution_id not in open_rows and item.execution_id not in running and not young:
            actions.append(Remove(found=item))
    return actions


class Reconciler:
    """Brings rows and engine together: once before the first dispatch, then now and then."""

    def __init__(self, db: Database, driver: Driver, fleet: Fleet, clock: Clock, *, instance_id: str) -> None:
        self._db = db
        self._driver = driver
        self._fleet = fleet
        self._clock = clock
        self._instance_id = instance_id
        self._started_us = clock.now_us()

    async def run(self) -> None:
        """Reconciles every minute until cancelled."""
        while True:
            await anyio.sleep(INTERVAL_SECONDS)
            try:
                await self.once()
            except ManagedError as error:
                log.warning("reconcile.postponed", reason=error.message)

    async def once(self) -> list[Action]:
        """Rows and engine agree. The engine is asked first: a row is then never older than what was found."""
        found = await self._driver.list_owned(self._instance_id)
        # Before and after: a runner that ended while the rows were read has left an old row, one that began has a new one.
        before = self._fleet.running()
        rows = await self._db.read(executions.open_ones)
        running = before | self._fleet.running()
        actions = plan(rows, found, running, now_us=self._clock.now_us(), daemon_started_us=self._started_us)
        await self._note_unwatched(actions)
        for action in actions:
            try:
                await self._do(action)
            except Exception:
                # One that cannot be done must not keep the others, and the daemon's start, waiting.
                log.exception("reconcile.action_failed", execution_id=_execution_id(action))
        return actions

    async def _note_unwatched(self, actions: list[Action]) -> None:
        """What nobody has watched for a while is not reckoned to have run until now."""
        adopted = [action.execution for action in actions if isinstance(action, Supervise)]
        started = [execution.id for execution in adopted if execution.phase is Phase.RUNNING]
        if started:
            await self._db.write(lambda tx: executions.note_unwatched(tx, started))

    async def _do(self, action: Action) -> None:
        if isinstance(action, Supervise):
            log.info("execution.adopted", execution_id=action.execution.id, phase=action.execution.phase.value)
            self._fleet.start(action.execution)
            return
        log.info("container.removed", execution_id=action.found.execution_id, liveness=action.found.liveness.value)
        try:
            await self._driver.remove(action.found.handle)
        except ManagedError as error:
            log.warning("container.remove_failed", execution_id=action.found.execution_id, reason=error.message)


def _execution_id(action: Action) -> str:
    return action.execution.id if isinstance(action, Supervise) else action.found.execution_id
