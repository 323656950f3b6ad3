"""The daemon's own surface: what runs, what waits and why, and the executions behind a run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.model.executions import EndCause, Phase
from managedd.model.flow_runs import ProposedState
from managedd.model.keys import hashed
from managedd.model.limits import Plan
from managedd.model.states import StateType
from managedd.orchestration.transition import propose
from managedd.orchestration.verdicts import Status
from managedd.store import executions, plans, workspaces
from managedd.wire.managed import DaemonStatus, ExecutionReport, FoundRun
from tests.api.deployed import deploy, pool_of, run_it

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def status_of(api: ApiClient) -> dict[str, Any]:
    code, body = await api.get("/managed/status")
    assert code == 200, body
    DaemonStatus.model_validate(body)
    found: dict[str, Any] = body
    return found


async def head_of(api: ApiClient, pool: str = "mine") -> dict[str, Any]:
    found = await status_of(api)
    (queue,) = next(shown for shown in found["pools"] if shown["name"] == pool)["queues"]
    head: dict[str, Any] = queue["head"]
    return head


async def claim(api: ApiClient, run: dict[str, Any], key: str | None = None) -> Execution:
    """The run is Pending and has an execution, as the dispatcher leaves it."""

    def insert(tx: Tx) -> Execution:
        assert propose(tx, run["id"], ProposedState(type=StateType.PENDING)).status is Status.ACCEPT
        pool_id = tx.scalar("SELECT id FROM work_pools WHERE name = 'mine'")
        made = executions.insert(tx, flow_run_id=run["id"], work_pool_id=pool_id, driver="fake")
        if key is not None:
            executions.note(tx, made.id, {"key_hash": hashed(key)})
        return made

    return await api.services.db.write(insert, workspace=ids.DEFAULT_WORKSPACE_ID)


async def test_an_idle_daemon_says_what_it_is(api: ApiClient) -> None:
    found = await status_of(api)
    assert found["pools"] == []
    assert found["running"] == []
    assert found["store"]["state_bytes"] > 0
    assert found["store"]["logs_bytes"] > 0
    (workspace,) = found["workspaces"]
    assert (workspace["handle"], workspace["plan"], workspace["slots_taken"], workspace["slots"]) == (
        "default",
        "pro",
        0,
        10,
    )


async def test_the_daemon_s_facts_are_shown(api: ApiClient) -> None:
    api.services.facts |= {
        "url": "http://127.0.0.1:1/api",
        "instance_id": "abc",
        "engine": lambda: {
            "driver": "fake",
            "version": "9",
            "problem": None,
            "runs_api_url": "http://r/api",
            "detail": {},
        },
    }
    found = await status_of(api)
    assert (found["url"], found["instance_id"]) == ("http://127.0.0.1:1/api", "abc")
    assert found["engine"]["version"] == "9"


async def test_counts_of_a_queue_are_of_what_is_due_and_what_is_later(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1})
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    await run_it(api, deployment, state={"type": "SCHEDULED", "state_details": {"scheduled_time": later}})
    head = await head_of(api)
    assert (head["waits_for"], head["reason"][:13]) == ("time", "scheduled for")
    first = await run_it(api, deployment)
    await run_it(api, deployment)
    await claim(api, await run_it(api, deployment))
    found = await status_of(api)
    (queue,) = found["pools"][0]["queues"]
    assert (queue["due"], queue["later"], queue["slots_taken"]) == (2, 1, 1)
    assert queue["head"]["id"] == first["id"]
    assert queue["head"]["waits_for"] == "nothing"
    assert found["workspaces"][0]["slots_taken"] == 1


async def test_what_is_in_the_way_is_named_from_the_widest_to_the_narrowest(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1}, concurrency_limit=1)
    await claim(api, await run_it(api, deployment))
    await run_it(api, deployment)
    assert (await head_of(api))["waits_for"] == "deployment_slots"
    await api.patch("/work_pools/mine/queues/default", {"concurrency_limit": 1})
    assert (await head_of(api))["waits_for"] == "work_queue_slots"
    await api.patch("/work_pools/mine", {"concurrency_limit": 1})
    head = await head_of(api)
    assert (head["waits_for"], head["reason"]) == ("work_pool_slots", "work pool 'mine': 1 of 1 slots taken")
    free = "UPDATE workspaces SET plan = 'free'"
    await api.services.db.write(lambda tx: tx.execute(free).close())
    assert (await head_of(api))["reason"] == "plan 'free' of workspace 'default': 1 of 1 slots taken"
    api.services.facts["engine"] = lambda: {"driver": "docker", "problem": "no engine answers"}
    head = await head_of(api)
    assert (head["waits_for"], head["reason"]) == ("engine", "no engine answers")
    await api.patch("/work_pools/mine/queues/default", {"is_paused": True})
    assert (await head_of(api))["waits_for"] == "work_queue_paused"
    await api.patch("/work_pools/mine", {"is_paused": True})
    assert (await head_of(api))["waits_for"] == "work_pool_paused"


async def test_a_run_that_waits_for_the_rate_of_starts_says_so(api: ApiClient) -> None:
    plan = Plan(name="pro", start_burst=1, starts_per_minute=0.01)
    await api.services.db.write(lambda tx: plans.replace(tx, [plan]))
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1})
    await run_it(api, deployment)
    assert (await head_of(api))["waits_for"] == "nothing"
    await api.services.db.write(lambda tx: workspaces.note_starts(tx, ids.DEFAULT_WORKSPACE_ID, 1.0, tx.now))
    head = await head_of(api)
    assert (head["waits_for"], "plan 'pro' starts no more runs until" in head["reason"]) == ("starts", True)


async def test_a_deployments_slot_is_said_to_be_held_by_what_is_leaving(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1}, concurrency_limit=1)
    ended = await run_it(api, deployment)
    await claim(api, ended)
    await api.post(f"/flow_runs/{ended['id']}/set_state", {"state": {"type": "CRASHED"}})
    await run_it(api, deployment)
    head = await head_of(api)
    assert (head["waits_for"], "1 by containers of runs that have ended" in head["reason"]) == (
        "deployment_slots",
        True,
    )


async def test_a_pool_of_workers_waits_for_a_worker_not_for_our_engine(api: ApiClient) -> None:
    await pool_of(api, "theirs", "process")
    deployment = await deploy(api, work_pool_name="theirs", parameters={"n": 1})
    await run_it(api, deployment)
    api.services.facts["engine"] = lambda: {"problem": "no engine answers"}
    head = await head_of(api, "theirs")
    assert (head["waits_for"], head["reason"]) == ("worker", "no worker of the pool is online")


async def test_a_running_execution_is_shown_with_its_reading(api: ApiClient) -> None:
    await pool_of(api)
    run = await run_it(api, await deploy(api, work_pool_name="mine", parameters={"n": 1}))
    execution = await claim(api, run)
    api.services.facts["readings"] = lambda: {execution.id: {"memory_bytes": 5, "peak_memory_bytes": 7}}
    (shown,) = (await status_of(api))["running"]
    assert shown["id"] == execution.id
    assert (shown["flow_run_id"], shown["flow_run_name"]) == (run["id"], run["name"])
    assert (shown["work_pool_name"], shown["phase"], shown["state_name"], shown["attempt"]) == (
        "mine",
        "CLAIMED",
        "Pending",
        1,
    )
    assert (shown["memory_bytes"], shown["peak_memory_bytes"]) == (5, 7)


async def test_the_executions_of_a_run_tell_how_they_ended(api: ApiClient, other: ApiClient) -> None:
    await pool_of(api)
    run = await run_it(api, await deploy(api, work_pool_name="mine", parameters={"n": 1}))
    execution = await claim(api, run)
    changes = {
        "exit_code": 137,
        "oom_killed": True,
        "end_cause": EndCause.MEMORY,
        "end_message": "Out of memory",
        "evidence": {"detail": {"x": 1}},
        "exited_at": 1_000_000,
    }
    await api.services.db.write(
        lambda tx: executions.advance(tx, execution.id, (Phase.CLAIMED,), Phase.EXITED, changes)
    )
    code, body = await api.get(f"/managed/flow_runs/{run['id']}/executions")
    assert code == 200
    (found,) = TypeAdapter(list[ExecutionReport]).validate_python(body)
    assert (found.attempt, found.phase, found.exit_code, found.oom_killed) == (1, "EXITED", 137, True)
    assert (found.end_cause, found.end_message, found.evidence) == ("memory", "Out of memory", {"detail": {"x": 1}})
    assert body[0]["exited_at"] == "1970-01-01T00:00:01.000000Z"
    assert (await other.get(f"/managed/flow_runs/{run['id']}/executions"))[0] == 404
    assert (await api.get(f"/managed/flow_runs/{ids.new_id()}/executions"))[0] == 404


async def test_runs_are_found_by_id_beginning_or_name(api: ApiClient, other: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1})
    run = await run_it(api, deployment, name="my run")
    await pool_of(other)
    foreign = await run_it(other, await deploy(other, work_pool_name="mine", parameters={"n": 1}), name="my run")

    async def found(which: str) -> list[str]:
        code, body = await api.get("/managed/flow_runs", params={"which": which})
        assert code == 200, body
        return [str(shown.id) for shown in TypeAdapter(list[FoundRun]).validate_python(body)]

    assert await found(run["id"]) == [run["id"]]
    assert await found(run["id"].replace("-", "").upper()) == [run["id"]]
    assert run["id"] in await found(run["id"][:8])
    assert sorted(await found("my run")) == sorted([run["id"], foreign["id"]])
    assert await found("my") == []
    assert await found("%") == []


async def test_a_run_s_key_does_not_open_it(api: ApiClient) -> None:
    await pool_of(api)
    run = await run_it(api, await deploy(api, work_pool_name="mine", parameters={"n": 1}))
    await claim(api, run, key="run-key")
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        headers = {"Authorization": "Bearer run-key"}
        assert (await http.get("/api/admin/version", headers=headers)).status == 200
        for path in ("/managed/status", "/managed/flow_runs?which=a", f"/managed/flow_runs/{run['id']}/executions"):
            assert (await http.get(f"/api{path}", headers=headers)).status == 403
