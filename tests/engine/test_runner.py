"""The runner: every phase × everything that can happen in it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.clock import iso
from managedd.drivers.fake import FakeDriver, FakeEngine, FakeRun
from managedd.engine import means as means_module
from managedd.engine import supervision
from managedd.engine.means import Job
from managedd.errors import ErrorCode, ManagedError, unavailable
from managedd.model.executions import ENDED, EndCause, Phase
from managedd.model.states import StateType
from managedd.store import executions, flow_runs
from tests.engine.world import World, job_of, quick_settings, spec_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.model.drivers import Handle, RunSpec
    from managedd.model.executions import Execution
    from managedd.model.logs import LogCursor, RawLine

pytestmark = pytest.mark.anyio

FOREVER = FakeRun(run_for_seconds=None)
SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
COMPLETED, FAILED, CRASHED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED
CANCELLING, CANCELLED, PAUSED = StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for an engine to come back, or to answer, waits for parts of a second."""
    monkeypatch.setattr(means_module, "PAUSE_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(means_module, "VERB_SECONDS", 0.5)
    monkeypatch.setattr(supervision, "AGAIN_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(supervision, "DRAIN_SECONDS", 0.3)
    monkeypatch.setattr(supervision, "STOP_AGAIN_SECONDS", (0.02, 0.1))


def plan(world: World, run: FakeRun) -> None:
    world.engine._plan = run


async def finished(world: World, execution: Execution, seconds: float = 10.0) -> Execution:
    """The execution, once it has ended for good; nothing of it is left, and no slot is held."""

    async def holds() -> bool:
        return (await world.execution(execution.flow_run_id)).phase in ENDED

    await world.until(holds, seconds, "ended")
    assert execution.id not in world.engine.containers
    return await world.execution(execution.flow_run_id)


async def running(world: World, daemon: Any, run: FakeRun = FOREVER, **values: Any) -> Execution:
    """A run whose container runs and whose engine has said so."""
    plan(world, run)
    execution = await world.claimed(**values)
    daemon.fleet.start(execution)
    execution = await world.until_phase(execution.flow_run_id, Phase.RUNNING)
    outcome = await world.propose(execution.flow_run_id, RUNNING)
    assert outcome.created
    return execution


# --- ends ----------------------------------------------------------------------------------------------------------------


async def test_a_run_that_completes(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon, replace(FOREVER, lines=("one", "two")))
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        ended = await finished(world, execution)

        async def forgotten() -> bool:
            return await world.logs.read(lambda tx: tx.scalar("SELECT count(*) FROM log_cursors")) == 0

        await world.until(forgotten)
    assert (ended.phase, ended.end_cause, ended.end_message) == (Phase.FINALIZED, EndCause.COMPLETED, None)
    assert await world.history(execution.flow_run_id) == ["Scheduled", "Pending", "Running", "Completed"]
    assert await world.printed(execution.flow_run_id) == ["one", "two"]
    moments = [ended.claimed_at, ended.created_at, ended.started_at, ended.exited_at, ended.finalized_at]
    assert all(moments) and moments == sorted(moments, key=lambda moment: moment or 0)
    order = [
        verb for verb, whose in world.engine.calls if whose == execution.id and verb in {"create", "start", "remove"}
    ]
    assert order == ["create", "start", "remove"]


@pytest.mark.parametrize(
    ("run", "cause", "words"),
    [
        (FakeRun(exit_code=0), EndCause.ENGINE_EXIT, "exit code 0"),
        (FakeRun(exit_code=1), EndCause.ENGINE_EXIT, "exit code 1"),
        (FakeRun(exit_code=137), EndCause.ENGINE_EXIT, "SIGKILL"),
        (FakeRun(exit_code=137, oom=True), EndCause.MEMORY, "Out of memory"),
        (FakeRun(exit_code=1, oom=True), EndCause.MEMORY, "Out of memory"),
        (FakeRun(exit_code=0, oom=True), EndCause.ENGINE_EXIT, "exit code 0"),
        (FakeRun(install_error="no matching distribution"), EndCause.PACKAGES, "no matching distribution"),
        (FakeRun(host_restarted=True), EndCause.HOST_RESTART, "restarted"),
        (FakeRun(exit_code=143, out_of_time=True), EndCause.TIME, "Time limit reached"),
        (FakeRun(run_for_seconds=None, vanish_after_seconds=0.05), EndCause.LOST, "is gone"),
    ],
)
async def test_a_container_that_ends_before_its_run(world: World, run: FakeRun, cause: EndCause, words: str) -> None:
    plan(world, run)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
        state = await world.state(execution.flow_run_id)
        await daemon.writer.flush()
    assert (ended.end_cause, state.type) == (cause, CRASHED)
    assert words in str(state.message) and ended.end_message == state.message
    assert ended.phase is (Phase.LOST if cause is EndCause.LOST else Phase.FINALIZED)
    assert (await world.log_lines(execution.flow_run_id, "managedd")).count(str(state.message)) == 1


async def test_near_the_limit_and_killed_is_out_of_memory(world: World) -> None:
    plan(world, FakeRun(exit_code=137, peak_memory_bytes=99))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"memory_limit_bytes": 100}))
        daemon.fleet.start(execution)
        assert (await finished(world, execution)).end_cause is EndCause.MEMORY


