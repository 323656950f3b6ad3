"""A live daemon under requests and socket messages that nobody means: it answers all of them, says what is wrong, and keeps its memory.

FUZZ_REQUESTS says how many requests are made (a few thousand unless it is set), FUZZ_SEED which.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
from yarl import URL

from tests.support.daemon import LiveDaemon
from tests.support.fuzzer import Fuzzer
from tests.support.weighed import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "2000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
AT_ONCE = 8
SOCKETS = (
    "/events/in",
    "/events/out",
    "/logs/out",
    "/managed/flow_runs/00000000-0000-4000-8000-000000000001/logs/tail",
)
PARTS = 5
GROWTH = 1.25
"""Of the resident memory, from the third fifth of the requests to their end: the store and its caches grow with what is made."""
FAULTS = {"request.failed", "socket.failed", "loop.failed", "settings.refused"}
MIB = 1024 * 1024


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[LiveDaemon]:
    """No engine answers: whatever is made here is never run."""
    made = LiveDaemon(
        tmp_path / "daemon",
        docker_host=None,
        settings={
            "docker": {"host": f"unix://{tmp_path}/no-engine.sock"},
            "runs": {"driver": "docker"},
            "log": {"level": "info"},
        },
    )
    made.start(engine=False)
    try:
        yield made
    finally:
        made.close()


def faults(daemon: LiveDaemon) -> list[Any]:
    found: list[Any] = [entry for entry in daemon.events() if entry.get("event") in FAULTS or "exception" in entry]
    return [*found, *(line for line in daemon.log_path.read_text(errors="replace").splitlines() if "Traceback" in line)]


async def document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(f"{url}/openapi.json") as response:
        found: dict[str, Any] = await response.json()
        return found


@pytest.mark.timeout(6 * 3600 if REQUESTS > 10_000 else 180)
async def test_no_request_is_a_fault_of_ours(daemon: LiveDaemon) -> None:
    answered: Counter[int] = Counter()
    wrong: list[str] = []
    grown: list[int] = []
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        fuzzer = Fuzzer(await document(session, daemon.url), SEED)

        async def work(count: int) -> None:
            for _ in range(count):
                attempt = fuzzer.attempt()
                async with session.request(
                    attempt.method,
                    URL(daemon.url + attempt.path, encoded=True),
                    data=None if attempt.body is None else io.BytesIO(attempt.body),
                    headers=attempt.headers,
                ) as response:
                    text = await response.read()
                answered[response.status] += 1
                if response.status >= 500 and (response.status != 503 or "Retry-After" not in response.headers):
                    wrong.append(f"{response.status} {attempt} {text[:300]!r}")
                elif response.status < 300 and text:
                    try:
                        fuzzer.learn(json.loads(text))
                    except ValueError:
                        continue

        for _ in range(PARTS):
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(work, REQUESTS // PARTS // AT_ONCE)
            grown.append(resident_bytes(daemon.pid))
    print(f"{sum(answered.values())} requests, {len(fuzzer.seen)} of {fuzzer.operations} operations: {dict(answered)}")
    print(f"resident after each fifth, MiB: {[round(each / MIB) for each in grown]}")
    assert not wrong, "\n".join(wrong[:10])
    assert not faults(daemon)
    assert grown[-1] <= grown[2] * GROWTH
    assert answered[200] > 0
    assert answered[422] > 0


@pytest.mark.timeout(6 * 3600 if REQUESTS > 10_000 else 180)
async def test_no_message_of_a_socket_is_a_fault_of_ours(daemon: LiveDaemon) -> None:
    sent = 0
    opened: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        fuzzer = Fuzzer(await document(session, daemon.url), SEED)
        per_worker = max(REQUESTS // 20 // AT_ONCE, 1)

        async def work(number: int) -> None:
            nonlocal sent
            for turn in range(per_worker):
                path = SOCKETS[(number + turn) % len(SOCKETS)]
                protocols = ("prefect",) if turn % 2 else ()
                try:
                    async with session.ws_connect(
                        daemon.url + path, protocols=protocols, timeout=aiohttp.ClientWSTimeout(ws_close=5)
                    ) as ws:
                        opened[path] += 1
                        if turn % 3 == 0:
                            await ws.send_str('{"type":"auth","token":null}')
                        for _ in range(10):
                            message = fuzzer.message()
                            await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
                            sent += 1
                        if turn % 5 == 0:
                            await ws.ping(b"x" * 125)
                        if turn % 7 == 0 and ws._response.connection is not None:  # cut, without a word
                            ws._response.connection.transport.abort()  # type: ignore[union-attr]
                except (aiohttp.ClientError, ConnectionError):
                    continue

        async with anyio.create_task_group() as tasks:
            for number in range(AT_ONCE):
                tasks.start_soon(work, number)
        async with session.get(f"{daemon.url}/admin/version") as response:
            assert response.status == 200
    print(f"{sent} messages over {dict(opened)}; resident {resident_bytes(daemon.pid) // MIB} MiB")
    assert set(opened) == set(SOCKETS)
    assert not faults(daemon)
