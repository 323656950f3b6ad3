"""ExecutionRunner: owns one execution from its claim to its end. One supervised task each; no failure leaves it.

Two signals, never mixed: being cancelled means *detach* (the daemon stops, the run lives on and is adopted later); a row's
`stop_requested_at` or the run's own state means *stop*. A detach may come at any await: what was done by then is found again by the
execution's row and its container's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

from managedd import failpoints
from managedd.engine.evidence import Ending, ending
from managedd.engine.offspring import any_below, end_below
from managedd.engine.settling import ERROR_LEVEL, Settled, close, end_line, settle
from managedd.engine.supervision import Supervision
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Handle, ImageError, Liveness
from managedd.model.executions import ENDED, EndCause, Execution, Phase
from managedd.model.states import StateType
from managedd.observe import get_log
from managedd.store import executions, flow_runs, samples, usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.engine.interruption import Interruption
    from managedd.engine.lookout import Lookout
    from managedd.engine.means import Job, Means
    from managedd.model.drivers import ExitStatus
    from managedd.store.database import Tx

log = get_log("runner")

INFO_LEVEL: Final = 20


class ExecutionRunner:
    """Brings one execution to FINALIZED or LOST, whatever phase it is found in."""

    def __init__(self, execution: Execution, means: Means, lookout: Lookout) -> None:
        self._execution = execution
        self._means = means
        self._supervision = Supervision(execution, means, lookout)

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
        if not await self._reload():
            return
        if self._execution.phase is Phase.CREATED and await self._was_started():
            await self._advance(Phase.RUNNING, await self._start_unnoted())
        if self._execution.phase is not Phase.RUNNING:
            self._supervision.measuring.looked.set()
        if self._execution.phase in {Phase.CLAIMED, Phase.CREATED}:
            ended = await self._supervision.unless_stopped(self._bring_up)
            if ended is not None:
                await self._finish(ended, None)
        if self._execution.phase is Phase.RUNNING:
            await self._supervision.beside_log(self._handle(), self._see_out)
        else:
            await self._clean_up()

    async def _see_out(self) -> None:
        status = await self._supervision.until_end(self._handle())
        failpoints.reach("exit.seen")
        await self._finish(None, status)
        await self._clean_up()

    async def _reload(self) -> bool:
        """The execution is as its row has it now; False when it has ended for good."""
        found = await self._means.db.read(lambda tx: executions.get(tx, self._execution.id))
        if found is None or found.phase in ENDED:
            return False
        self._keep(found)
        return True

    def _keep(self, execution: Execution) -> None:
        self._execution = self._supervision.execution = execution

    def _handle(self) -> Handle:
        stored = self._execution.handle
        assert stored is not None
        return Handle(driver=self._execution.driver, version=stored["version"], data=stored["data"])

    # --- bringing up -----------------------------------------------------------------------------------------------------

    async def _was_started(self) -> bool:
        """Whether a container on record runs, or did: what runs is asked for no job variables again, they may be gone, and who is in it is
        given time to leave."""
        handle = self._handle()
        liveness = await self._means.insist(lambda: self._means.driver.recover(handle))
        if liveness is Liveness.GONE:
            # Made again when its run has not begun; lost when it may have.
            state = await self._means.db.read(lambda tx: flow_runs.current(tx, self._execution.flow_run_id))
            return state is not None and state.type is not StateType.PENDING
        return liveness is not Liveness.CREATED

    async def _start_unnoted(self) -> Mapping[str, int]:
        """When the container on record was started, on our clock. What it has run before somebody looked counts as well, if anybody knows."""
        execution = self._execution
        seconds = await self._means.insist(lambda: self._means.driver.started_ago(self._handle()))
        now_us = self._means.clock.now_us()
        if seconds is None:
            # It is gone. Its run has said when it began, unless it has said more since.
            state = await self._means.db.read(lambda tx: flow_runs.current(tx, execution.flow_run_id))
            at_us = state.timestamp_us if state is not None and state.type is StateType.RUNNING else now_us
            return {"started_at": at_us, "ran_us": 0, "seen_at": at_us}
        # Whatever the engine says, it was not before it was made.
        return {"started_at": max(execution.created_at or execution.claimed_at, now_us - round(seconds * 1e6))}

    async def _bring_up(self, interruption: Interruption) -> Ending | None:
        """The container runs; or why it never will. One that was made before is found by its name and adopted."""
        made = await interruption.breakable(self._prepare)
        if isinstance(made, Ending):
            return made
        try:
            # Never broken off half-way by a stop: what the engine has made must be on record.
            handle = await self._means.insist(lambda: self._means.driver.create(made.spec), interruption.pausing)
        except ManagedError as error:
            return self._refused(error)
        failpoints.reach("create.done")
        # An earlier start may have claimed it for another driver.
        changes = {"driver": handle.driver, "handle": {"version": handle.version, "data": dict(handle.data)}}
        if self._execution.phase is Phase.CLAIMED:
            await self._advance(Phase.CREATED, {**changes, "created_at": self._means.clock.now_us()})
        else:
            await self._note(changes)
        failpoints.reach("created.committed")
        interruption.check()
        what = "process in the environment for" if handle.driver == "process" else "container from"
        await self._say(f"Starting the run's {what} image {made.spec.image}")
        return await self._start(handle, interruption, installs=bool(made.spec.packages))

    async def _prepare(self) -> Job | Ending:
        means = self._means
        try:
            job = await means.job(self._execution)
        except ManagedError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            return ending(EndCause.SPEC, self._execution, detail=error.message)
        self._keep(job.execution)
        for note in job.notes:
            await self._say(note)
        said_us = self._supervision.progress_us
        try:
            await means.insist(lambda: means.driver.prepare(job.spec, self._progress), seconds=None)
        except ImageError as error:
            return ending(EndCause.IMAGE, self._execution, detail=str(error))
        except ManagedError as error:
            return self._refused(error)
        if self._supervision.progress_us != said_us:
            await self._note({"pulled_at": means.clock.now_us()})
        return job

    async def _start(self, handle: Handle, interruption: Interruption, *, installs: bool) -> Ending | None:
        log.debug("execution.start_requested", execution_id=self._execution.id, flow_run_id=self._execution.flow_run_id)
        try:
            await self._means.insist(lambda: self._means.driver.start(handle), interruption.pausing)
        except ManagedError as error:
            return self._refused(error)
        self._supervision.measuring.stopwatch.begin()
        failpoints.reach("start.done")
        at_us = self._means.clock.now_us()
        # With nothing to install, nobody is going to say that it is done.
        await self._advance(Phase.RUNNING, {"started_at": at_us} | ({} if installs else {"installed_at": at_us}))
        return None

    def _refused(self, error: ManagedError) -> Ending:
        if error.code is not ErrorCode.DRIVER:
            raise error
        return ending(EndCause.DRIVER, self._execution, detail=error.message)

    async def _progress(self, message: str) -> None:
        self._supervision.progress_us = self._means.clock.now_us()
        await self._say(message)

    # --- the end ---------------------------------------------------------------------------------------------------------

    async def _finish(self, ended: Ending | None, status: ExitStatus | None) -> None:
        """The execution is EXITED with its evidence, and the run has an end state."""
        watched = self._supervision.measuring.stopwatch.watched()
        taken = self._supervision.measuring.sampled.waiting

        def body(tx: Tx) -> Settled | None:
            settled = settle(
                tx,
                self._execution.id,
                ended=ended,
                status=status,
                seen_peak_bytes=self._supervision.measuring.peak_memory_bytes,
                pending_deadline_seconds=self._means.settings.pending_deadline_seconds,
                watched=watched,
            )
            if settled is not None:
                samples.add(tx, {self._execution.id: taken} if taken else {})
                usage.record(
                    tx,
                    settled.execution,
                    status,
                    self._means.zone,
                    watched=watched,
                    stop_grace_seconds=self._means.settings.stop_grace_seconds,
                )
            return settled

        settled = await self._means.write(body)
        self._supervision.measuring.looked.set()
        if settled is None:
            raise ManagedError(ErrorCode.UNAVAILABLE, "somebody else has ended the execution", retry_after_seconds=0.1)
        failpoints.reach("settle.committed")
        self._keep(settled.execution)
        log.info(
            "execution.exited",
            execution_id=settled.execution.id,
            flow_run_id=settled.execution.flow_run_id,
            cause=settled.cause,
            code=None if status is None else status.exit_code,
        )
        if settled.line is not None:
            await self._means.log_writer.say_end(settled.execution, settled.line)

    async def _clean_up(self) -> None:
        """Every line is stored, nothing is left in the engine, the execution is FINALIZED or LOST."""
        handle = await self._what_is_left()
        if handle is not None:
            await self._empty(handle)
        failpoints.reach("remove.done")
        await self._end_below()
        # Who follows the run's log is told that it has ended as soon as its execution has.
        line = await self._means.db.read(lambda tx: end_line(tx, self._execution.id))
        await self._means.log_writer.complete(self._execution, line)
        await self._close()
        # Not before: a crash in between would read the whole output once more.
        await self._means.log_writer.forget(self._execution)

    async def _end_below(self) -> None:
        """Nothing of the process is said to go on: what a step left over, and what was reported while the process was ending."""
        execution = self._execution
        while await self._means.db.read(lambda tx: any_below(tx, execution.flow_run_id)):
            await self._means.write(lambda tx: end_below(tx.scoped(execution.workspace_id), execution.flow_run_id))

    async def _what_is_left(self) -> Handle | None:
        if self._execution.handle is not None:
            return self._handle()
        # A stop or a crash may have come between the engine's create and our note of it.
        owned = await self._means.insist(lambda: self._means.driver.list_owned(self._means.instance_id))
        return next((found.handle for found in owned if found.execution_id == self._execution.id), None)

    async def _empty(self, handle: Handle) -> None:
        driver = self._means.driver
        try:
            liveness = await self._means.insist(lambda: driver.recover(handle))
            if liveness is Liveness.RUNNING:
                # It was started after all: a start that was said to have failed.
                await self._supervision.stop(handle, EndCause.DRIVER)
            if liveness is not Liveness.CREATED and not await self._supervision.read_log(handle):
                await self._say("The rest of the container's output could not be read", level=ERROR_LEVEL)
            await self._means.log_writer.secure(self._execution)
            await self._means.insist(lambda: driver.remove(handle))
        except ManagedError as error:
            if error.code is not ErrorCode.DRIVER:
                raise
            # The reconciler tries again later.
            log.warning("execution.remove_failed", execution_id=self._execution.id, reason=error.message)

    async def _fail(self, message: str) -> None:
        """The run ends because we can't go on; its container, if any, is stopped and removed."""
        ended = ending(EndCause.DRIVER, self._execution, detail=message)
        try:
            if not await self._reload():
                return
            if self._execution.handle is not None:
                await self._supervision.stop(self._handle(), EndCause.DRIVER)
            if self._execution.phase is not Phase.EXITED:
                await self._finish(ended, None)
            await self._clean_up()
        except Exception:
            # The reconciler meets the row again; nothing is lost but time.
            log.exception("execution.abandoned", execution_id=self._execution.id)

    # --- the row ---------------------------------------------------------------------------------------------------------

    async def _say(self, message: str, level: int = INFO_LEVEL) -> None:
        await self._means.log_writer.say(self._execution, message, level=level)

    async def _advance(self, to: Phase, changes: Mapping[str, Any]) -> None:
        source = self._execution.phase
        self._advanced(
            await self._means.write(lambda tx: executions.advance(tx, self._execution.id, (source,), to, changes))
        )

    async def _close(self) -> None:
        self._advanced(await self._means.write(lambda tx: close(tx, self._execution)))

    def _advanced(self, advanced: Execution | None) -> None:
        before = self._execution
        if advanced is None:
            raise ManagedError(ErrorCode.INTERNAL, f"execution {before.id} is not {before.phase.value} any more")
        self._keep(advanced)
        phase = advanced.phase.value
        log.info("execution.advanced", phase=phase, execution_id=advanced.id, flow_run_id=advanced.flow_run_id)

    async def _note(self, changes: Mapping[str, Any]) -> None:
        def body(tx: Tx) -> Execution | None:
            executions.note(tx, self._execution.id, changes)
            return executions.get(tx, self._execution.id)

        noted = await self._means.write(body)
        self._keep(noted or self._execution)
