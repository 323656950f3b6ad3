"""Connections of one listener: how many there are of whom, and how long each may keep us waiting.

A request's head has to be small and to come in time, an answer has to be taken in time, and what is closed is gone in time. Nobody else
waits meanwhile: each connection has a task of its own, and one address can't have all of them.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from managedd.api import errors
from managedd.observe import get_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from managedd.config import ServerSection

log = get_log("connections")

IDLE_SECONDS: Final = 75.0
"""How long a connection may wait for its next request: longer than proxies keep theirs."""
HEAD_SECONDS: Final = 20.0
"""How long a request's head may take from its first byte to its last."""
TAKE_SECONDS: Final = 60.0
TAKE_BYTES_PER_SECOND: Final = 32 * 1024
"""An answer may take so long, and longer the larger it is: a reader that is slower is cut off."""
CLOSE_SECONDS: Final = 20.0
"""How long the rest of an answer may take once the connection is to be closed."""
MAX_LINE_BYTES: Final = 16 * 1024
MAX_FIELD_BYTES: Final = 8 * 1024
MAX_HEADERS: Final = 64
MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a whole head: the request line and all headers."""
IPV6_PREFIX: Final = 64
"""Whoever has one IPv6 address has its whole network: they count as one."""


@lru_cache(maxsize=256)
def account_of(address: str) -> str:
    """Whom an address counts for: itself, or its network."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    if found.is_loopback:
        return str(found)
    return str(ipaddress.ip_network((found, IPV6_PREFIX), strict=False))


class Connections:
    """How many connections there are, in all and of each address. Belongs to the event loop."""

    def __init__(self, settings: ServerSection, *, is_proxy: Callable[[str], bool] = lambda _: False) -> None:
        self._limit = settings.max_connections
        self._address_limit = settings.address_connections
        self._is_proxy = is_proxy
        self._of: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, address: str | None) -> str | None:
        """Counts one more; the returned account is to be given to `leave`. None: there are too many."""
        account = "" if address is None else account_of(address)
        # Behind a proxy there may be everybody.
        bounded = address is not None and not self._is_proxy(address)
        if self._count >= self._limit or (bounded and self._of[account] >= self._address_limit):
            if not self._of[account]:
                del self._of[account]
            return None
        self._count += 1
        self._of[account] += 1
        return account

    def leave(self, account: str) -> None:
        """One of them is gone."""
        self._count -= 1
        self._of[account] -= 1
        if not self._of[account]:
            del self._of[account]


class Connection(web.RequestHandler):
    """aiohttp's connection, with bounds on what it has none for."""

    __slots__ = (
        "_gone",
        "_head_bytes",
        "_head_timer",
        "_is_lost",
        "_is_plain",
        "_is_served",
        "_take_timer",
        "was_made",
    )

    def __init__(self, server: web.Server, gone: Callable[[], None]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_SECONDS,
            access_log=None,  # type: ignore[arg-type]  # its own way to say: none
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_HEADERS,
            # A body is taken as it is; see limits.read_body.
            auto_decompress=False,
        )
        self._gone: Callable[[], None] | None = gone
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None
        self._is_plain = True
        self._is_served = self._is_lost = False
        self.was_made = False
        """From then on it is its end that counts it out."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there, by TLS once that was agreed on."""
        self._is_plain = transport.get_extra_info("sslcontext") is None
        self.was_made = True
        super().connection_made(transport)

    # --- heads ---------------------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """More of a head, a body or a socket's frames has come."""
        super().data_received(data)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            self._head_goes_on(len(data))
        elif self._head_timer is not None:
            self._head_done()

    def _head_goes_on(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, f"The request's head is larger than {MAX_HEAD_BYTES} bytes")
        elif self._head_timer is None and size:
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_done(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._refuse(408, f"The request's head took longer than {HEAD_SECONDS:g} seconds")

    def _refuse(self, status: int, message: str) -> None:
        """Said without aiohttp, which waits for the rest of the head."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(raw_answer(status, message))
            self.force_close()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no request, in the words of all our answers; anything else is aiohttp's business."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        status, message = _malformed(exc)
        response = errors.problem(status, message)
        response.force_close()
        return response

    # --- answers -------------------------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client takes less than there is for it: whoever writes waits, and not for ever."""
        super().pause_writing()
        if self.transport is not None:
            seconds = TAKE_SECONDS + self.transport.get_write_buffer_size() / TAKE_BYTES_PER_SECOND
            self._take_timer = self._loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken enough."""
        self._taken()
        super().resume_writing()

    def _taken(self) -> None:
        if self._take_timer is not None:
            self._take_timer.cancel()
            self._take_timer = None

    # --- the end ---------------------------------------------------------------------------------------------------------------

    def force_close(self) -> None:
        """The connection is closed, once what was written has been taken, or the time for that is over."""
        transport = self.transport
        super().force_close()
        self._end_in_time(transport)

    def _end_in_time(self, transport: asyncio.Transport | None) -> None:
        # With TLS, its own shutdown is bounded.
        if transport is not None and self._is_plain and transport.get_write_buffer_size():
            self._loop.call_later(CLOSE_SECONDS, transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone; its last request may still be under way."""
        self._head_done()
        self._taken()
        super().connection_lost(exc)
        self._is_lost = True
        self._leave()

    async def start(self) -> None:
        """Serves the connection's requests, one after the other."""
        self._is_served = True
        transport = self.transport
        try:
            await super().start()
        finally:
            self._is_served = False
            self._end_in_time(transport)
            self._leave()

    def _leave(self) -> None:
        # A request that goes on after its client went still costs: only with its end is the connection's place free.
        if self._is_lost and not self._is_served and self._gone is not None:
            gone, self._gone = self._gone, None
            gone()


def _malformed(error: HttpProcessingError) -> tuple[int, str]:
    if isinstance(error, LineTooLong):
        if error.args[1] == MAX_LINE_BYTES:
            return 414, f"The request line is longer than {MAX_LINE_BYTES} bytes"
        return 431, f"A header is larger than {MAX_FIELD_BYTES} bytes"
    if error.message.startswith("Too many headers"):
        return 431, f"The request has more than {MAX_HEADERS} headers"
    # The library's words quote what was sent, which may be a credential.
    return 400, "This is no HTTP request that can be read"


def raw_answer(status: int, message: str, headers: str = "") -> bytes:
    """A whole answer as it goes over the wire, after which the connection is closed."""
    response = errors.problem(status, message)
    body = response.body
    assert isinstance(body, bytes)
    head = (
        f"HTTP/1.1 {status} {response.reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"{headers}Connection: close\r\n\r\n"
    )
    return head.encode() + body
