"""`managedd logs`."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import Parameter

from managedd.cli.exits import Unreachable
from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, moment, print_json_line
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from managedd.cli.client import Daemon

PAGE_LINES = 200
"""Prefect's largest page."""
RETRY_SECONDS = 1.0
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def logs(
    run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    lines: Annotated[int | None, Parameter(name=["--lines", "-n"], metavar="N")] = None,
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Print the log of a flow run.

    Parameters
    ----------
    run
        The run's id, the beginning of it, or its name.
    follow
        Go on until the run has ended, over restarts of the daemon.
    lines
        Only the last N lines of those that are there.
    json
        Print one JSON object per line.
    """
    if lines is not None and lines < 0:
        raise ManagedError(ErrorCode.CONFIG, f"--lines {lines}: 0 or more is allowed")
    anyio.run(_print, where, run, follow, lines, json)


async def _print(where: Where, which: str, follow: bool, lines: int | None, as_json: bool) -> None:
    from managedd.cli.client import connected

    async with connected(where.settings()) as daemon:
        run = await _find(daemon, which)
        base = f"/accounts/{run['account_id']}/workspaces/{run['workspace_id']}"
        if follow:
            await _follow(daemon, f"{base}/managed/flow_runs/{run['id']}/logs/tail", lines, as_json)
            return
        query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}}
        if lines is None:
            await _print_all(daemon, f"{base}/logs/filter", query, as_json)
        else:
            for line in await _last(daemon, f"{base}/logs/filter", query, lines):
                _print_line(line, as_json)


async def _find(daemon: Daemon, which: str) -> dict[str, Any]:
    """The run that `which` means. Raises ManagedError when there is none, or more than one."""
    found: list[dict[str, Any]] = await daemon.get("/managed/flow_runs", which=which)
    exact = [run for run in found if run["id"] == which]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if not found:
        raise ManagedError(ErrorCode.NOT_FOUND, f"no flow run has the id or name {which!r}")
    listed = ", ".join(f"{run['id']} ({run['name']}, {run['state_name'] or 'no state'})" for run in found[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    raise ManagedError(ErrorCode.CONFLICT, f"{which!r} may mean several runs: {harmless(listed)}{more}")


async def _print_all(daemon: Daemon, path: str, query: dict[str, Any], as_json: bool) -> None:
    async for line in _lines(daemon, path, query, newest_first=False):
        _print_line(line, as_json)


async def _last(daemon: Daemon, path: str, query: dict[str, Any], lines: int) -> list[dict[str, Any]]:
    """The last `lines` lines, oldest first."""
    found: list[dict[str, Any]] = []
    if lines:
        async with aclosing(_lines(daemon, path, query, newest_first=True)) as newest:
            async for line in newest:
                found.append(line)
                if len(found) == lines:
                    break
    return found[::-1]


async def _lines(
    daemon: Daemon, path: str, query: dict[str, Any], *, newest_first: bool
) -> AsyncGenerator[dict[str, Any], None]:
    """The run's lines in the order of their times, each once, also while more are written.

    A page begins at the time of the last line before it, so that the thousandth costs no more than the first; of that very moment it
    leaves out what was seen.
    """
    bound, sort = ("before_", "TIMESTAMP_DESC") if newest_first else ("after_", "TIMESTAMP_ASC")
    at: str | None = None
    offset, seen = 0, set[str]()
    while True:
        wanted = {**query["logs"], **({} if at is None else {"timestamp": {bound: at}})}
        page = await daemon.post(path, {"logs": wanted, "sort": sort, "limit": PAGE_LINES, "offset": offset})
        for line in page:
            if line["timestamp"] != at:
                at, offset, seen = line["timestamp"], 0, set()
            offset += 1
            if line["id"] not in seen:
                seen.add(line["id"])
                yield line
        if len(page) < PAGE_LINES:
            return


async def _follow(daemon: Daemon, path: str, lines: int | None, as_json: bool) -> None:
    """Prints until the run has ended. What was printed is never printed again: the cursor of the last line is where it resumes."""
    params = {} if lines is None else {"tail": str(lines)}
    met = False
    while True:
        try:
            async with daemon.socket(path, **params) as socket:
                met = True
                async for message in socket:
                    frame = message.json()
                    params = {"after": str(frame["cursor"])}
                    if frame["type"] == "state":
                        _print_end(frame["state"], as_json)
                        return
                    _print_line(frame["log"], as_json)
                _check_close(socket.close_code)
        except Unreachable as error:
            if not met:
                raise
            print(f"managedd: {error.message}; trying again", file=sys.stderr)
        await anyio.sleep(RETRY_SECONDS)


POLICY_VIOLATION = 1008
"""How the daemon closes a socket that it won't serve, now or later."""


def _check_close(code: int | None) -> None:
    if code == POLICY_VIOLATION:
        raise ManagedError(ErrorCode.NOT_FOUND, "the flow run is gone")


def _print_line(line: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json_line(line)
        return
    message = harmless(line["message"]) if sys.stdout.isatty() else line["message"]
    when = moment(line["timestamp"]).astimezone().isoformat(sep=" ", timespec="milliseconds")
    level = _LEVELS.get(line["level"], str(line["level"]))
    print(f"{when[:23]} {level:<8} {harmless(line['name'])} | {message}", flush=True)


def _print_end(state: dict[str, Any], as_json: bool) -> None:
    """On standard error: standard output has the run's lines and nothing else."""
    if not as_json:
        said = f": {state['message']}" if state.get("message") else ""
        print(f"managedd: the run has ended as {harmless(state['name'] + said)}", file=sys.stderr)
