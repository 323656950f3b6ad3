"""Deployments over HTTP: deploy, change, pause, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from managedd.bus import Topic
from managedd.wire.deployments import DeploymentPaginationResponse
from managedd.wire.work_queues import WorkQueue
from tests.api.deployed import CRON, SCHEMA, deploy, flow_of, pool_of, read, run_it, runs_of

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def test_a_deployment_is_made_and_read_by_id_and_by_name(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(
        api,
        "prod",
        work_pool_name="mine",
        work_queue_name=None,
        parameters={"n": 1},
        parameter_openapi_schema=SCHEMA,
        tags=["nightly"],
        labels={"owner": "me"},
        entrypoint="flows.py:etl",
        pull_steps=[{"prefect.deployments.steps.git_clone": {"repository": "https://h/x.git"}}],
        job_variables={"env": {"A": "1"}},
        version="1",
        version_info={"type": "vcs:git", "version": "abc", "branch": "main"},
        concurrency_limit=2,
        concurrency_options={"collision_strategy": "CANCEL_NEW"},
        description="None",
    )
    assert (made["work_pool_name"], made["work_queue_name"], made["status"]) == ("mine", "default", "READY")
    assert made["labels"] == {"team": "x", "prefect.flow.id": made["flow_id"], "owner": "me"}
    assert made["global_concurrency_limit"]["limit"] == 2
    assert made["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert made["parameter_openapi_schema"] == SCHEMA
    assert made["schedules"] == []
    assert await read(api, made) == made
    assert await api.get("/deployments/name/etl/prod") == (200, made)
    assert (await api.get("/deployments/name/etl/none"))[0] == 404
    assert (await api.get(f"/deployments/{uuid4()}"))[0] == 404


async def test_deploying_again_changes_what_is_sent_and_only_that(api: ApiClient) -> None:
    first = await deploy(api, parameters={"n": 1}, tags=["a"], version="1", concurrency_limit=3)
    second = await deploy(api, expect=200, tags=["b"], version=None)
    assert second["id"] == first["id"]
    assert (second["parameters"], second["tags"], second["version"]) == ({"n": 1}, ["b"], None)
    assert second["global_concurrency_limit"]["limit"] == 3
    assert second["created"] == first["created"]
    other_flow = await deploy(api, flow_id=await flow_of(api, "another"))
    assert other_flow["id"] != first["id"]


async def test_deploying_again_replaces_the_schedules(api: ApiClient) -> None:
    first = await deploy(api, schedules=[{"schedule": CRON, "slug": "daily"}, {"schedule": {"interval": 60}}])
    assert {schedule["slug"] for schedule in first["schedules"]} == {"daily", None}
    second = await deploy(api, expect=200, schedules=[{"schedule": {"rrule": "FREQ=DAILY"}, "parameters": {"n": 2}}])
    (schedule,) = second["schedules"]
    assert (schedule["schedule"]["rrule"], schedule["parameters"], schedule["active"]) == ("FREQ=DAILY", {"n": 2}, True)
    assert (await deploy(api, expect=200))["schedules"] == []


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ({"cron": "61 * * * *"}, "cron"),
        ({"cron": "0 0 * * *", "timezone": "Mars/Base"}, "timezone"),
        ({"interval": 0}, "interval"),
        ({"interval": 1e30}, "interval"),
        ({"rrule": "FREQ=NEVER"}, "rrule"),
        ({"cron": "@daily", "rrule": "FREQ=DAILY"}, "schedule"),
        ({}, "schedule"),
    ],
)
async def test_a_schedule_that_means_nothing_is_refused_and_named(
    api: ApiClient, schedule: dict[str, Any], says: str
) -> None:
    flow_id = await flow_of(api)
    sent = {"name": "prod", "flow_id": flow_id, "schedules": [{"schedule": schedule}]}
    status, body = await api.post("/deployments/", sent)
    assert status == 422
    assert says in body["detail"]
    assert await api.post("/deployments/count") == (200, 0)


async def test_a_queue_is_made_when_it_is_named_and_missing(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine", work_queue_name="fast")
    assert made["work_queue_name"] == "fast"
    status, queues = await api.get(f"/deployments/{made['id']}/work_queue_check")
    assert status == 200
    (queue,) = queues
    WorkQueue.model_validate(queue)
    assert (queue["id"], queue["name"]) == (made["work_queue_id"], "fast")
    assert await api.get(f"/deployments/{(await deploy(api, 'serve'))['id']}/work_queue_check") == (200, [])


async def test_what_does_not_exist_is_named(api: ApiClient) -> None:
    flow_id = await flow_of(api)
    for sent, status, says in (
        ({"flow_id": flow_id, "work_pool_name": "none"}, 404, "none"),
        ({"flow_id": str(uuid4())}, 404, "Flow"),
        ({"flow_id": flow_id, "infrastructure_document_id": str(uuid4())}, 409, "infrastructure block"),
        ({"flow_id": flow_id, "global_concurrency_limit_id": str(uuid4())}, 422, "concurrency_limit"),
    ):
        answer, body = await api.post("/deployments/", {"name": "prod", **sent})
        assert (answer, says in body["detail"]) == (status, True), body
    deployment = await deploy(api)
    assert (await api.patch(f"/deployments/{deployment['id']}", {"work_pool_name": "none"}))[0] == 404
    assert (await api.patch(f"/deployments/{uuid4()}", {"paused": True}))[0] == 404


@pytest.mark.parametrize(
    ("job_variables", "says"),
    [
        ({"memory_limit": "lots"}, "memory_limit"),
        ({"image": "not an image"}, "image"),
        ({"pip_packages": "pandas"}, "pip_packages"),
        ({"pip_packages": ["--index-url=x"]}, "pip_packages"),
        ({"timeout": -1}, "timeout"),
    ],
)
async def test_job_variables_are_checked_when_deployed(
    api: ApiClient, job_variables: dict[str, Any], says: str
) -> None:
    await pool_of(api)
    sent = {"name": "prod", "flow_id": await flow_of(api), "work_pool_name": "mine", "job_variables": job_variables}
    status, body = await api.post("/deployments/", sent)
    assert (status, says in body["detail"]) == (422, True), body
    assert body["detail"].startswith("Error creating deployment")
    good = await deploy(api, work_pool_name="mine")
    status, body = await api.patch(f"/deployments/{good['id']}", {"job_variables": job_variables})
    assert (status, says in body["detail"]) == (422, True), body
    assert (await read(api, good))["job_variables"] == {}


async def test_references_in_job_variables_wait_for_the_run(api: ApiClient) -> None:
    await pool_of(api)
    job_variables = {
        "memory_limit": "{{ prefect.variables.size }}",
        "env": {"KEY": "{{ prefect.blocks.secret.key }}", "A": "1"},
    }
    made = await deploy(api, work_pool_name="mine", job_variables=job_variables)
    assert made["job_variables"] == job_variables


async def test_parameters_have_a_bound_and_fit_the_schema(api: ApiClient) -> None:
    flow_id = await flow_of(api)
    status, body = await api.post(
        "/deployments/", {"name": "d", "flow_id": flow_id, "parameters": {"x": "y" * 524_288}}
    )
    assert status == 422
    sent = {"name": "d", "flow_id": flow_id, "parameter_openapi_schema": SCHEMA, "enforce_parameter_schema": True}
    status, body = await api.post("/deployments/", {**sent, "parameters": {"n": "one"}})
    assert status in {409, 422}
    assert "'n'" in body["detail"]
    # What is required may come with the run.
    assert (await api.post("/deployments/", {**sent, "parameters": {}}))[0] == 201


async def test_a_patch_changes_only_what_it_names(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(
        api,
        work_pool_name="mine",
        parameters={"n": 1},
        parameter_openapi_schema=SCHEMA,
        tags=["a"],
        description="d",
        version="1",
        path="/x",
        concurrency_limit=2,
        job_variables={"env": {"A": "1"}},
        pull_steps=[{"step": {}}],
    )
    assert await api.patch(f"/deployments/{made['id']}", {"tags": ["b"]}) == (204, None)
    now = await read(api, made)
    assert {key for key in made if made[key] != now[key]} == {"tags", "updated"} | (
        {"global_concurrency_limit"} if made["global_concurrency_limit"] != now["global_concurrency_limit"] else set()
    )
    nulls = {"description": None, "version": None, "path": None, "concurrency_limit": None, "pull_steps": None}
    kept = {"parameters": None, "job_variables": None, "enforce_parameter_schema": None}
    assert await api.patch(f"/deployments/{made['id']}", {**nulls, **kept}) == (204, None)
    now = await read(api, made)
    assert all(now[key] is None for key in nulls)
    assert now["global_concurrency_limit"] is None
    assert (now["parameters"], now["job_variables"], now["enforce_parameter_schema"]) == (
        {"n": 1},
        {"env": {"A": "1"}},
        True,
    )
    assert (await api.patch(f"/deployments/{made['id']}", {"paused": None}))[0] == 422
    assert (await api.patch(f"/deployments/{made['id']}", {"nonsense": 1}))[0] == 422


async def test_a_patch_moves_to_another_pool_or_to_none(api: ApiClient) -> None:
    await pool_of(api)
    await pool_of(api, "local", "process")
    made = await deploy(api, work_pool_name="mine", work_queue_name="fast")
    path = f"/deployments/{made['id']}"
    for sent, pool, queue in (
        ({"work_queue_name": "slow"}, "mine", "slow"),
        ({"work_pool_name": "local"}, "local", "default"),
        ({"work_pool_name": "mine", "work_queue_name": "fast"}, "mine", "fast"),
        ({"work_pool_name": None, "work_queue_name": None}, None, None),
    ):
        assert await api.patch(path, sent) == (204, None)
        now = await read(api, made)
        assert (now["work_pool_name"], now["work_queue_name"]) == (pool, queue)
    assert (await read(api, made))["work_queue_id"] is None


async def test_a_patch_keeps_parameters_and_schema_together(api: ApiClient) -> None:
    made = await deploy(api, parameters={"n": 1}, parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True)
    path = f"/deployments/{made['id']}"
    status, body = await api.patch(path, {"parameters": {"n": "one"}})
    assert (status, body["detail"].startswith("Error updating deployment: Validation failed for field 'n'")) == (
        409,
        True,
    )
    assert await api.patch(path, {"parameters": {"n": "one"}, "enforce_parameter_schema": False}) == (204, None)
    status, body = await api.patch(path, {"enforce_parameter_schema": True})
    assert status == 409
    status, body = await api.patch(path, {"parameters": {"n": {"__prefect_kind": "json", "value": "{"}}})
    assert (status, body["detail"].startswith("Error hydrating deployment parameters")) == (400, True)
    variable = {"__prefect_kind": "workspace_variable", "variable_name": "count"}
    assert (await api.patch(path, {"parameters": {"n": variable}}))[0] == 400
    assert (await api.post("/variables/", {"name": "count", "value": 3}))[0] == 201
    assert await api.patch(path, {"parameters": {"n": variable}, "enforce_parameter_schema": True}) == (204, None)
    assert (await run_it(api, made))["parameters"] == {"n": 3}


async def test_schedules_in_a_patch_are_matched_by_slug(api: ApiClient) -> None:
    made = await deploy(
        api,
        schedules=[
            {"schedule": CRON, "slug": "nightly", "parameters": {"n": 1}, "max_scheduled_runs": 5},
            {"schedule": {"interval": 3600}, "slug": "hourly"},
        ],
    )
    path, ids = f"/deployments/{made['id']}", {s["slug"]: s["id"] for s in made["schedules"]}
    changed = {"cron": "0 3 * * *", "timezone": "UTC"}
    sent = [{"schedule": changed, "slug": "nightly"}, {"schedule": {"interval": 60}, "slug": "new"}]
    assert await api.patch(path, {"schedules": sent}) == (204, None)
    now = {schedule["slug"]: schedule for schedule in (await read(api, made))["schedules"]}
    assert now.keys() == {"nightly", "hourly", "new"}
    nightly = now["nightly"]
    assert (nightly["id"], nightly["schedule"]["cron"], nightly["parameters"]) == (
        ids["nightly"],
        "0 3 * * *",
        {"n": 1},
    )
    assert nightly["max_scheduled_runs"] == 5

    assert await api.patch(path, {"schedules": [{"slug": "late", "replaces": "nightly"}]}) == (204, None)
    now = {schedule["slug"]: schedule for schedule in (await read(api, made))["schedules"]}
    assert now.keys() == {"late", "hourly", "new"}
    assert now["late"]["id"] == ids["nightly"]

    for schedules, says in (
        ([{"schedule": CRON}], "Please provide a slug"),
        ([{"slug": "unknown"}], "without a schedule configuration"),
        ([{"slug": "hourly", "replaces": "late"}], "Cannot rename schedule"),
        ([{"slug": "a", "replaces": "late"}, {"slug": "b", "replaces": "late"}], "targeting the same slug"),
    ):
        status, body = await api.patch(path, {"schedules": schedules})
        assert (status, says in body["detail"]) == (422, True), body
    assert await api.patch(path, {"schedules": []}) == (204, None)
    assert len((await read(api, made))["schedules"]) == 3


async def test_two_slugs_can_change_places(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON, "slug": "a"}, {"schedule": {"interval": 60}, "slug": "b"}])
    ids = {s["slug"]: s["id"] for s in made["schedules"]}
    swap = [{"slug": "b", "replaces": "a"}, {"slug": "a", "replaces": "b"}]
    assert await api.patch(f"/deployments/{made['id']}", {"schedules": swap}) == (204, None)
    now = {s["slug"]: s["id"] for s in (await read(api, made))["schedules"]}
    assert now == {"a": ids["b"], "b": ids["a"]}


async def test_schedules_without_slugs_are_replaced_by_a_patch(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON}, {"schedule": {"interval": 60}, "slug": "b"}])
    assert await api.patch(f"/deployments/{made['id']}", {"schedules": [{"schedule": {"interval": 30}}]}) == (204, None)
    (schedule,) = (await read(api, made))["schedules"]
    assert schedule["schedule"]["interval"] == 30
    assert await api.patch(f"/deployments/{made['id']}", {"schedules": []}) == (204, None)
    assert (await read(api, made))["schedules"] == []


async def test_a_change_drops_future_runs_of_schedules_and_wakes_the_scheduler(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": {"interval": 600}}])
    path = f"/deployments/{made['id']}"
    assert (await api.post(f"{path}/schedule", {"min_runs": 4, "min_time": 0}))[0] == 200
    own = await run_it(api, made)
    assert len(await runs_of(api, made)) == 5
    with api.services.bus.subscribe(Topic.SCHEDULES) as woken:
        assert await api.patch(path, {"tags": ["x"]}) == (204, None)
        assert await woken.wait(1)
    assert [run["id"] for run in await runs_of(api, made)] == [own["id"]]


async def test_pause_and_resume(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": {"interval": 600}}])
    path = f"/deployments/{made['id']}"
    await api.post(f"{path}/schedule", {"start_time": "2026-01-01T00:00:00Z", "min_runs": 2, "min_time": 0})
    own = await run_it(api, made)
    assert len(await runs_of(api, made)) == 3
    assert await api.post(f"{path}/pause_deployment") == (200, None)
    assert (await read(api, made))["paused"] is True
    assert [run["id"] for run in await runs_of(api, made)] == [own["id"]]
    with api.services.bus.subscribe(Topic.SCHEDULES) as woken:
        assert await api.post(f"{path}/resume_deployment") == (200, None)
        assert await woken.wait(1)
    assert (await read(api, made))["paused"] is False
    assert (await api.post(f"/deployments/{uuid4()}/pause_deployment"))[0] == 404


async def test_delete_takes_waiting_runs_along_and_leaves_the_others(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON}])
    waiting, begun = await run_it(api, made), await run_it(api, made)
    status, _ = await api.post(f"/flow_runs/{begun['id']}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    assert status == 201
    assert await api.delete(f"/deployments/{made['id']}") == (204, None)
    assert (await api.get(f"/flow_runs/{waiting['id']}"))[0] == 404
    assert (await api.get(f"/flow_runs/{begun['id']}"))[0] == 200
    assert (await api.delete(f"/deployments/{made['id']}"))[0] == 404


async def test_filter_count_paginate_and_bulk_delete(api: ApiClient) -> None:
    await pool_of(api)
    ids = {name: (await deploy(api, name, work_pool_name="mine" if name == "b" else None))["id"] for name in "abc"}
    everything = dict.fromkeys(("flows", "flow_runs", "task_runs", "deployments", "work_pools", "work_pool_queues"))
    status, found = await api.post(
        "/deployments/filter", {**everything, "sort": "NAME_DESC", "limit": None, "offset": 0}
    )
    assert (status, [deployment["name"] for deployment in found]) == (200, ["c", "b", "a"])
    in_pool = {"work_pools": {"name": {"any_": ["mine"]}}}
    assert [d["id"] for d in (await api.post("/deployments/filter", in_pool))[1]] == [ids["b"]]
    assert await api.post("/deployments/count", {"flows": {"name": {"any_": ["etl"]}}}) == (200, 3)
    status, page = await api.post("/deployments/paginate", {"limit": 2, "page": 2})
    DeploymentPaginationResponse.model_validate(page)
    assert (page["count"], page["pages"], [d["name"] for d in page["results"]]) == (3, 2, ["c"])
    gone = {"deployments": {"name": {"any_": ["a", "c"]}}}
    status, body = await api.post("/deployments/bulk_delete", gone)
    assert (status, set(body["deleted"])) == (200, {ids["a"], ids["c"]})
    assert await api.post("/deployments/count") == (200, 1)


async def test_another_workspace_sees_and_changes_nothing(api: ApiClient, other: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine", schedules=[{"schedule": CRON}])
    path = f"/deployments/{made['id']}"
    assert (await other.get(path))[0] == 404
    assert (await other.get("/deployments/name/etl/prod"))[0] == 404
    assert (await other.patch(path, {"paused": True}))[0] == 404
    assert (await other.delete(path))[0] == 404
    assert (await other.post(f"{path}/pause_deployment"))[0] == 404
    assert (await other.post(f"{path}/create_flow_run", {}))[0] == 404
    assert (await other.post(f"{path}/schedule", {}))[0] == 404
    assert (await other.post("/deployments/", {"name": "x", "flow_id": made["flow_id"]}))[0] == 404
    theirs = {"name": "x", "flow_id": await flow_of(other), "work_pool_name": "mine"}
    assert (await other.post("/deployments/", theirs))[0] == 404
    assert await other.post("/deployments/filter", {}) == (200, [])
    assert (await read(api, made))["paused"] is False
