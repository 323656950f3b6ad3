"""What most tests of deployments start from: a flow, a managed pool, a deployment; each answer is checked by its wire model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.orchestration.pool_types import default_template
from managedd.wire.deployments import DeploymentResponse
from managedd.wire.flow_runs import FlowRunResponse

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

CRON = {"cron": "0 9 * * *", "timezone": "Europe/Berlin"}
SCHEMA = {
    "title": "Parameters",
    "type": "object",
    "properties": {"n": {"type": "integer"}, "who": {"type": "string", "default": "you"}},
    "required": ["n"],
}


async def flow_of(api: ApiClient, name: str = "etl") -> str:
    """The id of the flow called `name`."""
    status, flow = await api.post("/flows/", {"name": name, "labels": {"team": "x"}})
    assert status in {200, 201}, flow
    return str(flow["id"])


async def pool_of(api: ApiClient, name: str = "mine", type_: str = "prefect:managed") -> dict[str, Any]:
    """The new pool called `name`."""
    body = {"name": name, "type": type_, "base_job_template": default_template(type_) or {}}
    status, pool = await api.post("/work_pools/", body)
    assert status == 201, pool
    made: dict[str, Any] = pool
    return made


async def deploy(api: ApiClient, name: str = "prod", *, expect: int = 201, **more: Any) -> dict[str, Any]:
    """The deployment called `name` of the flow `etl`."""
    flow_id = more.pop("flow_id", None) or await flow_of(api)
    status, deployment = await api.post("/deployments/", {"name": name, "flow_id": flow_id, **more})
    assert status == expect, deployment
    DeploymentResponse.model_validate(deployment)
    made: dict[str, Any] = deployment
    return made


async def read(api: ApiClient, deployment: dict[str, Any]) -> dict[str, Any]:
    """The deployment as it is now."""
    status, body = await api.get(f"/deployments/{deployment['id']}")
    assert status == 200, body
    DeploymentResponse.model_validate(body)
    found: dict[str, Any] = body
    return found


async def run_it(api: ApiClient, deployment: dict[str, Any], *, expect: int = 201, **body: Any) -> dict[str, Any]:
    """A new run of the deployment."""
    status, run = await api.post(f"/deployments/{deployment['id']}/create_flow_run", body)
    assert status == expect, run
    if status < 300:
        FlowRunResponse.model_validate(run)
    made: dict[str, Any] = run
    return made


async def runs_of(api: ApiClient, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The deployment's runs, in due order."""
    body = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
    status, runs = await api.post("/flow_runs/filter", body)
    assert status == 200, runs
    found: list[dict[str, Any]] = runs
    return found
