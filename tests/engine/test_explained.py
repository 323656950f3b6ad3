"""What the run's own client has said of its end, and what is made of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.drivers.fake import FakeRun
from managedd.model.executions import ENDED, EndCause
from managedd.model.states import StateType
from tests.engine.world import quick_settings

if TYPE_CHECKING:
    from managedd.model.states import State
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

GUESS = "Process exited with status code: -9."


async def ended(world: World, said: StateType, *, oom: bool) -> tuple[State, EndCause | None, list[str], list[str]]:
    """The run's state and history, its execution's cause and our words in its log, after its client has said `said` and left with 0."""
    world.engine._plan = FakeRun(run_for_seconds=None)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_called("wait", execution.id)
        await world.propose(execution.flow_run_id, StateType.RUNNING)
        await world.propose(execution.flow_run_id, said, message=GUESS)
        world.engine.finish(execution.id, 0, oom=oom)

        async def over() -> bool:
            return (await world.execution(execution.flow_run_id)).phase in ENDED

        await world.until(over)
        run_id = execution.flow_run_id
        return (
            await world.state(run_id),
            (await world.execution(run_id)).end_cause,
            await world.history(run_id),
            await world.log_lines(run_id, "managedd"),
        )


async def test_memory_explains_a_crash_without_a_second_state(world: World) -> None:
    state, cause, history, lines = await ended(world, StateType.CRASHED, oom=True)
    assert cause is EndCause.MEMORY
    assert str(state.message).startswith("Out of memory") and str(state.message).endswith(GUESS)
    assert history == ["Scheduled", "Pending", "Running", "Crashed"]
    assert any(line.startswith("Out of memory") for line in lines)


@pytest.mark.parametrize(
    ("said", "oom"), [(StateType.CRASHED, False), (StateType.FAILED, True), (StateType.COMPLETED, True)]
)
async def test_any_other_end_stays_as_it_was_told(world: World, said: StateType, oom: bool) -> None:
    state, cause, _, lines = await ended(world, said, oom=oom)
    assert (cause, state.type, state.message) == (EndCause.COMPLETED, said, GUESS)
    # Killed for want of memory was a child, or the engine on its way out: a warning, and no end.
    assert sum("killed for want of memory" in line for line in lines) == oom
    assert not any(line.startswith("Out of memory") for line in lines)


async def test_a_cancelled_runs_process_leaves_within_one_grace(world: World) -> None:
    """From the wish on: a process that has said Cancelled and stays, as for a child that holds its output, is not given another."""
    world.engine._plan = FakeRun(run_for_seconds=None)
    world.settings = quick_settings(cancel_grace_seconds=3.0)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_called("wait", execution.id)
        run_id = execution.flow_run_id
        await world.propose(run_id, StateType.RUNNING)
        await world.propose(run_id, StateType.CANCELLING)
        asked = time.monotonic()
        await anyio.sleep(2.0)
        await world.propose(run_id, StateType.CANCELLED)
        await world.until_called("stop", execution.id)
        assert 2.9 < time.monotonic() - asked < 4.8
