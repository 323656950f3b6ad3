"""What runs cost: reckoned while they run, in the ledger once they have ended, once and for all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from managedd.drivers.fake import FakeRun
from managedd.model.executions import Phase
from managedd.model.metering import month_of
from managedd.store import flow_runs, usage
from managedd.store.usage import Used
from tests.engine.test_runner import COMPLETED, FOREVER, RUNNING, Slow, finished, plan
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from managedd.store.usage import By
    from tests.engine.world import World

pytestmark = pytest.mark.anyio


async def used(world: World, moment_us: int | None = None) -> Used:
    month = month_of(moment_us or world.clock.now_us(), UTC)
    own = await world.read(lambda tx: usage.used(tx, world.workspace, month, UTC))
    assert await world.read(lambda tx: usage.used_by_all(tx, month, UTC)[world.workspace]) == own
    return own


async def told(world: World, by: By) -> list[tuple[str, int, int]]:
    month = month_of(world.clock.now_us(), UTC)
    return await world.read(lambda tx: usage.broken_down(tx, world.workspace, month, UTC, by))


def passed(world: World, seconds: float) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(seconds)
    world.engine.wake()


async def begun(world: World, execution: Execution) -> None:
    await world.until_phase(execution.flow_run_id, Phase.RUNNING)
    await world.propose(execution.flow_run_id, RUNNING)


async def ended(world: World, execution: Execution) -> Execution:
    await world.propose(execution.flow_run_id, COMPLETED)
    world.engine.finish(execution.id)
    return await finished(world, execution)


async def test_a_run_costs_from_its_start_to_its_end(still: World) -> None:
    plan(still, FOREVER)
    deployed = await still.deployment("d")
    async with still.daemon() as daemon:
        execution = await still.claimed(deployment_id=deployed)
        passed(still, 1)
        assert await used(still) == Used(ended=0, running=0), "waiting is free"
        daemon.fleet.start(execution)
        await begun(still, execution)
        assert await used(still) == Used(ended=0, running=1)
        passed(still, 61)
        assert await used(still) == Used(ended=0, running=2)
        assert await told(still, "deployment") == [("etl/d", 2, 1)]
        await ended(still, execution)
    assert await used(still) == Used(ended=2, running=0)
    assert await told(still, "deployment") == [("etl/d", 2, 1)]
    assert await told(still, "day") == [("2026-03-02", 2, 1)]


async def test_what_was_never_started_is_free(world: World) -> None:
    plan(world, FakeRun(image_error="no such image"))
    async with world.daemon() as daemon:
        execution = await world.claimed()
        daemon.fleet.start(execution)
        await finished(world, execution)
    assert await used(world) == Used(ended=0, running=0)


async def test_a_run_that_is_deleted_has_cost_what_it_has_cost(still: World) -> None:
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await begun(still, execution)
        passed(still, 120)
        await ended(still, execution)

    def delete(tx: Tx) -> None:
        flow_runs.delete(tx, execution.flow_run_id)

    await still.write(delete)
    assert await used(still) == Used(ended=2, running=0)
    assert await told(still, "deployment") == [("etl", 2, 1)]


async def test_two_attempts_are_two_executions(still: World) -> None:
    """Each is rounded up by itself, as a suspended run that was resumed is."""
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        for _ in range(2):
            execution = await still.claimed()
            daemon.fleet.start(execution)
            await begun(still, execution)
            passed(still, 61)
            await ended(still, execution)
    assert await used(still) == Used(ended=4, running=0)


async def test_a_daemon_that_was_down_loses_and_doubles_nothing(still: World) -> None:
    """Its container ended while nobody looked: the engine's own account counts, not when it was noticed."""
    plan(still, FOREVER)
    execution = await still.claimed()
    async with still.daemon() as daemon:
        daemon.fleet.start(execution)
        await begun(still, execution)
    await still.propose(execution.flow_run_id, COMPLETED)
    passed(still, 150)
    still.engine.finish(execution.id)
    passed(still, 3 * 86_400)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        gone = await finished(still, execution)
    assert gone.started_at is not None
    assert await used(still) == Used(ended=3, running=0)
    await still.write(lambda tx: usage.record(tx, gone, None, UTC))
    assert await used(still) == Used(ended=3, running=0), "said twice, counted once"


@pytest.mark.parametrize("ended_meanwhile", [False, True])
async def test_a_start_that_nobody_noted_counts_from_when_it_was(still: World, ended_meanwhile: bool) -> None:
    """The daemon was killed between the engine's start and the row; what ran until the next one looked has cost something too."""
    assert isinstance(still.clock, ManualClock)
    still.clock.turn_to(datetime(2026, 11, 30, 23, 57, 30, tzinfo=UTC))
    november, started_us = still.clock.now_us(), still.clock.now_us()
    plan(still, FOREVER)
    first = Slow(still.engine, "start")
    async with still.daemon(driver=first) as daemon:
        execution = await still.claimed()
        passed(still, 1)
        started_us = still.clock.now_us()
        daemon.fleet.start(execution)
        await first.entered.wait()
    assert (await still.execution(execution.flow_run_id)).phase is Phase.CREATED
    await still.propose(execution.flow_run_id, RUNNING)
    passed(still, 239)
    if ended_meanwhile:
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
        passed(still, 3600)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        if not ended_meanwhile:
            adopted = await still.until_phase(execution.flow_run_id, Phase.RUNNING)
            assert adopted.started_at == started_us
            assert await used(still) == Used(ended=0, running=1)
            await still.propose(execution.flow_run_id, COMPLETED)
            still.engine.finish(execution.id)
        gone = await finished(still, execution)
    assert gone.started_at == started_us
    assert await used(still, november) == Used(ended=3, running=0)
    assert await used(still) == Used(ended=1, running=0)


