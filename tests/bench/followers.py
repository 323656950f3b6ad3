"""Many who follow one run's log, from one process: what each got, and how long after it was printed.

`python -m tests.bench.followers URL RUN --sockets 1000 --stuck 10` prints a JSON object when all sockets are open, and one with what was
found when the run has ended. Those that are stuck read the first message and then nothing more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import sys
import time
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

LINE: Final = re.compile(r'"message":"(\d+) (\d+)')
CURSOR: Final = re.compile(r'"cursor":"([0-9a-f-]+)"')
OPENING: Final = 40
"""So many are opened at a time."""
RETRY_SECONDS: Final = 0.5
RECEIVE_BUFFER_BYTES: Final = 128 * 1024


@dataclass
class Follower:
    """One who follows."""

    url: str
    lines: int = 0
    """How many came; the next one has this number."""
    faults: int = 0
    """Lines that were missing, came twice or out of order."""
    messages: int = 0
    reconnections: int = 0
    ended: bool = False
    delays_us: array[int] = field(default_factory=lambda: array("q"))
    first: asyncio.Event = field(default_factory=asyncio.Event)
    is_stuck: bool = False

    async def follow(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, released: asyncio.Event) -> None:
        """Until the run has ended; one that is stuck until `released`."""
        cursor = ""
        while not self.ended:
            try:
                async with gate:
                    ws = await session.ws_connect(self.url + cursor, max_msg_size=0, autoping=True)
                    # The first message says where it begins.
                    first = await ws.receive()
                    if first.type is aiohttp.WSMsgType.TEXT:
                        self.first.set()
                try:
                    if self.is_stuck:
                        await released.wait()
                        return
                    cursor = await self._read(ws) or cursor
                finally:
                    await ws.close()
            except (aiohttp.ClientError, OSError):
                pass
            if not self.ended:
                self.reconnections += 1
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> str | None:
        cursor = None
        async for message in ws:
            now_ns = time.time_ns()
            text: str = message.data
            self.messages += 1
            for number, printed_ns in LINE.findall(text):
                if int(number) != self.lines:
                    self.faults += 1
                self.lines = int(number) + 1
                self.delays_us.append((now_ns - int(printed_ns)) // 1000)
            last = text[text.rfind("\n") + 1 :]
            if found := CURSOR.search(last):
                cursor = f"?after={found[1]}"
            if last.startswith('{"type":"state"'):
                self.ended = True
                break
        return cursor


@dataclass(kw_only=True)
class Crowd:
    """All of them."""

    url: str
    """The API's."""
    run: str
    sockets: int
    stuck: int = 0

    def __post_init__(self) -> None:
        path = self.url.replace("http", "ws", 1) + f"/managed/flow_runs/{self.run}/logs/tail"
        self.followers = [Follower(path, is_stuck=number < self.stuck) for number in range(self.sockets)]
        self.released = asyncio.Event()
        """Once it is set, those that are stuck close."""

    @property
    def readers(self) -> list[Follower]:
        """Those that are not stuck."""
        return self.followers[self.stuck :]

    async def follow(self) -> None:
        """Every reader was told of the run's end."""
        gate = asyncio.Semaphore(OPENING)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=60)
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            tasks = [asyncio.create_task(one.follow(session, gate, self.released)) for one in self.followers]
            await asyncio.gather(*tasks[self.stuck :])
            self.released.set()
            await asyncio.gather(*tasks[: self.stuck])

    async def opened(self) -> None:
        """All are connected."""
        for one in self.followers:
            await one.first.wait()

    def found(self) -> dict[str, Any]:
        """What came."""
        delays = sorted(delay for one in self.readers for delay in one.delays_us)
        return {
            "sockets": self.sockets,
            "stuck": self.stuck,
            "lines": [min(one.lines for one in self.readers), max(one.lines for one in self.readers)],
            "faults": sum(one.faults for one in self.readers),
            "reconnections": sum(one.reconnections for one in self.readers),
            "messages": sum(one.messages for one in self.readers),
            "delay_ms": {
                name: round(delays[min(len(delays) - 1, int(len(delays) * share))] / 1000, 1)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
                if delays
            },
        }


def _socket(address: Any) -> socket.socket:
    """One whose kernel keeps little: what a client does not read is to be felt by the other side."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    made.setblocking(False)
    return made


async def _main(chosen: argparse.Namespace) -> None:
    crowd = Crowd(url=chosen.url, run=chosen.run, sockets=chosen.sockets, stuck=chosen.stuck)
    following = asyncio.create_task(crowd.follow())
    began = time.monotonic()
    await crowd.opened()
    print(json.dumps({"opened": chosen.sockets, "seconds": round(time.monotonic() - began, 2)}), flush=True)
    await following
    used = time.process_time() / (time.monotonic() - began)
    print(json.dumps({**crowd.found(), "own_processor": round(used, 2)}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("run")
    parser.add_argument("--sockets", type=int, default=1)
    parser.add_argument("--stuck", type=int, default=0)
    sys.exit(asyncio.run(_main(parser.parse_args())))
