"""Variables, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd.wire.variables import Variable

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def variable(api: ApiClient, name: str, value: Any = 1, tags: list[str] | None = None) -> dict[str, Any]:
    status, body = await api.post("/variables/", {"name": name, "value": value, "tags": tags or []})
    assert status == 201, body
    return dict(body)


@pytest.mark.parametrize("value", ["text", 7, 1.5, True, None, {"a": [1, {"b": None}]}, [1, "2"]])
async def test_every_json_value_comes_back_as_it_was(api: ApiClient, value: Any) -> None:
    made = await variable(api, "v", value, ["a"])
    Variable.model_validate(made)
    assert (made["value"], made["tags"]) == (value, ["a"])
    assert await api.get("/variables/name/v") == (200, made)
    assert await api.get(f"/variables/{made['id']}") == (200, made)


async def test_a_patch_changes_what_it_names(api: ApiClient) -> None:
    made = await variable(api, "v", 1, ["a"])
    assert (await api.patch("/variables/name/v", {"value": None}))[0] == 204
    assert (await api.get("/variables/name/v"))[1]["value"] is None
    assert (await api.patch(f"/variables/{made['id']}", {"name": "w", "tags": None}))[0] == 204
    found = (await api.get("/variables/name/w"))[1]
    assert (found["id"], found["value"], found["tags"]) == (made["id"], None, ["a"])
    await variable(api, "taken")
    assert (await api.patch("/variables/name/w", {"name": "taken"}))[0] == 409
    assert (await api.patch("/variables/name/v", {"value": 2}))[0] == 404
    assert (await api.patch("/variables/name/w", {"name": "Not This"}))[0] == 422


async def test_names_are_taken_once_and_can_be_freed(api: ApiClient) -> None:
    made = await variable(api, "v")
    status, body = await api.post("/variables/", {"name": "v", "value": 2})
    assert (status, body["detail"]) == (409, "A variable with the name 'v' already exists.")
    assert (await api.delete("/variables/name/v"))[0] == 204
    assert (await api.delete("/variables/name/v"))[0] == 404
    assert (await api.delete(f"/variables/{made['id']}"))[0] == 404
    again = await variable(api, "v")
    assert (await api.delete(f"/variables/{again['id']}"))[0] == 204
    status, body = await api.get("/variables/name/v")
    assert (status, body["detail"]) == (404, "Variable 'v' not found")


async def test_variables_are_found_sorted_and_counted(api: ApiClient) -> None:
    for name, tags in (("beta", ["x"]), ("alpha", ["x", "y"]), ("gamma", [])):
        await variable(api, name, tags=tags)

    async def names(**body: Any) -> list[str]:
        status, found = await api.post("/variables/filter", body)
        assert status == 200, found
        TypeAdapter(list[Variable]).validate_python(found)
        return [each["name"] for each in found]

    assert await names(variables=None, limit=None, offset=None) == ["alpha", "beta", "gamma"]
    assert await names(sort="NAME_DESC", limit=1) == ["gamma"]
    assert await names(sort="CREATED_DESC") == ["gamma", "alpha", "beta"]
    assert await names(variables={"name": {"like_": "ALPH"}}) == ["alpha"]
    assert await names(variables={"tags": {"all_": ["x"]}}) == ["alpha", "beta"]
    assert await names(variables={"tags": {"is_null_": True}}) == ["gamma"]
    assert await api.post("/variables/count", {"variables": {"tags": {"all_": ["x"]}}}) == (200, 2)
    assert await api.post("/variables/count") == (200, 3)


@pytest.mark.parametrize("values", [{"name": "Caps", "value": 1}, {"name": "v"}, {"name": "v", "value": "x" * 5001}])
async def test_what_prefect_refuses_is_refused(api: ApiClient, values: dict[str, Any]) -> None:
    status, body = await api.post("/variables/", values)
    assert status == 422
    assert body["exception_message"] == "Invalid request received."
    assert body["request_body"] is None


async def test_another_workspace_has_variables_of_its_own(api: ApiClient, other: ApiClient) -> None:
    made = await variable(api, "v")
    assert await other.post("/variables/filter", {}) == (200, [])
    assert await other.post("/variables/count", {}) == (200, 0)
    for path in ("/variables/name/v", f"/variables/{made['id']}"):
        assert (await other.get(path))[0] == 404
        assert (await other.patch(path, {"value": 2}))[0] == 404
        assert (await other.delete(path))[0] == 404
    await variable(other, "v", "theirs")
    assert (await api.get("/variables/name/v"))[1] == made
