"""`managedd workspace`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import App, Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json, print_table
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from managedd.cli.client import Daemon

workspace = App(
    name="workspace",
    help="Make, list, rename, size and delete workspaces. Without a daemon they work on its closed store.",
)

WHICH = "ACCOUNT/WORKSPACE"
Which = Annotated[str, Parameter(metavar=WHICH)]


@workspace.command
def create(
    which: Which, /, *, plan: str | None = None, name: str | None = None, json: Json = False, where: Where = HERE
) -> None:
    """Make a workspace, and its account when that is new.

    Parameters
    ----------
    which
        Handles of the account and the workspace: letters a-z, digits and dashes.
    plan
        What it may use; without it, default_plan of the settings.
    name
        What people read; without it, the handle.
    json
        Print JSON instead of lines.
    """
    account, handle = handles(which)

    async def ask(daemon: Daemon) -> Any:
        body = {"account": account, "handle": handle, "plan": plan, "name": name}
        return await daemon.post("/managed/workspaces", body)

    _told(asked(where, ask), "made", json=json)


@workspace.command(name=("list", "ls"))
def list_(*, json: Json = False, where: Where = HERE) -> None:
    """Show every workspace.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    found = asked(where, lambda daemon: daemon.get("/managed/workspaces"))
    if json:
        print_json(found)
        return
    rows = [(called(each), each["name"], each["plan"], str(each["keys"]), each["api_url"]) for each in found]
    print_table("Workspaces", ("workspace", "name", "plan", "keys", "PREFECT_API_URL"), rows)


@workspace.command
def rename(
    which: Which,
    new: Annotated[str | None, Parameter(metavar="NEW")] = None,
    /,
    *,
    name: str | None = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Give a workspace another handle, another name, or both. Its URL stays.

    Parameters
    ----------
    which
        The workspace.
    new
        Its new handle.
    name
        What people read.
    json
        Print JSON instead of lines.
    """
    if new is None and name is None:
        raise ManagedError(ErrorCode.CONFIG, "a new handle, or --name, is missing")

    async def ask(daemon: Daemon) -> Any:
        found = await find(daemon, which)
        return await daemon.patch(f"/managed/workspaces/{found['id']}", {"handle": new, "name": name})

    _told(asked(where, ask), "renamed", json=json)


@workspace.command
def plan(
    which: Which, plan: Annotated[str, Parameter(metavar="PLAN")], /, *, json: Json = False, where: Where = HERE
) -> None:
    """Put a workspace on another plan; what waits is looked at again at once.

    Parameters
    ----------
    which
        The workspace.
    plan
        A plan of the settings.
    json
        Print JSON instead of lines.
    """

    async def ask(daemon: Daemon) -> Any:
        found = await find(daemon, which)
        return await daemon.patch(f"/managed/workspaces/{found['id']}", {"plan": plan})

    _told(asked(where, ask), "changed", json=json)


@workspace.command
def delete(
    which: Which,
    /,
    *,
    force: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(name=("--yes", "-y"), negative="")] = False,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Delete a workspace with all that is in it, for good: keys, deployments, runs, logs, events, secrets.

    Parameters
    ----------
    which
        The workspace.
    force
        Stop runs that are under way, instead of refusing.
    yes
        Do not ask.
    json
        Print JSON instead of a line.
    """
    if not yes:
        _confirm(which)

    async def ask(daemon: Daemon) -> Any:
        found = await find(daemon, which)
        await daemon.delete(f"/managed/workspaces/{found['id']}", force=str(force).lower())
        return {"deleted": called(found), "id": found["id"]}

    done = asked(where, ask)
    if json:
        print_json(done)
        return
    print(
        f"{harmless(done['deleted'])} is deleted: it opens nothing any more, and what it has stored is being removed."
    )


def _confirm(which: str) -> None:
    if not sys.stdin.isatty():
        raise ManagedError(ErrorCode.CONFIG, "this deletes all that is in the workspace: say so with --yes")
    print(f"All that is in {harmless(which)} goes for good. Its name once more, to delete it: ", end="", flush=True)
    if sys.stdin.readline().strip() != which:
        raise ManagedError(ErrorCode.CONFIG, "that is another name: nothing was deleted")


def handles(which: str) -> tuple[str, str]:
    """The account's handle and the workspace's. Raises ManagedError(CONFIG)."""
    account, slash, handle = which.partition("/")
    if not (account and slash and handle) or "/" in handle:
        raise ManagedError(ErrorCode.CONFIG, f"{which!r} is no workspace; write {WHICH}")
    return account, handle


async def find(daemon: Daemon, which: str) -> dict[str, Any]:
    """The workspace of these handles, or of this id. Raises ManagedError(NOT_FOUND)."""
    known = await daemon.get("/managed/workspaces")
    for each in known:
        if which in {called(each), each["id"]}:
            return dict(each)
    names = ", ".join(harmless(called(each)) for each in known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")
    raise ManagedError(ErrorCode.NOT_FOUND, f"there is no workspace {which!r}; workspaces: {names}")


_SHOWN = 10


def path_of(found: dict[str, Any]) -> str:
    """Where the workspace's operations are."""
    return f"/accounts/{found['account_id']}/workspaces/{found['id']}"


def called(found: dict[str, Any]) -> str:
    """What the workspace is called."""
    return f"{found['account']}/{found['handle']}"


def asked(where: Where, ask: Any) -> Any:
    """The daemon's answer, or that of its closed store."""

    async def go() -> Any:
        from managedd.cli.closed_store import reached

        async with reached(where.settings()) as daemon:
            return await ask(daemon)

    return anyio.run(go)


def _told(found: dict[str, Any], done: str, *, json: bool) -> None:
    if json:
        print_json(found)
        return
    print(f"{harmless(called(found))} is {done}: plan {harmless(found['plan'])}, name {harmless(found['name'])}")
    print(f"PREFECT_API_URL  {found['api_url']}")
