"""What work pool types a client is offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

KEYS = {
    "type",
    "display_name",
    "description",
    "documentation_url",
    "logo_url",
    "install_command",
    "is_beta",
    "default_base_job_configuration",
}


def types(view: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["type"]: entry for entries in view.values() for entry in entries.values()}


async def test_managed_and_hybrid_types_are_offered_in_both_shapes(api: ApiClient, other: ApiClient) -> None:
    status, view = await api.get("/collections/views/aggregate-worker-metadata")
    assert status == 200
    offered = types(view)
    assert {"prefect:managed", "process", "docker", "kubernetes"} <= offered.keys()
    assert not any(kind.endswith(":push") for kind in offered)
    assert all(entry.keys() >= KEYS for entry in offered.values())
    assert await other.get("/collections/work_pool_types") == (200, view)
    status, body = await api.get("/collections/views/other")
    assert (status, body["detail"]) == (404, "View 'other' not found")


async def test_every_offered_template_makes_a_pool(api: ApiClient) -> None:
    offered = types((await api.get("/collections/work_pool_types"))[1])
    for number, (kind, entry) in enumerate(offered.items()):
        values = {"name": f"p{number}", "type": kind, "base_job_template": entry["default_base_job_configuration"]}
        status, body = await api.post("/work_pools/", values)
        assert status == 201, body
    managed = offered["prefect:managed"]["default_base_job_configuration"]
    # The client refuses `image=` for a pool whose template has no such variable.
    assert {"env", "image", "pip_packages", "timeout"} <= managed["variables"]["properties"].keys()


async def test_csrf_protection_says_that_it_is_off(api: ApiClient) -> None:
    status, body = await api.get("/csrf-token?client=2f3c8a3e-13a6-4d6e-a7a5-98b3a7f4b8f0")
    assert status == 422
    assert "CSRF protection is disabled." in body["detail"]