@pytest.mark.parametrize("type_", [COMPLETED, FAILED, CRASHED, CANCELLED])
@pytest.mark.parametrize("code", [0, 1, 137])
async def test_an_end_that_the_run_has_stays(world: World, type_: StateType, code: int) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, type_, message="its own")
        world.engine.finish(execution.id, code)
        ended = await finished(world, execution)
    assert (await world.state(execution.flow_run_id)).message == "its own"
    assert ended.end_cause is (EndCause.CANCEL if type_ is CANCELLED else EndCause.COMPLETED)
    assert ended.exit_code == code


async def test_suspended(world: World) -> None:
    deployment = await world.deployment()
    async with world.daemon() as daemon:
        execution = await running(world, daemon, deployment_id=deployment)
        await world.propose(execution.flow_run_id, PAUSED, name="Suspended", details={"pause_reschedule": True})
        world.engine.finish(execution.id)
        ended = await finished(world, execution)
    assert ended.end_cause is EndCause.COMPLETED
    assert (await world.state(execution.flow_run_id)).name == "Suspended"


@pytest.mark.parametrize("code", [0, 1])
async def test_a_process_that_dies_in_a_pause_of_its_own_has_crashed(world: World, code: int) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, PAUSED, details={"pause_reschedule": False})
        world.engine.finish(execution.id, code)
        await finished(world, execution)
    assert (await world.state(execution.flow_run_id)).type is CRASHED


async def test_a_process_that_dies_before_its_next_try_has_crashed(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon, empirical_policy={"retries": 2, "retry_delay": 60})
        await world.propose(execution.flow_run_id, FAILED)
        assert (await world.state(execution.flow_run_id)).name == "AwaitingRetry"
        world.engine.finish(execution.id, 1)
        ended = await finished(world, execution)
    assert ended.end_cause is EndCause.ENGINE_EXIT
    assert (await world.state(execution.flow_run_id)).type is CRASHED


async def test_a_run_that_its_user_retries_while_its_old_process_leaves(world: World) -> None:
    """AwaitingRetry as well, but in a process of its own: the old one's end is no crash."""
    deployment = await world.deployment()
    async with world.daemon() as daemon:
        execution = await running(world, daemon, deployment_id=deployment)
        await world.propose(execution.flow_run_id, FAILED)
        now = {"scheduled_time": iso(world.clock.now_us())}
        await world.propose(execution.flow_run_id, SCHEDULED, name="AwaitingRetry", details=now)
        world.engine.finish(execution.id, 1)
        ended = await finished(world, execution)
        assert ended.end_cause is EndCause.COMPLETED
        plan(world, FOREVER)
        daemon.dispatch()

        async def again() -> bool:
            return len(await world.executions(execution.flow_run_id)) == 2

        await world.until(again)
    assert (await world.history(execution.flow_run_id))[:5] == [
        "Scheduled",
        "Pending",
        "Running",
        "Failed",
        "AwaitingRetry",
    ]


