"""`managedd logs`."""

from __future__ import annotations

import json as json_module
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import Parameter

from managedd.cli.exits import Unreachable
from managedd.cli.log_lines import Choice, Printer
from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from managedd.cli.client import Daemon

PAGE_LINES = 200
"""Prefect's largest page."""
RETRY_SECONDS = 1.0


def logs(
    run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    lines: Annotated[int | None, Parameter(name=["--lines", "-n"], metavar="N")] = None,
    since: Annotated[str | None, Parameter(metavar="WHEN")] = None,
    level: Annotated[str | None, Parameter(metavar="LEVEL")] = None,
    grep: Annotated[str | None, Parameter(metavar="REGEX")] = None,
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
        Only the last N lines of those that are there and asked for.
    since
        Only lines of the last so many seconds, minutes, hours or days (90s, 15m, 1h30m, 2d), or since a time (2026-11-22T04:00).
    level
        Only lines of that level and above: debug, info, warning, error, critical or a number.
    grep
        Only lines in whose text the regular expression is found.
    json
        Print one JSON object per line.
    """
    if lines is not None and lines < 0:
        raise ManagedError(ErrorCode.CONFIG, f"--lines {lines}: 0 or more is allowed")
    choice = Choice.of(since, level, grep)
    anyio.run(_print, where, run, follow, lines, choice, json)


async def _print(where: Where, which: str, follow: bool, lines: int | None, choice: Choice, as_json: bool) -> None:
    from managedd.cli.client import connected

    async with connected(where.settings()) as daemon:
        run = await _find(daemon, which)
        log = _Log(daemon, run, lines, choice, Printer(choice, as_json=as_json))
        if follow:
            await log.follow()
        elif lines is None:
            await log.print_all()
        else:
            await log.print_last()


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


class _Log:
    """One run's log, as it was asked for."""

    def __init__(
        self, daemon: Daemon, run: dict[str, Any], lines: int | None, choice: Choice, printer: Printer
    ) -> None:
        self._daemon = daemon
        self._base = f"/accounts/{run['account_id']}/workspaces/{run['workspace_id']}"
        self._path = f"{self._base}/managed/flow_runs/{run['id']}/logs"
        self._id = run["id"]
        self._lines = lines
        self._choice = choice
        self._printer = printer
        self._shown: set[str] = set()
        """The ids of what a search has found."""

    async def print_all(self) -> None:
        """Every line that is there was printed."""
        async with aclosing(self._daemon.lines(f"{self._path}/download", format="jsonl")) as found:
            async for line in found:
                self._printer.show(json_module.loads(line))

    async def print_last(self) -> str | None:
        """The last lines were printed, the oldest first; the id of the newest, which is its cursor, if there was one."""
        found: list[dict[str, Any]] = []
        if self._lines:
            pages = _newest_first(self._daemon, f"{self._base}/logs/filter", self._choice.query(self._id))
            async with aclosing(pages) as newest:
                async for line in newest:
                    if self._choice.admits(line):
                        found.append(line)
                        if len(found) == self._lines:
                            break
        for line in reversed(found):
            self._printer.show(line)
            self._shown.add(line["id"])
        return found[0]["id"] if found else None

    async def follow(self) -> None:
        """Prints until the run has ended. What was printed is never printed again: the cursor of the last line is where it resumes."""
        params = await self._beginning()
        met = False
        while True:
            try:
                async with self._daemon.socket(f"{self._path}/tail", **params) as socket:
                    async for message in socket:
                        for text in self._daemon.text_of(message).split("\n"):
                            one = json_module.loads(text)
                            params = {"after": one["cursor"]}
                            if self._take(one):
                                return
                            met = True
                        sys.stdout.flush()
                    _check_close(socket.close_code)
            except Unreachable as error:
                if not met:
                    raise
                print(f"managedd: {error.message}; trying again", file=sys.stderr)
            await anyio.sleep(RETRY_SECONDS)

    async def _beginning(self) -> dict[str, str]:
        if self._lines is None:
            return {} if self._choice.since is None else {"since": self._choice.since.isoformat()}
        if self._choice.is_all or not self._lines:
            return {"tail": str(self._lines)}
        # Which lines are the last ones of those that were asked for, only a search can tell. It goes on behind the newest that it
        # found or, where there was none, behind what was there before the search.
        end = await self._end()
        return {"after": await self.print_last() or end}

    async def _end(self) -> str:
        """The cursor behind what is there now."""
        async with self._daemon.socket(f"{self._path}/tail", tail="0") as socket:
            message = await socket.receive()
            _check_close(socket.close_code)
            return str(json_module.loads(self._daemon.text_of(message).partition("\n")[0])["cursor"])

    def _take(self, one: dict[str, Any]) -> bool:
        """Whether that was the end."""
        if one["type"] == "start":
            return False
        if one["type"] == "state":
            self._printer.end(one["state"])
            return True
        # What was dated earlier than the newest may have been stored after it.
        if one["cursor"] not in self._shown:
            self._printer.show(one["log"])
        return False


async def _newest_first(daemon: Daemon, path: str, wanted: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The run's lines in the order of their times, the newest first, each once, also while more are written.

    A page begins at the time of the last line before it, so that the thousandth costs no more than the first; of that very moment it
    leaves out what was seen.
    """
    at: str | None = None
    offset, seen = 0, set[str]()
    while True:
        timestamp = {**wanted.get("timestamp", {}), **({} if at is None else {"before_": at})}
        filter_ = {**wanted, **({"timestamp": timestamp} if timestamp else {})}
        page = await daemon.post(
            path, {"logs": filter_, "sort": "TIMESTAMP_DESC", "limit": PAGE_LINES, "offset": offset}
        )
        for line in page:
            if line["timestamp"] != at:
                at, offset, seen = line["timestamp"], 0, set()
            offset += 1
            if line["id"] not in seen:
                seen.add(line["id"])
                yield line
        if len(page) < PAGE_LINES:
            return


POLICY_VIOLATION = 1008
"""How the daemon closes a socket that it won't serve, now or later."""


def _check_close(code: int | None) -> None:
    if code == POLICY_VIOLATION:
        raise ManagedError(ErrorCode.NOT_FOUND, "the flow run is gone")
