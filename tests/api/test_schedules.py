"""Schedules of deployments over HTTP."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import anyio
import pytest
from pydantic import TypeAdapter

from managedd.bus import Topic
from managedd.orchestration import recurrence
from managedd.wire.schedules import DeploymentSchedule, NextTimes, ScheduleTimes
from tests.api.deployed import CRON, deploy, run_it, runs_of

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def listed(api: ApiClient, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    status, schedules = await api.get(f"/deployments/{deployment['id']}/schedules")
    assert status == 200, schedules
    TypeAdapter(list[DeploymentSchedule]).validate_python(schedules)
    found: list[dict[str, Any]] = schedules
    return found


async def test_schedules_are_added_and_listed(api: ApiClient) -> None:
    made = await deploy(api)
    path = f"/deployments/{made['id']}/schedules"
    sent = [
        {"schedule": CRON, "active": False, "max_scheduled_runs": 3, "parameters": {"n": 1}, "slug": "daily"},
        {"schedule": {"interval": 90.5, "anchor_date": "2026-01-01T00:00:00+02:00", "timezone": "Europe/Berlin"}},
    ]
    with api.services.bus.subscribe(Topic.SCHEDULES) as woken:
        status, added = await api.post(path, sent)
        assert await woken.wait(1)
    assert status == 201
    TypeAdapter(list[DeploymentSchedule]).validate_python(added)
    daily, often = added
    assert (daily["deployment_id"], daily["active"], daily["max_scheduled_runs"]) == (made["id"], False, 3)
    assert (daily["schedule"], daily["parameters"], daily["slug"]) == ({**CRON, "day_or": True}, {"n": 1}, "daily")
    assert often["schedule"] == {
        "interval": 90.5,
        "anchor_date": "2025-12-31T22:00:00.000000Z",
        "timezone": "Europe/Berlin",
    }
    assert {schedule["id"] for schedule in await listed(api, made)} == {daily["id"], often["id"]}
    assert {schedule["id"] for schedule in (await api.get(f"/deployments/{made['id']}"))[1]["schedules"]} == {
        daily["id"],
        often["id"],
    }


async def test_a_bad_schedule_adds_none(api: ApiClient) -> None:
    made = await deploy(api)
    path = f"/deployments/{made['id']}/schedules"
    status, body = await api.post(path, [{"schedule": CRON}, {"schedule": {"cron": "nope"}}])
    assert (status, "cron" in body["detail"]) == (422, True)
    status, body = await api.post(path, [{"schedule": CRON, "slug": "a"}, {"schedule": CRON, "slug": "a"}])
    assert (status, body["detail"]) == (409, "Schedule slugs must be unique within a deployment.")
    assert await listed(api, made) == []
    assert (await api.post(path, [{"schedule": CRON}] * 101))[0] == 409
    assert (await api.post(f"/deployments/{uuid4()}/schedules", [{"schedule": CRON}]))[0] == 404
    assert (await api.get(f"/deployments/{uuid4()}/schedules"))[0] == 404


async def test_a_patch_changes_only_what_it_names_and_plans_anew(api: ApiClient) -> None:
    made = await deploy(
        api,
        schedules=[
            {"schedule": {"interval": 600}, "parameters": {"n": 1}, "slug": "a", "max_scheduled_runs": 9},
            {"schedule": {"interval": 600}, "slug": "b"},
        ],
    )
    ids = {schedule["slug"]: schedule["id"] for schedule in made["schedules"]}
    await api.post(f"/deployments/{made['id']}/schedule", {"min_runs": 2, "min_time": 0})
    await api.post(
        f"/deployments/{made['id']}/schedule",
        {"start_time": "2026-01-01T00:00:00Z", "min_runs": 1, "max_runs": 1, "min_time": 0},
    )
    path = f"/deployments/{made['id']}/schedules/{ids['a']}"
    with api.services.bus.subscribe(Topic.SCHEDULES) as woken:
        assert await api.patch(path, {"active": False, "schedule": None}) == (204, None)
        assert await woken.wait(1)
    now = {schedule["slug"]: schedule for schedule in await listed(api, made)}["a"]
    assert (now["active"], now["parameters"], now["max_scheduled_runs"]) == (False, {"n": 1}, 9)
    assert now["schedule"]["interval"] == 600
    # What is due already stays, and so does what the other schedule planned.
    by_schedule = [run["created_by"]["id"] for run in await runs_of(api, made)]
    assert (by_schedule.count(ids["a"]), by_schedule.count(ids["b"])) == (1, 3)

    assert await api.patch(path, {"max_scheduled_runs": None, "schedule": CRON, "slug": "c"}) == (204, None)
    now = {schedule["slug"]: schedule for schedule in await listed(api, made)}["c"]
    assert (now["max_scheduled_runs"], now["schedule"]["cron"]) == (None, CRON["cron"])
    assert (await api.patch(path, {"slug": "b"}))[0] == 409
    assert (await api.patch(path, {"schedule": {"cron": "nope"}}))[0] == 422
    assert (await api.patch(path, {"max_scheduled_runs": 51}))[0] == 422


async def test_deleting_a_schedule_takes_its_waiting_runs_along(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": {"interval": 600}, "slug": slug} for slug in "ab"])
    ids = {schedule["slug"]: schedule["id"] for schedule in made["schedules"]}
    await api.post(f"/deployments/{made['id']}/schedule", {"min_runs": 2, "min_time": 0})
    own = await run_it(api, made)
    path = f"/deployments/{made['id']}/schedules/{ids['a']}"
    assert await api.delete(path) == (204, None)
    left = await runs_of(api, made)
    assert len(left) == 3
    assert own["id"] in {run["id"] for run in left}
    assert [schedule["slug"] for schedule in await listed(api, made)] == ["b"]
    assert (await api.delete(path))[0] == 404
    assert (await api.patch(path, {"active": True}))[0] == 404


async def test_a_schedule_belongs_to_its_deployment_and_workspace(api: ApiClient, other: ApiClient) -> None:
    made, another = await deploy(api, schedules=[{"schedule": CRON}]), await deploy(api, "another")
    schedule_id = made["schedules"][0]["id"]
    wrong = f"/deployments/{another['id']}/schedules/{schedule_id}"
    assert (await api.patch(wrong, {"active": False}))[0] == 404
    assert (await api.delete(wrong))[0] == 404
    right = f"/deployments/{made['id']}/schedules/{schedule_id}"
    assert (await other.patch(right, {"active": False}))[0] == 404
    assert (await other.delete(right))[0] == 404
    assert (await other.get(f"/deployments/{made['id']}/schedules"))[0] == 404
    assert (await other.post(f"/deployments/{made['id']}/schedules", [{"schedule": CRON}]))[0] == 404
    assert [schedule["active"] for schedule in await listed(api, made)] == [True]


async def next_of(api: ApiClient, deployment: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    status, found = await api.get(f"/managed/deployments/{deployment['id']}/schedules/times", params=query)
    assert status == 200, found
    TypeAdapter(list[ScheduleTimes]).validate_python(found)
    answered: list[dict[str, Any]] = found
    return answered


async def test_the_next_times_of_each_schedule_are_told_in_order_with_its_zone(api: ApiClient) -> None:
    made = await deploy(api, paused=True)
    sent = [
        {"schedule": CRON, "active": False},
        {"schedule": {"interval": 2.5, "anchor_date": "2020-01-01T00:00:00Z"}},
        {"schedule": {"rrule": "FREQ=DAILY;UNTIL=20210101T000000"}},
    ]
    _, added = await api.post(f"/deployments/{made['id']}/schedules", sent)

    daily, often, over = await next_of(api, made)
    assert [each["schedule_id"] for each in (daily, often, over)] == [each["id"] for each in added]
    assert ([each["active"] for each in (daily, often, over)], over["times"]) == ([False, True, True], [])
    now = datetime.now(UTC)
    zone = ZoneInfo(daily["timezone"])
    mornings = [datetime.fromisoformat(time).astimezone(zone) for time in daily["times"]]
    assert (daily["timezone"], {(each.hour, each.minute) for each in mornings}) == ("Europe/Berlin", {(9, 0)})
    assert mornings == sorted(mornings)
    assert mornings[0] > now
    assert [(later.date() - first.date()).days for first, later in pairwise(mornings)] == [1] * 4
    times = [datetime.fromisoformat(time) for time in often["times"]]
    assert [(later - first).total_seconds() for first, later in pairwise(times)] == [2.5] * 4
    assert len((await next_of(api, made, count=50))[1]["times"]) == 50
    assert len((await next_of(api, made, count=1))[0]["times"]) == 1


async def test_a_stored_schedule_that_cannot_be_evaluated_any_more_says_why(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON}])
    gone = '{"cron": "0 9 * * *", "timezone": "Mars/Olympus", "day_or": true}'
    await api.services.db.write(lambda tx: tx.execute("UPDATE deployment_schedules SET schedule = ?", (gone,)))
    (found,) = await next_of(api, made)
    assert (found["times"], "Mars/Olympus" in found["problem"]) == ([], True)


async def test_next_times_are_of_a_deployment_of_ones_own(api: ApiClient, other: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON}])
    assert (await other.get(f"/managed/deployments/{made['id']}/schedules/times"))[0] == 404
    for count in (0, 51):
        assert (await api.get(f"/managed/deployments/{made['id']}/schedules/times", params={"count": count}))[0] == 422


async def test_a_schedule_that_nobody_has_stored_is_foretold_as_a_stored_one(api: ApiClient) -> None:
    asked = [
        CRON,
        {"interval": 90_000, "anchor_date": "2026-01-01T00:00:00Z"},
        {"rrule": "FREQ=DAILY;BYHOUR=7;BYMINUTE=0"},
    ]
    made = await deploy(api, schedules=[{"schedule": each} for each in asked])
    stored = await next_of(api, made, count=3)
    for schedule, known in zip(asked, stored, strict=True):
        status, found = await api.post("/managed/schedules/times", {"schedule": schedule, "count": 3})
        assert (status, found["timezone"], found["times"]) == (200, known["timezone"], known["times"])
        TypeAdapter(NextTimes).validate_python(found)
    for wrong, field in (
        ({"cron": "61 * * * *"}, "cron"),
        ({**CRON, "timezone": "Mars/Olympus"}, "timezone"),
        ({"rrule": "x"}, "rrule"),
    ):
        status, refused = await api.post("/managed/schedules/times", {"schedule": wrong})
        assert (status, refused["detail"].startswith(f"schedule.{field}: ")) == (422, True), refused
    for body in ({"schedule": {"interval": 0}}, {"schedule": CRON, "count": 51}, {}):
        assert (await api.post("/managed/schedules/times", body))[0] == 422


NEVER = {"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}


async def test_a_rule_that_never_fires_is_told_so_by_who_foretells_it(api: ApiClient) -> None:
    status, found = await api.post("/managed/schedules/times", {"schedule": NEVER})
    assert (status, found["times"]) == (200, [])
    assert "No time was found" in found["problem"]
    TypeAdapter(NextTimes).validate_python(found)


@pytest.fixture
def reads(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each schedule that was reckoned with: whether that kept a reader of the store."""
    here = threading.local()
    seen: list[bool] = []
    read, collect = api.services.db.read, recurrence._collect

    async def noted(fn: Any, **options: Any) -> Any:
        def within(tx: Any) -> Any:
            here.reads = True
            try:
                return fn(tx)
            finally:
                here.reads = False

        return await read(within, **options)

    def reckoned(*args: Any) -> Any:
        seen.append(getattr(here, "reads", False))
        return collect(*args)

    monkeypatch.setattr(api.services.db, "read", noted)
    monkeypatch.setattr(recurrence, "_collect", reckoned)
    return seen


