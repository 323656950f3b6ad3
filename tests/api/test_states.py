"""Past states, and a run's log as a file."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd import ids
from managedd.model.states import StateType
from managedd.wire.states import State
from tests.api.test_logs import a_line
from tests.api.test_sockets import a_run, an_event, move

if TYPE_CHECKING:
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
