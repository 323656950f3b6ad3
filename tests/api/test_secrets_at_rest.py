"""Nothing secret stands in clear in any byte of the store, and nobody sees it who has not asked for it and may."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from managedd import ids
from managedd.engine import sealing as engine_sealing
from managedd.engine.identity import Identity
from managedd.engine.jobs import Jobs
from managedd.errors import ManagedError
from managedd.model.secrets import MASK
from managedd.store import rows, sealing
from managedd.store.resources import AUTOMATION, BLOCK_DOCUMENT, DEPLOYMENT, FLOW_RUN, WORK_POOL
from tests.api.deployed import deploy, run_it
from tests.api.test_blocks import block_type, clear, document, schema

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

PASSWORD = {"type": "string", "format": "password", "writeOnly": True}
TEMPLATE = {
    "job_configuration": {"image": "{{ image }}", "env": "{{ env }}", "timeout": "{{ timeout }}"},
    "variables": {
        "type": "object",
        "properties": {
            "image": {"type": "string"},
            "timeout": PASSWORD,
            "token": {**PASSWORD, "default": "hush-of-the-pool"},
            "env": {"type": "object", "properties": {"KEY": PASSWORD}, "additionalProperties": {"type": "string"}},
        },
    },
}
HUSH = b"hush-"
"""How everything secret in these tests begins."""


def in_files(api: ApiClient) -> list[str]:
    """The files beside the store, write-ahead logs too, with something secret in any of their bytes."""
    folder = api.services.settings.store.data_dir
    return [path.name for path in sorted(folder.iterdir()) if path.is_file() and HUSH in path.read_bytes()]


async def pool(api: ApiClient, name: str = "mine", type_: str = "prefect:managed", **more: Any) -> dict[str, Any]:
    body = {"name": name, "type": type_, "base_job_template": TEMPLATE, **more}
    status, made = await api.post("/work_pools/", body)
    assert status == 201, made
    return dict(made)


async def answer(api: ApiClient, method: str, path: str, body: Any = None) -> str:
    """An answer as text, which says nothing secret."""
    status, found = await api.call(method, path, body)
    assert status < 500 and HUSH.decode() not in str(found), found
    return str(found)


async def job(api: ApiClient, run_id: str) -> Any:
    """What the run's container would be given."""
    services = api.services
    jobs = Jobs(services.db, services.settings, Identity(instance_id="i", secret=b"s"), None)  # type: ignore[arg-type]
    return (await services.db.read(lambda tx: jobs._load(tx, run_id))).job


async def test_blocks_are_nowhere_in_clear(api: ApiClient) -> None:
    kind = await block_type(api)
    of = await schema(api, kind)
    inner = await document(api, of, {"value": "hush-inner", "open": "hush-too"}, "inner")
    reference = {"$ref": {"block_document_id": inner["id"]}}
    outer = await document(api, of, {"value": "hush-outer", "other": reference, "deep": {"x": ["hush-deep"]}}, "outer")
    assert (await api.patch(f"/block_documents/{outer['id']}", {"data": {"value": "hush-changed"}}))[0] == 204
    assert in_files(api) == []
    await api.services.db.checkpoint()
    assert in_files(api) == []
    found = await clear(api, outer["id"])
    assert found["data"]["value"] == "hush-changed" and found["data"]["other"]["value"] == "hush-inner"
    assert (await api.delete(f"/block_documents/{outer['id']}"))[0] == 204
    assert await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM sealed")) == 1


