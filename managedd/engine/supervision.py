"""What goes on beside a running container: its log is read, its limits are watched, a wish to stop is granted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import anyio

from managedd.engine.evidence import Ending, Measured, ending
from managedd.engine.interruption import Interruption, Unwanted
from managedd.engine.judgement import SECOND_US, Countdown, judge
from managedd.engine.measuring import Measuring
from managedd.engine.settling import Stopping, end_first, look
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Liveness
from managedd.model.executions import EndCause, Execution
from managedd.observe import get_log
from managedd.store import executions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.engine.lookout import Lookout
    from managedd.engine.means import Means
    from managedd.model.drivers import ExitStatus, Handle
    from managedd.model.logs import ParsedRecord
    from managedd.model.states import State
    from managedd.store.database import Tx

log = get_log("supervision")

LOOK_SECONDS: Final = 30.0
"""The safety net under the wake-ups."""
DRAIN_SECONDS: Final = 2.0
"""How long the end of a run waits for its last lines, so that a crash is told within 5 s."""
STOP_TRIES: Final = 5
STOP_AGAIN_SECONDS: Final = (0.5, 60.0)
READ_TRIES: Final = 5
AGAIN_SECONDS: Final = (0.2, 5.0)
DEADLINES: Final = frozenset({EndCause.TIME, EndCause.PENDING_DEADLINE})
"""Causes that time alone brings, also while nobody looks."""
ITS_OWN: Final = frozenset({EndCause.CANCEL, EndCause.COMPLETED})
"""Causes of which the run's state says all there is to say."""


