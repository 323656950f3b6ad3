"""Compute hours over the API: what was used, what is left, by whom; and the plan that sizes them."""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.api.auth import Listener
from managedd.api.routes.usage import table as usage_table
from managedd.bus import Topic
from managedd.clock import from_us, to_us
from managedd.model.executions import Phase
from managedd.model.limits import AWAITING_HOURS, HostLimits, Plan
from managedd.model.metering import month_of
from managedd.store import executions, plans, usage
from managedd.wire.usage import PlanLimits, PlanReport, UsageReport, WorkspacesUsageReport
from tests.api.deployed import deploy, pool_of, run_it
from tests.api.test_auth import KEY, bearer, listening, run_with_key

if TYPE_CHECKING:
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def report(api: ApiClient, **query: str) -> dict[str, Any]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    status, body = await api.get(f"/managed/usage?{asked}")
    assert status == 200, body
    UsageReport.model_validate(body)
    found: dict[str, Any] = body
    return found


async def ran(api: ApiClient, deployment: dict[str, Any], started: str, ended: str) -> None:
    """The deployment has a run that ran from then until then."""
    run = await run_it(api, deployment)
    began, end = (to_us(datetime.fromisoformat(moment)) for moment in (started, ended))

    def body(tx: Tx) -> None:
        made = executions.insert(tx, flow_run_id=run["id"], work_pool_id=None, driver="fake")
        executions.advance(tx, made.id, (Phase.CLAIMED,), Phase.CREATED)
        executions.advance(tx, made.id, (Phase.CREATED,), Phase.RUNNING, {"started_at": began})
        done = executions.advance(tx, made.id, (Phase.RUNNING,), Phase.EXITED, {"exited_at": end})
        assert done is not None
        usage.record(tx, done, None, UTC)

    await api.services.db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID)


async def test_an_unused_month(api: ApiClient) -> None:
    found = await report(api)
    assert (found["plan"], found["used_minutes"], found["limit_minutes"]) == ("pro", 0, 250 * 60)
    assert (found["remaining_minutes"], found["by"]) == (250 * 60, [])


async def test_who_used_what_and_when(api: ApiClient) -> None:
    await pool_of(api)
    one, two = await deploy(api, "one", work_pool_name="mine"), await deploy(api, "two", work_pool_name="mine")
    await ran(api, one, "2026-05-10T10:00:00Z", "2026-05-10T12:05:00Z")
    await ran(api, one, "2026-05-11T10:00:00Z", "2026-05-11T10:00:10Z")
    await ran(api, two, "2026-04-30T23:59:00Z", "2026-05-01T00:02:00Z")
    found = await report(api, month="2026-05")
    assert (found["used_minutes"], found["running_minutes"]) == (128, 0)
    assert found["resets"] == "2026-06-01T00:00:00.000000Z"
    assert [(share["name"].rpartition("/")[2], share["minutes"], share["executions"]) for share in found["by"]] == [
        ("one", 126, 2),
        ("two", 2, 1),
    ]
    days = (await report(api, month="2026-05", by="day"))["by"]
    assert [(share["name"], share["minutes"]) for share in days] == [
        ("2026-05-01", 2),
        ("2026-05-10", 125),
        ("2026-05-11", 1),
    ]
    assert (await report(api, month="2026-04"))["used_minutes"] == 1


async def test_more_than_the_plan_has_is_told_as_overrun(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    month = month_of(api.services.clock.now_us(), UTC)
    began = from_us(month.begins_us)
    await ran(api, made, began.isoformat(), (began + timedelta(hours=2)).isoformat())
    await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=1.5)]))
    found = await report(api)
    assert (found["limit_minutes"], found["remaining_minutes"], found["overrun_minutes"]) == (90, 0, 30)
    await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro")]))
    found = await report(api)
    assert (found["limit_minutes"], found["remaining_minutes"], found["overrun_minutes"]) == (None, None, 0)


async def test_a_month_that_is_over_is_measured_by_its_own_plan(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    await ran(api, made, "2026-05-10T10:00:00Z", "2026-05-10T12:00:00Z")
    await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=1.5), Plan(name="free")]))
    await api.patch("/managed/workspace", {"plan": "free"})
    found = await report(api, month="2026-05")
    assert (found["plan"], found["limit_minutes"], found["overrun_minutes"]) == ("pro", 250 * 60, 0)
    # Nothing ran there: what would hold now is all that is known.
    assert (await report(api, month="2026-04"))["limit_minutes"] is None
    await ran(api, made, "2026-05-31T23:00:00Z", "2026-06-01T01:00:00Z")
    found = await report(api, month="2026-05")
    assert (found["plan"], found["limit_minutes"], found["used_minutes"]) == ("pro", 250 * 60, 180)