async def test_job_variables_that_the_pool_calls_secret_are_nowhere_in_clear(api: ApiClient) -> None:
    assert MASK in str(await pool(api))
    variables = {"token": "hush-token", "env": {"KEY": "hush-key", "LEVEL": "open"}, "image": "prefecthq/prefect:3"}
    deployment = await deploy(api, work_pool_name="mine", job_variables=variables)
    shown = {"token": MASK, "env": {"KEY": MASK, "LEVEL": "open"}, "image": "prefecthq/prefect:3"}
    assert deployment["job_variables"] == shown
    run = await run_it(api, deployment, job_variables={"env.KEY": "hush-dotted", "env.MORE": "open"})
    assert run["job_variables"] == {"env.KEY": MASK, "env.MORE": "open"}
    assert (await api.patch(f"/flow_runs/{run['id']}", {"job_variables": {"token": "hush-patched"}}))[0] == 204
    assert (await api.patch("/work_pools/mine", {"base_job_template": TEMPLATE}))[0] == 204
    change = {"job_variables": {**variables, "token": "hush-second"}}
    assert (await api.patch(f"/deployments/{deployment['id']}", change))[0] == 204
    for method, path, body in [
        ("GET", "/work_pools/mine", None),
        ("POST", "/work_pools/filter", {}),
        ("GET", f"/deployments/{deployment['id']}", None),
        ("GET", "/deployments/name/etl/prod", None),
        ("POST", "/deployments/filter", {}),
        ("POST", "/deployments/paginate", {}),
        ("GET", f"/flow_runs/{run['id']}", None),
        ("POST", "/flow_runs/filter", {}),
        ("POST", "/flow_runs/paginate", {}),
        ("POST", "/events/filter", {}),
        ("POST", "/work_pools/mine/get_scheduled_flow_runs", {}),
        ("GET", f"/managed/flow_runs/{run['id']}/executions", None),
        ("GET", "/managed/status", None),
    ]:
        await answer(api, method, path, body)
    assert MASK in await answer(api, "GET", "/work_pools/mine")
    assert in_files(api) == []
    await api.services.db.checkpoint()
    assert in_files(api) == []


async def test_the_job_gets_what_the_answers_hide(api: ApiClient) -> None:
    template = copy.deepcopy(TEMPLATE)
    template["job_configuration"]["env"] = {"TOKEN": "{{ token }}"}  # type: ignore[index]
    await pool(api, base_job_template=template)
    deployment = await deploy(api, work_pool_name="mine", job_variables={"env": {"KEY": "hush-key"}})
    run = await run_it(api, deployment)
    assert (await job(api, run["id"])).env == {"TOKEN": "hush-of-the-pool", "KEY": "hush-key"}
    own = await run_it(api, deployment, job_variables={"token": "hush-own"})
    assert (await job(api, own["id"])).env == {"TOKEN": "hush-own", "KEY": "hush-key"}


async def test_a_mask_that_is_written_back_changes_nothing(api: ApiClient) -> None:
    await pool(api)
    variables = {"token": "hush-token", "env": {"KEY": "hush-key", "LEVEL": "open"}}
    deployment = await deploy(api, work_pool_name="mine", job_variables=variables)
    _, template = await api.get("/work_pools/mine")
    assert (await api.patch("/work_pools/mine", {"base_job_template": template["base_job_template"]}))[0] == 204
    back = {**deployment["job_variables"], "image": "prefecthq/prefect:3"}
    assert (await api.patch(f"/deployments/{deployment['id']}", {"job_variables": back}))[0] == 204
    again = await deploy(api, expect=200, work_pool_name="mine", job_variables=back)
    assert again["job_variables"] == back
    # As a form does that is filled with what the deployment has.
    run = await run_it(api, again, job_variables=back)
    assert (await job(api, run["id"])).env == {"KEY": "hush-key", "LEVEL": "open"}

    def stored(tx: Tx) -> dict[str, Any]:
        from managedd.store import concealing, sealed

        known = sealed.get(tx, "work_pools", template["id"])
        assert known is not None
        found = concealing.in_clear(tx, "deployments", rows.need(tx, DEPLOYMENT, id=again["id"]), "job_variables")
        return {"default": known["value"]["base_job_template"]["variables"]["properties"]["token"]["default"], **found}

    known = await api.services.db.read(stored, workspace=ids.DEFAULT_WORKSPACE_ID)
    assert known == {"default": "hush-of-the-pool", **variables, "image": "prefecthq/prefect:3"}


async def test_a_worker_gets_in_the_runs_it_takes_what_it_renders_them_with(api: ApiClient) -> None:
    await pool(api, "theirs", "process")
    given = {"env": {"KEY": "hush-key", "LEVEL": "open"}, "image": "i"}
    deployment = await deploy(api, work_pool_name="theirs", job_variables=given)
    await run_it(api, deployment, job_variables={"env.KEY": "hush-dotted"})
    _, offered = await api.post("/work_pools/theirs/get_scheduled_flow_runs", {})
    assert offered[0]["flow_run"]["job_variables"] == {
        "env": {"KEY": "hush-dotted", "LEVEL": "open"},
        "token": "hush-of-the-pool",
    }
    # The client lays the run's over the deployment's, as its workers do.
    _, read = await api.get(f"/deployments/{deployment['id']}")
    assert MASK not in str({**read["job_variables"], **offered[0]["flow_run"]["job_variables"]})