class _Reading:
    """One reading of a container's log, under way or over."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.is_whole = False


class Supervision:
    """The children of one runner."""

    def __init__(self, execution: Execution, means: Means, lookout: Lookout) -> None:
        self.execution = execution
        self.measuring = Measuring(execution, means, self._end_first)
        self.progress_us = 0
        """When its image or its installation last made progress; while packages are installed, the latest moment at which that ends."""
        self._means = means
        self._lookout = lookout
        self._countdown = Countdown(means.clock)
        self._reading: _Reading | None = None

    async def unless_stopped(self, work: Callable[[Interruption], Awaitable[Ending | None]]) -> Ending | None:
        """What `work` came to; or, when the run is no longer wanted or waited too long, why it was broken off."""
        interruption = Interruption()
        ended: Ending | None = None
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                interruption.wish(await self._wish(before_start=True, looked=interruption.looked))
                interruption.looked()

            tasks.start_soon(watch, name=f"watch {self.execution.id}")
            try:
                # Who was cancelled before is not even begun.
                await interruption.until_looked()
                ended = await work(interruption)
            except Unwanted as unwanted:
                ended = self._broken_off(unwanted.cause)
            except Exception as error:
                failure = error  # past the task group, which would wrap it
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return ended

    async def beside_log(self, handle: Handle, work: Callable[[], Awaitable[None]]) -> None:
        """`work` is done while the container's log is read, to its end if `work` waits for it with `read_log`.

        One reading from first to last: lines that an engine has passed over are found by who was told all the others.
        """
        reading = self._reading = _Reading()
        failure: Exception | None = None

        async def read() -> None:
            reading.is_whole = await self._read(handle)
            reading.over.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, name=f"log {self.execution.id}")
            try:
                await work()
            except Exception as error:
                failure = error  # past the task group, which would wrap it
            finally:
                self._reading = None
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def until_end(self, handle: Handle) -> ExitStatus:
        """How the container ended; its lines are stored as far as a short wait allows, its limits were held."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, handle, name=f"watch {self.execution.id}")
            tasks.start_soon(self.measuring.run, handle, name=f"measure {self.execution.id}")
            status = await self._wait(handle)
            self.measuring.stopwatch.end()
            with anyio.move_on_after(DRAIN_SECONDS):
                if self._reading is not None:
                    await self._reading.over.wait()
            tasks.cancel_scope.cancel()
        return status

    async def stop(self, handle: Handle, cause: EndCause) -> None:
        """The container has ended. One that can't be killed is said aloud and tried on, more and more slowly; its run ends meanwhile."""
        grace = self._means.settings.stop_grace_seconds
        attempt, pause = 0, STOP_AGAIN_SECONDS[0]
        while True:
            try:
                await self._means.driver.stop(handle, grace_seconds=grace)
                return
            except ManagedError as error:
                attempt += 1
                report = log.error if attempt >= STOP_TRIES else log.warning
                report("execution.stop_failed", execution_id=self.execution.id, attempt=attempt, reason=error.message)
                if attempt == STOP_TRIES:
                    await self._end_first(cause, f"its container could not be killed ({error.message})")
            await anyio.sleep(pause)
            pause = min(STOP_AGAIN_SECONDS[1], pause * 2)

    async def read_log(self, handle: Handle) -> bool:
        """Every line of the container is stored, to its end; False when the engine won't give the rest."""
        reading = self._reading
        if reading is not None:
            await reading.over.wait()
            if reading.is_whole:
                return True
        return await self._read(handle)

    async def _read(self, handle: Handle) -> bool:
        """The same, by a reading of its own.

        A store that is busy is waited for: what it has not taken is not given up. A log that can't be read never ends a run.
        """
        writer, failures, pause = self._means.log_writer, 0, AGAIN_SECONDS[0]
        while True:
            try:
                await writer.flush()
                after = await writer.cursor(self.execution)
                async with self._means.driver.logs(handle, after) as lines:
                    await writer.follow(self.execution, lines, self._hear)
                await writer.flush()
                return True
            except Exception as error:
                of_the_store = isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE
                failures += not of_the_store
                log.warning(
                    "execution.log_interrupted", execution_id=self.execution.id, reason=str(error), failures=failures
                )
                if failures >= READ_TRIES and await self._means.engine_answers():
                    return False
            await anyio.sleep(pause)
            pause = min(AGAIN_SECONDS[1], pause * 2)

    async def _hear(self, record: ParsedRecord | None) -> None:
        """What is printed until everything is installed is progress: a long installation is not one that hangs."""
        if self.execution.installed_at is not None or self.execution.started_at is None:
            return
        now_us = self._means.clock.now_us()
        self.progress_us = max(self.progress_us, now_us)
        phase = None if record is None else record.phase
        if phase == "installing":
            # It may well be silent for as long as it may last; its own time limit is kept inside the container.
            self.progress_us = now_us + self._means.settings.install_timeout_seconds * SECOND_US
        elif phase == "installed":
            self.progress_us = now_us
            await self._means.write(lambda tx: executions.note(tx, self.execution.id, {"installed_at": now_us}))
            self.execution = replace(self.execution, installed_at=now_us)

    async def _wait(self, handle: Handle) -> ExitStatus:
        pause = AGAIN_SECONDS[0]
        while True:
            try:
                return await self._means.driver.wait(handle)
            except Exception as error:
                # That we can't look says nothing about the container.
                log.warning("execution.wait_interrupted", execution_id=self.execution.id, reason=str(error))
            await anyio.sleep(pause)
            pause = min(AGAIN_SECONDS[1], pause * 2)

    # --- limits and wishes ---------------------------------------------------------------------------------------------

    async def _watch(self, handle: Handle) -> None:
        while (cause := await self._reason(handle)) is not None:
            # The cause first: under SIGTERM the client reports an end of its own, and the rules would then refuse ours.
            if cause in ITS_OWN or await self._end_first(cause, "the flow's process did not report that it runs"):
                log.info("execution.stopping", execution_id=self.execution.id, cause=cause.value)
                await self.stop(handle, cause)
                return

    async def _reason(self, handle: Handle) -> EndCause | None:
        """Returns when the container has to go, with the cause; None when it had ended before that."""
        asked: set[EndCause] = set()
        # Its engine may have been away for long: whoever wished something meanwhile is heard.
        while (cause := await self._wish(before_start=False)) in DEADLINES - asked:
            was_timed = self.measuring.stopwatch.elapsed_us is not None
            liveness = await self._ask(handle)
            if liveness in {Liveness.EXITED, Liveness.GONE}:
                # While nobody looked: how, its own end says.
                return None
            if was_timed or liveness is not Liveness.RUNNING:
                asked.add(cause)
        return cause

    async def _ask(self, handle: Handle) -> Liveness | None:
        """What the container's engine says of it, and its time is taken from then on; one that does not answer is waited for, None when it
        refuses to say."""
        try:
            return await self._means.insist(lambda: self.measuring.look(handle))
        except ManagedError:
            return None

    async def _wish(self, *, before_start: bool, looked: Callable[[], None] = lambda: None) -> EndCause:
        """Returns when the container has to go, with the cause."""
        with self._lookout.watching(self.execution.id) as woken:
            while True:
                try:
                    view = await self._means.db.read(lambda tx: look(tx, self.execution.id))
                except ManagedError as error:
                    await anyio.sleep(error.retry_after_seconds or 1.0)
                    continue
                if view is None:
                    return EndCause.CANCEL
                verdicts = judge(
                    view,
                    self._means.settings,
                    before_start=before_start,
                    progress_us=self.progress_us,
                    ran_us=self.measuring.stopwatch.elapsed_us,
                )
                cause, left = self._countdown.nearest(verdicts, view.now_us) or (None, LOOK_SECONDS)
                if cause is not None and left <= 0:
                    return cause
                looked()
                await woken.wait(min(LOOK_SECONDS, max(0.01, left)))

    def _broken_off(self, cause: EndCause) -> Ending:
        detail = {
            EndCause.CANCEL: "before its container had started",
            EndCause.PENDING_DEADLINE: "its image or its container was not ready in time",
        }.get(cause, "")
        return self._ending(cause, detail)

    def _ending(
        self, cause: EndCause, detail: str, measured: Measured | None = None, state: State | None = None
    ) -> Ending:
        elapsed_us = self.measuring.stopwatch.elapsed_us
        if elapsed_us is None:
            elapsed_us = self._means.clock.now_us() - (self.execution.started_at or self.execution.claimed_at)
        return ending(
            cause,
            self.execution,
            detail=detail,
            elapsed_seconds=elapsed_us / SECOND_US,
            peak_memory_bytes=self.measuring.peak_memory_bytes,
            pending_deadline_seconds=self._means.settings.pending_deadline_seconds,
            measured=measured,
            state=state,
        )

    async def _end_first(self, cause: EndCause, detail: str, measured: Measured | None = None) -> bool:
        """Whether the container has to go, and the run has its end for that; False when the run's own end or its cancel goes before."""

        def body(tx: Tx) -> Stopping | None:
            view = look(tx, self.execution.id)
            ended = self._ending(cause, detail, measured, None if view is None else view.state)
            return end_first(tx, ended, self.execution.id)

        stopping = await self._means.write(body)
        if stopping is not None and stopping.line is not None:
            # Its container may end right now, and with it our watch: then it would be said behind all of its lines only.
            with anyio.CancelScope(shield=True):
                await self._means.log_writer.say_end(self.execution, stopping.line)
        return stopping is not None
