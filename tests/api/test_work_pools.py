"""Work pools, their queues and workers, over the API and a real store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

from managedd.bus import Topic
from managedd.clock import to_us
from managedd.store import rows
from managedd.store.resources import DEPLOYMENT, FLOW, FLOW_RUN
from managedd.wire.work_pools import WorkerFlowRunResponse, WorkPoolConcurrencyStatus, WorkPoolResponse
from managedd.wire.work_queues import WorkQueueConcurrencyStatus, WorkQueueResponse, WorkQueueStatusDetail
from managedd.wire.workers import WorkerResponse

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

MANAGED = "prefect:managed"
TEMPLATE = {
    "job_configuration": {"image": "{{ image }}", "env": "{{ env }}"},
    "variables": {
        "type": "object",
        "properties": {
            "image": {"type": "string", "default": "prefecthq/prefect:3-latest"},
            "env": {"type": "object"},
        },
    },
}


async def pool(api: ApiClient, name: str = "p", **values: Any) -> dict[str, Any]:
    status, body = await api.post("/work_pools/", {"name": name, "type": MANAGED, **values})
    assert status == 201, body
    return dict(body)


async def queue(api: ApiClient, name: str, pool_name: str = "p", **values: Any) -> dict[str, Any]:
    status, body = await api.post(f"/work_pools/{pool_name}/queues", {"name": name, **values})
    assert status == 201, body
    return dict(body)


async def priorities(api: ApiClient, pool_name: str = "p") -> dict[str, int]:
    _, found = await api.post(f"/work_pools/{pool_name}/queues/filter", {})
    return {each["name"]: each["priority"] for each in found}


async def run(
    api: ApiClient, queue_id: str | None, state: str = "SCHEDULED", due_in: float = 0.0, **values: Any
) -> str:
    """A flow run in `queue_id`, put into the store as the state rules would."""

    def body(tx: Any) -> str:
        flow = rows.record(tx, FLOW, name="f")
        flow_id = rows.insert(tx, FLOW, {"name": "f"}) if flow is None else flow["id"]
        due = tx.now + int(due_in * 1_000_000)
        return rows.insert(
            tx,
            FLOW_RUN,
            {
                "name": "r",
                "flow_id": flow_id,
                "work_queue_id": queue_id,
                "state_type": state,
                "state_name": state.capitalize(),
                "state_timestamp": tx.now,
                "expected_start_time": due,
                "next_scheduled_start_time": due if state == "SCHEDULED" else None,
                **values,
            },
        )

    from managedd.ids import DEFAULT_WORKSPACE_ID

    return await api.services.db.write(body, workspace=DEFAULT_WORKSPACE_ID)


async def offered(api: ApiClient, pool_name: str = "p", **body: Any) -> list[str]:
    status, found = await api.post(f"/work_pools/{pool_name}/get_scheduled_flow_runs", body)
    assert status == 200, found
    TypeAdapter(list[WorkerFlowRunResponse]).validate_python(found)
    return [each["flow_run"]["id"] for each in found]


# --- pools ---------------------------------------------------------------------------------------------------------------


async def test_a_new_managed_pool_is_ready_and_has_its_default_queue(api: ApiClient) -> None:
    made = await pool(api, base_job_template=TEMPLATE, description="d", concurrency_limit=3)
    assert WorkPoolResponse.model_validate(made).status == "READY"
    assert made["base_job_template"] == TEMPLATE
    assert (made["is_paused"], made["concurrency_limit"], made["active_slots"]) == (False, 3, 0)
    status, default = await api.get(f"/work_queues/{made['default_queue_id']}")
    assert status == 200
    assert (default["name"], default["priority"], default["work_pool_name"]) == ("default", 1, "p")
    assert await api.get("/work_pools/p") == (200, made)


async def test_a_worker_pool_is_ready_while_a_worker_is_online(api: ApiClient) -> None:
    made = await pool(api, "w", type="process")
    assert made["status"] == "NOT_READY"
    assert (await api.post("/work_pools/w/workers/heartbeat", {"name": "one"}))[0] == 204
    assert (await api.get("/work_pools/w"))[1]["status"] == "READY"


async def test_a_taken_name_is_a_conflict(api: ApiClient) -> None:
    await pool(api)
    status, body = await api.post("/work_pools/", {"name": "p", "type": MANAGED})
    assert status == 409
    assert body["detail"] == "A work pool with this name already exists."


@pytest.mark.parametrize(
    ("values", "status", "words"),
    [
        ({"name": "Prefect-mine", "type": MANAGED}, 403, "reserved"),
        ({"name": "x", "type": "ecs:push"}, 422, "not offered yet"),
        ({"name": "x", "type": MANAGED, "base_job_template": {"variables": {}}}, 422, "job_configuration"),
        (
            {
                "name": "x",
                "type": MANAGED,
                "base_job_template": {
                    "job_configuration": {"a": "{{ b }}"},
                    "variables": {"properties": {}, "type": "object"},
                },
            },
            422,
            "Undeclared: b",
        ),
        (
            {
                "name": "x",
                "type": MANAGED,
                "base_job_template": {
                    "job_configuration": {"a": "{{ b }}"},
                    "variables": {"type": "object", "properties": {"b": {"type": "integer", "default": "many"}}},
                },
            },
            422,
            "'b'",
        ),
        (
            {
                "name": "x",
                "type": MANAGED,
                "base_job_template": {
                    "job_configuration": {"federated_identity": "{{ federated_identity }}"},
                    "variables": {
                        "type": "object",
                        "properties": {"federated_identity": {"type": "object", "default": {"aws_role_arn": "arn"}}},
                    },
                },
            },
            422,
            "federated_identity",
        ),
        ({"name": "a/b", "type": MANAGED}, 422, "name"),
        ({"name": " ", "type": MANAGED}, 422, "empty"),
        ({"name": "x", "type": MANAGED, "concurrency_limit": -1}, 422, "concurrency_limit"),
        ({"name": "x", "type": MANAGED, "surprise": 1}, 422, "surprise"),
    ],
)
async def test_what_can_not_be_made_is_refused_with_its_reason(
    api: ApiClient, values: dict[str, Any], status: int, words: str
) -> None:
    answered, body = await api.post("/work_pools/", values)
    assert answered == status
    assert words in body["detail"]
    assert (await api.post("/work_pools/count", {}))[1] == 0


async def test_a_managed_template_may_declare_federated_identity(api: ApiClient) -> None:
    template = {
        "job_configuration": {"federated_identity": "{{ federated_identity }}"},
        "variables": {"type": "object", "properties": {"federated_identity": {"type": "object"}}},
    }
    assert (await pool(api, base_job_template=template))["base_job_template"] == template


async def test_a_patch_changes_what_it_names_and_null_clears(api: ApiClient) -> None:
    await pool(api, description="d", concurrency_limit=3, base_job_template=TEMPLATE)
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        assert await api.patch("/work_pools/p", {"is_paused": True}) == (204, None)
        assert await woken.wait(1)
    found = (await api.get("/work_pools/p"))[1]
    assert (found["status"], found["concurrency_limit"], found["description"]) == ("PAUSED", 3, "d")
    body = {"concurrency_limit": None, "description": None, "is_paused": False, "base_job_template": None}
    assert (await api.patch("/work_pools/p", body))[0] == 204
    found = (await api.get("/work_pools/p"))[1]
    assert (found["status"], found["concurrency_limit"], found["description"]) == ("READY", None, None)
    assert found["base_job_template"] == TEMPLATE
    storage = {"bundle_upload_step": {"a": 1}, "bundle_execution_step": None, "default_result_storage_block_id": None}
    assert (await api.patch("/work_pools/p", {"storage_configuration": storage}))[0] == 204
    assert (await api.get("/work_pools/p"))[1]["storage_configuration"] == storage
    bad = {
        "base_job_template": {
            "job_configuration": {"x": 1},
            "variables": {"properties": {"n": {"type": "integer", "default": "a"}}},
        }
    }
    assert (await api.patch("/work_pools/p", bad))[0] == 422


async def test_pools_are_found_and_counted_by_name_and_type(api: ApiClient) -> None:
    for name, kind in (("b", "process"), ("a", MANAGED), ("c", "docker")):
        await pool(api, name, type=kind)
    status, found = await api.post("/work_pools/filter", {"work_pools": None, "limit": None, "offset": 0})
    assert status == 200
    TypeAdapter(list[WorkPoolResponse]).validate_python(found)
    assert [each["name"] for each in found] == ["a", "b", "c"]
    wanted = {"work_pools": {"type": {"any_": ["process", "docker"]}}}
    assert [each["name"] for each in (await api.post("/work_pools/filter", wanted))[1]] == ["b", "c"]
    assert await api.post("/work_pools/count", wanted) == (200, 2)
    assert [each["name"] for each in (await api.post("/work_pools/filter", {"limit": 1, "offset": 1}))[1]] == ["b"]
    assert (await api.post("/work_pools/filter", {"limit": 201}))[0] == 422


async def test_a_deleted_pool_takes_its_queues_and_leaves_its_runs(api: ApiClient) -> None:
    made = await pool(api)
    live = await run(api, made["default_queue_id"], "RUNNING")
    assert await api.delete("/work_pools/p") == (204, None)
    assert (await api.get("/work_pools/p"))[0] == 404
    assert (await api.get(f"/work_queues/{made['default_queue_id']}"))[0] == 404
    kept = await api.services.db.read(
        lambda tx: tx.one("SELECT state_type, work_queue_id FROM flow_runs WHERE id = ?", (live,))
    )
    assert kept is not None
    assert tuple(kept) == ("RUNNING", None)
    assert (await api.delete("/work_pools/p"))[0] == 404
    assert (await api.delete("/work_pools/prefect-x"))[0] == 403


async def test_another_workspace_sees_nothing_of_it(api: ApiClient, other: ApiClient) -> None:
    made = await pool(api)
    assert await other.post("/work_pools/filter", {}) == (200, [])
    assert await other.post("/work_pools/count", {}) == (200, 0)
    assert await other.post("/work_queues/filter", {}) == (200, [])
    for method, path, body in (
        ("GET", "/work_pools/p", None),
        ("PATCH", "/work_pools/p", {"is_paused": True}),
        ("DELETE", "/work_pools/p", None),
        ("POST", "/work_pools/p/concurrency_status", {}),
        ("POST", "/work_pools/p/get_scheduled_flow_runs", {}),
        ("POST", "/work_pools/p/queues", {"name": "q"}),
        ("POST", "/work_pools/p/queues/filter", {}),
        ("GET", "/work_pools/p/queues/default", None),
        ("PATCH", "/work_pools/p/queues/default", {"is_paused": True}),
        ("DELETE", "/work_pools/p/queues/default", None),
        ("POST", "/work_pools/p/workers/heartbeat", {"name": "w"}),
        ("POST", "/work_pools/p/workers/filter", {}),
        ("DELETE", "/work_pools/p/workers/w", None),
        ("GET", f"/work_queues/{made['default_queue_id']}", None),
        ("PATCH", f"/work_queues/{made['default_queue_id']}", {"is_paused": True}),
        ("DELETE", f"/work_queues/{made['default_queue_id']}", None),
        ("POST", f"/work_queues/{made['default_queue_id']}/get_runs", {}),
        ("POST", f"/work_queues/{made['default_queue_id']}/concurrency_status", {}),
        ("GET", f"/work_queues/{made['default_queue_id']}/status", None),
    ):
        status, answer = await other.call(method, path, body)
        assert status == 404, (method, path)
        assert answer["detail"] == answer["exception_message"]
    await pool(other)
    assert (await api.get("/work_pools/p"))[1] == made


# --- queues --------------------------------------------------------------------------------------------------------------


async def test_queues_have_distinct_priorities(api: ApiClient) -> None:
    await pool(api)
    made = await queue(api, "low")
    WorkQueueResponse.model_validate(made)
    assert made["priority"] == 2
    await queue(api, "far", priority=7)
    assert (await queue(api, "next"))["priority"] == 3
    assert (await queue(api, "first", priority=1))["priority"] == 1
    assert await priorities(api) == {"first": 1, "default": 2, "low": 3, "next": 4, "far": 7}
    assert (await api.patch("/work_pools/p/queues/far", {"priority": 2}))[0] == 204
    assert await priorities(api) == {"first": 1, "far": 2, "default": 3, "low": 4, "next": 5}
    status, body = await api.post("/work_pools/p/queues", {"name": "low"})
    assert status == 409
    assert "low" in body["detail"]


async def test_a_queue_is_changed_renamed_and_deleted(api: ApiClient) -> None:
    await pool(api)
    made = await queue(api, "q", concurrency_limit=2, description="d")
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        assert (await api.patch("/work_pools/p/queues/q", {"is_paused": True, "concurrency_limit": None}))[0] == 204
        assert await woken.wait(1)
    found = (await api.get("/work_pools/p/queues/q"))[1]
    assert (found["status"], found["concurrency_limit"], found["description"]) == ("PAUSED", None, "d")
    waiting = await run(api, made["id"], work_queue_name="q")
    assert (await api.patch(f"/work_queues/{made['id']}", {"name": "r", "is_paused": False, "priority": None}))[
        0
    ] == 204
    found = (await api.get("/work_pools/p/queues/r"))[1]
    assert (found["id"], found["status"], found["priority"]) == (made["id"], "READY", 2)
    name = await api.services.db.read(
        lambda tx: tx.scalar("SELECT work_queue_name FROM flow_runs WHERE id = ?", (waiting,))
    )
    assert name == "r"
    assert (await api.patch("/work_pools/p/queues/r", {"name": "default"}))[0] == 409
    assert (await api.get("/work_pools/p/queues/q"))[0] == 404
    assert (await api.delete("/work_pools/p/queues/default"))[0] == 403
    assert (await api.delete("/work_pools/p/queues/r"))[0] == 204
    assert (await api.delete(f"/work_queues/{made['id']}"))[0] == 404


async def test_queues_are_filtered_by_name(api: ApiClient) -> None:
    await pool(api)
    await pool(api, "o")
    await queue(api, "alpha")
    body = {"work_queues": {"name": {"startswith_": ["al", "x"]}}}
    assert [each["name"] for each in (await api.post("/work_pools/p/queues/filter", body))[1]] == ["alpha"]
    assert await api.post("/work_pools/o/queues/filter", body) == (200, [])
    found = (await api.post("/work_queues/filter", {}))[1]
    TypeAdapter(list[WorkQueueResponse]).validate_python(found)
    assert [(each["name"], each["work_pool_name"]) for each in found] == [
        ("alpha", "p"),
        ("default", "p"),
        ("default", "o"),
    ]


async def test_queues_without_a_pool_live_in_the_pool_of_agents(api: ApiClient) -> None:
    status, made = await api.post("/work_queues/", {"name": "default"})
    assert (status, made["work_pool_name"]) == (201, "default-agent-pool")
    assert (await api.post("/work_queues/", {"name": "default"}))[0] == 409
    assert (await api.post("/work_queues/", {"name": "tests"}))[0] == 201
    assert (await api.get("/work_queues/name/tests"))[1]["priority"] == 2
    assert (await api.get("/work_queues/name/nope"))[0] == 404


async def test_health_of_a_queue(api: ApiClient) -> None:
    made = await pool(api, type="process")
    path = f"/work_queues/{made['default_queue_id']}/status"
    status, health = await api.get(path)
    assert status == 200
    WorkQueueStatusDetail.model_validate(health)
    assert (health["healthy"], health["last_polled"]) == (False, None)
    await offered(api)
    health = (await api.get(path))[1]
    assert (health["healthy"], health["late_runs_count"]) == (True, 0)
    assert health["last_polled"] is not None
    await run(api, made["default_queue_id"], state_name="Late")
    health = (await api.get(path))[1]
    assert (health["healthy"], health["late_runs_count"]) == (False, 1)


# --- what workers take ---------------------------------------------------------------------------------------------------


async def test_due_runs_come_by_priority_of_their_queue_and_then_by_time(api: ApiClient) -> None:
    made = await pool(api, type="process")
    urgent = await queue(api, "urgent", priority=1)
    late, early = (
        await run(api, made["default_queue_id"], due_in=-1),
        await run(api, made["default_queue_id"], due_in=-9),
    )
    first = await run(api, urgent["id"], due_in=5)
    await run(api, urgent["id"], due_in=100)
    await run(api, urgent["id"], "PENDING")
    await run(api, urgent["id"], empirical_policy={"retry_type": "in_process"})
    before = (datetime.now(UTC) + timedelta(seconds=10)).isoformat()
    assert await offered(api, scheduled_before=before) == [first, early, late]
    assert await offered(api, scheduled_before=before, limit=2) == [first, early]
    assert await offered(api, scheduled_before=before, work_queue_names=["default"]) == [early, late]
    after = (datetime.now(UTC) - timedelta(seconds=5)).isoformat()
    assert await offered(api, scheduled_before=before, scheduled_after=after, work_queue_names=["default"]) == [late]
    assert len(await offered(api)) == 4
    assert (await api.post("/work_pools/p/get_scheduled_flow_runs", {"work_queue_names": ["no"]}))[0] == 404


async def test_limits_and_pauses_hold_runs_back(api: ApiClient) -> None:
    made = await pool(api, type="process", concurrency_limit=3)
    small = await queue(api, "small", priority=1, concurrency_limit=2)
    await run(api, small["id"], "CANCELLING")
    first = await run(api, small["id"], due_in=-9)
    await run(api, small["id"], due_in=-8)
    rest = [await run(api, made["default_queue_id"], due_in=-seconds) for seconds in (7, 6, 5)]
    assert await offered(api) == [first, rest[0]]
    await api.patch("/work_pools/p", {"concurrency_limit": None})
    assert await offered(api) == [first, *rest]
    await api.patch("/work_pools/p/queues/small", {"is_paused": True})
    assert await offered(api) == rest
    await api.patch("/work_pools/p", {"is_paused": True})
    assert await offered(api) == []
    await api.patch("/work_pools/p", {"is_paused": False, "concurrency_limit": 0})
    assert await offered(api) == []


async def test_a_poll_marks_the_queues_and_their_deployments(api: ApiClient) -> None:
    made = await pool(api, type="process")
    spare = await queue(api, "spare")

    def deploy(tx: Any) -> str:
        flow = rows.insert(tx, FLOW, {"name": "g"})
        return rows.insert(tx, DEPLOYMENT, {"name": "d", "flow_id": flow, "work_queue_id": made["default_queue_id"]})

    from managedd.ids import DEFAULT_WORKSPACE_ID

    deployment = await api.services.db.write(deploy, workspace=DEFAULT_WORKSPACE_ID)
    await offered(api, work_queue_names=["default"])
    polled = await api.services.db.read(
        lambda tx: tx.scalar("SELECT last_polled FROM deployments WHERE id = ?", (deployment,))
    )
    assert abs(polled - to_us(datetime.now(UTC))) < 60_000_000
    assert (await api.get(f"/work_queues/{made['default_queue_id']}"))[1]["status"] == "READY"
    assert (await api.get(f"/work_queues/{spare['id']}"))[1]["status"] == "NOT_READY"


async def test_runs_of_one_queue_and_a_look_that_is_no_poll(api: ApiClient) -> None:
    made = await pool(api, type="process")
    due = await run(api, made["default_queue_id"], due_in=-1)
    path = f"/work_queues/{made['default_queue_id']}"
    status, found = await api.post(path + "/get_runs", {}, headers={"X-Prefect-UI": "true"})
    assert (status, [each["id"] for each in found]) == (200, [due])
    assert (await api.get(path))[1]["last_polled"] is None
    await api.post(path + "/get_runs", {"limit": 1, "scheduled_before": datetime.now(UTC).isoformat()})
    assert (await api.get(path))[1]["last_polled"] is not None


async def test_who_holds_the_slots(api: ApiClient) -> None:
    made = await pool(api, concurrency_limit=5)
    side = await queue(api, "side", concurrency_limit=1)
    held = sorted([await run(api, made["default_queue_id"], "RUNNING") for _ in range(3)])
    await run(api, side["id"], "PENDING")
    await run(api, side["id"])
    status, body = await api.post("/work_pools/p/concurrency_status", {"flow_run_limit": 2})
    assert status == 200
    WorkPoolConcurrencyStatus.model_validate(body)
    assert (body["active_slots"], body["concurrency_limit"], body["count"], body["pages"]) == (4, 5, 2, 1)
    first, second = body["queues"]
    assert (first["queue_name"], first["active_slots"], first["flow_run_count"]) == ("default", 3, 3)
    assert [each["id"] for each in first["flow_runs"]] == held[:2]
    assert (second["queue_name"], second["active_slots"], second["concurrency_limit"]) == ("side", 1, 1)
    status, body = await api.post(
        f"/work_queues/{made['default_queue_id']}/concurrency_status", {"limit": 2, "page": 2}
    )
    assert status == 200
    WorkQueueConcurrencyStatus.model_validate(body)
    assert (body["active_slots"], body["count"], body["pages"], body["page"]) == (3, 3, 2, 2)
    assert [each["id"] for each in body["flow_runs"]] == held[2:]
    assert body["flow_runs"][0]["time_in_current_state"] >= 0
    assert (await api.get("/work_pools/p"))[1]["active_slots"] == 4


# --- workers -------------------------------------------------------------------------------------------------------------


async def test_workers_are_known_by_their_heartbeats(api: ApiClient) -> None:
    made = await pool(api, type="process")
    beat = {"name": "one", "heartbeat_interval_seconds": 30}
    assert (await api.post("/work_pools/p/workers/heartbeat", beat))[0] == 204
    assert (await api.post("/work_pools/p/workers/heartbeat", {"name": "one"}))[0] == 204
    await api.post("/work_pools/p/workers/heartbeat", {"name": "two", "heartbeat_interval_seconds": 10})
    await api.services.db.write(
        lambda tx: (
            tx.execute("UPDATE workers SET last_heartbeat_time = last_heartbeat_time - 31000000 WHERE name = 'two'")
            and None
        )
    )
    status, found = await api.post("/work_pools/p/workers/filter", {"workers": None, "limit": None, "offset": None})
    assert status == 200
    TypeAdapter(list[WorkerResponse]).validate_python(found)
    assert [(each["name"], each["status"], each["heartbeat_interval_seconds"]) for each in found] == [
        ("one", "ONLINE", 30),
        ("two", "OFFLINE", 10),
    ]
    assert found[0]["work_pool_id"] == made["id"]

    async def names(workers: dict[str, Any]) -> list[str]:
        return [each["name"] for each in (await api.post("/work_pools/p/workers/filter", {"workers": workers}))[1]]

    assert await names({"status": {"any_": ["ONLINE"]}}) == ["one"]
    assert await names({"status": {"not_any_": ["ONLINE"]}}) == ["two"]
    assert await names({"status": {"any_": []}}) == []
    recent = {"after_": (datetime.now(UTC) - timedelta(seconds=10)).isoformat()}
    assert await names({"last_heartbeat_time": recent, "status": {"any_": ["OFFLINE"]}}) == []
    assert await names({"operator": "or_", "last_heartbeat_time": recent, "status": {"any_": ["OFFLINE"]}}) == [
        "one",
        "two",
    ]
    assert (await api.delete("/work_pools/p/workers/two"))[0] == 204
    assert (await api.delete("/work_pools/p/workers/two"))[0] == 404


async def test_cloud_workers_ask_for_their_id(api: ApiClient) -> None:
    await pool(api, type="process")
    body = {"name": "one", "return_id": True, "metadata": {"integrations": []}}
    answers = [await api.http.post("/api/work_pools/p/workers/heartbeat", json=body) for _ in range(2)]
    texts = [await answer.text() for answer in answers]
    assert [answer.status for answer in answers] == [200, 200]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 36


async def test_the_workers_socket_is_a_plain_404(api: ApiClient) -> None:
    await pool(api, type="process")
    response = await api.http.get(
        "/api/work_pools/p/workers/connect", headers={"Upgrade": "websocket", "Connection": "Upgrade"}
    )
    assert response.status == 404
