"""Flow runs over HTTP: creating, reading, filtering, proposing states, pausing and resuming."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import TypeAdapter

from managedd.bus import Topic
from managedd.wire.flow_runs import FlowRunPaginationResponse, FlowRunResponse
from managedd.wire.states import OrchestrationResult

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def new_flow(api: ApiClient, name: str = "f") -> str:
    status, flow = await api.post("/flows/", {"name": name})
    assert status in {200, 201}
    return str(flow["id"])


async def new_run(api: ApiClient, **values: Any) -> dict[str, Any]:
    flow_id = values.pop("flow_id", None) or await new_flow(api)
    state = values.pop("state", {"type": "SCHEDULED"})
    status, run = await api.post("/flow_runs/", {"flow_id": flow_id, "state": state, **values})
    assert status in {200, 201}, run
    assert isinstance(run, dict)
    return run


async def set_state(
    api: ApiClient, run: dict[str, Any], type_: str, *, force: bool = False, **state: Any
) -> tuple[int, Any]:
    return await api.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": type_, **state}, "force": force})


async def test_a_new_run_reads_back_as_prefects_model(api: ApiClient) -> None:
    run = await new_run(api, name="r", tags=["a"], parameters={"x": [1, None]}, labels={"k": 1})
    status, found = await api.get(f"/flow_runs/{run['id']}")
    assert status == 200
    model = TypeAdapter(FlowRunResponse).validate_json(orjson.dumps(found))
    assert (model.name, model.tags, model.parameters, model.labels) == ("r", ["a"], {"x": [1, None]}, {"k": 1})
    assert model.state is not None
    assert (model.state.type, model.state_name, model.run_count) == ("SCHEDULED", "Scheduled", 0)
    assert model.next_scheduled_start_time is not None
    assert model.state.state_details.scheduled_time == model.next_scheduled_start_time


async def test_an_idempotency_key_answers_the_first_run_with_200(api: ApiClient) -> None:
    flow_id = await new_flow(api)
    body = {"flow_id": flow_id, "idempotency_key": "k", "state": {"type": "SCHEDULED"}}
    first = await api.post("/flow_runs/", body)
    second = await api.post("/flow_runs/", {**body, "name": "other"})
    assert (first[0], second[0]) == (201, 200)
    assert first[1]["id"] == second[1]["id"]
    assert second[1]["name"] == first[1]["name"]


async def test_a_run_of_an_unknown_flow_or_pool_is_refused(api: ApiClient) -> None:
    status, body = await api.post("/flow_runs/", {"flow_id": str(uuid.uuid4())})
    assert (status, "not found" in body["detail"]) == (404, True)
    flow_id = await new_flow(api)
    status, body = await api.post("/flow_runs/", {"flow_id": flow_id, "work_pool_name": "nowhere"})
    assert (status, "nowhere" in body["detail"]) == (404, True)


async def test_pending_is_given_once(api: ApiClient) -> None:
    run = await new_run(api)
    status, first = await set_state(api, run, "PENDING")
    assert (status, first["status"]) == (201, "ACCEPT")
    TypeAdapter(OrchestrationResult).validate_json(orjson.dumps(first))
    status, second = await set_state(api, run, "PENDING")
    assert (status, second["status"]) == (200, "ABORT")
    assert second["details"]["type"] == "abort_details"
    assert second["state"]["id"] == first["state"]["id"]


async def test_a_repeated_transition_is_answered_with_the_state_it_made(api: ApiClient) -> None:
    run = await new_run(api)
    transition = {"state_details": {"transition_id": str(uuid.uuid4())}}
    _, first = await set_state(api, run, "RUNNING", **transition)
    status, again = await set_state(api, run, "RUNNING", **transition)
    assert (status, again["status"]) == (200, "REJECT")
    assert again["state"]["id"] == first["state"]["id"]
    _, found = await api.get(f"/flow_runs/{run['id']}")
    assert found["run_count"] == 1


async def test_columns_follow_the_states(api: ApiClient) -> None:
    run = await new_run(api)
    for type_ in ("PENDING", "RUNNING", "COMPLETED"):
        await set_state(api, run, type_)
    _, found = await api.get(f"/flow_runs/{run['id']}")
    assert (found["state_type"], found["run_count"]) == ("COMPLETED", 1)
    assert found["start_time"] <= found["end_time"]
    assert found["next_scheduled_start_time"] is None
    assert found["total_run_time"] >= 0
    assert found["state"]["state_details"]["flow_run_id"] == run["id"]


async def test_a_failed_run_with_retries_is_scheduled_again(api: ApiClient) -> None:
    run = await new_run(api, empirical_policy={"retries": 1, "retry_delay": 30})
    await set_state(api, run, "RUNNING")
    status, answer = await set_state(api, run, "FAILED", message="boom")
    assert (status, answer["status"], answer["state"]["name"]) == (201, "REJECT", "AwaitingRetry")
    status, answer = await set_state(api, run, "RUNNING")
    assert (status, answer["status"]) == (200, "WAIT")
    assert 25 <= answer["details"]["delay_seconds"] <= 30


async def test_patch_changes_only_what_was_sent(api: ApiClient) -> None:
    run = await new_run(api, tags=["keep"], parameters={"a": 1})
    policy = {
        "retries": 2,
        "retry_delay": 1,
        "max_retries": 0,
        "retry_delay_seconds": 0,
        "pause_keys": [],
        "resuming": False,
    }
    status, _ = await api.patch(f"/flow_runs/{run['id']}", {"flow_version": "v2", "empirical_policy": policy})
    assert status == 204
    _, found = await api.get(f"/flow_runs/{run['id']}")
    assert (found["flow_version"], found["tags"], found["parameters"]) == ("v2", ["keep"], {"a": 1})
    assert found["empirical_policy"]["retries"] == 2


async def test_labels_are_merged(api: ApiClient) -> None:
    run = await new_run(api, labels={"a": 1})
    assert (await api.patch(f"/flow_runs/{run['id']}/labels", {"b": "two"}))[0] == 204
    _, found = await api.get(f"/flow_runs/{run['id']}")
    assert found["labels"] == {"a": 1, "b": "two"}


async def test_filters_sort_and_page(api: ApiClient) -> None:
    flow_id = await new_flow(api)
    runs = [await new_run(api, flow_id=flow_id, name=f"run-{i}", tags=["even"] if i % 2 == 0 else []) for i in range(5)]
    await set_state(api, runs[0], "COMPLETED", force=True)
    query = {"flow_runs": {"tags": {"all_": ["even"]}}, "sort": "NAME_ASC", "limit": None, "offset": 0, "flows": None}
    status, found = await api.post("/flow_runs/filter", query)
    assert (status, [run["name"] for run in found]) == (200, ["run-0", "run-2", "run-4"])
    state = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "flows": {"name": {"any_": ["f"]}}}
    assert [run["name"] for run in (await api.post("/flow_runs/filter", state))[1]] == ["run-0"]
    assert (await api.post("/flow_runs/count", state))[1] == 1
    assert (await api.post("/flow_runs/count", {}))[1] == 5
    status, page = await api.post("/flow_runs/paginate", {"limit": 2, "page": 2, "sort": "NAME_ASC"})
    model = TypeAdapter(FlowRunPaginationResponse).validate_json(orjson.dumps(page))
    assert ([run.name for run in model.results], model.count, model.pages) == (["run-2", "run-3"], 5, 3)


async def test_bad_input_is_named(api: ApiClient) -> None:
    status, body = await api.post("/flow_runs/filter", {"sort": "SIDEWAYS"})
    assert (status, body["exception_message"]) == (422, "Invalid request received.")
    assert body["exception_detail"][0]["loc"] == ["body", "sort"]
    assert (await api.post("/flow_runs/filter", {"limit": 10_000}))[0] == 422
    assert (await api.get("/flow_runs/not-a-uuid"))[0] == 422
    status, body = await api.get(f"/flow_runs/{uuid.uuid4()}")
    assert status == 404
    assert "Flow run" in body["exception_message"]


async def test_a_process_is_paused_and_resumed(api: ApiClient) -> None:
    run = await new_run(api)
    await set_state(api, run, "RUNNING")
    paused = {"name": "Paused", "state_details": {"pause_key": "1", "pause_reschedule": False}}
    assert (await set_state(api, run, "PAUSED", **paused))[1]["status"] == "ACCEPT"
    status, answer = await api.post(f"/flow_runs/{run['id']}/resume", {"run_input": None})
    assert (status, answer["status"], answer["state"]["type"]) == (201, "ACCEPT", "RUNNING")
    status, answer = await api.post(f"/flow_runs/{run['id']}/resume", {})
    assert (status, answer["status"]) == (200, "ABORT")


async def test_resuming_checks_the_input_and_stores_it(api: ApiClient) -> None:
    run = await new_run(api)
    await set_state(api, run, "RUNNING")
    keys = {"schema": "p-schema", "response": "p-response", "description": "p-description"}
    schema = '{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}'
    assert (await api.post(f"/flow_runs/{run['id']}/input", {"key": "p-schema", "value": schema, "sender": None}))[
        0
    ] == 201
    details = {"pause_key": "p", "pause_reschedule": False, "run_input_keyset": keys}
    await set_state(api, run, "PAUSED", name="Paused", state_details=details)
    status, answer = await api.post(f"/flow_runs/{run['id']}/resume", {"run_input": {"n": "many"}})
    assert (status, answer["status"]) == (200, "REJECT")
    assert "n" in answer["details"]["reason"]
    status, answer = await api.post(f"/flow_runs/{run['id']}/resume", {"run_input": {"n": 3}})
    assert (status, answer["status"]) == (201, "ACCEPT"), answer
    assert await api.get(f"/flow_runs/{run['id']}/input/p-response") == (200, {"n": 3})


async def test_inputs(api: ApiClient) -> None:
    run = await new_run(api)
    path = f"/flow_runs/{run['id']}/input"
    for key in ("k-1", "k-2", "other"):
        assert (await api.post(path, {"key": key, "value": f'"{key}"'}))[0] == 201
    assert (await api.post(path, {"key": "k-1", "value": "1"}))[0] == 409
    _, found = await api.post(f"{path}/filter", {"prefix": "k-", "limit": 10, "exclude_keys": ["k-1"]})
    assert [item["key"] for item in found] == ["k-2"]
    assert (await api.delete(f"{path}/k-2"))[0] == 204
    assert (await api.get(f"{path}/k-2"))[0] == 404


async def test_a_subflow_shows_in_its_parents_task_run(api: ApiClient) -> None:
    parent = await new_run(api)
    task = {"flow_run_id": parent["id"], "task_key": "child-1", "dynamic_key": "0", "state": {"type": "PENDING"}}
    status, placeholder = await api.post("/task_runs/", task)
    assert status == 201
    assert (await api.post("/task_runs/", task))[0] == 200
    child = await new_run(api, parent_task_run_id=placeholder["id"])
    await set_state(api, child, "RUNNING")
    await set_state(api, child, "COMPLETED")
    _, found = await api.get(f"/task_runs/{placeholder['id']}")
    assert found["state_type"] == "COMPLETED"
    assert found["state"]["state_details"]["child_flow_run_id"] == child["id"]
    _, children = await api.post("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [parent["id"]]}}})
    assert [run["id"] for run in children] == [child["id"]]


async def test_deleting_and_bulk(api: ApiClient) -> None:
    flow_id = await new_flow(api)
    runs = [await new_run(api, flow_id=flow_id) for _ in range(3)]
    assert (await api.delete(f"/flow_runs/{runs[0]['id']}"))[0] == 204
    assert (await api.delete(f"/flow_runs/{runs[0]['id']}"))[0] == 404
    ids = {"id": {"any_": [runs[1]["id"], runs[2]["id"]]}}
    status, answer = await api.post(
        "/flow_runs/bulk_set_state", {"flow_runs": ids, "state": {"type": "CANCELLED"}, "force": True}
    )
    assert (status, [result["status"] for result in answer["results"]]) == (200, ["ACCEPT", "ACCEPT"])
    _, answer = await api.post("/flow_runs/bulk_delete", {"flow_runs": ids})
    assert sorted(answer["deleted"]) == sorted(ids["id"]["any_"])


async def test_another_workspace_sees_nothing(api: ApiClient, other: ApiClient) -> None:
    run = await new_run(api)
    for method, path, body in (
        ("GET", "", None),
        ("PATCH", "", {"flow_version": "x"}),
        ("DELETE", "", None),
        ("POST", "/set_state", {"state": {"type": "RUNNING"}}),
        ("POST", "/resume", {}),
        ("PATCH", "/labels", {"a": "b"}),
        ("POST", "/input", {"key": "k", "value": "1"}),
    ):
        status, _ = await other.call(method, f"/flow_runs/{run['id']}{path}", body)
        assert status == 404, (method, path)
    assert (await other.post("/flow_runs/filter", {}))[1] == []
    assert (await other.post("/flow_runs/count", {}))[1] == 0
    _, found = await api.get(f"/flow_runs/{run['id']}")
    assert found["state_type"] == "SCHEDULED"


async def test_an_unknown_workspace_is_not_found(api: ApiClient) -> None:
    path = f"/accounts/{uuid.uuid4()}/workspaces/{uuid.uuid4()}/flow_runs/filter"
    assert (await api.post(path, {}))[0] == 404


async def test_a_run_that_asks_for_something_else_is_looked_at_again(api: ApiClient) -> None:
    flow = (await api.post("/flows/", {"name": "asks"}))[1]["id"]
    run = (await api.post("/flow_runs/", {"flow_id": flow}))[1]["id"]
    with api.services.bus.subscribe(Topic.QUEUE) as woken:
        assert (await api.patch(f"/flow_runs/{run}", {"name": "other"}))[0] == 204
        assert not woken.take()
        assert (await api.patch(f"/flow_runs/{run}", {"job_variables": {"memory_limit": "1Gi"}}))[0] == 204
        assert woken.take()
