"""Limits in time: the time limit, the pending deadline, and a wall clock that is set."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.model.executions import EndCause, Phase
from managedd.store import executions
from tests.engine.test_installing import said, with_packages
from tests.engine.test_runner import COMPLETED, CRASHED, FOREVER, PAUSED, RUNNING, finished, plan
from tests.engine.world import World, quick_settings
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from managedd.model.drivers import Handle
    from managedd.model.executions import Execution
    from managedd.model.states import StateType

pytestmark = pytest.mark.anyio


class Signals(FakeDriver):
    """Writes down which state the run had when it was signalled."""

    def __init__(self, world: World) -> None:
        super().__init__(world.engine)
        self._world = world
        self.states: list[StateType] = []

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        execution = await self._world.read(lambda tx: executions.get(tx, str(handle.data["execution_id"])))
        assert execution is not None
        self.states.append((await self._world.state(execution.flow_run_id)).type)
        await super().stop(handle, grace_seconds=grace_seconds)


async def test_the_time_limit(world: World) -> None:
    """The cause is committed before the first signal, and nothing the process says afterwards replaces it."""
    driver = Signals(world)
    plan(world, replace(FOREVER, sigterm_seconds=0.15))
    async with world.daemon(driver=driver) as daemon:
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 1}))
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.until_state(execution.flow_run_id, CRASHED, 5)
        refused = await world.propose(execution.flow_run_id, COMPLETED, data={"type": "reference"})
        ended = await finished(world, execution)
    assert driver.states == [CRASHED]
    assert not refused.created and refused.status.value == "REJECT"
    state = await world.state(execution.flow_run_id)
    assert state.type is CRASHED and "Time limit reached" in str(state.message)
    assert (ended.end_cause, ended.stop_reason, ended.end_message) == (EndCause.TIME, EndCause.TIME, state.message)
    assert await world.log_lines(execution.flow_run_id, "managedd") == [
        "Pulling image image",
        "Pulled image image",
        "Starting the run's container from image image",
        state.message,
    ]


async def test_an_end_in_the_moment_of_the_time_limit_is_not_relabelled(world: World) -> None:
    async with world.daemon() as daemon:
        plan(world, FOREVER)
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 1}))
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.propose(execution.flow_run_id, COMPLETED)
        ended = await finished(world, execution, 5)
    assert (ended.end_cause, ended.stop_reason, ended.end_message) == (EndCause.COMPLETED, None, None)
    assert (await world.state(execution.flow_run_id)).type is COMPLETED


@pytest.mark.parametrize("when", ["pulling", "starting"])
async def test_the_pending_deadline(world: World, when: str) -> None:
    world.settings = quick_settings(pending_deadline_seconds=0.5)
    plan(world, FakeRun(pull_seconds=60) if when == "pulling" else FOREVER)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution, 5)
    state = await world.state(execution.flow_run_id)
    assert state.type is CRASHED and "made no progress" in str(state.message)
    assert ended.end_cause is EndCause.PENDING_DEADLINE


@pytest.mark.parametrize("set_by_seconds", [-3600, 7200])
async def test_a_wall_clock_that_is_set_ends_no_run_and_spares_none(still: World, set_by_seconds: int) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        await still.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 60}))
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        await still.until_called("stats", execution.id)
        await still.propose(execution.flow_run_id, RUNNING)
        await anyio.sleep(0.1)
        clock.set_wall(set_by_seconds)
        await still.propose(execution.flow_run_id, PAUSED, details={"pause_reschedule": False})
        await anyio.sleep(0.2)
        assert (await still.state(execution.flow_run_id)).type is PAUSED
        clock.advance(61)
        await still.propose(execution.flow_run_id, RUNNING)
        state = await still.until_state(execution.flow_run_id, CRASHED)
        assert "Time limit" in str(state.message)
        clock.advance(61)
        await finished(still, execution)


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        ("oom", EndCause.MEMORY),
        ("exit", EndCause.ENGINE_EXIT),
        ("gone", EndCause.LOST),
        ("host", EndCause.HOST_RESTART),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
async def test_an_end_that_nobody_saw_is_not_taken_for_a_deadline(
    still: World, how: str, cause: EndCause, begun: bool
) -> None:
    """It ended after half a minute; the daemon is back when its time limit, or its deadline while Pending, is over."""
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, replace(FOREVER, host_restarted=how == "host"))
    async with still.daemon() as daemon:
        execution = await still.claimed()
        await still.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 300}))
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        if begun:
            await still.propose(execution.flow_run_id, RUNNING)
    clock.advance(30)
    if how == "gone":
        still.engine.vanish(execution.id)
    else:
        still.engine.finish(execution.id, 137, oom=how == "oom")
    clock.advance(570)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        ended = await finished(still, execution)
    assert ended.end_cause is cause
    assert ended.end_message == (await still.state(execution.flow_run_id)).message


async def test_an_engine_that_is_down_when_the_time_is_over_is_asked_when_it_is_back(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        await still.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 300}))
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        await still.until_called("wait", execution.id)
        still.engine.down = True
        still.engine.finish(execution.id, 1)
        clock.advance(600)
        await still.propose(execution.flow_run_id, RUNNING)
        asked = still.calls("recover", execution.id)
        await still.until_called("recover", execution.id, asked + 2)
        assert (await still.state(execution.flow_run_id)).type is RUNNING
        still.engine.down = False
        still.engine.wake()
        ended = await finished(still, execution)
    assert (ended.end_cause, ended.exit_code) == (EndCause.ENGINE_EXIT, 1)


@pytest.mark.parametrize("code", [137, 143])
@pytest.mark.parametrize("down", ["engine", "daemon"])
async def test_an_engine_that_dies_at_the_time_limit_does_not_change_the_cause(
    still: World, down: str, code: int
) -> None:
    """What runs lives on beyond its time while nobody can stop it; an engine that comes back then kills it."""
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        await still.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 300}))
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        await still.propose(execution.flow_run_id, RUNNING)
        await still.until_called("wait", execution.id)
        if down == "engine":
            clock.advance(290)
            still.engine.down = True
            clock.advance(110)
            await still.propose(execution.flow_run_id, PAUSED, details={"pause_reschedule": False})
            asked = still.calls("recover", execution.id)
            await still.until_called("recover", execution.id, asked + 2)
            still.engine.finish(execution.id, code)
            still.engine.down = False
            still.engine.wake()
            ended = await finished(still, execution)
    if down == "daemon":
        clock.advance(400)
        still.engine.finish(execution.id, code)
        clock.advance(4000)
        async with still.daemon() as daemon:
            await daemon.reconciler.once()
            ended = await finished(still, execution)
    state = await still.state(execution.flow_run_id)
    assert (ended.end_cause, ended.exit_code) == (EndCause.TIME, code)
    assert state.message == (
        "Time limit reached in the flow: the run was stopped after 6 min 40 s; its limit is 5 min, installation included. "
        "Raise the timeout job variable as far as the plan allows, or let it do less."
    )
    evidence = (await still.evidence(execution.id))["end"]
    assert (evidence["cause"], evidence["limit"], evidence["reached"]) == ("time", 300, 400)


@pytest.mark.parametrize(
    ("code", "oom", "after", "cause"),
    [
        (1, False, 400, EndCause.ENGINE_EXIT),
        (137, True, 400, EndCause.MEMORY),
        (137, False, 299, EndCause.ENGINE_EXIT),
        (143, False, 299, EndCause.ENGINE_EXIT),
    ],
)
async def test_an_end_with_a_reason_of_its_own_is_not_taken_for_the_time_limit(
    still: World, code: int, oom: bool, after: int, cause: EndCause
) -> None:
    """Also where it came after the limit, and nobody was there to hold that."""
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        await still.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 300}))
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        await still.propose(execution.flow_run_id, RUNNING)
    clock.advance(after)
    still.engine.finish(execution.id, code, oom=oom)
    clock.advance(4000)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        assert (await finished(still, execution)).end_cause is cause


async def installed_now(world: World, execution: Execution) -> None:
    world.engine.emit(execution.id, said("Installed", phase="installed"))

    async def noted() -> bool:
        return (await world.execution(execution.flow_run_id)).installed_at is not None

    await world.until(noted)


@pytest.mark.parametrize(
    ("installed", "begun", "doing", "words", "hint"),
    [
        (False, False, "installing", "while installing packages", "needs no pip_packages"),
        (True, False, "starting", "before the flow began", "before its flow begins"),
        (True, True, "running", "in the flow", "do less"),
    ],
)
async def test_the_time_limit_says_what_the_run_was_doing(
    world: World, installed: bool, begun: bool, doing: str, words: str, hint: str
) -> None:
    plan(world, FOREVER)
    async with world.daemon(job=with_packages) as daemon:
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": 1}))
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        if installed:
            await installed_now(world, execution)
        if begun:
            await world.propose(execution.flow_run_id, RUNNING)
        ended = await finished(world, execution, 5)
    message = str((await world.state(execution.flow_run_id)).message)
    assert message.startswith(f"Time limit reached {words}: the run was stopped after ")
    assert "its limit is 1.0 s, installation included. Raise the timeout job variable" in message
    assert hint in message
    assert ended.end_cause is EndCause.TIME
    assert (await world.evidence(execution.id))["end"]["while"] == doing


async def test_memory_that_runs_out_before_the_flow_began_is_not_said_to_be_the_flows(world: World) -> None:
    plan(world, FOREVER)
    async with world.daemon(job=with_packages) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await installed_now(world, execution)
        world.engine.finish(execution.id, 137, oom=True)
        await finished(world, execution)
    assert str((await world.state(execution.flow_run_id)).message).startswith("Out of memory before the flow began: ")
