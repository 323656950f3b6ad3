"""A run's log is whole when its execution has ended."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.engine import means as means_module
from managedd.engine import supervision
from managedd.engine.evidence import ending
from managedd.engine.settling import end_first, settle
from managedd.errors import unavailable
from managedd.model.drivers import ExitStatus
from managedd.model.executions import ENDED, EndCause, Phase
from managedd.model.log_limits import Dropped
from managedd.model.states import StateType
from managedd.store import log_sizes
from tests.engine.test_log_writer import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.drivers.fake import FakeEngine
    from managedd.model.drivers import Handle
    from managedd.model.executions import Execution
    from managedd.model.logs import LogCursor, RawLine
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for an engine waits for parts of a second."""
    monkeypatch.setattr(means_module, "PAUSE_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(supervision, "AGAIN_SECONDS", (0.01, 0.05))
    monkeypatch.setattr(supervision, "DRAIN_SECONDS", 0.3)


class Noting(Store):
    """A log store that notes the phase of the only execution at each commit."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._world = world
        self.phases: list[Phase] = []

    async def write(self, body: Any, **options: Any) -> Any:
        result = await super().write(body, **options)
        found = await self._world.read(lambda tx: tx.scalar("SELECT phase FROM executions"))
        self.phases.append(Phase(found))
        return result


@pytest.mark.parametrize("untold", [0, 5])
async def test_a_run_has_its_whole_log_before_it_is_said_to_have_ended(world: World, untold: int) -> None:
    """Who follows the log leaves when the execution is FINALIZED."""
    world.engine._plan = FakeRun(image_error="manifest unknown")
    store = Noting(world)
    async with world.daemon(logs=store) as daemon:
        execution = await world.claimed()
        if untold:
            dropped = Dropped(untold, 50)
            await world.logs.write(lambda tx: log_sizes.drop(tx, execution.id, dropped))
        store.gate = anyio.Event()
        daemon.fleet.start(execution)

        async def waits_for_the_log() -> bool:
            return bool(daemon.writer._flushes)

        await world.until(waits_for_the_log)
        phase = (await world.execution(execution.flow_run_id)).phase
        store.gate.set()
        assert phase is Phase.EXITED
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
        said = await world.log_lines(execution.flow_run_id, "managedd")

        async def forgotten() -> bool:
            return await world.logs.read(lambda tx: tx.scalar("SELECT count(*) FROM log_cursors")) == 0

        await world.until(forgotten)
    assert any("manifest unknown" in line for line in said)
    assert sum("5 lines (50 bytes) dropped here" in line for line in said) == bool(untold)
    assert await world.log_lines(execution.flow_run_id, "managedd") == said
    *before, last = store.phases
    assert Phase.FINALIZED not in before and last is Phase.FINALIZED


async def test_a_run_whose_container_vanished_has_its_whole_log_before_it_is_said_to_be_lost(world: World) -> None:
    world.engine._plan = FakeRun(run_for_seconds=None, vanish_after_seconds=0.05, lines=("one",))
    store = Noting(world)
    async with world.daemon(logs=store) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.LOST)
        said = await world.log_lines(execution.flow_run_id, "managedd")

        async def forgotten() -> bool:
            return await world.logs.read(lambda tx: tx.scalar("SELECT count(*) FROM log_cursors")) == 0

        await world.until(forgotten)
    assert any("is gone" in line for line in said)
    assert await world.log_lines(execution.flow_run_id, "managedd") == said
    *before, last = store.phases
    assert Phase.LOST not in before and last is Phase.LOST


async def test_lines_are_on_the_disk_before_their_container_goes(world: World) -> None:
    """After a power cut the container could be read again, as long as there is one."""
    safe: list[str] = []

    class Flushed(Store):
        async def write(self, body: Any, **options: Any) -> Any:
            result = await super().write(body, **options)
            if options.get("durable"):
                safe[:] = await world.log_lines(execution.flow_run_id, "stdout")
            return result

    class Removing(FakeDriver):
        async def remove(self, handle: Handle) -> None:
            removed.append(list(safe))
            await super().remove(handle)

    removed: list[list[str]] = []
    world.engine._plan = FakeRun(run_for_seconds=0.05, lines=("one", "two"))
    async with world.daemon(logs=Flushed(world), driver=Removing(world.engine)) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert removed == [["one", "two"]]


class LateLogs(FakeDriver):
    """What a container printed last comes only when somebody lets it."""

    readings = 0

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self.comes = anyio.Event()

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        self.readings += 1

        async def late() -> AsyncIterator[RawLine]:
            async for line in lines:
                if line.text == "last":
                    await self.comes.wait()
                yield line

        async with super().logs(handle, after) as lines:
            yield late()


async def test_one_reading_goes_on_beyond_the_end_of_the_run(world: World) -> None:
    """It knows what it was told: that is how lines are found that the engine has passed over."""
    world.engine._plan = FakeRun(lines=("first", "last"), exit_code=3)
    driver = LateLogs(world.engine)
    async with world.daemon(driver=driver) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.EXITED)

        async def has_the_first() -> bool:
            return await world.printed(execution.flow_run_id) == ["first"]

        await world.until(has_the_first)
        driver.comes.set()
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert await world.printed(execution.flow_run_id) == ["first", "last"]
    assert driver.readings == 1


async def test_a_reading_that_goes_on_is_left_by_a_daemon_that_stops(world: World) -> None:
    world.engine._plan = FakeRun(lines=("first", "last"), exit_code=3)
    async with world.daemon(driver=LateLogs(world.engine)) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.EXITED)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert await world.printed(execution.flow_run_id) == ["first", "last"]


@pytest.mark.parametrize(("completed", "last"), [(False, Phase.LOST), (True, Phase.FINALIZED)])
async def test_what_had_vanished_is_lost_also_after_a_restart_at_its_end(
    world: World, completed: bool, last: Phase
) -> None:
    """Unless its run had ended by then."""
    world.engine._plan = FakeRun(run_for_seconds=None)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, StateType.RUNNING)
        if completed:
            await world.propose(execution.flow_run_id, StateType.COMPLETED)
    world.engine.vanish(execution.id)
    status = ExitStatus(exit_code=None, gone=True)
    await world.write(
        lambda tx: settle(
            tx, execution.id, ended=None, status=status, seen_peak_bytes=None, pending_deadline_seconds=20.0
        )
    )
    assert (await world.execution(execution.flow_run_id)).phase is Phase.EXITED
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(execution.flow_run_id, last)


async def test_a_log_store_that_is_busy_at_the_very_end_is_waited_for(world: World) -> None:
    class Busy(Store):
        refused = 0

        async def write(self, body: Any, **options: Any) -> Any:
            if body.__name__ == "tell" and self.refused < 3:
                self.refused += 1
                raise unavailable("the disk is full", 0.01)
            return await super().write(body, **options)

    world.engine._plan = FakeRun(image_error="manifest unknown")
    store = Busy(world)
    async with world.daemon(logs=store) as daemon:
        execution = await world.claimed()
        await world.logs.write(lambda tx: log_sizes.drop(tx, execution.id, Dropped(5, 50)))
        daemon.fleet.start(execution)
        ended = await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert (ended.end_cause, store.refused) == (EndCause.IMAGE, 3)
    lines = await world.log_lines(execution.flow_run_id, "managedd")
    assert sum("5 lines (50 bytes) dropped here" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("status", "completed", "words"),
    [
        (ExitStatus(exit_code=137, oom_killed=True), False, "Out of memory"),
        (ExitStatus(exit_code=None, gone=True), False, "is gone"),
        (ExitStatus(exit_code=0, oom_killed=True), True, "killed for want of memory"),
        (ExitStatus(exit_code=0), True, None),
    ],
)
async def test_a_log_says_how_its_run_ended_also_when_the_daemon_was_killed_before_it_could(
    world: World, status: ExitStatus, completed: bool, words: str | None
) -> None:
    world.engine._plan = FakeRun(run_for_seconds=None, lines=("one",))
    execution = await begun(world)
    if completed:
        await world.propose(execution.flow_run_id, StateType.COMPLETED)
    if status.gone:
        world.engine.vanish(execution.id)
    else:
        world.engine.finish(execution.id, status.exit_code or 0, oom=status.oom_killed)
    await world.write(
        lambda tx: settle(
            tx, execution.id, ended=None, status=status, seen_peak_bytes=None, pending_deadline_seconds=20.0
        )
    )
    said = await ended_by_the_next_daemon(world, execution)
    assert sum(str(words) in line for line in said) == (words is not None)
    state = await world.state(execution.flow_run_id)
    assert said.count(str(state.message)) == (not completed)


async def test_a_log_says_which_limit_ended_its_run_also_when_the_daemon_was_killed_before_it_could(
    world: World,
) -> None:
    world.engine._plan = FakeRun(run_for_seconds=None)
    execution = await begun(world)
    over = ending(EndCause.TIME, execution, elapsed_seconds=5.0)
    await world.write(lambda tx: end_first(tx, over, execution.id))
    said = await ended_by_the_next_daemon(world, execution)
    assert said.count(str((await world.state(execution.flow_run_id)).message)) == 1
    assert "Time limit reached" in said[-1]


async def begun(world: World) -> Execution:
    """A run whose container runs, without a daemon."""
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        execution = await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, StateType.RUNNING)
    return execution


async def ended_by_the_next_daemon(world: World, execution: Execution) -> list[str]:
    """What the run's log has of us, once its execution has ended and nothing of it is remembered."""
    async with world.daemon() as daemon:
        await daemon.reconciler.once()

        async def over() -> bool:
            return (await world.execution(execution.flow_run_id)).phase in ENDED and not daemon.fleet.running()

        await world.until(over)
    return await world.log_lines(execution.flow_run_id, "managedd")
