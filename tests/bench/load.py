"""The load: one process that sends prepared requests to either system, and counts and times the answers.

    python -m tests.bench.load        one JSON command per line of standard input, one JSON answer per line of standard output

It must cost less than what it measures, so requests are bytes made beforehand and the client below does nothing but keep-alive HTTP/1.1 with
one request at a time on a connection: a general client needs half a millisecond for a request, which is what managedd needs for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROWS = 200
"""How many runs there are to read, to filter and to set states of: also the most that one page may have."""
LINES = 100
"""Log lines in one batch, as a client sends them that prints a lot."""
GRACE_SECONDS = 10.0
"""How long after the end of a round an answer may still come; then it counts as an error."""
PAUSE_SECONDS = 0.1
"""How long a client waits after an error: less than the real client's."""
RECOVERY_SECONDS = 30.0
"""How long a system may take after a round until it answers again."""
SETUP_TRIES = 100
MOMENT = "mm:ss"
"""Where a batch of lines has its minute and second."""
HEADERS = (
    "Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: prefect/3.8.8 (API 0.8.4)\r\n"
    "X-PREFECT-API-VERSION: 0.8.4\r\n"
)
STATES: tuple[dict[str, Any], ...] = (
    {"type": "RUNNING"},
    {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": "2020-01-01T00:00:00Z"}},
    {"type": "PENDING"},
)
"""What a run that retries goes through after its first Pending, again and again; the rules admit each after the one before."""


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, host: str, port: int, request: bytes) -> tuple[int, bytes]:
        """Status and body. Raises ConnectionError."""
        loop = asyncio.get_running_loop()
        if self._transport is None:
            await loop.create_connection(lambda: self, host, port)
        assert self._transport is not None
        self._received = b""
        self._answer = loop.create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """The connection is closed, whatever was under way on it."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # it is one, for a stream

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if self._answer is None or self._answer.done():
            return
        answer = parsed(self._received)
        if answer is not None:
            self._answer.set_result(answer)


def parsed(received: bytes) -> tuple[int, bytes] | None:
    """Status and body of a complete answer, or None."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, body = received[:end].lower(), received[end + 4 :]
    status = int(head[9:12])
    at = head.find(b"content-length:")
    if at >= 0:
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        return (status, body) if len(body) >= length else None
    if b"transfer-encoding: chunked" in head:
        # Nobody asked for more than this answer, and JSON has no bare line breaks: this is its end and nothing else.
        return (status, body) if body.endswith(b"0\r\n\r\n") else None
    return status, body


@dataclass(slots=True)
class Tally:
    """What one round brought."""

    latencies_us: list[int] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request: how a client's requests come one after the other, and what a good answer is."""

    requests: Callable[[int], Iterator[bytes]]
    status: tuple[int, ...]
    marker: bytes = b""
    """What a good answer has in it."""


