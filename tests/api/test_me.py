"""What a key opens, in Cloud's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import TypeAdapter

from managedd.ids import DEFAULT_ACCOUNT_ID, DEFAULT_WORKSPACE_ID
from managedd.wire.admin import CloudWorkspace

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
