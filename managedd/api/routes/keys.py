"""Keys: what opens one workspace. A key can make others, for its own workspace alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.ways import base_url, workspace_url
from managedd.clock import iso
from managedd.errors import invalid
from managedd.model import keys as made_keys
from managedd.model.expiry import expires_us
from managedd.store import keys, workspaces
from managedd.store.database import Tx
from managedd.store.rows import Wire
from managedd.wire.base import DEFAULT_LIMIT, Offset
from managedd.wire.keys import KeyCreate, KeyMade, KeyView

PageSize = Annotated[int, Field(ge=1, le=DEFAULT_LIMIT)]


@operation("GET", "/managed/keys", tag="Managed", returns=list[KeyView])
async def read_keys(ctx: Context, *, limit: PageSize = DEFAULT_LIMIT, offset: Offset = 0) -> list[Wire]:
    """Read the workspace's keys, newest first, the revoked ones among them; never the keys themselves."""
    found = await ctx.read(lambda tx: keys.every(tx, tx.workspace, limit, offset))
    return [_shown(key) for key in found]


@operation("POST", "/managed/keys", tag="Managed", returns=KeyMade, status=201)
async def create_key(ctx: Context, key: KeyCreate) -> Wire:
    """Make a key of this workspace. The answer is the only place where it stands."""
    secret = made_keys.make()

    def body(tx: Tx) -> Wire:
        made = keys.create(
            tx,
            workspace_id=tx.workspace,
            name=key.name,
            role=key.role,
            key_hash=made_keys.hashed(secret),
            hint=made_keys.hint(secret),
            expires_us=_expiry(key.expires, tx.now),
        )
        whose = workspaces.need(tx, tx.workspace)
        ctx.note.named["key"] = key.name
        return {**_shown(made), "key": secret, **_way(ctx, whose)}

    return await ctx.write(body)


@operation("DELETE", "/managed/keys/{id_or_name}", tag="Managed", status=204)
async def revoke_key(ctx: Context, id_or_name: str) -> None:
    """The key opens nothing any more, and the sockets that it has opened are closed."""
    await ctx.write(lambda tx: keys.revoke(tx, tx.workspace, id_or_name))


def _expiry(text: str | None, now_us: int) -> int | None:
    try:
        return None if text is None else expires_us(text, now_us)
    except ValueError as error:
        raise invalid(f"expires: {error}") from None


def _shown(key: keys.Key) -> Wire:
    return {
        "id": key.id,
        "workspace_id": key.workspace_id,
        "name": key.name,
        "role": key.role.value,
        "hint": key.hint,
        "created": iso(key.created),
        **{name: _moment(getattr(key, name)) for name in ("expires", "last_used", "revoked")},
    }


def _way(ctx: Context, workspace: workspaces.Workspace) -> Wire:
    return {
        "account_id": workspace.account_id,
        "account": workspace.account,
        "workspace": workspace.handle,
        "cloud_api_url": base_url(ctx.services),
        "api_url": workspace_url(ctx.services, workspace),
    }


def _moment(us: int | None) -> str | None:
    return None if us is None else iso(us)
