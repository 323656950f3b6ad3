"""What a plan allows, as clients are told it: pools, images, memory."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from managedd.model.limits import HostLimits, Plan
from managedd.orchestration.pool_types import default_template
from managedd.store import plans

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

MANAGED = "prefect:managed"
GIB = 1024**3


async def on_plan(api: ApiClient, **limits: Any) -> None:
    await api.services.db.write(lambda tx: plans.replace(tx, [Plan(name="pro", **limits)]))


async def pool(api: ApiClient, name: str, pool_type: str = MANAGED) -> tuple[int, Any]:
    return await api.post(
        "/work_pools/", {"name": name, "type": pool_type, "base_job_template": default_template(pool_type)}
    )


async def deploy(api: ApiClient, **job_variables: Any) -> tuple[int, Any]:
    _, flow = await api.post("/flows/", {"name": "f"})
    body = {"name": "d", "flow_id": flow["id"], "work_pool_name": "mine", "job_variables": job_variables}
    return await api.post("/deployments/", body)


async def test_one_managed_pool_too_many_is_refused_in_words_that_the_client_knows(api: ApiClient) -> None:
    await on_plan(api, managed_pools=2)
    assert [(await pool(api, name))[0] for name in ("a", "b")] == [201, 201]
    status, body = await pool(api, "c")
    assert (status, body["detail"]) == (
        403,
        (
            "This workspace has the maximum number of managed work pools that its plan 'pro' allows: 2. "
            "Delete one, or use one of them for more deployments."
        ),
    )
    assert (await pool(api, "b"))[0] == 409, "a name that is taken is a conflict first"
    assert (await api.get("/work_pools/c"))[0] == 404, "nothing of it stays"
    assert (await pool(api, "process", "process"))[0] == 201
    await api.delete("/work_pools/a")
    assert (await pool(api, "c"))[0] == 201


async def test_the_shipped_plan_is_that_of_managed_pools(api: ApiClient) -> None:
    assert [(await pool(api, name))[0] for name in "abcdef"] == [201] * 5 + [403]


async def test_more_memory_than_the_plan_has_is_refused_when_deployed_and_when_run(api: ApiClient) -> None:
    await pool(api, "mine")
    status, body = await deploy(api, memory_limit="4Gi")
    assert status == 422
    assert "memory_limit: 4.0 GiB is more than plan 'pro' allows, 2.0 GiB" in body["detail"]
    status, made = await deploy(api, memory_limit="2Gi")
    assert status == 201
    status, body = await api.post(
        f"/deployments/{made['id']}/create_flow_run", {"job_variables": {"memory_limit": "3Gi"}}
    )
    assert status == 422 and "memory_limit" in body["detail"]
    status, body = await api.patch(f"/deployments/{made['id']}", {"job_variables": {"memory_limit": "3Gi"}})
    assert status == 422 and "memory_limit" in body["detail"]


async def test_only_official_images_unless_the_plan_has_more(api: ApiClient) -> None:
    await pool(api, "mine")
    status, body = await deploy(api, image="ghcr.io/me/mine:1")
    assert status == 422
    assert (
        "image: 'ghcr.io/me/mine:1' is no image that plan 'pro' allows; allowed: prefecthq/prefect:*" in body["detail"]
    )
    assert (await deploy(api, image="docker.io/prefecthq/prefect:3.8.8-python3.12"))[0] == 201
    await on_plan(api, images=("ghcr.io/me/*",))
    assert (await deploy(api, image="ghcr.io/me/mine:1"))[0] == 200
    assert (await deploy(api))[0] == 200, "the operator's own default is not asked"
    await on_plan(api)
    assert (await deploy(api, image="anything"))[0] == 200


async def test_more_than_the_host_could_ever_hold_is_refused_when_deployed(api: ApiClient) -> None:
    await pool(api, "mine")
    await api.services.db.write(lambda tx: plans.put_host(tx, HostLimits(memory_bytes=GIB, cpus=4)))
    status, body = await deploy(api, memory_limit="2Gi")
    assert status == 422
    assert "memory_limit: 2.0 GiB is more than all runs together may reserve of this host, 1.0 GiB" in body["detail"]
    status, body = await deploy(api, cpu_limit=8)
    assert status == 422
    assert "cpu_limit: 8 are more processors than all runs together may reserve of this host, 4" in body["detail"]
    assert (await deploy(api, memory_limit="1Gi", cpu_limit=4))[0] == 201


@pytest.mark.parametrize(("variable", "value"), [("memory_limit", "4Gi"), ("image", "evil/image:1")])
async def test_what_a_pools_defaults_ask_for_is_refused_with_the_pool_and_with_a_deployment(
    api: ApiClient, variable: str, value: str
) -> None:
    template = deepcopy(default_template(MANAGED))
    assert template is not None
    template["variables"]["properties"][variable]["default"] = value
    body = {"name": "mine", "type": MANAGED, "base_job_template": template}
    status, refused = await api.post("/work_pools/", body)
    assert (status, f"job_variables.{variable}" in refused["detail"]) == (422, True)
    assert (await pool(api, "mine"))[0] == 201
    change = {"base_job_template": template}
    assert (await api.patch("/work_pools/mine", change))[0] == 422
    # One that was allowed before the plan was changed.
    await on_plan(api)
    assert (await api.patch("/work_pools/mine", change))[0] == 204
    await on_plan(api, memory_limit_bytes=2 * GIB, images=("prefecthq/*",))
    status, refused = await deploy(api)
    assert (status, f"job_variables.{variable}" in refused["detail"]) == (422, True)
    assert (await deploy(api, memory_limit="1Gi", image="prefecthq/prefect:3-latest"))[0] == 201


async def test_a_default_that_the_host_cannot_hold_is_refused_when_deployed(api: ApiClient) -> None:
    assert (await pool(api, "mine"))[0] == 201
    host = HostLimits(memory_bytes=GIB, cpus=0.5, run_memory_bytes=2 * GIB, run_cpus=1.0)
    await api.services.db.write(lambda tx: plans.put_host(tx, host))
    status, body = await deploy(api)
    assert (status, "memory_limit: 2.0 GiB (the default)" in body["detail"]) == (422, True)
    status, body = await deploy(api, memory_limit="1Gi")
    assert (status, "cpu_limit: 1 (the default)" in body["detail"]) == (422, True)
    assert (await deploy(api, memory_limit="1Gi", cpu_limit=0.5))[0] == 201
    assert (await pool(api, "another"))[0] == 201
    await on_plan(api, memory_limit_bytes=GIB)
    assert (await deploy(api, cpu_limit=0.5))[0] == 200


HOUR = 3600


async def test_more_time_than_the_plan_has_is_refused_when_deployed_and_when_run(api: ApiClient) -> None:
    await pool(api, "mine")
    status, body = await deploy(api, timeout=30 * HOUR)
    assert (status, "timeout: 30 h is longer than plan 'pro' allows, 24 h" in body["detail"]) == (422, True)
    _, body = await deploy(api, timeout=24 * HOUR + 1)
    assert "timeout: 24 h (86401 seconds) is longer than plan 'pro' allows, 24 h (86400 seconds)" in body["detail"]
    status, made = await deploy(api, timeout=24 * HOUR)
    assert status == 201
    longer = {"job_variables": {"timeout": 25 * HOUR}}
    status, body = await api.post(f"/deployments/{made['id']}/create_flow_run", longer)
    assert (status, "timeout: 25 h" in body["detail"]) == (422, True)
    status, body = await api.patch(f"/deployments/{made['id']}", longer)
    assert (status, "timeout: 25 h" in body["detail"]) == (422, True)


async def test_where_the_plan_has_no_end_of_time_the_settings_of_the_host_have(api: ApiClient) -> None:
    await pool(api, "mine")
    await on_plan(api)
    await api.services.db.write(lambda tx: plans.put_host(tx, HostLimits(run_seconds=48 * HOUR)))
    assert (await deploy(api, timeout=48 * HOUR))[0] == 201
    status, body = await deploy(api, timeout=49 * HOUR)
    words = "timeout: 49 h is longer than runs on this host may take, 48 h (runs.time_limit_seconds)"
    assert (status, words in body["detail"]) == (422, True)


async def test_a_pool_may_not_give_more_time_than_the_plan_has(api: ApiClient) -> None:
    template = deepcopy(default_template(MANAGED))
    assert template is not None
    template["variables"]["properties"]["timeout"]["default"] = 25 * HOUR
    body = {"name": "mine", "type": MANAGED, "base_job_template": template}
    status, refused = await api.post("/work_pools/", body)
    assert (status, "timeout: 25 h is longer than plan 'pro' allows" in refused["detail"]) == (422, True)
