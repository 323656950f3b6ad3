"""Me: who a key belongs to and what it opens, as Cloud tells it to `prefect cloud login`."""

from __future__ import annotations

import uuid
from typing import Any

from managedd.api.context import Context
from managedd.api.login import callback_of
from managedd.api.operation import operation
from managedd.store.workspaces import Workspace, every
from managedd.wire.admin import CloudWorkspace, LoginCallback

TAG = "Me"


async def open_workspaces(ctx: Context) -> list[Workspace]:
    """The workspaces that the caller may enter."""
    only = ctx.actor.workspace_id
    return [each for each in await ctx.read(every) if only is None or each.id == only]


@operation("GET", "/me/", tag=TAG, returns=dict[str, Any], scoped=False)
async def read_me(ctx: Context) -> dict[str, Any]:
    """Who asks: the key, as keys here belong to no person; else the kind of the credential."""
    accounts = {each.account_id for each in await open_workspaces(ctx)}
    actor = ctx.actor
    who = actor.key_id or actor.execution_id or str(uuid.uuid5(uuid.UUID(ctx.account), actor.kind))
    return {
        "id": who,
        "handle": actor.name or actor.kind,
        "first_name": "",
        "last_name": "",
        "email": None,
        "account_ids": sorted(accounts),
    }


@operation("GET", "/me/workspaces", tag=TAG, returns=list[CloudWorkspace], scoped=False)
async def read_my_workspaces(ctx: Context) -> list[dict[str, Any]]:
    """The workspaces that the caller's key opens."""
    return [
        {
            "account_id": each.account_id,
            "account_name": each.account,
            "account_handle": each.account,
            "workspace_id": each.id,
            "workspace_name": each.name,
            "workspace_description": each.description,
            "workspace_handle": each.handle,
        }
        for each in await open_workspaces(ctx)
    ]


@operation("GET", "/me/accounts", tag=TAG, returns=list[dict[str, Any]], scoped=False)
async def read_my_accounts(ctx: Context) -> list[dict[str, Any]]:
    """The accounts of the workspaces that the caller's key opens."""
    accounts = {each.account_id: each.account for each in await open_workspaces(ctx)}
    return [
        {"account_id": account_id, "account_name": handle, "account_handle": handle}
        for account_id, handle in accounts.items()
    ]


@operation("GET", "/me/login", tag=TAG, returns=LoginCallback, scoped=False)
async def read_login_callback(ctx: Context, *, callback: str) -> dict[str, str]:
    """Where a page hands a key to the `prefect cloud login` that waits for it: `{"api_key": …}`, or else `{"reason": …}`."""
    address = callback_of(callback)
    return {"success": f"{address}/success", "failure": f"{address}/failure"}
