"""Artifacts and their collections, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN
from managedd.wire.artifacts import Artifact, ArtifactCollection

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def artifact(api: ApiClient, key: str | None = "report", data: Any = 1, **values: Any) -> dict[str, Any]:
    status, body = await api.post("/artifacts/", {"key": key, "type": "markdown", "data": data, **values})
    assert status == 201, body
    Artifact.model_validate(body)
    return dict(body)


async def collections(api: ApiClient, **body: Any) -> list[dict[str, Any]]:
    status, found = await api.post("/artifacts/latest/filter", body)
    assert status == 200, found
    TypeAdapter(list[ArtifactCollection]).validate_python(found)
    return list(found)


async def ids_of(api: ApiClient, **body: Any) -> list[str]:
    status, found = await api.post("/artifacts/filter", body)
    assert status == 200, found
    TypeAdapter(list[Artifact]).validate_python(found)
    return [each["id"] for each in found]


@pytest.mark.parametrize("data", [None, "# text", 5.5, [{"a": 1}], {"b": None}])
async def test_an_artifact_keeps_what_it_was_given(api: ApiClient, data: Any) -> None:
    made = await artifact(api, data=data, description="d", metadata_={"k": "v" * 501})
    assert (made["data"], made["description"], made["type"]) == (data, "d", "markdown")
    assert made["metadata_"] == {"k": "v" * 500 + "..."}
    assert await api.get(f"/artifacts/{made['id']}") == (200, made)


async def test_the_latest_of_a_key_follows_creation_change_and_deletion(api: ApiClient) -> None:
    first, second = await artifact(api, data=1), await artifact(api, data=2)
    assert await api.get("/artifacts/report/latest") == (200, second)
    (collection,) = await collections(api)
    assert (collection["latest_id"], collection["data"], collection["key"]) == (second["id"], 2, "report")
    assert (await api.patch(f"/artifacts/{second['id']}", {"data": 3, "description": None}))[0] == 204
    (collection,) = await collections(api)
    assert (collection["data"], collection["type"]) == (3, "markdown")
    assert (await api.get(f"/artifacts/{second['id']}"))[1]["data"] == 3
    assert (await api.delete(f"/artifacts/{second['id']}"))[0] == 204
    assert (await api.get("/artifacts/report/latest"))[1] == first
    assert (await collections(api))[0]["latest_id"] == first["id"]
    third = await artifact(api, data=4)
    assert (await api.delete(f"/artifacts/{first['id']}"))[0] == 204
    assert (await api.get("/artifacts/report/latest"))[1]["id"] == third["id"]
    assert (await api.delete(f"/artifacts/{third['id']}"))[0] == 204
    assert await collections(api) == []
    assert (await api.get("/artifacts/report/latest"))[0] == 404
    for method, body in (("GET", None), ("PATCH", {"data": 1}), ("DELETE", None)):
        assert (await api.call(method, f"/artifacts/{third['id']}", body))[0] == 404


async def test_artifacts_without_a_key_have_no_collection(api: ApiClient) -> None:
    made = await artifact(api, None)
    assert await collections(api) == []
    assert await api.post("/artifacts/latest/count", {}) == (200, 0)
    assert await ids_of(api) == [made["id"]]
    assert (await api.delete(f"/artifacts/{made['id']}"))[0] == 204
    assert (await api.post("/artifacts/", {"key": "Not This"}))[0] == 422


async def test_artifacts_are_found_by_themselves_and_by_their_runs(api: ApiClient) -> None:
    def seed(tx: Any) -> tuple[str, str]:
        flow = rows.insert(tx, FLOW, {"name": "f"})
        deployment = rows.insert(tx, DEPLOYMENT, {"name": "d", "flow_id": flow})
        run = rows.insert(tx, FLOW_RUN, {"name": "r", "flow_id": flow, "deployment_id": deployment})
        return run, rows.insert(tx, TASK_RUN, {"name": "t", "flow_run_id": run, "task_key": "k", "dynamic_key": "0"})

    run, task = await api.services.db.write(seed, workspace=DEFAULT_WORKSPACE_ID)
    a = (await artifact(api, "a", flow_run_id=run))["id"]
    b = (await artifact(api, "b", task_run_id=task, type="table"))["id"]
    c = (await artifact(api, "c"))["id"]
    assert (await api.get(f"/artifacts/{b}"))[1]["flow_run_id"] == run
    assert await ids_of(api) == [c, b, a]
    assert await ids_of(api, sort="KEY_ASC", limit=2) == [a, b]
    assert await ids_of(api, artifacts={"key": {"any_": ["a", "c"]}, "flow_run_id": {"any_": [run]}}) == [a]
    assert await ids_of(api, artifacts={"type": {"not_any_": ["table"]}}) == [c, a]
    for related in (
        {"flow_runs": {"id": {"any_": [run]}}},
        {"flows": {"name": {"any_": ["f"]}}},
        {"deployments": {"name": {"any_": ["d"]}}},
    ):
        assert await ids_of(api, **related) == [b, a], related
        assert await api.post("/artifacts/count", related) == (200, 2)
        assert [each["latest_id"] for each in await collections(api, **related)] == [b, a]
        assert await api.post("/artifacts/latest/count", related) == (200, 2)
    assert await ids_of(api, task_runs={"name": {"any_": ["t"]}}) == [b]
    assert [each["key"] for each in await collections(api, sort="KEY_DESC", artifacts={"key": {"like_": "a"}})] == ["a"]
    assert [each["key"] for each in await collections(api, artifacts={"latest_id": {"any_": [c]}})] == ["c"]


async def test_keys_can_be_asked_to_exist(api: ApiClient) -> None:
    keyed, loose = await artifact(api, "a"), await artifact(api, None)
    assert await ids_of(api, artifacts={"key": {"exists_": True}}) == [keyed["id"]]
    assert await ids_of(api, artifacts={"key": {"exists_": False}}) == [loose["id"]]


async def test_another_workspace_sees_no_artifacts_of_it(api: ApiClient, other: ApiClient) -> None:
    made = await artifact(api)
    assert await ids_of(other) == []
    assert await collections(other) == []
    assert await other.post("/artifacts/count", {}) == (200, 0)
    assert await other.post("/artifacts/latest/count", {}) == (200, 0)
    for method, path, body in (
        ("GET", f"/artifacts/{made['id']}", None),
        ("GET", "/artifacts/report/latest", None),
        ("PATCH", f"/artifacts/{made['id']}", {"data": 9}),
        ("DELETE", f"/artifacts/{made['id']}", None),
    ):
        assert (await other.call(method, path, body))[0] == 404
    await artifact(other, data="theirs")
    assert (await api.get("/artifacts/report/latest"))[1] == made
