"""What time does to runs: late, paused for too long, left over from a cancelled parent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from managedd.clock import iso, to_us
from managedd.engine import scheduler as engine
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration.transition import create_task_run
from managedd.store import executions, rows
from managedd.store.resources import TASK_RUN
from tests.engine.house import House, scheduled

pytestmark = pytest.mark.anyio


# --- late ------------------------------------------------------------------------------------------------------------------


async def test_a_run_that_did_not_start_is_late_once(house: House) -> None:
    run_id = await house.run(scheduled(house, 10))
    scheduler = house.scheduler()
    for advance, made, name in ((10, 0, "Scheduled"), (14.9, 0, "Scheduled"), (0.1, 1, "Late"), (60, 0, "Late")):
        house.clock.advance(advance)
        assert (await scheduler.mark_late(), (await house.state(run_id))[1]) == (made, name)
    (run,) = await house.runs()
    assert run["next_scheduled_start_time"] == iso(to_us(datetime(2026, 3, 2, 12, 0, 10, tzinfo=UTC)))


async def test_only_the_name_scheduled_becomes_late(house: House) -> None:
    state = scheduled(house)
    retry = await house.run(ProposedState(type=state.type, name="AwaitingRetry", details=state.details))
    begun = await house.run(state)
    await house.propose(begun, StateType.RUNNING)
    house.clock.advance(60)
    assert await house.scheduler().mark_late() == 0
    assert (await house.state(retry))[1] == "AwaitingRetry"


async def test_a_late_run_without_a_slot_is_dropped_where_its_deployment_says_so(house: House) -> None:
    deployment_id = await house.deploy(
        "prod", concurrency_limit=1, concurrency_options={"collision_strategy": "CANCEL_NEW"}
    )
    holder = await house.run(scheduled(house), deployment_id=deployment_id)
    await house.propose(holder, StateType.RUNNING)
    waiting = await house.run(scheduled(house), deployment_id=deployment_id)
    house.clock.advance(20)
    assert await house.scheduler().mark_late() == 1
    assert (await house.state(waiting))[0] == "CANCELLED"


async def test_many_late_runs_are_marked_in_batches(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "RUNS_PER_BATCH", 4)
    for _ in range(10):
        await house.run(scheduled(house))
    house.clock.advance(20)
    assert await house.scheduler().mark_late() == 10


async def test_one_run_that_cannot_be_marked_spoils_nothing_for_the_others(house: House) -> None:
    good, bad, also_good = [await house.run(scheduled(house)) for _ in range(3)]
    await house.write(lambda tx: tx.execute("UPDATE flow_runs SET empirical_policy = 'nonsense' WHERE id = ?", (bad,)))
    house.clock.advance(20)
    with structlog.testing.capture_logs() as logs:
        assert await house.scheduler().mark_late() == 2
    assert [entry["run_id"] for entry in logs if entry["event"] == "run.skipped"] == [bad]
    assert [(await house.state(run_id))[1] for run_id in (good, also_good)] == ["Late", "Late"]


async def test_the_next_look_is_when_something_is_due(house: House) -> None:
    scheduler = house.scheduler()
    assert await scheduler._next_look_seconds() == engine.LOOK_SECONDS
    await house.run(scheduled(house, -12))
    assert await scheduler._next_look_seconds() == pytest.approx(3.0)
    paused = await house.run(scheduled(house))
    await house.propose(paused, StateType.PAUSED, details={"pause_timeout": iso(house.clock.now_us() + 1_500_000)})
    assert await scheduler._next_look_seconds() == pytest.approx(1.5, abs=0.002)


# --- pauses ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timeout", ["2026-03-02T12:00:30Z", "2026-03-02T12:00:30.000000+00:00", "2026-03-02T13:00:30+01:00"]
)
async def test_a_pause_that_lasts_too_long_fails_the_run(house: House, timeout: str) -> None:
    run_id = await house.run(scheduled(house))
    await house.propose(run_id, StateType.RUNNING)
    await house.propose(run_id, StateType.PAUSED, details={"pause_timeout": timeout, "pause_key": "1"})
    forever = await house.run(scheduled(house))
    await house.propose(forever, StateType.PAUSED)
    scheduler = house.scheduler()
    house.clock.advance(29.9)
    assert await scheduler.expire_pauses() == 0
    house.clock.advance(0.2)
    assert await scheduler.expire_pauses() == 1
    type_, _, message = await house.state(run_id)
    assert (type_, "never resumed" in str(message)) == ("FAILED", True)
    assert (await house.state(forever))[0] == "PAUSED"
    assert await scheduler.expire_pauses() == 0


# --- what cancelled runs leave behind ----------------------------------------------------------------------------------------


async def parent_with_child(house: House, **child: Any) -> tuple[str, str, str]:
    parent = await house.run(scheduled(house))
    await house.propose(parent, StateType.RUNNING)
    values = {"name": "t", "flow_run_id": parent, "task_key": "k", "dynamic_key": "0"}
    task_run, _ = await house.write(lambda tx: create_task_run(tx, values, ProposedState(type=StateType.PENDING)))
    subflow = await house.run(scheduled(house), parent_task_run_id=task_run, **child)
    await house.propose(subflow, StateType.RUNNING)
    return parent, task_run, subflow


async def task_state(house: House, task_run: str) -> str:
    found = await house.db.read(lambda tx: rows.get(tx, TASK_RUN, task_run), workspace=house.workspace)
    return str(found["state_type"])


async def test_what_ran_below_a_cancelled_run_is_cancelled(house: House) -> None:
    parent, task_run, subflow = await parent_with_child(house)
    plain, _ = await house.write(
        lambda tx: create_task_run(
            tx,
            {"name": "p", "flow_run_id": parent, "task_key": "p", "dynamic_key": "0"},
            ProposedState(type=StateType.RUNNING),
        )
    )
    scheduler = house.scheduler()
    assert await scheduler.end_children() == 0
    await house.propose(parent, StateType.CANCELLED)
    assert await scheduler.end_children() == 2
    type_, _, message = await house.state(subflow)
    assert (type_, message) == ("CANCELLED", "The parent flow run was cancelled.")
    assert [await task_state(house, each) for each in (task_run, plain)] == ["CANCELLED", "CANCELLED"]
    assert await scheduler.end_children() == 0


async def test_a_subflow_in_a_place_of_its_own_is_told_to_stop(house: House) -> None:
    deployment_id = await house.deploy("child")
    parent, task_run, subflow = await parent_with_child(house, deployment_id=deployment_id, infrastructure_pid="c1")
    await house.propose(parent, StateType.CANCELLED)
    scheduler = house.scheduler()
    assert await scheduler.end_children() == 1
    assert (await house.state(subflow))[0] == "CANCELLING"
    assert await scheduler.end_children() == 0
    assert await task_state(house, task_run) == "CANCELLING"


async def test_children_of_runs_that_ended_otherwise_go_on(house: House) -> None:
    parent, _, subflow = await parent_with_child(house)
    await house.propose(parent, StateType.FAILED)
    assert await house.scheduler().end_children() == 0
    assert (await house.state(subflow))[0] == "RUNNING"


async def test_a_day_is_looked_back_once_and_then_minutes(house: House) -> None:
    parent, _, subflow = await parent_with_child(house)
    await house.propose(parent, StateType.CANCELLED)
    house.clock.advance(20 * 3600)
    scheduler = house.scheduler()
    assert await scheduler.end_children() == 1
    await house.propose(subflow, StateType.RUNNING)
    assert await scheduler.end_children() == 0
    assert await house.scheduler().end_children() == 1


async def test_a_run_that_stays_cancelling_without_a_container_is_cancelled(house: House) -> None:
    served, ours = [await house.run(scheduled(house)) for _ in range(2)]
    for run_id in (served, ours):
        await house.propose(run_id, StateType.RUNNING)
    await house.write(lambda tx: executions.insert(tx, flow_run_id=ours, work_pool_id=None, driver="fake"))
    await house.write(lambda tx: tx.execute("UPDATE flow_runs SET infrastructure_pid = 'x'"))
    for run_id in (served, ours):
        await house.propose(run_id, StateType.CANCELLING)
    scheduler = house.scheduler()
    house.clock.advance(299)
    assert await scheduler.end_cancelling() == 0
    house.clock.advance(2)
    assert await scheduler.end_cancelling() == 1
    assert (await house.state(served))[0] == "CANCELLED"
    assert (await house.state(ours))[0] == "CANCELLING"


async def test_what_ran_in_the_process_of_a_crashed_run_has_crashed(house: House) -> None:
    deployment_id = await house.deploy("child")
    parent, task_run, subflow = await parent_with_child(house)
    other, other_task, apart = await parent_with_child(house, deployment_id=deployment_id)
    served, _, under_way = await parent_with_child(house)
    await house.write(lambda tx: executions.insert(tx, flow_run_id=served, work_pool_id=None, driver="fake"))
    for run_id in (parent, other, served):
        await house.propose(run_id, StateType.CRASHED, message="Killed.")
    assert await house.scheduler().end_children() == 1
    type_, _, message = await house.state(subflow)
    assert (type_, str(message).endswith("parent flow run: Killed.")) == ("CRASHED", True)
    assert await task_state(house, task_run) == "CRASHED"
    # One in a place of its own goes on; and so does, for us, what an execution still stands for.
    assert [(await house.state(run_id))[0] for run_id in (apart, under_way)] == ["RUNNING", "RUNNING"]
    assert await task_state(house, other_task) == "RUNNING"
