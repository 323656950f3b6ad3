"""Limits that are reached when the run has nothing more to do, or is being cancelled: what it says of itself goes before them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.clock import iso
from managedd.engine import measuring, supervision
from managedd.engine.quota import QuotaWatch
from managedd.model.executions import EndCause, Phase
from managedd.model.limits import OnExhausted
from managedd.store import executions
from tests.engine.test_runner import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    CRASHED,
    FAILED,
    FOREVER,
    PAUSED,
    RUNNING,
    SCHEDULED,
    finished,
    plan,
)
from tests.engine.test_usage import begun, passed
from tests.engine.world import quick_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.model.executions import Execution
    from tests.engine.world import Daemon, World

pytestmark = pytest.mark.anyio

MIB = 1024**2


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are made, and clocks looked at, as often as a test can wait for them."""
    monkeypatch.setattr(measuring, "READ_SECONDS", 0.01)
    monkeypatch.setattr(measuring, "DISK_SECONDS", 0.01)
    monkeypatch.setattr(supervision, "LOOK_SECONDS", 0.02)


async def started(world: World, daemon: Daemon, time_limit_seconds: int | None = None) -> Execution:
    execution = await world.claimed(deployment_id=await world.deployment())
    await world.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": time_limit_seconds}))
    daemon.fleet.start(execution)
    await begun(world, execution)
    return execution


async def given_back(world: World, run_id: str, how: str) -> None:
    """The run has nothing more to do in its process, which is about to leave."""
    if how == "suspended":
        later = {"pause_reschedule": True, "pause_timeout": "2099-01-01T00:00:00Z"}
        await world.propose(run_id, PAUSED, name="Suspended", details=later)
        return
    await world.propose(run_id, FAILED)
    now = {"scheduled_time": iso(world.clock.now_us())}
    await world.propose(run_id, SCHEDULED, name="AwaitingRetry", details=now)


def exhausted(world: World, daemon: Daemon) -> QuotaWatch:
    return QuotaWatch(world.db, world.bus, zone=UTC, say=daemon.writer.say_end)


@pytest.mark.parametrize("how", ["suspended", "scheduled anew"])
async def test_a_run_whose_process_is_leaving_is_not_crashed_for_its_hours(still: World, how: str) -> None:
    """It costs nothing more, and could not be resumed; its files are watched until it is gone."""
    still.settings = quick_settings(disk_limit_bytes=64 * MIB)
    await still.on_plan(compute_hours=0.1, on_exhausted=OnExhausted.STOP)
    plan(still, replace(FOREVER))
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
        passed(still, 600)
        await still.until_called("stats", execution.id, still.calls("stats", execution.id) + 2)
        await daemon.fleet.note_times()
        await given_back(still, execution.flow_run_id, how)
        before = await still.state(execution.flow_run_id)
        await exhausted(still, daemon).tick()
        assert await still.state(execution.flow_run_id) == before
        assert (await still.execution(execution.flow_run_id)).stop_requested_at is None
        still.engine.containers[execution.id].run.disk_bytes = 65 * MIB
        state = await still.until_state(execution.flow_run_id, CRASHED)
        assert str(state.message).startswith("Disk limit reached")
        passed(still, 61)
        assert (await finished(still, execution)).end_cause is EndCause.DISK


@pytest.mark.parametrize("how", ["suspended", "scheduled anew"])
async def test_a_run_whose_process_is_leaving_is_not_crashed_for_its_time(still: World, how: str) -> None:
    """The process has to be gone by then all the same."""
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon, 300)
        passed(still, 298)
        await given_back(still, execution.flow_run_id, how)
        before = await still.state(execution.flow_run_id)
        passed(still, 3)
        await still.until_called("stop", execution.id, seconds=20)
        passed(still, 61)
        ended = await finished(still, execution)
    assert ended.end_cause is EndCause.COMPLETED
    assert await still.state(execution.flow_run_id) == before


async def test_files_are_watched_on_when_a_cancel_goes_before_them(still: World) -> None:
    """Nobody knows whether it will be gone when its grace is over."""
    still.settings = quick_settings(disk_limit_bytes=64 * MIB, cancel_grace_seconds=30.0)
    plan(still, replace(FOREVER))
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
        await still.propose(execution.flow_run_id, CANCELLING)
        still.engine.containers[execution.id].run.disk_bytes = 65 * MIB
        await still.until_called("disk", execution.id, still.calls("disk", execution.id) + 5)
        assert (await still.state(execution.flow_run_id)).type is CANCELLING
        await still.propose(execution.flow_run_id, CANCELLED)
        still.engine.finish(execution.id)
        assert (await finished(still, execution)).end_cause is EndCause.CANCEL


class Meanwhile:
    """A store in which something else is committed just before what the daemon is about to write next."""

    def __init__(self, world: World) -> None:
        self._db = world.db
        self.happens: Callable[[], Awaitable[Any]] | None = None
        self.happened = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    async def write(self, body: Any, **more: Any) -> Any:
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()
        written = await self._db.write(body, **more)
        if happens is not None:
            self.happened.set()
        return written


async def test_a_cancel_in_the_moment_of_the_time_limit_has_its_grace(still: World) -> None:
    still.settings = quick_settings(cancel_grace_seconds=30.0)
    plan(still, FOREVER)
    db = Meanwhile(still)
    async with still.daemon(db=db) as daemon:
        execution = await started(still, daemon, 300)
        await still.until_called("wait", execution.id)
        db.happens = lambda: still.propose(execution.flow_run_id, CANCELLING)
        passed(still, 301)
        await db.happened.wait()
        passed(still, 29)
        await anyio.sleep(0.2)
        assert still.calls("stop", execution.id) == 0
        await still.propose(execution.flow_run_id, CANCELLED, message="clean")
        still.engine.finish(execution.id)
        ended = await finished(still, execution)
    assert (ended.end_cause, ended.stop_reason) == (EndCause.CANCEL, None)
    assert (await still.state(execution.flow_run_id)).message == "clean"


async def test_a_run_that_begins_in_the_moment_of_its_deadline_goes_on(still: World) -> None:
    still.settings = quick_settings(pending_deadline_seconds=60.0)
    plan(still, FOREVER)
    db = Meanwhile(still)
    async with still.daemon(db=db) as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await still.until_phase(execution.flow_run_id, Phase.RUNNING)
        await still.until_called("wait", execution.id)
        db.happens = lambda: still.propose(execution.flow_run_id, RUNNING)
        passed(still, 61)
        await db.happened.wait()
        await anyio.sleep(0.2)
        assert (await still.state(execution.flow_run_id)).type is RUNNING
        assert still.calls("stop", execution.id) == 0
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
        assert (await finished(still, execution)).end_cause is EndCause.COMPLETED
