"""Concurrency limits, leases and rate limits, over the API and a real store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.bus import Topic
from managedd.model.keys import hashed
from managedd.store import concurrency, execution_leases, executions
from managedd.wire.concurrency import (
    ConcurrencyLimit,
    ConcurrencyLimitV2,
    ConcurrencyLimitWithLeaseResponse,
    MinimalConcurrencyLimitResponse,
)
from managedd.wire.deployments import GlobalConcurrencyLimitResponse
from tests.api.test_sockets import a_run

if TYPE_CHECKING:
    from managedd.model.executions import Execution
    from managedd.store.database import Tx
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

V2 = "/v2/concurrency_limits"


async def limit(api: ApiClient, name: str = "db", number: int = 2, **values: Any) -> dict[str, Any]:
    status, body = await api.post(f"{V2}/", {"name": name, "limit": number, **values})
    assert status == 201, body
    ConcurrencyLimitV2.model_validate(body)
    return dict(body)


async def lease(api: ApiClient, *names: str, slots: int = 1, **values: Any) -> tuple[int, Any]:
    return await api.post(f"{V2}/increment-with-lease", {"names": list(names), "slots": slots, **values})


async def active(api: ApiClient, name: str = "db") -> int:
    status, body = await api.get(f"{V2}/{name}")
    assert status == 200, body
    GlobalConcurrencyLimitResponse.model_validate(body)
    return int(body["active_slots"])


async def age(api: ApiClient, seconds: float) -> None:
    """Everything about leases and slots happened so long ago."""
    us = round(seconds * 1_000_000)

    def body(tx: Any) -> None:
        tx.execute("UPDATE concurrency_leases SET created = created - ?, expires_at = expires_at - ?", (us, us))
        tx.execute("UPDATE concurrency_limits SET unleased_at = unleased_at - ?", (us,))

    await api.services.db.write(body)


# --- limits --------------------------------------------------------------------------------------------------------------


async def test_a_limit_is_found_by_id_and_name_and_changed(api: ApiClient) -> None:
    made = await limit(api)
    assert (made["active"], made["active_slots"], made["denied_slots"], made["slot_decay_per_second"]) == (
        True,
        0,
        0,
        0,
    )
    by_id, by_name = await api.get(f"{V2}/{made['id']}"), await api.get(f"{V2}/db")
    assert by_id == by_name
    assert by_id[0] == 200
    status, body = await api.post(f"{V2}/", {"name": "db", "limit": 1})
    assert (status, "'db'" in body["detail"]) == (409, True)
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        assert (await api.patch(f"{V2}/db", {"limit": 5, "active": None, "name": "sql"}))[0] == 204
        assert await woken.wait(1)
    found = (await api.get(f"{V2}/{made['id']}"))[1]
    assert (found["name"], found["limit"], found["active"]) == ("sql", 5, True)
    assert (await api.patch(f"{V2}/db", {"limit": 5}))[0] == 404
    await limit(api, "other")
    assert (await api.patch(f"{V2}/other", {"name": "sql"}))[0] == 409
    status, listed = await api.post(f"{V2}/filter", {"limit": None, "offset": 0})
    TypeAdapter(list[GlobalConcurrencyLimitResponse]).validate_python(listed)
    assert (status, [each["name"] for each in listed]) == (200, ["other", "sql"])
    assert (await api.delete(f"{V2}/sql"))[0] == 204
    assert (await api.delete(f"{V2}/{made['id']}"))[0] == 404
    assert (await api.post(f"{V2}/", {"name": "n", "limit": -1}))[0] == 422


# --- leases --------------------------------------------------------------------------------------------------------------


async def test_slots_are_held_by_a_lease_until_it_is_given_back(api: ApiClient) -> None:
    made = await limit(api)
    holder = {"type": "flow_run", "id": str(uuid4())}
    status, first = await lease(api, "db", holder=holder, mode="concurrency", lease_duration=300)
    assert status == 200
    ConcurrencyLimitWithLeaseResponse.model_validate(first)
    assert first["limits"] == [{"id": made["id"], "name": "db", "limit": 2}]
    assert (await lease(api, "db"))[0] == 200
    assert await active(api) == 2
    response = await api.http.post(f"/api{V2}/increment-with-lease", json={"names": ["db"], "slots": 1})
    assert response.status == 423
    assert 0.1 <= float(response.headers["Retry-After"]) <= 39
    assert (await api.post(f"{V2}/decrement-with-lease", {"lease_id": first["lease_id"]}))[0] == 204
    assert await active(api) == 1
    assert (await lease(api, "db"))[0] == 200
    assert (await api.post(f"{V2}/decrement-with-lease", {"lease_id": first["lease_id"]}))[0] == 204
    assert await active(api) == 2


async def test_a_name_without_a_limit_limits_nothing(api: ApiClient) -> None:
    status, body = await lease(api, "nothing")
    assert (status, body["limits"]) == (200, [])
    assert (await api.post(f"{V2}/leases/{body['lease_id']}/renew", {"lease_duration": 300}))[0] == 204
    assert await api.post(f"{V2}/increment", {"names": ["nothing"], "slots": 1}) == (200, [])
    assert await api.post(f"{V2}/decrement", {"names": ["nothing"], "slots": 1}) == (200, [])
    await limit(api, "off", 0, active=False)
    assert (await lease(api, "off"))[1]["limits"][0]["name"] == "off"
    assert await active(api, "off") == 0


async def test_a_lease_that_ran_out_counts_for_nothing_and_can_not_come_back(api: ApiClient) -> None:
    await limit(api, number=1)
    held = (await lease(api, "db", lease_duration=60))[1]["lease_id"]
    await age(api, 59)
    assert (await lease(api, "db"))[0] == 423
    assert (await api.post(f"{V2}/leases/{held}/renew", {"lease_duration": 60}))[0] == 204
    await age(api, 59)
    assert await active(api) == 1
    await age(api, 2)
    assert await active(api) == 0
    status, body = await api.post(f"{V2}/leases/{held}/renew", {"lease_duration": 60})
    assert status == 410
    assert "expired" in body["detail"]
    assert (await lease(api, "db"))[0] == 200
    assert (await api.post(f"{V2}/decrement-with-lease", {"lease_id": held}))[0] == 204
    assert await active(api) == 1
    assert (await api.post(f"{V2}/leases/{uuid4()}/renew"))[0] == 410
    assert (await api.post(f"{V2}/leases/{held}/renew", {"lease_duration": 59}))[0] == 422


async def test_all_limits_or_none(api: ApiClient) -> None:
    await limit(api, "a", 5)
    await limit(api, "b", 1)
    assert (await lease(api, "b"))[0] == 200
    assert (await lease(api, "a", "b"))[0] == 423
    assert (await active(api, "a"), await active(api, "b")) == (0, 1)
    status, body = await lease(api, "a", "b", slots=2)
    assert (status, body["detail"]) == (422, "Slots requested is greater than the limit")
    assert (await lease(api, "a", "a", slots=3))[0] == 200
    assert await active(api, "a") == 3
    assert (await lease(api, "a", slots=0))[0] == 422
    assert (await lease(api, "a", mode="other"))[0] == 422
    assert (await lease(api, "a", holder={"type": "worker", "id": str(uuid4())}))[0] == 422


async def test_no_slot_is_given_twice_when_all_ask_at_once(api: ApiClient) -> None:
    await limit(api, number=3)
    answers: list[int] = []

    async def ask() -> None:
        answers.append((await lease(api, "db"))[0])

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(ask)
    assert sorted(answers) == [200] * 3 + [423] * 9
    assert await active(api) == 3


# --- without a lease -----------------------------------------------------------------------------------------------------


async def test_slots_without_a_lease_are_counted_until_they_are_given_back(api: ApiClient) -> None:
    await limit(api)
    status, body = await api.post(f"{V2}/increment", {"names": ["db"], "slots": 2, "create_if_missing": None})
    assert status == 200
    TypeAdapter(list[MinimalConcurrencyLimitResponse]).validate_python(body)
    assert (await lease(api, "db"))[0] == 423
    status, body = await api.post(f"{V2}/decrement", {"names": ["db"], "slots": 1, "occupancy_seconds": 12.5})
    assert (status, body[0]["name"]) == (200, "db")
    assert await active(api) == 1
    await api.post(f"{V2}/decrement", {"names": ["db"], "slots": 9})
    assert await active(api) == 0


async def test_an_operator_can_set_the_slots_in_use(api: ApiClient) -> None:
    await limit(api, number=5)
    old, new = (await lease(api, "db", slots=2))[1], (await lease(api, "db", slots=2))[1]
    assert (await api.patch(f"{V2}/db", {"active_slots": 5}))[0] == 204
    assert await active(api) == 5
    assert (await api.patch(f"{V2}/db", {"active_slots": 3}))[0] == 204
    assert await active(api) == 3
    await api.post(f"{V2}/decrement-with-lease", {"lease_id": old["lease_id"]})
    assert await active(api) == 3
    await api.post(f"{V2}/decrement-with-lease", {"lease_id": new["lease_id"]})
    assert await active(api) == 1
    assert (await api.patch(f"{V2}/db", {"active_slots": 0}))[0] == 204
    assert await active(api) == 0


async def test_a_rate_limit_gives_slots_back_with_time(api: ApiClient) -> None:
    await limit(api, "calls", 10, slot_decay_per_second=0.5)
    take = {"names": ["calls"], "slots": 10, "mode": "rate_limit"}
    assert (await api.post(f"{V2}/increment", take))[0] == 200
    one = {**take, "slots": 1}
    response = await api.http.post(f"/api{V2}/increment", json=one)
    assert response.status == 423
    assert 1.3 <= float(response.headers["Retry-After"]) <= 2.7
    await age(api, 2)
    assert await active(api, "calls") == 9
    assert (await api.post(f"{V2}/increment", one))[0] == 200
    assert (await api.post(f"{V2}/increment", one))[0] == 423
    await age(api, 1000)
    assert await active(api, "calls") == 0
    held = (await lease(api, "calls", slots=4))[1]["lease_id"]
    assert await active(api, "calls") == 4
    await api.post(f"{V2}/decrement-with-lease", {"lease_id": held})
    assert await active(api, "calls") == 0


async def test_a_rate_needs_limits_that_decay(api: ApiClient) -> None:
    await limit(api)
    status, body = await api.post(f"{V2}/increment", {"names": ["db"], "slots": 1, "mode": "rate_limit"})
    assert status == 422
    assert "'db'" in body["detail"]


async def test_a_limit_that_starts_or_stops_to_decay_keeps_what_is_taken(api: ApiClient) -> None:
    await limit(api, number=5)
    await lease(api, "db", slots=3)
    await api.patch(f"{V2}/db", {"slot_decay_per_second": 0.001})
    assert await active(api) == 3
    await api.patch(f"{V2}/db", {"slot_decay_per_second": 0})
    assert await active(api) == 3


# --- limits by tag -------------------------------------------------------------------------------------------------------


async def test_a_tags_limit_is_the_limit_called_tag(api: ApiClient) -> None:
    status, made = await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1})
    assert status == 201
    ConcurrencyLimit.model_validate(made)
    assert await active(api, "tag:db") == 0
    await limit(api, "plain")
    status, again = await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 2})
    assert (status, again["id"], again["concurrency_limit"]) == (200, made["id"], 2)
    runs = [str(uuid4()) for _ in range(2)]
    for run in runs:
        holder = {"type": "task_run", "id": run}
        assert (await lease(api, "tag:db", holder=holder))[0] == 200
    status, found = await api.get("/concurrency_limits/tag/db")
    assert (status, found["active_slots"]) == (200, runs)
    assert await api.get(f"/concurrency_limits/{made['id']}") == (200, found)
    assert await api.post("/concurrency_limits/filter", {}) == (200, [found])
    assert await api.post("/concurrency_limits/tag/db/reset", {"slot_override": [runs[1]]}) == (200, None)
    assert (await api.get("/concurrency_limits/tag/db"))[1]["active_slots"] == [runs[1]]
    assert await api.post("/concurrency_limits/tag/db/reset") == (200, None)
    assert await active(api, "tag:db") == 0
    assert (await api.delete("/concurrency_limits/tag/db"))[0] == 200
    assert (await api.get("/concurrency_limits/tag/db"))[0] == 404
    other = (await api.get(f"{V2}/plain"))[1]
    assert (await api.get(f"/concurrency_limits/{other['id']}"))[0] == 404
    assert (await api.delete(f"/concurrency_limits/{other['id']}"))[0] == 404


async def test_old_clients_take_and_return_a_tags_slot(api: ApiClient) -> None:
    made = (await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1}))[1]
    run = str(uuid4())
    body = {"names": ["db", "free"], "task_run_id": run}
    assert await api.post("/concurrency_limits/increment", body) == (
        200,
        [{"id": made["id"], "name": "db", "limit": 1}],
    )
    assert (await api.get("/concurrency_limits/tag/db"))[1]["active_slots"] == [run]
    response = await api.http.post("/api/concurrency_limits/increment", json={**body, "task_run_id": str(uuid4())})
    assert response.status == 423
    assert float(response.headers["Retry-After"]) > 0
    assert (await api.post("/concurrency_limits/decrement", body))[1][0]["name"] == "tag:db"
    assert await active(api, "tag:db") == 0


async def test_what_a_container_takes_is_known_to_be_its_own(api: ApiClient) -> None:
    await limit(api)
    await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1})
    run = await a_run(api)

    def claim(tx: Tx) -> Execution:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        executions.note(tx, made.id, {"key_hash": hashed("run-key")})
        return made

    execution = await api.services.db.write(claim, workspace=ids.DEFAULT_WORKSPACE_ID)
    application = Api(api.services, Listener.RUNS).application()
    async with TestClient(TestServer(application)) as http:
        headers = {"Authorization": "Bearer run-key"}
        for path, body in (
            (f"{V2}/increment-with-lease", {"names": ["db"], "slots": 1}),
            ("/concurrency_limits/increment", {"names": ["db"], "task_run_id": str(uuid4())}),
        ):
            response = await http.post(f"/api{path}", json=body, headers=headers)
            assert response.status == 200, await response.text()
    await lease(api, "db")
    assert (await active(api), await active(api, "tag:db")) == (2, 1)
    given_back = await api.services.db.write(
        lambda tx: execution_leases.release_all(tx, execution.id, run), workspace=ids.DEFAULT_WORKSPACE_ID
    )
    assert given_back == 2
    assert (await active(api), await active(api, "tag:db")) == (1, 0)


async def test_a_task_run_that_asks_twice_holds_one_slot_of_a_tag(api: ApiClient) -> None:
    await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1})
    body = {"names": ["db"], "task_run_id": str(uuid4())}
    assert [(await api.post("/concurrency_limits/increment", body))[0] for _ in range(2)] == [200, 200]
    assert await active(api, "tag:db") == 1


async def leases(api: ApiClient) -> int:
    count: int = await api.services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM concurrency_leases"))
    return count


async def test_a_tag_without_a_limit_leaves_nothing_behind(api: ApiClient) -> None:
    await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1})
    body = {"names": ["free"], "task_run_id": str(uuid4())}
    assert await api.post("/concurrency_limits/increment", body) == (200, [])
    assert await api.post("/concurrency_limits/decrement", body) == (200, [])
    assert await leases(api) == 0
    body["names"] = ["db"]
    for _ in range(2):
        assert (await api.post("/concurrency_limits/increment", body))[0] == 200
    assert await leases(api) == 1, "the second time it holds its slot already"


@pytest.mark.parametrize("how", ["deleted", "reset"])
async def test_who_lost_its_only_slot_for_ever_has_no_lease(api: ApiClient, how: str) -> None:
    await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": 1})
    await api.post("/concurrency_limits/increment", {"names": ["db"], "task_run_id": str(uuid4())})
    assert await leases(api) == 1
    if how == "deleted":
        assert (await api.delete("/concurrency_limits/tag/db"))[0] == 200
    else:
        assert (await api.post("/concurrency_limits/tag/db/reset", {}))[0] == 200
    assert await leases(api) == 0


async def test_what_many_leases_of_a_container_hold_is_given_back_at_once(
    api: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await limit(api, number=500)
    await limit(api, name="rate", number=500, slot_decay_per_second=0.001)
    run = await a_run(api)
    read: list[str] = []
    one = concurrency._one
    monkeypatch.setattr(concurrency, "_one", lambda tx, limit_id: (read.append(limit_id), one(tx, limit_id))[1])

    def body(tx: Tx) -> int:
        made = executions.insert(tx, flow_run_id=run, work_pool_id=None, driver="fake")
        for _ in range(100):
            for names in (["db", "rate"], ["nothing"]):
                concurrency.acquire(tx, names, 2, "concurrency", lease_seconds=300, execution_id=made.id)
        return execution_leases.release_all(tx, made.id, run)

    assert await api.services.db.write(body, workspace=ids.DEFAULT_WORKSPACE_ID) == 200
    assert len(read) == 2, "each limit is read once"
    assert (await active(api), await active(api, "rate"), await leases(api)) == (0, 0, 0)


async def test_numbers_of_slots_are_bounded(api: ApiClient) -> None:
    assert (await api.post("/concurrency_limits/", {"tag": "db", "concurrency_limit": -5}))[0] == 422
    await limit(api, number=2**63 - 1)
    assert (await lease(api, "db", slots=2**62))[0] == 422
    assert [(await lease(api, "db", slots=10**12))[0] for _ in range(2)] == [200, 200]
    assert await active(api) == 2 * 10**12


async def test_another_workspace_has_limits_of_its_own(api: ApiClient, other: ApiClient) -> None:
    made = await limit(api, number=1)
    held = (await lease(api, "db"))[1]["lease_id"]
    tagged = (await api.post("/concurrency_limits/", {"tag": "t", "concurrency_limit": 1}))[1]
    assert await other.post(f"{V2}/filter", {}) == (200, [])
    assert await other.post("/concurrency_limits/filter", {}) == (200, [])
    assert (await lease(other, "db"))[1]["limits"] == []
    for method, path, body in (
        ("GET", f"{V2}/db", None),
        ("GET", f"{V2}/{made['id']}", None),
        ("PATCH", f"{V2}/db", {"limit": 9}),
        ("DELETE", f"{V2}/{made['id']}", None),
        ("GET", f"/concurrency_limits/{tagged['id']}", None),
        ("GET", "/concurrency_limits/tag/t", None),
        ("POST", "/concurrency_limits/tag/t/reset", {}),
        ("DELETE", "/concurrency_limits/tag/t", None),
        ("DELETE", f"/concurrency_limits/{tagged['id']}", None),
    ):
        assert (await other.call(method, path, body))[0] == 404, (method, path)
    assert (await other.post(f"{V2}/leases/{held}/renew", {}))[0] == 410
    assert (await other.post(f"{V2}/decrement-with-lease", {"lease_id": held}))[0] == 204
    assert await active(api) == 1
