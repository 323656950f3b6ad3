"""What one listener takes in at a time, so that nobody who reaches it can fill the memory or use up the descriptors.

Whoever has a run's key counts by it, everybody else by address: behind one gateway there may be many runs. Prefect's clients ask again
after 429, and connect again after a socket's 1013. How long a request's head may take is bounded by the listener's keep-alive timeout,
which aiohttp begins with the connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
from aiohttp import web

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.api.context import Actor
    from managedd.config import ServerSection

BODY_SECONDS: Final = 30.0
"""How long a request's body may take to arrive."""
BODIES: Final = 4
"""How many of the largest bodies one source may have under way."""
RETRY_SECONDS: Final = 1.0
_REFUSAL: Final = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def source_of(request: web.Request, actor: Actor) -> str:
    """Whose account a request goes on."""
    return actor.execution_id or request.remote or "local"


class Limits:
    """What the sources of one listener have under way. Belongs to the event loop."""

    def __init__(self, settings: ServerSection) -> None:
        self._settings = settings
        self._body_bytes: Counter[str] = Counter()
        self._sockets: Counter[str] = Counter()

    @contextmanager
    def body(self, request: web.Request, source: str) -> Iterator[None]:
        """The request's body has room for as long as the block lasts. Raises ManagedError(TOO_MANY)."""
        largest = self._settings.max_body_bytes
        told = request.content_length
        # A packed body, and one whose length is not told, may turn out as large as any.
        known = told is not None and "Content-Encoding" not in request.headers
        size = min(told or 0, largest) if known else largest
        with self._taken(self._body_bytes, source, size, BODIES * largest, "bytes of request bodies"):
            yield

    @contextmanager
    def socket(self, source: str) -> Iterator[None]:
        """One more socket is open for as long as the block lasts. Raises ManagedError(TOO_MANY)."""
        with self._taken(self._sockets, source, 1, self._settings.max_sockets, "sockets (server.max_sockets)"):
            yield

    @staticmethod
    @contextmanager
    def _taken(counter: Counter[str], source: str, amount: int, limit: int, what: str) -> Iterator[None]:
        if counter[source] + amount > limit:
            _forget(counter, source)
            raise ManagedError(
                ErrorCode.TOO_MANY,
                f"{source} has too much under way: at most {limit:,} {what}",
                retry_after_seconds=RETRY_SECONDS,
            )
        counter[source] += amount
        try:
            yield
        finally:
            counter[source] -= amount
            _forget(counter, source)


def _forget(counter: Counter[str], source: str) -> None:
    if not counter[source]:
        del counter[source]


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises HTTPRequestTimeout when it takes too long, HTTPRequestEntityTooLarge."""
    if request.content.is_eof():
        # It came with the head, as small ones do: no timer is needed.
        return await request.read()
    with anyio.move_on_after(BODY_SECONDS):
        return await request.read()
    raise web.HTTPRequestTimeout(reason=f"The request body took longer than {BODY_SECONDS:g} seconds.")


def bound_connections(server: web.Server, limit: int) -> None:
    """Connections beyond `limit` are told 429 and closed as soon as they are made."""
    accept = server.connection_made

    def bounded(handler: Any, transport: asyncio.Transport) -> None:
        accept(handler, transport)
        if len(server.connections) > limit:
            transport.write(_REFUSAL)
            # Not at once: aiohttp's handler begins in the next turn of the loop and must find its connection.
            asyncio.get_running_loop().call_soon(transport.close)

    server.connection_made = bounded  # type: ignore[method-assign]
