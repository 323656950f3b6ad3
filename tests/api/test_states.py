"""Past states, and a run's log as a file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd import ids
from managedd.model.states import StateType
from managedd.store import executions
from managedd.wire.states import State
from tests.api.test_logs import a_line
from tests.api.test_sockets import a_run, an_event, move

if TYPE_CHECKING:
    from managedd.api.context import Services
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

STATES = TypeAdapter(list[State])


async def states(api: ApiClient, path: str) -> list[State]:
    response = await api.http.get(api.prefix + path)
    assert response.status == 200
    return STATES.validate_json(await response.read())


async def test_a_flow_runs_states_are_told_in_their_order(api: ApiClient, other: ApiClient) -> None:
    run = await a_run(api, StateType.PENDING)
    await move(api, run, StateType.RUNNING)
    await move(api, run, StateType.COMPLETED)
    told = await states(api, f"/flow_run_states/?flow_run_id={run}")
    assert [state.type for state in told] == ["PENDING", "RUNNING", "COMPLETED"]
    status, body = await api.get(f"/flow_run_states/{told[1].id}")
    assert (status, body["type"]) == (200, "RUNNING")
    assert await states(other, f"/flow_run_states/?flow_run_id={run}") == []
    assert (await other.get(f"/flow_run_states/{told[1].id}"))[0] == 404
    assert (await api.get("/flow_run_states/"))[0] == 422


async def test_the_answer_to_a_proposal_is_what_reading_the_state_gives(api: ApiClient) -> None:
    run = await a_run(api, StateType.PENDING)
    proposed = {
        "type": "SCHEDULED", "name": "AwaitingRetry", "message": "again", "data": {"type": "literal", "value": [1]},
        "state_details": {"scheduled_time": "2020-01-01T00:00:00Z", "pause_key": "k"},
    }  # fmt: skip
    status, answer = await api.post(f"/flow_runs/{run}/set_state", {"state": proposed, "force": True})
    assert status == 201
    assert (await api.get(f"/flow_run_states/{answer['state']['id']}"))[1] == answer["state"]
    refused = (await api.post(f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}}))[1]
    assert (await api.get(f"/flow_runs/{run}"))[1]["state"] == refused["state"]


async def test_a_run_that_is_created_in_a_state_is_as_one_that_entered_it(api: ApiClient) -> None:
    flow = (await api.post("/flows/", {"name": "f"}))[1]["id"]
    policy = {"retries": 2, "retry_delay": 1, "resuming": False}
    proposals: list[dict[str, Any]] = [
        {"type": "PENDING"},
        {"type": "RUNNING"},
        {"type": "SCHEDULED", "state_details": {"scheduled_time": "2030-01-01T00:00:00Z"}},
        {"type": "COMPLETED", "message": "m"},
        {"type": "CRASHED"},
    ]
    own = {"id", "name", "created", "updated", "state_id", "estimated_start_time_delta", "estimated_run_time"}
    moments = {"expected_start_time", "start_time", "end_time"}
    for state in proposals:
        base = {"flow_id": flow, "empirical_policy": policy, "parameters": {"a": 1}, "tags": ["t"]}
        status, at_once = await api.post("/flow_runs/", {**base, "state": state})
        assert status == 201
        bare = (await api.post("/flow_runs/", base))[1]
        assert (await api.post(f"/flow_runs/{bare['id']}/set_state", {"state": state, "force": True}))[0] == 201
        entered = (await api.get(f"/flow_runs/{bare['id']}"))[1]
        assert (await api.get(f"/flow_runs/{at_once['id']}"))[1]["state_id"] == at_once["state_id"]
        for run in (at_once, entered):
            stated = run.pop("state")
            run |= {f"state {name}": stated[name] for name in ("type", "name", "message", "data")}
            run |= {name: run[name] is not None for name in moments}
            for name in own:
                run.pop(name)
        assert at_once == entered


async def test_a_task_runs_states_are_told_in_their_order(api: ApiClient) -> None:
    run, task = await a_run(api), ids.new_id()

    def step(type_: str, age_seconds: float) -> dict[str, Any]:
        return an_event(
            f"prefect.task-run.{type_.title()}",
            age_seconds=age_seconds,
            resource={"prefect.resource.id": f"prefect.task-run.{task}", "prefect.orchestration": "client"},
            related=[{"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"}],
            payload={
                "validated_state": {"type": type_, "name": None, "message": "m", "data": {"storage_key": "k"}},
                "task_run": {"name": "t", "task_key": "k", "dynamic_key": "d"},
            },
        )

    late, early = step("COMPLETED", 1), step("RUNNING", 2)
    assert (await api.post("/events", [late]))[0] == 204
    assert (await api.post("/events", [early, late]))[0] == 204
    told = await states(api, f"/task_run_states/?task_run_id={task}")
    assert [(state.id, state.name, state.data) for state in told] == [
        (early["id"], "Running", {"storage_key": "k"}),
        (late["id"], "Completed", {"storage_key": "k"}),
    ]
    assert told[0].state_details.task_run_id == task
    assert (await api.get(f"/task_run_states/{early['id']}"))[1]["message"] == "m"
    assert (await api.get(f"/task_runs/{task}"))[1]["state_type"] == "COMPLETED"


async def test_a_log_is_downloaded_whole(api: ApiClient, other: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("managedd.api.routes.states.CSV_LINES", 3)
    run, task = await a_run(api), ids.new_id()
    texts = [f'line {n}, "quoted"\nand more' for n in range(8)]
    assert (await api.post("/logs/", [a_line(run, text, task_run_id=task) for text in texts]))[0] == 201
    await api.post("/logs/", [a_line(await a_run(api), "another's")])
    response = await api.http.get(f"/api/flow_runs/{run}/logs/download")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"].endswith("filename*=UTF-8''brave-otter-logs.csv")
    head, *lines = csv.reader(io.StringIO(await response.text(), newline=""))
    assert head == ["timestamp", "level", "flow_run_id", "task_run_id", "message"]
    assert [line[4] for line in lines] == texts
    assert lines[0][:4] == ["2026-11-22 04:00:28.283520+00:00", "20", run, task]
    assert (await other.get(f"/flow_runs/{run}/logs/download"))[0] == 404
    assert (await api.get(f"/flow_runs/{ids.new_id()}/logs/download"))[0] == 404


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("wanted", ["PENDING", "RUNNING"])
async def test_only_an_execution_makes_a_managed_run_pending_or_running(
    api: ApiClient, services: Services, wanted: str, force: bool
) -> None:
    flow = (await api.post("/flows/", {"name": "f"}))[1]["id"]
    runs = {}
    for pool, type_ in (("own", "prefect:managed"), ("a-workers", "kubernetes")):
        assert (await api.post("/work_pools/", {"name": pool, "type": type_}))[0] == 201
        body = {"flow_id": flow, "work_pool_name": pool, "state": {"type": "SCHEDULED"}}
        runs[pool] = (await api.post("/flow_runs/", body))[1]["id"]

    async def propose(pool: str) -> tuple[int, str]:
        body = {"state": {"type": wanted}, "force": force}
        status, answer = await api.post(f"/flow_runs/{runs[pool]}/set_state", body)
        return status, answer["status"]

    assert await propose("a-workers") == (201, "ACCEPT")
    assert await propose("own") == (200, "ABORT")
    assert (await api.get(f"/flow_runs/{runs['own']}"))[1]["state_type"] == "SCHEDULED"

    def claim(tx: Tx) -> None:
        executions.insert(tx, flow_run_id=runs["own"], work_pool_id=None, driver="fake")

    await services.db.write(claim, workspace=ids.DEFAULT_WORKSPACE_ID)
    assert await propose("own") == (201, "ACCEPT")
