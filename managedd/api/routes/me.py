"""Me: who a key belongs to and what it opens, as Cloud tells it to `prefect cloud login`."""

from __future__ import annotations

import uuid
from typing import Any

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.store.workspaces import Workspace, every
from managedd.wire.admin import CloudWorkspace

TAG = "Me"


async def _open_workspaces(ctx: Context) -> list[Workspace]:
    """The workspaces that the caller may enter."""
    only = ctx.actor.workspace_id
    return [each for each in await ctx.read(every) if only is None or each.id == only]


@operation("GET", "/me/", tag=TAG, returns=dict[str, Any], scoped=False)
async def read_me(ctx: Context) -> dict[str, Any]:
    """Who asks: the kind of the credential, since keys here belong to no person."""
    accounts = {each.account_id for each in await _open_workspaces(ctx)}
    who = f"{ctx.actor.kind}:{ctx.actor.execution_id or ''}"
    return {
        "id": str(uuid.uuid5(uuid.UUID(ctx.account), who)),
        "handle": ctx.actor.kind,
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
        for each in await _open_workspaces(ctx)
    ]


@operation("GET", "/me/accounts", tag=TAG, returns=list[dict[str, Any]], scoped=False)
async def read_my_accounts(ctx: Context) -> list[dict[str, Any]]:
    """The accounts of the workspaces that the caller's key opens."""
    accounts = {each.account_id: each.account for each in await _open_workspaces(ctx)}
    return [
        {"account_id": account_id, "account_name": handle, "account_handle": handle}
        for account_id, handle in accounts.items()
    ]
