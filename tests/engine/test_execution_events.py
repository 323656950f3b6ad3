"""Events of executions: every step once, in its order, with what it belongs to and why it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from managedd.drivers.fake import FakeRun
from managedd.model.executions import Phase
from managedd.model.states import StateType
from tests.engine.test_runner import finished, plan, running

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


async def told(world: World) -> list[tuple[str, dict[str, Any], list[dict[str, str]]]]:
    """Step, payload and related resources of each event of an execution."""

    def body(tx: Tx) -> list[Any]:
        sql = "SELECT event, payload, related FROM events WHERE event LIKE 'managedd.execution.%' ORDER BY position"
        return tx.all(sql)

    return [
        (row["event"].rpartition(".")[2], orjson.loads(row["payload"]), orjson.loads(row["related"]))
        for row in await world.read(body)
    ]


async def test_a_run_that_completes_is_told_step_by_step(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)

        async def installed() -> bool:
            return (await world.execution(execution.flow_run_id)).installed_at is not None

        await world.until(installed)
        await world.propose(execution.flow_run_id, StateType.COMPLETED)
        world.engine.finish(execution.id)
        await finished(world, execution)
    events = await told(world)
    steps = ["claimed", "pulled", "created", "started", "installed", "stopped", "finalized"]
    assert [step for step, _, _ in events] == steps
    for _, payload, related in events:
        assert payload["attempt"] == 1
        ids = {labels["prefect.resource.role"]: labels["prefect.resource.id"] for labels in related}
        assert ids["flow-run"] == f"prefect.flow-run.{execution.flow_run_id}"
        assert ids["work-pool"] == f"prefect.work-pool.{world.pool_id}"
    stopped, final = events[-2][1], events[-1][1]
    assert stopped["exit_code"] == 0
    assert stopped["seconds"] >= 0
    assert final["end_cause"] == "completed"


async def test_the_cause_of_an_end_is_machine_readable(world: World) -> None:
    plan(world, FakeRun(exit_code=137, oom=True))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    assert ended.phase is Phase.FINALIZED
    final = (await told(world))[-1][1]
    assert final["end_cause"] == "memory"
    assert final["end_message"] == ended.end_message
