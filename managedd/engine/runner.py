"""ExecutionRunner: owns one execution from its claim to its end. One supervised task each; no failure leaves it.

Two signals, never mixed: being cancelled means *detach* (the daemon stops, the run lives on and is adopted later); a row's
`stop_requested_at` or the run's own state means *stop*.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from managedd.engine.evidence import Ending, cause_of_exit, ending, exit_detail
from managedd.engine.supervision import Supervision
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Driver, ExitStatus, Handle, ImageError, RunSpec
from managedd.model.executions import EndCause, Execution, Phase
from managedd.observe import get_log
from managedd.orchestration.transition import propose
from managedd.store import executions, flow_runs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from managedd.bus import Bus
    from managedd.clock import Clock
    from managedd.config import RunsSection
    from managedd.engine.log_writer import LogWriter
    from managedd.store.database import Database, Tx

log = get_log("runner")

SECOND_US = 1_000_000
DRAIN_BEFORE_STATE_SECONDS = 2.0
"""How long the end of a run waits for its last lines, so that a crash is told within 5 s."""
DRAIN_BEFORE_REMOVAL_SECONDS = 60.0
ERROR_LEVEL = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every runner works with."""

    db: Database
    bus: Bus
    clock: Clock
    driver: Driver
    log_writer: LogWriter
    settings: RunsSection
    instance_id: str
    spec: Callable[[Execution], Awaitable[RunSpec]]
    """What to run. Raises ManagedError(INVALID) when the job variables can't be used."""


