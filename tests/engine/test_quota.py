"""The quota watch: warned at each share once a month, stopped where the plan says so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest

from managedd.bus import Topic
from managedd.engine import quota
from managedd.engine.quota import QuotaWatch
from managedd.model.executions import EndCause, Phase
from managedd.model.limits import AWAITING_HOURS, OnExhausted
from tests.engine.test_runner import CANCELLED, CANCELLING, COMPLETED, CRASHED, FOREVER, RUNNING, finished, plan
from tests.engine.world import quick_settings
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from tests.engine.world import Daemon, World

pytestmark = pytest.mark.anyio


def watch(world: World, daemon: Daemon) -> QuotaWatch:
    return QuotaWatch(
        world.db,
        world.bus,
        zone=UTC,
        say=daemon.writer.say_end,
    )


async def told(world: World) -> list[tuple[str, int]]:
    rows = await world.read(
        lambda tx: tx.all("SELECT event, payload FROM events WHERE event LIKE 'managedd.workspace.%' ORDER BY rowid")
    )

    return [(row["event"].rpartition(".")[2], orjson.loads(row["payload"])["percent"]) for row in rows]


async def begun(world: World, daemon: Daemon) -> Any:
    execution = await world.claimed()
    daemon.fleet.start(execution)
    await world.until_phase(execution.flow_run_id, Phase.RUNNING)
    await world.propose(execution.flow_run_id, RUNNING)
    return execution


async def test_each_share_is_warned_of_once_a_month(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    await still.on_plan(compute_hours=10 / 60)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        watching = watch(still, daemon)
        await watching.tick()
        assert await told(still) == []
        clock.advance(7 * 60 + 1)
        await watching.tick()
        await watching.tick()
        assert await told(still) == [("warning", 80)]
        clock.advance(120)
        await watching.tick()
        await watching.tick()
        assert await told(still) == [("warning", 80), ("exhausted", 100)]
        assert (await still.state(execution.flow_run_id)).type is RUNNING, "under `finish` it goes on"
        clock.turn_to(datetime(2026, 4, 1, 0, 9, tzinfo=UTC))
        await watching.tick()
        assert await told(still) == [("warning", 80), ("exhausted", 100), ("warning", 80)]
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
        await finished(still, execution)


async def test_a_clock_that_is_set_back_over_the_months_end_warns_of_nothing_twice(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    clock.turn_to(datetime(2028, 2, 29, 23, 50, tzinfo=UTC))
    await still.on_plan(compute_hours=5 / 60, on_exhausted=OnExhausted.FINISH)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        watching = watch(still, daemon)
        clock.advance(300)
        await watching.tick()
        assert await told(still) == [("exhausted", 100)]
        clock.advance(300 + 245)
        await watching.tick()
        assert await told(still) == [("exhausted", 100), ("exhausted", 100)], "each month has its own"
        clock.set_wall(-1200)
        await watching.tick()
        clock.set_wall(1200)
        await watching.tick()
        assert len(await told(still)) == 2
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
        await finished(still, execution)


async def test_waiting_for_hours_ends_with_a_leap_february(still: World) -> None:
    """Over a daemon whose dispatcher runs: told with the day of the renewal, and gone on that day by itself."""
    clock = still.clock
    assert isinstance(clock, ManualClock)
    clock.turn_to(datetime(2028, 2, 29, 23, 0, tzinfo=UTC))
    await still.on_plan(compute_hours=1 / 60)
    plan(still, FOREVER)
    still.settings = quick_settings(poll_seconds=0.05)
    async with still.daemon() as daemon:
        first = await begun(still, daemon)
        clock.advance(30)
        await still.propose(first.flow_run_id, COMPLETED)
        still.engine.finish(first.id)
        await finished(still, first)
        waiting = await still.run()
        daemon.dispatch()

        async def was_told() -> bool:
            return (await still.state(waiting)).name == AWAITING_HOURS

        await still.until(was_told)
        assert (await still.state(waiting)).message == (
            "As of 2028-02-29 23:00 UTC, the workspace has used 1 min of the 1 min of compute time that plan 'pro' has for 2028-02; "
            "it is renewed on 2028-03-01 00:00 UTC."
        )
        clock.turn_to(datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC))
        assert not await daemon.dispatcher.tick()
        assert await still.executions(waiting) == []
        clock.turn_to(datetime(2028, 3, 1, tzinfo=UTC))
        second = await still.until_phase(waiting, Phase.RUNNING)
        assert await still.history(waiting) == ["Scheduled", AWAITING_HOURS, "Pending"]
        await still.propose(waiting, RUNNING)
        await still.propose(waiting, COMPLETED)
        still.engine.finish(second.id)
        await finished(still, second)


async def test_what_is_kept_for_a_run_that_starts_is_not_said_to_be_used(still: World) -> None:
    await still.on_plan(compute_hours=1 / 60)
    async with still.daemon() as daemon:
        await still.claimed()
        waiting = await still.run()
        await daemon.dispatcher.tick()
    assert (await still.state(waiting)).message == (
        "As of 2026-03-02 12:00 UTC, the workspace has used 0 min (1 min more kept for runs that start now) of the 1 min of compute "
        "time that plan 'pro' has for 2026-03; it is renewed on 2026-04-01 00:00 UTC."
    )


async def test_a_larger_plan_is_warned_of_anew(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    await still.on_plan(compute_hours=1 / 60)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        watching = watch(still, daemon)
        clock.advance(61)
        await watching.tick()
        await still.on_plan(compute_hours=10 / 60)
        await watching.tick()
        assert await told(still) == [("exhausted", 100)]
        clock.advance(400)
        await watching.tick()
        assert await told(still) == [("exhausted", 100), ("warning", 80)]
        await still.propose(execution.flow_run_id, COMPLETED)
        still.engine.finish(execution.id)
        await finished(still, execution)


async def test_runs_are_stopped_with_the_cause_where_the_plan_says_so(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        watching = watch(still, daemon)
        clock.advance(100)
        await still.on_plan(compute_hours=1 / 60, on_exhausted=OnExhausted.STOP)
        await watching.tick()
        state = await still.state(execution.flow_run_id)
        assert state.type is CRASHED
        assert state.message == (
            "The workspace's compute hours are used up: the workspace has used 2 min of the 1 min of compute time that plan 'pro' has "
            "for 2026-03; it is renewed on 2026-04-01 00:00 UTC."
        )
        ended = await finished(still, execution)
        await watching.tick()
    assert (ended.end_cause, ended.end_message) == (EndCause.QUOTA, state.message)
    assert await still.log_lines(execution.flow_run_id, "managedd") == [
        "Pulling image image",
        "Pulled image image",
        "Starting the run's container from image image",
        state.message,
    ]


async def test_a_run_that_is_being_cancelled_keeps_its_grace_and_its_cause(still: World) -> None:
    still.settings = quick_settings(cancel_grace_seconds=30.0)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        await still.propose(execution.flow_run_id, CANCELLING)
        await still.on_plan(compute_hours=0, on_exhausted=OnExhausted.STOP)
        await watch(still, daemon).tick()
        assert (await still.state(execution.flow_run_id)).type is CANCELLING
        assert (await still.execution(execution.flow_run_id)).stop_requested_at is None
        still.engine.finish(execution.id, 143)
        ended = await finished(still, execution)
        await daemon.writer.flush()
    state = await still.state(execution.flow_run_id)
    assert (state.type, ended.end_cause, ended.stop_reason) == (CANCELLED, EndCause.CANCEL, None)
    assert "hours" not in " ".join(await still.log_lines(execution.flow_run_id, "managedd"))


async def test_a_run_that_has_just_completed_keeps_its_end(still: World) -> None:
    clock = still.clock
    assert isinstance(clock, ManualClock)
    plan(still, FOREVER)
    async with still.daemon() as daemon:
        execution = await begun(still, daemon)
        await still.propose(execution.flow_run_id, COMPLETED)
        await still.on_plan(compute_hours=0, on_exhausted=OnExhausted.STOP)
        await watch(still, daemon).tick()
        assert (await still.state(execution.flow_run_id)).type is COMPLETED
        still.engine.finish(execution.id)
        assert (await finished(still, execution)).end_cause is EndCause.COMPLETED


async def test_a_storm_of_commits_is_one_look(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks cost with every workspace and every run: slots that come and go by the dozen must not be as many looks."""
    looks, again = 0, anyio.Event()

    class Counted(QuotaWatch):
        async def tick(self) -> None:
            nonlocal looks
            looks += 1
            if looks == 2:
                again.set()

    async def say(*_: object) -> None: ...

    monkeypatch.setattr(quota, "REST_SECONDS", 0.5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Counted(still.db, still.bus, zone=UTC, say=say).run)
        for _ in range(50):
            await anyio.wait_all_tasks_blocked()
            still.bus.publish([Topic.SLOTS])
        with anyio.fail_after(10):
            await again.wait()
        tasks.cancel_scope.cancel()
    assert looks < 10, "one for all of them, were they quicker than a rest"
