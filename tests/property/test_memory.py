"""What a daemon has answered it forgets: over a store that stays as it is, no request leaves anything behind."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import anyio.to_thread
import pytest
from yarl import URL

from tests.support.fuzzer import Fuzzer
from tests.support.weighed import WeighedDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

AT_ONCE = 4
FILLING, WARMING, ASKED = 600, 1200, 600
ROUNDS = 3
SOCKETS = 40
LEFT_PER_REQUEST = 0.25
"""Blocks: a request that leaves nothing but one number or one short text behind leaves more."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[False, True], ids=["as it is", "that keeps each request"])
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WeighedDaemon]:
    """No engine answers: whatever is made here is never run."""
    made = WeighedDaemon(
        tmp_path / "daemon",
        settings={
            "docker": {"host": f"unix://{tmp_path}/no-engine.sock"},
            "runs": {"driver": "docker"},
            "log": {"level": "info"},
        },
        keeps=request.param,
    )
    made.start(engine=False)
    try:
        yield made
    finally:
        made.close()


class Asking:
    """Requests that nobody means, to one daemon."""

    def __init__(self, session: aiohttp.ClientSession, url: str, document: dict[str, Any]) -> None:
        self._session, self._url, self._document = session, url, document

    async def requests(self, seed: int, count: int, *, reads: bool) -> None:
        """So many were answered."""
        fuzzer = Fuzzer(self._document, seed, reads=reads)

        async def work() -> None:
            for _ in range(count // AT_ONCE):
                attempt = fuzzer.attempt()
                body = None if attempt.body is None else io.BytesIO(attempt.body)
                url = URL(self._url + attempt.path, encoded=True)
                async with self._session.request(attempt.method, url, data=body, headers=attempt.headers) as response:
                    text = await response.read()
                if response.status < 300 and text.startswith((b"{", b"[")):
                    fuzzer.learn(json.loads(text))

        async with anyio.create_task_group() as tasks:
            for _ in range(AT_ONCE):
                tasks.start_soon(work)

    async def sockets(self, count: int) -> None:
        """So many were opened one after the other, followed something, and left."""
        for number in range(count):
            path = ("/events/out", "/logs/out")[number % 2]
            async with self._session.ws_connect(self._url + path, protocols=("prefect",)) as ws:
                await ws.send_json({"type": "auth", "token": None})
                await ws.receive_json(timeout=20)
                since = f"2026-01-01T00:{number % 60:02}:00Z"
                filter_ = {"occurred": {"since": since}} if path == "/events/out" else {"timestamp": {"after_": since}}
                await ws.send_json({"type": "filter", "filter": filter_})
                await ws.ping()


@pytest.mark.timeout(300)
async def test_what_was_answered_is_forgotten(daemon: WeighedDaemon) -> None:
    weights = []
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        async with session.get(f"{daemon.url}/openapi.json") as response:
            asking = Asking(session, daemon.url, await response.json())
        await asking.requests(1, FILLING, reads=False)
        await asking.requests(2, WARMING, reads=True)
        for seed in range(ROUNDS):
            await asking.requests(10 + seed, ASKED, reads=True)
            await asking.sockets(SOCKETS)
            weights.append(await anyio.to_thread.run_sync(daemon.weight))
    told = "\n".join(map(str, weights))
    print(told)
    left = weights[-1].blocks - weights[0].blocks
    answered = weights[-1].requests - weights[0].requests
    keeps = "WEIGHED_KEEPS" in daemon.environment
    assert (left > LEFT_PER_REQUEST * answered) is keeps, told
