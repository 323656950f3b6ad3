"""The dispatcher: who is claimed, in what order, up to which limits, and what wakes it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd import ids
from managedd.bus import Topic
from managedd.clock import iso
from managedd.engine import dispatcher
from managedd.engine.dispatcher import BATCH, UNHELD_SECONDS, UNRESTED, Dispatcher
from managedd.errors import ManagedError, unavailable
from managedd.model.executions import Phase
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration.transition import propose
from managedd.store import executions, families, flow_runs, queue, rows
from managedd.store.resources import DEPLOYMENT, FLOW, WORK_POOL, WORK_QUEUE
from managedd.store.workspaces import create
from tests.engine.world import NEEDS, SECOND_US, limits

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING


class Desk:
    """A dispatcher whose claims are written down and go no further."""

    def __init__(self, world: World, **options: Any) -> None:
        self.claims: list[Execution] = []
        self.world = world
        self.plan: dict[str, Any] | None = options.pop("plan", None)
        self.dispatcher = Dispatcher(
            options.pop("db", world.db),
            world.bus,
            world.clock,
            driver="fake",
            limits=limits(options.pop("host", None)),
            needs=options.pop("needs", lambda tx, run_id: NEEDS),
            poll_seconds=options.pop("poll_seconds", 30.0),
            key_hash=lambda execution_id: f"hash of {execution_id}",
            start=self.claims.append,
            **options,
        )

    @property
    def claimed(self) -> list[str]:
        return [execution.flow_run_id for execution in self.claims]

    async def all(self) -> list[str]:
        """What one waking claims, as often as its own commits wake it."""
        if self.plan is not None:
            await self.world.on_plan(**self.plan)
            self.plan = None
        for _ in range(1000):
            before = len(self.claims)
            states = await self.dispatcher._db.read(lambda tx: tx.scalar("SELECT count(*) FROM flow_run_states"))
            again = await self.dispatcher.tick()
            after = await self.dispatcher._db.read(lambda tx: tx.scalar("SELECT count(*) FROM flow_run_states"))
            if not again and len(self.claims) == before and states == after:
                return self.claimed
        raise AssertionError("the dispatcher does not come to rest")


async def end(world: World, run_id: str, type_: StateType = StateType.COMPLETED) -> None:
    """The run has ended and nothing of it is left."""

    def body(tx: Tx) -> None:
        live = executions.live_of_run(tx, run_id)
        propose(tx, run_id, ProposedState(type=type_))
        if live is not None:
            executions.advance(tx, live.id, (live.phase,), Phase.EXITED)
            executions.advance(tx, live.id, (Phase.EXITED,), Phase.FINALIZED)

    await world.write(body)


# --- order ---------------------------------------------------------------------------------------------------------------


async def test_runs_are_claimed_in_due_order(still: World) -> None:
    runs = [await still.run(due_in_seconds=-seconds) for seconds in (1, 30, 5)]
    assert await Desk(still).all() == [runs[1], runs[2], runs[0]]


async def test_a_more_urgent_queue_goes_first_whatever_is_due_longer(still: World) -> None:
    await still.pool("slow")
    await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 1}))
    urgent = await still.queue("urgent", priority=1)
    idle = await still.queue("idle", priority=2)
    late = await still.run(queue_id=idle, due_in_seconds=-100)
    new = await still.run(queue_id=urgent)
    desk = Desk(still)
    assert await desk.all() == [new]
    await end(still, new)
    assert await desk.all() == [new, late]


async def test_queues_of_one_priority_share_by_due_time(still: World) -> None:
    """Nobody starves because of the id of its queue."""
    await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 1}))
    other = await still.queue("other", priority=1)
    both = (still.queue_id, other)
    expected = [await still.run(queue_id=both[number % 2], due_in_seconds=number - 10) for number in range(6)]
    desk = Desk(still)
    for run_id in expected:
        assert (await desk.all())[-1] == run_id
        await end(still, run_id)


async def test_what_is_not_due_is_not_claimed_and_is_claimed_when_it_is(still: World) -> None:
    run_id = await still.run(due_in_seconds=10)
    desk = Desk(still)
    assert await desk.all() == []
    still.clock.advance(9.999)  # type: ignore[attr-defined]
    assert await desk.all() == []
    still.clock.advance(0.002)  # type: ignore[attr-defined]
    assert await desk.all() == [run_id]


async def test_a_run_that_becomes_due_is_not_left_to_the_poll(world: World) -> None:
    desk = Desk(world)
    run_id = await world.run(due_in_seconds=0.4)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)

        async def claimed() -> bool:
            return desk.claimed == [run_id]

        await world.until(claimed, 3)
        tasks.cancel_scope.cancel()


async def test_a_commit_wakes_it(world: World) -> None:
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)
        await anyio.sleep(0.05)
        run_id = await world.run()

        async def claimed() -> bool:
            return desk.claimed == [run_id]

        await world.until(claimed, 10)  # its poll comes only after 30 s
        tasks.cancel_scope.cancel()


async def test_the_claim_holds_the_run(still: World) -> None:
    run_id = await still.run()
    desk = Desk(still)
    await desk.all()
    assert (await still.state(run_id)).type is PENDING
    execution = await still.execution(run_id)
    assert (execution.phase, execution.attempt, execution.workspace_id) == (Phase.CLAIMED, 1, still.workspace)
    owner = await still.read(lambda tx: executions.by_key_hash(tx, f"hash of {execution.id}"))
    assert owner is not None and owner.flow_run_id == run_id
    # With infrastructure on record a cancel asks it to stop, instead of ending the run under a starting container.
    await still.propose(run_id, StateType.CANCELLING)
    assert (await still.state(run_id)).type is StateType.CANCELLING


# --- limits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paused", ["pool", "queue"])
async def test_paused(still: World, paused: str) -> None:
    run_id = await still.run()
    table, row = (WORK_POOL, still.pool_id) if paused == "pool" else (WORK_QUEUE, still.queue_id)
    await still.write(lambda tx: rows.patch(tx, table, row, {"is_paused": True}))
    desk = Desk(still)
    assert await desk.all() == []
    await still.write(lambda tx: rows.patch(tx, table, row, {"is_paused": False}))
    assert await desk.all() == [run_id]


@pytest.mark.parametrize("limited", ["pool", "queue", "plan", "deployment"])
@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_a_limit_is_used_up_and_never_passed(still: World, limited: str, limit: int) -> None:
    desk = Desk(still, plan={"concurrent_runs": limit if limited == "plan" else None})
    values: dict[str, Any] = {}
    if limited == "pool":
        await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": limit}))
    if limited == "queue":
        await still.write(lambda tx: rows.patch(tx, WORK_QUEUE, still.queue_id, {"concurrency_limit": limit}))
    if limited == "deployment":
        values["deployment_id"] = await still.deployment(concurrency_limit=limit)
    runs = [await still.run(due_in_seconds=-10 + number, **values) for number in range(7)]
    taken = await desk.all()
    assert taken == runs[:limit]
    assert await still.slots() == limit
    for number in range(limit, len(runs) if limit else 0):
        await end(still, runs[number - limit])
        assert await desk.all() == runs[: number + 1]
        assert await still.slots() == limit


async def test_runs_of_a_full_deployment_do_not_hold_up_the_others(still: World) -> None:
    """One slot in the pool, a hundred runs whose deployment is full before the one that may go."""
    full = await still.deployment("full", concurrency_limit=1)
    blocker = await still.run(deployment_id=full, due_in_seconds=-2000)
    desk = Desk(still)
    assert await desk.all() == [blocker]
    await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 2}))
    waiting = [await still.run(deployment_id=full, due_in_seconds=-1000 + number) for number in range(2 * BATCH)]
    free = await still.run(due_in_seconds=-1)
    assert await desk.all() == [blocker, free]
    assert (await still.state(waiting[0])).name == "AwaitingConcurrencySlot"


async def test_limits_of_all_levels_together(still: World) -> None:
    """Whatever ends, every level is as full as the others let it be, and none fuller."""
    await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 4}))
    narrow = await still.queue("narrow", concurrency_limit=2, priority=1)
    one = await still.deployment("one", concurrency_limit=1)
    _, second = await still.pool("second", concurrency_limit=3)
    for number in range(5):
        await still.run(queue_id=narrow, due_in_seconds=-50 + number)
        await still.run(deployment_id=one, due_in_seconds=-40 + number)
        await still.run(due_in_seconds=-30 + number)
        await still.run(queue_id=second, due_in_seconds=-20 + number)
    desk = Desk(still, plan={"concurrent_runs": 6})
    ended = 0
    while True:
        await desk.all()
        taken = await still.read(
            lambda tx: [
                tuple(row)
                for row in tx.all(
                    "SELECT r.id, q.work_pool_id, r.work_queue_id, r.deployment_id FROM flow_runs AS r "
                    "JOIN work_queues AS q ON q.id = r.work_queue_id WHERE r.state_type = 'PENDING' ORDER BY r.id"
                )
            ]
        )
        assert len(taken) == min(6, 20 - ended) or ended > 10
        assert sum(1 for row in taken if row[1] == still.pool_id) <= 4
        assert sum(1 for row in taken if row[2] == narrow) <= 2
        assert sum(1 for row in taken if row[3] == one) <= 1
        if not taken:
            break
        await end(still, taken[0][0])
        ended += 1
    assert ended == 20


@pytest.mark.parametrize("limited", ["workspace", "pool"])
@pytest.mark.parametrize("how", ["completed", "paused in its process", "waits for its next try", "deleted"])
async def test_a_container_that_is_still_there_takes_room(still: World, limited: str, how: str) -> None:
    """Limits are limits of containers: a run gives its room back when its process is gone, not when it has said its last word."""
    if limited == "pool":
        await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 1}))
    desk = Desk(still, plan={"concurrent_runs": 1 if limited == "workspace" else None})
    first = await still.run(empirical_policy={"retries": 1, "retry_delay": 60}, due_in_seconds=-5)
    second = await still.run()
    assert await desk.all() == [first]
    await still.propose(first, RUNNING)
    (execution,) = await still.executions(first)
    for source, to in ((Phase.CLAIMED, Phase.CREATED), (Phase.CREATED, Phase.RUNNING)):
        await still.write(lambda tx, source=source, to=to: executions.advance(tx, execution.id, (source,), to))  # type: ignore[misc]
    if how == "completed":
        await still.propose(first, StateType.COMPLETED)
    elif how == "paused in its process":
        await still.propose(first, StateType.PAUSED)
    elif how == "waits for its next try":
        await still.propose(first, StateType.FAILED)
        assert (await still.state(first)).name == "AwaitingRetry"
    else:
        await still.write(lambda tx: flow_runs.delete(tx, first))
    assert await desk.all() == [first]
    await still.write(lambda tx: executions.advance(tx, execution.id, (Phase.RUNNING,), Phase.EXITED))
    assert (await desk.all())[:2] == [first, second]


@pytest.mark.parametrize("strategy", ["ENQUEUE", "CANCEL_NEW"])
async def test_a_deployments_slot_is_free_when_the_container_of_its_ended_run_is_gone(
    still: World, strategy: str
) -> None:
    """A run that a limit ends is Crashed before its process gets a signal."""
    one = await still.deployment(concurrency_limit=1, concurrency_options={"collision_strategy": strategy})
    desk = Desk(still)
    first = await still.run(deployment_id=one, due_in_seconds=-5)
    assert await desk.all() == [first]
    (execution,) = await still.executions(first)
    await still.propose(first, RUNNING)
    await still.propose(first, StateType.CRASHED)
    second = await still.run(deployment_id=one)
    assert await desk.all() == [first]
    assert (await still.state(second)).name == "AwaitingConcurrencySlot"
    for source, to in ((Phase.CLAIMED, Phase.CREATED), (Phase.CREATED, Phase.RUNNING), (Phase.RUNNING, Phase.EXITED)):
        assert await desk.all() == [first]
        await still.write(lambda tx, source=source, to=to: executions.advance(tx, execution.id, (source,), to))  # type: ignore[misc]
    assert await desk.all() == [first, second]


async def test_a_workspace_that_holds_fewer_slots_goes_first(still: World) -> None:
    account, other = ids.new_id(), ids.new_id()
    await still.db.write(
        lambda tx: create(tx, account_id=account, account="o", workspace_id=other, handle="o", plan="pro")
    )
    for _ in range(3):
        await still.run()
    desk = Desk(still)
    await desk.all()

    def theirs(tx: Tx) -> str:
        flow = rows.insert(tx, FLOW, {"name": "f"})
        pool = rows.insert(tx, WORK_POOL, {"name": "p", "type": "prefect:managed", "base_job_template": {}})
        return rows.insert(tx, WORK_QUEUE, {"name": "q", "work_pool_id": pool, "priority": 100}) + " " + flow

    queue_id, flow_id = (await still.db.write(theirs, workspace=other)).split()
    mine = await still.run(due_in_seconds=-5)
    still.workspace = other
    foreign = await still.run(queue_id=queue_id, flow_id=flow_id)
    await desk.all()
    assert desk.claimed[-2:] == [foreign, mine]
    assert {claim.workspace_id for claim in desk.claims} == {other, ids.DEFAULT_WORKSPACE_ID}


# --- waiting for a slot ----------------------------------------------------------------------------------------------------


async def test_a_released_slot_goes_to_the_one_that_waited_at_once(world: World) -> None:
    """Not after the thirty seconds in which the run would have asked again."""
    deployment = await world.deployment(concurrency_limit=1)
    first = await world.run(deployment_id=deployment)
    desk = Desk(world)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)
        second = await world.run(deployment_id=deployment)

        async def waits() -> bool:
            return (await world.state(second)).name == "AwaitingConcurrencySlot"

        await world.until(waits, 3)
        await end(world, first)
        await world.until_state(second, PENDING, 2)
        tasks.cancel_scope.cancel()
    assert (await world.state(second)).details["scheduled_time"] <= iso(world.clock.now_us())


async def test_who_waits_for_a_slot_keeps_its_turn(still: World) -> None:
    """A newcomer does not pass one that has waited since before."""
    deployment = await still.deployment(concurrency_limit=1)
    first = await still.run(deployment_id=deployment)
    desk = Desk(still)
    await desk.all()
    waiting = await still.run(deployment_id=deployment)
    await desk.all()
    still.clock.advance(5)  # type: ignore[attr-defined]
    newcomer = await still.run(deployment_id=deployment)
    await end(still, first)
    assert await desk.all() == [first, waiting]
    await end(still, waiting)
    assert await desk.all() == [first, waiting, newcomer]


async def test_cancel_new(still: World) -> None:
    deployment = await still.deployment(concurrency_limit=1, concurrency_options={"collision_strategy": "CANCEL_NEW"})
    first = await still.run(deployment_id=deployment, due_in_seconds=-5)
    second = await still.run(deployment_id=deployment)
    assert await Desk(still).all() == [first]
    assert (await still.state(second)).type is StateType.CANCELLED


# --- who may not go --------------------------------------------------------------------------------------------------------


async def test_an_orphan_crashes_with_a_cause(still: World) -> None:
    deployment = await still.deployment()
    run_id = await still.run(deployment_id=deployment)
    await still.write(lambda tx: rows.delete(tx, DEPLOYMENT, deployment))
    assert await Desk(still).all() == []
    state = await still.state(run_id)
    assert state.type is StateType.CRASHED and "deployment of this run was deleted" in str(state.message)


async def test_a_live_execution_keeps_its_run(still: World) -> None:
    """AwaitingRetry in its own process, or resumed while the old container still exits."""
    deployment = await still.deployment()
    retrying = await still.run(deployment_id=deployment, empirical_policy={"retries": 3, "retry_delay": 0})
    resuming = await still.run(deployment_id=deployment)
    desk = Desk(still)
    await desk.all()
    for run_id in (retrying, resuming):
        await still.propose(run_id, RUNNING)
    await still.propose(retrying, StateType.FAILED)
    assert (await still.state(retrying)).name == "AwaitingRetry"
    await still.propose(resuming, StateType.PAUSED, name="Suspended", details={"pause_reschedule": True})
    now = {"scheduled_time": iso(still.clock.now_us())}
    await still.propose(resuming, SCHEDULED, name="Resuming", details=now)
    still.clock.advance(60)  # type: ignore[attr-defined]
    assert len(await desk.all()) == 2
    for run_id in (retrying, resuming):
        execution = await still.execution(run_id)
        await still.write(lambda tx, id_=execution.id: executions.advance(tx, id_, (Phase.CLAIMED,), Phase.EXITED))
        assert len(await desk.all()) == 2
    execution = await still.execution(resuming)
    await still.write(lambda tx: executions.advance(tx, execution.id, (Phase.EXITED,), Phase.FINALIZED))
    assert await desk.all() == [*desk.claimed[:2], resuming]
    assert [one.attempt for one in await still.executions(resuming)] == [1, 2]


async def test_other_pools_are_left_to_their_workers(still: World) -> None:
    _, hybrid = await still.pool("hybrid", type="process")
    await still.run(queue_id=hybrid)
    assert await Desk(still).all() == []


async def test_cancelling_with_nothing_to_stop_is_cancelled_at_once(still: World) -> None:
    run_id = await still.run()
    desk = Desk(still, may_claim=lambda: False)
    await still.propose(run_id, StateType.CANCELLING, force=True)
    if (await still.state(run_id)).type is StateType.CANCELLED:
        await still.propose(run_id, RUNNING, force=True)
        await still.propose(run_id, StateType.CANCELLING)
    await desk.all()
    assert (await still.state(run_id)).type is StateType.CANCELLED


@pytest.mark.parametrize("born", [PENDING, RUNNING])
async def test_a_run_that_is_under_way_only_by_its_creators_word_gives_its_slot_back(
    still: World, born: StateType
) -> None:
    await still.on_plan(concurrent_runs=1)
    held, waiting = await still.run(state=ProposedState(type=born)), await still.run()
    _, remote = await still.pool("elsewhere", type="kubernetes")
    other = await still.run(queue_id=remote, state=ProposedState(type=born))
    desk = Desk(still)
    still.clock.advance(UNHELD_SECONDS - 1)
    assert await desk.all() == []
    still.clock.advance(1)
    assert await desk.all() == [waiting]
    crashed = await still.state(held)
    assert (crashed.type, "has no container" in str(crashed.message)) == (StateType.CRASHED, True)
    assert (await still.state(other)).type is born
    still.clock.advance(UNHELD_SECONDS)
    assert await desk.all() == [waiting]
    assert (await still.state(waiting)).type is PENDING


async def test_nothing_is_claimed_while_the_engine_is_away(still: World) -> None:
    run_id = await still.run()
    answers = False
    desk = Desk(still, may_claim=lambda: answers)
    assert await desk.all() == []
    assert await still.history(run_id) == ["Scheduled"]
    answers = True
    assert await desk.all() == [run_id]


# --- trouble ---------------------------------------------------------------------------------------------------------------


async def test_a_run_that_cannot_be_claimed_is_set_aside(still: World) -> None:
    """One broken row does not keep the others from going."""
    broken, good = await still.run(due_in_seconds=-5), await still.run()
    await still.write(
        lambda tx: tx.execute("UPDATE flow_runs SET empirical_policy = '{\"pause_keys\": 5}' WHERE id = ?", (broken,))
    )
    desk = Desk(still)
    assert await desk.all() == [good]
    await still.write(lambda tx: tx.execute("UPDATE flow_runs SET empirical_policy = '{}' WHERE id = ?", (broken,)))
    assert await desk.all() == [good]
    still.clock.advance(61)  # type: ignore[attr-defined]
    assert await desk.all() == [good, broken]


class Busy:
    """A store that is busy some times."""

    def __init__(self, world: World, refusals: int) -> None:
        self._db = world.db
        self.left = refusals

    async def read(self, body: Any) -> Any:
        return await self._db.read(body)

    async def write(self, body: Any) -> Any:
        if self.left:
            self.left -= 1
            raise unavailable("the store is busy", 0.01)
        return await self._db.write(body)


async def test_a_busy_store_is_waited_for(world: World) -> None:
    run_id = await world.run()
    busy = Busy(world, 3)
    desk = Desk(world, db=busy, poll_seconds=0.01)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.dispatcher.run)

        async def claimed() -> bool:
            return desk.claimed == [run_id]

        await world.until(claimed, 3)
        tasks.cancel_scope.cancel()
    assert busy.left == 0


async def test_a_refusal_is_not_a_claim(world: World) -> None:
    busy = Busy(world, 1)
    run_id = await world.run()
    desk = Desk(world, db=busy)
    with pytest.raises(ManagedError):
        await desk.dispatcher.tick()
    assert desk.claims == [] and await world.history(run_id) == ["Scheduled"]


# --- ten thousand ------------------------------------------------------------------------------------------------------------


def _fill(tx: Tx, world: World, count: int, deployment: str | None, name: str, due_us: int) -> None:
    tx.executemany(
        "INSERT INTO flow_runs (id, workspace_id, name, flow_id, deployment_id, work_queue_id, state_type, state_name, "
        "expected_start_time, next_scheduled_start_time, created, updated) VALUES (?, ?, 'r', ?, ?, ?, 'SCHEDULED', ?, ?, ?, 0, 0)",
        [
            (
                ids.new_id(),
                world.workspace,
                world.flow_id,
                deployment,
                world.queue_id,
                name,
                due_us + number,
                due_us + number,
            )
            for number in range(count)
        ],
    )


@pytest.mark.parametrize("kind", ["future", "blocked", "due, no slot"])
async def test_ten_thousand_waiting_runs_do_not_slow_a_claim(still: World, kind: str) -> None:
    now = still.clock.now_us()
    deployment = await still.deployment(concurrency_limit=1)
    if kind == "future":
        await still.write(lambda tx: _fill(tx, still, 10_000, None, "Scheduled", now + 60 * SECOND_US))
    elif kind == "blocked":
        blocker = await still.run(deployment_id=deployment, due_in_seconds=-100)
        await still.propose(blocker, PENDING)
        await still.write(lambda tx: _fill(tx, still, 10_000, deployment, "AwaitingConcurrencySlot", now - SECOND_US))
    else:
        await still.write(lambda tx: _fill(tx, still, 10_000, None, "Scheduled", now - SECOND_US))
        await still.write(lambda tx: rows.patch(tx, WORK_POOL, still.pool_id, {"concurrency_limit": 0}))
    await still.db.read(queue.heads)
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        await still.db.read(queue.heads)
        await still.db.read(queue.next_due)
        await still.db.read(lambda tx: queue.candidates(tx, still.queue_id, BATCH))
        best = min(best, time.perf_counter() - began)
    # Ten thousand rows read one by one take several times as long; a busy machine is given room.
    assert best < 0.03


async def _plan(world: World, look: Any) -> list[str]:
    """How SQLite means to answer what `look` asks."""

    def body(tx: Tx) -> list[str]:
        asked: list[tuple[str, Any]] = []

        class Ear:
            now = tx.now

            def all(self, sql: str, params: Any = ()) -> list[Any]:
                asked.append((sql, params))
                return tx.all(sql, params)

            def scalar(self, sql: str, params: Any = ()) -> Any:
                asked.append((sql, params))
                return tx.scalar(sql, params)

        look(Ear())
        return [str(row["detail"]) for sql, params in asked for row in tx.all(f"EXPLAIN QUERY PLAN {sql}", params)]

    return await world.read(body)


async def test_the_queries_of_the_queue_use_their_indexes(still: World) -> None:
    for look in (
        queue.heads,
        queue.next_due,
        lambda tx: queue.candidates(tx, still.queue_id, 10),
        lambda tx: queue.parked(tx, still.queue_id, 10, free=NEEDS, since_before_us=0),
        lambda tx: queue.no_longer_waiting(
            tx, still.queue_id, 10, is_kept=True, has_hours=True, free=NEEDS, since_before_us=0
        ),
        lambda tx: queue.has_waited(tx, 0),
        lambda tx: queue.is_full(tx, "a run"),
        families.waiting_parents,
        families.holders,
        lambda tx: families.needs_below(tx, ["a run"]),
        lambda tx: queue.children(tx, still.queue_id, 10, free=NEEDS, parents=["a run"]),
        lambda tx: queue.unheld(tx, 10, since_before_us=0),
    ):
        steps = await _plan(still, look)
        assert steps
        for step in steps:
            verb, scanned, *_ = [*step.split(), ""]
            if verb != "SCAN":
                continue
            # Every run that waits is reached by index, never the whole table of runs or executions.
            assert scanned not in {"r", "o", "flow_runs"} or "INDEX" in step, steps
            # The index of the open ones holds no others.
            assert scanned not in {"e", "executions"} or "executions_open" in step, steps


async def test_waking_for_nothing_writes_nothing(still: World) -> None:
    desk = Desk(still, db=Busy(still, 1))
    still.bus.publish([Topic.QUEUE])
    assert await desk.dispatcher.tick() is False


async def test_looks_that_find_nothing_rest_when_they_come_thick_and_not_before(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "REST_SECONDS", 3600.0)
    desk = Desk(still)
    with anyio.fail_after(60):
        for _ in range(UNRESTED):
            assert await desk.dispatcher.tick() is False
        run_id = await still.run()
        assert await desk.dispatcher.tick() is False
    assert desk.claimed == [run_id]
    with anyio.move_on_after(0.2) as resting:
        await desk.dispatcher.tick()
    assert resting.cancelled_caught
