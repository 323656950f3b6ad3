"""Between a daemon and its container engine: connections are cut at random, in the middle of what they carry."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ_BYTES: Final = 1 << 16


class Cutter:
    """Hands everything on to the engine at `docker_host`, a unix socket, from an address of its own.

    Every connection breaks after a random number of bytes from the engine, `mean_bytes` in the middle.
    """

    def __init__(self, folder: Path, docker_host: str, *, mean_bytes: int, seed: int) -> None:
        self._path = folder / "engine.sock"
        self._engine = urlsplit(docker_host).path
        self._mean_bytes = mean_bytes
        self._random = random.Random(seed)
        self.cut = 0
        """So many connections were cut."""

    @property
    def address(self) -> str:
        """Where the daemon finds it."""
        return f"unix://{self._path}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[Cutter]:
        """It serves until the block ends."""
        loop = asyncio.new_event_loop()
        ready = threading.Event()
        ended = asyncio.Event()

        async def serve() -> None:
            async with await asyncio.start_unix_server(self._relay, self._path):
                ready.set()
                await ended.wait()

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run, name="cutter")
        thread.start()
        try:
            assert ready.wait(10)
            yield self
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            engine_reader, engine_writer = await asyncio.open_unix_connection(self._engine)
        except OSError:
            writer.transport.abort()
            return
        budget = self._random.expovariate(1 / self._mean_bytes)
        there = asyncio.create_task(_pump(reader, engine_writer))
        back = asyncio.create_task(_pump(engine_reader, writer, budget))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            self.cut += back.done() and back.result()
        finally:
            there.cancel()
            back.cancel()
            for one in (writer, engine_writer):
                one.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, budget: float = float("inf")) -> bool:
    """Bytes from there to here until one of them is gone, or, True, until the budget is used up."""
    with contextlib.suppress(ConnectionError):
        while data := await source.read(READ_BYTES):
            sink.write(data[: int(min(budget, len(data)))])
            await sink.drain()
            budget -= len(data)
            if budget <= 0:
                return True
    return False
