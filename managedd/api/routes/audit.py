"""The audit log: who changed what, and who was refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.clock import to_us
from managedd.store import audit
from managedd.store.rows import Wire
from managedd.wire.audit import AuditPage
from managedd.wire.base import DEFAULT_LIMIT, Id, Timestamp

PageSize = Annotated[int, Field(ge=1, le=DEFAULT_LIMIT)]
Who = Annotated[str, StringConstraints(min_length=1, max_length=audit.MAX_CHARS)]


@operation("GET", "/managed/audit", tag="Managed", returns=AuditPage)
async def read_audit(
    ctx: Context,
    *,
    since: Timestamp | None = None,
    actor: Who | None = None,
    before: Id | None = None,
    limit: PageSize = DEFAULT_LIMIT,
) -> Wire:
    """Read the audit log of this workspace, newest entries first."""
    wanted = audit.Wanted(workspace_id=ctx.workspace, since_us=_us(since), actor=actor, before=before)
    return await _page(ctx, wanted, limit)


@operation("GET", "/managed/audit/all", tag="Managed", returns=AuditPage, scoped=False)
async def read_whole_audit(
    ctx: Context,
    *,
    since: Timestamp | None = None,
    actor: Who | None = None,
    before: Id | None = None,
    limit: PageSize = DEFAULT_LIMIT,
) -> Wire:
    """Read the audit log of the daemon: every workspace, what concerns none of them, and wrong credentials."""
    return await _page(ctx, audit.Wanted(since_us=_us(since), actor=actor, before=before), limit)


async def _page(ctx: Context, wanted: audit.Wanted, limit: int) -> Wire:
    found = await ctx.read(lambda tx: audit.page(tx, wanted, limit))
    return {"entries": found, "next": found[-1]["id"] if len(found) == limit else None}


def _us(moment: Timestamp | None) -> int | None:
    return None if moment is None else to_us(moment)
