"""Tails: a socket that sends what the store gets, from a cursor on.

The subscription comes before the first read, so nothing falls between them; then reading history and reading news are the same query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.api.sockets import Socket
    from managedd.bus import Subscription
    from managedd.store.tails import Page

IDLE_SECONDS: Final = 30.0
"""The safety net under the wake-ups."""
PACE_SECONDS: Final = 0.02
"""A socket reads at most this often, however many commits there are; the first news after a silence is read at once."""


class Tail:
    """Where one socket is in the store."""

    def __init__(
        self,
        socket: Socket,
        woken: Subscription,
        read: Callable[[int], Awaitable[Page]],
        cursor: int,
    ) -> None:
        self._socket = socket
        self._woken = woken
        self._read = read
        self.cursor = cursor

    async def catch_up(self) -> None:
        """Everything that was in the store is sent."""
        more = True
        while more:
            page = await self._read(self.cursor)
            for frame in page.frames:
                await self._socket.send(frame)
            self.cursor, more = page.cursor, page.more

    async def follow(self) -> None:
        """Sends for as long as the socket is open."""
        while True:
            await self.catch_up()
            await self.news()

    async def news(self, timeout_seconds: float = IDLE_SECONDS) -> None:
        """Something may have been stored."""
        await anyio.sleep(PACE_SECONDS)
        await self._woken.wait(timeout_seconds)
