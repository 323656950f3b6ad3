"""The audit log: every change by somebody is in it, in the change's own transaction; refusals soon after; nothing secret ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api import rights
from managedd.api.app import Api
from managedd.api.audit import MAX_REFUSALS
from managedd.api.auth import Listener
from managedd.api.surface import all_operations
from managedd.errors import ManagedError, unavailable
from managedd.model.access import Level, OfRuns
from managedd.store import audit
from managedd.store.audit import Entry
from managedd.wire.audit import AuditPage
from tests.api.conftest import ApiClient
from tests.api.test_workspaces_and_keys import (
    OPERATOR,
    _two,
    holding,
    host,
    make_key,
    make_key_as_operator,
    make_workspace,
    way,
)
from tests.support.api_keys import bearer, make_run_key

if TYPE_CHECKING:
    from managedd.api.context import Services
    from managedd.store.database import Tx

__all__ = ["host"]

pytestmark = pytest.mark.anyio

TRAFFIC = ("/events", "/logs/", "/task_runs/", "/artifacts/", "concurrency_limits/", "get_", "heartbeat")


async def entries(api: ApiClient, path: str = "/managed/audit/all", **options: Any) -> list[dict[str, Any]]:
    status, page = await api.get(path, **options)
    assert status == 200, page
    AuditPage.model_validate(page)
    found: list[dict[str, Any]] = page["entries"]
    return found


# --- what is recorded --------------------------------------------------------------------------------------------------


def test_every_operation_that_changes_something_is_recorded_but_traffic() -> None:
    declared = {f"{operation.method} {operation.path}": rights.rule_of(operation) for operation in all_operations()}
    assert declared.keys() >= rights.RECORDED
    for line, rule in declared.items():
        reads = line.startswith(("GET ", "WS ")) or rule.level <= Level.VIEW
        if reads:
            assert line not in rights.RECORDED
        elif rule.level >= Level.BUILD:
            assert line in rights.RECORDED
    at_work = {line for line, rule in declared.items() if rule.level == Level.RUN and not line.startswith("WS ")}
    left = at_work - rights.RECORDED
    assert all(any(word in line for word in TRAFFIC) for line in left), left
    assert declared["POST /flow_runs/"] == rights.Rule(Level.RUN, OfRuns.STATED)
    assert {"POST /flow_runs/", "POST /flow_runs/{id}/set_state", "DELETE /flow_runs/{id}"} <= rights.RECORDED


async def test_a_change_is_recorded_with_who_where_and_what_and_no_body(host: ApiClient, closed: ApiClient) -> None:
    home, _ = await _two(closed)
    key = await make_key_as_operator(closed.services, home, "developer", name="laptop")
    status, made = await closed.post(
        f"{way(home)}/variables/", {"name": "password", "value": "hunter2"}, **holding(key)
    )
    assert status == 201
    assert (await closed.delete(f"{way(home)}/variables/{made['id']}", **holding(key)))[0] == 204
    deleted, created = await entries(host)
    assert (created["operation"], created["status"]) == ("POST /variables/", 201)
    assert (deleted["operation"], deleted["status"]) == ("DELETE /variables/{id}", 204)
    assert deleted["named"] == {"id": made["id"]}
    for entry in (deleted, created):
        assert (entry["actor"], entry["actor_id"], entry["actor_name"]) == ("key", key["id"], "laptop")
        assert (entry["account"], entry["workspace"], entry["address"]) == ("acme", "home", "127.0.0.1")
    assert "hunter2" not in str((deleted, created))
    stored = await closed.services.db.read(lambda tx: str([tuple(row) for row in tx.all("SELECT * FROM audit")]))
    assert "hunter2" not in stored
    assert key["key"] not in stored


async def test_who_is_the_operator_and_who_has_the_auth_string(host: ApiClient, closed: ApiClient) -> None:
    await make_workspace(host, "acme", "prod")
    assert (await closed.post("/flows/", {"name": "f"}, headers=OPERATOR))[0] == 201
    by_client, by_operator = await entries(host)
    assert (by_client["actor"], by_client["workspace"]) == ("client", "default")
    assert (by_operator["actor"], by_operator["workspace_id"]) == ("operator", None)
    assert by_operator["named"] == {"workspace": "acme/prod"}


async def test_a_change_that_does_not_happen_is_not_recorded_and_one_request_is_one_entry(api: ApiClient) -> None:
    assert (await api.delete(f"/variables/{ids.new_id()}"))[0] == 404
    assert (await api.post("/variables/", {"name": "UPPER case", "value": 1}))[0] == 422
    assert await entries(api) == []
    _, flow = await api.post("/flows/", {"name": "f"})
    assert (await api.post("/deployments/", {"name": "d", "flow_id": flow["id"]}))[0] == 201
    assert [entry["operation"] for entry in await entries(api)] == ["POST /deployments/", "POST /flows/"]


async def test_reading_and_traffic_are_not_recorded(api: ApiClient) -> None:
    _, flow = await api.post("/flows/", {"name": "f"})
    _, run = await api.post("/flow_runs/", {"flow_id": flow["id"]})
    before = len(await entries(api))
    assert (await api.post("/flows/filter", {}))[0] == 200
    assert (await api.post("/task_runs/", {"flow_run_id": run["id"], "task_key": "t", "dynamic_key": "0"}))[0] == 201
    assert (await api.post("/artifacts/", {"key": "k", "data": "d"}))[0] == 201
    assert (await api.post("/logs/", []))[0] == 201
    assert len(await entries(api)) == before == 2


async def test_what_a_run_writes_of_the_workspace_is_recorded(services: Services, api: ApiClient) -> None:
    flow = (await api.post("/flows/", {"name": "f"}))[1]
    run = (await api.post("/flow_runs/", {"flow_id": flow["id"]}))[1]["id"]
    key = await make_run_key(api.services.db, run)
    async with TestClient(TestServer(Api(services, Listener.RUNS).application())) as http:
        runs = ApiClient(http=http, services=services)
        assert (await runs.post("/variables/", {"name": "v", "value": "secret"}, headers=bearer(key)))[0] == 201
    newest = (await entries(api))[0]
    assert (newest["operation"], newest["actor"], newest["actor_id"]) == ("POST /variables/", "run", run)


async def test_what_a_run_does_is_not_recorded_but_what_it_is_refused(services: Services, api: ApiClient) -> None:
    _, flow = await api.post("/flows/", {"name": "f"})
    run = (await api.post("/flow_runs/", {"flow_id": flow["id"]}))[1]["id"]
    key = await make_run_key(api.services.db, run)
    before = len(await entries(api))
    async with TestClient(TestServer(Api(services, Listener.RUNS).application())) as http:
        runs = ApiClient(http=http, services=services)
        state = {"state": {"type": "RUNNING"}}
        status, _ = await runs.post(f"/flow_runs/{run}/set_state", state, headers=bearer(key))
        assert status in {200, 201}
        assert len(await entries(api)) == before
        assert (await runs.post("/managed/keys", {"name": "k", "role": "admin"}, headers=bearer(key)))[0] == 403
    await services.refusals.write()
    refused = (await entries(api))[0]
    assert (refused["actor"], refused["actor_id"], refused["status"]) == ("run", run, 403)


# --- refusals ----------------------------------------------------------------------------------------------------------


async def test_refusals_of_a_minute_are_one_entry_with_their_number(host: ApiClient, closed: ApiClient) -> None:
    home, _ = await _two(closed)
    viewer = await make_key_as_operator(closed.services, home, "viewer")
    for _ in range(3):
        assert (await closed.delete(f"{way(home)}/flows/{ids.new_id()}", **holding(viewer)))[0] == 403
        assert (await closed.post("/flows/filter", {}, headers={"Authorization": "Bearer mgk_wrong"}))[0] == 401
    assert await entries(host) == []
    await closed.services.refusals.write()
    shown = {entry["operation"]: entry for entry in await entries(host)}
    assert shown.keys() == {"authenticate", "DELETE /flows/{id}"}
    wrong, forbidden = shown["authenticate"], shown["DELETE /flows/{id}"]
    assert (wrong["status"], wrong["times"], wrong["actor"], wrong["address"]) == (401, 3, "unknown", "127.0.0.1")
    assert (forbidden["status"], forbidden["times"], forbidden["actor_id"]) == (403, 3, viewer["id"])
    assert forbidden["workspace_id"] == home["id"]
    await closed.services.refusals.write()
    assert len(await entries(host)) == 2


async def test_refusals_wait_for_a_store_that_takes_nothing(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: Any) -> None:
        # Another one comes meanwhile.
        services.refusals.wrong_credential("203.0.113.1")
        raise unavailable("the store is busy")

    for _ in range(2):
        services.refusals.wrong_credential("203.0.113.1")
    with monkeypatch.context() as patched:
        patched.setattr(services.db, "write", busy)
        with pytest.raises(ManagedError, match="busy"):
            await services.refusals.write()
    await services.refusals.write()
    found = await services.db.read(lambda tx: [tuple(row) for row in tx.all("SELECT address, times FROM audit")])
    assert found == [("203.0.113.1", 3)]


async def test_what_is_refused_is_written_soon_by_itself_and_at_the_end(services: Services) -> None:
    async def count() -> int:
        found: int = await services.db.read(lambda tx: tx.scalar("SELECT count(*) FROM audit"))
        return found

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(services.refusals.run)
        services.refusals.wrong_credential("203.0.113.1")
        with anyio.fail_after(10):
            while not await count():  # noqa: ASYNC110 - nobody tells
                await anyio.sleep(0.01)
        services.refusals.wrong_credential("203.0.113.2")
        tasks.cancel_scope.cancel()
    assert await count() == 2


async def test_however_many_are_refused_what_is_kept_is_bounded(services: Services) -> None:
    for number in range(MAX_REFUSALS + 5):
        services.refusals.wrong_credential(f"2001:db8:0:{number:x}::1")
    # The same host, from another of its addresses.
    services.refusals.wrong_credential("2001:db8:0:1::2")
    await services.refusals.write()
    found = await services.db.read(lambda tx: tx.one("SELECT count(*), sum(times), max(times) FROM audit"))
    assert tuple(found or ()) == (MAX_REFUSALS, MAX_REFUSALS + 1, 2)


# --- reading -----------------------------------------------------------------------------------------------------------


async def test_an_admin_reads_its_own_workspace_and_nobody_else_any(host: ApiClient, closed: ApiClient) -> None:
    home, away = await _two(closed)
    admin = await make_key_as_operator(closed.services, home, "admin")
    developer = await make_key_as_operator(closed.services, home, "developer")
    for workspace in (home, away):
        await make_key(host, way(workspace), name="made")
    mine = await entries(closed, f"{way(home)}/managed/audit", **holding(admin))
    assert [(entry["workspace_id"], entry["named"]) for entry in mine] == [(home["id"], {"key": "made"})]
    assert (await closed.get(f"{way(away)}/managed/audit", **holding(admin)))[0] == 404
    assert (await closed.get("/managed/audit/all", **holding(admin)))[0] == 403
    assert (await closed.get(f"{way(home)}/managed/audit", **holding(developer)))[0] == 403
    assert len(await entries(closed, headers=OPERATOR)) == 2


async def test_entries_are_read_page_by_page_and_by_actor_and_time(api: ApiClient) -> None:
    for number in range(5):
        await api.post("/variables/", {"name": f"v{number}", "value": number})
    first = (await api.get("/managed/audit?limit=2"))[1]
    second = (await api.get(f"/managed/audit?limit=2&before={first['next']}"))[1]
    third = (await api.get(f"/managed/audit?limit=2&before={second['next']}"))[1]
    found = [entry["id"] for page in (first, second, third) for entry in page["entries"]]
    assert found == [entry["id"] for entry in await entries(api)]
    assert (len(set(found)), third["next"]) == (5, None)
    assert len(await entries(api, "/managed/audit?actor=operator")) == 5
    assert await entries(api, "/managed/audit?actor=somebody") == []
    at = (await entries(api))[2]["at"]
    assert len(await entries(api, f"/managed/audit?since={at}")) == 3
    assert (await api.get("/managed/audit?limit=0"))[0] == 422
    for unknown in ("1", ids.new_id()):
        status, body = await api.get(f"/managed/audit?before={unknown}")
        assert (status, "before" in str(body)) == (422, True)


# --- retention ---------------------------------------------------------------------------------------------------------


async def test_entries_go_by_age_and_by_number_the_oldest_first(services: Services) -> None:
    entry = Entry(workspace_id=None, actor="operator", operation="POST /flows/", status=201)
    await services.db.write(lambda tx: audit.add(tx, [entry] * 10))
    await services.db.write(lambda tx: tx.execute("UPDATE audit SET at = id").close())

    async def left() -> list[int]:
        return [row[0] for row in await services.db.read(lambda tx: tx.all("SELECT id FROM audit ORDER BY id"))]

    assert await services.db.write(lambda tx: audit.forget(tx, before_us=4, keep_rows=1000)) == 3
    assert await left() == [4, 5, 6, 7, 8, 9, 10]
    assert await services.db.write(lambda tx: audit.forget(tx, before_us=0, keep_rows=2)) == 5
    assert await left() == [9, 10]


async def test_refusals_push_no_change_out(services: Services) -> None:
    change = Entry(workspace_id=None, actor="operator", operation="POST /flows/", status=201)
    refusal = Entry(workspace_id=None, actor="unknown", operation="authenticate", status=401)
    await services.db.write(lambda tx: audit.add(tx, [change] * 20 + [refusal] * 2000))
    while await services.db.write(lambda tx: audit.forget(tx, before_us=0, keep_rows=50)):
        pass
    left = await services.db.read(lambda tx: tx.all("SELECT status, count(*) FROM audit GROUP BY status"))
    assert {row[0]: row[1] for row in left} == {201: 20, 401: 5}


async def test_who_has_most_entries_loses_first_and_nobody_elses(services: Services) -> None:
    busy, quiet, gone = (ids.new_id() for _ in range(3))
    amounts = {(quiet, 201): 30, (busy, 201): 2000, (None, 201): 20, (gone, 201): 10, (busy, 403): 900, (quiet, 403): 4}

    def fill(tx: Tx) -> None:
        for (workspace, status), amount in amounts.items():
            entry = Entry(workspace_id=workspace, actor="key", operation="POST /flows/", status=status)
            audit.add(tx, [entry] * amount)

    await services.db.write(fill)
    while await services.db.write(lambda tx: audit.forget(tx, before_us=0, keep_rows=200)):
        pass
    left = await services.db.read(
        lambda tx: tx.all("SELECT workspace_id, status, count(*), min(id) FROM audit GROUP BY 1, 2")
    )
    assert {(row[0], row[1]): row[2] for row in left} == {**amounts, (busy, 201): 120, (busy, 403): 16}
    # The busy one's oldest went; of its entries there were 30 others before, and 2,000 of its own.
    assert {row[3] for row in left if (row[0], row[1]) == (busy, 201)} == {30 + 2000 - 120 + 1}


def test_an_entry_of_a_long_name_is_cut() -> None:
    assert len(audit._names({"name": "x" * 5000})) < 300