class Target:
    """One system under load: where it is, and the runs that are read, filtered and set there."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.host, self.port, self._path = parts.hostname, parts.port, parts.path
        self.shapes: dict[str, Shape] = {}

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """The bytes of a request."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {self._path}{path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{HEADERS}Content-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    async def set_up(self) -> None:
        """The runs are there, and the shapes know them."""
        connection = Connection()

        async def ask(method: str, path: str, body: Any) -> Any:
            for _ in range(SETUP_TRIES):
                status, content = await connection.ask(self.host, self.port, self.request(method, path, body))
                if status in {200, 201}:
                    return json.loads(content)
                await asyncio.sleep(PAUSE_SECONDS)
            raise RuntimeError(f"{method} {path} is answered {status}: {content[:300]!r}")

        try:
            read, written = [(await ask("POST", "/flows/", {"name": name}))["id"] for name in ("read", "written")]
            runs = [(await ask("POST", "/flow_runs/", _run(read)))["id"] for _ in range(ROWS)]
            page = {"flows": {"id": {"any_": [read]}}, "limit": ROWS, "sort": "EXPECTED_START_TIME_DESC"}
            found = await ask("POST", "/flow_runs/filter", page)
            if len(found) != ROWS:
                raise RuntimeError(f"a page of {ROWS} runs has {len(found)}")
        finally:
            connection.close()
        self._shape(written, runs, page)

    def _shape(self, flow_id: str, runs: list[str], page: dict[str, Any]) -> None:
        create = self.request("POST", "/flow_runs/", _run(flow_id))
        filter_ = self.request("POST", "/flow_runs/filter", page)
        reads = [self.request("GET", f"/flow_runs/{run}") for run in runs]
        states = [
            [self.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": False}) for state in STATES]
            for run in runs
        ]
        # One iterator per client for as long as the target lives: a run goes on in the next round where it stood.
        cycles = [itertools.cycle(requests) for requests in states]
        logs = [self.request("POST", "/logs/", _lines(run)) for run in runs]
        self.shapes = {
            "creates": Shape(lambda _: itertools.repeat(create), (201,)),
            "set_state": Shape(lambda client: cycles[client % ROWS], (200, 201), b'"ACCEPT"'),
            "reads": Shape(lambda client: itertools.cycle(reads[client * 3 % ROWS :] + reads[: client * 3 % ROWS]), (200,)),
            "filter": Shape(lambda _: itertools.repeat(filter_), (200,)),
            "logs": Shape(lambda client: _later(logs[client % ROWS]), (201,)),
        }  # fmt: skip

    async def recover(self, clients: int) -> None:
        """So many clients at once get an answer again, or it has had its time: what a round leaves undone is not the next one's."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVERY_SECONDS):
                while True:
                    answer = await self.round(self.shapes["reads"], clients, 0.0, at_least=1, grace_seconds=1.0)
                    if not answer["errors"]:
                        return
                    await asyncio.sleep(PAUSE_SECONDS)

    async def round(
        self,
        shape: Shape,
        clients: int,
        seconds: float,
        *,
        at_least: int = 0,
        grace_seconds: float = GRACE_SECONDS,
    ) -> dict[str, Any]:
        """So many clients have sent one request after the other for so long, and `at_least` so many each."""
        tally = Tally()
        cpu, began = time.process_time(), time.perf_counter()
        tasks = [
            asyncio.create_task(self._client(shape, number, tally, began + seconds, at_least), name=f"client {number}")
            for number in range(clients)
        ]
        _, late = await asyncio.wait(tasks, timeout=seconds + grace_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        tally.errors["no answer"] += len(late)
        elapsed = time.perf_counter() - began
        return {
            "elapsed_seconds": elapsed,
            "latencies_us": tally.latencies_us,
            "errors": dict(+tally.errors),
            "busy": (time.process_time() - cpu) / elapsed,
        }

    async def _client(self, shape: Shape, number: int, tally: Tally, until: float, at_least: int) -> None:
        connection, requests = Connection(), shape.requests(number)
        clock, sent = time.perf_counter, 0
        try:
            while (began := clock()) < until or sent < at_least:
                sent += 1
                try:
                    status, body = await connection.ask(self.host, self.port, next(requests))
                except OSError as error:
                    wrong = type(error).__name__
                else:
                    if status in shape.status and shape.marker in body:
                        tally.latencies_us.append(round((clock() - began) * 1e6))
                        continue
                    wrong = str(status) if status not in shape.status else "refused"
                tally.errors[wrong] += 1
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            connection.close()


def _run(flow_id: str) -> dict[str, Any]:
    """A run as the engine creates one for a flow that is called."""
    return {
        "name": "bench", "flow_id": flow_id, "flow_version": "1", "parameters": {"name": "Marvin", "number": 42}, "context": {},
        "tags": ["bench"], "parent_task_run_id": None, "empirical_policy": {"retries": 0, "retry_delay": 0},
        "state": {"type": "PENDING", "name": "Pending", "message": None, "data": None, "state_details": {}},
    }  # fmt: skip


def _later(batch: bytes) -> Iterator[bytes]:
    """The batch again and again, two seconds later each time, as a client sends them: where a line goes in an index depends on its time."""
    for second in itertools.cycle(range(0, 3600, 2)):
        yield batch.replace(MOMENT.encode(), b"%02d:%02d" % divmod(second, 60))


def _lines(run_id: str) -> list[dict[str, Any]]:
    return [
        {
            "name": "prefect.flow_runs", "level": 20, "timestamp": f"2026-01-01T00:{MOMENT}.{number:06}+00:00",
            "message": f"line {number}: the quick brown fox jumps over the lazy dog, and then it does so once more",
            "flow_run_id": run_id, "task_run_id": None,
        }
        for number in range(LINES)
    ]  # fmt: skip


async def _ceiling(seconds: float) -> dict[str, Any]:
    """A round against a server in this very process that answers at once: half of what the generator can do, at the least."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    async with server:
        target = Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api")
        request = target.request("GET", "/flow_runs/00000000-0000-0000-0000-000000000000")
        return await target.round(Shape(lambda _: itertools.repeat(request), (200,)), 1, seconds)


async def main() -> None:
    """Every command on standard input has been answered."""
    targets: dict[str, Target] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            match command["do"]:
                case "set_up":
                    targets[command["system"]] = target = Target(command["url"])
                    await target.set_up()
                case "round":
                    target = targets[command["system"]]
                    answer = await target.round(target.shapes[command["shape"]], command["clients"], command["seconds"])
                case "recover":
                    await targets[command["system"]].recover(command["clients"])
                case "ceiling":
                    answer = await _ceiling(command["seconds"])
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