async def test_what_a_template_calls_secret_later_is_sealed_then(api: ApiClient) -> None:
    plain = copy.deepcopy(TEMPLATE)
    plain["variables"]["properties"] |= {name: {"type": "string"} for name in ("token", "timeout")}  # type: ignore[index]
    plain["variables"]["properties"]["env"] = {"type": "object"}  # type: ignore[index]
    await pool(api, base_job_template=plain)
    deployment = await deploy(api, work_pool_name="mine", job_variables={"token": "hush-token", "env": {"KEY": "open"}})
    run = await run_it(api, deployment, job_variables={"token": "hush-run"})
    assert deployment["job_variables"]["token"] == "hush-token" and in_files(api) != []
    assert (await api.patch("/work_pools/mine", {"base_job_template": TEMPLATE}))[0] == 204
    events = await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM events"))
    assert await sealing.seal_all(api.services.db) == 2
    assert await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM events")) == events
    await answer(api, "GET", f"/deployments/{deployment['id']}")
    await answer(api, "GET", f"/flow_runs/{run['id']}")
    assert in_files(api) == []
    # And it stays so when the template stops saying it.
    assert (await api.patch("/work_pools/mine", {"base_job_template": plain}))[0] == 204
    assert MASK in await answer(api, "GET", f"/deployments/{deployment['id']}")


async def test_a_deployment_that_moves_to_a_pool_with_secrets_has_them_sealed(api: ApiClient) -> None:
    plain = {"job_configuration": {"env": "{{ env }}"}, "variables": {"properties": {"env": {"type": "object"}}}}
    await pool(api, "plain", base_job_template=plain)
    await pool(api)
    deployment = await deploy(api, work_pool_name="plain", job_variables={"env": {"KEY": "hush-key"}})
    assert (await api.patch(f"/deployments/{deployment['id']}", {"work_pool_name": "mine"}))[0] == 204
    assert MASK in await answer(api, "GET", f"/deployments/{deployment['id']}")


async def test_errors_do_not_repeat_what_is_secret(api: ApiClient) -> None:
    await pool(api)
    for value in ("hush-no-time-limit", "hush-" + "x" * 500):
        flow = {"name": "x", "flow_id": (await api.post("/flows/", {"name": "etl"}))[1]["id"], "work_pool_name": "mine"}
        assert MASK in await answer(api, "POST", "/deployments/", {**flow, "job_variables": {"timeout": value}})
    deployment = await deploy(api, work_pool_name="mine", job_variables={"timeout": "60"})
    refused = await answer(
        api, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"job_variables": {"timeout": "hush-wrong"}}
    )
    assert "job_variables.timeout" in refused and MASK in refused


async def test_what_a_run_fails_with_does_not_repeat_it_either(api: ApiClient) -> None:
    """It is told in the run's state, in its log and in an event."""
    await pool(api)
    of = await schema(api, await block_type(api))
    await document(api, of, {"value": "hush of a block, which is no image"}, "image")
    _, flow = await api.post("/flows/", {"name": "etl"})
    for variables, where in (
        ({"timeout": "hush-no-time"}, "job_variables.timeout"),
        ({"image": "{{ prefect.blocks.secret.image }}"}, "job_variables.image"),
    ):
        body = {"flow_id": flow["id"], "work_pool_name": "mine", "job_variables": variables}
        status, run = await api.post("/flow_runs/", {**body, "state": {"type": "SCHEDULED"}})
        assert status == 201, run
        with pytest.raises(ManagedError, match=where) as caught:
            await job(api, run["id"])
        assert "hush" not in caught.value.message and MASK in caught.value.message


