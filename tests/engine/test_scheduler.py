"""Schedules become runs: the scheduler over a real store and a clock that stands still."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import anyio
import pytest
import structlog

from managedd import ids
from managedd.bus import Topic
from managedd.clock import from_us
from managedd.engine import scheduler as engine
from managedd.model.states import StateType
from managedd.store import deployments, rows
from managedd.store.resources import DEPLOYMENT_SCHEDULE
from managedd.store.workspaces import create

if TYPE_CHECKING:
    from managedd.store.database import Tx

from tests.engine.house import House, cron, every, scheduled

pytestmark = pytest.mark.anyio


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