# --- cancel and other wishes -----------------------------------------------------------------------------------------------


async def test_cancelled_before_create(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await world.claimed()
        await world.propose(execution.flow_run_id, CANCELLING)
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    assert ended.end_cause is EndCause.CANCEL
    assert (await world.state(execution.flow_run_id)).type is CANCELLED
    assert world.calls("create") == 0


async def test_cancelled_while_the_image_is_pulled(world: World) -> None:
    plan(world, FakeRun(pull_seconds=60))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_called("prepare")
        await world.propose(execution.flow_run_id, CANCELLING)
        await finished(world, execution, 3)
    state = await world.state(execution.flow_run_id)
    assert state.type is CANCELLED and "before its container had started" in str(state.message)


async def test_cancelled_while_the_container_is_made(world: World) -> None:
    """What the engine has made by then is on record or found by its name, and is removed."""
    driver = Slow(world.engine, "create")
    async with world.daemon(driver=driver) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await driver.entered.wait()
        await world.propose(execution.flow_run_id, CANCELLING)
        await anyio.sleep(0.1)
        driver.go.set()
        await finished(world, execution)
    assert (world.calls("create"), world.calls("start"), world.calls("remove")) == (1, 0, 1)
    assert (await world.state(execution.flow_run_id)).type is CANCELLED


async def test_cancelled_in_its_own_time(world: World) -> None:
    """The client ends the run cleanly within the grace: nobody signals it."""
    world.settings = quick_settings(cancel_grace_seconds=5)
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, CANCELLING)
        await anyio.sleep(0.2)
        await world.propose(execution.flow_run_id, CANCELLED, force=True, message="clean")
        world.engine.finish(execution.id)
        ended = await finished(world, execution)
    assert world.calls("stop") == 0 and ended.end_cause is EndCause.CANCEL
    assert (await world.state(execution.flow_run_id)).message == "clean"


@pytest.mark.parametrize("deaf", [False, True])
async def test_cancelled_against_its_will(world: World, deaf: bool) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon, replace(FOREVER, ignores_sigterm=deaf))
        await world.propose(execution.flow_run_id, CANCELLING)
        ended = await finished(world, execution, 5)
    assert ended.exit_code == (137 if deaf else 143) and ended.end_cause is EndCause.CANCEL
    state = await world.state(execution.flow_run_id)
    assert state.type is CANCELLED and "asked to stop" in str(state.message)


async def test_cancelling_when_the_process_ends(world: World) -> None:
    world.settings = quick_settings(cancel_grace_seconds=30)
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, CANCELLING)
        world.engine.finish(execution.id, 0)
        await finished(world, execution)
    assert (await world.state(execution.flow_run_id)).type is CANCELLED


async def test_a_forced_cancelled_stops_the_container(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, CANCELLED, force=True)
        ended = await finished(world, execution, 5)
    assert ended.end_cause is EndCause.CANCEL and world.calls("stop") == 1


