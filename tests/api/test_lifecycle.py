"""Events that the server makes of what is created, changed and deleted, and of statuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from managedd.orchestration import lifecycle
from managedd.store import changes
from tests.api.deployed import deploy, flow_of, pool_of, run_it

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

HYBRID = "process"


async def told(api: ApiClient, *kinds: str) -> list[dict[str, Any]]:
    """The events of these kinds, oldest first."""
    wanted = {"order": "ASC", "event": {"prefix": [f"prefect.{kind}." for kind in kinds]}}
    status, page = await api.post("/events/filter", {"filter": wanted})
    assert status == 200
    found: list[dict[str, Any]] = page["events"]
    while page["next_page"] is not None:
        path = page["next_page"].partition("/api")[2]
        status, page = await api.get(path)
        assert status == 200
        found += page["events"]
    return found


async def names(api: ApiClient, *kinds: str) -> list[str]:
    return [event["event"].removeprefix("prefect.") for event in await told(api, *kinds)]


def roles(event: dict[str, Any]) -> dict[str, str]:
    return {related["prefect.resource.role"]: related["prefect.resource.id"] for related in event["related"]}


async def test_a_managed_pool_is_ready_at_once(api: ApiClient, other: ApiClient) -> None:
    pool = await pool_of(api)
    assert await names(api, "work-pool", "work-queue") == [
        "work-pool.created", "work-pool.ready", "work-queue.created", "work-queue.ready",
    ]  # fmt: skip
    created, ready, queue, _ = await told(api, "work-pool", "work-queue")
    assert created["resource"] == ready["resource"] == {
        "prefect.resource.id": f"prefect.work-pool.{pool['id']}",
        "prefect.resource.name": "mine",
        "prefect.resource.role": "work-pool",
        "prefect.work-pool.type": "prefect:managed",
    }  # fmt: skip
    assert roles(queue) == {"work-pool": f"prefect.work-pool.{pool['id']}"}
    assert await told(other, "work-pool") == []


async def test_a_pause_is_a_status_and_no_update(api: ApiClient) -> None:
    await pool_of(api)
    for paused in (True, True, False):
        assert (await api.patch("/work_pools/mine", {"is_paused": paused}))[0] == 204
    assert (await names(api, "work-pool"))[2:] == ["work-pool.paused", "work-pool.ready"]


async def test_an_update_names_what_changed_and_keeps_templates_to_itself(api: ApiClient) -> None:
    pool = await pool_of(api)
    template = {**pool["base_job_template"], "job_configuration": {"env": "{{ env }}", "image": "{{ image }}"}}
    changed = {"description": "d", "concurrency_limit": 3}
    assert (await api.patch("/work_pools/mine", changed))[0] == 204
    assert (await api.patch("/work_pools/mine", changed))[0] == 204
    updated = (await told(api, "work-pool"))[2:]
    assert [event["payload"] for event in updated] == [
        {
            "updated_fields": ["description", "concurrency_limit"],
            "updates": {"description": {"from": None, "to": "d"}, "concurrency_limit": {"from": None, "to": 3}},
        }
    ]
    assert (await api.patch("/work_pools/mine", {"base_job_template": template}))[0] == 204
    (event,) = (await told(api, "work-pool"))[3:]
    assert event["payload"] == {"updated_fields": ["base_job_template"], "updates": {}}


async def test_what_goes_with_a_pool_is_told_too(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine")
    assert (await api.delete("/work_pools/mine"))[0] == 204
    gone = (await names(api, "work-pool", "work-queue"))[4:]
    assert sorted(gone) == ["work-pool.deleted", "work-queue.deleted"]
    assert await names(api, "deployment") == [
        "deployment.created", "deployment.ready", "deployment.updated", "deployment.not-ready",
    ]  # fmt: skip
    assert (await told(api, "deployment"))[2]["payload"]["updated_fields"] == ["work_queue_id"]
    assert (await api.delete(f"/deployments/{deployment['id']}"))[0] == 204
    assert (await names(api, "deployment"))[4:] == ["deployment.deleted"]


async def test_a_deployment_is_told_with_what_it_belongs_to(api: ApiClient) -> None:
    pool = await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", tags=["blue"])
    again = await deploy(api, expect=200, work_pool_name="mine", tags=["blue"])
    assert again["id"] == deployment["id"]
    assert await names(api, "deployment") == ["deployment.created", "deployment.ready"]
    created, ready = await told(api, "deployment")
    assert created["resource"] == {
        "prefect.resource.id": f"prefect.deployment.{deployment['id']}",
        "prefect.resource.name": "prod",
    }
    assert roles(created) == roles(ready) == {
        "flow": f"prefect.flow.{deployment['flow_id']}",
        "work-queue": f"prefect.work-queue.{pool['default_queue_id']}",
        "work-pool": f"prefect.work-pool.{pool['id']}",
        "tag": "prefect.tag.blue",
    }  # fmt: skip


async def test_deployments_go_with_their_flow(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine")
    assert (await api.delete(f"/flows/{deployment['flow_id']}"))[0] == 204
    assert (await names(api, "deployment"))[-1] == "deployment.deleted"
    assert await names(api, "flow") == ["flow.created", "flow.deleted"]


async def test_a_hybrid_pool_is_ready_while_workers_are_heard_of(api: ApiClient) -> None:
    await pool_of(api, type_=HYBRID)
    await deploy(api, work_pool_name="mine")
    kinds = ("work-pool", "work-queue", "deployment")
    first = await names(api, *kinds)
    assert sorted(name for name in first if "ready" in name) == [
        "deployment.not-ready", "work-pool.not-ready", "work-queue.not-ready",
    ]  # fmt: skip
    for _ in range(2):
        heartbeat = {"name": "w", "heartbeat_interval_seconds": 30}
        assert (await api.post("/work_pools/mine/workers/heartbeat", heartbeat))[0] == 204
        assert (await api.post("/work_pools/mine/get_scheduled_flow_runs", {}))[0] == 200
    heard = (await names(api, *kinds))[len(first) :]
    assert sorted(heard) == ["deployment.ready", "work-pool.ready", "work-queue.ready"]

    db = api.services.db
    await db.write(lifecycle.lapse)
    assert len(await names(api, *kinds)) == len(first) + 3
    await db.write(age)
    await db.write(lifecycle.lapse)
    lapsed = (await names(api, *kinds))[len(first) + 3 :]
    assert sorted(lapsed) == ["deployment.not-ready", "work-pool.not-ready", "work-queue.not-ready"]
    await db.write(lifecycle.lapse)
    assert len(await names(api, *kinds)) == len(first) + 6


def age(tx: Any) -> None:
    """All that workers said was an hour ago."""
    hour = 3_600_000_000
    tx.execute("UPDATE workers SET last_heartbeat_time = last_heartbeat_time - ?", (hour,))
    tx.execute("UPDATE work_queues SET last_polled = last_polled - ?", (hour,))
    tx.execute("UPDATE deployments SET last_polled = last_polled - ?", (hour,))


async def test_what_was_refused_is_not_told(api: ApiClient) -> None:
    await pool_of(api)
    before = await names(api, "work-pool", "work-queue")
    assert (await api.post("/work_pools/", {"name": "mine", "type": "prefect:managed"}))[0] == 409
    assert await names(api, "work-pool", "work-queue") == before


async def test_runs_are_not_told_as_deployments(api: ApiClient) -> None:
    """A run of a deployment changes nothing of it."""
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", parameters={"n": 1})
    before = await names(api, "deployment", "flow")
    await run_it(api, deployment)
    await flow_of(api)
    assert await names(api, "deployment", "flow") == before


async def test_very_many_changes_are_told_a_share_at_a_time(api: ApiClient) -> None:
    await pool_of(api, type_=HYBRID)
    flow_id = await flow_of(api)
    count = 2 * changes.TAKEN + 3
    for number in range(count):
        await deploy(api, f"d{number}", flow_id=flow_id, work_pool_name="mine", tags=["blue"])
    assert (await api.post("/work_pools/mine/get_scheduled_flow_runs", {}))[0] == 200
    assert (await names(api, "deployment")).count("deployment.ready") < count
    await lifecycle.tell_rest(api.services.db)
    assert (await names(api, "deployment")).count("deployment.ready") == count
    assert (await api.delete(f"/flows/{flow_id}"))[0] == 204
    await lifecycle.tell_rest(api.services.db)
    gone = [event for event in await told(api, "deployment") if event["event"].endswith(".deleted")]
    assert len({event["resource"]["prefect.resource.id"] for event in gone}) == len(gone) == count
    assert {roles(event)["tag"] for event in gone} == {"prefect.tag.blue"}


async def test_values_are_told_as_the_api_has_them(api: ApiClient) -> None:
    await pool_of(api)
    deployment = await deploy(api, work_pool_name="mine", tags=["a"])
    change = {"tags": ["a", "b"], "paused": True, "job_variables": {"memory_limit": 300_000_000}}
    assert (await api.patch(f"/deployments/{deployment['id']}", change))[0] == 204
    (event,) = [event for event in await told(api, "deployment") if event["event"].endswith(".updated")]
    assert sorted(event["payload"]["updated_fields"]) == ["job_variables", "paused", "tags"]
    assert event["payload"]["updates"] == {
        "tags": {"from": ["a"], "to": ["a", "b"]},
        "paused": {"from": False, "to": True},
    }


async def test_what_moves_to_a_managed_pool_does_not_lapse(api: ApiClient) -> None:
    await pool_of(api, type_=HYBRID)
    await pool_of(api, "ours")
    deployment = await deploy(api, work_pool_name="mine")
    assert (await api.post("/work_pools/mine/get_scheduled_flow_runs", {}))[0] == 200
    assert (await api.patch(f"/deployments/{deployment['id']}", {"work_pool_name": "ours"}))[0] == 204
    await api.services.db.write(age)
    assert [change.kind for change in await api.services.db.read(changes.lapsed)] == ["work-queue"]
