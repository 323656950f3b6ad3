"""The fleet: every runner there is, one supervised task each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from managedd.engine.lookout import Lookout
from managedd.engine.runner import ExecutionRunner
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.store import executions, samples

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from managedd.engine.means import Means
    from managedd.model.executions import Execution
    from managedd.store.database import Tx

log = get_log("fleet")

NOTE_SECONDS: Final = 20.0
"""How often it is noted for how long each container was seen to run."""


class Fleet:
    """Starts runners and knows which are under way. Cancelling it detaches them all: the runs live on."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._lookout = Lookout(means.db, means.bus)
        self._runners: dict[str, ExecutionRunner] = {}
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Runs runners until cancelled."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self._lookout.run, name="lookout")
            tasks.start_soon(self._keep_noting, name="compute time")
            self._tasks = tasks
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                self._tasks = None

    def start(self, execution: Execution) -> None:
        """The execution has a runner; one that has one already keeps it."""
        if self._tasks is None or execution.id in self._runners:
            return
        # What exists nowhere yet is made where runs are made now.
        means = self._means if execution.handle is None else self._means.of(execution.driver)
        runner = ExecutionRunner(execution, means, self._lookout)
        self._runners[execution.id] = runner
        self._tasks.start_soon(self._own, execution.id, runner, name=f"runner {execution.id}")

    async def _own(self, execution_id: str, runner: ExecutionRunner) -> None:
        try:
            await runner.run()
        finally:
            runner.supervision.measuring.looked.set()
            self._runners.pop(execution_id, None)

    async def looked(self) -> None:
        """For how long every container has run is on record, or in the ledger where it has ended."""
        for runner in list(self._runners.values()):
            await runner.supervision.measuring.looked.wait()
        await self.note_times()

    async def note_times(self) -> None:
        """For how long each container was seen to run is on record, and what it used."""
        watches = {id_: runner.supervision.measuring.stopwatch for id_, runner in self._runners.items()}
        seen = {id_: watch.noted for id_, watch in watches.items() if watch.noted is not None}
        sampled = {id_: runner.supervision.measuring.sampled for id_, runner in self._runners.items()}
        taken = {id_: each.waiting for id_, each in sampled.items() if each.waiting}
        if not seen and not taken:
            return

        def note(tx: Tx) -> None:
            executions.note_ran(tx, seen)
            samples.add(tx, taken)

        await self._means.db.write(note)
        for id_, stored in taken.items():
            sampled[id_].stored(stored)

    async def _keep_noting(self) -> None:
        while True:
            await anyio.sleep(NOTE_SECONDS)
            try:
                await self.note_times()
            except ManagedError as error:
                log.warning("compute_time.postponed", reason=error.message)

    def running(self) -> frozenset[str]:
        """The executions that have a runner."""
        return frozenset(self._runners)

    def readings(self) -> dict[str, dict[str, Any]]:
        """The latest reading of each running container, by execution id."""
        return {
            execution_id: {
                "memory_bytes": None if usage is None else usage.memory_bytes,
                "cpu_seconds": None if usage is None else usage.cpu_seconds,
                "pids": None if usage is None else usage.pids,
                "peak_memory_bytes": runner.supervision.measuring.peak_memory_bytes,
            }
            for execution_id, runner in self._runners.items()
            for usage in [runner.supervision.measuring.usage]
        }