async def test_a_request_to_stop(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.write(lambda tx: executions.request_stop(tx, execution.id, EndCause.DRAIN))
        ended = await finished(world, execution, 5)
    state = await world.state(execution.flow_run_id)
    assert ended.end_cause is EndCause.DRAIN and "drained" in str(state.message)


@pytest.mark.parametrize("when", ["claimed", "pulling", "running"])
async def test_a_run_that_is_deleted(world: World, when: str) -> None:
    if when == "pulling":
        plan(world, FakeRun(pull_seconds=60))
    async with world.daemon() as daemon:
        if when == "running":
            execution = await running(world, daemon)
        else:
            execution = await world.claimed()
        if when == "pulling":
            daemon.fleet.start(execution)
            await world.until_called("prepare")
        await world.write(lambda tx: flow_runs.delete(tx, execution.flow_run_id))
        daemon.fleet.start(execution)
        ended = await finished(world, execution, 5)
    assert (ended.phase, ended.end_cause) == (Phase.FINALIZED, EndCause.CANCEL)


async def test_a_container_that_cannot_be_killed(world: World) -> None:
    """Tried on and on, but its run is not left in Cancelling for that."""
    world.settings = quick_settings(stop_grace_seconds=0.05)
    async with world.daemon() as daemon:
        execution = await running(
            world, daemon, replace(FOREVER, ignores_sigterm=True, stop_error="stuck in the kernel")
        )
        await world.propose(execution.flow_run_id, CANCELLING)
        state = await world.until_state(execution.flow_run_id, CANCELLED, 15)
        assert "could not be killed" in str(state.message)
        assert (await world.execution(execution.flow_run_id)).phase is Phase.RUNNING
        assert world.calls("stop") == supervision.STOP_TRIES
        world.engine.finish(execution.id, 137)
        assert (await finished(world, execution)).end_cause is EndCause.CANCEL


# --- an engine or a job that refuses -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "cause", "words"),
    [
        (FakeRun(image_error="manifest unknown"), EndCause.IMAGE, "manifest unknown"),
        (FakeRun(create_error="invalid mount"), EndCause.DRIVER, "invalid mount"),
        (FakeRun(start_error="exec format error"), EndCause.DRIVER, "exec format error"),
    ],
)
async def test_a_refusal_ends_the_run_with_the_engines_words(
    world: World, run: FakeRun, cause: EndCause, words: str
) -> None:
    plan(world, run)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    state = await world.state(execution.flow_run_id)
    assert (ended.phase, ended.end_cause, state.type) == (Phase.FINALIZED, cause, CRASHED)
    assert words in str(state.message)


async def test_job_variables_that_cannot_be_used(world: World) -> None:
    async def refuse(execution: Execution) -> Job:
        raise ManagedError(ErrorCode.INVALID, "memory_limit: 'much' is no size")

    async with world.daemon(job=refuse) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    assert ended.end_cause is EndCause.SPEC
    assert "'much' is no size" in str((await world.state(execution.flow_run_id)).message)


async def test_a_fault_of_our_own_ends_the_run_and_nothing_else(world: World) -> None:
    async def break_(execution: Execution) -> Job:
        raise KeyError("secret")

    async with world.daemon(job=break_) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await finished(world, execution)
        state = await world.state(execution.flow_run_id)
        assert state.type is CRASHED and "KeyError" in str(state.message) and "secret" not in str(state.message)
        # The daemon still runs: another run goes through.
        daemon.fleet._means = replace(daemon.means, job=job_of)
        other = await running(world, daemon)
        await world.propose(other.flow_run_id, COMPLETED)
        world.engine.finish(other.id)
        await finished(world, other)


async def test_notes_on_the_job_are_in_the_runs_log(world: World) -> None:
    async def noted(execution: Execution) -> Job:
        return Job(execution=execution, spec=spec_of(execution), notes=("not taken: PREFECT_API_KEY",))

    plan(world, FakeRun())
    async with world.daemon(job=noted) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await finished(world, execution)
        await daemon.writer.flush()
    assert (await world.log_lines(execution.flow_run_id, "managedd"))[0] == "not taken: PREFECT_API_KEY"


class Away(FakeDriver):
    """An engine that goes away in the middle of one verb, after it has done what was asked, or before."""

    def __init__(self, engine: FakeEngine, verb: str, *, done: bool) -> None:
        super().__init__(engine)
        self._verb, self._done = verb, done
        self.left = 1

    async def _maybe(self, verb: str, work: Any) -> Any:
        if verb != self._verb or not self.left:
            return await work()
        self.left -= 1
        result = await work() if self._done else None
        self.engine.down = True
        del result
        raise ManagedError(ErrorCode.DRIVER, "connection reset")

    async def prepare(self, spec: RunSpec, progress: Any) -> None:
        await self._maybe("prepare", lambda: super(Away, self).prepare(spec, progress))

    async def create(self, spec: RunSpec) -> Handle:
        handle: Handle = await self._maybe("create", lambda: super(Away, self).create(spec))
        return handle

    async def start(self, handle: Handle) -> None:
        await self._maybe("start", lambda: super(Away, self).start(handle))

    async def wait(self, handle: Handle) -> Any:
        return await self._maybe("wait", lambda: super(Away, self).wait(handle))

    async def remove(self, handle: Handle) -> None:
        await self._maybe("remove", lambda: super(Away, self).remove(handle))

    async def recover(self, handle: Handle) -> Any:
        return await self._maybe("recover", lambda: super(Away, self).recover(handle))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("verb", ["prepare", "create", "start", "wait", "recover", "remove"])
