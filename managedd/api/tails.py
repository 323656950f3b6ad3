"""Tails: a socket that sends what the store gets, from a cursor on.

It follows before its first read, so nothing falls between them; then reading history and reading news are the same query.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import anyio

from managedd.api import interests
from managedd.api.sockets import while_listening
from managedd.clock import to_us
from managedd.store import events, logs

if TYPE_CHECKING:
    from managedd.api.context import Context
    from managedd.api.interests import Span
    from managedd.api.news import Follower
    from managedd.api.shared_pages import Read
    from managedd.api.sockets import Socket
    from managedd.wire.filters.events import EventFilter
    from managedd.wire.filters.logs import LogFilter

MAX_BACKFILL_US: Final = timedelta(minutes=15) // timedelta(microseconds=1)
"""How far back `/events/out` begins at most, whatever the filter says (Prefect's own bound)."""
PACE_SECONDS: Final = 0.02
"""A socket reads at most this often, however many commits there are; the first news after a silence is read at once."""


class Tail:
    """Where one socket is in the store."""

    def __init__(
        self,
        socket: Socket,
        follower: Follower[Any],
        read: Read,
        span: Span,
        cursor: int,
    ) -> None:
        """`read` gives what lies between two cursors; of it, what is dated within `span` is sent."""
        self._socket = socket
        self._follower = follower
        self._read = read
        self._span = span
        self.cursor = cursor

    async def catch_up(self) -> None:
        """Everything that was in the store is sent."""
        more = True
        while more:
            page = await self._read(self.cursor, self._follower.until)
            for frame, at_us in zip(page.frames, page.times, strict=True):
                if self._span.holds(at_us):
                    await self._socket.send(frame)
            self.cursor, more = page.cursor, page.more

    async def follow(self) -> None:
        """Sends for as long as the socket is open."""
        while True:
            await self.catch_up()
            await anyio.sleep(PACE_SECONDS)
            self.cursor = await self._follower.wait(self.cursor)


async def follow_events(ctx: Context, socket: Socket, filter_: EventFilter, *, backfill: bool) -> None:
    """What the filter admits is sent for as long as the socket is open, recent events first unless there is no `backfill`."""
    with ctx.services.event_news.following(interests.of_events(ctx.workspace, filter_)) as follower:
        await follower.opened()
        cursor = await ctx.read(events.head)
        if backfill:
            since_us = max(to_us(filter_.occurred.since), ctx.services.clock.now_us() - MAX_BACKFILL_US)
            cursor = await ctx.read_events(lambda tx: events.before(tx, since_us))
        asked, span = interests.timeless_events(filter_)
        read = ctx.services.pages.shared(
            ("events", ctx.workspace, asked.model_dump_json()),
            lambda after, until: ctx.read(lambda tx: events.page_after(tx, asked, after, until=until)),
        )
        await while_listening(socket, Tail(socket, follower, read, span, cursor).follow)


async def follow_logs(ctx: Context, socket: Socket, filter_: LogFilter) -> None:
    """The lines that the filter admits are sent for as long as the socket is open: those since its `after_`, then those that come."""
    with ctx.services.log_news.following(interests.of_logs(ctx.workspace, filter_)) as follower:
        await follower.opened()
        cursor = await ctx.read_logs(lambda tx: logs.before(tx, filter_))
        asked, span = interests.timeless_logs(filter_)
        read = ctx.services.pages.shared(
            ("logs", ctx.workspace, asked.model_dump_json()),
            lambda after, until: ctx.read_logs(lambda tx: logs.page_after(tx, asked, after, until=until)),
        )
        await while_listening(socket, Tail(socket, follower, read, span, cursor).follow)