async def test_who_sends_schedules_keeps_no_reader_of_the_store(api: ApiClient, reads: list[bool]) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON, "slug": "a"}])
    path = f"/deployments/{made['id']}"
    assert (await api.post(f"{path}/schedules", [{"schedule": CRON, "slug": "b"}]))[0] == 201
    assert (await api.patch(path, {"schedules": [{"schedule": CRON, "slug": "a"}]}))[0] == 204
    assert (await api.patch(f"{path}/schedules/{made['schedules'][0]['id']}", {"schedule": CRON}))[0] == 204
    assert (await api.post("/managed/schedules/times", {"schedule": CRON}))[0] == 200
    assert reads == [False] * 5


async def test_one_who_foretells_has_one_schedule_reckoned_and_one_waiting(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered, go = anyio.Event(), anyio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    occurrences = recurrence.occurrences

    def held(*args: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(60)
        return occurrences(*args, **options)

    monkeypatch.setattr(recurrence, "occurrences", held)
    answers: list[int] = []

    async def foretell() -> None:
        answers.append((await api.post("/managed/schedules/times", {"schedule": CRON}))[0])
        answered.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(foretell)
        await begun.wait()
        for _ in range(2):
            tasks.start_soon(foretell)
        await answered.wait()
        assert answers == [429]
        # What is foretold keeps nothing else from being answered.
        assert (await api.post("/flow_runs/filter", {"limit": 1}))[0] == 200
        go.set()
    assert sorted(answers) == [200, 200, 429]