async def test_an_engine_that_restarts_costs_no_run(world: World, verb: str, done: bool) -> None:
    driver = Away(world.engine, verb, done=done)
    plan(world, FakeRun(run_for_seconds=0.3, lines=("one", "two")))
    async with world.daemon(driver=driver) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)

        async def away() -> bool:
            return world.engine.down

        await world.until(away)
        await anyio.sleep(0.15)
        world.engine.down = False
        if verb in {"prepare", "create", "start"}:
            await world.until_phase(execution.flow_run_id, Phase.RUNNING)
            await world.propose(execution.flow_run_id, RUNNING)
            await world.propose(execution.flow_run_id, COMPLETED)
        await finished(world, execution)
    assert await world.printed(execution.flow_run_id) == ["one", "two"]
    assert len(await world.executions(execution.flow_run_id)) == 1
    assert world.engine._made == 1


async def test_cancel_while_the_engine_is_away(world: World) -> None:
    world.engine.down = True
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await anyio.sleep(0.1)
        await world.propose(execution.flow_run_id, CANCELLING)
        await world.until_state(execution.flow_run_id, CANCELLED, 5)
        world.engine.down = False
        await finished(world, execution)


async def test_a_removal_that_fails_is_left_to_the_reconciler(world: World) -> None:
    plan(world, FakeRun(remove_error="device or resource busy"))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert execution.id in world.engine.containers


# --- the log ---------------------------------------------------------------------------------------------------------------


class TornLogs(FakeDriver):
    """A log stream that breaks after every other line."""

    breaks = 7

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        async with super().logs(handle, after) as lines:
            yield self._torn(lines)

    async def _torn(self, lines: AsyncIterator[RawLine]) -> AsyncIterator[RawLine]:
        told = 0
        async for line in lines:
            yield line
            told += 1
            if told == 2 and self.breaks:
                self.breaks -= 1
                raise ManagedError(ErrorCode.DRIVER, "the stream broke")


async def test_a_stream_that_breaks_loses_and_repeats_nothing(world: World) -> None:
    lines = tuple(f"line {number}" for number in range(30))
    async with world.daemon(driver=TornLogs(world.engine)) as daemon:
        execution = await running(world, daemon, replace(FOREVER, lines=lines, line_interval_seconds=0.01))
        await anyio.sleep(0.5)
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        await finished(world, execution)
    assert await world.printed(execution.flow_run_id) == list(lines)


class DeadLogs(FakeDriver):
    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        raise ManagedError(ErrorCode.DRIVER, "configured logging driver does not support reading")
        yield


async def test_a_log_that_cannot_be_read_does_not_hold_the_run(world: World) -> None:
    plan(world, FakeRun())
    async with world.daemon(driver=DeadLogs(world.engine)) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await finished(world, execution)
        await daemon.writer.flush()
    assert "The rest of the container's output could not be read" in await world.log_lines(execution.flow_run_id)


# --- a store that is busy ----------------------------------------------------------------------------------------------------


class Busy:
    """A store whose `n`-th write (or read) is refused."""

    def __init__(self, world: World, *, write: int = 0, read: int = 0) -> None:
        self._db = world.db
        self._refuse = {"write": write, "read": read}
        self.asked = {"write": 0, "read": 0}

    async def _do(self, kind: str, body: Any, **options: Any) -> Any:
        self.asked[kind] += 1
        if self.asked[kind] == self._refuse[kind]:
            raise unavailable("the store is busy", 0.01)
        return await getattr(self._db, kind)(body, **options)

    async def write(self, body: Any) -> Any:
        return await self._do("write", body)

    async def read(self, body: Any, **options: Any) -> Any:
        return await self._do("read", body, **options)