async def test_all_workspaces_are_told_of_any_month_to_who_sees_them(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    await ran(api, made, "2026-05-10T10:00:00Z", "2026-05-10T12:05:00Z")
    assert (await api.post("/managed/workspaces", {"account": "acme", "handle": "idle", "plan": "free"}))[0] == 201
    status, found = await api.get("/managed/usage/workspaces?month=2026-05")
    assert status == 200, found
    WorkspacesUsageReport.model_validate(found)
    assert (found["month"], found["resets"]) == ("2026-05", "2026-06-01T00:00:00.000000Z")
    assert [(each["handle"], each["plan"], each["used_minutes"], each["limit_minutes"]) for each in found["workspaces"]] == [
        ("default", "pro", 125, 15_000),
        ("idle", "free", 0, 600),
    ]  # fmt: skip
    _, present = await api.get("/managed/usage/workspaces")
    assert {each["used_minutes"] for each in present["workspaces"]} == {0}
    assert (await api.get("/managed/usage/workspaces?month=9998-11"))[0] == 422
    answer = await api.http.get("/api/managed/usage/workspaces?month=2026-05&format=csv")
    assert "usage-2026-05-by-workspace.csv" in answer.headers["Content-Disposition"]
    head, first, _ = (await answer.text()).splitlines()
    assert head == "workspace,plan,minutes,limit"
    assert first.endswith("/default,pro,125,15000.0")


async def test_the_first_month_is_that_of_the_workspace_or_of_what_it_has_used(api: ApiClient) -> None:
    present = month_of(api.services.clock.now_us(), UTC).name
    assert (await report(api))["first_month"] == present
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    await ran(api, made, "2026-05-10T10:00:00Z", "2026-05-10T12:05:00Z")
    assert (await report(api))["first_month"] == "2026-05"


async def test_a_run_over_midnight_is_one_execution_on_two_days(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    await ran(api, made, "2026-05-10T23:50:00Z", "2026-05-11T23:50:00Z")
    days = (await report(api, month="2026-05", by="day"))["by"]
    assert [(share["name"], share["minutes"], share["executions"]) for share in days] == [
        ("2026-05-10", 10, 1),
        ("2026-05-11", 1430, 1),
    ]
    [share] = (await report(api, month="2026-05"))["by"]
    assert (share["minutes"], share["executions"]) == (1440, 1)


@pytest.mark.parametrize("query", ["month=2026-13", "month=9999-12", "month=0000-01", "month=May", "by=flow", "month="])
async def test_what_is_no_month_and_no_way_to_share(api: ApiClient, query: str) -> None:
    status, body = await api.get(f"/managed/usage?{query}")
    assert status == 422, body


async def test_another_plan_takes_effect_at_once(api: ApiClient) -> None:
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        status, body = await api.patch("/managed/workspace", {"plan": "free"})
        assert (status, body) == (204, None)
        await woken.wait(1)
    found = await report(api)
    assert (found["plan"], found["limit_minutes"]) == ("free", 600)
    status, body = await api.patch("/managed/workspace", {"plan": "gold"})
    assert status == 422
    assert "there is no plan 'gold'; plans: free, pro, unlimited" in body["detail"]


async def test_only_the_operator_changes_a_plan(closed: ApiClient) -> None:
    """With an auth string, who has it is a client of the workspace and no operator; a run least of all."""
    status, body = await closed.patch("/managed/workspace", {"plan": "unlimited"}, headers=bearer("admin:secret"))
    assert (status, "needs a command on the daemon's host" in body["detail"]) == (403, True)
    assert (await closed.patch("/managed/workspace", {"plan": "unlimited"}))[0] == 401
    async with (
        listening(closed.services, Listener.SOCKET) as operator,
        listening(closed.services, Listener.RUNS) as runs,
    ):
        await run_with_key(operator)
        assert (await runs.patch("/managed/workspace", {"plan": "unlimited"}, headers=bearer(KEY)))[0] == 403
        assert (await report(operator))["plan"] == "pro"
        assert (await operator.patch("/managed/workspace", {"plan": "unlimited"}))[0] == 204
        assert (await report(operator))["plan"] == "unlimited"


async def test_status_tells_compute_time_and_what_the_host_holds(api: ApiClient) -> None:
    from managedd.model.limits import HostLimits

    api.services.facts["host"] = HostLimits(memory_bytes=7 * 1024**3, cpus=16)
    _, found = await api.get("/managed/status")
    (workspace,) = found["workspaces"]
    assert (workspace["slots"], workspace["effective_slots"], workspace["effective_because"]) == (10, 3, "memory")
    assert (workspace["compute_minutes_used"], workspace["compute_minutes"]) == (0, 15_000)
    assert found["host"] == {
        "memory_bytes": 7 * 1024**3,
        "memory_reserved_bytes": 0,
        "cpus": 16,
        "cpus_reserved": 0,
    }


async def test_why_a_run_waits_for_hours_is_told_as_it_is_now(api: ApiClient) -> None:
    """What stands in its state is of the moment at which it began to wait."""
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    began = from_us(month_of(api.services.clock.now_us(), UTC).begins_us)
    await ran(api, made, began.isoformat(), (began + timedelta(minutes=125)).isoformat())
    _, found = await api.get("/managed/status")
    [done] = [queue["head"]["id"] for pool in found["pools"] for queue in pool["queues"]]
    await api.post(f"/flow_runs/{done}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    run = await run_it(api, made)
    told = {"type": "SCHEDULED", "name": AWAITING_HOURS, "message": "an old story"}
    status, _ = await api.post(f"/flow_runs/{run['id']}/set_state", {"state": told, "force": True})
    assert status == 201

    async def head(hours: float) -> tuple[str, str]:
        await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=hours)]))
        _, found = await api.get("/managed/status")
        [queue] = [queue for pool in found["pools"] for queue in pool["queues"]]
        return queue["head"]["waits_for"], queue["head"]["reason"]

    for hours, words in ((1, "1 h"), (2, "2 h")):
        waits_for, reason = await head(hours)
        assert waits_for == "compute_hours"
        assert reason.startswith(f"the workspace has used 2 h 5 min of the {words} of compute time that plan 'pro' has")
        assert "renewed on" in reason
    assert (await head(3))[0] == "nothing", "they are there again, whatever its state is called"


