"""The daemon as the commands reach it: the API on the unix socket in its data directory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from managedd.cli.exits import Unreachable
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from managedd.config import Settings

SOCKET_NAME = "managedd.sock"
BASE = "http://managedd/api"
"""Nothing resolves the name: the connection is the socket."""
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0
NO_CONTENT = 204
UNPROCESSABLE = 422


class Daemon:
    """One daemon, over one session."""

    def __init__(self, session: aiohttp.ClientSession, socket: Path) -> None:
        self._session = session
        self._socket = socket

    async def get(self, path: str, **params: str) -> Any:
        """The answer of a GET. Raises Unreachable, or ManagedError with the daemon's words."""
        return await self._ask("GET", path, params=params)

    async def post(self, path: str, body: Any) -> Any:
        """The answer of a POST. Raises as `get`."""
        return await self._ask("POST", path, json=body)

    async def patch(self, path: str, body: Any) -> Any:
        """The answer of a PATCH. Raises as `get`."""
        return await self._ask("PATCH", path, json=body)

    async def delete(self, path: str, **params: str) -> Any:
        """The answer of a DELETE. Raises as `get`."""
        return await self._ask("DELETE", path, params=params)

    async def lines(self, path: str, **params: str) -> AsyncGenerator[bytes, None]:
        """The lines of a GET's answer as they come, without their newlines. Raises as `get`, also in the middle."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=ANSWER_SECONDS)
        try:
            async with self._session.get(BASE + path, params=params, timeout=timeout) as response:
                if not response.ok:
                    raise await self._refused(response)
                rest = bytearray()
                async for chunk in response.content.iter_any():
                    *whole, tail = chunk.split(b"\n")
                    for line in whole:
                        yield bytes(rest + line)
                        rest.clear()
                    rest += tail
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.unreachable(error) from error

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            async with self._session.request(method, BASE + path, **options) as response:
                if response.ok:
                    return None if response.status == NO_CONTENT else await response.json()
                raise await self._refused(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.unreachable(error) from error

    async def _refused(self, response: aiohttp.ClientResponse) -> ManagedError:
        body = await response.json()
        message = str(body.get("detail") or body.get("exception_message") or response.reason)
        if "Prefect-Maintenance" in response.headers:
            return Unreachable(f"{message}: try again in a moment")
        return ManagedError(ErrorCode.INTERNAL, message)

    @asynccontextmanager
    async def socket(self, path: str, **params: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A websocket for as long as the block lasts. Raises Unreachable when it can't be opened, and ManagedError when it never will be."""
        try:
            opened = await self._session.ws_connect(BASE + path, params=params, heartbeat=30.0, max_msg_size=0)
        except aiohttp.WSServerHandshakeError as error:
            if error.status == UNPROCESSABLE:
                message = (
                    "the daemon knows no longer how far this was read: its store is another than before; ask again"
                )
                raise ManagedError(ErrorCode.CONFLICT, message) from error
            raise self.unreachable(error) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self.unreachable(error) from error
        try:
            yield opened
        finally:
            await opened.close()

    def text_of(self, message: aiohttp.WSMessage) -> str:
        """The text that came over a websocket. Raises Unreachable for anything else: so ends one whose daemon answers no heartbeat."""
        if message.type is aiohttp.WSMsgType.TEXT:
            return str(message.data)
        raise self.unreachable(message.data if isinstance(message.data, BaseException) else ConnectionError("no text"))

    def unreachable(self, error: BaseException) -> Unreachable:
        """The failure, with what to do about it."""
        cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(cause, PermissionError):
            return Unreachable(f"{self._socket} may not be opened by this user: use the daemon's user, or root")
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return Unreachable(
                f"no daemon answers on {self._socket}: start one with `managedd serve`, or name another's directory with --data-dir"
            )
        return Unreachable(f"the daemon on {self._socket} does not answer: {cause or type(cause).__name__}")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Daemon]:
    """The daemon of `settings`; whether it answers shows with the first question."""
    async with asking(settings.store.data_dir / SOCKET_NAME) as daemon:
        yield daemon


@asynccontextmanager
async def asking(path: Path) -> AsyncIterator[Daemon]:
    """The daemon behind that socket; whether it answers shows with the first question."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=CONNECT_SECONDS)
    connector = aiohttp.UnixConnector(path=str(path))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Daemon(session, path)