@pytest.mark.parametrize(
    ("kind", "number"), [*(("write", number) for number in range(1, 6)), *(("read", number) for number in range(1, 4))]
)
async def test_a_store_that_is_busy_costs_no_run(world: World, kind: str, number: int) -> None:
    busy = Busy(world, **{kind: number})
    async with world.daemon(db=busy) as daemon:
        execution = await running(world, daemon, replace(FOREVER, lines=("one", "two")))
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        ended = await finished(world, execution)
    assert (ended.phase, ended.end_cause) == (Phase.FINALIZED, EndCause.COMPLETED)
    assert await world.printed(execution.flow_run_id) == ["one", "two"]
    assert world.engine._made == 1
    assert busy.asked[kind] >= number


# --- detach ------------------------------------------------------------------------------------------------------------------


class Slow(FakeDriver):
    """One verb takes until it is let go on."""

    def __init__(self, engine: FakeEngine, verb: str, *, done: bool = True) -> None:
        super().__init__(engine)
        self._verb, self._done = verb, done
        self.entered, self.go = anyio.Event(), anyio.Event()

    async def _hold(self, verb: str, work: Any) -> Any:
        if verb != self._verb or self.entered.is_set():
            return await work()
        result = await work() if self._done else None
        self.entered.set()
        await self.go.wait()
        return result if self._done else await work()

    async def prepare(self, spec: RunSpec, progress: Any) -> None:
        await self._hold("prepare", lambda: super(Slow, self).prepare(spec, progress))

    async def create(self, spec: RunSpec) -> Handle:
        handle: Handle = await self._hold("create", lambda: super(Slow, self).create(spec))
        return handle

    async def start(self, handle: Handle) -> None:
        await self._hold("start", lambda: super(Slow, self).start(handle))

    async def wait(self, handle: Handle) -> Any:
        return await self._hold("wait", lambda: super(Slow, self).wait(handle))

    async def recover(self, handle: Handle) -> Any:
        return await self._hold("recover", lambda: super(Slow, self).recover(handle))

    async def remove(self, handle: Handle) -> None:
        await self._hold("remove", lambda: super(Slow, self).remove(handle))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("verb", ["prepare", "create", "start", "wait", "recover", "remove"])
async def test_detached_in_a_verb_and_finished_by_the_next_daemon(world: World, verb: str, done: bool) -> None:
    """Whatever the engine was asked when the daemon stopped, and whether it had done it: the run runs once, with every line."""
    lines = tuple(f"line {number}" for number in range(20))
    plan(world, FakeRun(run_for_seconds=0.4, lines=lines, line_interval_seconds=0.01))
    first = Slow(world.engine, verb, done=done)
    began = anyio.current_time()
    async with world.daemon(driver=first) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
        began = anyio.current_time()
    assert anyio.current_time() - began < 2
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await finished(world, execution)
    assert await world.printed(execution.flow_run_id) == list(lines)
    assert world.engine._made == 1
    assert len(await world.executions(execution.flow_run_id)) == 1
    assert [line for line in await world.log_lines(execution.flow_run_id, "managedd") if "exit code" in line] == [
        "The flow run's process ended with exit code 0 before the run had ended."
    ]


@pytest.mark.parametrize("delay", [number / 100 for number in range(0, 60, 4)])
async def test_detached_at_any_moment(world: World, delay: float) -> None:
    lines = tuple(f"line {number}" for number in range(40))
    plan(world, FakeRun(run_for_seconds=0.25, pull_seconds=0.05, lines=lines, line_interval_seconds=0.005))
    with anyio.CancelScope():
        async with world.daemon() as daemon:
            execution = await world.claimed()
            daemon.fleet.start(execution)
            await anyio.sleep(delay)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await finished(world, execution)
    assert await world.printed(execution.flow_run_id) == list(lines)
    assert world.engine._made == 1


