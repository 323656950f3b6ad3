"""Automations, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from pydantic import TypeAdapter

from managedd.ids import DEFAULT_WORKSPACE_ID
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW
from managedd.wire.automations import Automation

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

TRIGGER = {
    "type": "event",
    "match": {"prefect.resource.id": "prefect.flow-run.*"},
    "match_related": {},
    "after": [],
    "expect": ["prefect.flow-run.Failed"],
    "for_each": ["prefect.resource.id"],
    "posture": "Reactive",
    "threshold": 3,
    "within": 60.0,
}


async def automation(api: ApiClient, name: str = "a", **values: Any) -> dict[str, Any]:
    body = {"name": name, "trigger": TRIGGER, "actions": [{"type": "cancel-flow-run"}], **values}
    status, made = await api.post("/automations/", body)
    assert status == 201, made
    Automation.model_validate(made)
    return dict(made)


def without_ids(trigger: dict[str, Any]) -> dict[str, Any]:
    inner = {"triggers": [without_ids(each) for each in trigger["triggers"]]} if "triggers" in trigger else {}
    return {name: value for name, value in {**trigger, **inner}.items() if name != "id"}


async def names(api: ApiClient, path: str = "/automations/filter", **body: Any) -> list[str]:
    status, found = await (api.post(path, body) if path.endswith("filter") else api.get(path))
    assert status == 200, found
    TypeAdapter(list[Automation]).validate_python(found)
    return [each["name"] for each in found]


async def test_an_automation_is_kept_as_it_was_sent(api: ApiClient) -> None:
    actions = [{"type": "cancel-flow-run"}, {"type": "do-nothing"}]
    made = await automation(api, description="d", tags=["x"], actions=actions, actions_on_trigger=actions[:1])
    assert without_ids(made["trigger"]) == TRIGGER
    assert (made["enabled"], made["description"], made["tags"]) == (True, "d", ["x"])
    assert made["actions"] == actions
    assert (made["actions_on_trigger"], made["actions_on_resolve"]) == (actions[:1], [])
    assert await api.get(f"/automations/{made['id']}") == (200, made)


async def test_triggers_get_ids_of_the_servers(api: ApiClient) -> None:
    mine = str(uuid4())
    compound = {
        "type": "compound",
        "id": mine,
        "triggers": [{**TRIGGER, "id": mine}, {**TRIGGER, "id": mine}],
        "within": 10.0,
        "require": "any",
    }
    trigger = (await automation(api, trigger=compound))["trigger"]
    given = [trigger["id"], *(each["id"] for each in trigger["triggers"])]
    assert len(set(given)) == 3
    assert mine not in given
    assert without_ids(trigger) == without_ids(compound)


async def test_automations_are_replaced_switched_and_deleted(api: ApiClient) -> None:
    made = await automation(api, owner_resource="prefect.deployment.x", tags=["x"])
    path = f"/automations/{made['id']}"
    body = {"name": "b", "trigger": {**TRIGGER, "threshold": 1}, "actions": [{"type": "do-nothing"}]}
    assert (await api.call("PUT", path, body))[0] == 204
    found = (await api.get(path))[1]
    assert (found["name"], found["tags"], found["trigger"]["threshold"]) == ("b", [], 1)
    assert await names(api, "/automations/related-to/prefect.deployment.x") == ["b"]
    assert (await api.patch(path, {"enabled": False}))[0] == 204
    assert (await api.get(path))[1]["enabled"] is False
    assert (await api.patch(path, {}))[0] == 204
    assert (await api.get(path))[1]["enabled"] is False
    assert (await api.delete(path))[0] == 204
    for method, sent in (("GET", None), ("PUT", body), ("PATCH", {"enabled": True}), ("DELETE", None)):
        assert (await api.call(method, path, sent))[0] == 404


async def test_one_that_would_start_itself_without_end_may_not_be_on(api: ApiClient) -> None:
    endless = {
        "trigger": {**TRIGGER, "expect": ["prefect.flow-run.Running"]},
        "actions": [{"type": "run-deployment", "source": "inferred"}],
    }
    status, body = await api.post("/automations/", {"name": "a", **endless})
    assert status == 422
    assert "without end" in body["detail"]
    made = await automation(api, enabled=False, **endless)
    status, body = await api.patch(f"/automations/{made['id']}", {"enabled": True})
    assert status == 422
    assert "without end" in body["detail"]
    assert (await api.get(f"/automations/{made['id']}"))[1]["enabled"] is False


async def test_automations_are_found_sorted_and_counted(api: ApiClient) -> None:
    for name, tags in (("b", ["x"]), ("a", ["x", "y"]), ("c", [])):
        await automation(api, name, tags=tags)
    assert await names(api) == ["a", "b", "c"]
    assert await names(api, sort="NAME_DESC", limit=1, offset=1) == ["b"]
    assert await names(api, sort="CREATED_DESC") == ["c", "a", "b"]
    assert await names(api, automations={"tags": {"any_": ["x"]}}) == ["a", "b"]
    assert await names(api, automations={"name": {"any_": ["c"]}}) == ["c"]
    assert await names(api, automations={"created": {"before_": "2000-01-01T00:00:00Z"}}) == []
    assert await api.post("/automations/count", {"automations": {"tags": {"any_": ["y"]}}}) == (200, 1)
    assert await api.post("/automations/count") == (200, 3)


async def test_related_and_owned(api: ApiClient) -> None:
    deployment = str(uuid4())
    resource = f"prefect.deployment.{deployment}"
    action = {"type": "run-deployment", "source": "selected", "deployment_id": deployment}
    await automation(api, "acts", actions=[action])
    await automation(api, "resolves", actions_on_resolve=[{**action, "type": "pause-deployment"}])
    await automation(api, "owned", owner_resource=resource)
    await automation(api, "apart", owner_resource="prefect.deployment.other")
    assert await names(api, f"/automations/related-to/{resource}") == ["acts", "owned", "resolves"]
    assert await names(api, "/automations/related-to/prefect.deployment.") == []
    assert (await api.delete(f"/automations/owned-by/{resource}"))[0] == 202
    assert await names(api) == ["acts", "apart", "resolves"]
    assert (await api.delete("/automations/owned-by/nobody"))[0] == 202


async def test_job_variables_of_an_action_fit_the_pool(api: ApiClient) -> None:
    template = {
        "job_configuration": {"n": "{{ n }}"},
        "variables": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }
    pool = (await api.post("/work_pools/", {"name": "p", "type": "process", "base_job_template": template}))[1]

    def deploy(tx: Any) -> str:
        values = {
            "name": "d",
            "flow_id": rows.insert(tx, FLOW, {"name": "f"}),
            "work_queue_id": pool["default_queue_id"],
        }
        return rows.insert(tx, DEPLOYMENT, {**values, "job_variables": {}})

    deployment = await api.services.db.write(deploy, workspace=DEFAULT_WORKSPACE_ID)
    action = {
        "type": "run-deployment",
        "source": "selected",
        "deployment_id": deployment,
        "job_variables": {"n": "many"},
    }
    status, body = await api.post("/automations/", {"name": "a", "trigger": TRIGGER, "actions": [action]})
    assert status == 422
    assert "Error creating automation" in body["detail"]
    made = await automation(api, actions=[{**action, "job_variables": {"n": 1}}])
    put = {"name": "a", "trigger": TRIGGER, "actions": [action]}
    assert (await api.call("PUT", f"/automations/{made['id']}", put))[0] == 422
    missing = {**action, "deployment_id": str(uuid4())}
    assert (await api.post("/automations/", {"name": "a", "trigger": TRIGGER, "actions": [missing]}))[0] == 404


@pytest.mark.parametrize("path", ["/templates/validate", "/automations/templates/validate"])
async def test_templates_are_checked(api: ApiClient, path: str) -> None:
    assert await api.post(path, "Run {{ flow_run.name }} failed") == (204, None)
    status, body = await api.post(path, "{{ unclosed")
    assert status == 422
    assert body["error"]["source"] == "{{ unclosed"
    assert body["error"]["message"]


async def test_another_workspace_sees_no_automations_of_it(api: ApiClient, other: ApiClient) -> None:
    made = await automation(api, owner_resource="r")
    assert await names(other) == []
    assert await other.post("/automations/count", {}) == (200, 0)
    assert await names(other, "/automations/related-to/r") == []
    path = f"/automations/{made['id']}"
    put = {"name": "a", "trigger": TRIGGER, "actions": []}
    for method, body in (("GET", None), ("PUT", put), ("PATCH", {"enabled": False}), ("DELETE", None)):
        assert (await other.call(method, path, body))[0] == 404
    assert (await other.delete("/automations/owned-by/r"))[0] == 202
    assert (await api.get(path))[1] == made
