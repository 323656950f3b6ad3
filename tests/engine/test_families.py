"""Runs that other runs have made: they pass who waits for their parents' room, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.engine.turns import PARKED, RIGHT_OF_WAY_SECONDS
from managedd.model.flow_runs import ProposedState
from managedd.model.limits import AWAITING_HOST, HostLimits, Needs
from managedd.model.states import StateType
from managedd.store import rows
from managedd.store.resources import TASK_RUN
from tests.engine.test_dispatcher import Desk, end
from tests.engine.test_limits_hold import GIB, advance
from tests.engine.test_waiting import Sizes

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

SIX, FIVE, FOUR, THREE, TWO, ONE = (Needs(memory_bytes=size * GIB, cpus=1) for size in (6, 5, 4, 3, 2, 1))


async def task_of(world: World, run_id: str) -> str:
    """The task run of that run that stands for what it makes."""
    values = {"flow_run_id": run_id, "name": "t", "task_key": "k", "dynamic_key": ids.new_id()}
    return await world.write(lambda tx: rows.insert(tx, TASK_RUN, values))


async def one_by_one(still: World, count: int) -> list[str]:
    """Due runs, each made a millisecond after the one before: of two that are made in the same one, neither is the first."""
    made = []
    for number in range(count):
        made.append(await still.run(due_in_seconds=number - 10))
        advance(still, 0.001)
    return made


async def desk_of(still: World) -> tuple[Desk, Sizes]:
    """A host of 8 GiB whose workspaces may have as many runs as fit, of 1 GiB each if nothing else is said."""
    sizes = Sizes(ONE)
    return Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB), plan={}), sizes


async def waits_for_host(still: World, *runs: str) -> bool:
    return {(await still.state(run_id)).name for run_id in runs} == {AWAITING_HOST}


@pytest.mark.parametrize("crowd", [0, PARKED - 1, PARKED, 4 * PARKED])
@pytest.mark.parametrize("inside", [False, True])
async def test_a_child_is_found_behind_however_many_that_must_let_a_large_one_go_first(
    still: World, crowd: int, *, inside: bool
) -> None:
    """Else nothing would move: the large one waits for the parent's room, the parent for its child."""
    desk, sizes = await desk_of(still)
    parent, filler = [await still.run(due_in_seconds=number - 1000) for number in range(2)]
    sizes.of |= {parent: FOUR, filler: FOUR}
    assert await desk.all() == [parent, filler]
    large = await still.run(due_in_seconds=-900)
    sizes.of[large] = SIX
    small = [await still.run(due_in_seconds=number - 800) for number in range(crowd)]
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    task_run = await task_of(still, parent)
    if inside:
        # A flow within the parent's process makes it.
        running = ProposedState(type=StateType.RUNNING)
        within = await still.run(parent_task_run_id=task_run, work_queue_id=None, state=running)
        task_run = await task_of(still, within)
    child = await still.run(parent_task_run_id=task_run)
    await desk.all()
    assert await waits_for_host(still, large, child, *small)
    await end(still, filler)
    assert await desk.all() == [parent, filler, child]
    await end(still, child)
    await end(still, parent)
    assert (await desk.all())[3] == large


async def test_a_child_in_another_pool_is_found_though_nobody_there_has_waited_long(still: World) -> None:
    desk, sizes = await desk_of(still)
    _, elsewhere = await still.pool("elsewhere")
    parent, filler = [await still.run(queue_id=elsewhere, due_in_seconds=number - 1000) for number in range(2)]
    sizes.of |= {parent: FOUR, filler: FOUR}
    assert await desk.all() == [parent, filler]
    large = await still.run(due_in_seconds=-900)
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    for number in range(PARKED):
        await still.run(queue_id=elsewhere, due_in_seconds=number - 100)
    child = await still.run(queue_id=elsewhere, parent_task_run_id=await task_of(still, parent))
    await desk.all()
    assert await waits_for_host(still, large, child)
    await end(still, filler)
    assert await desk.all() == [parent, filler, child]


async def test_children_of_a_run_that_has_ended_keep_the_host_from_nobody(still: World) -> None:
    desk, sizes = await desk_of(still)
    parent = await still.run(due_in_seconds=-10)
    assert await desk.all() == [parent]
    task_run = await task_of(still, parent)
    sizes.default = THREE
    running = [await still.run(parent_task_run_id=task_run) for _ in range(2)]
    await desk.all()
    await end(still, parent)
    large = await still.run()
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    following = await still.run(parent_task_run_id=task_run)
    for run_id in running:
        await end(still, run_id)
        await desk.all()
    assert desk.claimed[-1] == large
    assert await waits_for_host(still, following)


