"""The way in of one listener: every connection is counted before anything is done for it, and shown the certificate that is in force."""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio import sslproto
from typing import TYPE_CHECKING, Final

import anyio

from managedd.api.connections import Connection, raw_answer
from managedd.observe import get_log

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp import web

    from managedd.api.connections import Connections

log = get_log("entrance")

HANDSHAKE_SECONDS: Final = 10.0
"""How long a client may take until it speaks TLS."""
SHUTDOWN_SECONDS: Final = 5.0
TLS_READ_BYTES: Final = 32 * 1024
"""What a connection reads at once; it keeps that much memory for as long as it is open, and by itself asyncio takes 256 KiB."""
ACCEPTED_AT_ONCE: Final = 64
"""Connections accepted before others have their turn."""
RETRY_SECONDS: Final = 1.0
"""When there are no descriptors left."""
WARN_SECONDS: Final = 10.0
_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_HELLO: Final = b"\x16"
"""The first byte of a TLS handshake."""
_TOO_MANY: Final = raw_answer(
    429, "Too many connections: try again in a moment (server.max_connections)", "Retry-After: 1\r\n"
)
_NO_TLS: Final = raw_answer(400, "This port speaks HTTPS: use https:// (and wss://)")
_DRAIN_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 64 * 1024


class Entrance:
    """Accepts the connections of one listening socket. Belongs to the event loop."""

    def __init__(
        self,
        bound: socket.socket,
        server: web.Server,
        connections: Connections,
        *,
        certificate: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._bound = bound
        self._server = server
        self._connections = connections
        self._certificate = certificate
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._warned_at = float("-inf")

    def open(self) -> None:
        """Connections are accepted."""
        if self._certificate() is not None:
            sslproto.SSLProtocol.max_size = TLS_READ_BYTES
        self._bound.setblocking(False)
        self._loop.add_reader(self._bound.fileno(), self._accept)

    def close(self) -> None:
        """Nobody new comes in, and who had not come in yet doesn't."""
        if self._bound.fileno() < 0:
            return
        self._loop.remove_reader(self._bound.fileno())
        self._bound.close()
        if self._retry is not None:
            self._retry.cancel()
        for task in self._coming:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SCARCE:
                    raise
                self._wait_for_descriptors(error)
                return
            self._let_in(connection, address[0] if isinstance(address, tuple) else None)

    def _wait_for_descriptors(self, error: OSError) -> None:
        log.error("connection.not_accepted", reason=error.strerror, again_in_seconds=RETRY_SECONDS)
        self._loop.remove_reader(self._bound.fileno())
        self._retry = self._loop.call_later(RETRY_SECONDS, self.open)

    def _let_in(self, connection: socket.socket, address: str | None) -> None:
        connection.setblocking(False)
        account = self._connections.enter(address)
        if account is None:
            self._turn_away(connection, address)
            return
        context = self._certificate()
        task = self._loop.create_task(self._make(connection, account, context), name="a connection that comes in")
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def _turn_away(self, connection: socket.socket, address: str | None) -> None:
        now = self._loop.time()
        if now - self._warned_at > WARN_SECONDS:
            self._warned_at = now
            log.warning("connection.refused", address=address, connections=len(self._connections))
        # By TLS it is just closed: a handshake is what there is no room for.
        if self._certificate() is None:
            _say(connection, _TOO_MANY)
        connection.close()

    async def _make(self, connection: socket.socket, account: str, context: ssl.SSLContext | None) -> None:
        served = Connection(self._server, lambda: self._connections.leave(account))
        try:
            with anyio.move_on_after(HANDSHAKE_SECONDS):
                if context is not None and not await self._speaks_tls(connection):
                    await self._say_https(connection)
                    return
                await self._loop.connect_accepted_socket(
                    lambda: served,
                    connection,
                    ssl=context,
                    ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=None if context is None else SHUTDOWN_SECONDS,
                )
        except OSError as error:
            # A client that goes in the middle, or trusts another authority: nothing to be done here.
            log.debug("connection.not_made", reason=str(error) or type(error).__name__)
        finally:
            if not served.was_made:
                connection.close()
                self._connections.leave(account)

    async def _speaks_tls(self, connection: socket.socket) -> bool:
        """Whether its first byte begins a handshake; the byte stays where it is. False too for who leaves without a word."""
        readable = asyncio.Event()
        self._loop.add_reader(connection.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            self._loop.remove_reader(connection.fileno())
        return connection.recv(1, socket.MSG_PEEK) in {_HELLO, b""}

    async def _say_https(self, connection: socket.socket) -> None:
        _say(connection, _NO_TLS)
        connection.shutdown(socket.SHUT_WR)
        # What it had sent is taken, or the kernel would drop our answer with it.
        left = _DRAIN_BYTES
        with anyio.move_on_after(_DRAIN_SECONDS):
            while left > 0 and (taken := await self._loop.sock_recv(connection, left)):
                left -= len(taken)


def _say(connection: socket.socket, answer: bytes) -> None:
    try:
        connection.send(answer)
    except OSError:
        return