async def test_what_runs_is_taken_up_without_its_job_variables(world: World) -> None:
    """They may have changed or be gone since."""

    async def gone(execution: Execution) -> Job:
        raise ManagedError(ErrorCode.NOT_FOUND, "the block was deleted")

    plan(world, FOREVER)
    first = Slow(world.engine, "start")
    async with world.daemon(driver=first) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
    async with world.daemon(job=gone) as daemon:
        await daemon.reconciler.once()
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        assert (await finished(world, execution)).end_cause is EndCause.COMPLETED


async def test_what_ended_while_nobody_looked_is_given_its_time_to_leave(world: World) -> None:
    """Started, but the daemon died before it could note that; the run is over, its process still cleans up."""
    plan(world, replace(FOREVER, lines=("one",)))
    first = Slow(world.engine, "start")
    async with world.daemon(driver=first) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
    await world.propose(execution.flow_run_id, RUNNING)
    await world.propose(execution.flow_run_id, COMPLETED)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await anyio.sleep(0.2)
        assert world.calls("stop") == 0
        world.engine.finish(execution.id, 0)
        ended = await finished(world, execution)
    assert (ended.end_cause, ended.exit_code) == (EndCause.COMPLETED, 0)
    assert await world.printed(execution.flow_run_id) == ["one"]


@pytest.mark.parametrize("began", [False, True])
async def test_a_container_on_record_that_is_gone(world: World, began: bool) -> None:
    """Made again when its run has not begun; lost when it may have."""
    plan(world, FOREVER)
    first = Slow(world.engine, "start", done=began)
    async with world.daemon(driver=first) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
    if began:
        await world.propose(execution.flow_run_id, RUNNING)
    world.engine.vanish(execution.id)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        if began:
            assert (await finished(world, execution)).end_cause is EndCause.LOST
        else:
            await world.until_phase(execution.flow_run_id, Phase.RUNNING)
    assert world.engine._made == (1 if began else 2)


async def test_a_runner_of_an_execution_that_has_ended_does_nothing(world: World) -> None:
    """An old row, read just before its runner finished, must not end the next attempt of its run."""
    deployment = await world.deployment()
    async with world.daemon() as daemon:
        stale = await running(world, daemon, deployment_id=deployment)
        await world.propose(stale.flow_run_id, PAUSED, name="Suspended", details={"pause_reschedule": True})
        world.engine.finish(stale.id)
        await finished(world, stale)
        await world.propose(
            stale.flow_run_id, SCHEDULED, name="Resuming", details={"scheduled_time": iso(world.clock.now_us())}
        )
        daemon.fleet.start(stale)

        async def done() -> bool:
            return not daemon.fleet.running()

        await world.until(done)
    assert (await world.state(stale.flow_run_id)).name == "Resuming"
    assert world.calls("create") == 1


async def test_what_is_on_no_driver_yet_is_made_by_this_one(world: World) -> None:
    """An earlier start claimed it for another driver and went no further."""
    plan(world, FakeRun(exit_code=1))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"driver": "another"}))
        daemon.fleet.start(await world.execution(execution.flow_run_id))
        ended = await finished(world, execution)
    assert (ended.driver, ended.exit_code) == ("fake", 1)


async def test_what_another_driver_runs_is_its_own(world: World) -> None:
    """An earlier start made it there: there it is watched, stopped and removed."""
    other = FakeDriver(FakeEngine(FakeRun(exit_code=7), clock=world.clock))
    asked: list[str] = []

    def others(name: str) -> FakeDriver:
        asked.append(name)
        return other

    async with world.daemon() as daemon:
        execution = await world.claimed()
        # Handles of both are those of fakes.
        handle = await other.create(spec_of(execution))
        changes = {"driver": "fake", "handle": {"version": handle.version, "data": dict(handle.data)}}
        await world.write(lambda tx: executions.advance(tx, execution.id, (Phase.CLAIMED,), Phase.CREATED, changes))
        daemon.driver.name = "this one"
        object.__setattr__(daemon.means, "others", others)
        daemon.fleet.start(await world.execution(execution.flow_run_id))
        ended = await finished(world, execution)
    assert ended.exit_code == 7 and set(asked) == {"fake"}
    assert other.engine.containers == world.engine.containers == {}
    assert not [verb for verb, whose in world.engine.calls if whose == execution.id]
