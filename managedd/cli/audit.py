"""`managedd audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json, print_table
from managedd.cli.workspace import WHICH, asked, find, path_of
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from managedd.cli.client import Daemon

PAGE = 200


def audit(
    *,
    workspace: Annotated[str | None, Parameter(metavar=WHICH)] = None,
    since: Annotated[str | None, Parameter(metavar="WHEN")] = None,
    actor: Annotated[str | None, Parameter(metavar="WHO")] = None,
    lines: Annotated[int, Parameter(name=["--lines", "-n"], metavar="N")] = 100,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Show who changed what, and who was refused, newest first. Without a daemon, from its closed store.

    Parameters
    ----------
    workspace
        Only of this one; without it, of all, with what concerns the daemon as a whole.
    since
        Only of the last so many minutes, hours or days (15m, 2h, 30d), or since a time (2026-11-22T04:00).
    actor
        Only of this key (its name or id), or of a kind: operator, client, key, run, unknown.
    lines
        At most so many; 0 for all.
    json
        Print JSON instead of a table.
    """
    if lines < 0:
        raise ManagedError(ErrorCode.CONFIG, f"--lines {lines}: 0 or more is allowed")
    params = {"actor": actor, "since": None if since is None else _moment(since)}
    given = {name: value for name, value in params.items() if value is not None}

    async def ask(daemon: Daemon) -> Any:
        path = "/managed/audit/all" if workspace is None else f"{path_of(await find(daemon, workspace))}/managed/audit"
        return await _entries(daemon, path, given, lines)

    found = asked(where, ask)
    if json:
        print_json(found)
        return
    rows = [
        (
            each["at"][:19].replace("T", " "),
            _workspace(each),
            _who(each),
            each["address"] or "this host",
            each["operation"],
            ", ".join(f"{name}={value}" for name, value in each["named"].items()),
            str(each["status"]) + (f" ×{each['times']}" if each["times"] > 1 else ""),
        )
        for each in found
    ]
    print_table("Audit log (UTC)", ("when", "workspace", "who", "from", "operation", "on", "status"), rows)


async def _entries(daemon: Daemon, path: str, given: dict[str, str], lines: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    params = dict(given)
    while not lines or len(found) < lines:
        wanted = PAGE if not lines else min(PAGE, lines - len(found))
        page = await daemon.get(path, limit=str(wanted), **params)
        found += page["entries"]
        if page["next"] is None:
            break
        params["before"] = page["next"]
    return found


def _moment(text: str) -> str:
    from managedd.cli.log_lines import since_moment

    return since_moment(text).isoformat()


def _workspace(entry: dict[str, Any]) -> str:
    if entry["account"] is not None:
        return f"{entry['account']}/{entry['workspace']}"
    return entry["workspace_id"] or "-"


def _who(entry: dict[str, Any]) -> str:
    if entry["actor_name"] is not None:
        return f"{entry['actor']} {harmless(entry['actor_name'])}"
    return f"{entry['actor']} {entry['actor_id']}" if entry["actor_id"] is not None else str(entry["actor"])
