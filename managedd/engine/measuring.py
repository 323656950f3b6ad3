"""Measuring: what a running container uses, and the limits that only measuring can hold: files written, and processes at their limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from managedd.engine.evidence import Measured
from managedd.engine.means import VERB_SECONDS
from managedd.engine.stopwatch import SECOND_US, Stopwatch
from managedd.model.amounts import human_bytes
from managedd.model.drivers import Liveness
from managedd.model.executions import EndCause
from managedd.model.metering import adopted_us
from managedd.model.samples import Sampled
from managedd.observe import get_log
from managedd.store import executions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.engine.means import Means
    from managedd.model.drivers import Handle, Usage
    from managedd.model.executions import Execution

log = get_log("measuring")

READ_SECONDS: Final = 5.0
SEE_SECONDS: Final = 20.0
"""Whoever gives no readings is asked so often whether it runs."""
DISK_SECONDS: Final = 3.0
DISK_SHARE: Final = 20
"""A reading that takes long is made again only after so many times as long."""
FULL_READINGS: Final = 3
"""A run that has as many processes as it may so often in a row does not come down from that by itself."""
FULL_SHARE: Final = 0.9
"""One that forks without end is seldom at the very limit: who can't fork any more ends."""


class Measuring:
    """The measurements of one execution."""

    def __init__(
        self, execution: Execution, means: Means, end: Callable[[EndCause, str, Measured], Awaitable[bool]]
    ) -> None:
        self.usage: Usage | None = None
        self.peak_memory_bytes: int | None = None
        self.stopwatch = Stopwatch(means.clock)
        self.sampled = Sampled()
        """What was read and is not on record yet."""
        self.looked = anyio.Event()
        """What it has cost before somebody watched can be told: it runs, and for how long is known, or it has never run, or it is in the ledger."""
        self._execution = execution
        self._means = means
        self._end = end
        self._full = 0

    async def run(self, handle: Handle) -> None:
        """Measures until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, handle, name=f"usage {self._execution.id}")
            tasks.start_soon(self._weigh, handle, name=f"disk {self._execution.id}")
            tasks.start_soon(self._time, handle, name=f"time {self._execution.id}")

    async def _read(self, handle: Handle) -> None:
        while True:
            read, asked_us = False, self.stopwatch.elapsed_us
            try:
                self.usage = await self._means.driver.stats(handle)
                read = True
            except Exception as error:
                log.debug("execution.not_measured", execution_id=self._execution.id, reason=str(error))
            # What was not read anew is no second reading.
            if read and self.usage is not None:
                seen = (self.usage.memory_bytes, self.usage.peak_memory_bytes or 0, self.peak_memory_bytes or 0)
                self.peak_memory_bytes = max(seen)
                self.sampled.add(
                    (self._means.clock.now_us(), self.usage.memory_bytes, round(self.usage.cpu_seconds * SECOND_US))
                )
                self.stopwatch.see(asked_us)
                await self._count(self.usage.pids)
            await anyio.sleep(READ_SECONDS)

    async def _count(self, pids: int) -> None:
        limit = self._means.settings.pids_limit
        self._full = self._full + 1 if pids >= FULL_SHARE * limit else 0
        if self._full == FULL_READINGS:
            await self._end(
                EndCause.PIDS,
                f"the run had {pids} processes and threads for {READ_SECONDS * (FULL_READINGS - 1):.0f} s; its limit is {limit}",
                Measured(limit=limit, reached=pids, unit="processes"),
            )

    async def _time(self, handle: Handle) -> None:
        """That it runs is seen now and then, also where there are no readings."""
        while True:
            pause = SEE_SECONDS
            try:
                with anyio.fail_after(VERB_SECONDS):
                    await self._look_again(handle)
                # One that does not run any more is known when it is settled.
                if self.stopwatch.seen_us is not None:
                    self.looked.set()
            except Exception as error:
                log.debug("execution.not_seen", execution_id=self._execution.id, reason=str(error))
                pause = READ_SECONDS
            await anyio.sleep(pause)

    async def _look_again(self, handle: Handle) -> None:
        noted = self.stopwatch.noted
        if noted is None or noted[1] >= SEE_SECONDS * SECOND_US:
            await self.look(handle)

    async def look(self, handle: Handle) -> Liveness:
        """What its engine says of it now; when it runs, it is seen to, and its time is taken from then on at the latest."""
        asked_us = self.stopwatch.elapsed_us
        liveness = await self._means.driver.recover(handle)
        if liveness is Liveness.RUNNING:
            if asked_us is None:
                # What it has run before somebody watched counts as well.
                self.stopwatch.begin(await self._ran_before_us(handle))
            self.stopwatch.see(asked_us)
        return liveness

    async def _ran_before_us(self, handle: Handle) -> int:
        seconds = await self._means.driver.started_ago(handle)
        ago_us = None if seconds is None else round(seconds * SECOND_US)
        return await self._means.db.read(
            lambda tx: adopted_us(ago_us, executions.noted(tx, self._execution.id), tx.now)
        )

    async def _weigh(self, handle: Handle) -> None:
        limit, driver = self._means.settings.disk_limit_bytes, self._means.driver
        while True:
            began = anyio.current_time()
            try:
                written = await driver.disk(handle)
            except Exception as error:
                log.debug("execution.not_weighed", execution_id=self._execution.id, reason=str(error))
                written = None
            if written is not None and written > limit:
                detail = f"the run has written {human_bytes(written)} of files; its limit is {human_bytes(limit)}"
                if await self._end(EndCause.DISK, detail, Measured(limit=limit, reached=written, unit="bytes")):
                    return
            await anyio.sleep(max(DISK_SECONDS, DISK_SHARE * (anyio.current_time() - began)))
