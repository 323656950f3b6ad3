"""A flow with many runs is deleted in steps, so that nobody waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause
from managedd.model.states import StateType
from managedd.store import flows, rows
from managedd.store.resources import FLOW, TASK_RUN

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


async def counted(world: World, table: str) -> int:
    return int(await world.read(lambda tx: tx.scalar(f"SELECT count(*) FROM {table}")))


async def test_a_flow_goes_in_steps_and_what_runs_is_asked_to_stop(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "RUNS_PER_STEP", 3)
    monkeypatch.setattr(flows, "TASK_RUNS_PER_STEP", 4)
    deployment = await still.deployment()
    for _ in range(8):
        await still.run(deployment_id=None)
    live = await still.claimed(deployment_id=deployment)
    await still.propose(live.flow_run_id, StateType.RUNNING)

    def with_tasks(tx: Any) -> None:
        for number in range(10):
            key = {"task_key": "k", "dynamic_key": str(number)}
            rows.insert(tx, TASK_RUN, {"name": "t", "flow_run_id": live.flow_run_id, **key})

    await still.write(with_tasks)
    other = await still.write(lambda tx: rows.insert(tx, FLOW, {"name": "other"}))
    kept = await still.run(flow_id=other)
    left = [(await counted(still, "flow_runs"), await counted(still, "task_runs"))]
    while not await still.write(lambda tx: flows.delete_some(tx, still.flow_id)):
        # Whatever a crash would leave now is a smaller flow, without deployments that would make it grow.
        assert await counted(still, "deployments") == 0 and await counted(still, "flows") == 2
        left.append((await counted(still, "flow_runs"), await counted(still, "task_runs")))
        before, after = left[-2:]
        assert 0 < before[0] - after[0] + before[1] - after[1] <= 3 + 4
    assert left[0] == (10, 10) and len(left) >= 4
    assert await still.read(lambda tx: [row[0] for row in tx.all("SELECT id FROM flow_runs")]) == [kept]
    assert await counted(still, "flow_run_states") == 1 and await counted(still, "flows") == 1
    assert (await still.execution(live.flow_run_id)).stop_reason is EndCause.CANCEL
    assert await still.db.integrity() == []
    with pytest.raises(ManagedError) as refused:
        await still.write(lambda tx: flows.delete_some(tx, still.flow_id))
    assert refused.value.code is ErrorCode.NOT_FOUND
