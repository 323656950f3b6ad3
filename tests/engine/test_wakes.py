"""What wakes the dispatcher: states that may let a run go, and no others, because each look costs a reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd.bus import Topic
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration.transition import create_run, propose
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT

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


async def test_a_run_of_no_queue_and_no_deployment_wakes_the_dispatcher_by_no_state(still: World) -> None:
    values = {"name": "r", "flow_id": still.flow_id}
    with still.bus.subscribe(Topic.QUEUE, Topic.SLOTS) as woken, still.bus.subscribe(Topic.RUNS) as watching:
        run_id, _ = await still.write(lambda tx: create_run(tx, values, ProposedState(type=StateType.SCHEDULED)))
        for type_ in StateType:
            await still.write(lambda tx, type_=type_: propose(tx, run_id, ProposedState(type=type_), force=True))
            assert await watching.wait(0) is True
        assert await woken.wait(0) is False


async def test_a_run_of_a_deployment_without_a_queue_wakes_the_dispatcher(still: World) -> None:
    deployment_id = await still.write(
        lambda tx: rows.insert(tx, DEPLOYMENT, {"name": "here", "flow_id": still.flow_id})
    )
    values = {"name": "r", "flow_id": still.flow_id, "deployment_id": deployment_id}
    run_id, _ = await still.write(lambda tx: create_run(tx, values, ProposedState(type=StateType.RUNNING)))
    with still.bus.subscribe(Topic.QUEUE) as woken:
        await still.write(lambda tx: propose(tx, run_id, ProposedState(type=StateType.COMPLETED)))
        assert await woken.wait(0) is True
