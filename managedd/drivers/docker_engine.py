"""The connection to a Docker-compatible engine: two sessions, every failure one error.

Control calls are short, bounded in time and never reuse a connection: an engine that was restarted leaves stale ones behind, and a POST
on one of those cannot be repeated safely. Streams (logs, wait, pull) live long, have a connection each and are always closed by us.
"""

from __future__ import annotations

import base64
import contextlib
import json
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Self

import aiodocker
import aiohttp
import anyio
import structlog
from aiodocker.exceptions import DockerError

from managedd import starting
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

API_MIN = (1, 41)
"""Docker Engine 20.10."""
BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0)
FAULTS = (DockerError, aiohttp.ClientError, TimeoutError, OSError, ValueError, TypeError, LookupError)
"""What the client library lets through when an engine is gone, refuses, or talks nonsense (the last three)."""
UNSUPPORTED = (
    "The container engine's address must be unix://, tcp://, https:// or npipe://; forward a socket for ssh://"
)

_log = structlog.get_logger(__name__)


def failed(doing: str, error: BaseException) -> ManagedError:
    """The one error for everything that went wrong at the engine, in its own words."""
    return ManagedError(ErrorCode.DRIVER, f"{doing}: {words(error)}", detail={"status": getattr(error, "status", None)})


def words(error: BaseException) -> str:
    """What the error says, without the library's wrapping."""
    if isinstance(error, TimeoutError):
        return "the container engine did not answer in time"
    text = str(getattr(error, "message", None) or error) or type(error).__name__
    return _message(text) if text.startswith("{") else text


@contextlib.contextmanager
def doing(what: str) -> Iterator[None]:
    """Whatever fails at the engine inside the block is a ManagedError(DRIVER) that begins with `what`."""
    try:
        yield
    except FAULTS as error:
        raise failed(what, error) from error


def is_status(error: BaseException, *statuses: int) -> bool:
    """Whether the engine answered, and with one of `statuses`."""
    return isinstance(error, DockerError) and error.status in statuses


