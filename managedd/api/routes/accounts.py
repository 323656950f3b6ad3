"""Accounts, as Cloud's clients ask about them."""

from __future__ import annotations

from typing import Any

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.routes.me import open_workspaces
from managedd.errors import not_found
from managedd.wire.base import Id

TAG = "Accounts"


@operation("GET", "/accounts/{account}/settings", tag=TAG, returns=dict[str, Any], scoped=False)
async def read_account_settings(ctx: Context, account: Id) -> dict[str, Any]:
    """The settings of an account of the caller's: none, so that `prefect cloud ip-allowlist` says that there is no such thing."""
    if account not in {each.account_id for each in await open_workspaces(ctx)}:
        raise not_found("Account", account)
    return {}
