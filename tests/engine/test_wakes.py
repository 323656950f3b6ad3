"""What wakes the dispatcher: states that may let a run go, and no others, because each look costs a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.bus import Topic
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration.transition import create_run, propose

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio
AWAKE = {
    StateType.SCHEDULED, StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED, StateType.CANCELLING, StateType.PAUSED,
}  # fmt: skip


@pytest.mark.parametrize("type_", StateType)
async def test_a_state_wakes_the_dispatcher_unless_nothing_can_be_due_for_it(still: World, type_: StateType) -> None:
    run_id = await still.run(state=ProposedState(type=StateType.RUNNING))
    with still.bus.subscribe(Topic.QUEUE) as woken:
        await still.write(lambda tx: propose(tx, run_id, ProposedState(type=type_), force=True))
        assert await woken.wait(0) is (type_ in AWAKE)


async def test_a_new_run_that_is_due_wakes_the_dispatcher(still: World) -> None:
    values = {"name": "r", "flow_id": still.flow_id, "work_queue_id": still.queue_id}
    with still.bus.subscribe(Topic.QUEUE) as woken:
        await still.write(lambda tx: create_run(tx, values, ProposedState(type=StateType.PENDING)))
        assert await woken.wait(0) is False
        await still.write(lambda tx: create_run(tx, values, ProposedState(type=StateType.SCHEDULED)))
        assert await woken.wait(0) is True
