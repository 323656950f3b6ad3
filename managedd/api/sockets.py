"""Websockets: one open connection, and the registry by which all of them are ended.

A socket is served by one task that receives, and at most one beside it that sends. Nothing waits for a client without a time limit, and
nothing is queued for one: what it has not read yet is in the store, behind its cursor.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from socket import SO_SNDBUF, SOL_SOCKET
from typing import TYPE_CHECKING, Any, Final, Protocol

import anyio
from aiohttp import WSMsgType, web

from managedd.api.key_watch import HeldBy, Holder
from managedd.api.limits import source_of
from managedd.errors import ErrorCode, ManagedError
from managedd.observe import get_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from aiohttp import WSMessage

    from managedd.api.context import Context

log = get_log("sockets")

SUBPROTOCOL: Final = "prefect"
HEARTBEAT_SECONDS: Final = 25.0
"""Shorter than the minute after which proxies drop a silent connection."""
SEND_SECONDS: Final = 30.0
"""A client that takes nothing for so long is gone."""
CLOSE_SECONDS: Final = 2.0
SEND_BUFFER_BYTES: Final = 256 * 1024

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
POLICY_VIOLATION: Final = 1008
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
"""The code after which Prefect's clients connect again; after 1000 and 1001 the observers inside runs give up for good."""
TRY_AGAIN_LATER: Final = 1013
_CLOSE_CODES: Final = {ErrorCode.UNAVAILABLE: SERVICE_RESTART, ErrorCode.TOO_MANY: TRY_AGAIN_LATER}
_REASON_MAX_BYTES: Final = 123
_ENDED: Final = {
    HeldBy.KEY: "the key has ended",
    HeldBy.SESSION: "the session has ended",
    HeldBy.EXECUTION: "the run's key has ended",
    HeldBy.WORKSPACE: "the workspace was deleted",
}
_STOPPING: Final = "managedd is stopping"


class Gone(Exception):
    """The client closed the socket, or takes nothing any more."""


class Closed(Exception):
    """The socket shall be closed with this code and reason."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Socket:
    """One websocket after its upgrade."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request) -> None:
        self._ws = ws
        self._request = request
        self.scope = anyio.CancelScope()
        """Everything that serves this socket runs in it."""
        self.stop_code, self.stop_reason = SERVICE_RESTART, _STOPPING
        self.holders: tuple[Holder, ...] = ()
        """With what it ends, once it is known whose credential opened it."""
        self.admitted = anyio.Event()
        self._is_cut = False

    def stop(self, code: int, reason: str) -> None:
        """What serves the socket ends, having stored what it took in, and then the socket is closed."""
        self.stop_code, self.stop_reason = code, reason
        self.scope.cancel()

    @property
    def speaks_prefect(self) -> bool:
        """Whether the client offered Prefect's subprotocol, and so will send an auth message."""
        return self._ws.ws_protocol == SUBPROTOCOL

    async def receive(self) -> WSMessage:
        """The next text, binary or ping frame. Raises Gone. A ping's sender takes the pong as proof: the caller answers it."""
        while True:
            message: WSMessage = await self._ws.receive()
            if message.type in {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING}:
                return message
            if message.type is not WSMsgType.PONG:
                raise Gone

    async def receive_text(self) -> str:
        """The next text frame; pings before it are answered at once. Raises Gone, Closed."""
        while True:
            message = await self.receive()
            if message.type is WSMsgType.TEXT:
                return str(message.data)
            if message.type is WSMsgType.BINARY:
                raise Closed(PROTOCOL_ERROR, "Expected text")
            await self.pong(message.data)

    async def send(self, frame: bytes) -> None:
        """The text frame is on its way to a client that keeps up. Raises Gone."""
        await self._deliver(self._ws.send_frame, frame, WSMsgType.TEXT)

    async def pong(self, payload: bytes) -> None:
        """The ping is answered. Raises Gone."""
        await self._deliver(self._ws.send_frame, payload, WSMsgType.PONG)

    async def _deliver(self, send: Callable[[bytes, WSMsgType], Awaitable[None]], data: bytes, kind: WSMsgType) -> None:
        # A timer of the loop's: a cancel scope would cost more than the sending, and thousands are sent to at a time.
        timer = asyncio.get_running_loop().call_later(SEND_SECONDS, self._abort)
        try:
            await send(data, kind)
        except (ConnectionError, RuntimeError) as error:
            # RuntimeError is what aiohttp raises for a socket that is closing under the sender. It is kept beyond that, and keeps what its
            # frames have: megabytes that were on their way.
            error.__traceback__ = None
            raise Gone from None
        finally:
            timer.cancel()
        if self._is_cut:
            raise Gone

    async def close(self, code: int, reason: str = "") -> None:
        """The socket is closed, politely if the client answers in time."""
        message = reason.encode()[:_REASON_MAX_BYTES].decode(errors="ignore").encode()
        with anyio.move_on_after(CLOSE_SECONDS * 2, shield=True) as scope:
            await self._ws.close(code=code, message=message)
        if scope.cancelled_caught:
            self._abort()

    def _abort(self) -> None:
        self._is_cut = True
        if self._request.transport is not None:
            self._request.transport.abort()


