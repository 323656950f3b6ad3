"""An engine that misbehaves on demand: speaks just enough of the Engine API over a unix socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

if TYPE_CHECKING:
    from pathlib import Path

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def frame(second: int, text: str, *, stream: int = 1) -> bytes:
    """One entry of a log stream."""
    payload = f"2026-11-22T06:{second // 60:02d}:{second % 60:02d}.000000000Z {text}".encode()
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


def refuse(status: int, message: str) -> Handler:
    """A handler that answers with the engine's own form of an error."""

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": message}, status=status)

    return answer


def answer(data: Any = None, *, status: int = 200) -> Handler:
    async def give(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status) if data is None else web.json_response(data, status=status)

    return give


def hang_up(handler: Handler | None = None) -> Handler:
    """The connection is cut without an answer, after `handler` has done its work."""

    async def cut(request: web.Request) -> web.StreamResponse:
        if handler is not None:
            await handler(request)
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    return cut


@dataclass
class StubEngine:
    """`script[(method, path pattern)]` is a queue of handlers; the last one stays. Everything else works as it should."""

    path: Path
    version: dict[str, Any] = field(
        default_factory=lambda: {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12", "Os": "linux"}
    )
    script: dict[tuple[str, str], list[Handler]] = field(default_factory=dict)
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: set[str] = field(default_factory=lambda: {"there:1"})
    requests: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()
        return self

    async def listen_on_tcp(self) -> str:
        """The address under which it answers too."""
        assert self._runner is not None
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[-1]
        return f"tcp://{host}:{port}"

    async def __aexit__(self, *_exc: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        self.path.unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def on(self, method: str, pattern: str, *handlers: Handler) -> None:
        self.script[method, pattern] = list(handlers)

    def count(self, request: str) -> int:
        return sum(1 for one in self.requests if re.fullmatch(request, one))

    def put_container(self, name: str, labels: dict[str, str], status: str = "created") -> dict[str, Any]:
        container = {
            "Id": "c0ffee" + f"{len(self.containers):04d}",
            "Name": f"/{name}",
            "Config": {"Labels": labels, "User": ""},
            "HostConfig": {"Memory": 1000},
            "State": {
                "Status": "",
                "ExitCode": 0,
                "OOMKilled": False,
                "StartedAt": "0001-01-01T00:00:00Z",
                "FinishedAt": "",
            },
        }
        self.containers[name] = container
        self.set_status(name, status)
        return container

    def set_status(self, name: str, status: str, code: int = 0, **state: Any) -> None:
        known = self.containers[name]["State"]
        known |= {"Status": status, "ExitCode": code, **state}
        if status != "created":
            known["StartedAt"] = "2026-11-22T06:00:00.000000001Z"
        if status == "exited":
            known["FinishedAt"] = "2026-11-22T06:10:00.000000001Z"

    def find(self, key: str) -> str | None:
        return next((name for name, container in self.containers.items() if key in {name, container["Id"]}), None)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = re.sub(r"^v\d+\.\d+/", "", request.match_info["path"])
        self.requests.append(f"{request.method} {path}")
        self.queries.append(dict(request.query))
        for (method, pattern), handlers in self.script.items():
            if method == request.method and re.fullmatch(pattern, path):
                return await (handlers.pop(0) if len(handlers) > 1 else handlers[0])(request)
        return await self.usual(request, path)

    async def usual(self, request: web.Request, path: str) -> web.StreamResponse:
        match request.method, path.split("/"):
            case "GET", ["version"]:
                return web.json_response(self.version)
            case "GET", ["info"]:
                return web.json_response(
                    {"CgroupVersion": "2", "Driver": "overlay2", "SystemTime": "2026-11-22T07:00:00Z"}
                )
            case "GET", ["_ping"]:
                return web.Response(text="OK")
            case "GET", ["networks"]:
                return web.json_response(self.networks)
            case "POST", ["networks", "create"]:
                self.networks.append({**await request.json(), "IPAM": {"Config": [{"Gateway": "127.0.0.1"}]}})
                return web.json_response({"Id": "n1"}, status=201)
            case "GET", ["events"]:
                return web.Response(text="")
            case "GET", ["images", *name, "json"]:
                image = "/".join(name)
                return (
                    web.json_response({"Id": "sha256:1"})
                    if image in self.images
                    else await refuse(404, "No such image")(request)
                )
            case "POST", ["containers", "create"]:
                name = request.query["name"]
                if name in self.containers:
                    return web.json_response({"message": f"The name {name} is in use"}, status=409)
                made = self.put_container(name, (await request.json())["Labels"])
                return web.json_response({"Id": made["Id"]}, status=201)
            case "PUT", ["containers", _, "archive"]:
                await request.read()
                return web.Response()
            case method, ["containers", key, *verb]:
                return self._container(method, key, verb)
            case _:
                return web.json_response({"message": "page not found"}, status=404)

    def _container(self, method: str, key: str, verb: list[str]) -> web.StreamResponse:
        name = self.find(key)
        if name is None:
            return web.json_response({"message": f"No such container: {key}"}, status=404)
        match method, verb:
            case "GET", ["json"]:
                return web.json_response(self.containers[name])
            case "POST", ["start"]:
                self.set_status(name, "running")
                return web.Response(status=204)
            case "POST", ["stop" | "kill"]:
                self.set_status(name, "exited", 143 if verb == ["stop"] else 137)
                return web.Response(status=204)
            case "DELETE", []:
                del self.containers[name]
                return web.Response(status=204)
            case _:
                return web.json_response({"message": f"Could not find the file in container {key}"}, status=404)


async def sent(
    request: web.Request, *chunks: bytes, then: Callable[[], Awaitable[None]] | None = None
) -> web.StreamResponse:
    """A chunked answer; `then` runs before its end."""
    kind = "application/octet-stream" if request.path.endswith("/logs") else "application/json"
    response = web.StreamResponse(headers={"Content-Type": kind})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for chunk in chunks:
        await response.write(chunk)
    if then is not None:
        await then()
    return response


def stream(*chunks: bytes) -> Handler:
    async def give(request: web.Request) -> web.StreamResponse:
        return await sent(request, *chunks)

    return give


def cut_stream(*chunks: bytes) -> Handler:
    """The chunks, and then the connection is cut within the body."""

    async def give(request: web.Request) -> web.StreamResponse:
        async def cut() -> None:
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()

        return await sent(request, *chunks, then=cut)

    return give


def endless(*chunks: bytes, left: asyncio.Event | None = None) -> Handler:
    """The chunks, and then nothing more; `left` is set when the client has gone."""

    async def give(request: web.Request) -> web.StreamResponse:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                if left is not None:
                    left.set()

        return await sent(request, *chunks, then=forever)

    return give


def told(*messages: dict[str, Any]) -> Handler:
    """The messages of a pull, after a moment."""

    async def give(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await sent(request, *(json.dumps(message).encode() + b"\r\n" for message in messages))

    return give
