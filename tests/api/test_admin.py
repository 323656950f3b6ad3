"""What clients ask before anything else, and how the API says no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from aiohttp import WSMsgType

from managedd import ids
from managedd.api.openapi import document
from managedd.api.surface import all_operations

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def test_version_is_a_json_string_of_prefects_major(api: ApiClient) -> None:
    assert await api.get("/admin/version") == (200, "3.8.8")


async def test_health_and_ready(api: ApiClient) -> None:
    assert await api.get("/health") == (200, True)
    assert (await api.get("/ready"))[0] == 200
    assert await api.get("/hello") == (200, "👋")


async def test_not_ready_asks_to_wait(api: ApiClient) -> None:
    api.services.ready = False
    response = await api.http.get("/api/ready")
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Prefect-Maintenance"] == "true"
    assert await api.get("/health") == (200, True)


async def test_unknown_paths_and_methods(api: ApiClient) -> None:
    status, body = await api.get("/nowhere")
    assert (status, body["detail"]) == (404, "Not Found")
    response = await api.http.delete("/api/health")
    assert response.status == 405
    assert response.headers["Allow"] == "GET"


async def test_a_malformed_api_version_is_refused(api: ApiClient) -> None:
    status, body = await api.get("/ready", headers={"X-PREFECT-API-VERSION": "nine"})
    assert status == 400
    assert "x.y.z" in body["exception_message"]


async def test_cloud_shaped_paths_reach_the_same_operations(api: ApiClient, other: ApiClient) -> None:
    assert await other.get("/admin/version") == (200, "3.8.8")
    status, _ = await api.get("/accounts/not-a-uuid/workspaces/either/admin/version")
    assert status == 404


async def test_the_document_is_served_for_whoever_may_use_the_api(api: ApiClient) -> None:
    first = await api.http.get("/api/openapi.json")
    assert (first.status, first.content_type) == (200, "application/json")
    assert await first.read() == orjson.dumps(document(all_operations()))
    assert await (await api.http.get("/api/openapi.json")).read() == await first.read()


async def test_health_and_readiness_ask_for_no_credential(closed: ApiClient) -> None:
    assert await closed.get("/health") == (200, True)
    assert (await closed.get("/ready"))[0] == 200
    assert (await closed.get("/openapi.json"))[0] == 401
    closed.services.ready = False
    assert (await closed.get("/ready"))[0] == 503


async def test_a_workspace_is_found_below_its_own_account_alone(api: ApiClient, other: ApiClient) -> None:
    account, workspace = other.prefix.split("/")[3::2]
    assert (await api.get(f"/accounts/{account}/workspaces/{workspace}/admin/version"))[0] == 200
    default = (ids.DEFAULT_ACCOUNT_ID, ids.DEFAULT_WORKSPACE_ID)
    assert (await api.get("/accounts/{}/workspaces/{}/admin/version".format(*default)))[0] == 200
    for wrong in ((ids.new_id(), workspace), (default[0], workspace), (account, default[1]), (account, ids.new_id())):
        status, body = await api.get("/accounts/{}/workspaces/{}/admin/version".format(*wrong))
        assert (status, body["detail"]) == (404, f"Workspace {wrong[1]!r} not found")
        async with api.http.ws_connect("/api/accounts/{}/workspaces/{}/events/in".format(*wrong)) as ws:
            message = await ws.receive()
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
