"""Following one run's log to its end, and taking it as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import orjson
from aiohttp import web

from managedd.api import sockets
from managedd.api.sockets import while_listening
from managedd.errors import ManagedError
from managedd.observe import get_log
from managedd.store import log_pages, positions, rows
from managedd.store.resources import FLOW_RUN

if TYPE_CHECKING:
    from managedd.api.context import Context
    from managedd.api.log_windows import Window
    from managedd.api.sockets import Socket
    from managedd.store.database import Tx
    from managedd.store.positions import Positions

log = get_log("log_tail")

_TYPES: Final[dict[log_pages.Form, str]] = {"text": "text/plain", "jsonl": "application/x-ndjson"}


async def run(
    ctx: Context, socket: Socket, flow_run_id: str, *, after: int | None, lines: int | None, since_us: int | None
) -> None:
    """The run's lines were sent until it ended, and then its final state. Raises ManagedError(NOT_FOUND), Gone.

    It begins behind the cursor `after`; else with the last `lines` lines, with what is dated `since_us` or later, or with the first line.
    """
    with ctx.services.windows.following(ctx.workspace, flow_run_id) as window:
        await ctx.read(lambda tx: rows.get(tx, FLOW_RUN, flow_run_id))
        beginning = await ctx.read_logs(lambda tx: _beginning(tx, flow_run_id, after, lines, since_us))
        # Whoever is cut off before the first line knows where it was as well.
        await socket.send(orjson.dumps({"type": "start", "cursor": beginning.given.id(beginning.told)}))
        follower = _Follower(ctx, socket, flow_run_id, window, beginning)
        await while_listening(socket, follower.follow)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beginning:
    """Where a socket begins in one run's log."""

    cursor: int
    told: int
    """The run's last line until there, 0 if there is none: what clients are told follows their own lines and nobody else's."""
    given: Positions


def _beginning(tx: Tx, flow_run_id: str, after: int | None, lines: int | None, since_us: int | None) -> _Beginning:
    cursor = _first(tx, flow_run_id, after, lines, since_us)
    told = log_pages.last_until(tx, flow_run_id, cursor)
    return _Beginning(cursor=cursor, told=told, given=positions.of(tx, "logs"))


def _first(tx: Tx, flow_run_id: str, after: int | None, lines: int | None, since_us: int | None) -> int:
    if after is not None:
        # One that this store has not given yet, as after a backup was restored, would hide every line until there.
        return min(after, log_pages.head(tx))
    begins = [0]
    if lines is not None or since_us is None:
        begins.append(log_pages.before_last(tx, flow_run_id, lines))
    if since_us is not None:
        begins.append(log_pages.before_time(tx, flow_run_id, since_us))
    return max(begins)


class _Follower:
    """Where one socket is in one run's log."""

    def __init__(self, ctx: Context, socket: Socket, flow_run_id: str, window: Window, beginning: _Beginning) -> None:
        self._ctx = ctx
        self._socket = socket
        self._flow_run_id = flow_run_id
        self._window = window
        self._cursor = beginning.cursor
        self._told = beginning.told
        self._given = beginning.given

    async def follow(self) -> None:
        """Everything was sent, and then the final state."""
        window = self._window
        while True:
            if not window.is_open:
                await window.news()
            elif self._cursor < window.floor:
                await self._catch_up()
            elif (message := window.after(self._cursor)) is not None:
                text, cursor = message
                await self._socket.send(text)
                self._cursor = self._told = cursor
            elif window.final is not None:
                end = {"type": "state", "cursor": self._given.id(self._told), "state": window.final}
                await self._socket.send(orjson.dumps(end))
                return
            else:
                await window.news()

    async def _catch_up(self) -> None:
        """One page of what the window does not have was sent."""
        page = await self._ctx.read_logs(lambda tx: log_pages.page_after(tx, self._flow_run_id, self._cursor))
        while page.batches:
            # Taken out before: a message that is on its way for long is held by nobody else.
            batch = page.batches.pop(0)
            await self._socket.send(batch.text)
            self._cursor = self._told = batch.last
        self._cursor = page.cursor


async def download(ctx: Context, flow_run_id: str, form: log_pages.Form) -> web.StreamResponse:
    """The run's present log was sent, a page at a time. Raises ManagedError(NOT_FOUND).

    What fails once it has begun, a client that takes nothing included, cuts the connection: a file that is not whole has no end.
    """
    await ctx.read(lambda tx: rows.get(tx, FLOW_RUN, flow_run_id))
    until = await ctx.read_logs(log_pages.head)
    cursor = await ctx.read_logs(lambda tx: log_pages.before_last(tx, flow_run_id, None))
    name = f"{flow_run_id}.{'txt' if form == 'text' else 'jsonl'}"
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{_TYPES[form]}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
        }
    )
    await response.prepare(ctx.request)
    try:
        if ctx.request.method != "HEAD":
            await _send_pages(ctx, response, flow_run_id, form, cursor, until)
        with anyio.fail_after(sockets.SEND_SECONDS):
            await response.write_eof()
    except (ManagedError, TimeoutError, ConnectionError) as error:
        log.warning("download.cut", flow_run_id=flow_run_id, reason=str(error) or "the client takes nothing")
        if ctx.request.transport is not None:
            ctx.request.transport.abort()
    return response


async def _send_pages(
    ctx: Context, response: web.StreamResponse, flow_run_id: str, form: log_pages.Form, cursor: int, until: int
) -> None:
    more = True
    while more:
        page = await ctx.read_logs(
            lambda tx, at=cursor: log_pages.page_after(tx, flow_run_id, at, until=until, form=form)  # type: ignore[misc]
        )
        cursor, more = page.cursor, page.more
        for batch in page.batches:
            with anyio.fail_after(sockets.SEND_SECONDS):
                await response.write(batch.text)
                await response.write(b"\n")
