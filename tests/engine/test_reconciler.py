"""The reconciler: the plan as a pure function, and what it comes to over a store and an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd.drivers.fake import FakeDriver, FakeRun
from managedd.engine import reconciler as module
from managedd.engine.reconciler import CREATION_GRACE_SECONDS, Remove, Supervise, plan
from managedd.model.drivers import Found, Handle, Liveness
from managedd.model.executions import EndCause, Execution, Phase
from managedd.model.states import StateType
from managedd.store import executions
from tests.engine.world import SECOND_US, spec_of

if TYPE_CHECKING:
    from tests.engine.world import World

NOW = 1_000_000 * SECOND_US


def row(id_: str, phase: Phase = Phase.RUNNING) -> Execution:
    return Execution(
        id=id_, workspace_id="w", flow_run_id=f"run of {id_}", attempt=1, phase=phase, driver="fake", handle=None, image=None,
        memory_limit_bytes=None, cpu_limit=None, time_limit_seconds=None, claimed_at=0, created_at=None, started_at=None,
        installed_at=None, exited_at=None, finalized_at=None, exit_code=None, oom_killed=False, peak_memory_bytes=None,
        stop_requested_at=None, stop_reason=None, end_cause=None, end_message=None,
    )  # fmt: skip


def found(id_: str, *, age_seconds: float = 0.0, liveness: Liveness = Liveness.RUNNING) -> Found:
    return Found(
        execution_id=id_,
        flow_run_id=None,
        handle=Handle(driver="fake", version=1, data={"id": "c", "execution_id": id_}),
        liveness=liveness,
        created_at_us=NOW - round(age_seconds * SECOND_US),
    )


async def ended(world: World, execution: Execution) -> None:
    """The execution, which was only claimed, has ended for good."""
    for before, after in ((Phase.CLAIMED, Phase.EXITED), (Phase.EXITED, Phase.LOST)):
        await world.write(lambda tx, b=before, a=after: executions.advance(tx, execution.id, (b,), a))  # type: ignore[misc]


ids = st.sampled_from("abcdef")
open_phases = st.sampled_from([Phase.CLAIMED, Phase.CREATED, Phase.RUNNING, Phase.EXITED])


@given(
    rows=st.dictionaries(ids, open_phases),
    there=st.dictionaries(ids, st.tuples(st.floats(0, 200), st.sampled_from(Liveness))),
    running=st.frozensets(ids),
    up_seconds=st.floats(0, 200),
)
@settings(max_examples=400, deadline=None)
def test_the_plan(
    rows: dict[str, Phase], there: dict[str, tuple[float, Liveness]], running: frozenset[str], up_seconds: float
) -> None:
    items = [found(id_, age_seconds=age, liveness=liveness) for id_, (age, liveness) in there.items()]
    actions = plan(
        [row(id_, phase) for id_, phase in rows.items()],
        items,
        running,
        now_us=NOW,
        daemon_started_us=NOW - round(up_seconds * SECOND_US),
    )
    supervised = {action.execution.id for action in actions if isinstance(action, Supervise)}
    removed = {action.found.execution_id for action in actions if isinstance(action, Remove)}
    assert len(actions) == len(supervised) + len(removed)
    # Every open row ends up with exactly one runner; what has an open row or a runner is never removed.
    assert supervised == set(rows) - running
    assert not removed & (set(rows) | running)
    for id_, (age, _) in there.items():
        if id_ in rows or id_ in running:
            continue
        ours_and_young = age <= up_seconds and age < CREATION_GRACE_SECONDS
        if abs(age - up_seconds) > 0.001 and abs(age - CREATION_GRACE_SECONDS) > 0.001:
            assert (id_ in removed) is not ours_and_young


@pytest.mark.anyio
async def test_what_was_only_claimed_is_made(world: World) -> None:
    execution = await world.claimed()
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(execution.flow_run_id, Phase.FINALIZED)
    assert world.calls("create") == 1


@pytest.mark.anyio
async def test_what_runs_is_adopted_and_what_ended_meanwhile_is_finished(world: World) -> None:
    world.engine._plan = lambda spec: FakeRun(run_for_seconds=None)
    one, two, three = [await world.claimed() for _ in range(3)]
    async with world.daemon() as daemon:
        for execution in (one, two, three):
            daemon.fleet.start(execution)
            await world.until_phase(execution.flow_run_id, Phase.RUNNING)
            await world.propose(execution.flow_run_id, StateType.RUNNING)
    world.engine.finish(two.id, 3)
    world.engine.vanish(three.id)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(two.flow_run_id, Phase.FINALIZED)
        await world.until_phase(three.flow_run_id, Phase.LOST)
        assert (await world.execution(one.flow_run_id)).phase is Phase.RUNNING
        with anyio.fail_after(10):
            while daemon.fleet.running() != {one.id}:  # noqa: ASYNC110 (the last step of a runner, that nobody tells)
                await anyio.sleep(0.005)
        # Again: everybody has a runner already.
        assert await daemon.reconciler.once() == []
    assert (await world.execution(two.flow_run_id)).exit_code == 3
    assert (await world.execution(three.flow_run_id)).end_cause is EndCause.LOST
    assert (await world.state(one.flow_run_id)).type is StateType.RUNNING
    assert set(world.engine.containers) == {one.id}


@pytest.mark.anyio
async def test_what_nobody_owns_is_removed_and_another_daemons_is_not_touched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = await world.claimed()
    await ended(world, execution)
    driver = FakeDriver(world.engine)
    foreign = replace(spec_of(execution), execution_id="theirs", instance_id="elsewhere")
    for spec in (spec_of(execution), foreign):
        await driver.start(await driver.create(spec))
    async with world.daemon() as daemon:
        daemon.reconciler._started_us = 0
        # Younger than the grace: its row may be on its way.
        await daemon.reconciler.once()
        assert set(world.engine.containers) == {execution.id, "theirs"}
        monkeypatch.setattr(module, "CREATION_GRACE_SECONDS", 0.0)
        await daemon.reconciler.once()
    assert set(world.engine.containers) == {"theirs"}


@pytest.mark.anyio
async def test_what_an_earlier_process_left_is_removed_at_once(world: World) -> None:
    execution = await world.claimed()
    await ended(world, execution)
    await FakeDriver(world.engine).create(spec_of(execution))
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
    assert world.engine.containers == {}


@pytest.mark.anyio
async def test_a_removal_that_fails_is_tried_again(world: World) -> None:
    execution = await world.claimed()
    await ended(world, execution)
    world.engine._plan = FakeRun(remove_error="busy")
    await FakeDriver(world.engine).create(spec_of(execution))
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        world.engine.containers[execution.id].run.remove_error = None
        await daemon.reconciler.once()
    assert world.engine.containers == {}


@pytest.mark.anyio
async def test_what_cannot_be_done_keeps_nothing_else_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with an error that nobody has foreseen: the daemon starts, and dispatches."""
    broken, other, claimed = [await world.claimed() for _ in range(3)]
    for execution in (broken, other):
        await ended(world, execution)
        await FakeDriver(world.engine).create(spec_of(execution))
    real = FakeDriver.remove

    async def remove(driver: FakeDriver, handle: Handle) -> None:
        if handle.data["execution_id"] == broken.id:
            raise RecursionError
        await real(driver, handle)

    monkeypatch.setattr(FakeDriver, "remove", remove)
    async with world.daemon() as daemon:
        await daemon.reconciler.once()
        await world.until_phase(claimed.flow_run_id, Phase.FINALIZED)
    assert broken.id in world.engine.containers
    assert other.id not in world.engine.containers
