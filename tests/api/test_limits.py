"""What one source may have under way, and what happens beyond."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from aiohttp import WSMsgType, web

from managedd.api import limits
from managedd.api.limits import Limits
from managedd.errors import ErrorCode, ManagedError
from managedd.listeners import Door
from tests.api.test_sockets import until_open

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream

    from managedd.api.context import Services
    from tests.api.conftest import ApiClient

pytestmark = pytest.mark.anyio

PATIENCE_SECONDS = 10.0
MIB = 1024 * 1024


@pytest.fixture
async def services(services: Services) -> Services:
    """With small limits."""
    small = {"max_body_bytes": MIB, "max_sockets": 2, "max_connections": 3, "max_connections_per_address": 3}
    server = services.settings.server.model_copy(update=small)
    services.settings = services.settings.model_copy(update={"server": server})
    return services


@asynccontextmanager
async def begun(port: int, head: str = "") -> AsyncIterator[ByteStream]:
    """A connection on which `head` was sent."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(head.replace("\n", "\r\n").encode())
        yield stream


async def answer(stream: ByteStream) -> bytes:
    """Everything that comes until the connection ends."""
    said = b""
    with anyio.fail_after(PATIENCE_SECONDS):
        try:
            while True:
                said += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return said


def post(size: int, more: str = "") -> str:
    return (
        "POST /api/flows/filter HTTP/1.1\nHost: localhost\nContent-Type: application/json\n"
        f"Content-Length: {size}\n{more}\n"
    )


async def eventually(api: ApiClient, expected: int, **options: Any) -> Any:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            response = await api.http.post("/api/flows/filter", **options)
            if response.status == expected:
                return response
            await anyio.sleep(0.02)


async def test_bodies_under_way_are_bounded(api: ApiClient) -> None:
    port = api.http.port
    assert port is not None
    async with AsyncExitStack() as stack:
        for _ in range(limits.BODIES):
            await stack.enter_async_context(begun(port, post(MIB) + "{"))
        refused = await eventually(api, 429, json={})
        assert refused.headers["Retry-After"] == "1"
        assert "too much under way" in (await refused.json())["detail"]
        assert (await api.get("/admin/version"))[0] == 200
    await eventually(api, 200, json={})


async def test_a_body_of_unknown_size_counts_as_the_largest(api: ApiClient) -> None:
    port = api.http.port
    assert port is not None
    chunked = post(0).replace("Content-Length: 0", "Transfer-Encoding: chunked")
    async with AsyncExitStack() as stack:
        for _ in range(limits.BODIES):
            await stack.enter_async_context(begun(port, chunked))
        await eventually(api, 429, json={})


async def test_a_body_has_to_come_in_time(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.1)
    assert api.http.port is not None
    async with begun(api.http.port, post(100) + "{") as stream:
        with anyio.fail_after(PATIENCE_SECONDS):
            assert (await stream.receive()).startswith(b"HTTP/1.1 408 ")


async def test_sockets_of_one_source_are_bounded(api: ApiClient) -> None:
    async with api.http.ws_connect("/api/events/in"):
        async with api.http.ws_connect("/api/events/in") as second:
            await second.ping()
            async with api.http.ws_connect("/api/events/in") as third:
                message = await third.receive()
                assert (message.type, message.data) == (WSMsgType.CLOSE, 1013)
                assert "server.max_sockets" in str(message.extra)
        await until_open(api, 1)
        async with api.http.ws_connect("/api/events/in") as again:
            with anyio.move_on_after(0.2) as scope:
                await again.receive()
            assert scope.cancelled_caught


async def test_each_source_counts_for_itself_and_is_forgotten(services: Services) -> None:
    bounds = Limits(services.settings.server)
    with bounds.socket("a"), bounds.socket("a"), bounds.socket("b"):
        with pytest.raises(ManagedError) as refused, bounds.socket("a"):
            pass
        assert refused.value.code is ErrorCode.TOO_MANY
        with bounds.socket("b"):
            pass
    assert not bounds._sockets


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


def an_application() -> web.Application:
    application = web.Application()
    application.router.add_get("/", hello)
    return application


async def test_connections_of_a_listener_are_bounded(services: Services) -> None:
    door = Door(an_application(), services.settings.server)
    await door.open()
    try:
        _, port = await door.listen("127.0.0.1", 0)
        async with AsyncExitStack() as stack:
            for _ in range(3):
                stream = await stack.enter_async_context(begun(port, "GET / HTTP/1.1\nHost: x\n\n"))
                assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")
            async with begun(port) as one_more:
                said = await answer(one_more)
            assert said.startswith(b"HTTP/1.1 429 ")
            assert b"Retry-After: 1\r\n" in said
        with anyio.fail_after(PATIENCE_SECONDS):
            while True:
                async with begun(port, "GET / HTTP/1.1\nHost: x\nConnection: close\n\n") as stream:
                    if (await answer(stream)).startswith(b"HTTP/1.1 200 "):
                        break
    finally:
        await door.close()
