"""The janitor: what is over its time goes, a little at a time; the write-ahead logs stay short, and so does the heap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from managedd import heap
from managedd.clock import from_us
from managedd.errors import ManagedError
from managedd.model.log_limits import removed
from managedd.observe import get_log
from managedd.store import audit, events, keys, logs, retention, usage, web_sessions

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.clock import Clock
    from managedd.config import RetentionSection
    from managedd.store.database import Database, Tx

log = get_log("janitor")

INTERVAL_SECONDS = 600.0
PAUSE_SECONDS = 0.05
"""Between two steps: whoever waits for the writer goes first."""
DAY_US = 86_400_000_000


class Janitor:
    """Deletes by age: events, ended runs with their logs, or their logs alone, leases nobody renewed."""

    def __init__(self, db: Database, log_db: Database, clock: Clock, settings: RetentionSection) -> None:
        self._db = db
        self._log_db = log_db
        self._clock = clock
        self._settings = settings

    async def run(self) -> None:
        """Cleans every ten minutes until cancelled."""
        while True:
            try:
                await self.once()
            except ManagedError as error:
                log.warning("cleaning.postponed", reason=error.message)
            await anyio.sleep(INTERVAL_SECONDS)

    async def once(self) -> None:
        """Nothing is over its time, as far as rows go."""
        await self._db.write(retention.delete_expired_leases)
        await self._events()
        await self._runs()
        await self._usage()
        await self._audit()
        await self._orphaned_logs()
        await self._old_logs()
        await self._unowned_logs()
        await self._cursors()
        for db in (self._db, self._log_db):
            await self._give_back(db)
            await db.checkpoint()
        await anyio.to_thread.run_sync(heap.give_back)

    async def _events(self) -> None:
        moment = self._clock.now_us() - int(self._settings.events_days * DAY_US)
        await events.settle(self._db)
        await self._repeat(self._db, lambda tx: events.delete_received_before(tx, moment, retention.STEP))

    async def _runs(self) -> None:
        if self._settings.runs_days is None:
            return
        moment = self._clock.now_us() - int(self._settings.runs_days * DAY_US)
        while ended := await self._db.read(lambda tx: retention.ended_runs_before(tx, moment)):
            for run_id in ended:
                await self._delete(run_id)

    async def _usage(self) -> None:
        moment = from_us(self._clock.now_us() - int(self._settings.usage_days * DAY_US))
        await self._repeat(self._db, lambda tx: usage.forget(tx, before_month=f"{moment:%Y-%m}", limit=retention.STEP))

    async def _audit(self) -> None:
        moment, rows = self._clock.now_us() - int(self._settings.audit_days * DAY_US), self._settings.audit_rows
        await self._repeat(self._db, lambda tx: audit.forget(tx, before_us=moment, keep_rows=rows))
        # Its entries name a key by itself: an ended one is of no more use than they are.
        await self._repeat(self._db, lambda tx: keys.forget(tx, before_us=moment, limit=retention.STEP))
        now = self._clock.now_us()
        await self._repeat(self._db, lambda tx: web_sessions.forget(tx, before_us=now, limit=retention.STEP))

    async def _delete(self, run_id: str) -> None:
        await self._repeat(self._db, lambda tx: retention.delete_some_of_run(tx, run_id))
        await self._logs_of(run_id)

    async def _logs_of(self, run_id: str) -> None:
        await self._repeat(self._log_db, lambda tx: logs.delete_of_run(tx, run_id, retention.STEP))

    async def _orphaned_logs(self) -> None:
        """Rows go before their logs; whatever a crash left between the two goes now."""
        after = ""
        while found := await self._log_db.read(lambda tx, after=after: retention.logged_runs_after(tx, after)):  # type: ignore[misc]
            for run_id in await self._db.read(lambda tx, found=found: retention.gone_of(tx, found)):  # type: ignore[misc]
                await self._logs_of(run_id)
            after = found[-1]

    async def _old_logs(self) -> None:
        """Lines of runs that stay longer than their logs do; a line in each log says so."""
        days = self._settings.logs_days
        if days is None:
            return
        moment, told = self._clock.now_us() - int(days * DAY_US), removed(days)
        after = ""
        while found := await self._log_db.read(lambda tx, after=after: retention.logged_runs_after(tx, after)):  # type: ignore[misc]
            after = found[-1]
            logged = await self._log_db.read(lambda tx, found=found: retention.runs_with_lines(tx, found))  # type: ignore[misc]
            for workspace, run_id in await self._db.read(
                lambda tx, logged=logged: retention.long_ended(tx, logged, moment)  # type: ignore[misc]
            ):
                await self._repeat(
                    self._log_db,
                    lambda tx, workspace=workspace, run_id=run_id: logs.remove_of_run(  # type: ignore[misc]
                        tx.scoped(workspace), run_id, retention.STEP, told
                    ),
                )

    async def _unowned_logs(self) -> None:
        """Lines that clients wrote outside any run have no run to go with."""
        ages = [days for days in (self._settings.runs_days, self._settings.logs_days) if days is not None]
        if not ages:
            return
        moment = self._clock.now_us() - int(min(ages) * DAY_US)
        await self._repeat(self._log_db, lambda tx: logs.delete_unowned_before(tx, moment, retention.STEP))

    async def _cursors(self) -> None:
        """What a crash left behind of executions that ended."""
        after = ""
        while found := await self._log_db.read(lambda tx, after=after: retention.cursors_after(tx, after)):  # type: ignore[misc]
            ended = await self._db.read(lambda tx, found=found: retention.ended_of(tx, found))  # type: ignore[misc]
            await self._log_db.write(lambda tx, ended=ended: _drop_cursors(tx, ended))  # type: ignore[misc]
            after = found[-1]

    @staticmethod
    async def _give_back(db: Database) -> None:
        """What the file had for what is gone, the file system has: a disk that is too full for all of it is soon less full."""
        while True:
            if not await db.shrink():
                return
            await anyio.sleep(PAUSE_SECONDS)

    @staticmethod
    async def _repeat(db: Database, step: Callable[[Tx], int]) -> None:
        """`step` has found less than a whole step to do."""
        while True:
            if await db.write(step) < retention.STEP:
                return
            await anyio.sleep(PAUSE_SECONDS)


def _drop_cursors(tx: Tx, execution_ids: list[str]) -> None:
    for execution_id in execution_ids:
        logs.drop_cursor(tx, execution_id)