class Engine:
    """An engine at an address, as the client library finds it: DOCKER_HOST, context, or the usual sockets."""

    def __init__(self, url: str | None, *, control_timeout_seconds: float) -> None:
        self._url = url
        self._timeout_seconds = control_timeout_seconds
        self._closing = contextlib.AsyncExitStack()
        self.version: dict[str, Any] = {}
        self.is_local = False

    async def open(self) -> Self:
        """The engine answers, is new enough, and speaks one version of its API with us from now on."""
        with doing("The container engine can't be used"):
            try:
                finder = aiodocker.Docker(url=self._url)
            except AssertionError:
                raise ManagedError(
                    ErrorCode.DRIVER,
                    "No container engine was found: there is no Docker socket here and DOCKER_HOST is not set",
                ) from None
            except ImportError:
                raise ManagedError(ErrorCode.DRIVER, UNSUPPORTED) from None
            self._closing.push_async_callback(finder.close)
            self.is_local = isinstance(finder.connector, (aiohttp.UnixConnector, aiohttp.NamedPipeConnector))
            if not self.is_local:
                await anyio.to_thread.run_sync(starting.trust)
            short = aiohttp.ClientTimeout(total=self._timeout_seconds)
            self._control = await self._session(_connector(finder.connector, limit=100), short)
            self._streams = await self._session(
                _connector(finder.connector, limit=0),
                aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_seconds),
            )
            # The client library is given our session, so what it composes goes the bounded way.
            first = aiodocker.Docker(url=self._url, session=self._control, api_version="auto", timeout=short)
            self._closing.push_async_callback(first.close)
            self.version = await first.version()
            api = _chosen(self.version)
            self._base = f"{first.docker_host}/{api}/"
            self.docker = aiodocker.Docker(url=self._url, session=self._control, api_version=api, timeout=short)
            self._closing.push_async_callback(self.docker.close)
            self.waiting = aiodocker.Docker(url=self._url, session=self._streams, api_version=api)
            self._closing.push_async_callback(self.waiting.close)
        return self

    async def close(self) -> None:
        """Every connection is closed."""
        with anyio.CancelScope(shield=True):
            await self._closing.aclose()

    async def until_it_answers(self) -> None:
        """The engine answers a ping; it may have been restarted since it last did."""
        attempt = 0
        while True:
            try:
                with anyio.fail_after(5):
                    async with self._control.get(f"{self._base}_ping") as response:
                        if response.status == 200:
                            return
            except FAULTS as error:
                if attempt == len(BACKOFF_SECONDS):
                    _log.warning("engine.unreachable", error=words(error))
            await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
            attempt += 1

    async def now_us(self) -> int | None:
        """What the engine's own clock shows, rounded down to a second; None when it does not tell."""
        async with self._control.get(f"{self._base}_ping") as response:
            told = response.headers.get("Date")
        return None if told is None else int(parsedate_to_datetime(told).timestamp()) * 1_000_000

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, params: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer without an end; its connection is closed with the block, whatever the engine still has to say."""
        response = await self._streams.request(method, self._base + path, params=params)
        try:
            await _check(response)
            yield response
        finally:
            response.close()

    async def call(
        self, method: str, path: str, params: Mapping[str, str] | None = None, *, timeout_seconds: float | None = None
    ) -> None:
        """The engine has done it. `timeout_seconds` instead of the usual bound."""
        with anyio.fail_after(timeout_seconds or self._timeout_seconds):
            async with self.stream(method, path, params or {}):
                pass

    async def download(self, path: str, params: Mapping[str, str], *, max_bytes: int) -> bytes | None:
        """The body of a GET; None when it is larger than `max_bytes`, of which nothing more is read."""
        async with self._control.get(self._base + path, params=params) as response:
            try:
                await _check(response)
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > max_bytes:
                        return None
                return bytes(body)
            finally:
                response.close()

    async def file(self, container_id: str, path: str, *, max_bytes: int) -> bytes | None:
        """A tar of that file, or folder, of a container; None when it is not there, or when the tar is larger than `max_bytes`."""
        try:
            return await self.download(f"containers/{container_id}/archive", {"path": path}, max_bytes=max_bytes)
        except DockerError as error:
            if is_status(error, 404):
                return None
            raise

    async def stat(self, container_id: str, path: str) -> Any:
        """What the engine says of that file of a container, in its own form; None when that is nothing.

        Some engines start a process of their own to hand out a file; for this they need none.
        """
        url = f"{self._base}containers/{container_id}/archive"
        async with self._control.head(url, params={"path": path}) as response:
            told = response.headers.get("X-Docker-Container-Path-Stat")
            return json.loads(base64.b64decode(told)) if response.status == 200 and told else None

    async def upload(self, path: str, params: Mapping[str, str], archive: bytes) -> None:
        """The engine has unpacked the tar."""
        headers = {"Content-Type": "application/x-tar"}
        async with self._control.put(self._base + path, params=params, data=archive, headers=headers) as response:
            await _check(response)

    async def _session(self, connector: aiohttp.BaseConnector, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return await self._closing.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))


def _connector(found: aiohttp.BaseConnector | None, *, limit: int) -> aiohttp.BaseConnector:
    """A connector to where the library found the engine, with limits of our own."""
    if isinstance(found, aiohttp.NamedPipeConnector):
        return aiohttp.NamedPipeConnector(found.path, limit=limit, force_close=True)
    if isinstance(found, aiohttp.TCPConnector):
        # The library builds the TLS context from the Docker context or DOCKER_CERT_PATH and keeps it nowhere else.
        return aiohttp.TCPConnector(ssl=found._ssl, limit=limit, force_close=True)
    if type(found) is aiohttp.UnixConnector:
        return aiohttp.UnixConnector(found.path, limit=limit, force_close=True)
    raise ManagedError(
        ErrorCode.DRIVER,
        "The container engine's address must be unix://, tcp://, https:// or npipe://; forward a socket for ssh://",
    )


def _chosen(version: Mapping[str, Any]) -> str:
    """The oldest API version that we know and the engine still speaks: what newer ones changed cannot surprise us."""
    newest, oldest = _number(version.get("ApiVersion")), _number(version.get("MinAPIVersion"))
    if newest < API_MIN:
        raise ManagedError(
            ErrorCode.DRIVER,
            f"The container engine is version {version.get('Version')} (API {version.get('ApiVersion')}); managedd needs Docker 20.10 or "
            "newer (API 1.41)",
            detail={"needs": "1.41"},
        )
    return "v{}.{}".format(*max(API_MIN, oldest))


def _number(text: object) -> tuple[int, int]:
    major, _, minor = str(text or "0.0").partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    body = (await response.content.read(65_536)).decode(errors="replace")
    raise DockerError(response.status, _message(body.strip()) or str(response.reason))


def _message(body: str) -> str:
    """What an engine's answer says; the library unwraps only answers without a character set."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body
