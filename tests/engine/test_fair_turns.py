"""A workspace with ten thousand runs that cannot go does not delay another's one that can, whatever keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from managedd import ids
from managedd.engine.turns import BATCH
from managedd.model.limits import AWAITING_HOST, HostLimits, Needs
from managedd.model.states import StateType
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW
from managedd.store.workspaces import create
from tests.engine.test_dispatcher import Desk
from tests.engine.test_limits_hold import GIB, begin
from tests.engine.test_waiting import Sizes

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

MANY = 10_000
SIX, ONE = (Needs(memory_bytes=size * GIB, cpus=1) for size in (6, 1))


async def copies(world: World, run_id: str, count: int) -> None:
    """So many runs more with the same row."""

    def body(tx: Tx) -> None:
        columns = ", ".join(row["name"] for row in tx.all("PRAGMA table_info(flow_runs)") if row["name"] != "id")
        tx.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            f"INSERT INTO flow_runs (id, {columns}) SELECT printf('%08x-0000-7000-8000-000000000000', i), {columns} "
            "FROM n CROSS JOIN flow_runs WHERE id = ?",
            (count, run_id),
        )

    await world.write(body)


class Others:
    """Another workspace with a pool of its own."""

    def __init__(self, world: World) -> None:
        self._world, self._mine, self._id = world, world.workspace, ids.new_id()
        self._queue = self._flow = ""

    async def open(self) -> None:
        await self._world.db.write(
            lambda tx: create(tx, account_id=ids.new_id(), account="o", workspace_id=self._id, handle="o", plan="pro")
        )
        self._world.workspace = self._id
        self._flow = await self._world.write(lambda tx: rows.insert(tx, FLOW, {"name": "f"}))
        self._queue = (await self._world.pool("theirs"))[1]
        self._world.workspace = self._mine

    async def run(self) -> str:
        self._world.workspace = self._id
        run_id = await self._world.run(queue_id=self._queue, flow_id=self._flow)
        self._world.workspace = self._mine
        return run_id


async def others_of(world: World) -> Others:
    others = Others(world)
    await others.open()
    return others


@pytest.mark.parametrize("keeps", ["ENQUEUE", "CANCEL_NEW", "host", "no deployment"])
async def test_ten_thousand_that_cannot_go_delay_nobody_elses_one(still: World, keeps: str) -> None:
    """Theirs is the workspace that holds more, so each of the many comes before it."""
    sizes = Sizes(ONE)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    others = await others_of(still)
    held = [await others.run() for _ in range(3)]
    options = {"collision_strategy": keeps} if keeps.isupper() else None
    deployed = await still.deployment(concurrency_limit=1 if options else None, concurrency_options=options)
    first = [await still.run(deployment_id=deployed)] if options else []
    assert sorted(await desk.all()) == sorted([*held, *first])
    seed = await still.run(deployment_id=None if keeps == "host" else deployed)
    if keeps == "host":
        sizes.default = SIX
    await copies(still, seed, MANY)
    if keeps == "no deployment":
        # As a store of an older version may have it.
        await still.write(lambda tx: tx.execute("DELETE FROM deployments"))
        await still.write(
            lambda tx: tx.execute("UPDATE flow_runs SET deployment_id = ? WHERE id LIKE '0000%'", (ids.new_id(),))
        )
    one = await others.run()
    sizes.of[one] = ONE
    for _ in range(2):
        await desk.dispatcher.tick()
    assert one in desk.claimed


async def test_those_who_are_told_take_turns_as_well(still: World) -> None:
    """And of thousands who have no room, no more are asked for what they need than one transaction tells, and a share for each pool."""
    sizes = Sizes(SIX)
    desk = Desk(still, needs=sizes, host=HostLimits(memory_bytes=8 * GIB))
    others = await others_of(still)
    pools = [still.queue_id, *[(await still.pool(f"p{number}"))[1] for number in range(3)]]
    held = [await others.run() for _ in range(3)]
    sizes.of |= dict.fromkeys(held, ONE)
    assert sorted(await desk.all()) == sorted(held)
    for queue_id in pools:
        for number in range(2 * BATCH):
            await still.run(queue_id=queue_id, due_in_seconds=number - 1000)
    one = await others.run()
    asked = sizes.asked
    await desk.dispatcher.tick()
    assert (await still.state(one)).name == AWAITING_HOST
    assert sizes.asked - asked <= 2 * BATCH + len(pools) + 1


# --- whom the rules refuse, or leave alone ----------------------------------------------------------------------------------------


async def test_who_waits_for_the_host_is_left_alone_by_a_deployment_that_lets_nobody_run(still: World) -> None:
    cancels = {"collision_strategy": "CANCEL_NEW"}
    deployed = await still.deployment(concurrency_limit=1, concurrency_options=cancels)
    desk = Desk(still, needs=Sizes(SIX), host=HostLimits(memory_bytes=8 * GIB))
    before = await still.run(due_in_seconds=-10)
    assert await desk.all() == [before]
    waits, _other = await still.run(deployment_id=deployed), await still.run()
    await desk.all()
    # The API takes no such limit.
    await still.write(lambda tx: rows.patch(tx, DEPLOYMENT, deployed, {"concurrency_limit": 0}))
    something, _ = await still.db.read(desk.dispatcher._look)
    assert not something
    assert (await still.state(waits)).name == AWAITING_HOST


@pytest.mark.parametrize("options", [None, {"collision_strategy": "CANCEL_NEW"}, {"collision_strategy": "ENQUEUE"}])
async def test_a_run_whose_container_is_there_is_not_claimed_whatever_state_is_forced_upon_it(
    still: World, options: dict[str, str] | None
) -> None:
    deployed = await still.deployment(concurrency_limit=1 if options else None, concurrency_options=options)
    desk = Desk(still, needs=Sizes(SIX), host=HostLimits(memory_bytes=8 * GIB))
    run_id = await still.run(deployment_id=deployed)
    assert await desk.all() == [run_id]
    await begin(still, run_id)
    await still.propose(run_id, StateType.RUNNING)
    await still.propose(run_id, StateType.SCHEDULED, name=AWAITING_HOST, force=True)
    await still.run()
    for _ in range(3):
        await desk.dispatcher.tick()
    assert desk.claimed == [run_id]
    assert not desk.dispatcher._set_aside
    assert (await still.state(run_id)).name == AWAITING_HOST