async def test_children_of_a_run_beside_which_a_large_one_has_room_do_not_pass_it(still: World) -> None:
    desk, sizes = await desk_of(still)
    parent = await still.run(due_in_seconds=-10)
    assert await desk.all() == [parent]
    task_run = await task_of(still, parent)
    sizes.default = THREE
    running = [await still.run(parent_task_run_id=task_run) for _ in range(2)]
    await desk.all()
    large = await still.run()
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    following = await still.run(parent_task_run_id=task_run)
    for run_id in running:
        await end(still, run_id)
        await desk.all()
    assert desk.claimed[-1] == large
    await end(still, large)
    assert following in await desk.all()


async def test_only_the_children_of_those_who_are_in_the_way_pass(still: World) -> None:
    """The large one has room beside the first parent, and not beside both: the second has to come to its end."""
    desk, sizes = await desk_of(still)
    first, second = await one_by_one(still, 2)
    filler = await still.run(due_in_seconds=-5)
    sizes.of |= {first: ONE, second: THREE, filler: FOUR}
    assert await desk.all() == [first, second, filler]
    large = await still.run(due_in_seconds=-4)
    sizes.of[large] = Needs(memory_bytes=7 * GIB, cpus=1)
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    of_first = await still.run(parent_task_run_id=await task_of(still, first), due_in_seconds=-3)
    of_second = await still.run(parent_task_run_id=await task_of(still, second))
    await end(still, filler)
    assert (await desk.all())[3:] == [of_second]
    await end(still, of_second)
    await end(still, second)
    assert (await desk.all())[4:] == [large]
    assert await waits_for_host(still, of_first)
    await end(still, large)
    assert (await desk.all())[5:] == [of_first]


async def test_who_waits_for_who_waits_is_in_the_way_too(still: World) -> None:
    """The large one has room beside either of two that wait, one for the other, and not beside both."""
    desk, sizes = await desk_of(still)
    [top] = await one_by_one(still, 1)
    middle = await still.run(parent_task_run_id=await task_of(still, top), due_in_seconds=-9)
    filler = await still.run(due_in_seconds=-8)
    sizes.of |= {top: TWO, middle: TWO, filler: FOUR}
    assert await desk.all() == [top, middle, filler]
    large = await still.run(due_in_seconds=-7)
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    bottom = await still.run(parent_task_run_id=await task_of(still, middle))
    await end(still, filler)
    assert (await desk.all())[3:] == [bottom]


async def test_a_large_child_passes_whose_room_its_parent_does_not_need(still: World) -> None:
    """It has waited long, as has somebody's child that it can't go without: whose it is itself stays, so the other family ends first."""
    desk, sizes = await desk_of(still)
    elder, parent = await one_by_one(still, 2)
    filler = await still.run(due_in_seconds=-5)
    sizes.of |= {elder: THREE, parent: TWO, filler: THREE}
    assert await desk.all() == [elder, parent, filler]
    large = await still.run(parent_task_run_id=await task_of(still, parent), due_in_seconds=-4)
    sizes.of[large] = FOUR
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    of_elder = await still.run(parent_task_run_id=await task_of(still, elder))
    await end(still, filler)
    assert (await desk.all())[3:] == [of_elder]
    await end(still, of_elder)
    await end(still, elder)
    assert (await desk.all())[4:] == [large]


async def test_the_host_is_kept_for_nobody_whose_own_parent_leaves_it_no_room(still: World) -> None:
    """It waits for its parent's end, and that for it: nobody else has to wait with them, and who waited long keeps its right of way."""
    desk, sizes = await desk_of(still)
    parent = await still.run(due_in_seconds=-10)
    sizes.of[parent] = FOUR
    assert await desk.all() == [parent]
    child = await still.run(parent_task_run_id=await task_of(still, parent), due_in_seconds=-9)
    sizes.of[child] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    others = [await still.run(due_in_seconds=number - 5) for number in range(2)]
    sizes.of |= dict.fromkeys(others, TWO)
    assert await desk.all() == [parent, *others]
    large, small = [await still.run(due_in_seconds=number - 2) for number in range(2)]
    sizes.of[large] = THREE
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    await end(still, others[0])
    assert await desk.all() == [parent, *others], "what is free is kept for the large one behind the child"
    await end(still, others[1])
    assert (await desk.all())[3:] == [large, small]
    assert await waits_for_host(still, child)


