"""What one connection may send before it is a request, how long it may take for it, and how many there may be of whom."""

from __future__ import annotations

import zlib
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import web

from managedd.api import connections
from managedd.api.connections import Connections, account_of
from managedd.config import ServerSection
from managedd.listeners import Door
from tests.api.test_limits import PATIENCE_SECONDS, answer, begun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import ByteStream

pytestmark = pytest.mark.anyio

HEAD = "GET / HTTP/1.1\nHost: x\n"
LARGE = 8 * 1024 * 1024


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {len(await request.read())}")


async def unread(_: web.Request) -> web.Response:
    return web.Response(text="not read")


async def large(_: web.Request) -> web.Response:
    return web.Response(body=bytes(LARGE))


@asynccontextmanager
async def listening(**settings: int) -> AsyncIterator[tuple[Door, int]]:
    """A listener, and its port."""
    application = web.Application()
    application.router.add_route("*", "/", hello)
    application.router.add_post("/unread", unread)
    application.router.add_get("/large", large)
    door = Door(application, ServerSection.model_validate({"stop_seconds": 0.1, **settings}))
    await door.open()
    try:
        _, port = await door.listen("127.0.0.1", 0)
        yield door, port
    finally:
        await door.close()


async def status(stream: ByteStream) -> int:
    with anyio.fail_after(PATIENCE_SECONDS):
        return int((await stream.receive()).split()[1])


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_SECONDS):
        while True:
            if true():
                return
            await anyio.sleep(0.01)


async def until_left(door: Door, count: int = 0) -> None:
    await until(lambda: len(door.connections) <= count)


