"""Workspaces and keys over the API: who may make which, and what is refused."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.sessions import COOKIE
from managedd.bus import Topic
from managedd.model import keys as made_keys
from managedd.store import keys
from managedd.wire.keys import KeyMade, KeyView
from managedd.wire.workspaces import WorkspaceView
from tests.api.conftest import ApiClient
from tests.api.test_browser_sessions import AUTH, begun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.api.context import Services

pytestmark = pytest.mark.anyio

OPERATOR = {"Authorization": f"Basic {base64.b64encode(b'admin:secret').decode()}"}
"""The credential of the `closed` API."""


@pytest.fixture
async def host(services: Services) -> AsyncIterator[ApiClient]:
    """The API as commands on the daemon's host reach it."""
    async with TestClient(TestServer(Api(services, Listener.SOCKET).application())) as http:
        yield ApiClient(http=http, services=services)


async def make_workspace(api: ApiClient, account: str, handle: str, **more: Any) -> dict[str, Any]:
    status, made = await api.post("/managed/workspaces", {"account": account, "handle": handle, **more})
    assert status == 201, made
    WorkspaceView.model_validate(made)
    found: dict[str, Any] = made
    return found


def way(workspace: dict[str, Any]) -> str:
    return f"/accounts/{workspace['account_id']}/workspaces/{workspace['id']}"


async def make_key(api: ApiClient, path: str = "", **values: Any) -> dict[str, Any]:
    status, made = await api.post(f"{path}/managed/keys", {"name": "k", "role": "viewer", **values})
    assert status == 201, made
    KeyMade.model_validate(made)
    found: dict[str, Any] = made
    return found


def holding(key: dict[str, Any]) -> dict[str, Any]:
    return {"headers": {"Authorization": f"Bearer {key['key']}"}}


# --- workspaces --------------------------------------------------------------------------------------------------------


async def test_workspaces_of_one_account_share_it_and_are_found_under_their_url(api: ApiClient) -> None:
    one = await make_workspace(api, "acme", "prod", name="Production", plan="free")
    two = await make_workspace(api, "acme", "test")
    assert one["account_id"] == two["account_id"]
    assert (one["name"], one["plan"], two["name"], two["plan"]) == ("Production", "free", "test", "pro")
    assert one["api_url"].endswith(f"/api{way(one)}")
    status, flows = await api.post(f"{way(one)}/flows/filter", {})
    assert (status, flows) == (200, [])
    status, found = await api.get("/managed/workspaces")
    assert [(each["account"], each["handle"]) for each in found] == [
        ("acme", "prod"),
        ("acme", "test"),
        ("default", "default"),
    ]
    assert found[2]["api_url"].endswith("/api")


@pytest.mark.parametrize("handle", ["", "-a", "A", "a/b", "a b", "ä", "a\n", "x" * 64])
async def test_a_handle_is_letters_digits_and_dashes(api: ApiClient, handle: str) -> None:
    assert (await api.post("/managed/workspaces", {"account": "acme", "handle": handle}))[0] == 422
    assert (await api.post("/managed/workspaces", {"account": handle, "handle": "prod"}))[0] == 422


async def test_a_second_workspace_needs_runs_that_are_kept_apart(api: ApiClient) -> None:
    engine = {"driver": "process"}
    api.services.facts["engine"] = lambda: engine
    status, body = await api.post("/managed/workspaces", {"account": "acme", "handle": "prod"})
    assert (status, "process.trusted" in body["detail"], "2 workspaces" in body["detail"]) == (409, True, True)
    settings = api.services.settings
    trusting = settings.process.model_copy(update={"trusted": True})
    api.services.settings = settings.model_copy(update={"process": trusting})
    await make_workspace(api, "acme", "prod")
    api.services.settings = settings
    engine["driver"] = "docker"
    await make_workspace(api, "acme", "test")


async def test_a_handle_is_taken_once_in_an_account(api: ApiClient) -> None:
    await make_workspace(api, "acme", "prod")
    other = await make_workspace(api, "other", "prod")
    status, body = await api.post("/managed/workspaces", {"account": "acme", "handle": "prod"})
    assert (status, body["detail"]) == (409, "There is a workspace acme/prod already")
    await make_workspace(api, "other", "test")
    assert (await api.patch(f"/managed/workspaces/{other['id']}", {"handle": "test"}))[0] == 409


async def test_a_renamed_workspace_keeps_its_url(api: ApiClient) -> None:
    made = await make_workspace(api, "acme", "prod")
    status, renamed = await api.patch(f"/managed/workspaces/{made['id']}", {"handle": "live", "name": "Live"})
    assert status == 200
    assert (renamed["handle"], renamed["name"]) == ("live", "Live")
    assert renamed["api_url"] == made["api_url"]


