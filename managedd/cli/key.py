"""`managedd key`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json, print_table
from managedd.cli.workspace import WHICH, asked, called, find, path_of
from managedd.ids import DEFAULT_WORKSPACE_ID

if TYPE_CHECKING:
    from managedd.cli.client import Daemon

key = App(
    name="key",
    help="Make, list and revoke the keys that open workspaces. Without a daemon they work on its closed store.",
)

Workspace = Annotated[str, Parameter(metavar=WHICH)]
Role = Literal["admin", "developer", "runner", "viewer"]
PAGE = 200


@key.command
def create(
    *,
    workspace: Workspace,
    name: Annotated[str, Parameter(metavar="NAME")],
    role: Role,
    expires: Annotated[str | None, Parameter(metavar="WHEN")] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Make a key and show it, this once: the key on standard output, how to use it on standard error.

    Parameters
    ----------
    workspace
        The only one that it opens.
    name
        What you will know it by: whose it is, or what uses it.
    role
        viewer sees, runner also runs, developer also makes and changes, admin also makes and revokes keys.
    expires
        A duration (90d, 12h, 2w), or a date or time in ISO form; without it, the key does not end by itself.
    json
        Print JSON instead.
    """

    async def ask(daemon: Daemon) -> Any:
        found = await find(daemon, workspace)
        return await daemon.post(f"{path_of(found)}/managed/keys", {"name": name, "role": role, "expires": expires})

    made = asked(where, ask)
    if json:
        print_json(made)
        return
    # First what a script takes, and what is gone for good if nothing else is printed.
    print(made["key"], flush=True)
    for line in _use(made):
        print(line, file=sys.stderr)


@key.command(name=("list", "ls"))
def list_(*, workspace: Workspace | None = None, json: Json = False, where: Where = HERE) -> None:
    """Show keys: what they open, until when, and when they were used last.

    Parameters
    ----------
    workspace
        Only of this one.
    json
        Print JSON instead of a table.
    """

    async def ask(daemon: Daemon) -> Any:
        chosen = await daemon.get("/managed/workspaces") if workspace is None else [await find(daemon, workspace)]
        return [{**each, "workspace": called(of)} for of in chosen for each in await _keys(daemon, path_of(of))]

    found = asked(where, ask)
    if json:
        print_json(found)
        return
    rows = [
        (
            each["workspace"],
            each["name"],
            each["role"],
            f"{each['hint']}…",
            _day(each["created"]),
            _moment(each["last_used"]) or "never",
            _standing(each),
            each["id"],
        )
        for each in found
    ]
    print_table("Keys", ("workspace", "name", "role", "key", "made", "last use", "ends", "id"), rows)


@key.command
def revoke(
    which: Annotated[str, Parameter(metavar="NAME_OR_ID")],
    /,
    *,
    workspace: Workspace,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """End a key now, and every connection that it holds open.

    Parameters
    ----------
    which
        The key's name or id.
    workspace
        What it opens.
    json
        Print JSON instead of a line.
    """

    async def ask(daemon: Daemon) -> Any:
        found = await find(daemon, workspace)
        await daemon.delete(f"{path_of(found)}/managed/keys/{quote(which, safe='')}")
        return {"workspace": called(found), "revoked": which}

    done = asked(where, ask)
    if json:
        print_json(done)
        return
    print(f"Key {harmless(which)!r} of {harmless(done['workspace'])} opens nothing any more.")


async def _keys(daemon: Daemon, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await daemon.get(f"{path}/managed/keys", limit=str(PAGE), offset=str(len(found)))
        found += page
        if len(page) < PAGE:
            return found


def _standing(found: dict[str, Any]) -> str:
    if found["revoked"] is not None:
        return f"revoked {_moment(found['revoked'])}"
    return _moment(found["expires"]) or "-"


def _day(text: str) -> str:
    return text[:10]


def _moment(text: str | None) -> str | None:
    return None if text is None else f"{text[:16].replace('T', ' ')} UTC"


def _use(made: dict[str, Any]) -> list[str]:
    whose = f"{made['account']}/{made['workspace']}"
    ends = "does not end by itself" if made["expires"] is None else f"ends {_moment(made['expires'])}"
    self_hosted = f"  prefect config set PREFECT_API_URL={made['api_url']} PREFECT_API_AUTH_STRING=<the key>"
    lines = [
        "",
        f"Key {harmless(made['name'])!r} opens {whose} with the role {made['role']} and {ends}. It is not shown again.",
        "To use it as a key of Prefect Cloud:",
        f"  prefect config set PREFECT_CLOUD_API_URL={made['cloud_api_url']}",
        f"  prefect cloud login --key <the key> --workspace {whose}",
        "or with environment variables alone:",
        f"  PREFECT_CLOUD_API_URL={made['cloud_api_url']}",
        f"  PREFECT_API_URL={_cloud_shaped(made)}",
        "  PREFECT_API_KEY=<the key>",
    ]
    if made["workspace_id"] == DEFAULT_WORKSPACE_ID:
        lines += ["As the password of a self-hosted server:", self_hosted]
    if "//127.0.0.1" in made["api_url"] or "//[::1]" in made["api_url"]:
        lines.append("From other hosts: this host's name instead of the address, if the daemon listens there.")
    return lines


def _cloud_shaped(made: dict[str, Any]) -> str:
    return f"{made['cloud_api_url']}/accounts/{made['account_id']}/workspaces/{made['workspace_id']}"
