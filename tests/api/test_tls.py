"""The clients' listener with a certificate: who speaks TLS, who doesn't, and who never gets that far."""

from __future__ import annotations

import gc
import ssl
from asyncio.sslproto import SSLProtocol
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
from aiohttp import ClientSession, TCPConnector, web
from anyio.streams.tls import TLSAttribute
from structlog.testing import capture_logs

from managedd import reloading
from managedd.api import entrance
from managedd.config import ServerSection, Settings
from managedd.config.certificates import read_certificate
from managedd.listeners import Door
from tests.api.test_connections import HEAD, hello, status, until, until_left
from tests.api.test_limits import answer, begun
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from anyio.streams.tls import TLSStream

    from tests.support.certificates import Certificate

pytestmark = pytest.mark.anyio

ADDRESS = "127.0.0.1"
REQUEST = (HEAD + "\n").replace("\n", "\r\n").encode()
LARGE = 4 * 1024 * 1024


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificate(authority: Authority) -> Certificate:
    return authority.certificate(ADDRESS)


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def large(_: web.Request) -> web.Response:
    response = web.Response(body=bytes(LARGE))
    response.force_close()
    return response


@asynccontextmanager
async def listening(certificate: Certificate, **settings: int) -> AsyncIterator[tuple[Door, int]]:
    server = ServerSection.model_validate(
        {"stop_seconds": 0.1, "tls_certificate": certificate.chain, "tls_key": certificate.key, **settings}
    )
    application = web.Application()
    application.router.add_route("*", "/", hello)
    application.router.add_get("/socket", echo)
    application.router.add_get("/large", large)
    door = Door(application, server, certificate=read_certificate(server))
    await door.open()
    try:
        _, port = await door.listen(ADDRESS, 0)
        yield door, port
    finally:
        await door.close()


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.bundle)


@asynccontextmanager
async def secured(port: int, context: ssl.SSLContext) -> AsyncIterator[TLSStream]:
    async with await anyio.connect_tcp(ADDRESS, port, ssl_context=context, tls_standard_compatible=False) as stream:
        yield stream


async def test_requests_and_sockets_go_by_tls(authority: Authority, certificate: Certificate) -> None:
    async with (
        listening(certificate) as (_, port),
        ClientSession(connector=TCPConnector(ssl=trusting(authority))) as session,
    ):
        async with session.get(f"https://{ADDRESS}:{port}/") as response:
            assert response.status == 200
        async with session.ws_connect(f"wss://{ADDRESS}:{port}/socket") as ws:
            await ws.send_str("over TLS")
            assert (await ws.receive_str()) == "over TLS"


async def test_an_answer_whose_connection_is_closed_comes_whole(authority: Authority, certificate: Certificate) -> None:
    async with (
        listening(certificate) as (door, port),
        ClientSession(connector=TCPConnector(ssl=trusting(authority))) as session,
    ):
        async with session.get(f"https://{ADDRESS}:{port}/large") as response:
            assert len(await response.read()) == LARGE
        await until_left(door)


async def test_a_connection_keeps_no_more_memory_than_it_reads_at_once(
    authority: Authority, certificate: Certificate
) -> None:
    async with listening(certificate) as (_, port), secured(port, trusting(authority)) as stream:
        await stream.send(REQUEST)
        assert await status(stream) == 200
        buffers = [len(each._ssl_buffer) for each in gc.get_objects() if isinstance(each, SSLProtocol)]
        assert buffers
        assert max(buffers) == entrance.TLS_READ_BYTES
        body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)
        await stream.send(body)
        assert b"hello 500000" in await stream.receive()


async def test_who_speaks_plain_http_is_told_to_speak_https(certificate: Certificate) -> None:
    async with listening(certificate) as (door, port), begun(port, HEAD + "\n") as stream:
        said = await answer(stream)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"use https://" in said
        await until_left(door)


async def test_a_handshake_that_never_ends_is_a_connection_and_ends(
    certificate: Certificate, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entrance, "HANDSHAKE_SECONDS", 0.5)
    async with listening(certificate, max_connections=16, max_connections_per_address=8) as (door, port):
        async with AsyncExitStack() as stack:
            silent = [await stack.enter_async_context(begun(port)) for _ in range(4)]
            stuck = [await stack.enter_async_context(begun(port)) for _ in range(4)]
            for one in stuck:
                await one.send(b"\x16\x03\x01")
            await until(lambda: len(door.connections) == 8)
            async with begun(port) as refused:
                # No handshake is made with it: it is just closed.
                assert await answer(refused) == b""
            for one in (*silent, *stuck):
                assert await answer(one) == b""
        await until_left(door)
        async with secured(port, trusting(authority)) as stream:
            await stream.send(REQUEST)
            assert await status(stream) == 200


async def test_who_does_not_trust_the_certificate_leaves_nothing_behind(
    certificate: Certificate, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(certificate) as (door, port):
        for _ in range(3):
            with pytest.raises(ssl.SSLError):
                async with secured(port, ssl.create_default_context()):
                    pass
        await until_left(door)
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


async def test_an_old_version_of_tls_is_refused(authority: Authority, certificate: Certificate) -> None:
    old = trusting(authority)
    with pytest.warns(DeprecationWarning):
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with listening(certificate) as (door, port):
        with pytest.raises((ssl.SSLError, anyio.EndOfStream)):
            async with secured(port, old):
                pass
        await until_left(door)


async def test_a_new_certificate_is_shown_to_who_comes_next_and_open_connections_stay(
    authority: Authority, certificate: Certificate
) -> None:
    trust = trusting(authority)
    async with listening(certificate) as (door, port), secured(port, trust) as before:
        await before.send(REQUEST)
        assert await status(before) == 200
        authority.certificate(ADDRESS)
        server = {"tls_certificate": certificate.chain, "tls_key": certificate.key}
        settings = Settings.model_validate({"server": server})
        assert await reloading.renew(door, settings)
        async with secured(port, trust) as after:
            assert serial(after) != serial(before)
        await before.send(REQUEST)
        assert await status(before) == 200


async def test_a_certificate_that_can_not_be_used_changes_nothing(
    authority: Authority, certificate: Certificate
) -> None:
    async with listening(certificate) as (door, port):
        first = door.certificate
        expired = authority.certificate(ADDRESS, name="expired", days=(-2, -1))
        server = {"tls_certificate": expired.chain, "tls_key": expired.key}
        with capture_logs() as logs:
            assert not await reloading.renew(door, Settings.model_validate({"server": server}))
        assert door.certificate is first
        assert [entry["event"] for entry in logs] == ["certificate.refused"]
        assert "has expired" in logs[0]["reason"]
        async with secured(port, trusting(authority)) as stream:
            await stream.send(REQUEST)
            assert await status(stream) == 200


def serial(stream: TLSStream) -> str:
    shown = stream.extra(TLSAttribute.peer_certificate)
    return str(shown["serialNumber"])


async def test_whether_there_is_tls_at_all_waits_for_a_restart(certificate: Certificate) -> None:
    door = Door(web.Application(), ServerSection())
    server = {"tls_certificate": certificate.chain, "tls_key": certificate.key}
    assert not await reloading.renew(door, Settings.model_validate({"server": server}))
    assert door.certificate is None
