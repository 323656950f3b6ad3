"""What ran in a run's process ends with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.clock import iso
from managedd.drivers.fake import FakeRun
from managedd.engine import offspring
from managedd.errors import ManagedError
from managedd.model.executions import ENDED, EndCause, Execution
from managedd.model.flow_runs import ProposedState
from managedd.model.states import State, StateType
from managedd.orchestration.transition import create_task_run
from managedd.store import concurrency, executions
from managedd.store.task_runs import Applied, Change, apply
from tests.engine.test_runner import finished
from tests.engine.test_runner import running as running_execution

if TYPE_CHECKING:
    from tests.engine.world import World

pytestmark = pytest.mark.anyio

RUNNING, PENDING, CANCELLING, PAUSED = StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED
COMPLETED, FAILED, CRASHED, CANCELLED = StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED


async def task(world: World, run_id: str, key: str = "0", type_: StateType = RUNNING, **details: Any) -> str:
    values = {"name": "t", "flow_run_id": run_id, "task_key": "k", "dynamic_key": key}
    state = ProposedState(type=type_, details=details)
    return (await world.write(lambda tx: create_task_run(tx, values, state)))[0]


async def below(world: World, task_run: str, **values: Any) -> str:
    """A subflow that runs; in its parent's process, unless `values` give it a place."""
    run_id = await world.run(**{"queue_id": None, "work_queue_id": None, "parent_task_run_id": task_run, **values})
    await world.propose(run_id, RUNNING, force=True)
    return run_id


async def shown(world: World, table: str, id_: str) -> tuple[str, str]:
    """The state's type and message, as the history has them too."""

    def body(tx: Any) -> tuple[str, str]:
        states = "flow_run_states" if table == "flow_runs" else "task_run_states"
        row = tx.one(
            f"SELECT r.state_type, s.type, s.message FROM {table} AS r JOIN {states} AS s ON s.id = r.state_id WHERE r.id = ?",
            (id_,),
        )
        assert row[0] == row[1]
        return row[0], str(row[2])

    return await world.read(body)


class Family:
    """A run with a task, a subflow, a subflow of that, and a child in a place of its own."""

    def __init__(self, world: World, execution: Execution) -> None:
        self.world, self.run_id, self.execution = world, execution.flow_run_id, execution

    async def grow(self) -> None:
        world = self.world
        self.plain = await task(world, self.run_id, "plain")
        self.stand_in = await task(world, self.run_id, "sub")
        self.sub = await below(world, self.stand_in)
        self.sub_task = await task(world, self.sub, type_=PENDING)
        self.deep_stand_in = await task(world, self.sub, "deep")
        self.deep = await below(world, self.deep_stand_in)
        self.deep_task = await task(world, self.deep)
        self.done = await task(world, self.run_id, "done", COMPLETED)
        self.background = await task(world, self.run_id, "later", StateType.SCHEDULED, deferred=True)
        self.apart_stand_in = await task(world, self.run_id, "apart")
        deployment = await world.deployment("child")
        self.apart = await below(world, self.apart_stand_in, deployment_id=deployment, work_queue_id=world.queue_id)

    async def in_process(self) -> list[tuple[str, str]]:
        runs = [await shown(self.world, "flow_runs", each) for each in (self.sub, self.deep)]
        tasks = (self.plain, self.stand_in, self.sub_task, self.deep_stand_in, self.deep_task)
        return runs + [await shown(self.world, "task_runs", each) for each in tasks]

    async def others(self) -> list[str]:
        tasks = [
            await shown(self.world, "task_runs", each) for each in (self.done, self.background, self.apart_stand_in)
        ]
        return [type_ for type_, _ in [await shown(self.world, "flow_runs", self.apart), *tasks]]


@pytest.fixture
async def family(world: World) -> Family:
    world.engine._plan = FakeRun(run_for_seconds=None)
    made = Family(world, await world.claimed())
    await world.propose(made.run_id, RUNNING)
    await made.grow()
    return made


OTHERS = ["RUNNING", "COMPLETED", "SCHEDULED", "RUNNING"]


async def ended(family: Family, *, end: StateType | None = None, oom: bool = False, code: int = 1, **more: Any) -> None:
    """The container ends after the run has said `end`."""
    async with family.world.daemon() as daemon:
        daemon.fleet.start(family.execution)
        await family.world.until_called("wait", family.execution.id)
        if end is not None:
            await family.world.propose(family.run_id, end, **{"message": "its own", **more})
        family.world.engine.finish(family.execution.id, code, oom=oom)

        async def over() -> bool:
            return (await family.world.execution(family.run_id)).phase in ENDED

        await family.world.until(over)


async def test_all_of_a_crashed_runs_process_has_crashed(family: Family) -> None:
    await ended(family, oom=True)
    state = await family.world.state(family.run_id)
    assert state.type is CRASHED and "Out of memory" in str(state.message)
    for type_, message in await family.in_process():
        assert type_ == "CRASHED" and "parent flow run: Out of memory" in message
    assert await family.others() == OTHERS


