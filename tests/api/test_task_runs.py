"""Task runs over HTTP: placeholders, states, filters and pages."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import TypeAdapter

from managedd.wire.states import OrchestrationResult
from managedd.wire.task_runs import TaskRun, TaskRunPaginationResponse
from tests.api.test_flow_runs import new_flow, new_run

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def new_task_run(api: ApiClient, expected: int = 201, **values: Any) -> dict[str, Any]:
    body = {"task_key": "k", "dynamic_key": str(uuid.uuid4()), **values}
    status, made = await api.post("/task_runs/", body)
    assert status == expected, made
    assert isinstance(made, dict)
    return made


async def set_state(api: ApiClient, task_run: dict[str, Any], type_: str, *, force: bool = False, **state: Any) -> Any:
    body = {"state": {"type": type_, **state}, "force": force}
    status, answer = await api.post(f"/task_runs/{task_run['id']}/set_state", body)
    assert status in {200, 201}, answer
    TypeAdapter(OrchestrationResult).validate_json(orjson.dumps(answer))
    return answer


async def ids_of(api: ApiClient, **body: Any) -> set[str]:
    status, found = await api.post("/task_runs/filter", body)
    assert status == 200, found
    TypeAdapter(list[TaskRun]).validate_json(orjson.dumps(found))
    assert await api.post(
        "/task_runs/count", {k: v for k, v in body.items() if k not in {"sort", "limit", "offset"}}
    ) == (
        200,
        len(found),
    )
    return {each["id"] for each in found}


async def test_a_new_one_is_pending_and_reads_back_as_prefects_model(api: ApiClient) -> None:
    run = await new_run(api)
    inputs = {
        "x": [{"input_type": "constant", "type": "int"}],
        "__parents__": [{"input_type": "task_run", "id": run["id"]}],
    }
    made = await new_task_run(
        api,
        flow_run_id=run["id"],
        name="t",
        tags=["a"],
        labels={"k": 1},
        task_inputs=inputs,
        empirical_policy={"retries": 2},
    )
    status, found = await api.get(f"/task_runs/{made['id']}")
    assert status == 200
    assert {**found, "estimated_start_time_delta": 0} == {**made, "estimated_start_time_delta": 0}
    model = TypeAdapter(TaskRun).validate_json(orjson.dumps(found))
    assert (model.name, model.tags, model.labels, model.flow_run_id) == ("t", ["a"], {"k": 1}, run["id"])
    assert (model.state_type, model.state_name, model.run_count) == ("PENDING", "Pending", 0)
    assert model.state is not None
    assert (model.state.state_details.flow_run_id, model.state.state_details.task_run_id) == (run["id"], made["id"])
    assert model.empirical_policy.retries == 2
    assert found["task_inputs"] == inputs


async def test_its_id_and_first_state_may_be_given(api: ApiClient) -> None:
    wanted = str(uuid.uuid4())
    made = await new_task_run(api, id=wanted, state={"type": "RUNNING", "message": "on it"})
    assert (made["id"], made["state"]["type"], made["state"]["message"], made["run_count"]) == (
        wanted,
        "RUNNING",
        "on it",
        1,
    )
    assert made["flow_run_id"] is None


async def test_the_same_keys_in_one_flow_run_are_one_task_run(api: ApiClient) -> None:
    run = await new_run(api)
    first = await new_task_run(api, flow_run_id=run["id"], dynamic_key="0")
    again = await new_task_run(api, 200, flow_run_id=run["id"], dynamic_key="0", name="other")
    assert (again["id"], again["name"]) == (first["id"], first["name"])
    elsewhere = await new_task_run(api, flow_run_id=(await new_run(api))["id"], dynamic_key="0")
    alone = [await new_task_run(api, dynamic_key="0") for _ in range(2)]
    assert len({first["id"], elsewhere["id"], *(each["id"] for each in alone)}) == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"task_key": "k"}, 422),
        ({"task_key": "k", "dynamic_key": "0", "flow_run_id": "x"}, 422),
        ({"task_key": "k", "dynamic_key": "0", "flow_run_id": str(uuid.uuid4())}, 404),
        ({"task_key": "k", "dynamic_key": "0", "cache_key": "c" * 2001}, 422),
        ({"task_key": "k", "dynamic_key": "0", "no such": 1}, 422),
    ],
)
async def test_what_does_not_fit_is_refused(api: ApiClient, body: dict[str, Any], status: int) -> None:
    assert (await api.post("/task_runs/", body))[0] == status
    assert await api.post("/task_runs/count", {"task_runs": {"flow_run_id": {"is_null_": True}}}) == (200, 0)


async def test_states_follow_one_another(api: ApiClient) -> None:
    # Tasks run while their flow does.
    waiting = await new_task_run(api, flow_run_id=(await new_run(api))["id"])
    assert (await set_state(api, waiting, "RUNNING"))["status"] == "ABORT"
    made = await new_task_run(api, flow_run_id=(await new_run(api, state={"type": "RUNNING"}))["id"])
    running = await set_state(api, made, "RUNNING")
    assert (running["status"], running["state"]["type"]) == ("ACCEPT", "RUNNING")
    done = await set_state(api, made, "COMPLETED", data={"type": "reference", "storage_key": "s"})
    assert done["status"] == "ACCEPT"
    _, found = await api.get(f"/task_runs/{made['id']}")
    assert (found["state_name"], found["run_count"]) == ("Completed", 1)
    assert found["start_time"] is not None
    assert found["end_time"] is not None
    again = await set_state(api, made, "COMPLETED")
    assert again["status"] in {"REJECT", "ABORT"}
    assert again["state"]["id"] == done["state"]["id"]
    forced = await set_state(api, made, "PENDING", force=True)
    assert (forced["status"], forced["state"]["type"]) == ("ACCEPT", "PENDING")
    assert (await api.get(f"/task_runs/{made['id']}"))[1]["end_time"] is None


async def test_a_failed_one_that_may_retry_is_scheduled_again(api: ApiClient) -> None:
    run = await new_run(api, state={"type": "RUNNING"})
    made = await new_task_run(api, flow_run_id=run["id"], empirical_policy={"retries": 1, "retry_delay": 0})
    await set_state(api, made, "RUNNING")
    answer = await set_state(api, made, "FAILED")
    assert (answer["status"], answer["state"]["type"], answer["state"]["name"]) == (
        "REJECT",
        "SCHEDULED",
        "AwaitingRetry",
    )


async def test_a_name_is_changed_and_a_task_run_deleted(api: ApiClient) -> None:
    made = await new_task_run(api)
    path = f"/task_runs/{made['id']}"
    assert await api.patch(path, {"name": "new"}) == (204, None)
    assert (await api.get(path))[1]["name"] == "new"
    assert (await api.patch(path, {"state": {"type": "FAILED"}}))[0] == 422
    assert await api.delete(path) == (204, None)
    assert [(await api.get(path))[0], (await api.delete(path))[0], (await api.patch(path, {"name": "x"}))[0]] == [
        404
    ] * 3
    assert (await api.post(f"{path}/set_state", {"state": {"type": "FAILED"}}))[0] == 404


async def test_they_go_with_their_flow_run(api: ApiClient) -> None:
    run = await new_run(api)
    made = await new_task_run(api, flow_run_id=run["id"])
    assert (await api.delete(f"/flow_runs/{run['id']}"))[0] == 204
    assert (await api.get(f"/task_runs/{made['id']}"))[0] == 404


async def test_filters_of_their_own_and_of_what_they_belong_to(api: ApiClient) -> None:
    flow = await new_flow(api, "mine")
    run = await new_run(api, flow_id=flow, name="r")
    alone = await new_task_run(api, name="alone")
    first = await new_task_run(api, flow_run_id=run["id"], name="first", tags=["a", "b"])
    second = await new_task_run(api, flow_run_id=run["id"], name="second", state={"type": "RUNNING"})
    parent = await new_task_run(api, flow_run_id=run["id"], name="parent")
    child = await new_run(api, flow_id=flow, parent_task_run_id=parent["id"])
    everything = {each["id"] for each in (alone, first, second, parent)}
    in_run = everything - {alone["id"]}
    assert await ids_of(api) == everything
    assert await ids_of(api, task_runs={"name": {"like_": "FIR"}}) == {first["id"]}
    assert await ids_of(api, task_runs={"tags": {"all_": ["a", "b"]}}) == {first["id"]}
    assert await ids_of(api, task_runs={"state": {"type": {"any_": ["RUNNING"]}}}) == {second["id"]}
    assert await ids_of(api, task_runs={"subflow_runs": {"exists_": True}}) == {parent["id"]}
    assert await ids_of(api, task_runs={"flow_run_id": {}}) == in_run
    assert await ids_of(api, task_runs={"flow_run_id": {"is_null_": True}}) == {alone["id"]}
    assert await ids_of(api, flow_runs={"id": {"any_": [run["id"]]}}) == in_run
    assert await ids_of(api, flow_runs={"id": {"any_": [child["id"]]}}) == set()
    assert await ids_of(api, flows={"name": {"any_": ["mine"]}}) == in_run
    assert await ids_of(api, deployments={}) == set()


async def test_pages_hold_the_whole_in_order(api: ApiClient) -> None:
    names = [(await new_task_run(api, name=name))["name"] for name in "cabed"]
    found = []
    for page in (1, 2, 3):
        status, body = await api.post("/task_runs/paginate", {"sort": "NAME_ASC", "limit": 2, "page": page})
        assert status == 200
        TypeAdapter(TaskRunPaginationResponse).validate_json(orjson.dumps(body))
        assert (body["count"], body["pages"], body["page"], body["limit"]) == (5, 3, page, 2)
        found += [each["name"] for each in body["results"]]
    assert found == sorted(names)
    assert [
        each["name"]
        for each in (await api.post("/task_runs/filter", {"sort": "NAME_DESC", "limit": 1, "offset": 1}))[1]
    ] == ["d"]
    assert (await api.post("/task_runs/filter", {"limit": 201}))[0] == 422
    assert (await api.post("/task_runs/filter", {"sort": "SIZE_DESC"}))[0] == 422


async def test_another_workspace_sees_none_of_it(api: ApiClient, other: ApiClient) -> None:
    run = await new_run(api)
    made = await new_task_run(api, flow_run_id=run["id"])
    path = f"/task_runs/{made['id']}"
    assert (await other.get(path))[0] == 404
    assert (await other.patch(path, {"name": "x"}))[0] == 404
    assert (await other.delete(path))[0] == 404
    assert (await other.post(f"{path}/set_state", {"state": {"type": "FAILED"}}))[0] == 404
    assert await ids_of(other) == set()
    assert (await other.post("/task_runs/", {"task_key": "k", "dynamic_key": "0", "flow_run_id": run["id"]}))[0] == 404
    assert await ids_of(api) == {made["id"]}
