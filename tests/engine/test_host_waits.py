"""Who waits for the host besides others: whom a full deployment keeps, whose size varies, and fractions of processors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.engine.order import OVERDUE_SECONDS
from managedd.engine.turns import PARKED, RIGHT_OF_WAY_SECONDS, SETTLED_SECONDS
from managedd.model.limits import AWAITING_HOST, HostLimits, Needs, Plan
from managedd.model.states import StateType
from managedd.orchestration.managed_job import ManagedJob
from managedd.orchestration.plan_rules import check_host
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, TASK_RUN
from managedd.store.workspaces import create
from tests.engine.test_dispatcher import Desk, end
from tests.engine.test_limits_hold import GIB, advance
from tests.engine.test_waiting import Sizes

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

AWAITING_SLOT = "AwaitingConcurrencySlot"
SIX, FOUR, ONE = (Needs(memory_bytes=size * GIB, cpus=1) for size in (6, 4, 1))


async def test_a_workspace_that_holds_less_does_not_keep_the_host_from_a_large_run_for_ever(still: World) -> None:
    sizes = Sizes(Needs(memory_bytes=2 * GIB, cpus=1))
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    mine, others = still.workspace, ids.new_id()
    await still.db.write(
        lambda tx: create(tx, account_id=ids.new_id(), account="o", workspace_id=others, handle="o", plan="pro")
    )
    still.workspace = others
    flow_id = await still.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    _, queue_id = await still.pool("theirs")

    async def small() -> str:
        still.workspace = others
        run_id = await still.run(queue_id=queue_id, flow_id=flow_id)
        still.workspace = mine
        return run_id

    still.workspace = mine
    long = await still.run()
    sizes.of[long] = ONE
    running = await small()
    assert sorted(await desk.all()) == sorted([long, running])
    large = await still.run()
    sizes.of[large] = SIX
    await desk.all()
    passed = 0
    while large not in desk.claimed:
        # Theirs is the workspace that holds least, each time.
        following = await small()
        advance(still, 60)
        still.workspace = others
        await end(still, running)
        still.workspace = mine
        assert following in await desk.all() or large in desk.claimed
        running, passed = following, passed + 1
        assert passed <= OVERDUE_SECONDS / 60 + 1
    assert passed >= OVERDUE_SECONDS / 60, "until then, their turn comes first"
    assert running not in desk.claimed
    await end(still, large)
    assert running in await desk.all()


@pytest.mark.parametrize(("gib", "most_ends"), [(1, 1), (3, 8), (4, 9)])
async def test_a_crowd_that_has_waited_long_does_not_delay_anothers_one_run(
    still: World, gib: int, most_ends: int
) -> None:
    """The crowd's runs take a gibibyte of four, and one of them ends each minute: the first place is for one that needs no more, and
    whoever needs more waits for its right of way and for as many ends as it needs places."""
    desk = Desk(still, needs=(sizes := Sizes(ONE)), host=HostLimits(memory_bytes=4 * GIB))
    mine, others = still.workspace, ids.new_id()
    await still.db.write(
        lambda tx: create(tx, account_id=ids.new_id(), account="o", workspace_id=others, handle="o", plan="pro")
    )
    still.workspace = others
    flow_id = await still.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
    _, queue_id = await still.pool("theirs")
    still.workspace = mine
    crowd = [await still.run(due_in_seconds=number - 100) for number in range(30)]
    assert await desk.all() == crowd[:4]
    advance(still, OVERDUE_SECONDS + 5)
    still.workspace = others
    one = await still.run(queue_id=queue_id, flow_id=flow_id)
    still.workspace = mine
    sizes.of[one] = Needs(memory_bytes=gib * GIB, cpus=1)
    await desk.all()
    ends = 0
    while one not in desk.claimed:
        advance(still, 60)
        await end(still, desk.claimed[ends])
        await desk.all()
        ends += 1
        assert ends <= most_ends


async def test_a_run_that_another_waits_for_passes_who_waits_for_that_ones_place(still: World) -> None:
    """Else nothing would move: the large one waits for the parent's end, the parent for its child's."""
    desk = Desk(still, needs=(sizes := Sizes(ONE)), host=HostLimits(memory_bytes=8 * GIB))
    parent = await still.run()
    sizes.of[parent] = FOUR
    assert await desk.all() == [parent]
    large = await still.run(due_in_seconds=-1)
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    other = await still.run()
    task_run = await still.write(
        lambda tx: rows.insert(tx, TASK_RUN, {"flow_run_id": parent, "name": "t", "task_key": "k", "dynamic_key": "0"})
    )
    child = await still.run(parent_task_run_id=task_run)
    assert await desk.all() == [parent, child]
    assert {(await still.state(run_id)).name for run_id in (large, other)} == {AWAITING_HOST}
    await end(still, child)
    await end(still, parent)
    assert await desk.all() == [parent, child, large, other]


# --- whom a full deployment keeps ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["ENQUEUE", "CANCEL_NEW"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_whose_deployment_is_full_is_told_that_though_the_host_is_short_as_well(
    still: World, strategy: str, at_once: bool
) -> None:
    deployed = await still.deployment(concurrency_limit=1, concurrency_options={"collision_strategy": strategy})
    desk = Desk(still, needs=Sizes(SIX), host=HostLimits(memory_bytes=8 * GIB))
    first = await still.run(deployment_id=deployed, due_in_seconds=-1)
    if not at_once:
        await desk.all()
    second = await still.run(deployment_id=deployed)
    assert await desk.all() == [first]
    state = await still.state(second)
    if strategy == "CANCEL_NEW":
        assert state.type is StateType.CANCELLED
        return
    assert state.name == AWAITING_SLOT
    await desk.all()
    assert await still.history(second) == ["Scheduled", AWAITING_SLOT], "it is told once"
    await end(still, first)
    assert await desk.all() == [first, second]


async def test_whoever_waits_for_the_host_is_refused_once_its_deployment_cancels_new_ones_and_is_full(
    still: World,
) -> None:
    cancels = {"collision_strategy": "CANCEL_NEW"}
    deployed = await still.deployment(concurrency_limit=1, concurrency_options=cancels)
    desk = Desk(still, needs=(sizes := Sizes(SIX)), host=HostLimits(memory_bytes=8 * GIB))
    before = await still.run(due_in_seconds=-10)
    assert await desk.all() == [before]
    first, second, third = [await still.run(deployment_id=deployed, due_in_seconds=number - 9) for number in range(3)]
    other = await still.run()
    await desk.all()
    waiting = (first, second, third, other)
    assert [(await still.state(run_id)).name for run_id in waiting] == [AWAITING_HOST] * 4, "none of them was tried"
    sizes.of[third] = replace(SIX, varies=True)
    await end(still, before)
    assert await desk.all() == [before, first]
    assert [(await still.state(run_id)).type for run_id in (second, third)] == [StateType.CANCELLED] * 2
    assert (await still.state(other)).name == AWAITING_HOST
    await end(still, first)
    assert await desk.all() == [before, first, other]


async def test_whose_deployment_is_full_keeps_the_host_from_nobody(still: World) -> None:
    """Both runs of the deployment waited long; the one that goes leaves room that the other could not use."""
    sizes = Sizes(ONE)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    deployed = await still.deployment(concurrency_limit=1)
    before = await still.run(due_in_seconds=-10)
    sizes.of[before] = Needs(memory_bytes=7 * GIB, cpus=1)
    assert await desk.all() == [before]
    first, second = [await still.run(deployment_id=deployed, due_in_seconds=number - 9) for number in range(2)]
    sizes.of |= dict.fromkeys((first, second), SIX)
    assert await desk.all() == [before]
    assert {(await still.state(run_id)).name for run_id in (first, second)} == {AWAITING_HOST}
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    await end(still, before)
    small = [await still.run(due_in_seconds=number - 3) for number in range(3)]
    assert await desk.all() == [before, first, *small[:2]]
    assert (await still.state(small[2])).name == AWAITING_HOST
    await end(still, first)
    assert second in await desk.all(), "with a slot it has not lost its turn"


async def test_the_right_of_way_of_the_next_is_kept_when_a_deployment_becomes_full(still: World) -> None:
    """Of those that waited long, the first fills its deployment, and the second is of it: nobody passes the third."""
    sizes = Sizes(SIX)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    deployed = await still.deployment(concurrency_limit=1)
    before = [await still.run(due_in_seconds=number - 20) for number in range(2)]
    sizes.of |= {before[0]: Needs(memory_bytes=3 * GIB, cpus=1), before[1]: Needs(memory_bytes=5 * GIB, cpus=1)}
    assert await desk.all() == before
    first, second = [await still.run(deployment_id=deployed, due_in_seconds=number - 9) for number in range(2)]
    _third, small = [await still.run(due_in_seconds=number - 5) for number in range(2)]
    sizes.of |= {first: FOUR, small: ONE}
    assert await desk.all() == before
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    await end(still, before[1])
    assert await desk.all() == [*before, first]
    assert (await still.state(small)).name == AWAITING_HOST, "what is left is kept for the third"
    await end(still, first)
    await end(still, before[0])
    assert (await desk.all())[3:] == [second], "its slot came back, and with it its turn"


async def test_whom_only_its_deployment_keeps_any_more_is_told_that(still: World) -> None:
    sizes = Sizes(ONE)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    deployed = await still.deployment(concurrency_limit=1)
    before = await still.run(due_in_seconds=-10)
    sizes.of[before] = Needs(memory_bytes=8 * GIB, cpus=1)
    assert await desk.all() == [before]
    first, second = [await still.run(deployment_id=deployed, due_in_seconds=number - 9) for number in range(2)]
    await desk.all()
    await end(still, before)
    assert await desk.all() == [before, first]
    assert (await still.state(second)).name == AWAITING_HOST, "it was told less than a minute ago"
    advance(still, SETTLED_SECONDS + 1)
    await desk.all()
    assert (await still.state(second)).name == AWAITING_SLOT


# --- whose size varies ---------------------------------------------------------------------------------------------------------

VARYING_SIX, VARYING_ONE = replace(SIX, varies=True), replace(ONE, varies=True)


async def crowd(still: World, sizes: Sizes, count: int) -> tuple[Desk, list[str], list[str]]:
    """The desk of a host of 8 GiB, the two runs of 5 and 3 GiB that fill it, and so many that were told to wait, of default size."""
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    before = [await still.run(due_in_seconds=number - 1000) for number in range(2)]
    sizes.of |= {before[0]: Needs(memory_bytes=5 * GIB, cpus=1), before[1]: Needs(memory_bytes=3 * GIB, cpus=1)}
    assert await desk.all() == before
    runs = [await still.run(due_in_seconds=number - 900) for number in range(count)]
    assert await desk.all() == before
    assert {(await still.state(run_id)).name for run_id in runs} == {AWAITING_HOST}
    return desk, before, runs


async def test_one_that_fits_is_found_among_however_many_whose_size_varies(still: World) -> None:
    sizes = Sizes(VARYING_SIX)
    desk, before, _large = await crowd(still, sizes, 3 * PARKED)
    small = await still.run()
    sizes.of[small] = VARYING_ONE
    assert await desk.all() == before
    await end(still, before[1])
    await desk.dispatcher.tick()
    assert desk.claimed == [*before, small], "in the first look"


async def test_each_whose_size_varies_is_asked_in_turn_whether_it_fits_now(still: World) -> None:
    """A variable has changed, which nobody tells: looks come to it, and none of them asks all."""
    sizes = Sizes(VARYING_SIX)
    desk, before, runs = await crowd(still, sizes, 3 * PARKED)
    await end(still, before[1])
    lap = len(runs) // PARKED
    for place in (0, PARKED + 1, len(runs) - 1):
        sizes.of[runs[place]] = VARYING_ONE
        asked = sizes.asked
        for _ in range(lap):
            await desk.dispatcher.tick()
        # Each page is asked for by the look, and those of it who go by the claim as well.
        assert sizes.asked - asked <= (lap + 1) * PARKED
        assert desk.claimed[-1] == runs[place]
        await end(still, runs[place])
        sizes.of[runs[place]] = VARYING_SIX


async def test_who_was_claimed_by_a_size_that_is_another_one_now_gets_what_it_asks_for(still: World) -> None:
    sizes = Sizes(VARYING_SIX)
    desk, before, runs = await crowd(still, sizes, 2)
    sizes.of[runs[1]] = VARYING_ONE
    await desk.all()
    sizes.of[runs[1]] = replace(ONE, memory_bytes=2 * GIB, varies=True)
    await end(still, before[1])
    assert await desk.all() == [*before, runs[1]]
    assert (await still.execution(runs[1])).memory_limit_bytes == 2 * GIB


async def test_settings_that_are_read_anew_leave_nobody_unseen(still: World) -> None:
    """What everybody needs is asked for again, a few in each look, and one look follows the other."""
    sizes = Sizes(SIX)
    desk, before, runs = await crowd(still, sizes, 3 * PARKED)
    await end(still, before[1])
    sizes.of[runs[-1]] = ONE
    assert await desk.all() == before
    await still.on_plan()
    assert await desk.all() == [*before, runs[-1]]


@pytest.mark.parametrize("is_told", [False, True])
async def test_whose_deployment_is_gone_ends_though_the_host_is_kept_for_another(
    still: World, *, is_told: bool
) -> None:
    sizes = Sizes(SIX)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB), plan={})
    runs = [await still.run(due_in_seconds=number - 10) for number in range(2)]
    assert await desk.all() == runs[:1]
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    deployment = await still.deployment()
    orphan = await still.run(deployment_id=deployment)
    if is_told:
        await desk.all()
        assert (await still.state(orphan)).name == AWAITING_HOST
    await still.write(lambda tx: rows.delete(tx, DEPLOYMENT, deployment))
    assert await desk.all() == runs[:1]
    assert (await still.state(orphan)).type is StateType.CRASHED
    assert (await still.state(runs[1])).name == AWAITING_HOST


# --- fractions of processors ---------------------------------------------------------------------------------------------------


async def test_runs_that_need_fractions_of_a_processor_fill_the_host(still: World) -> None:
    """Forty times 0.2 are eight, also where a sum of them says a little more."""
    fifth = Needs(memory_bytes=0, cpus=0.2)
    desk = Desk(still, needs=Sizes(fifth), host=HostLimits(cpus=8.0))
    runs = [await still.run(due_in_seconds=number - 100) for number in range(42)]
    assert await desk.all() == runs[:40]
    for number in range(2):
        await end(still, runs[number])
        assert await desk.all() == runs[: 41 + number], "one that waits, and is found by what it needs"


async def test_a_run_as_large_as_the_host_goes(still: World) -> None:
    """Three processors of which seven tenths may be reserved, and a run that asks for 2.1."""
    desk = Desk(still, needs=Sizes(Needs(memory_bytes=0, cpus=2.1)), host=HostLimits(cpus=3 * 0.7))
    run_id = await still.run()
    assert await desk.all() == [run_id]
    check_host(ManagedJob(image="i", cpus=2.1), HostLimits(cpus=3 * 0.7), Plan(name="p"))