async def test_the_default_workspace_keeps_its_handle_and_may_have_a_name(api: ApiClient) -> None:
    default = ids.DEFAULT_WORKSPACE_ID
    assert (await api.patch(f"/managed/workspaces/{default}", {"handle": "x"}))[0] == 409
    status, body = await api.patch(f"/managed/workspaces/{default}", {"name": "House"})
    assert (status, body["name"], body["handle"]) == (200, "House", "default")


async def test_another_plan_wakes_what_waits(api: ApiClient) -> None:
    made = await make_workspace(api, "acme", "prod")
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        status, body = await api.patch(f"/managed/workspaces/{made['id']}", {"plan": "free"})
        assert (status, body["plan"]) == (200, "free")
        assert woken.take()
    status, body = await api.patch(f"/managed/workspaces/{made['id']}", {"plan": "huge"})
    assert status == 422
    assert "plans: free, pro, unlimited" in body["detail"]
    assert (await api.patch(f"/managed/workspaces/{ids.new_id()}", {"plan": "free"}))[0] == 404


async def test_a_deleted_workspace_is_nowhere_and_what_it_opened_is_closed(host: ApiClient, closed: ApiClient) -> None:
    home, away = await _two(closed)
    key = await make_key_as_operator(closed.services, home, "developer")
    base = f"/api{way(home)}"
    browser = {"Cookie": f"{COOKIE}={await begun(closed, AUTH)}", "Sec-Fetch-Site": "same-origin"}
    async with (
        closed.http.ws_connect(f"{base}/events/in", autoping=False, **holding(key)) as by_key,
        closed.http.ws_connect(f"{base}/events/in", autoping=False, headers=OPERATOR) as by_operator,
        closed.http.ws_connect(f"{base}/events/in", autoping=False, headers=browser) as by_browser,
    ):
        for socket in (by_key, by_operator, by_browser):
            # The pong says that whoever it is has come in.
            await socket.ping(b"x")
            assert (await socket.receive(timeout=10)).type is WSMsgType.PONG
        status, _ = await host.delete(f"/managed/workspaces/{home['id']}")
        assert status == 204
        reasons = []
        for socket in (by_key, by_operator, by_browser):
            message = await socket.receive(timeout=10)
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
            reasons.append(message.extra)
    assert reasons == ["the key has ended", *["the workspace was deleted"] * 2]
    assert (await closed.post(f"{way(home)}/flows/filter", {}, **holding(key)))[0] == 401
    assert (await host.post(f"{way(home)}/flows/filter", {}))[0] == 404
    assert (await host.get(f"{way(home)}/managed/keys"))[0] == 404
    assert (await host.delete(f"/managed/workspaces/{home['id']}"))[0] == 404
    for path, name in (("/managed/workspaces", "id"), ("/me/workspaces", "workspace_id")):
        assert home["id"] not in {each[name] for each in (await host.get(path))[1]}
    shown = (await host.get("/managed/status"))[1]["workspaces"]
    assert {each["id"] for each in shown} == {ids.DEFAULT_WORKSPACE_ID, away["id"]}
    assert (await make_workspace(host, "acme", "home"))["id"] != home["id"]


async def test_a_workspace_with_runs_under_way_is_deleted_by_force_alone(api: ApiClient) -> None:
    made = await make_workspace(api, "acme", "prod")
    prefix = way(made)
    _, flow = await api.post(f"{prefix}/flows/", {"name": "f"})
    run = {"flow_id": flow["id"], "name": "only", "state": {"type": "RUNNING"}}
    assert (await api.post(f"{prefix}/flow_runs/", run))[0] == 201
    status, body = await api.delete(f"/managed/workspaces/{made['id']}")
    assert (status, body["detail"]) == (
        409,
        "1 run is under way in acme/prod: wait, cancel them, or force",
    )
    assert len((await api.get("/managed/flow_runs?which=only"))[1]) == 1
    with api.services.bus.subscribe(Topic.SLOTS) as woken:
        assert (await api.delete(f"/managed/workspaces/{made['id']}?force=true"))[0] == 204
        assert woken.take()
    assert (await api.get("/managed/flow_runs?which=only"))[1] == []


async def test_the_default_workspace_can_not_be_deleted(api: ApiClient) -> None:
    assert (await api.delete(f"/managed/workspaces/{ids.DEFAULT_WORKSPACE_ID}?force=true"))[0] == 409


