"""The installation of packages: seen while it goes on, and never taken for a run that hangs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.cli import status
from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.engine.means import Job
from managedd.model.executions import ENDED, EndCause, Execution, Phase
from managedd.model.logs import RECORD_MARK
from managedd.model.states import StateType
from managedd.store import overview
from tests.engine.world import World, quick_settings, spec_of

if TYPE_CHECKING:
    from managedd.model.drivers import Handle

pytestmark = pytest.mark.anyio

FOREVER = FakeRun(run_for_seconds=None)
PENDING, RUNNING = StateType.PENDING, StateType.RUNNING


async def finished(world: World, execution: Execution, seconds: float = 10.0) -> Execution:
    """The execution, once it has ended for good."""

    async def holds() -> bool:
        return (await world.execution(execution.flow_run_id)).phase in ENDED

    await world.until(holds, seconds, "ended")
    return await world.execution(execution.flow_run_id)


async def with_packages(execution: Execution) -> Job:
    return Job(execution=execution, spec=replace(spec_of(execution), packages=("pandas",)))


def said(message: str, **fields: str) -> str:
    """A line of the shim's."""
    record = {
        "name": "managedd",
        "level": 20,
        "message": message,
        "created_us": 1,
        "flow_run_id": None,
        "task_run_id": None,
    }
    return RECORD_MARK + json.dumps({**record, **fields})


async def installing(world: World, daemon: Any) -> Execution:
    world.engine._plan = FOREVER
    execution = await world.claimed()
    daemon.fleet.start(execution)
    return await world.until_phase(execution.flow_run_id, Phase.RUNNING)


async def shown(world: World) -> bool:
    (row,) = await world.read(lambda tx: overview.running(tx, {}))
    return status.is_installing(row)


@pytest.mark.parametrize("phase", [None, "installing"])
async def test_a_long_installation_is_progress(world: World, phase: str | None) -> None:
    """Line by line, or silently once it is said to have begun; from its end on, the deadline counts anew."""
    world.settings = quick_settings(pending_deadline_seconds=0.5, install_timeout_seconds=60)
    async with world.daemon(job=with_packages) as daemon:
        execution = await installing(world, daemon)
        if phase is None:
            for number in range(8):
                world.engine.emit(execution.id, said(f"line {number}"))
                await anyio.sleep(0.15)
        else:
            world.engine.emit(execution.id, said("Installing pandas", phase="installing"))
            await anyio.sleep(1.2)
        assert (await world.state(execution.flow_run_id)).type is PENDING
        assert (await world.execution(execution.flow_run_id)).installed_at is None and await shown(world)
        world.engine.emit(execution.id, said("Installed in 1.2 s", phase="installed"))

        async def installed() -> bool:
            return (await world.execution(execution.flow_run_id)).installed_at is not None

        await world.until(installed)
        assert not await shown(world)
        await world.propose(execution.flow_run_id, RUNNING)
        world.engine.finish(execution.id, 137, oom=True)
        ended = await finished(world, execution)
    assert "in the flow" in str(ended.end_message)


async def test_an_installation_that_says_nothing_meets_the_deadline(world: World) -> None:
    world.settings = quick_settings(pending_deadline_seconds=0.4)
    async with world.daemon(job=with_packages) as daemon:
        execution = await installing(world, daemon)
        assert (await finished(world, execution, 5)).end_cause is EndCause.PENDING_DEADLINE


async def test_with_nothing_to_install_it_is_installed_at_its_start(world: World) -> None:
    world.settings = quick_settings(pending_deadline_seconds=0.6)
    async with world.daemon() as daemon:
        execution = await installing(world, daemon)
        assert execution.installed_at == execution.started_at is not None and not await shown(world)
        # What a flow may print in the shim's words changes nothing then.
        world.engine.emit(execution.id, said("Installing", phase="installing"))
        assert (await finished(world, execution, 5)).end_cause is EndCause.PENDING_DEADLINE


@pytest.mark.parametrize("known", [False, True])
async def test_out_of_memory_says_whether_the_packages_were_installed(world: World, known: bool) -> None:
    class Told(FakeDriver):
        async def wait(self, handle: Handle) -> Any:
            status = await super().wait(handle)
            return status if known else replace(status, installed_at_us=None)

    world.engine._plan = FakeRun(exit_code=137, oom=True)
    async with world.daemon(driver=Told(world.engine), job=with_packages) as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        ended = await finished(world, execution)
    where = "before the flow began" if known else "while installing packages"
    assert str(ended.end_message).startswith(f"Out of memory {where}:")
    assert (ended.installed_at is not None) is known
