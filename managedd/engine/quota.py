"""The quota watch: who nears the end of a month's compute hours is warned, and stopped there where the plan says so.

New runs are the dispatcher's business; this one looks at what runs already.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio

from managedd import ids
from managedd.bus import Topic
from managedd.clock import iso
from managedd.engine.evidence import Measured, ending
from managedd.engine.settling import end_first
from managedd.errors import ManagedError
from managedd.model.events import RESOURCE_ID, RESOURCE_NAME, Event
from managedd.model.executions import EndCause
from managedd.model.limits import OnExhausted
from managedd.model.metering import month_of, used_of
from managedd.observe import get_log
from managedd.store import events, executions, plans, usage, workspaces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import tzinfo

    from managedd.bus import Bus
    from managedd.model.executions import EndLine, Execution
    from managedd.model.limits import Plan
    from managedd.model.metering import Month
    from managedd.store.database import Database, Tx
    from managedd.store.workspaces import Workspace

log = get_log("quota")

LOOK_SECONDS: Final = 20.0
"""Minutes go by whether anything is committed or not."""
REST_SECONDS: Final = 1.0
"""Between two looks: a storm of commits is one look."""
PERCENTS: Final = (80, 100)
EVENT: Final = "managedd.workspace.compute-hours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a workspace stands in the month."""

    workspace: Workspace
    plan: Plan
    month: Month
    minutes: int
    warned: int
    is_running: bool
    """Whether anything runs in it that nobody has asked to stop."""

    @property
    def percent(self) -> int:
        """The last share that was reached, of those that are warned of; 0: none."""
        limit = self.plan.compute_minutes
        if limit is None:
            return 0
        return max((percent for percent in PERCENTS if self.minutes * 100 >= limit * percent), default=0)

    @property
    def has_to_stop(self) -> bool:
        return self.is_running and self.percent == 100 and self.plan.on_exhausted is OnExhausted.STOP


class QuotaWatch:
    """Warns and stops."""

    def __init__(
        self, db: Database, bus: Bus, *, zone: tzinfo, say: Callable[[Execution, EndLine], Awaitable[None]]
    ) -> None:
        self._db = db
        self._bus = bus
        self._zone = zone
        self._say = say

    async def run(self) -> None:
        """Looks until cancelled; a plan that is changed is looked at at once."""
        with self._bus.subscribe(Topic.SLOTS) as woken:
            while True:
                try:
                    await self.tick()
                except ManagedError as error:
                    log.warning("quota.postponed", reason=error.message)
                    await anyio.sleep(error.retry_after_seconds or 1.0)
                await anyio.sleep(REST_SECONDS)
                await woken.wait(LOOK_SECONDS)

    async def tick(self) -> None:
        """Whoever has reached a share of the hours was warned, and what must not go on was told to stop."""
        for standing in await self._db.read(self._standings):
            if standing.percent != standing.warned:
                await self._db.write(partial(_warn, standing=standing), workspace=standing.workspace.id)
            if standing.percent > standing.warned:
                log.warning(
                    "compute_hours.reached",
                    workspace=f"{standing.workspace.account}/{standing.workspace.handle}",
                    percent=standing.percent,
                    used_minutes=standing.minutes,
                    limit_minutes=standing.plan.compute_minutes,
                )
            if standing.has_to_stop:
                await self._stop(standing)

    def _standings(self, tx: Tx) -> list[Standing]:
        known, month = plans.every(tx), month_of(tx.now, self._zone)
        used, running = usage.used_by_all(tx, month, self._zone), executions.workspaces_running(tx)
        return [
            Standing(
                workspace=workspace,
                plan=plan,
                month=month,
                minutes=used[workspace.id].minutes,
                warned=usage.warned(tx, workspace.id, month),
                is_running=workspace.id in running,
            )
            for workspace in workspaces.every(tx)
            if (plan := known.get(workspace.plan)) is not None and plan.compute_minutes is not None
        ]

    async def _stop(self, standing: Standing) -> None:
        limit, used = standing.plan.compute_minutes or 0, standing.minutes
        detail = used_of(limit, used, plan=standing.plan.name, month=standing.month)

        def body(tx: Tx) -> list[tuple[Execution, EndLine]]:
            stopped: list[tuple[Execution, EndLine]] = []
            # The plan may have been changed, or the month ended, since it was looked at.
            if not any(now.has_to_stop for now in self._standings(tx) if now.workspace.id == standing.workspace.id):
                return stopped
            for execution in executions.running_in(tx, standing.workspace.id):
                spent = Measured(limit=standing.plan.compute_minutes, reached=standing.minutes, unit="minutes")
                ended = ending(EndCause.QUOTA, execution, detail=detail, measured=spent)
                # The cause first: under SIGTERM the client reports an end of its own, and the rules would then refuse ours.
                stopping = end_first(tx, ended, execution.id)
                if stopping is not None and stopping.line is not None:
                    stopped.append((execution, stopping.line))
            return stopped

        for execution, line in await self._db.write(body):
            log.info("execution.out_of_quota", execution_id=execution.id, flow_run_id=execution.flow_run_id)
            await self._say(execution, line)


def _warn(tx: Tx, standing: Standing) -> None:
    usage.warn(tx, standing.workspace.id, standing.month, standing.percent)
    if standing.percent < standing.warned:
        # The plan was made larger: what is reached of it is said anew.
        return
    event = Event(
        id=ids.new_id(),
        occurred_us=tx.now,
        event=f"{EVENT}.{'exhausted' if standing.percent == 100 else 'warning'}",
        resource={
            RESOURCE_ID: f"managedd.workspace.{standing.workspace.id}",
            RESOURCE_NAME: standing.workspace.name,
        },
        payload={
            "percent": standing.percent,
            "used_minutes": standing.minutes,
            "limit_minutes": standing.plan.compute_minutes,
            "plan": standing.plan.name,
            "month": standing.month.name,
            "resets": iso(standing.month.ends_us),
        },
    )
    events.insert(tx, [event])
