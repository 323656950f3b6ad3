"""An engine that misbehaves on demand: speaks just enough of the Engine API over a unix socket."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import tarfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from managedd.model.drivers import Handle, RunSpec

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.drivers.docker import DockerDriver

INSTANCE = str(uuid.uuid4())
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
    clock: str = "06:30:00"
    """What it says to be the time on the day of its entries."""
    networks: list[dict[str, Any]] = field(default_factory=list)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """With what was put into each under `tar`."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
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

    def put_container(
        self, name: str, labels: dict[str, str], status: str = "created", *, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        mounts = [
            {"Name": mount["Source"], "RW": not mount["ReadOnly"]}
            for mount in (body or {}).get("HostConfig", {}).get("Mounts", ())
        ]
        for mount in mounts:
            # As engines do: nobody is told that it is new and empty.
            self.volumes.setdefault(mount["Name"], {"Name": mount["Name"], "Labels": None})
        container = {
            "Mounts": mounts,
            "Id": f"c0ffee{next(self._numbers):04d}",
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
                return web.Response(text="OK", headers={"Date": f"Sun, 22 Nov 2026 {self.clock} GMT"})
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
                body = await request.json()
                made = self.put_container(name, body["Labels"], body=body)
                return web.json_response({"Id": made["Id"]}, status=201)
            case "GET", ["containers", "json"]:
                return web.json_response(self._containers_of(json.loads(request.query["filters"])))
            case "GET" | "PUT", ["containers", key, "archive"] if volume := self._written_through(key):
                if request.method == "PUT":
                    volume["tar"] = await request.read()
                    return web.Response()
                return web.Response(body=_under(request.query["path"].strip("/"), volume.get("tar")))
            case "PUT", ["containers", _, "archive"]:
                await request.read()
                return web.Response()
            case "GET", ["volumes"]:
                return web.json_response({"Volumes": self._volumes_of(json.loads(request.query["filters"])) or None})
            case "POST", ["volumes", "create"]:
                wanted = await request.json()
                self.volumes[wanted["Name"]] = {"Name": wanted["Name"], "Labels": wanted["Labels"]}
                return web.json_response(wanted, status=201)
            case method, ["volumes", name]:
                return self._volume(method, name)
            case method, ["containers", key, *verb]:
                return self._container(method, key, verb)
            case _:
                return web.json_response({"message": "page not found"}, status=404)

    def _written_through(self, key: str) -> dict[str, Any] | None:
        """The volume that can be written through that container."""
        mounts = self.containers[name]["Mounts"] if (name := self.find(key)) else ()
        return next((self.volumes[mount["Name"]] for mount in mounts if mount["RW"]), None)

    def _volumes_of(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [
            {"Name": name}
            for name, volume in self.volumes.items()
            if _has(volume["Labels"], filters) and all(part in name for part in filters.get("name", ()))
        ]

    def _containers_of(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [
            {"Id": container["Id"], "Names": [f"/{name}"], "Labels": container["Config"]["Labels"]}
            for name, container in self.containers.items()
            if _has(container["Config"]["Labels"], filters)
        ]

    def _volume(self, method: str, name: str) -> web.StreamResponse:
        if name not in self.volumes:
            return web.json_response({"message": f"get {name}: no such volume"}, status=404)
        if method == "GET":
            return web.json_response({key: self.volumes[name][key] for key in ("Name", "Labels")})
        if any(mount["Name"] == name for container in self.containers.values() for mount in container["Mounts"]):
            return web.json_response({"message": f"remove {name}: volume is in use"}, status=409)
        del self.volumes[name]
        return web.Response(status=204)

    def _container(self, method: str, key: str, verb: list[str]) -> web.StreamResponse:
        name = self.find(key)
        if name is None:
            return web.json_response({"message": f"No such container: {key}"}, status=404)
        match method, verb:
            case "GET", ["json"]:
                return web.json_response(self.containers[name])
            case "POST", ["start"] if not self.networks:
                return web.json_response({"message": "network managedd not found"}, status=404)
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


def _under(folder: str, packed: bytes | None) -> bytes:
    """The same tar with all of it in that folder, as whoever has mounted it there gets it."""
    given = io.BytesIO()
    with tarfile.open(fileobj=given, mode="w") as made, tarfile.open(fileobj=io.BytesIO(packed or bytes(1024))) as tar:
        for entry in tar:
            entry.name = "/".join((folder, *entry.name.split("/")[1:]))
            made.addfile(entry, tar.extractfile(entry) if entry.isreg() else None)
    return given.getvalue()


def _has(labels: dict[str, str] | None, filters: dict[str, list[str]]) -> bool:
    """Whether they are what a filter by labels finds, with values or without."""
    return {*filters.get("label", ())} <= {
        text for key, value in (labels or {}).items() for text in (key, f"{key}={value}")
    }


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


def spec(**changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "execution_id": str(uuid.uuid4()),
        "flow_run_id": str(uuid.uuid4()),
        "instance_id": INSTANCE,
        "image": "there:1",
        **changes,
    }
    return RunSpec(**fields)


async def running(driver: DockerDriver) -> tuple[Handle, str]:
    one = spec()
    handle = await driver.create(one)
    await driver.start(handle)
    return handle, f"managedd-{one.execution_id}"