# --- keys --------------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_kept_as_a_hash(api: ApiClient) -> None:
    made = await make_key(api, name="laptop", role="developer", expires="90d")
    assert made_keys.is_key(made["key"])
    status, (listed,) = await api.get("/managed/keys")
    KeyView.model_validate(listed)
    assert status == 200
    assert "key" not in listed
    assert made["key"].startswith(listed["hint"])
    assert (listed["name"], listed["role"], listed["revoked"]) == ("laptop", "developer", None)
    row = await api.services.db.read(lambda tx: dict(tx.one("SELECT * FROM keys") or {}))
    assert made["key"] not in {str(value) for value in row.values()}
    assert row["key_hash"] == made_keys.hashed(made["key"])


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"expires": "2020-01-01"}, "has passed"),
        ({"expires": "soon"}, "allowed: a duration"),
        ({"role": "owner"}, "role"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"workspace_id": ids.new_id()}, "workspace_id"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(api: ApiClient, values: dict[str, Any], part: str) -> None:
    status, body = await api.post("/managed/keys", {"name": "k", "role": "viewer", **values})
    assert status == 422
    assert part in body["detail"]
    assert (await api.get("/managed/keys"))[1] == []


async def test_a_name_is_free_again_once_its_key_is_revoked(api: ApiClient) -> None:
    first = await make_key(api, name="ci")
    status, body = await api.post("/managed/keys", {"name": "ci", "role": "admin"})
    assert status == 409
    assert "revoke it first" in body["detail"]
    assert (await api.delete("/managed/keys/ci"))[0] == 204
    second = await make_key(api, name="ci")
    assert (await api.delete(f"/managed/keys/{second['id']}"))[0] == 204
    assert (await api.delete("/managed/keys/ci"))[0] == 404
    shown = {each["id"]: each["revoked"] for each in (await api.get("/managed/keys"))[1]}
    assert shown.keys() == {first["id"], second["id"]}
    assert None not in shown.values()


async def test_an_admin_makes_keys_of_its_own_workspace_alone(api: ApiClient, closed: ApiClient) -> None:
    home, away = await _two(closed)
    admin = await make_key_as_operator(closed.services, home, "admin")
    made = await closed.post(f"{way(home)}/managed/keys", {"name": "new", "role": "admin"}, **holding(admin))
    assert made[0] == 201
    assert made[1]["workspace_id"] == home["id"]
    for path in (way(away), ""):
        assert (await closed.post(f"{path}/managed/keys", {"name": "n", "role": "viewer"}, **holding(admin)))[0] == 404
        assert (await closed.get(f"{path}/managed/keys", **holding(admin)))[0] == 404
        assert (await closed.delete(f"{path}/managed/keys/victim", **holding(admin)))[0] == 404
    left = await closed.services.db.read(lambda tx: keys.every(tx, away["id"], 10))
    assert [(key.name, key.revoked) for key in left] == [("victim", None)]


async def test_only_an_admin_makes_keys_and_only_the_operator_workspaces(api: ApiClient, closed: ApiClient) -> None:
    home, _ = await _two(closed)
    developer = await make_key_as_operator(closed.services, home, "developer")
    admin = await make_key_as_operator(closed.services, home, "admin")
    status, body = await closed.post(f"{way(home)}/managed/keys", {"name": "n", "role": "viewer"}, **holding(developer))
    assert status == 403
    assert "the role admin" in body["detail"]
    assert (await closed.get("/managed/workspaces", **holding(admin)))[0] == 403
    assert (await closed.post("/managed/workspaces", {"account": "a", "handle": "b"}, **holding(admin)))[0] == 403
    assert (await closed.patch(f"/managed/workspaces/{home['id']}", {"plan": "unlimited"}, **holding(admin)))[0] == 403


async def test_keys_are_listed_page_by_page(api: ApiClient) -> None:
    for name in ("a", "b", "c"):
        await make_key(api, name=name)
    pages = [(await api.get(f"/managed/keys?limit=2&offset={offset}"))[1] for offset in (0, 2, 4)]
    assert [[each["name"] for each in page] for page in pages] == [["c", "b"], ["a"], []]
    assert (await api.get("/managed/keys?limit=1000"))[0] == 422


async def _two(api: ApiClient) -> tuple[dict[str, Any], dict[str, Any]]:
    """A workspace, and another one with a key called `victim`."""
    from managedd.store import workspaces

    def body(tx: Any) -> list[dict[str, Any]]:
        made = [workspaces.make(tx, account="acme", handle=handle, plan="pro") for handle in ("home", "away")]
        return [{"id": each.id, "account_id": each.account_id} for each in made]

    home, away = await api.services.db.write(body)
    await make_key_as_operator(api.services, away, "admin", name="victim")
    return home, away


async def make_key_as_operator(
    services: Services, workspace: dict[str, Any], role: str, *, name: str = "k"
) -> dict[str, Any]:
    from managedd.model.access import Role

    secret = made_keys.make()
    made = await services.db.write(
        lambda tx: keys.create(
            tx,
            workspace_id=workspace["id"],
            name=f"{name}-{role}" if name == "k" else name,
            role=Role(role),
            key_hash=made_keys.hashed(secret),
            hint=made_keys.hint(secret),
        )
    )
    return {"id": made.id, "key": secret}
