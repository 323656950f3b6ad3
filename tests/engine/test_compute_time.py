"""Compute time follows what was seen to run: not the wall clock, and not the time in which nobody looked."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.engine import measuring
from managedd.engine.quota import QuotaWatch
from managedd.model.executions import EndCause, Phase
from managedd.model.limits import OnExhausted
from managedd.store import executions
from managedd.store.usage import Used
from tests.engine.test_quota import told
from tests.engine.test_runner import (
    COMPLETED,
    CRASHED,
    FOREVER,
    PAUSED,
    PENDING,
    RUNNING,
    SCHEDULED,
    Slow,
    finished,
    plan,
)
from tests.engine.test_usage import begun, ended, passed, used
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.model.drivers import ExitStatus, Handle
    from managedd.model.executions import Execution
    from managedd.model.logs import LogCursor, RawLine
    from tests.engine.world import Daemon, World

pytestmark = pytest.mark.anyio

HOUR = 3600


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are made as often as a test can wait for them."""
    monkeypatch.setattr(measuring, "READ_SECONDS", 0.01)


class WallStamps(FakeDriver):
    """Its account has two readings of a clock that was set by `set_seconds` in between."""

    def __init__(self, world: World) -> None:
        super().__init__(world.engine)
        self.set_seconds = 0

    async def wait(self, handle: Handle) -> ExitStatus:
        status = await super().wait(handle)
        if status.finished_at_us is None:
            return status
        return replace(status, finished_at_us=status.finished_at_us + self.set_seconds * 1_000_000)


class WallClock(FakeDriver):
    """It has no clock but this host's wall clock."""

    async def started_ago(self, handle: Handle) -> float | None:
        container = self._find(handle)
        if container is None or container.started_us is None:
            return None
        return max(0, self.engine.clock.now_us() - container.started_us) / 1_000_000

    async def wait(self, handle: Handle) -> ExitStatus:
        status, container = await super().wait(handle), self._find(handle)
        if container is None or container.ends is None:
            return status
        ago_us = round((self.engine.clock.monotonic() - container.ends) * 1_000_000)
        return replace(status, finished_at_us=self.engine.clock.now_us() - ago_us)


class SlowLogs(FakeDriver):
    """Reading a log takes its time, as one of some megabytes does."""

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        await anyio.sleep(0.2)
        async with super().logs(handle, after) as lines:
            yield lines


async def started(world: World, daemon: Daemon, time_limit_seconds: int | None = None) -> Execution:
    execution = await world.claimed()
    await world.write(lambda tx: executions.note(tx, execution.id, {"time_limit_seconds": time_limit_seconds}))
    daemon.fleet.start(execution)
    await begun(world, execution)
    return execution


async def seen(world: World, daemon: Daemon, execution: Execution) -> None:
    """A reading was made after this moment, and it is on record."""
    await world.until_called("stats", execution.id, world.calls("stats", execution.id) + 2)
    await daemon.fleet.note_times()


def mid_month(world: World) -> None:
    """A clock that is set by hours stays in its month."""
    assert isinstance(world.clock, ManualClock)
    world.clock.turn_to(datetime(2026, 11, 22, 12, tzinfo=UTC))


async def woken(world: World, execution: Execution) -> None:
    """Its watch has looked at the clock once more."""
    await world.propose(execution.flow_run_id, PAUSED, details={"pause_reschedule": False})
    await anyio.sleep(0.1)
    await world.propose(execution.flow_run_id, RUNNING)
    await anyio.sleep(0.1)


def set_wall(world: World, seconds: float) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.set_wall(seconds)


