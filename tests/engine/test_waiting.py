"""Many who wait: everybody is told for what, a look at them costs little, and what they were told does not stay when it is not true."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import reloading
from managedd.clock import SystemClock, iso
from managedd.config import Settings
from managedd.engine.dispatcher import PUT_BACK_SECONDS
from managedd.engine.turns import BATCH, RIGHT_OF_WAY_SECONDS, SETTLED_SECONDS
from managedd.model.limits import AWAITING_HOST, AWAITING_HOURS, HostLimits, Needs, Plan
from managedd.model.metering import month_of
from managedd.model.states import StateType
from managedd.orchestration.pool_types import default_template
from managedd.signals import Signals
from managedd.store import overdue, plans, queue, rows
from managedd.store.resources import DEPLOYMENT, FLOW_RUN, VARIABLE, WORK_POOL, WORK_QUEUE
from managedd.store.workspaces import move
from tests.engine.test_dispatcher import Desk, end
from tests.engine.test_jobs import jobs
from tests.engine.test_limits_hold import GIB, advance
from tests.engine.world import open_world

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

# --- many who wait for the host ----------------------------------------------------------------------------------------------


class Sizes:
    """What runs need, and how often it was asked."""

    def __init__(self, default: Needs) -> None:
        self.default, self.of, self.asked = default, dict[str, Needs](), 0

    def __call__(self, tx: Tx, run_id: str) -> Needs:
        self.asked += 1
        return self.of.get(run_id, self.default)


BIG, SMALL = Needs(memory_bytes=4 * GIB, cpus=1), Needs(memory_bytes=GIB, cpus=1)


async def test_everybody_who_waits_for_the_host_is_told_however_many_there_are(still: World) -> None:
    sizes = Sizes(BIG)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=4 * GIB))
    runs = [await still.run(due_in_seconds=number - 1000) for number in range(3 * BATCH)]
    assert await desk.all() == runs[:1]
    assert {(await still.state(run_id)).name for run_id in runs[1:]} == {AWAITING_HOST}
    assert await still.read(lambda tx: overdue.late(tx, due_before_us=tx.now, limit=10)) == []
    asked = sizes.asked
    assert await desk.dispatcher.tick() is False
    assert sizes.asked == asked, "nobody's job is rendered anew to see that there is no room"
    await end(still, runs[0])
    assert await desk.all() == runs[:2]
    assert sizes.asked <= asked + 2


async def test_a_small_run_passes_however_many_large_ones_are_before_it(still: World) -> None:
    sizes = Sizes(BIG)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=5 * GIB))
    large = [await still.run(due_in_seconds=number - 1000) for number in range(2 * BATCH)]
    assert await desk.all() == large[:1]
    late = await still.run()
    sizes.of[late] = SMALL
    assert await desk.all() == [large[0], late]
    # Also one that was told to wait: it fits as soon as another small one has ended.
    second = await still.run()
    sizes.of[second] = SMALL
    await desk.all()
    assert (await still.state(second)).name == AWAITING_HOST
    await end(still, late)
    assert await desk.all() == [large[0], late, second]


async def test_nobody_passes_a_large_one_that_has_waited_long_however_deep_it_stands(still: World) -> None:
    sizes = Sizes(BIG)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=5 * GIB))
    large = [await still.run(due_in_seconds=number - 1000) for number in range(BATCH + 5)]
    small = [await still.run(due_in_seconds=number - 100) for number in range(2)]
    sizes.of |= dict.fromkeys(small, SMALL)
    assert await desk.all() == [large[0], small[0]]
    advance(still, RIGHT_OF_WAY_SECONDS + 1)
    await end(still, small[0])
    assert await desk.all() == [large[0], small[0]], "the second would pass sixty that have waited long"
    await end(still, large[0])
    assert await desk.all() == [large[0], small[0], large[1]], "what is left is kept for the next of them"


@pytest.mark.parametrize("what", ["deployment", "pool", "run", "plan", "plans", "variable", "deployment deleted"])
async def test_whoever_needs_less_since_goes(still: World, what: str) -> None:
    """What is on record of a waiting run is forgotten when anything that it was made of changes."""
    template = default_template("prefect:managed")
    assert template is not None
    template["variables"]["properties"]["memory_limit"]["default"] = "4Gi"
    await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"base_job_template": template}))
    await still.write(lambda tx: plans.replace(tx, [Plan(name="pro"), Plan(name="small", memory_limit_bytes=GIB)]))
    variables: dict[str, Any] = {}
    variable = ""
    if what == "deployment":
        variables = {"memory_limit": "3Gi"}
    if what == "variable":
        variables = {"memory_limit": "{{ prefect.variables.size }}"}
        variable = await still.write(lambda tx: rows.insert(tx, VARIABLE, {"name": "size", "value": "4Gi"}))
    if what in {"plan", "plans"}:
        variables = {"memory_limit": ""}
    deployed = await still.deployment(job_variables=variables)
    desk = Desk(still, needs=jobs(still, memory_limit_bytes=3 * GIB).needs, host=HostLimits(memory_bytes=5 * GIB))
    first = await still.run(due_in_seconds=-10)
    assert await desk.all() == [first]
    waiting = await still.run(deployment_id=deployed)
    assert await desk.all() == [first]
    told = await still.state(waiting)
    wanted = {"deployment": 3, "plan": 3, "plans": 3}.get(what, 4)
    assert told.name == AWAITING_HOST and f"The run needs {wanted}.0 GiB of memory" in str(told.message)

    def change(tx: Tx) -> None:
        smaller = {"job_variables": {"memory_limit": "1Gi"}}
        match what:
            case "deployment":
                rows.patch(tx, DEPLOYMENT, deployed, smaller)
            case "pool":
                template["variables"]["properties"]["memory_limit"]["default"] = "1Gi"
                rows.patch(tx, WORK_POOL, still.pool_id, {"base_job_template": template})
            case "run":
                rows.patch(tx, FLOW_RUN, waiting, smaller)
            case "plan":
                move(tx, still.workspace, "small")
            case "plans":
                plans.replace(tx, [Plan(name="pro", memory_limit_bytes=GIB)])
            case "variable":
                rows.patch(tx, VARIABLE, variable, {"value": "1Gi"})
            case _:
                rows.delete(tx, DEPLOYMENT, deployed)

    await still.write(change)
    if what == "deployment deleted":
        await desk.all()
        assert (await still.state(waiting)).type is StateType.CRASHED, (
            "it is told at once that it has no deployment any more"
        )
        return
    assert await desk.all() == [first, waiting]
    assert (await still.execution(waiting)).memory_limit_bytes == GIB


async def test_what_is_on_record_reserves_nothing(still: World) -> None:
    """It says where to look; what is reserved is what the job asks for when it is claimed."""
    sizes = Sizes(BIG)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=5 * GIB))
    first, second = await still.run(due_in_seconds=-1), await still.run()
    assert await desk.all() == [first]
    await still.write(lambda tx: queue.note_needs(tx, second, SMALL))
    assert await desk.all() == [first]
    assert (
        await still.read(lambda tx: tx.scalar("SELECT needs_memory_bytes FROM flow_runs WHERE id = ?", (second,)))
        == 4 * GIB
    )


# --- reasons that are gone ---------------------------------------------------------------------------------------------------


async def narrow(world: World, slots: int | None) -> None:
    await world.write(lambda tx: rows.patch(tx, WORK_POOL, world.pool_id, {"concurrency_limit": slots}))


@pytest.mark.parametrize("kept_by", ["slots", "pause"])
async def test_who_waits_for_hours_that_are_there_again_is_put_back(still: World, kept_by: str) -> None:
    """In batches, and not at once: a reason that comes back soon costs no rows."""
    desk = Desk(still, plan={"compute_hours": 0})
    due = iso(still.clock.now_us() - 1_000_000_000)
    runs = [await still.run(due_in_seconds=number - 1000) for number in range(BATCH + 10)]
    assert await desk.all() == []
    if kept_by == "slots":
        await narrow(still, 0)
    else:
        await still.write(lambda tx: rows.patch(tx, WORK_QUEUE, still.queue_id, {"is_paused": True}))
    await still.on_plan()

    async def named() -> int:
        return [(await still.state(run_id)).name for run_id in runs].count(AWAITING_HOURS)

    advance(still, 50)
    await desk.all()
    assert await named() == len(runs), "it was told less than a minute ago"
    advance(still, SETTLED_SECONDS)
    await desk.all()
    assert await named() == 10
    state = await still.state(runs[0])
    assert (state.type, state.name, state.message) == (StateType.SCHEDULED, "Scheduled", None)
    assert state.details["scheduled_time"] == due
    await desk.all()
    assert await named() == 10, "one batch a second"
    advance(still, PUT_BACK_SECONDS)
    await desk.all()
    assert await named() == 0
    if kept_by == "slots":
        await narrow(still, None)
    else:
        await still.write(lambda tx: rows.patch(tx, WORK_QUEUE, still.queue_id, {"is_paused": False}))
    assert sorted(await desk.all()) == sorted(runs)


async def test_who_waits_for_a_host_that_has_room_again_is_put_back(still: World) -> None:
    sizes = Sizes(BIG)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=5 * GIB))
    first, second = await still.run(due_in_seconds=-10), await still.run(due_in_seconds=-9)
    large, small = await still.run(due_in_seconds=-8), await still.run(due_in_seconds=-7)
    sizes.of |= dict.fromkeys((second, small), SMALL)
    assert await desk.all() == [first, second]
    await narrow(still, 0)
    advance(still, SETTLED_SECONDS + 1)
    await desk.all()
    assert {(await still.state(run_id)).name for run_id in (large, small)} == {AWAITING_HOST}, (
        "that is as true as before"
    )
    await end(still, second)
    await desk.all()
    assert (await still.state(small)).name == "Scheduled"
    assert (await still.state(large)).name == AWAITING_HOST
    assert await desk.all() == [first, second]


async def test_a_reason_that_changes_is_told(still: World) -> None:
    desk = Desk(still, plan={"compute_hours": 0}, needs=Sizes(BIG), host=HostLimits(memory_bytes=4 * GIB))
    first, second = await still.run(due_in_seconds=-10), await still.run()
    assert await desk.all() == []
    await still.on_plan(compute_hours=1)
    assert await desk.all() == [first]
    assert (await still.state(second)).name == AWAITING_HOST
    await still.on_plan(compute_hours=0)
    assert await desk.all() == [first]
    assert (await still.state(second)).name == AWAITING_HOURS


async def test_a_plain_wait_for_a_slot_writes_nothing(still: World) -> None:
    await narrow(still, 1)
    desk = Desk(still)
    runs = [await still.run(due_in_seconds=number - 1000) for number in range(BATCH + 10)]
    assert await desk.all() == runs[:1]
    for _ in range(3):
        advance(still, SETTLED_SECONDS + 1)
        await desk.all()
    assert {len(await still.history(run_id)) for run_id in runs[1:]} == {1}


# --- other settings ----------------------------------------------------------------------------------------------------------


class Told(Signals):
    """Signals that a test gives."""

    def __init__(self) -> None:
        super().__init__()
        self.reload = anyio.Event()

    async def until_reload(self) -> None:
        await self.reload.wait()
        self.reload = anyio.Event()


async def test_another_default_plan_takes_effect_on_who_waits(world: World) -> None:
    """SIGHUP, and nothing else: neither a restart nor the poll."""
    plans_of = {"plans": {"none": {"compute_hours": 0}}}
    first = Settings.model_validate({**plans_of, "default_plan": "none"})
    second = Settings.model_validate({**plans_of, "default_plan": "unlimited"})
    await reloading.apply(world.db, first)
    desk, told = Desk(world), Told()
    run_id = await world.run()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)
        tasks.start_soon(reloading.keep, world.db, told, first, lambda: second)

        async def waits() -> bool:
            return (await world.state(run_id)).name == AWAITING_HOURS

        await world.until(waits)
        assert desk.claimed == []
        told.reload.set()
        await world.until_state(run_id, StateType.PENDING)
        tasks.cancel_scope.cancel()
    # A plan that somebody chose by hand is not undone by reading the same settings again.
    await world.write(lambda tx: move(tx, world.workspace, "none"))
    await reloading.apply(world.db, second)
    assert (await world.read(lambda tx: plans.of_workspace(tx, world.workspace))).name == "none"


# --- ends of waiting that can be foreseen ------------------------------------------------------------------------------------


async def test_a_start_that_the_rate_allows_is_not_left_to_the_poll(world: World) -> None:
    await world.on_plan(start_burst=1, starts_per_minute=120)
    desk = Desk(world)
    runs = [await world.run(due_in_seconds=number - 5) for number in range(3)]
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)

        async def claimed() -> bool:
            return desk.claimed == runs

        await world.until(claimed, 10)  # its poll comes only after 30 s
        tasks.cancel_scope.cancel()
    assert anyio.current_time() - began >= 0.9, "two of them had to wait half a second each"


class Shifted(SystemClock):
    """Now is another time."""

    def __init__(self, by_us: int) -> None:
        super().__init__()
        self._by_us = by_us

    def now_us(self) -> int:
        return super().now_us() + self._by_us


async def test_hours_that_are_renewed_are_not_left_to_the_poll(tmp_path: Path) -> None:
    ends_us = month_of(SystemClock().now_us(), UTC).ends_us
    clock = Shifted(ends_us - 800_000 - SystemClock().now_us())
    async with open_world(tmp_path, clock) as world:
        await world.on_plan(compute_hours=1)
        spent = "INSERT INTO usage_months (workspace_id, month, minutes) VALUES (?, ?, 60)"
        await world.write(lambda tx: tx.execute(spent, (world.workspace, month_of(tx.now, UTC).name)))
        desk = Desk(world)
        run_id = await world.run()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.dispatcher.run)

            async def claimed() -> bool:
                return desk.claimed == [run_id]

            await world.until(claimed, 10)  # its poll comes only after 30 s
            tasks.cancel_scope.cancel()
        assert clock.now_us() >= ends_us
        assert await world.history(run_id) == ["Scheduled", AWAITING_HOURS, "Pending"]
