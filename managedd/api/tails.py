"""Tails: a socket that sends what the store gets, from a cursor on.

It follows before its first read, so nothing falls between them; then reading history and reading news are the same query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.api.interests import Span
    from managedd.api.news import Follower
    from managedd.api.sockets import Socket
    from managedd.store.tails import Page

PACE_SECONDS: Final = 0.02
"""A socket reads at most this often, however many commits there are; the first news after a silence is read at once."""


class Tail:
    """Where one socket is in the store."""

    def __init__(
        self,
        socket: Socket,
        follower: Follower[Any],
        read: Callable[[int, int], Awaitable[Page]],
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
