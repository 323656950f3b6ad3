"""What one listener takes in at a time, so that nobody who reaches it can fill the memory or use up the descriptors.

Whoever has a run's key counts by it, everybody else by address: behind one gateway there may be many runs. Prefect's clients ask again
after 429, and connect again after a socket's 1013. Connections and their heads are bounded in api/connections.py.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from managedd.api.connections import account_of
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


def source_of(request: web.Request, actor: Actor) -> str:
    """Whose account a request goes on."""
    return actor.execution_id or (account_of(request.remote) if request.remote else "local")


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
        # One whose length is not told may turn out as large as any.
        size = largest if told is None else min(told, largest)
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
    """The whole body, as it came. Raises HTTPUnsupportedMediaType, HTTPRequestTimeout when it takes too long, HTTPRequestEntityTooLarge."""
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding != "identity":
        # Prefect's clients pack nothing, and a few packed bytes may unfold to anything.
        raise web.HTTPUnsupportedMediaType(reason=f"Request bodies are taken unpacked, not as {coding[:40]!r}")
    if request.content.is_eof():
        # It came with the head, as small ones do: no timer is needed.
        return await request.read()
    with anyio.move_on_after(BODY_SECONDS):
        return await request.read()
    raise web.HTTPRequestTimeout(reason=f"The request body took longer than {BODY_SECONDS:g} seconds.")