@pytest.mark.parametrize("end", [COMPLETED, FAILED, CRASHED, CANCELLED])
async def test_also_of_a_run_that_had_an_end_of_its_own(family: Family, end: StateType) -> None:
    await ended(family, end=end, code=0)
    assert (await family.world.state(family.run_id)).message == "its own"
    expected = "CANCELLED" if end is CANCELLED else "CRASHED"
    assert {type_ for type_, _ in await family.in_process()} == {expected}
    assert await family.others() == OTHERS


async def test_a_child_that_was_being_cancelled_is_cancelled(family: Family) -> None:
    await family.world.propose(family.deep, CANCELLING)
    await ended(family)
    assert (await shown(family.world, "flow_runs", family.deep))[0] == "CANCELLED"
    assert (await shown(family.world, "flow_runs", family.sub))[0] == "CRASHED"


async def test_the_end_and_those_below_are_one_commit(family: Family) -> None:
    """Also where the end is given before the first signal: nobody ever sees the one without the other."""
    world = family.world
    await world.write(lambda tx: executions.note(tx, family.execution.id, {"time_limit_seconds": 1}))
    async with world.daemon() as daemon:
        daemon.fleet.start(family.execution)
        await world.until_state(family.run_id, CRASHED)
        assert {type_ for type_, _ in await family.in_process()} == {"CRASHED"}
        assert all("Time limit" in message for _, message in await family.in_process())


async def test_many_are_ended_in_steps(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offspring, "STEP", 3)
    many = [await task(family.world, family.run_id, f"m{number}") for number in range(10)]
    await ended(family)
    assert {type_ for type_, _ in await family.in_process()} == {"CRASHED"}
    assert {(await shown(family.world, "task_runs", each))[0] for each in many} == {"CRASHED"}
    assert await family.others() == OTHERS


@pytest.mark.parametrize("next_", ["suspended", "scheduled anew"])
async def test_a_run_that_goes_on_later_goes_on_with_its_children(world: World, next_: str) -> None:
    world.engine._plan = FakeRun(run_for_seconds=None)
    family = Family(world, await world.claimed(deployment_id=await world.deployment()))
    await world.propose(family.run_id, RUNNING)
    await family.grow()
    before = await family.in_process()
    if next_ == "suspended":
        await ended(family, end=PAUSED, name="Suspended", details={"pause_reschedule": True}, code=0)
    else:
        moment = iso(world.clock.now_us() + 3600 * 1_000_000)
        await ended(family, end=StateType.SCHEDULED, force=True, details={"scheduled_time": moment}, code=0)
    assert (await world.execution(family.run_id)).end_cause is EndCause.COMPLETED
    assert await family.in_process() == before


@pytest.mark.parametrize("end", [COMPLETED, FAILED])
async def test_a_task_runs_own_word_for_its_end_may_come_late(family: Family, end: StateType) -> None:
    """It was on its way when the process ended; what is no end says nothing any more."""
    before = family.world.clock.now_us()
    await ended(family, end=COMPLETED, code=0)

    async def tell(type_: StateType, at_us: int) -> Applied:
        state = State(
            type=type_, name=type_.value.title(), id=ids.new_id(), timestamp_us=at_us, message="from an event"
        )
        columns = {"name": "t", "task_key": "k", "dynamic_key": "plain"}
        change = Change(task_run_id=family.plain, flow_run_id=family.run_id, state=state, columns=columns)
        return await family.world.write(lambda tx: apply(tx, change))

    assert await tell(RUNNING, before) is Applied.OLDER
    assert (await shown(family.world, "task_runs", family.plain))[0] == "CRASHED"
    assert await tell(end, before + 1) is Applied.NEWEST
    assert await shown(family.world, "task_runs", family.plain) == (end.value, "from an event")


@pytest.mark.parametrize("how", ["taken in its container", "of the flow run", "of a task run", "of a subflow"])
async def test_a_run_that_is_killed_gives_its_concurrency_slots_back(world: World, how: str) -> None:
    async with world.daemon() as daemon:
        execution = await running_execution(world, daemon)
        run_id = execution.flow_run_id
        task_run = await task(world, run_id)
        holders = {
            "taken in its container": {"execution_id": execution.id},
            "of the flow run": {"holder": {"type": "flow_run", "id": run_id}},
            "of a task run": {"holder": {"type": "task_run", "id": task_run}},
            "of a subflow": {"holder": {"type": "flow_run", "id": await below(world, task_run)}},
        }
        foreign = {"type": "task_run", "id": await task(world, await world.run())}
        await world.write(lambda tx: concurrency.create(tx, {"name": "db", "limit": 2}))

        async def take(**of: Any) -> concurrency.Acquired | concurrency.Refused:
            return await world.write(
                lambda tx: concurrency.acquire(tx, ["db"], 1, "concurrency", lease_seconds=86_400, **of)
            )

        assert isinstance(await take(**holders[how]), concurrency.Acquired)
        assert isinstance(await take(holder=foreign), concurrency.Acquired)
        assert isinstance(await take(), concurrency.Refused)
        world.engine.finish(execution.id, 137, oom=True)
        await finished(world, execution)
        assert isinstance(await take(), concurrency.Acquired)
        # Another's lease is its own.
        assert isinstance(await take(), concurrency.Refused)
        with pytest.raises(ManagedError, match="has ended"):
            await take(execution_id=execution.id)