@pytest.mark.parametrize("set_seconds", [-HOUR // 2, -10 * HOUR, 12 * HOUR])
async def test_a_clock_that_is_set_changes_nothing_of_what_a_run_costs(still: World, set_seconds: int) -> None:
    """Also not where the engine's account has one reading from before and one from after."""
    month = still.clock.now_us()
    plan(still, FOREVER)
    driver = WallStamps(still)
    async with still.daemon(driver=driver) as daemon:
        execution = await started(still, daemon)
        passed(still, HOUR)
        await seen(still, daemon, execution)
        set_wall(still, set_seconds)
        driver.set_seconds = set_seconds
        minute = await used(still, month)
        assert minute.running in {60, 61}
        await ended(still, execution)
    assert await used(still, month) == Used(ended=60, running=0)


async def test_a_clock_that_is_set_forward_stops_no_run_for_its_hours(still: World) -> None:
    await still.on_plan(compute_hours=10, on_exhausted=OnExhausted.STOP)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
        passed(still, 60)
        await seen(still, daemon, execution)
        set_wall(still, 12 * HOUR)
        await QuotaWatch(still.db, still.bus, zone=UTC, say=daemon.writer.say).tick()
        assert (await still.state(execution.flow_run_id)).type is RUNNING
        await ended(still, execution)
    assert await told(still) == []


@pytest.mark.parametrize("how", ["gone", "host"])
async def test_time_in_which_nothing_ran_is_free(still: World, how: str) -> None:
    """Its host was off, or somebody removed it, for days in which nobody looked."""
    month = still.clock.now_us()
    plan(still, replace(FOREVER, host_restarted=how == "host"))
    async with still.daemon() as daemon:
        execution = await started(still, daemon, 86_400)
        passed(still, 600)
        await seen(still, daemon, execution)
    passed(still, 60 * HOUR)
    if how == "gone":
        still.engine.vanish(execution.id)
    else:
        still.engine.finish(execution.id, 255)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        gone = await finished(still, execution)
    assert gone.end_cause is (EndCause.LOST if how == "gone" else EndCause.HOST_RESTART)
    assert await used(still, month) == Used(ended=10, running=0)


async def test_no_run_costs_more_than_its_time_limit_and_its_grace(still: World) -> None:
    """Nothing stopped it while the daemon was down."""
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon, 600)
    passed(still, 5 * HOUR)
    still.engine.finish(execution.id)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        await finished(still, execution)
    assert await used(still) == Used(ended=11, running=0), "ten minutes, and a part of one"


async def test_a_downtime_uses_up_nobodys_hours(still: World) -> None:
    """Of two runs, one ended after a minute of the five and a half hours for which the daemon was down: not eleven of ten hours are used."""
    await still.on_plan(compute_hours=10, on_exhausted=OnExhausted.STOP)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        short, long = await started(still, daemon), await started(still, daemon)
    await still.propose(short.flow_run_id, COMPLETED)
    passed(still, 60)
    still.engine.finish(short.id)
    passed(still, 5.5 * HOUR)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        await QuotaWatch(still.db, still.bus, zone=UTC, say=daemon.writer.say).tick()
        assert (await still.state(long.flow_run_id)).type is RUNNING
        await daemon.fleet.looked()
        await finished(still, short)
        assert await used(still) == Used(ended=1, running=331)
        await ended(still, long)
    assert await told(still) == []
    assert await used(still) == Used(ended=332, running=0)


async def test_what_was_adopted_is_looked_at_before_anything_is_reckoned(still: World) -> None:
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
    passed(still, 2 * HOUR)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        assert (await used(still)).running <= 1
        await daemon.fleet.looked()
        assert (await used(still)).running == 120
        assert (await still.execution(execution.flow_run_id)).phase is Phase.RUNNING
        await ended(still, execution)


async def test_what_was_killed_from_outside_is_not_out_of_time_because_a_clock_was_set(still: World) -> None:
    """Its engine's account says twelve hours, of which it was seen to run ten minutes."""
    plan(still, FOREVER)
    driver = WallStamps(still)
    async with still.daemon(driver=driver) as daemon:
        execution = await started(still, daemon, HOUR)
        passed(still, 600)
        await seen(still, daemon, execution)
        set_wall(still, 12 * HOUR)
        driver.set_seconds = 12 * HOUR
        still.engine.finish(execution.id, 137)
        gone = await finished(still, execution)
    assert gone.end_cause is EndCause.ENGINE_EXIT


async def test_what_ended_in_a_downtime_is_in_the_ledger_before_anything_is_started(still: World) -> None:
    """Ten of ten hours were used while nobody looked, and its log is still being read."""
    await still.on_plan(compute_hours=10)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
        await still.propose(execution.flow_run_id, COMPLETED)
    passed(still, 10 * HOUR)
    still.engine.finish(execution.id)
    async with still.daemon(driver=SlowLogs(still.engine)) as daemon:
        waiting = await still.run()
        await daemon.reconciler.once()
        await daemon.fleet.looked()
        assert await used(still) == Used(ended=600, running=0)
        await daemon.dispatcher.tick()
        assert (await still.state(waiting)).type is SCHEDULED
        await finished(still, execution)


async def test_a_start_that_nobody_noted_is_reckoned_before_anything_is_started(still: World) -> None:
    plan(still, FOREVER)
    first = Slow(still.engine, "start")
    async with still.daemon(driver=first) as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
    await still.propose(execution.flow_run_id, RUNNING)
    passed(still, 2 * HOUR)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        await daemon.fleet.looked()
        assert await used(still) == Used(ended=0, running=120)
        await ended(still, execution)


async def test_nobody_waits_for_what_has_not_been_started(still: World) -> None:
    """It costs nothing, however long its image takes."""
    plan(still, FakeRun(pull_seconds=60))
    async with still.daemon() as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await still.until_called("prepare", execution.id)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        with anyio.fail_after(5):
            await daemon.fleet.looked()
        assert (await still.state(execution.flow_run_id)).type is PENDING


@pytest.mark.parametrize("ended_meanwhile", [False, True])
@pytest.mark.parametrize("set_seconds", [-3 * HOUR, 3 * HOUR])
async def test_a_clock_that_was_set_before_a_restart_costs_nothing(
    still: World, set_seconds: int, ended_meanwhile: bool
) -> None:
    """What was noted after that says how long it had run."""
    mid_month(still)
    plan(still, FOREVER)
    async with still.daemon(driver=WallClock(still.engine)) as daemon:
        execution = await started(still, daemon)
        passed(still, 600)
        await seen(still, daemon, execution)
        set_wall(still, set_seconds)
        passed(still, 55)
        await seen(still, daemon, execution)
    passed(still, 300)
    if ended_meanwhile:
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
    async with still.daemon(driver=WallClock(still.engine)) as daemon:
        await daemon.reconciler.once()
        await daemon.fleet.looked()
        if not ended_meanwhile:
            assert await used(still) == Used(ended=0, running=16)
            await ended(still, execution)
        else:
            await finished(still, execution)
    # Of an end that nobody saw, an account from before its own start says nothing: what was seen counts.
    least = ended_meanwhile and set_seconds < 0
    assert await used(still) == Used(ended=11 if least else 16, running=0)


async def test_what_is_noted_is_when_it_was_seen(still: World) -> None:
    """The engine was away for an hour before the daemon went down: it has run in that time."""
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await started(still, daemon)
        passed(still, 600)
        await seen(still, daemon, execution)
        still.engine.down = True
        passed(still, HOUR)
        await daemon.fleet.note_times()
    still.engine.down = False
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        await daemon.fleet.looked()
        assert (await used(still)).running == 70
        await ended(still, execution)


@pytest.mark.parametrize("set_seconds", [-3 * HOUR, 3 * HOUR])
async def test_a_clock_that_was_set_before_a_restart_moves_no_time_limit(still: World, set_seconds: int) -> None:
    mid_month(still)
    plan(still, FOREVER)
    async with still.daemon(driver=WallClock(still.engine)) as daemon:
        execution = await started(still, daemon, HOUR)
        passed(still, 600)
        await seen(still, daemon, execution)
        set_wall(still, set_seconds)
        passed(still, 60)
        await seen(still, daemon, execution)
    async with still.daemon(driver=WallClock(still.engine)) as daemon:
        await daemon.reconciler.once()
        await daemon.fleet.looked()
        await seen(still, daemon, execution)
        passed(still, 48 * 60)
        await woken(still, execution)
        assert (await still.state(execution.flow_run_id)).type is RUNNING
        passed(still, 61)
        await woken(still, execution)
        state = await still.until_state(execution.flow_run_id, CRASHED)
        passed(still, 61)
        gone = await finished(still, execution)
    assert state.message == (
        "Time limit reached in the flow: the run was stopped after 1 h; its limit is 1 h, installation included. "
        "Raise the timeout job variable as far as the plan allows, or let it do less."
    )
    assert gone.end_cause is EndCause.TIME