async def test_a_start_that_nobody_noted_of_what_is_gone(still: World) -> None:
    """Its run has said when it began, and nobody knows for how long it ran: not for the whole downtime."""
    plan(still, FOREVER)
    first = Slow(still.engine, "start")
    async with still.daemon(driver=first) as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await first.entered.wait()
    passed(still, 5)
    await still.propose(execution.flow_run_id, RUNNING)
    began_us = still.clock.now_us()
    passed(still, 125)
    still.engine.vanish(execution.id)
    passed(still, 20 * 3600)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        gone = await finished(still, execution)
    assert gone.started_at == began_us
    assert await used(still, began_us) == Used(ended=1, running=0)


@pytest.mark.parametrize(
    ("last", "first"),
    [
        ("2026-11-30", "2026-12-01"),
        ("2028-02-29", "2028-03-01"),
        ("2027-02-28", "2027-03-01"),
        ("2026-12-31", "2027-01-01"),
    ],
)
async def test_a_month_that_ends_in_between(still: World, last: str, first: str) -> None:
    """A long, a leap and a plain month, and a year."""
    assert isinstance(still.clock, ManualClock)
    still.clock.turn_to(datetime.fromisoformat(f"{last}T23:58:30Z"))
    before = still.clock.now_us()
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await begun(still, execution)
        assert await told(still, "day") == [(last, 1, 1)]
        passed(still, 270)
        assert await used(still, before) == Used(ended=0, running=2)
        assert await used(still) == Used(ended=0, running=3)
        assert await told(still, "day") == [(first, 3, 1)]
        await ended(still, execution)
    assert await used(still, before) == Used(ended=2, running=0)
    assert await used(still) == Used(ended=3, running=0)
    assert await told(still, "day") == [(first, 3, 1)]


async def test_a_daemon_that_was_down_over_the_end_of_a_leap_month(still: World) -> None:
    assert isinstance(still.clock, ManualClock)
    still.clock.turn_to(datetime(2028, 2, 29, 23, 50, tzinfo=UTC))
    february = still.clock.now_us()
    plan(still, FOREVER)
    execution = await still.claimed()
    async with still.daemon() as daemon:
        daemon.fleet.start(execution)
        await begun(still, execution)
    await still.propose(execution.flow_run_id, COMPLETED)
    passed(still, 15 * 60)
    still.engine.finish(execution.id)
    passed(still, 40 * 86_400)
    async with still.daemon() as daemon:
        await daemon.reconciler.once()
        await finished(still, execution)
    assert await used(still, february) == Used(ended=10, running=0)
    assert await used(still, february + 86_400_000_000) == Used(ended=5, running=0)
    assert await used(still) == Used(ended=0, running=0), "in April nothing has run"


async def test_a_clock_that_is_set_back_an_hour_takes_and_doubles_nothing(still: World) -> None:
    assert isinstance(still.clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await begun(still, execution)
        passed(still, 600)
        assert await used(still) == Used(ended=0, running=10)
        still.clock.set_wall(-3600)
        assert await used(still) == Used(ended=0, running=1)
        gone = await ended(still, execution)
        assert await used(still) == Used(ended=10, running=0), "as long as the engine says"
        still.clock.set_wall(3600)
        await daemon.reconciler.once()
    await still.write(lambda tx: usage.record(tx, gone, None, UTC))
    assert await used(still) == Used(ended=10, running=0)


async def test_a_clock_that_is_set_back_into_the_last_month(still: World) -> None:
    """What was begun in March costs March, whatever day it is when it ends; February is not charged again."""
    assert isinstance(still.clock, ManualClock)
    still.clock.turn_to(datetime(2028, 2, 29, 23, 59, 50, tzinfo=UTC))
    february = still.clock.now_us()
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        first = await still.claimed()
        daemon.fleet.start(first)
        await begun(still, first)
        passed(still, 5)
        await ended(still, first)
        passed(still, 25)
        march = still.clock.now_us()
        second = await still.claimed()
        daemon.fleet.start(second)
        await begun(still, second)
        passed(still, 90)
        still.clock.set_wall(-3600)
        assert await used(still) == Used(ended=1, running=0)
        await ended(still, second)
    assert await used(still, february) == Used(ended=1, running=0)
    assert await used(still, march) == Used(ended=2, running=0)


async def test_the_ledger_forgets_by_and_by_and_the_sums_stay(still: World) -> None:
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await still.claimed()
        daemon.fleet.start(execution)
        await begun(still, execution)
        await ended(still, execution)
    month = month_of(still.clock.now_us(), UTC)
    assert await still.write(lambda tx: usage.forget(tx, before_month=month.name, limit=10)) == 0
    assert await still.write(lambda tx: usage.forget(tx, before_month="2026-04", limit=10)) == 1
    assert await used(still) == Used(ended=1, running=0)
    assert await told(still, "day") == []


async def test_a_warning_is_remembered_for_its_month(still: World) -> None:
    month = month_of(still.clock.now_us(), UTC)
    assert await still.read(lambda tx: usage.warned(tx, still.workspace, month)) == 0
    await still.write(lambda tx: usage.warn(tx, still.workspace, month, 80))
    assert await still.read(lambda tx: usage.warned(tx, still.workspace, month)) == 80
    assert await used(still) == Used(ended=0, running=0)