async def test_actions_of_automations_hide_them_too(api: ApiClient) -> None:
    await pool(api)
    deployment = await deploy(api, work_pool_name="mine")
    action = {
        "type": "run-deployment",
        "source": "selected",
        "deployment_id": deployment["id"],
        "job_variables": {"token": "hush-action", "image": "prefecthq/prefect:3"},
    }
    trigger = {"type": "event", "expect": ["x"], "posture": "Reactive", "threshold": 1, "within": 0}
    status, made = await api.post("/automations/", {"name": "a", "trigger": trigger, "actions": [action]})
    assert status == 201, made
    assert made["actions"][0]["job_variables"] == {"token": MASK, "image": "prefecthq/prefect:3"}
    body = {name: made[name] for name in ("name", "trigger", "actions")}
    assert (await api.call("PUT", f"/automations/{made['id']}", body))[0] == 204
    assert (await api.patch(f"/automations/{made['id']}", {"enabled": False}))[0] == 204

    def stored(tx: Tx) -> Any:
        from managedd.store import sealed

        return sealed.get(tx, "automations", made["id"])["value"]["actions"][0]["job_variables"]["token"]  # type: ignore[index]

    assert await api.services.db.read(stored, workspace=ids.DEFAULT_WORKSPACE_ID) == "hush-action"
    await answer(api, "POST", "/automations/filter", {})
    assert in_files(api) == []


async def test_what_is_deleted_leaves_no_envelope(api: ApiClient) -> None:
    await pool(api)
    deployment = await deploy(api, work_pool_name="mine", job_variables={"token": "hush-token"})
    run = await run_it(api, deployment, job_variables={"token": "hush-run"})
    for path in (f"/flow_runs/{run['id']}", f"/deployments/{deployment['id']}", "/work_pools/mine"):
        assert (await api.delete(path))[0] == 204
    assert await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM sealed")) == 0


async def test_an_envelope_of_another_document_is_a_fault_that_shows_nothing(api: ApiClient) -> None:
    of = await schema(api, await block_type(api))
    one, other = [await document(api, of, {"value": f"hush-{name}"}, name) for name in ("one", "other")]

    def swap(tx: Tx) -> None:
        tx.execute(
            "UPDATE sealed SET envelope = (SELECT envelope FROM sealed WHERE row_id = ?) WHERE row_id = ?",
            (other["id"], one["id"]),
        )

    await api.services.db.write(swap)
    status, body = await api.get(f"/block_documents/{one['id']}?include_secrets=true")
    assert status == 500 and "hush" not in str(body)
    assert (await clear(api, other["id"]))["data"] == {"value": "hush-other"}
    assert (await api.delete(f"/block_documents/{one['id']}"))[0] == 204


async def test_rows_of_an_earlier_version_are_read_and_then_sealed(api: ApiClient, tmp_path: Path) -> None:
    """Large values too, which SQLite keeps on pages of their own."""
    of = await schema(api, await block_type(api))
    made = await pool(api)
    deployment = await deploy(api, work_pool_name="mine")
    run = await run_it(api, deployment)
    documents = [(await document(api, of, {"value": "x"}, f"d{number}"))["id"] for number in range(3)]
    large = "hush-large" * 2_000

    def as_before(tx: Tx) -> None:
        tx.execute("DELETE FROM sealed")
        for document_id in documents:
            rows.patch(tx, BLOCK_DOCUMENT, document_id, {"data": {"value": large, "id": document_id}})
        for table in (DEPLOYMENT, FLOW_RUN):
            tx.execute(f"UPDATE {table.name} SET job_variables = ?", ('{"token":"hush-token"}',))
        template = (
            '{"job_configuration":{},"variables":{"properties":{"token":{"format":"password","default":"hush-d"}}}}'
        )
        tx.execute(f"UPDATE {WORK_POOL.name} SET base_job_template = ?, secret_variables = NULL", (template,))
        tx.execute("DELETE FROM changes")
        tx.execute("INSERT OR IGNORE INTO unsealed (kind) VALUES ('work_pools'), ('block_documents')")

    await api.services.db.write(as_before, workspace=ids.DEFAULT_WORKSPACE_ID)
    await api.services.db.checkpoint()
    assert in_files(api) == ["state.db"]
    assert (await clear(api, documents[0]))["data"]["value"] == large
    while await api.services.db.read(sealing.left):
        await api.services.db.write(lambda tx: sealing.step(tx, 2))
        assert (await clear(api, documents[1]))["data"] == {"value": large, "id": documents[1]}
    await api.services.db.checkpoint()
    assert in_files(api) == []
    for path in (f"/deployments/{deployment['id']}", f"/flow_runs/{run['id']}", f"/work_pools/{made['name']}"):
        assert MASK in await answer(api, "GET", path)
    assert not await api.services.db.read(sealing.left)
    await engine_sealing.at_start(api.services.db)
    assert AUTOMATION.conceal is not None
