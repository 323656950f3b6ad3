"""Artifacts and their collections, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pytest
from pydantic import TypeAdapter

from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN
from managedd.wire.artifacts import Artifact, ArtifactBeginning, ArtifactCollection

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


async def test_of_each_artifact_there_is_no_more_than_was_asked_for_and_the_whole_of_it_as_a_file(
    api: ApiClient, other: ApiClient
) -> None:
    values = {
        "text": "é😀\n\"quoted\"" * 5_000, "small": "# x", "rows": [{"n": each} for each in range(9_000)], "none": None, "exact": "y" * 98,
        "pairs": "\U0001f600" * 200,
    }  # fmt: skip
    made = {key: await artifact(api, key, data) for key, data in values.items()}
    _, stored = await api.post("/artifacts/filter", {})
    status, found = await api.post("/managed/artifacts/filter", {"most_chars": 100})
    assert status == 200, found
    TypeAdapter(list[ArtifactBeginning]).validate_python(found)
    assert [each["id"] for each in found] == [each["id"] for each in stored], "the last first"
    shown = {each["key"]: each for each in found}
    assert (shown["small"]["data"], shown["small"]["beginning"]) == ("# x", None)
    assert (shown["exact"]["data"], shown["exact"]["chars"]) == (values["exact"], 100)
    assert (shown["none"]["data"], shown["none"]["beginning"]) == (None, None)
    assert shown["text"]["data"] is None
    assert len(shown["text"]["beginning"]) > 70 and str(values["text"]).startswith(shown["text"]["beginning"])
    assert str(values["pairs"]).startswith(shown["pairs"]["beginning"])
    assert shown["rows"]["beginning"].startswith('[{"n":0},{"n":1}')
    assert shown["rows"]["chars"] > 90_000
    _, one = await api.post("/managed/artifacts/filter", {"artifacts": {"id": {"any_": [made["small"]["id"]]}}})
    assert [each["key"] for each in one] == ["small"]
    assert (await api.post("/managed/artifacts/filter", {"most_chars": 10**9}))[0] == 422

    for key, expected in (("text", str(values["text"]).encode()), ("none", b"")):
        answer = await api.http.get(f"/api/managed/artifacts/{made[key]['id']}/data")
        assert (answer.status, await answer.read()) == (200, expected)
        assert answer.content_type == "text/plain"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{key}.txt"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
    answer = await api.http.get(f"/api/managed/artifacts/{made['rows']['id']}/data")
    assert orjson.loads(await answer.read()) == values["rows"]
    assert (await other.get(f"/managed/artifacts/{made['text']['id']}/data"))[0] == 404
    assert await other.post("/managed/artifacts/filter", {}) == (200, [])


async def test_a_text_is_cut_wherever_its_json_is(api: ApiClient) -> None:
    text = 'a"\\\x00\u2028\U0001f600\n' * 9
    await artifact(api, "cut", text)
    for most in range(1, 60):
        _, (found,) = await api.post("/managed/artifacts/filter", {"most_chars": most})
        assert text.startswith(found["beginning"]), most
        assert len(found["beginning"]) >= (most - 13) // 6, most
