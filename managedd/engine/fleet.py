"""The fleet: every runner there is, one supervised task each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from managedd.engine.lookout import Lookout
from managedd.engine.runner import ExecutionRunner
from managedd.observe import get_log

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from managedd.engine.means import Means
    from managedd.model.executions import Execution

log = get_log("fleet")


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
            self._runners.pop(execution_id, None)

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