@pytest.mark.parametrize("crowd", [1, PARKED - 1, PARKED, 4 * PARKED])
async def test_a_child_of_one_who_is_in_the_way_is_found_behind_however_many_of_one_who_stays(
    still: World, crowd: int
) -> None:
    """All of them wait and fit before it: the large one waits for the second parent, and that for its child."""
    desk, sizes = await desk_of(still)
    first, second, filler = await one_by_one(still, 3)
    sizes.of |= {first: ONE, second: THREE, filler: FOUR}
    assert await desk.all() == [first, second, filler]
    large = await still.run(due_in_seconds=-4)
    sizes.of[large] = Needs(memory_bytes=7 * GIB, cpus=1)
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    task_run = await task_of(still, first)
    of_first = [await still.run(parent_task_run_id=task_run, due_in_seconds=-3) for _ in range(crowd)]
    of_second = await still.run(parent_task_run_id=await task_of(still, second))
    await desk.all()
    assert await waits_for_host(still, *of_first, of_second)
    await end(still, filler)
    assert (await desk.all())[3:] == [of_second]
    await end(still, of_second)
    await end(still, second)
    assert (await desk.all())[4:] == [large]


@pytest.mark.parametrize("waits_for", ["the first parent", "its queue"])
async def test_a_child_of_one_who_stays_goes_where_nothing_else_would_ever_move(still: World, waits_for: str) -> None:
    """The first parent stays beside the large one; the second must leave. Its child has room only when the first has ended: the first one's
    children are in nobody's way. Or it waits for something else, and may have room at any time: they go one by one."""
    desk, sizes = await desk_of(still)
    first, second, filler = await one_by_one(still, 3)
    sizes.of |= {first: THREE, second: ONE, filler: FOUR}
    assert await desk.all() == [first, second, filler]
    large = await still.run(due_in_seconds=-4)
    sizes.of[large] = FIVE
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    task_run = await task_of(still, first)
    of_first = [await still.run(parent_task_run_id=task_run, due_in_seconds=number - 4) for number in range(2)]
    paused = await still.queue("paused", is_paused=True) if waits_for == "its queue" else None
    of_second = await still.run(parent_task_run_id=await task_of(still, second), queue_id=paused)
    small = await still.run(due_in_seconds=-2)
    sizes.of[of_second] = FIVE
    await desk.all()
    await end(still, filler)
    for children in [of_first] if paused is None else [[child] for child in of_first]:
        begun = len(desk.claimed)
        assert (await desk.all())[begun:] == children
        assert await waits_for_host(still, large, small)
        for child in children:
            await end(still, child)
    await end(still, first)
    assert large in await desk.all(), "the first parent has come to its end: there is room"
    assert of_second not in desk.claimed


@pytest.mark.parametrize("has_room_beside_both", [True, False])
async def test_a_run_that_goes_on_for_long_does_not_hide_that_nothing_else_moves(
    still: World, *, has_room_beside_both: bool
) -> None:
    """Its end would bring the second parent's child on, or nobody: then the first one's child goes at once."""
    desk, sizes = await desk_of(still)
    long, first, second, filler = await one_by_one(still, 4)
    sizes.of |= {first: TWO, filler: FOUR}
    assert await desk.all() == [long, first, second, filler]
    large = await still.run(due_in_seconds=-4)
    sizes.of[large] = SIX
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    of_first = await still.run(parent_task_run_id=await task_of(still, first))
    of_second = await still.run(parent_task_run_id=await task_of(still, second))
    small = await still.run()
    sizes.of[of_second] = FIVE if has_room_beside_both else SIX
    await desk.all()
    await end(still, filler)
    if has_room_beside_both:
        expected = [(long, of_second), (of_second, None), (second, large)]
    else:
        assert (await desk.all())[4:] == [of_first]
        expected = [(of_first, None), (first, large)]
    for ended, claimed in expected:
        assert await waits_for_host(still, large, small)
        await end(still, ended)
        before = list(desk.claimed)
        assert (await desk.all())[len(before) :] == ([] if claimed is None else [claimed])


@pytest.mark.parametrize("hopeless", [0, 1, 4 * PARKED])
async def test_the_host_is_kept_for_a_child_behind_those_whose_own_parents_leave_them_no_room(
    still: World, hopeless: int
) -> None:
    desk, sizes = await desk_of(still)
    first, second = await one_by_one(still, 2)
    sizes.of |= {first: FOUR, second: ONE}
    small = [await still.run(due_in_seconds=number - 8) for number in range(3)]
    assert await desk.all() == [first, second, *small]
    task_run = await task_of(still, first)
    for _ in range(hopeless):
        sizes.of[await still.run(parent_task_run_id=task_run, due_in_seconds=-5)] = SIX
    child = await still.run(parent_task_run_id=await task_of(still, second), due_in_seconds=-4)
    sizes.of[child] = THREE
    await desk.all()
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    following = [await still.run() for _ in range(3)]
    await desk.all()
    for run_id in small:
        await end(still, run_id)
        await desk.all()
    assert desk.claimed[5:] == [child]
    assert await waits_for_host(still, *following)