@pytest.mark.parametrize(
    ("head", "expected", "words"),
    [
        pytest.param(f"GET /{'x' * 20_000} HTTP/1.1\n", 414, b"request line", id="request line"),
        pytest.param(f"GET /?{'a=1&' * 5_000} HTTP/1.1\n", 414, b"request line", id="query string"),
        pytest.param(f"{HEAD}X-Large: {'x' * 9_000}\n", 431, b"header is larger", id="value of a header"),
        pytest.param(f"{HEAD}{'X' * 9_000}: x\n", 431, b"header is larger", id="name of a header"),
        pytest.param(HEAD + "X-Many: x\n" * 100 + "\n", 431, b"64 headers", id="number of headers"),
        pytest.param(HEAD + f"X-Many: {'x' * 8_000}\n" * 20, 431, b"head is larger", id="size of the head"),
        pytest.param("GET / HTTP/1.1\nHost: x\nBad Header\n\n", 400, b"no HTTP request", id="no header"),
        pytest.param("GET / HTTP/9.9\n\n", 400, b"no HTTP request", id="version"),
        pytest.param("\x16\x03\x01 is TLS\n\n", 400, b"no HTTP request", id="TLS"),
        pytest.param(f"{HEAD}Content-Length: -1\n\n", 400, b"no HTTP request", id="negative length"),
        pytest.param(f"{HEAD}Content-Length: {'9' * 40}\n\n", 400, b"no HTTP request", id="endless length"),
        pytest.param(f"{HEAD}Content-Length: 1\nTransfer-Encoding: chunked\n\n", 400, b"no HTTP", id="two lengths"),
        pytest.param(f"{HEAD}Transfer-Encoding: chunked\n\n{'f' * 40}\n", 400, b"", id="endless chunk"),
    ],
)
async def test_what_is_no_request_is_answered_and_the_connection_closed(
    head: str, expected: int, words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as (door, port), begun(port, head) as stream:
        said = await answer(stream)
        assert said.split()[1] == str(expected).encode()
        assert words in said
        assert b"x" * 50 not in said
        await until_left(door)
    assert not caplog.records


@pytest.mark.parametrize("head", ["GET /", HEAD, HEAD + "X-Slow: "])
async def test_a_head_has_to_come_in_time(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with listening() as (door, port), begun(port, head) as slow:

        async def dribble() -> None:
            while True:
                await slow.send(b"x")
                await anyio.sleep(0.02)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(suppressed, dribble)
            async with begun(port, HEAD + "\n") as other:
                assert await status(other) == 200
            assert (await answer(slow)).startswith(b"HTTP/1.1 408 ")
            tasks.cancel_scope.cancel()
        await until_left(door)


async def suppressed(work: object) -> None:
    try:
        await work()  # type: ignore[operator]
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


async def test_the_head_after_an_answer_has_to_come_in_time_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with listening() as (_, port), begun(port, HEAD + "\n") as stream:
        assert await status(stream) == 200
        await stream.send(b"GET / HT")
        assert b" 408 " in await answer(stream)


async def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    async with listening() as (door, port), begun(port) as stream:
        assert await answer(stream) == b""
        await until_left(door)


async def test_a_head_in_pieces_is_a_request_and_its_body_is_no_head() -> None:
    async with listening() as (_, port):
        async with begun(port, "POST / HTTP/1.1\nHo") as stream:
            await stream.send(b"st: x\r\nContent-Length: 200000\r\n\r\n")
            await stream.send(bytes(200_000))
            assert b"hello 200000" in await stream.receive()
        async with begun(port, "POST /unread HTTP/1.1\nHost: x\nContent-Length: 200000\n\n") as stream:
            assert await status(stream) == 200
            # Nobody reads it, and it is still no head.
            await stream.send(bytes(200_000))
            await stream.send((HEAD + "Connection: close\n\n").replace("\n", "\r\n").encode())
            assert (await answer(stream)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_no_listener_unpacks_what_it_is_sent(coding: str) -> None:
    packed = zlib.compress(bytes(1_000_000), wbits=31)
    head = f"POST / HTTP/1.1\nHost: x\nContent-Encoding: {coding}\nContent-Length: {len(packed)}\n\n"
    async with listening() as (_, port), begun(port, head) as stream:
        await stream.send(packed)
        assert f"hello {len(packed)}".encode() in await stream.receive()


async def test_an_answer_has_to_be_taken_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TAKE_SECONDS", 0.2)
    monkeypatch.setattr(connections, "TAKE_BYTES_PER_SECOND", 1 << 40)
    async with listening() as (door, port), begun(port, HEAD.replace("/ ", "/large ") + "\n"):
        await until_left(door)


async def test_who_asks_on_without_reading_is_not_answered_on() -> None:
    async with listening() as (door, port), begun(port) as stream:
        request = (HEAD.replace("/ ", "/large ") + "\n").replace("\n", "\r\n").encode()
        with anyio.move_on_after(1.0):
            while True:
                await stream.send(request * 20)
        (one,) = door._runner.server.connections  # type: ignore[union-attr]
        assert one.transport is not None
        assert one.transport.get_write_buffer_size() <= LARGE + 1024


async def test_the_rest_of_an_answer_has_to_be_taken_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one whose connection is to be closed, which asyncio would wait for as long as it takes."""
    monkeypatch.setattr(connections, "CLOSE_SECONDS", 0.2)
    async with listening() as (door, port), begun(port) as stream:
        one = HEAD.replace("/ ", "/large ").replace("\n", "\r\n").encode()
        await stream.send(one + b"\r\n")
        (open_one,) = door._runner.server.connections  # type: ignore[union-attr]
        await until(lambda: open_one.writing_paused)
        open_one.force_close()
        await until_left(door)


async def test_one_address_can_not_have_all_connections() -> None:
    async with AsyncExitStack() as stack:
        door, port = await stack.enter_async_context(listening(max_connections=16, max_connections_per_address=8))
        for _ in range(8):
            one = await stack.enter_async_context(begun(port, HEAD + "\n"))
            assert await status(one) == 200
        async with begun(port) as refused:
            assert (await answer(refused)).startswith(b"HTTP/1.1 429 ")
        another = await anyio.connect_tcp("127.0.0.1", port, local_host="127.0.0.2")
        async with another:
            await another.send((HEAD + "\n").replace("\n", "\r\n").encode())
            assert await status(another) == 200
        await until_left(door, 8)
    assert not door.connections._of


async def test_a_request_that_goes_on_after_its_client_went_still_counts() -> None:
    going_on, may_end = anyio.Event(), anyio.Event()

    async def slow(_: web.Request) -> web.Response:
        going_on.set()
        await may_end.wait()
        return web.Response()

    application = web.Application()
    application.router.add_get("/", slow)
    door = Door(application, ServerSection(stop_seconds=0.1))
    await door.open()
    try:
        _, port = await door.listen("127.0.0.1", 0)
        async with begun(port, HEAD + "\n"):
            await going_on.wait()
        await anyio.sleep(0.05)
        assert len(door.connections) == 1
        may_end.set()
        await until_left(door)
    finally:
        await door.close()


def test_a_proxy_may_have_all_connections_and_no_more() -> None:
    bounds = Connections(ServerSection(max_connections=16, max_connections_per_address=8), is_proxy="10.0.0.1".__eq__)
    assert [bounds.enter("10.0.0.1") for _ in range(17)] == ["10.0.0.1"] * 16 + [None]
    for _ in range(16):
        bounds.leave("10.0.0.1")
    assert len(bounds) == 0


def test_three_quarters_are_the_most_of_one_address_unless_it_is_said_otherwise() -> None:
    bounds = Connections(ServerSection(max_connections=20))
    assert [bounds.enter("192.0.2.1") for _ in range(16)].count(None) == 1
    assert bounds.enter("192.0.2.2") == "192.0.2.2"


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("unknown", "unknown"),
    ],
)
def test_an_address_counts_for_whoever_has_it(address: str, account: str) -> None:
    assert account_of(address) == account


async def test_the_operators_socket_has_no_address(tmp_path: object) -> None:
    application = web.Application()
    application.router.add_get("/", hello)
    door = Door(application, ServerSection(max_connections=16, max_connections_per_address=8))
    await door.open()
    try:
        path = f"{tmp_path}/a.sock"
        await door.listen_unix(path)  # type: ignore[arg-type]
        async with AsyncExitStack() as stack:
            for _ in range(12):
                stream = await stack.enter_async_context(await anyio.connect_unix(path))
                await stream.send((HEAD + "\n").replace("\n", "\r\n").encode())
                assert await status(stream) == 200
    finally:
        await door.close()