class ExecutionRunner:
    """Brings one execution to FINALIZED or LOST, whatever phase it is found in."""

    def __init__(self, execution: Execution, means: Means) -> None:
        self._execution = execution
        self._means = means
        self._supervision = Supervision(execution, means)

    @property
    def supervision(self) -> Supervision:
        """The readings of the running container."""
        return self._supervision

    async def run(self) -> None:
        """The execution has ended; a store that is busy is waited for, any other fault ends the run with a cause."""
        while True:
            try:
                await self._live()
                return
            except ManagedError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    await self._fail(error.message)
                    return
                log.warning("execution.postponed", execution_id=self._execution.id, reason=error.message)
                await anyio.sleep(error.retry_after_seconds or 1.0)
            except Exception as error:
                log.exception("execution.failed", execution_id=self._execution.id)
                await self._fail(f"managedd failed: {type(error).__name__}")
                return

    async def _live(self) -> None:
        if self._execution.phase in {Phase.CLAIMED, Phase.CREATED}:
            ended = await self._supervision.unless_stopped(self._bring_up)
            if ended is not None:
                await self._finish(ended, None)
                await self._clean_up()
                return
        if self._execution.phase is Phase.RUNNING:
            status = await self._supervision.until_end(self._handle())
            await self._finish(None, status)
        if self._execution.phase in {Phase.EXITED, Phase.LOST}:
            await self._clean_up()

    def _handle(self) -> Handle:
        stored = self._execution.handle
        assert stored is not None
        return Handle(driver=self._execution.driver, version=stored["version"], data=stored["data"])

    async def _bring_up(self) -> Ending | None:
        """The container runs; or why it never will."""
        means = self._means
        try:
            spec = await means.spec(self._execution)
        except ManagedError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            return ending(EndCause.SPEC, self._execution, detail=error.message)
        await self._note({})
        try:
            await means.driver.prepare(spec, self._say)
        except ImageError as error:
            return ending(EndCause.IMAGE, self._execution, detail=str(error))
        try:
            await self._create_and_start(spec)
        except ManagedError as error:
            if error.code is not ErrorCode.DRIVER:
                raise
            return ending(EndCause.DRIVER, self._execution, detail=error.message)
        return None

    async def _create_and_start(self, spec: RunSpec) -> None:
        means = self._means
        # Between the engine's effect and our row nothing may be cancelled by a stop; a crash is healed by the name (409 = adopt).
        with anyio.CancelScope(shield=True), anyio.move_on_after(120):
            handle = await means.driver.create(spec)
            saved = {"version": handle.version, "data": dict(handle.data)}
            if self._execution.phase is Phase.CLAIMED:
                await self._advance(
                    (Phase.CLAIMED,), Phase.CREATED, {"handle": saved, "created_at": means.clock.now_us()}
                )
            else:
                await self._note({"handle": saved})
        await self._say(f"Starting the run's container from image {spec.image}")
        with anyio.CancelScope(shield=True), anyio.move_on_after(120):
            await means.driver.start(handle)
            await self._advance((Phase.CREATED,), Phase.RUNNING, {"started_at": means.clock.now_us()})

    async def _finish(self, ended: Ending | None, status: ExitStatus | None) -> None:
        """The execution is EXITED (or LOST) with its evidence, and the run has an end state: one transaction, never interrupted."""
        with anyio.CancelScope(shield=True):
            settled, execution = await self._means.db.write(lambda tx: self._settle(tx, ended, status))
        self._execution = execution
        log.info(
            "execution.exited",
            execution_id=execution.id,
            flow_run_id=execution.flow_run_id,
            cause=settled.cause.value,
            code=None if status is None else status.exit_code,
        )
        if settled.message is not None:
            await self._say(settled.message, level=ERROR_LEVEL)
            await self._means.log_writer.flush()

    def _settle(self, tx: Tx, ended: Ending | None, status: ExitStatus | None) -> tuple[Ending, Execution]:
        execution = executions.get(tx, self._execution.id) or self._execution
        state = flow_runs.current(tx, execution.flow_run_id)
        changes: dict[str, Any] = {"exited_at": tx.now}
        if status is not None:
            changes |= _evidence(execution, status, self._supervision.peak_memory_bytes)
            ended = self._ending(execution, cause_of_exit(execution, state, status), status)
        assert ended is not None
        settled = ended
        changes |= {"end_cause": settled.cause, "end_message": execution.end_message or settled.message}
        if settled.state is not None and state is not None and not state.is_terminal:
            propose(tx.scoped(execution.workspace_id), execution.flow_run_id, settled.state)
        else:
            # The run has an end already, with a cause of its own or with ours told before the first signal.
            settled = replace(settled, message=None)
        lost = status is not None and status.gone and settled.cause is not EndCause.COMPLETED
        sources = (Phase.CREATED, Phase.RUNNING) if execution.phase is not Phase.CLAIMED else (Phase.CLAIMED,)
        advanced = executions.advance(tx, execution.id, sources, Phase.LOST if lost else Phase.EXITED, changes)
        return settled, advanced or execution

    def _ending(self, execution: Execution, cause: EndCause, status: ExitStatus) -> Ending:
        started = status.started_at_us or execution.started_at
        elapsed = None if started is None else (self._means.clock.now_us() - started) / SECOND_US
        peak = status.peak_memory_bytes or self._supervision.peak_memory_bytes
        detail = (
            "it was asked to stop and its container was ended"
            if cause is EndCause.CANCEL
            else exit_detail(cause, status)
        )
        return ending(
            cause, execution, detail=detail, elapsed_seconds=elapsed, exit_code=status.exit_code, peak_memory_bytes=peak,
            pending_deadline_seconds=self._means.settings.pending_deadline_seconds,
        )  # fmt: skip

    async def _clean_up(self) -> None:
        """Every line is stored, nothing is left in the engine, the execution is FINALIZED."""
        if self._execution.handle is not None:
            handle = self._handle()
            with anyio.move_on_after(DRAIN_BEFORE_REMOVAL_SECONDS):
                await self._supervision.drain(handle)
            await self._supervision.remove(handle)
        elif self._execution.phase is Phase.EXITED:
            await self._remove_by_name()
        if self._execution.phase is Phase.EXITED:
            with anyio.CancelScope(shield=True):
                await self._advance((Phase.EXITED,), Phase.FINALIZED, {"finalized_at": self._means.clock.now_us()})

    async def _remove_by_name(self) -> None:
        """A stop may have come between the engine's create and our note of it."""
        owned = await self._means.driver.list_owned(self._means.instance_id)
        for found in owned:
            if found.execution_id == self._execution.id:
                await self._supervision.remove(found.handle)

    async def _fail(self, message: str) -> None:
        """The run ends because we can't go on; its container, if any, is stopped and removed."""
        ended = ending(EndCause.DRIVER, self._execution, detail=message)
        try:
            if self._execution.handle is not None:
                await self._supervision.stop(self._handle())
            await self._finish(ended, None)
            await self._clean_up()
        except Exception:
            # The reconciler meets the row again; nothing is lost but time.
            log.exception("execution.abandoned", execution_id=self._execution.id)

    async def _say(self, message: str, level: int = 20) -> None:
        await self._means.log_writer.say(self._execution, message, level=level)

    async def _advance(self, sources: tuple[Phase, ...], to: Phase, changes: Mapping[str, Any]) -> None:
        advanced = await self._means.db.write(
            lambda tx: executions.advance(tx, self._execution.id, sources, to, changes)
        )
        if advanced is None:
            raise ManagedError(
                ErrorCode.INTERNAL, f"execution {self._execution.id} is not in {sources[0].value} any more"
            )
        self._execution = advanced
        self._supervision.execution = advanced
        log.info("execution.advanced", phase=to.value, execution_id=advanced.id, flow_run_id=advanced.flow_run_id)

    async def _note(self, changes: Mapping[str, Any]) -> None:
        def body(tx: Tx) -> Execution | None:
            if changes:
                executions.note(tx, self._execution.id, changes)
            return executions.get(tx, self._execution.id)

        noted: Execution | None = await self._means.db.write(body)
        self._execution = noted or self._execution
        self._supervision.execution = self._execution


def _evidence(execution: Execution, status: ExitStatus, seen_peak: int | None) -> dict[str, Any]:
    peaks = [peak for peak in (status.peak_memory_bytes, seen_peak) if peak is not None]
    changes: dict[str, Any] = {
        "exit_code": status.exit_code,
        "oom_killed": status.oom_killed,
        "peak_memory_bytes": max(peaks, default=None),
        "evidence": {
            "error": status.error,
            "gone": status.gone,
            "host_restarted": status.host_restarted,
            "install_failed": status.install_failed,
            "finished_at_us": status.finished_at_us,
        },
    }
    if status.started_at_us is not None:
        changes["started_at"] = status.started_at_us
    if status.installed_at_us is not None and execution.installed_at is None:
        changes["installed_at"] = status.installed_at_us
    return changes
