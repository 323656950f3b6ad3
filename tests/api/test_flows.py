"""Flows over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from managedd.wire.flows import Flow, FlowPaginationResponse

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def make(api: ApiClient, name: str, **more: Any) -> dict[str, Any]:
    status, body = await api.post("/flows/", {"name": name, **more})
    assert status in {200, 201}, body
    TypeAdapter(Flow).validate_python(body)
    flow: dict[str, Any] = body
    return flow


async def test_a_flow_is_made_once_and_then_answered_as_it_is(api: ApiClient) -> None:
    status, flow = await api.post("/flows/", {"name": "etl", "tags": ["a"], "labels": {"team": "x", "n": 1}})
    assert (status, flow["name"], flow["tags"], flow["labels"]) == (201, "etl", ["a"], {"team": "x", "n": 1})
    assert flow["created"].endswith("Z")
    again, same = await api.post("/flows/", {"name": "etl", "tags": ["b"]})
    assert (again, same) == (200, flow)


async def test_read_by_id_and_by_name(api: ApiClient) -> None:
    flow = await make(api, "my flow (x)")
    assert await api.get(f"/flows/{flow['id']}") == (200, flow)
    assert await api.get("/flows/name/my%20flow%20(x)") == (200, flow)
    status, body = await api.get(f"/flows/{uuid4()}")
    assert status == 404
    assert "not found" in body["detail"]
    assert (await api.get("/flows/name/none"))[0] == 404
    assert (await api.get("/flows/no-uuid"))[0] == 422


@pytest.mark.parametrize("name", ["a/b", "a%b", "<b>", ""])
async def test_a_name_that_stands_in_no_url_is_refused(api: ApiClient, name: str) -> None:
    status, body = await api.post("/flows/", {"name": name})
    assert status == 422
    assert "name" in body["detail"]


async def test_tags_change(api: ApiClient) -> None:
    flow = await make(api, "etl", tags=["a"])
    assert await api.patch(f"/flows/{flow['id']}", {"tags": ["b", "c"]}) == (204, None)
    assert (await api.get(f"/flows/{flow['id']}"))[1]["tags"] == ["b", "c"]
    assert await api.patch(f"/flows/{flow['id']}", {}) == (204, None)
    assert (await api.get(f"/flows/{flow['id']}"))[1]["tags"] == ["b", "c"]
    assert (await api.patch(f"/flows/{uuid4()}", {"tags": []}))[0] == 404


async def test_filter_count_and_paginate(api: ApiClient) -> None:
    for name in ("one", "two", "three"):
        await make(api, name, tags=["odd"] if name != "two" else [])
    everything = {"flows": None, "flow_runs": None, "task_runs": None, "deployments": None, "work_pools": None}
    status, found = await api.post("/flows/filter", {**everything, "sort": "NAME_DESC", "limit": None, "offset": 0})
    assert (status, [flow["name"] for flow in found]) == (200, ["two", "three", "one"])
    odd = {"flows": {"tags": {"all_": ["odd"]}}}
    assert [flow["name"] for flow in (await api.post("/flows/filter", odd))[1]] == ["one", "three"]
    assert await api.post("/flows/count", odd) == (200, 2)
    assert await api.post("/flows/count") == (200, 3)
    status, page = await api.post("/flows/paginate", {"limit": 2, "page": 2})
    FlowPaginationResponse.model_validate(page)
    assert (status, page["count"], page["pages"], len(page["results"])) == (200, 3, 2, 1)


async def test_deleting_takes_deployments_and_runs_along(api: ApiClient) -> None:
    flow = await make(api, "etl")
    _, deployment = await api.post("/deployments/", {"name": "d", "flow_id": flow["id"]})
    _, run = await api.post(f"/deployments/{deployment['id']}/create_flow_run", {})
    assert await api.delete(f"/flows/{flow['id']}") == (204, None)
    assert (await api.get(f"/deployments/{deployment['id']}"))[0] == 404
    assert (await api.delete(f"/flows/{flow['id']}"))[0] == 404
    left = await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM flow_runs WHERE id = ?", (run["id"],)))
    assert left == 0


async def test_bulk_delete(api: ApiClient) -> None:
    kept, gone = await make(api, "kept"), await make(api, "gone")
    status, body = await api.post("/flows/bulk_delete", {"flows": {"name": {"any_": ["gone"]}}, "limit": 50})
    assert (status, body) == (200, {"deleted": [gone["id"]]})
    assert (await api.get(f"/flows/{kept['id']}"))[0] == 200
    assert (await api.post("/flows/bulk_delete", {"limit": 51}))[0] == 422


async def test_another_workspace_has_flows_of_its_own(api: ApiClient, other: ApiClient) -> None:
    ours, theirs = await make(api, "etl"), await make(other, "etl")
    assert ours["id"] != theirs["id"]
    assert (await other.get(f"/flows/{ours['id']}"))[0] == 404
    assert (await other.patch(f"/flows/{ours['id']}", {"tags": ["x"]}))[0] == 404
    assert (await other.delete(f"/flows/{ours['id']}"))[0] == 404
    assert await other.post("/flows/bulk_delete", {}) == (200, {"deleted": [theirs["id"]]})
    assert await api.post("/flows/count") == (200, 1)
