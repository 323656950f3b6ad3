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
        news: Callable[[int], Awaitable[int]],
        read: Callable[[int], Awaitable[Page]],
        cursor: int,
    ) -> None:
        """`news` returns when something may have been stored behind the cursor that it is given, and the one to read on from."""
        self._socket = socket
        self._news = news
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
            await anyio.sleep(PACE_SECONDS)
            self.cursor = await self._news(self.cursor)


def every(woken: Subscription) -> Callable[[int], Awaitable[int]]:
    """News whenever `woken` is."""

    async def news(cursor: int) -> int:
        await woken.wait(IDLE_SECONDS)
        return cursor

    return news
