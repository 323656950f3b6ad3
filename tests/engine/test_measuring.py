"""Limits that are held by measuring, and what is said of memory that ran out without an end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from managedd.drivers.fake import FakeDriver
from managedd.engine import measuring
from managedd.errors import ErrorCode, ManagedError
from managedd.model.executions import EndCause, Phase
from managedd.store import samples
from tests.engine.test_runner import COMPLETED, CRASHED, FOREVER, RUNNING, finished, plan
from tests.engine.world import quick_settings

if TYPE_CHECKING:
    from managedd.drivers.fake import FakeRun
    from managedd.model.drivers import Handle, Usage
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

MIB = 1024**2


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "READ_SECONDS", 0.05)
    monkeypatch.setattr(measuring, "DISK_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("run", "cause", "message"),
    [
        (
            replace(FOREVER, disk_bytes=65 * MIB),
            EndCause.DISK,
            "Disk limit reached: the run has written 65.0 MiB of files; its limit is 64.0 MiB.",
        ),
        (
            replace(FOREVER, pids=15),
            EndCause.PIDS,
            "Process limit reached: the run had 15 processes and threads for 0 s; its limit is 16.",
        ),
    ],
)
async def test_a_run_over_its_limit_is_stopped_with_the_cause(
    world: World, run: FakeRun, cause: EndCause, message: str
) -> None:
    world.settings = quick_settings(disk_limit_bytes=64 * MIB, pids_limit=16)
    plan(world, run)
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        state = await world.until_state(execution.flow_run_id, CRASHED, 5)
        ended = await finished(world, execution)
    assert state.message == message
    assert (ended.end_cause, ended.stop_reason, ended.end_message) == (cause, cause, message)
    assert message in await world.log_lines(execution.flow_run_id, "managedd")


async def test_a_run_below_its_limits_goes_on(world: World) -> None:
    world.settings = quick_settings(disk_limit_bytes=64 * MIB, pids_limit=16)
    plan(world, replace(FOREVER, disk_bytes=64 * MIB, pids=14))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.until_called("disk", execution.id, times=5)
        await world.until_called("stats", execution.id, times=5)
        assert (await world.state(execution.flow_run_id)).type is RUNNING
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        assert (await finished(world, execution)).end_cause is EndCause.COMPLETED


async def test_a_reading_that_failed_is_no_second_reading(world: World) -> None:
    """One look at a crowd, then an engine that does not answer: nobody has seen it stay."""

    class Once(FakeDriver):
        looked = 0

        async def stats(self, handle: Handle) -> Usage | None:
            self.looked += 1
            if self.looked > 1:
                raise ManagedError(ErrorCode.DRIVER, "busy")
            return await super().stats(handle)

    world.settings = quick_settings(pids_limit=16)
    plan(world, replace(FOREVER, pids=16))
    driver = Once(world.engine)
    async with world.daemon(driver=driver) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)

        async def looked() -> bool:
            return driver.looked > 6

        await world.until(looked)
        assert (await world.state(execution.flow_run_id)).type is RUNNING
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        assert (await finished(world, execution)).end_cause is EndCause.COMPLETED


async def test_a_child_that_was_killed_for_want_of_memory_is_a_warning(world: World) -> None:
    plan(world, replace(FOREVER, oom=True, peak_memory_bytes=63 * MIB))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id, oom=True)
        ended = await finished(world, execution)
    assert ended.end_cause is EndCause.COMPLETED
    assert (await world.state(execution.flow_run_id)).type is COMPLETED
    [told] = [line for line in await world.log_lines(execution.flow_run_id, "managedd") if "killed" in line]
    assert told == (
        "A process of the run was killed for want of memory, and the run went on: "
        "the memory limit is unknown, the highest use seen was 63.0 MiB."
    )


async def test_what_a_run_used_is_on_record_when_it_has_ended(world: World) -> None:
    plan(world, replace(FOREVER, peak_memory_bytes=63 * MIB))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await world.until_phase(execution.flow_run_id, Phase.RUNNING)
        await world.propose(execution.flow_run_id, RUNNING)
        await world.until_called("stats", execution.id, times=3)
        await daemon.fleet.note_times()
        noted = await world.db.read(
            lambda tx: samples.of_run(tx, execution.flow_run_id), workspace=execution.workspace_id
        )
        await world.until_called("stats", execution.id, times=6)
        await world.propose(execution.flow_run_id, COMPLETED)
        world.engine.finish(execution.id)
        await finished(world, execution)
        (kept,) = await world.db.read(
            lambda tx: samples.of_run(tx, execution.flow_run_id), workspace=execution.workspace_id
        )
    assert noted[0]["samples"]
    assert {each["memory_bytes"] for each in kept["samples"]} == {63 * MIB}
    moments = [each["at"] for each in kept["samples"]]
    assert moments == sorted(set(moments))
    assert moments[0] == noted[0]["samples"][0]["at"]
