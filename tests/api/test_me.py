"""What a key opens, in Cloud's shape, and where a key may be handed to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import TypeAdapter

from managedd import ids
from managedd.api.app import Api
from managedd.api.auth import Listener
from managedd.api.login import callback_of
from managedd.errors import ManagedError
from managedd.ids import DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID
from managedd.model.access import Role
from managedd.wire.admin import CloudWorkspace
from tests.api.test_flow_runs import new_run
from tests.support.api_keys import bearer, make_key, make_run_key

if TYPE_CHECKING:
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio


async def test_every_workspace_is_listed_as_cloud_login_wants_it(api: ApiClient, other: ApiClient) -> None:
    status, found = await api.get("/me/workspaces")
    assert status == 200
    TypeAdapter(list[CloudWorkspace]).validate_python(found)
    assert [(each["account_handle"], each["workspace_handle"]) for each in found] == [
        ("default", "default"),
        ("other", "w"),
    ]
    assert found[0].keys() == CloudWorkspace.model_fields.keys()
    assert (found[0]["account_id"], found[0]["workspace_id"]) == (DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID)
    # What the client makes of it must reach the workspace.
    path = f"/accounts/{found[1]['account_id']}/workspaces/{found[1]['workspace_id']}"
    assert "/api" + path == other.prefix
    assert await api.post(f"{path}/work_pools/filter", {}) == (200, [])


async def test_who_asks_and_the_accounts(api: ApiClient) -> None:
    status, me = await api.get("/me/")
    assert (status, me["handle"], me["account_ids"]) == (200, "operator", [DEFAULT_ACCOUNT_ID])
    assert await api.get("/me/accounts") == (
        200,
        [{"account_id": DEFAULT_ACCOUNT_ID, "account_name": "default", "account_handle": "default"}],
    )


async def test_a_key_is_told_of_its_own_workspace_alone(closed: ApiClient, other: ApiClient) -> None:
    account, workspace = other.prefix.split("/")[3::2]
    key = await make_key(closed.services.db, Role.VIEWER, workspace=workspace, name="ci")
    headers = bearer(key)
    _, found = await closed.get("/me/workspaces", headers=headers)
    assert [(each["account_id"], each["workspace_id"]) for each in found] == [(account, workspace)]
    _, me = await closed.get("/me/", headers=headers)
    assert (me["handle"], me["account_ids"]) == ("ci", [account])
    _, accounts = await closed.get("/me/accounts", headers=headers)
    assert [each["account_handle"] for each in accounts] == ["other"]
    second = await make_key(closed.services.db, Role.VIEWER, workspace=workspace)
    assert (await closed.get("/me/", headers=bearer(second)))[1]["id"] != me["id"]


async def test_the_auth_string_and_the_operator_are_told_of_all(
    closed: ApiClient, api: ApiClient, other: ApiClient
) -> None:
    _, found = await closed.get("/me/workspaces", headers=bearer("admin:secret"))
    assert len(found) == 2
    async with TestClient(TestServer(Api(api.services, Listener.SOCKET).application())) as http:
        assert len((await replace(api, http=http).get("/me/workspaces"))[1]) == 2


async def test_a_run_is_told_of_its_own_workspace_alone(api: ApiClient, other: ApiClient) -> None:
    key = await make_run_key(api.services.db, (await new_run(api))["id"])
    async with TestClient(TestServer(Api(api.services, Listener.RUNS).application())) as http:
        _, found = await replace(api, http=http).get("/me/workspaces", headers=bearer(key))
        assert [each["workspace_id"] for each in found] == [DEFAULT_WORKSPACE_ID]
        assert (await http.get("/auth/client?callback=http://localhost:1")).status == 404


async def test_an_account_of_others_is_none(closed: ApiClient, other: ApiClient) -> None:
    account, workspace = other.prefix.split("/")[3::2]
    headers = bearer(await make_key(closed.services.db, workspace=workspace))
    assert await closed.get(f"/accounts/{account}/settings", headers=headers) == (200, {})
    theirs = await closed.get(f"/accounts/{DEFAULT_ACCOUNT_ID}/settings", headers=headers)
    missing = await closed.get(f"/accounts/{(nobody := ids.new_id())}/settings", headers=headers)
    assert theirs[0] == missing[0] == 404
    assert theirs[1]["detail"] == missing[1]["detail"].replace(nobody, DEFAULT_ACCOUNT_ID)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://localhost:4321", "http://localhost:4321"),
        ("http://127.0.0.1:4321/", "http://127.0.0.1:4321"),
        ("HTTP://LOCALHOST:65535", "http://localhost:65535"),
    ],
)
def test_a_callback_on_ones_own_computer_is_one(given: str, meant: str) -> None:
    assert callback_of(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "", "localhost:4321", "http://localhost", "http://localhost:0", "http://localhost:99999", "https://localhost:4321", "http://localhost:x",
        "http://example.com:4321", "http://localhost.example.com:4321", "http://localhost:4321@example.com", "http://a@localhost:4321",
        "http://localhost:4321/path", "http://localhost:4321?x", "http://localhost:4321#x", "http://localhost:4321\\@example.com", "http://[::1]:4321",
        "http://localhost:4321//", "http://127.1:4321", "http://2130706433:4321", " http://localhost:4321", "http://localhost:4321\n", "http://[x", "http://localhost:+80",
        "http://localhost:0080", "javascript://localhost:4321", "http://localhost:4321" + "/" * 300,
    ],
)  # fmt: skip
def test_anything_else_is_no_callback(given: str) -> None:
    with pytest.raises(ManagedError) as refused:
        callback_of(given)
    assert "http://localhost:PORT" in refused.value.message


async def test_the_page_of_a_browser_login_says_how_to_log_in_without_it(closed: ApiClient) -> None:
    answer = await closed.http.get("/auth/client", params={"callback": "http://localhost:4321"})
    assert (answer.status, answer.content_type) == (501, "text/plain")
    assert "prefect cloud login --key" in await answer.text()
    for wrong in ({}, {"callback": "http://example.com:4321"}):
        assert (await closed.http.get("/auth/client", params=wrong)).status == 422


async def test_a_page_is_told_where_to_hand_a_key(closed: ApiClient) -> None:
    headers = bearer("admin:secret")
    wanted = {"success": "http://localhost:4321/success", "failure": "http://localhost:4321/failure"}
    assert await closed.get("/me/login?callback=http%3A//localhost%3A4321", headers=headers) == (200, wanted)
    assert (await closed.get("/me/login?callback=http%3A//example.com%3A4321", headers=headers))[0] == 422
    assert (await closed.get("/me/login?callback=http%3A//localhost%3A4321"))[0] == 401
