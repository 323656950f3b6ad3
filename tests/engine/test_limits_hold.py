"""Limits beyond slots: compute hours, the rate of starts, what the host has; and who goes first where all compete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.clock import iso, to_us
from managedd.engine.turns import BATCH, RIGHT_OF_WAY_SECONDS
from managedd.model.executions import Phase
from managedd.model.limits import AWAITING_HOST, AWAITING_HOURS, HostLimits, Needs, Plan
from managedd.model.metering import month_named
from managedd.model.states import StateType
from managedd.store import executions, flow_runs, overdue, plans, rows, usage
from managedd.store.resources import FLOW, WORK_POOL, WORK_QUEUE
from managedd.store.workspaces import create, move
from tests.engine.test_dispatcher import Desk, end
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

GIB = 1024**3


def turn_to(world: World, moment: datetime) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.turn_to(moment)


def advance(world: World, seconds: float) -> None:
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(seconds)


async def begin(world: World, run_id: str) -> None:
    def body(tx: Tx) -> None:
        live = executions.live_of_run(tx, run_id)
        assert live is not None
        executions.advance(tx, live.id, (Phase.CLAIMED,), Phase.CREATED)
        executions.advance(tx, live.id, (Phase.CREATED,), Phase.RUNNING, {"started_at": tx.now})

    await world.write(body)


async def finish(world: World, run_id: str) -> None:
    """The run has ended, and what it cost is in the ledger, as its runner would write it."""

    def body(tx: Tx) -> None:
        live = executions.live_of_run(tx, run_id)
        assert live is not None
        ended = executions.advance(tx, live.id, (live.phase,), Phase.EXITED, {"exited_at": tx.now})
        assert ended is not None
        usage.record(tx, ended, None, UTC)

    await world.write(body)
    await end_exited(world, run_id)


async def end_exited(world: World, run_id: str) -> None:
    def body(tx: Tx) -> None:
        live = executions.live_of_run(tx, run_id)
        assert live is not None
        executions.advance(tx, live.id, (Phase.EXITED,), Phase.FINALIZED)

    await world.propose(run_id, StateType.COMPLETED)
    await world.write(body)


async def workspace(world: World, handle: str) -> tuple[str, str]:
    """Another workspace with a pool: its id and its queue."""
    account, made = ids.new_id(), ids.new_id()

    def body(tx: Tx) -> str:
        create(tx, account_id=account, account=handle, workspace_id=made, handle=handle, plan="pro")
        scoped = tx.scoped(made)
        pool = rows.insert(scoped, WORK_POOL, {"name": "p", "type": "prefect:managed", "base_job_template": {}})
        return rows.insert(scoped, WORK_QUEUE, {"name": "default", "work_pool_id": pool, "priority": 1})

    return made, await world.write(body)


# --- compute hours -------------------------------------------------------------------------------------------------------


async def test_exhausted_hours_hold_new_runs_until_the_month_ends(still: World) -> None:
    turn_to(still, datetime(2026, 11, 29, 22, 0, tzinfo=UTC))
    desk = Desk(still, plan={"compute_hours": 0.5})
    first = await still.run()
    assert await desk.all() == [first]
    await begin(still, first)
    advance(still, 1795)
    await finish(still, first)

    waiting = [await still.run(due_in_seconds=number - 3) for number in range(3)]
    assert await desk.all() == [first]
    for run_id in waiting:
        state = await still.state(run_id)
        assert (state.type, state.name) == (StateType.SCHEDULED, AWAITING_HOURS)
        assert state.message == (
            "As of 2026-11-29 22:29 UTC, the workspace has used 30 min of the 30 min of compute time that plan 'pro' has for 2026-11; "
            "it is renewed on 2026-12-01 00:00 UTC."
        )
    assert await desk.all() == [first], "told once"
    assert [len(await still.history(run_id)) for run_id in waiting] == [2, 2, 2]

    turn_to(still, datetime(2026, 12, 1, tzinfo=UTC))
    assert await desk.all() == [first, *waiting]


async def test_a_larger_plan_lets_them_go_at_once(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 0})
    run_id = await still.run()
    assert await desk.all() == []
    assert (await still.state(run_id)).name == AWAITING_HOURS
    await still.on_plan(compute_hours=1)
    assert await desk.all() == [run_id]


async def test_a_plan_that_left_the_settings_allows_nothing(still: World) -> None:
    desk = Desk(still)
    await still.write(lambda tx: plans.replace(tx, []))
    run_id = await still.run()
    assert await desk.all() == []
    assert (await still.state(run_id)).name == AWAITING_HOURS


async def test_what_runs_now_counts_and_what_was_just_claimed_a_minute_each(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 4 / 60})
    runs = [await still.run(due_in_seconds=number - 6) for number in range(6)]
    assert await desk.all() == runs[:4]
    for run_id in runs[:4]:
        await begin(still, run_id)
    assert await desk.all() == runs[:4]


@pytest.mark.parametrize("before", [0, 1], ids=["the only run", "not the only run"])
async def test_a_month_that_is_over_keeps_its_plan_when_a_run_ends_in_the_next_one(still: World, before: int) -> None:
    """On the first of the month the workspace moves to another plan, and a run over midnight ends after that."""
    turn_to(still, datetime(2026, 11, 30, 23, 50, tzinfo=UTC))
    await still.db.write(
        lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=250), Plan(name="free", compute_hours=10)])
    )
    desk = Desk(still)
    runs = [await still.run(due_in_seconds=number - 3) for number in range(before + 1)]
    assert await desk.all() == runs
    for run_id in runs:
        await begin(still, run_id)
    for run_id in runs[:before]:
        await finish(still, run_id)
    turn_to(still, datetime(2026, 12, 1, 0, 1, tzinfo=UTC))
    await still.db.write(lambda tx: move(tx, still.workspace, "free"))
    await finish(still, runs[-1])
    november, december = (month_named(name, UTC) for name in ("2026-11", "2026-12"))
    assert await still.read(lambda tx: usage.measure(tx, still.workspace, november)) == ("pro", 250 * 60)
    assert await still.read(lambda tx: usage.measure(tx, still.workspace, december)) == ("free", 10 * 60)


async def test_waiting_for_hours_is_not_late(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 0})
    run_id = await still.run(due_in_seconds=-100)
    await desk.all()
    assert await still.read(lambda tx: overdue.late(tx, due_before_us=tx.now, limit=10)) == []
    assert (await still.state(run_id)).details["scheduled_time"] == iso(still.clock.now_us() - 100_000_000)


async def test_everybody_who_waits_for_hours_is_told_however_many_there_are(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 0})
    runs = [await still.run(due_in_seconds=-100) for _ in range(150)]
    assert await desk.all() == []
    assert {(await still.state(run_id)).name for run_id in runs} == {AWAITING_HOURS}
    assert await still.read(lambda tx: overdue.late(tx, due_before_us=tx.now, limit=10)) == []


# --- slots of what was deleted -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pool", "queue"])
async def test_a_run_whose_pool_or_queue_was_deleted_keeps_its_slot(still: World, what: str) -> None:
    desk = Desk(still, plan={"concurrent_runs": 1})
    pool, queue_id = await still.pool("short-lived")
    if what == "queue":
        queue_id = await still.queue("short-lived", pool)
    first = await still.run(queue_id=queue_id)
    assert await desk.all() == [first]
    await still.propose(first, StateType.RUNNING)
    if what == "pool":
        await still.write(lambda tx: rows.delete(tx, WORK_POOL, pool))
    else:
        await still.write(lambda tx: rows.delete(tx, WORK_QUEUE, queue_id))
    second = await still.run()
    assert await desk.all() == [first]
    await end(still, first)
    assert await desk.all() == [first, second]


async def test_a_queue_counts_what_waits_in_its_process(still: World) -> None:
    await still.write(lambda tx: rows.patch(tx, WORK_QUEUE, still.queue_id, {"concurrency_limit": 1}))
    desk = Desk(still)
    first = await still.run(due_in_seconds=-5)
    second = await still.run()
    assert await desk.all() == [first]
    await still.propose(first, StateType.RUNNING)
    await still.propose(first, StateType.SCHEDULED, name="AwaitingRetry", force=True)
    assert await desk.all() == [first]
    await end(still, first)
    assert await desk.all() == [first, second]


@pytest.mark.parametrize("how", ["suspended", "scheduled anew", "deleted", "waits in its process"])
async def test_a_container_counts_for_its_deployment_while_its_process_leaves(still: World, how: str) -> None:
    deployed = await still.deployment(concurrency_limit=1)
    desk = Desk(still)
    first = await still.run(deployment_id=deployed, due_in_seconds=-1)
    assert await desk.all() == [first]
    await begin(still, first)
    await still.propose(first, StateType.RUNNING)
    match how:
        case "suspended":
            details = {"pause_reschedule": True, "pause_timeout": "2099-01-01T00:00:00Z"}
            await still.propose(first, StateType.PAUSED, details=details)
        case "scheduled anew":
            await still.propose(first, StateType.SCHEDULED, force=True)
        case "deleted":
            await still.write(lambda tx: flow_runs.delete(tx, first))
        case _:
            await still.propose(first, StateType.PAUSED, details={"pause_reschedule": False})
    second = await still.run(deployment_id=deployed)
    if how == "waits in its process":
        assert await desk.all() == [first, second]
        return
    assert await desk.all() == [first]
    assert (await still.state(second)).name == "AwaitingConcurrencySlot"

    def gone(tx: Tx) -> None:
        live = executions.live_of_run(tx, first)
        assert live is not None
        executions.advance(tx, live.id, (Phase.RUNNING,), Phase.EXITED)
        executions.advance(tx, live.id, (Phase.EXITED,), Phase.FINALIZED)

    if how == "scheduled anew":
        # Its own next attempt is due before.
        await still.propose(first, StateType.CANCELLED, force=True)
    await still.write(gone)
    assert await desk.all() == [first, second]


async def test_a_row_that_breaks_the_reckoning_stops_nobody_else(still: World) -> None:
    bad = await still.run(due_in_seconds=-5)

    def needs(tx: Tx, run_id: str) -> Needs:
        if run_id == bad:
            raise AttributeError("a template that is none")
        return Needs(memory_bytes=1, cpus=1)

    desk = Desk(still, needs=needs)
    good = await still.run()
    assert await desk.all() == [good]


# --- the rate of starts ----------------------------------------------------------------------------------------------------


async def test_starts_keep_to_burst_and_rate(still: World) -> None:
    desk = Desk(still, plan={"start_burst": 2, "starts_per_minute": 6})
    runs = [await still.run(due_in_seconds=number - 5) for number in range(5)]
    assert await desk.all() == runs[:2]
    advance(still, 9.9)
    assert await desk.all() == runs[:2]
    advance(still, 0.2)
    assert await desk.all() == runs[:3]
    advance(still, 3600)
    assert await desk.all() == runs
    assert (await still.history(runs[4])).count("Scheduled") == 1, "who waits for this is told nothing"


async def test_a_steady_rate_does_not_bring_the_burst_back(still: World) -> None:
    """Whoever starts all that comes back, for hours, has no second burst."""
    desk = Desk(still, plan={"start_burst": 5, "starts_per_minute": 1})
    runs = [await still.run() for _ in range(5)]
    assert sorted(await desk.all()) == sorted(runs)
    for _ in range(90):
        advance(still, 60)
        run_id = await still.run()
        runs.append(run_id)
        assert (await desk.all())[-1] == run_id
        await end(still, run_id)
    await still.run()
    assert len(await desk.all()) == len(runs)


async def test_a_clock_that_was_set_back_does_not_stop_starts(still: World) -> None:
    desk = Desk(still, plan={"start_burst": 1, "starts_per_minute": 60})
    first = await still.run(due_in_seconds=-7200)
    assert await desk.all() == [first]
    assert isinstance(still.clock, ManualClock)
    still.clock.set_wall(-3600)
    second = await still.run(due_in_seconds=-7200)
    assert await desk.all() == [first, second]


# --- the host --------------------------------------------------------------------------------------------------------------


def needing(sizes: dict[str, Needs]) -> Callable[[Any, str], Needs]:
    return lambda tx, run_id: sizes[run_id]


async def test_the_host_is_never_promised_twice(still: World) -> None:
    sizes: dict[str, Needs] = {}
    desk = Desk(still, needs=needing(sizes), host=HostLimits(memory_bytes=4 * GIB, cpus=2.5))
    runs = [await still.run(due_in_seconds=number - 10) for number in range(4)]
    sizes |= dict(zip(runs, [Needs(memory_bytes=3 * GIB, cpus=1), Needs(memory_bytes=2 * GIB, cpus=1),
                             Needs(memory_bytes=GIB, cpus=1), Needs(memory_bytes=0, cpus=1)], strict=True))  # fmt: skip
    assert await desk.all() == [runs[0], runs[2]], "a smaller one may pass"
    state = await still.state(runs[1])
    assert state.name == AWAITING_HOST
    assert state.message == ("The run needs 2.0 GiB of memory, and 1.0 GiB of 4.0 GiB are not reserved on this host.")
    assert "1 processors, and 0.5 of 2.5 are not reserved" in str((await still.state(runs[3])).message)
    reserved = await still.read(executions.reserved)
    assert reserved == Needs(memory_bytes=4 * GIB, cpus=2)

    await end(still, runs[0])
    assert await desk.all() == [runs[0], runs[2], runs[1]]
    assert (await still.history(runs[1])).count(AWAITING_HOST) == 1


async def test_small_runs_do_not_keep_a_large_one_out_for_ever(still: World) -> None:
    sizes: dict[str, Needs] = {}
    desk = Desk(still, needs=needing(sizes), host=HostLimits(memory_bytes=4 * GIB))
    small, large = Needs(memory_bytes=GIB, cpus=1), Needs(memory_bytes=4 * GIB, cpus=1)
    first = await still.run(due_in_seconds=-10)
    big = await still.run(due_in_seconds=-9)
    sizes |= {first: small, big: large}
    assert await desk.all() == [first]
    second = await still.run()
    sizes[second] = small
    assert await desk.all() == [first, second]
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    third = await still.run()
    sizes[third] = small
    assert await desk.all() == [first, second]
    assert (await still.state(third)).name == AWAITING_HOST
    for run_id in (first, second):
        await end(still, run_id)
    assert await desk.all() == [first, second, big]


async def test_a_run_that_the_host_could_never_hold_is_refused(still: World) -> None:
    desk = Desk(
        still,
        needs=lambda tx, run_id: Needs(memory_bytes=8 * GIB, cpus=1),
        host=HostLimits(memory_bytes=4 * GIB),
    )
    run_id = await still.run()
    assert await desk.all() == []
    state = await still.state(run_id)
    assert state.type is StateType.CRASHED
    assert state.message == (
        "The run's job variables can't be used: The run needs 8.0 GiB of memory, and 4.0 GiB of 4.0 GiB are not reserved on this host. "
        "It never will: lower memory_limit or cpu_limit."
    )


# --- fairness --------------------------------------------------------------------------------------------------------------


async def test_a_crowd_in_one_workspace_does_not_delay_anothers_one_run(still: World) -> None:
    desk = Desk(still, host=HostLimits(memory_bytes=8 * GIB))
    crowd = [await still.run(due_in_seconds=-1000) for _ in range(40)]
    other, other_queue = await workspace(still, "other")
    mine, still.workspace = still.workspace, other
    flow = await still.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    lonely = await still.run(queue_id=other_queue, flow_id=flow)
    still.workspace = mine
    claimed = await desk.all()
    assert len(claimed) == 4
    assert claimed.index(lonely) <= 1
    assert set(claimed) - {lonely} <= set(crowd)


async def test_a_crowd_without_hours_is_told_after_those_who_can_go(still: World) -> None:
    """Telling thousands takes many transactions; whoever has hours goes in the first of them."""
    desk = Desk(still)
    await still.write(lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=0), Plan(name="other")]))
    for _ in range(BATCH + 10):
        await still.run(due_in_seconds=-1000)
    other, other_queue = await workspace(still, "other")
    await still.write(lambda tx: move(tx, other, "other"))
    mine, still.workspace = still.workspace, other
    flow = await still.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    lonely = await still.run(queue_id=other_queue, flow_id=flow)
    still.workspace = mine
    await desk.dispatcher.tick()
    assert desk.claimed == [lonely]


async def test_pools_of_a_workspace_take_turns(still: World) -> None:
    desk = Desk(still, plan={"concurrent_runs": 4})
    crowd = [await still.run(due_in_seconds=-1000) for _ in range(20)]
    _, second = await still.pool("second")
    few = [await still.run(queue_id=second) for _ in range(2)]
    claimed = await desk.all()
    assert set(few) <= set(claimed)
    assert sum(run_id in crowd for run_id in claimed) == 2


async def test_a_clock_that_is_set_back_frees_no_hours(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 1 / 60})
    first, second = await still.run(due_in_seconds=-1), await still.run()
    assert await desk.all() == [first]
    await begin(still, first)
    assert isinstance(still.clock, ManualClock)
    still.clock.set_wall(-3600)
    await finish(still, first)
    assert to_us(datetime(2026, 3, 1, tzinfo=UTC)) < still.clock.now_us()
    still.clock.set_wall(3600)
    assert await desk.all() == [first]
    assert (await still.state(second)).name == AWAITING_HOURS
