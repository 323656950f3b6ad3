"""What goes on beside a running container: its log is read, its limits are watched, a wish to stop is granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from managedd.bus import Topic
from managedd.engine.evidence import Ending, ending
from managedd.errors import ManagedError
from managedd.model.executions import EndCause, Execution
from managedd.model.states import State, StateType
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.store import executions, flow_runs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.engine.runner import Means
    from managedd.model.drivers import ExitStatus, Handle, Usage
    from managedd.store.database import Tx

log = get_log("supervision")

SECOND_US = 1_000_000
LOOK_SECONDS = 30.0
"""The safety net under the wake-ups."""
MEASURE_SECONDS = 5.0
DRAIN_SECONDS = 2.0
STOP_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """Stop now, and for what cause."""

    cause: EndCause


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What the rows say now."""

    execution: Execution | None
    state: State | None
    now_us: int


class Supervision:
    """The children of one runner."""

    def __init__(self, execution: Execution, means: Means) -> None:
        self.execution = execution
        self.usage: Usage | None = None
        self.peak_memory_bytes: int | None = None
        self._means = means

    async def unless_stopped(self, work: Callable[[], Awaitable[Ending | None]]) -> Ending | None:
        """What `work` came to; or, when the run is no longer wanted or waited too long, why it was broken off."""
        ended: Ending | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal ended
                wish = await self._wish(before_start=True)
                ended = self._broken_off(wish)
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch, name=f"watch {self.execution.id}")
            result = await work()
            ended = ended or result
            tasks.cancel_scope.cancel()
        return ended

    async def until_end(self, handle: Handle) -> ExitStatus:
        """How the container ended; its lines are stored as far as a short wait allows, its limits were held."""
        drained = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_log, handle, drained, name=f"log {self.execution.id}")
            tasks.start_soon(self._watch, handle, name=f"watch {self.execution.id}")
            tasks.start_soon(self._measure, handle, name=f"measure {self.execution.id}")
            status = await self._means.driver.wait(handle)
            with anyio.move_on_after(DRAIN_SECONDS):
                await drained.wait()
            tasks.cancel_scope.cancel()
        return status

    async def drain(self, handle: Handle) -> None:
        """Every line of the ended container is stored."""
        await self._read_log(handle, anyio.Event())

    async def stop(self, handle: Handle) -> None:
        """The container has ended; after a few failures this is said aloud and tried on, more and more slowly."""
        grace = self._means.settings.stop_grace_seconds
        for attempt in range(1, 1_000):
            try:
                await self._means.driver.stop(handle, grace_seconds=grace)
                return
            except ManagedError as error:
                report = log.error if attempt >= STOP_TRIES else log.warning
                report("execution.stop_failed", execution_id=self.execution.id, attempt=attempt, reason=error.message)
                await anyio.sleep(min(60.0, 0.5 * 2 ** min(attempt, 8)))

    async def remove(self, handle: Handle) -> None:
        """Nothing of it is left in the engine, or that is said aloud; the reconciler tries again later."""
        try:
            await self._means.driver.remove(handle)
        except ManagedError as error:
            log.warning("execution.remove_failed", execution_id=self.execution.id, reason=error.message)

    # --- the log -----------------------------------------------------------------------------------------------------

    async def _read_log(self, handle: Handle, drained: anyio.Event) -> None:
        writer = self._means.log_writer
        pause = 0.2
        while True:
            try:
                await writer.flush()
                after = await writer.cursor(self.execution)
                async with self._means.driver.logs(handle, after) as lines:
                    await writer.follow(self.execution, lines)
                await writer.flush()
                drained.set()
                return
            except Exception as error:
                # A log that can't be read now never ends a run; the engine keeps the lines.
                log.warning(
                    "execution.log_interrupted", execution_id=self.execution.id, reason=str(error), exc_info=error
                )
                await anyio.sleep(pause)
                pause = min(5.0, pause * 2)

    # --- limits and wishes ---------------------------------------------------------------------------------------------

    async def _watch(self, handle: Handle) -> None:
        wish = await self._wish(before_start=False)
        if wish.cause in {EndCause.TIME, EndCause.PENDING_DEADLINE}:
            # The cause first: under SIGTERM the client reports an end of its own, and the rules would then refuse ours.
            await self._end_first(wish.cause)
        log.info("execution.stopping", execution_id=self.execution.id, cause=wish.cause.value)
        await self.stop(handle)

    async def _wish(self, *, before_start: bool) -> Wish:
        """Returns when the container has to go."""
        with self._means.bus.subscribe(Topic.RUNS, Topic.EXECUTIONS) as woken:
            while True:
                view = await self._view()
                cause, at_us = self._judge(view, before_start=before_start)
                if cause is not None and at_us <= view.now_us:
                    return Wish(cause=cause)
                left = LOOK_SECONDS if cause is None else (at_us - view.now_us) / SECOND_US
                await woken.wait(min(LOOK_SECONDS, max(0.01, left)))

    async def _view(self) -> _View:
        def body(tx: Tx) -> _View:
            found = executions.get(tx, self.execution.id)
            return _View(execution=found, state=flow_runs.current(tx, self.execution.flow_run_id), now_us=tx.now)

        while True:
            try:
                return await self._means.db.read(body)
            except ManagedError as error:
                await anyio.sleep(error.retry_after_seconds or 1.0)

    def _judge(self, view: _View, *, before_start: bool) -> tuple[EndCause | None, int]:
        """The nearest reason to stop, and when it holds (microseconds)."""
        settings, execution, state = self._means.settings, view.execution, view.state
        if execution is None or state is None:
            return EndCause.CANCEL, 0
        if execution.stop_requested_at is not None:
            return execution.stop_reason or EndCause.CANCEL, 0
        grace_us = 0 if before_start else int(settings.cancel_grace_seconds * SECOND_US)
        if state.type is StateType.CANCELLING:
            return EndCause.CANCEL, state.timestamp_us + grace_us
        if state.is_terminal:
            # It has its end; the process gets as long to leave as a cancelled one.
            cause = EndCause.CANCEL if state.type is StateType.CANCELLED else EndCause.COMPLETED
            return cause, state.timestamp_us + grace_us
        deadlines: list[tuple[int, EndCause]] = []
        if state.type is StateType.PENDING:
            since = max(execution.claimed_at, state.timestamp_us)
            deadlines.append((since + int(settings.pending_deadline_seconds * SECOND_US), EndCause.PENDING_DEADLINE))
        if execution.started_at is not None and execution.time_limit_seconds is not None:
            deadlines.append((execution.started_at + execution.time_limit_seconds * SECOND_US, EndCause.TIME))
        if not deadlines:
            return None, 0
        at_us, cause = min(deadlines)
        return cause, at_us

    def _broken_off(self, wish: Wish) -> Ending:
        detail = {
            EndCause.CANCEL: "before its container had started",
            EndCause.PENDING_DEADLINE: "its image or its container was not ready in time",
        }.get(wish.cause, "")
        return self._ending(wish.cause, detail)

    def _ending(self, cause: EndCause, detail: str) -> Ending:
        since = self.execution.started_at or self.execution.claimed_at
        elapsed = (self._means.clock.now_us() - since) / SECOND_US
        return ending(
            cause, self.execution, detail=detail, elapsed_seconds=elapsed, peak_memory_bytes=self.peak_memory_bytes,
            pending_deadline_seconds=self._means.settings.pending_deadline_seconds,
        )  # fmt: skip

    async def _end_first(self, cause: EndCause) -> None:
        """The run has its end state and the wish to stop is on record, before any signal."""
        ended = self._ending(cause, "the flow's process did not report that it runs")

        def body(tx: Tx) -> None:
            executions.request_stop(tx, self.execution.id, cause)
            if ended.state is not None:
                propose(tx.scoped(self.execution.workspace_id), self.execution.flow_run_id, ended.state)
            executions.note(tx, self.execution.id, {"end_message": ended.message})

        with anyio.CancelScope(shield=True):
            await self._means.db.write(body)
        if ended.message is not None:
            await self._means.log_writer.say(self.execution, ended.message, level=40)

    async def _measure(self, handle: Handle) -> None:
        while True:
            try:
                self.usage = await self._means.driver.stats(handle)
            except Exception as error:
                log.debug("execution.not_measured", execution_id=self.execution.id, reason=str(error))
            if self.usage is not None:
                seen = (self.usage.memory_bytes, self.usage.peak_memory_bytes or 0, self.peak_memory_bytes or 0)
                self.peak_memory_bytes = max(seen)
            await anyio.sleep(MEASURE_SECONDS)
