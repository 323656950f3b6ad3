"""What clients ask before anything else, and how the API says no."""

from __future__ import annotations

import pytest

from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def test_version_is_a_json_string_of_prefects_major(api: ApiClient) -> None:
    assert await api.get("/admin/version") == (200, "3.8.8")


async def test_health_and_ready(api: ApiClient) -> None:
    assert await api.get("/health") == (200, True)
    assert (await api.get("/ready"))[0] == 200


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