class Stopped(Protocol):
    """What stays open until somebody ends it."""

    def stop(self, code: int, reason: str) -> None:
        """It ends soon, and says so by a websocket's close code where it is one."""


class Sockets:
    """Every open socket of the daemon, and every page that is kept up to date. Belongs to the event loop."""

    def __init__(self) -> None:
        self._open: set[Stopped] = set()
        self._stop_code: int | None = None
        self._empty = anyio.Event()

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def registered(self, socket: Stopped) -> Iterator[None]:
        """The socket is ended by `close_all` for as long as the block lasts."""
        self._open.add(socket)
        if self._stop_code is not None:
            socket.stop(self._stop_code, _STOPPING)
        try:
            yield
        finally:
            self._open.discard(socket)
            if not self._open:
                self._empty.set()

    async def close_all(self, code: int = SERVICE_RESTART, *, timeout_seconds: float = 10.0) -> None:
        """What open sockets had received is stored and each is closed with `code`; later ones are closed at once."""
        self._stop_code = code
        for socket in self._open:
            socket.stop(code, _STOPPING)
        if self._open:
            self._empty = anyio.Event()
            with anyio.move_on_after(timeout_seconds):
                await self._empty.wait()


async def serve(ctx: Context, body: Callable[[Socket], Awaitable[None]]) -> web.WebSocketResponse:
    """The socket was served by `body` and is closed, with the code that tells how it ended."""
    ws = web.WebSocketResponse(
        protocols=(SUBPROTOCOL,),
        # A pong says that every event before the ping is stored, so only our own code may send one; and a client's close is answered
        # once what it had sent is stored.
        autoping=False,
        autoclose=False,
        heartbeat=HEARTBEAT_SECONDS,
        timeout=CLOSE_SECONDS,
        compress=False,
        max_msg_size=ctx.services.settings.server.max_frame_bytes,
    )
    await ws.prepare(ctx.request)
    _bound_buffer(ctx.request)
    socket = Socket(ws, ctx.request)
    with ctx.services.sockets.registered(socket):
        code, reason = await _ending(socket, lambda socket: _within_limits(ctx, socket, body))
        await socket.close(code, reason)
    return ws


def _bound_buffer(request: web.Request) -> None:
    """The kernel keeps no more than that for a client that reads nothing; by itself it goes up to megabytes."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES)


async def _within_limits(ctx: Context, socket: Socket, body: Callable[[Socket], Awaitable[None]]) -> None:
    with ctx.limits.socket(source_of(ctx.request, ctx.actor)):
        await _while_key_lives(ctx, socket, body)


async def _ending(socket: Socket, body: Callable[[Socket], Awaitable[None]]) -> tuple[int, str]:
    try:
        with socket.scope:
            await body(socket)
    except Gone:
        return NORMAL, ""
    except Closed as end:
        return end.code, end.reason
    except ManagedError as error:
        if error.code in _CLOSE_CODES:
            return _CLOSE_CODES[error.code], error.message
        log.warning("socket.refused", reason=error.message)
        return POLICY_VIOLATION, error.message
    except Exception as error:
        log.error("socket.failed", exc_info=error)
        return INTERNAL_ERROR, "Internal Server Error"
    return (socket.stop_code, socket.stop_reason) if socket.scope.cancelled_caught else (NORMAL, "")


async def _while_key_lives(ctx: Context, socket: Socket, body: Callable[[Socket], Awaitable[None]]) -> None:
    """`body` ended, or it was stopped because the key did that opened the socket."""

    async def watch() -> None:
        await socket.admitted.wait()
        with ExitStack() as watched:
            for holder in socket.holders:
                end = partial(socket.stop, POLICY_VIOLATION, _ENDED[holder.kind])
                watched.enter_context(ctx.services.keys.watching(holder, end))
            await anyio.sleep_forever()

    await _beside(watch, lambda: body(socket))


async def _beside(companion: Callable[[], Coroutine[Any, Any, None]], work: Callable[[], Awaitable[None]]) -> None:
    """`work` ended, and so did `companion`; what `work` raised is raised as it is, not in a group."""
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(companion)
            try:
                await work()
            except Exception as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
    finally:
        # It knows this frame: both would hold each other, and megabytes that were on their way, until the garbage collector comes.
        failure = None


async def while_listening(socket: Socket, work: Callable[[], Awaitable[None]]) -> None:
    """`work` ended, or the client went; pings were answered meanwhile and whatever else the client said was ignored."""
    with anyio.CancelScope() as scope:

        async def listen() -> None:
            try:
                while True:
                    message = await socket.receive()
                    if message.type is WSMsgType.PING:
                        await socket.pong(message.data)
            except Gone:
                scope.cancel()

        with suppress(Gone):
            await _beside(listen, work)
