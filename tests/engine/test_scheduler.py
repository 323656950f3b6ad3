"""The scheduler over a real store and a clock that stands still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import anyio
import orjson
import pytest
import structlog

from managedd import ids
from managedd.bus import Bus, Topic
from managedd.clock import from_us, iso, to_us
from managedd.config import SchedulerSection
from managedd.engine import scheduler as engine
from managedd.engine.scheduler import Scheduler
from managedd.model.flow_runs import ProposedState
from managedd.model.states import StateType
from managedd.orchestration import deployments as deploying
from managedd.orchestration.transition import create_run, create_task_run, propose
from managedd.store import deployments, executions, rows
from managedd.store.database import Database
from managedd.store.resources import DEPLOYMENT_SCHEDULE, FLOW, FLOW_RUN, TASK_RUN
from managedd.store.workspaces import create, ensure_default
from managedd.wire.deployments import DeploymentCreate, DeploymentUpdate
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from managedd.store.database import Tx

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class House:
    """A store, its clock, and a scheduler over them."""

    db: Database
    bus: Bus
    clock: ManualClock
    workspace: str = ids.DEFAULT_WORKSPACE_ID

    def scheduler(self, **settings: Any) -> Scheduler:
        return Scheduler(self.db, self.bus, self.clock, SchedulerSection(**settings))

    async def write(self, fn: Callable[[Tx], Any]) -> Any:
        return await self.db.write(fn, workspace=self.workspace)

    async def deploy(self, name: str = "prod", *schedules: dict[str, Any], **more: Any) -> str:
        """The id of the deployment, saved as the API saves it."""

        def body(tx: Tx) -> str:
            flow = rows.by(tx, FLOW, name="etl")
            flow_id = flow["id"] if flow is not None else rows.insert(tx, FLOW, {"name": "etl"})
            sent = {"name": name, "flow_id": flow_id, "schedules": list(schedules), **more}
            return deploying.save(tx, deploying.draft(tx, DeploymentCreate.model_validate(sent)))[0]

        return str(await self.write(body))

    async def change(self, deployment_id: str, **sent: Any) -> None:
        def body(tx: Tx) -> None:
            deploying.change(tx, deploying.draft_change(tx, deployment_id, DeploymentUpdate.model_validate(sent)))

        await self.write(body)

    async def runs(self, deployment_id: str | None = None) -> list[dict[str, Any]]:
        """The runs, in due order."""

        def body(tx: Tx) -> list[dict[str, Any]]:
            found = rows.find(tx, FLOW_RUN, [], "EXPECTED_START_TIME_ASC", 2000)
            runs: list[dict[str, Any]] = orjson.loads(orjson.dumps(found))
            return [run for run in runs if deployment_id in {None, run["deployment_id"]}]

        found: list[dict[str, Any]] = await self.db.read(body, workspace=self.workspace)
        return found

    async def times(self, deployment_id: str | None = None) -> list[str]:
        return [run["next_scheduled_start_time"][:19] for run in await self.runs(deployment_id)]

    async def run(self, state: ProposedState, **values: Any) -> str:
        """The id of a new run in `state`."""

        def body(tx: Tx) -> str:
            flow = rows.by(tx, FLOW, name="etl")
            flow_id = flow["id"] if flow is not None else rows.insert(tx, FLOW, {"name": "etl"})
            return create_run(tx, {"name": "r", "flow_id": flow_id, **values}, state)[0]

        return str(await self.write(body))

    async def state(self, run_id: str) -> tuple[str, str, str | None]:
        run: dict[str, Any] = await self.db.read(lambda tx: rows.get(tx, FLOW_RUN, run_id), workspace=self.workspace)
        return run["state"]["type"], run["state"]["name"], run["state"]["message"]

    async def propose(self, run_id: str, type_: StateType, **more: Any) -> None:
        outcome = await self.write(lambda tx: propose(tx, run_id, ProposedState(type=type_, **more), force=True))
        assert outcome.created


@pytest.fixture
async def house(anyio_backend: str, tmp_path: Path) -> AsyncIterator[House]:
    bus, clock = Bus(), ManualClock()
    db = await Database.open(tmp_path / "state.db", bus=bus, clock=clock, migrations="managedd.store.migrations.state")
    try:
        await db.write(lambda tx: ensure_default(tx, plan="pro"))
        yield House(db=db, bus=bus, clock=clock)
    finally:
        await db.close()


def cron(text: str, timezone: str = "UTC", **more: Any) -> dict[str, Any]:
    return {"schedule": {"cron": text, "timezone": timezone}, **more}


def every(seconds: float, **more: Any) -> dict[str, Any]:
    anchor = {"anchor_date": "2026-01-01T00:00:00Z"}
    return {"schedule": {"interval": seconds, **anchor}, **more}


def scheduled(house: House, seconds: float = 0) -> ProposedState:
    moment = iso(house.clock.now_us() + round(seconds * 1_000_000))
    return ProposedState(type=StateType.SCHEDULED, details={"scheduled_time": moment})


# --- schedules become runs ----------------------------------------------------------------------------------------------


async def test_a_schedule_has_its_minimum_of_runs_ahead(house: House) -> None:
    await house.deploy(
        "prod", cron("0 9 * * *", parameters={"n": 2}), parameters={"n": 1, "m": 1}, tags=["t"], version="3"
    )
    scheduler = house.scheduler()
    assert await scheduler.fill() == 3
    assert await house.times() == ["2026-03-03T09:00:00", "2026-03-04T09:00:00", "2026-03-05T09:00:00"]
    run = (await house.runs())[0]
    assert (run["state"]["type"], run["state"]["name"]) == ("SCHEDULED", "Scheduled")
    assert run["state"]["state_details"]["scheduled_time"][:19] == "2026-03-03T09:00:00"
    assert (run["auto_scheduled"], run["parameters"], run["deployment_version"]) == (True, {"n": 2, "m": 1}, "3")
    assert (run["tags"], run["created_by"]["display_value"]) == (["auto-scheduled", "t"], "CronSchedule")
    assert run["labels"]["prefect.deployment.id"] == run["deployment_id"]
    assert run["idempotency_key"].startswith(
        f"scheduled {run['deployment_id']} {run['created_by']['id']} 2026-03-03T09"
    )
    events = await house.db.read(
        lambda tx: tx.scalar("SELECT count(*) FROM events WHERE event = 'prefect.flow-run.Scheduled'")
    )
    assert events == 3
    assert await scheduler.fill() == 0


async def test_a_frequent_schedule_reaches_an_hour_ahead_and_no_farther_than_the_maximum(house: House) -> None:
    often, very_often = await house.deploy("often", every(600)), await house.deploy("very often", every(1))
    scheduler = house.scheduler()
    assert await scheduler.fill() == 6 + 100
    assert (await house.times(often))[-1] == "2026-03-02T13:00:00"
    assert (await house.times(very_often))[-1] == "2026-03-02T12:01:40"
    house.clock.advance(600)
    assert await scheduler.fill() == 1 + 100
    assert (await house.times(often))[-1] == "2026-03-02T13:10:00"


async def test_time_passing_brings_new_runs_and_repeats_none(house: House) -> None:
    await house.deploy("prod", cron("0 * * * *"))
    scheduler = house.scheduler()
    for _ in range(30):
        await scheduler.fill()
        house.clock.advance(1800)
    times = await house.times()
    first = datetime(2026, 3, 2, 13)
    assert times == [(first + timedelta(hours=hour)).isoformat() for hour in range(len(times))]
    assert len(times) >= 15 + 2


@pytest.mark.parametrize(
    ("text", "start", "local"),
    [
        # Clocks go forward on 29 March: half past two does not exist, and the run starts as the gap ends.
        ("30 2 * * *", datetime(2026, 3, 28), ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        # And back on 25 October: half past two comes twice, and the run once.
        ("30 2 * * *", datetime(2026, 10, 24), ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]),
        ("0 9 * * *", datetime(2026, 3, 28), ["28 09:00 +0100", "29 09:00 +0200", "30 09:00 +0200"]),
    ],
)
async def test_local_time_is_kept_when_clocks_change(
    house: House, text: str, start: datetime, local: list[str]
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    house.clock.turn_to(start.replace(tzinfo=berlin))
    await house.deploy("prod", cron(text, "Europe/Berlin"))
    await house.scheduler().fill()
    shown = [datetime.fromisoformat(run["expected_start_time"]).astimezone(berlin) for run in await house.runs()]
    assert [moment.strftime("%d %H:%M %z") for moment in shown] == local


async def test_paused_deployments_and_inactive_schedules_are_left_alone(house: House) -> None:
    await house.deploy("paused", every(600), paused=True)
    await house.deploy("inactive", every(600, active=False))
    await house.deploy("without")
    assert await house.scheduler().fill() == 0
    assert await house.runs() == []


async def test_pausing_takes_the_runs_away_and_resuming_brings_them_back(house: House) -> None:
    deployment_id = await house.deploy("prod", cron("0 9 * * *"))
    scheduler = house.scheduler()
    await scheduler.fill()
    await house.write(lambda tx: deployments.pause(tx, deployment_id, paused=True))
    assert await house.runs() == []
    assert await scheduler.fill() == 0
    await house.write(lambda tx: deployments.pause(tx, deployment_id, paused=False))
    assert await scheduler.fill() == 3


async def test_a_changed_schedule_replaces_what_was_planned(house: House) -> None:
    deployment_id = await house.deploy("prod", cron("0 9 * * *", slug="daily"), cron("0 10 * * *", slug="other"))
    scheduler = house.scheduler()
    assert await scheduler.fill() == 6
    await house.change(deployment_id, schedules=[{"slug": "daily", "schedule": {"cron": "0 5 * * *"}}])
    assert await scheduler.fill() == 6
    assert {time[11:13] for time in await house.times()} == {"05", "10"}


async def test_a_maximum_of_scheduled_runs_is_kept_and_none_is_missed(house: House) -> None:
    await house.deploy("prod", every(60, max_scheduled_runs=2))
    scheduler = house.scheduler(interval_seconds=600)
    assert await scheduler.fill() == 2
    # The next round comes when the last of them is due, not when the interval is over.
    assert await scheduler._next_fill_seconds() == 120
    house.clock.advance(60)
    assert await scheduler.fill() == 1
    house.clock.advance(60)
    assert await scheduler.fill() == 1
    times = await house.times()
    assert times == [f"2026-03-02T12:0{minute}:00" for minute in range(1, 5)]


async def test_the_scheduler_comes_back_before_a_schedule_runs_dry(house: House) -> None:
    await house.deploy("prod", every(0.25, max_scheduled_runs=4))
    scheduler = house.scheduler()
    await scheduler.fill()
    assert await scheduler._next_fill_seconds() == pytest.approx(1.0)
    await house.deploy("later", every(3600))
    await scheduler.fill()
    assert await scheduler._next_fill_seconds() == pytest.approx(1.0)


async def test_a_run_that_somebody_cancelled_is_not_made_again(house: House) -> None:
    await house.deploy("prod", cron("0 9 * * *"))
    scheduler = house.scheduler()
    await scheduler.fill()
    first = (await house.runs())[0]
    await house.propose(first["id"], StateType.CANCELLED)
    assert await scheduler.fill() == 0
    assert [run["state"]["type"] for run in await house.runs()] == ["CANCELLED", "SCHEDULED", "SCHEDULED"]


async def test_a_broken_schedule_is_told_once_and_stops_no_other(house: House) -> None:
    broken = await house.deploy("broken", every(600))
    await house.deploy("good", every(600))
    await house.write(
        lambda tx: tx.execute(
            "UPDATE deployment_schedules SET schedule = ? WHERE deployment_id = ?", ('{"cron": "99 * * * *"}', broken)
        )
    )
    scheduler = house.scheduler()
    with structlog.testing.capture_logs() as logs:
        assert await scheduler.fill() == 6
        assert await scheduler.fill() == 0
    told = [entry for entry in logs if entry["event"] == "schedule.skipped"]
    assert len(told) == 1
    assert told[0]["deployment_id"] == broken
    assert "cron" in told[0]["reason"]


async def test_parameters_that_refer_to_nothing_stop_only_their_own_deployment(house: House) -> None:
    variable = {"n": {"__prefect_kind": "workspace_variable", "variable_name": "none"}}
    await house.deploy("bad", every(600), parameters=variable)
    await house.deploy("good", every(600), parameters={"n": {"__prefect_kind": "json", "value": "5"}})
    assert await house.scheduler().fill() == 6
    assert {run["parameters"]["n"] for run in await house.runs()} == {5}


async def test_a_schedule_that_is_over_rests(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.deploy("prod", {"schedule": {"rrule": "DTSTART:20260301T000000\nRRULE:FREQ=DAILY;COUNT=3"}})
    scheduler = house.scheduler()
    assert await scheduler.fill() == 1
    house.clock.advance(86_400)
    asked: list[str] = []
    plan = engine.scheduling.plan

    def counted(schedule_id: str, *rest: Any) -> Any:
        asked.append(schedule_id)
        return plan(schedule_id, *rest)

    monkeypatch.setattr(engine.scheduling, "plan", counted)
    for _ in range(3):
        assert await scheduler.fill() == 0
        house.clock.advance(60)
    assert len(asked) == 1
    house.clock.advance(3600)
    await scheduler.fill()
    assert len(asked) == 2


async def test_a_change_in_between_wins(house: House) -> None:
    deployment_id = await house.deploy("prod", every(600))

    def plan(tx: Tx) -> Any:
        hungry = engine.schedules.hungry(tx, min_runs=3, max_runs=9, horizon_us=tx.now, after="", limit=9)[0]
        moments = (from_us(tx.now) + timedelta(seconds=600),)
        return engine.scheduling.Planned(schedule_id=hungry.id, schedule=hungry.schedule, moments=moments)

    planned = await house.write(plan)
    await house.write(lambda tx: deployments.pause(tx, deployment_id, paused=True))
    assert await house.write(lambda tx: engine.scheduling.schedule_runs(tx, planned)) == 0
    await house.write(lambda tx: deployments.pause(tx, deployment_id, paused=False))
    assert await house.write(lambda tx: engine.scheduling.schedule_runs(tx, planned)) == 1
    await house.write(
        lambda tx: rows.patch(tx, DEPLOYMENT_SCHEDULE, planned.schedule_id, {"schedule": {"cron": "0 0 * * *"}})
    )
    later = engine.scheduling.Planned(
        schedule_id=planned.schedule_id, schedule=planned.schedule, moments=(from_us(house.clock.now_us()),)
    )
    assert await house.write(lambda tx: engine.scheduling.schedule_runs(tx, later)) == 0


async def test_runs_are_made_in_the_workspace_of_their_schedule(house: House) -> None:
    workspace = ids.new_id()
    await house.db.write(
        lambda tx: create(tx, account_id=ids.new_id(), account="o", workspace_id=workspace, handle="w", plan="pro")
    )
    theirs = House(db=house.db, bus=house.bus, clock=house.clock, workspace=workspace)
    await house.deploy("prod", every(600))
    await theirs.deploy("prod", every(1200))
    assert await house.scheduler().fill() == 6 + 3
    assert (len(await house.runs()), len(await theirs.runs())) == (6, 3)


async def test_more_schedules_than_a_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SCHEDULES_PER_BATCH", 3)
    for number in range(7):
        await house.deploy(f"d{number}", cron("0 9 * * *"))
    assert await house.scheduler().fill() == 21


async def test_a_thousand_runs_take_moments(house: House) -> None:
    """Recorded more than judged: the bound is ten times what it takes."""
    for number in range(10):
        await house.deploy(f"d{number}", every(1))
    started = time.perf_counter()
    assert await house.scheduler().fill() == 1000
    assert time.perf_counter() - started < 20


async def test_the_index_carries_the_question(house: House) -> None:
    def plan(tx: Tx) -> str:
        parameters = {"now": 1, "max_runs": 1, "after": ""}
        return " ".join(row["detail"] for row in tx.all(f"EXPLAIN QUERY PLAN {engine.schedules._AHEAD}", parameters))

    assert "flow_runs_schedule" in await house.db.read(plan)


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
    assert await scheduler.cancel_children() == 0
    await house.propose(parent, StateType.CANCELLED)
    assert await scheduler.cancel_children() == 2
    type_, _, message = await house.state(subflow)
    assert (type_, message) == ("CANCELLED", "The parent flow run was cancelled.")
    assert [await task_state(house, each) for each in (task_run, plain)] == ["CANCELLED", "CANCELLED"]
    assert await scheduler.cancel_children() == 0


async def test_a_subflow_in_a_place_of_its_own_is_told_to_stop(house: House) -> None:
    deployment_id = await house.deploy("child")
    parent, task_run, subflow = await parent_with_child(house, deployment_id=deployment_id, infrastructure_pid="c1")
    await house.propose(parent, StateType.CANCELLED)
    scheduler = house.scheduler()
    assert await scheduler.cancel_children() == 1
    assert (await house.state(subflow))[0] == "CANCELLING"
    assert await scheduler.cancel_children() == 0
    assert await task_state(house, task_run) == "CANCELLING"


async def test_children_of_runs_that_ended_otherwise_go_on(house: House) -> None:
    parent, _, subflow = await parent_with_child(house)
    await house.propose(parent, StateType.FAILED)
    assert await house.scheduler().cancel_children() == 0
    assert (await house.state(subflow))[0] == "RUNNING"


async def test_a_day_is_looked_back_once_and_then_minutes(house: House) -> None:
    parent, _, subflow = await parent_with_child(house)
    await house.propose(parent, StateType.CANCELLED)
    house.clock.advance(20 * 3600)
    scheduler = house.scheduler()
    assert await scheduler.cancel_children() == 1
    await house.propose(subflow, StateType.RUNNING)
    assert await scheduler.cancel_children() == 0
    assert await house.scheduler().cancel_children() == 1


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


# --- the loop ----------------------------------------------------------------------------------------------------------------


async def test_a_new_deployment_has_runs_within_moments(house: House) -> None:
    scheduler = house.scheduler(interval_seconds=3600)
    async with anyio.create_task_group() as tasks:
        await tasks.start(scheduler.run)
        await anyio.sleep(0.05)
        with house.bus.subscribe(Topic.RUNS) as woken:
            await house.deploy("prod", cron("0 9 * * *"))
            assert await woken.wait(5)
        with anyio.fail_after(5):
            while len(await house.runs()) < 3:  # noqa: ASYNC110 - what is waited for is a row
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_the_loop_outlives_a_fault(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = house.scheduler(interval_seconds=3600)
    monkeypatch.setattr(engine, "LOOK_SECONDS", 0.05)
    real, calls = scheduler.fill, 0

    async def fill() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("no such thing")
        return await real()

    monkeypatch.setattr(scheduler, "fill", fill)
    await house.deploy("prod", cron("0 9 * * *"))
    run_id = await house.run(scheduled(house))
    house.clock.advance(20)
    with structlog.testing.capture_logs() as logs:
        async with anyio.create_task_group() as tasks:
            await tasks.start(scheduler.run)
            with anyio.fail_after(5):
                while len(await house.runs()) < 4 or (await house.state(run_id))[1] != "Late":  # noqa: ASYNC110
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    assert [entry["work"] for entry in logs if entry["event"] == "scheduler.failed"] == ["fill"]
