"""Runs of deployments over HTTP: asked for, polled, scheduled ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from managedd.bus import Topic
from managedd.wire.deployments import LatestRun
from managedd.wire.flow_runs import FlowRunBulkCreateResponse, FlowRunResponse
from tests.api.deployed import CRON, SCHEMA, deploy, pool_of, run_it, runs_of

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def test_a_run_has_what_the_deployment_and_the_request_say(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(
        api,
        work_pool_name="mine",
        version="7",
        tags=["a", "b"],
        parameters={"n": 1, "who": "you"},
        parameter_openapi_schema=SCHEMA,
        labels={"owner": "me"},
    )
    with api.services.bus.subscribe(Topic.RUNS) as woken:
        run = await run_it(
            api,
            made,
            state={"type": "SCHEDULED", "message": "Run from the CLI", "state_details": {"scheduled_time": "2030-01-01T00:00:00Z"}},
            name="nice-otter",
            parameters={"n": 2},
            tags=["b", "c"],
            labels={"k": 1},
            context={"x": 1},
            job_variables={"env": {"A": "1"}},
        )  # fmt: skip
        assert await woken.wait(1)
    assert (run["name"], run["deployment_id"], run["flow_id"]) == ("nice-otter", made["id"], made["flow_id"])
    assert (run["deployment_version"], run["work_queue_id"]) == ("7", made["work_queue_id"])
    assert (run["work_pool_name"], run["work_queue_name"]) == ("mine", "default")
    assert (run["parameters"], run["tags"]) == ({"n": 2, "who": "you"}, ["a", "b", "c"])
    assert run["labels"] == {
        "team": "x",
        "owner": "me",
        "k": 1,
        "prefect.flow.id": made["flow_id"],
        "prefect.deployment.id": made["id"],
    }
    assert (run["context"], run["job_variables"], run["auto_scheduled"]) == ({"x": 1}, {"env": {"A": "1"}}, False)
    assert (run["state_type"], run["state"]["message"]) == ("SCHEDULED", "Run from the CLI")
    assert run["next_scheduled_start_time"].startswith("2030-01-01T00:00:00")


async def test_without_a_state_it_is_scheduled_for_now_and_has_a_name(api: ApiClient) -> None:
    run = await run_it(api, await deploy(api))
    assert (run["state_type"], run["state_name"]) == ("SCHEDULED", "Scheduled")
    assert abs(run["estimated_start_time_delta"]) < 5
    assert "-" in run["name"]
    another = await run_it(api, await deploy(api, expect=200), state={"type": "PENDING"})
    assert another["state_type"] == "PENDING"


async def test_an_idempotency_key_makes_one_run(api: ApiClient) -> None:
    made = await deploy(api)
    first = await run_it(api, made, idempotency_key="k", parameters={"n": 1})
    again = await run_it(api, made, expect=200, idempotency_key="k", parameters={"n": 2})
    assert (again["id"], again["parameters"]) == (first["id"], {"n": 1})
    assert len(await runs_of(api, made)) == 1


async def test_parameters_that_do_not_fit_are_a_conflict(api: ApiClient) -> None:
    made = await deploy(api, parameters={"n": 1}, parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True)
    answer = await run_it(api, made, expect=409, parameters={"n": "one"})
    assert answer["detail"].startswith("Error creating flow run: Validation failed for field 'n'. Failure reason: ")
    await run_it(api, made, parameters={"n": "one"}, enforce_parameter_schema=False)
    bare = await deploy(api, "bare", parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True)
    assert "'n' is a required property" in (await run_it(api, bare, expect=409))["detail"]
    assert len(await runs_of(api, bare)) == 0


async def test_placeholders_in_parameters_are_filled_in(api: ApiClient) -> None:
    made = await deploy(api, parameters={"n": {"__prefect_kind": "json", "value": "[1, 2]"}})
    assert (await run_it(api, made))["parameters"] == {"n": [1, 2]}
    bad = {"n": {"__prefect_kind": "workspace_variable", "variable_name": "none"}}
    answer = await run_it(api, made, expect=400, parameters=bad)
    assert answer["detail"].startswith("Error hydrating flow run parameters")


async def test_parameters_are_bounded_together(api: ApiClient) -> None:
    made = await deploy(api, parameters={"a": "x" * 300_000})
    assert "parameters" in (await run_it(api, made, expect=422, parameters={"b": "x" * 300_000}))["detail"]


async def test_job_variables_that_do_not_fit_are_named(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine", job_variables={"image": "prefecthq/prefect:3-latest"})
    answer = await run_it(api, made, expect=422, job_variables={"memory_limit": "lots"})
    assert answer["detail"].startswith("Error creating flow run")
    assert "memory_limit" in answer["detail"]


async def test_a_run_may_go_to_another_queue_of_the_pool(api: ApiClient) -> None:
    await pool_of(api)
    made = await deploy(api, work_pool_name="mine")
    run = await run_it(api, made, work_queue_name="fast")
    assert (run["work_queue_name"], run["work_pool_name"]) == ("fast", "mine")
    assert run["work_queue_id"] != made["work_queue_id"]
    serve = await deploy(api, "serve")
    assert "work pool" in (await run_it(api, serve, expect=400, work_queue_name="fast"))["detail"]


async def test_a_change_between_check_and_start_is_seen(api: ApiClient) -> None:
    from managedd.orchestration import deployments
    from managedd.orchestration.transition import Client
    from managedd.wire.deployments import DeploymentFlowRunCreate

    made = await deploy(api, parameters={"n": 1})
    workspace, db = "00000000-0000-4000-8000-000000000001", api.services.db
    body = DeploymentFlowRunCreate()
    good = await db.read(lambda tx: deployments.draft_run(tx, made["id"], body), workspace=workspace)
    await api.patch(f"/deployments/{made['id']}", {"parameters": {"n": 2}, "enforce_parameter_schema": False})
    run_id, created = await db.write(lambda tx: deployments.start(tx, good, client=Client()), workspace=workspace)
    assert created
    assert (await api.get(f"/flow_runs/{run_id}"))[1]["parameters"] == {"n": 2}


async def test_unknown_deployment(api: ApiClient) -> None:
    assert (await api.post(f"/deployments/{uuid4()}/create_flow_run", {}))[0] == 404
    assert (await api.post(f"/deployments/{uuid4()}/create_flow_run/bulk", []))[0] == 404
    assert (await api.post(f"/deployments/{uuid4()}/schedule", {}))[0] == 404
    assert (await api.get(f"/deployments/{uuid4()}/work_queue_check"))[0] == 404


async def test_bulk_tells_of_each_what_became_of_it(api: ApiClient) -> None:
    made = await deploy(api, parameter_openapi_schema=SCHEMA, parameters={"n": 1}, enforce_parameter_schema=True)
    path = f"/deployments/{made['id']}/create_flow_run/bulk"
    items: list[dict[str, Any]] = [{"idempotency_key": "k"}, {"parameters": {"n": "x"}}, {"idempotency_key": "k"}]
    status, body = await api.post(path, items)
    assert status == 200
    FlowRunBulkCreateResponse.model_validate(body)
    first, second, third = body["results"]
    assert (first["status"], second["status"], third["status"]) == ("CREATED", "FAILED", "CREATED")
    assert first["flow_run_id"] == third["flow_run_id"]
    assert "'n'" in second["error"]
    assert await api.post(path, []) == (200, {"results": []})
    assert (await api.post(path, [{}] * 101))[0] == 400


async def test_a_serving_process_polls_for_its_deployments(api: ApiClient) -> None:
    mine, theirs = await deploy(api, "mine"), await deploy(api, "theirs")
    for at in ("2030-01-02T00:00:00Z", "2030-01-01T00:00:00Z"):
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
        await run_it(api, mine, state=state)
        await run_it(api, theirs, state=state)
    assert mine["status"] == "NOT_READY"
    ask = {"deployment_ids": [mine["id"]], "scheduled_before": None, "limit": None}
    status, runs = await api.post("/deployments/get_scheduled_flow_runs", ask)
    assert status == 200
    assert [run["next_scheduled_start_time"][:10] for run in runs] == ["2030-01-01", "2030-01-02"]
    for run in runs:
        FlowRunResponse.model_validate(run)
    before = {**ask, "scheduled_before": "2030-01-01T12:00:00Z"}
    assert len((await api.post("/deployments/get_scheduled_flow_runs", before))[1]) == 1
    now = (await api.get(f"/deployments/{mine['id']}"))[1]
    assert (now["status"], now["updated"]) == ("READY", mine["updated"])
    assert (await api.get(f"/deployments/{theirs['id']}"))[1]["status"] == "NOT_READY"
    assert (await api.post("/deployments/get_scheduled_flow_runs", {}))[0] == 422


async def test_a_backfill_schedules_runs_in_the_past_once(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": CRON, "parameters": {"n": 5}, "slug": "daily"}], tags=["t"])
    path = f"/deployments/{made['id']}/schedule"
    reach = {"start_time": "2026-03-28T08:00:00Z", "end_time": "2026-03-31T00:00:00Z", "min_runs": 100, "max_runs": 250}
    for _ in range(2):
        assert await api.post(path, reach) == (200, None)
    runs = await runs_of(api, made)
    # 9 o'clock in Berlin, over the change to summer time; the start itself counts.
    assert [run["expected_start_time"][:16] for run in runs] == [
        "2026-03-28T08:00",
        "2026-03-29T07:00",
        "2026-03-30T07:00",
    ]
    assert all(run["auto_scheduled"] and run["parameters"] == {"n": 5} for run in runs)
    assert all(run["tags"] == ["auto-scheduled", "t"] for run in runs)
    assert runs[0]["created_by"] == {"id": made["schedules"][0]["id"], "type": "SCHEDULE", "display_value": "daily"}
    assert (await api.post(path, {"max_runs": 10_001}))[0] == 422
    for start in ("0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z"):
        assert await api.post(path, {"start_time": start, "min_time": 3_000_000_000, "max_runs": 1}) == (200, None)


async def test_a_large_backfill_is_made_in_parts(api: ApiClient) -> None:
    made = await deploy(api, schedules=[{"schedule": {"interval": 60, "anchor_date": "2026-01-01T00:00:00Z"}}])
    reach = {"start_time": "2026-01-01T00:00:00Z", "min_runs": 250, "max_runs": 250, "min_time": 0}
    assert await api.post(f"/deployments/{made['id']}/schedule", reach) == (200, None)
    count = {"deployments": {"id": {"any_": [made["id"]]}}}
    assert await api.post("/flow_runs/count", count) == (200, 250)


async def test_another_workspace_polls_nothing_of_ours(api: ApiClient, other: ApiClient) -> None:
    made = await deploy(api)
    await run_it(api, made)
    ask = {"deployment_ids": [made["id"]]}
    assert await other.post("/deployments/get_scheduled_flow_runs", ask) == (200, [])
    assert (await api.get(f"/deployments/{made['id']}"))[1]["status"] == "NOT_READY"


async def test_the_run_that_was_due_last_is_told_for_each_deployment(api: ApiClient, other: ApiClient) -> None:
    often, never, foreign = await deploy(api, "often"), await deploy(api, "never"), await deploy(other, "theirs")
    await run_it(other, foreign)
    for name, due in (
        ("old", "2020-01-01T00:00:00Z"),
        ("late", "2021-01-01T00:00:00Z"),
        ("ahead", "2100-01-01T00:00:00Z"),
    ):
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        await run_it(api, often, name=name, state=state)
        if name == "ahead":
            await run_it(api, never, name=name, state=state)

    asked = {"deployment_ids": [each["id"] for each in (often, never, foreign)]}
    status, found = await api.post("/managed/deployments/latest_runs/filter", asked)
    assert status == 200
    TypeAdapter(list[LatestRun]).validate_python(found)
    assert [(each["deployment_id"], each["name"], each["state_type"]) for each in found] == [
        (often["id"], "late", "SCHEDULED")
    ]
