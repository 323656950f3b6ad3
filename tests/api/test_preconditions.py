"""`If-Match`: whoever says what it has seen changes nothing that somebody else has changed since."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from managedd.orchestration.pool_types import default_template
from tests.api.deployed import CRON, deploy, pool_of, read, run_it
from tests.api.test_blocks import block_type, schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


def mark(value: Any) -> str:
    """As the documents say it."""
    written = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def seen(**members: Any) -> dict[str, str]:
    """The header of whoever has seen these values."""
    return {"If-Match": '"' + ",".join(f"{name}={mark(value)}" for name, value in members.items()) + '"'}


async def patch(api: ApiClient, path: str, body: Mapping[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    return await api.patch(path, dict(body), headers=headers)


async def test_a_member_of_a_pool_that_has_changed_since_it_was_read_is_not_changed(api: ApiClient) -> None:
    pool = await pool_of(api)
    template = default_template("prefect:managed")
    assert template is not None
    template["variables"]["properties"]["pip_packages"]["default"] = ["pandas"]
    assert await patch(api, "/work_pools/mine", {"base_job_template": template}, seen(base_job_template=pool["base_job_template"])) == (204, None)  # fmt: skip
    now = (await api.get("/work_pools/mine"))[1]

    refused = seen(description=None, base_job_template=pool["base_job_template"])
    status, answer = await patch(
        api, "/work_pools/mine", {"description": "x", "base_job_template": pool["base_job_template"]}, refused
    )
    assert (status, answer["exception_detail"]) == (412, {"changed": ["base_job_template"]})
    assert answer["detail"] == answer["exception_message"]
    assert "base_job_template" in answer["detail"]
    assert (await api.get("/work_pools/mine"))[1] == now, "nothing of a refused change is done"

    for headers in (seen(description=None), {"If-Match": "*"}, {}):
        assert (await patch(api, "/work_pools/mine", {"description": None}, headers))[0] == 204


async def test_what_happens_to_a_pool_or_deployment_by_itself_refuses_nobody(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine", concurrency_limit=3, parameters={"n": 1})
    await run_it(api, made, state={"type": "RUNNING"}, expect=201)
    for action in ("pause", "resume"):
        assert (await api.post(f"/deployments/{made['id']}/{action}_deployment"))[0] == 200
    path = f"/deployments/{made['id']}"
    shown = seen(description=made["description"], concurrency_limit=3, parameters={"n": 1})
    assert (await read(api, made))["updated"] != made["updated"]
    changes = {"description": "by A", "concurrency_limit": 4, "parameters": {"n": 2}}
    assert (await patch(api, path, changes, shown))[0] == 204

    status, answer = await patch(api, path, {"concurrency_limit": 5}, seen(concurrency_limit=3, tags=[]))
    assert (status, answer["exception_detail"]) == (412, {"changed": ["concurrency_limit"]})


async def test_every_thing_that_a_form_changes_can_be_asked_for_as_it_was_seen(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", schedules=[{"schedule": CRON}])
    schedule = deployment["schedules"][0]
    _, variable = await api.post("/variables/", {"name": "rate", "value": {"ö/": [1, 0.5, None]}})
    _, limit = await api.post("/v2/concurrency_limits/", {"name": "db", "limit": 5})
    _, queue = await api.get("/work_pools/mine/queues/default")
    kind = await block_type(api, "thing")
    of_kind = await schema(api, kind, properties={"a": {"type": "string"}, "b, =": {"type": "string"}})
    body = {"name": "t", "block_type_id": kind["id"], "block_schema_id": of_kind["id"], "data": {"a": "1", "b, =": "2"}}
    _, block = await api.post("/block_documents/", body)
    _, workspace = await api.post("/managed/workspaces", {"account": "acme", "handle": "one"})

    cases: list[tuple[str, dict[str, Any], dict[str, str], list[str]]] = [
        (f"/deployments/{deployment['id']}/schedules/{schedule['id']}", {"active": False}, seen(active=True, schedule=schedule["schedule"]), ["active"]),
        (f"/variables/{variable['id']}", {"value": 2}, seen(value=variable["value"], tags=[]), ["value"]),
        (f"/v2/concurrency_limits/{limit['id']}", {"limit": 6}, seen(limit=5, name="db"), ["limit"]),
        ("/work_pools/mine/queues/default", {"description": "x"}, seen(description=queue["description"], priority=1), ["description"]),
        (f"/block_documents/{block['id']}", {"data": {"b, =": "3"}}, {"If-Match": f'"b%2C%20%3D={mark("2")},c="'}, ["b, ="]),
        (f"/managed/workspaces/{workspace['id']}", {"name": "One"}, seen(name=workspace["name"], handle="one"), ["name"]),
    ]  # fmt: skip
    for path, changes, shown, changed in cases:
        status, answer = await patch(api, path, changes, shown)
        assert status in {200, 204}, (path, answer)
        status, answer = await patch(api, path, changes, shown)
        assert (status, (answer or {}).get("exception_detail")) == (412, {"changed": changed}), path
