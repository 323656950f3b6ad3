"""Workspaces: the operator makes, names, sizes and removes them."""

from __future__ import annotations

from typing import Annotated

from managedd.api.context import Context
from managedd.api.operation import QUERY, operation
from managedd.api.ways import workspace_url
from managedd.clock import iso
from managedd.errors import conflict, invalid
from managedd.store import keys, plans, workspace_removal, workspaces
from managedd.store.database import Tx
from managedd.store.rows import Wire
from managedd.wire.base import Id
from managedd.wire.workspaces import WorkspaceCreate, WorkspaceUpdate, WorkspaceView


@operation("GET", "/managed/workspaces", tag="Managed", returns=list[WorkspaceView], scoped=False)
async def read_workspaces(ctx: Context) -> list[Wire]:
    """Read every workspace, by account and handle."""
    found, counts = await ctx.read(lambda tx: (workspaces.every(tx), keys.counts(tx)))
    return [_shown(ctx, each, counts.get(each.id, 0)) for each in found]


@operation("POST", "/managed/workspaces", tag="Managed", returns=WorkspaceView, status=201, scoped=False)
async def create_workspace(ctx: Context, workspace: WorkspaceCreate) -> Wire:
    """Make a workspace, and its account when that is new."""
    plan = workspace.plan or ctx.services.settings.default_plan

    def body(tx: Tx) -> workspaces.Workspace:
        ctx.note.named["workspace"] = f"{workspace.account}/{workspace.handle}"
        _check_plan(tx, plan)
        _check_walls(ctx, len(workspaces.every(tx)) + 1)
        return workspaces.make(tx, account=workspace.account, handle=workspace.handle, plan=plan, name=workspace.name)

    return _shown(ctx, await ctx.write(body), 0)


@operation("PATCH", "/managed/workspaces/{id}", tag="Managed", returns=WorkspaceView, scoped=False)
async def update_workspace(ctx: Context, id: Id, workspace: WorkspaceUpdate) -> Wire:
    """Rename a workspace, or put it on another plan; what waits is looked at again at once."""

    def body(tx: Tx) -> tuple[workspaces.Workspace, int]:
        workspaces.rename(tx, id, handle=workspace.handle, name=workspace.name)
        if workspace.plan is not None:
            _check_plan(tx, workspace.plan)
            workspaces.move(tx, id, workspace.plan)
        return workspaces.need(tx, id), keys.counts(tx).get(id, 0)

    return _shown(ctx, *await ctx.change(body, lambda tx: _shown(ctx, workspaces.need(tx, id), 0)))


@operation("DELETE", "/managed/workspaces/{id}", tag="Managed", status=204, scoped=False)
async def delete_workspace(ctx: Context, id: Id, *, force: Annotated[bool, QUERY] = False) -> None:
    """Delete a workspace with all that is in it: it opens nothing any more, its keys have ended, and what it has stored goes.

    Refused while runs are under way, unless `force` stops them.
    """
    await ctx.write(lambda tx: workspace_removal.begin(tx, id, force=force))


def _check_plan(tx: Tx, plan: str) -> None:
    known = plans.every(tx)
    if plan not in known:
        raise invalid(f"plan: there is no plan {plan!r}; plans: {', '.join(known)}")


def _check_walls(ctx: Context, count: int) -> None:
    """Returns when what keeps runs apart is enough for so many workspaces. Raises ManagedError(CONFLICT)."""
    engine = ctx.services.facts.get("engine")
    if engine is None or engine()["driver"] != "process":
        return
    reason = ctx.services.settings.why_no_processes(workspaces=count, as_root=False)
    if reason is not None:
        raise conflict(f"Runs are processes of this host now; {reason}")


def _shown(ctx: Context, workspace: workspaces.Workspace, living_keys: int) -> Wire:
    return {
        "id": workspace.id,
        "account_id": workspace.account_id,
        "account": workspace.account,
        "handle": workspace.handle,
        "name": workspace.name,
        "plan": workspace.plan,
        "created": iso(workspace.created),
        "keys": living_keys,
        "api_url": workspace_url(ctx.services, workspace),
    }