async def test_a_month_that_has_not_begun_is_none(api: ApiClient) -> None:
    present = month_of(api.services.clock.now_us(), UTC)
    following = month_of(present.ends_us, UTC).name
    status, body = await api.get(f"/managed/usage?month={following}")
    assert (status, f"month: {following} has not begun" in body["detail"]) == (422, True)
    assert (await report(api, month=present.name))["month"] == present.name


async def test_minutes_of_a_fraction_of_an_hour_are_plain_numbers(api: ApiClient) -> None:
    await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", compute_hours=0.0333)]))
    found = await report(api)
    assert (repr(found["limit_minutes"]), repr(found["remaining_minutes"])) == ("1.998", "1.998")


async def test_the_plan_says_what_is_allowed_what_is_taken_and_what_a_run_gets(api: ApiClient) -> None:
    pool = await pool_of(api)
    deployment = await deploy(api, work_pool_name=pool["name"])
    run = await run_it(api, deployment)
    await api.services.db.write(
        lambda tx: plans.put_host(tx, HostLimits(run_memory_bytes=4 << 30, run_cpus=0.5, run_seconds=60)),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )

    status, before = await api.get("/managed/plan")
    await api.services.db.write(
        lambda tx: tx.execute("UPDATE flow_runs SET state_type = 'RUNNING' WHERE id = ?", (run["id"],)),
        workspace=ids.DEFAULT_WORKSPACE_ID,
    )
    _, after = await api.get("/managed/plan")

    assert status == 200, before
    PlanReport.model_validate(before)
    assert (before["name"], before["concurrent_runs"], before["managed_pools"], before["on_exhausted"]) == ("pro", 10, 5, "finish")  # fmt: skip
    assert (before["run_memory_bytes"], before["run_cpus"], before["run_seconds"]) == (2 << 30, 0.5, 60)
    assert (before["pools"], before["runs"], after["runs"]) == (1, 0, 1)


async def test_the_plans_that_a_workspace_can_be_on_are_told(api: ApiClient) -> None:
    status, found = await api.get("/managed/plans")

    assert status == 200, found
    assert [PlanLimits.model_validate(each).name for each in found] == ["free", "pro", "unlimited"]
    limits = {each["name"]: (each["concurrent_runs"], each["managed_pools"], each["compute_hours"]) for each in found}
    assert limits == {"free": (1, 1, 10), "pro": (10, 5, 250), "unlimited": (None, None, None)}


async def test_who_used_what_comes_as_a_table_in_which_no_name_is_a_formula(api: ApiClient) -> None:
    await pool_of(api)
    plain = await deploy(api, "plain", work_pool_name="mine")
    await ran(api, plain, "2026-05-10T10:00:00Z", "2026-05-10T12:05:00Z")
    answer = await api.http.get("/api/managed/usage?month=2026-05&format=csv")
    assert (answer.status, answer.content_type) == (200, "text/csv")
    assert "usage-2026-05-by-deployment.csv" in answer.headers["Content-Disposition"]
    head, line = (await answer.text()).splitlines()
    assert head == "deployment,minutes,executions"
    assert line.endswith("/plain,125,1")
    by_day = await (await api.http.get("/api/managed/usage?month=2026-05&format=csv&by=day")).text()
    assert by_day.splitlines() == ["day,minutes,executions", "2026-05-10,125,1"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_a_name_is_no_formula(name: str) -> None:
    (line,) = csv.reader([usage_table({"month": "2026-05", "by": [{"name": name, "minutes": 1, "executions": 1}]}).splitlines()[1]])  # fmt: skip
    assert line[0] == f"'{name}"
