"""Events of executions: every step once, in its order, with what it belongs to and why it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest

from managedd.drivers.fake import FakeRun
from managedd.model.changes import Change, happened
from managedd.model.executions import Phase
from managedd.model.states import StateType
from tests.engine.test_runner import finished, plan, running

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.engine.world import World


async def told(world: World) -> list[tuple[str, dict[str, Any], list[dict[str, str]]]]:
    """Step, payload and related resources of each event of an execution."""

    def body(tx: Tx) -> list[Any]:
        sql = "SELECT event, payload, related FROM events WHERE event LIKE 'managedd.execution.%' ORDER BY position"
        return tx.all(sql)

    return [
        (row["event"].rpartition(".")[2], orjson.loads(row["payload"]), orjson.loads(row["related"]))
        for row in await world.read(body)
    ]


@pytest.mark.anyio
async def test_a_run_that_completes_is_told_step_by_step(world: World) -> None:
    async with world.daemon() as daemon:
        execution = await running(world, daemon)
        await world.propose(execution.flow_run_id, StateType.COMPLETED)
        world.engine.finish(execution.id)
        await finished(world, execution)
    events = await told(world)
    steps = ["claimed", "pulled", "created", "started", "stopped", "finalized"]
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


def test_what_was_installed_is_told_when_it_was_not_there_from_the_start() -> None:
    columns = ("attempt", "driver", "phase", "pulled_at", "created_at", "started_at", "installed_at", "exited_at")
    created = {**dict.fromkeys(columns), "attempt": 1, "driver": "fake", "phase": "CREATED"}
    started = {**created, "phase": "RUNNING", "started_at": 1}

    def steps(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        change = Change(kind="execution", id="e", workspace_id="w", before=before, after=after)
        return [name.rpartition(".")[2] for name, _ in happened(change)]

    assert steps(created, started) == ["started"]
    assert steps(created, {**started, "installed_at": 1}) == ["started"]
    assert steps(started, {**started, "installed_at": 2}) == ["installed"]
    assert steps(started, {**started, "phase": "EXITED", "installed_at": 2, "exited_at": 3}) == ["installed", "stopped"]
    assert steps(started, started) == []


@pytest.mark.anyio
async def test_a_container_that_vanished_has_stopped_and_is_then_lost(world: World) -> None:
    plan(world, FakeRun(run_for_seconds=None, vanish_after_seconds=0.05))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    assert ended.phase is Phase.LOST
    (stopped, why, _), (final, _, _) = (await told(world))[-2:]
    assert (stopped, why["end_cause"], final) == ("stopped", "lost", "lost")


@pytest.mark.anyio
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
