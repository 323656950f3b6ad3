"""The cause of an end, for programs: in the execution, and in the event that tells of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from managedd.drivers.fake import FakeRun
from managedd.engine import measuring
from managedd.model.executions import Phase
from managedd.model.limits import OnExhausted
from managedd.store import executions
from tests.engine.test_quota import watch
from tests.engine.test_runner import COMPLETED, CRASHED, FOREVER, RUNNING, finished, plan
from tests.engine.world import quick_settings

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from tests.engine.world import Daemon, World

pytestmark = pytest.mark.anyio

MIB = 1024**2
GUESS = "Process exited with status code: -9."


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "READ_SECONDS", 0.05)
    monkeypatch.setattr(measuring, "DISK_SECONDS", 0.05)


async def events(world: World, run_id: str, name: str) -> list[dict[str, Any]]:
    """Resource and payload of the run's events of that name."""
    found = await world.read(
        lambda tx: [
            (row[0], row[1])
            for row in tx.all(
                "SELECT resource, payload FROM events WHERE resource_id = ? AND event = ? ORDER BY position",
                (f"prefect.flow-run.{run_id}", name),
            )
        ]
    )
    return [{"resource": orjson.loads(resource), "payload": orjson.loads(payload)} for resource, payload in found]


async def quota(world: World, daemon: Daemon) -> None:
    await world.on_plan(compute_hours=0, on_exhausted=OnExhausted.STOP)
    await watch(world, daemon).tick()


GROWS: dict[str, dict[str, int]] = {"disk": {"disk_bytes": 65 * MIB}, "pids": {"pids": 15}}
"""What the run takes once its flow runs."""


@pytest.mark.parametrize(
    ("cause", "run", "told"),
    [
        ("disk", FOREVER, {"limit": 64 * MIB, "reached": 65 * MIB, "unit": "bytes"}),
        ("pids", FOREVER, {"limit": 16, "reached": 15, "unit": "processes"}),
        ("time", FOREVER, {"limit": 1, "unit": "seconds"}),
        ("memory", FakeRun(exit_code=137, oom=True, peak_memory_bytes=99, run_for_seconds=0.3),
         {"limit": 100, "reached": 99, "unit": "bytes", "exit_code": 137}),
        ("quota", FOREVER, {"limit": 0, "reached": 1, "unit": "minutes"}),
        ("packages", FakeRun(install_error="no such thing", install_seconds=0.3), {"exit_code": 210}),
    ],
)  # fmt: skip
async def test_the_event_of_the_crash_and_the_execution_say_what_it_was(
    world: World, cause: str, run: FakeRun, told: dict[str, Any]
) -> None:
    world.settings = quick_settings(disk_limit_bytes=64 * MIB, pids_limit=16)
    plan(world, run)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        limits = {"memory_limit_bytes": 100, "time_limit_seconds": 1 if cause == "time" else 60}
        await world.write(lambda tx: executions.note(tx, execution.id, limits))
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        if cause != "packages":
            await world.propose(execution.flow_run_id, RUNNING)
        container = world.engine.containers[execution.id]
        container.run = replace(container.run, **GROWS.get(cause, {}))
        if cause == "quota":
            await quota(world, daemon)
        ended = await finished(world, execution)
    [event] = await events(world, execution.flow_run_id, "prefect.flow-run.Crashed")
    facts = event["payload"]["managedd"]
    if cause == "time":
        assert facts.pop("reached") >= 1
    assert facts == {
        "cause": cause, "execution_id": execution.id, "attempt": 1, "while": facts["while"], **told,
    }  # fmt: skip
    assert facts["while"] == ("installing" if cause == "packages" else "running")
    assert event["resource"]["managedd.end-cause"] == cause
    assert event["payload"]["validated_state"]["type"] == "CRASHED"
    evidence = (await world.evidence(execution.id))["end"]
    assert evidence == {**facts, **({"reached": evidence["reached"]} if cause == "time" else {})}
    assert ended.end_cause is not None and ended.end_cause.value == cause


async def with_the_client_s_word(world: World, *, oom: bool) -> Execution:
    """A run of which its own client said that it crashed, before its container ended."""
    plan(world, FOREVER)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        await world.write(lambda tx: executions.note(tx, execution.id, {"memory_limit_bytes": 100}))
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.propose(execution.flow_run_id, CRASHED, message=GUESS)
        world.engine.finish(execution.id, 1, oom=oom)
        return await finished(world, execution)


async def test_a_crash_that_is_explained_later_has_an_event_of_its_own(world: World) -> None:
    execution = await with_the_client_s_word(world, oom=True)
    [crashed] = await events(world, execution.flow_run_id, "prefect.flow-run.Crashed")
    assert "managedd" not in crashed["payload"], "what has been told is not told otherwise afterwards"
    [explained] = await events(world, execution.flow_run_id, "managedd.flow-run.explained")
    facts = explained["payload"]["managedd"]
    assert (facts["cause"], facts["execution_id"], facts["limit"]) == ("memory", execution.id, 100)
    assert explained["resource"]["managedd.end-cause"] == "memory"
    message = explained["payload"]["validated_state"]["message"]
    assert message.startswith("Out of memory") and message.endswith(GUESS)
    assert (await world.evidence(execution.id))["end"] == facts


async def test_who_ends_by_himself_is_given_no_cause(world: World) -> None:
    execution = await with_the_client_s_word(world, oom=False)
    [crashed] = await events(world, execution.flow_run_id, "prefect.flow-run.Crashed")
    assert crashed["payload"].keys() == {"intended", "initial_state", "validated_state"}
    assert "managedd.end-cause" not in crashed["resource"]
    assert await events(world, execution.flow_run_id, "managedd.flow-run.explained") == []
    assert "end" not in await world.evidence(execution.id)


async def test_what_is_not_accepted_is_told_of_nobody(world: World) -> None:
    """A run that was cancelled while its container died of something else has been cancelled."""
    plan(world, FOREVER)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id, 137, oom=True)
        await finished(world, execution)
    [completed] = await events(world, execution.flow_run_id, "prefect.flow-run.Completed")
    assert "managedd" not in completed["payload"]
