"""One git repository over smart HTTP, to read only: git itself does the work, and nothing else is on this server."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import zlib
from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import web

from managedd.demo.children import outside_environment
from managedd.errors import ErrorCode, ManagedError
from managedd.listeners import Door, url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from managedd.config import ServerSection

MAX_BODY_BYTES: Final = 1024 * 1024
"""What a client wants and has, as names of commits: a few KiB."""
MAX_AT_ONCE: Final = 8
ANSWER_SECONDS: Final = 60.0
_PROTOCOL: Final = re.compile(r"version=[012]")
_SERVICE: Final = "git-upload-pack"
_FLUSH: Final = b"0000"


async def make_repository(folder: Path, files: Mapping[str, str]) -> None:
    """`folder` is a git repository whose branch main has one commit with these files. Raises ManagedError."""
    await anyio.Path(folder).mkdir(parents=True)
    for name, text in files.items():
        await anyio.Path(folder / name).write_text(text, encoding="utf-8")
    for arguments in (
        ("init", "--quiet"),
        # Not --initial-branch: git is older than that on some hosts.
        ("symbolic-ref", "HEAD", "refs/heads/main"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "What a shop sold today"),
    ):
        done = await anyio.run_process(
            ["git", *arguments],
            cwd=folder,
            env=git_environment(folder),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip()
            raise ManagedError(ErrorCode.INTERNAL, f"git {arguments[0]} failed: {said}")


def git_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment in which the settings of the host's git do not matter."""
    return outside_environment(
        HOME=str(home),
        XDG_CONFIG_HOME=str(home),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_TERMINAL_PROMPT="0",
        GIT_AUTHOR_NAME="managedd demo",
        GIT_AUTHOR_EMAIL="demo@localhost",
        GIT_COMMITTER_NAME="managedd demo",
        GIT_COMMITTER_EMAIL="demo@localhost",
        **more,
    )


class GitServer:
    """Serves the repository in `folder` as `/NAME.git`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._turns = anyio.CapacityLimiter(MAX_AT_ONCE)

    def application(self) -> web.Application:
        """The two requests of a clone; whatever else is asked for is not found."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.router.add_get(f"/{self._name}.git/info/refs", self._advertise)
        application.router.add_post(f"/{self._name}.git/{_SERVICE}", self._send)
        return application

    @contextlib.asynccontextmanager
    async def serving(self, host: str, reached: str, settings: ServerSection) -> AsyncIterator[str]:
        """It listens on a free port of `host` until the block ends; the repository's URL at the address `reached`."""
        door = Door(self.application(), settings)
        await door.open()
        try:
            _, port = await door.listen(host, 0)
            yield f"{url(reached, port)}/{self._name}.git"
        finally:
            with anyio.CancelScope(shield=True):
                await door.close()

    async def _advertise(self, request: web.Request) -> web.Response:
        service = request.query.get("service")
        if service is None:
            # The dumb protocol, which would fetch files one by one.
            raise web.HTTPNotFound
        if service != _SERVICE:
            raise web.HTTPForbidden(text="This repository is to read only.\n")
        refs = await self._upload_pack(request, "--advertise-refs", said=b"")
        if "version=2" not in request.headers.get("Git-Protocol", ""):
            refs = _line(f"# service={_SERVICE}\n") + _FLUSH + refs
        return _answer(refs, "advertisement")

    async def _send(self, request: web.Request) -> web.Response:
        if request.content_type != f"application/x-{_SERVICE}-request":
            raise web.HTTPUnsupportedMediaType
        return _answer(await self._upload_pack(request, said=await _body(request)), "result")

    async def _upload_pack(self, request: web.Request, *options: str, said: bytes) -> bytes:
        protocol = request.headers.get("Git-Protocol", "")
        environment = git_environment(
            self._folder, **({"GIT_PROTOCOL": protocol} if _PROTOCOL.fullmatch(protocol) else {})
        )
        command = ["git", "upload-pack", "--strict", "--stateless-rpc", *options, str(self._folder / ".git")]
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                async with self._turns:
                    done = await anyio.run_process(
                        command, input=said, stderr=subprocess.DEVNULL, env=environment, check=False
                    )
        except TimeoutError:
            raise web.HTTPServiceUnavailable from None
        if done.returncode != 0:
            raise web.HTTPBadRequest
        return done.stdout


async def _body(request: web.Request) -> bytes:
    """The body, unpacked: git packs what is longer than a kilobyte. The listener hands out what came over the wire."""
    body, encoding = await request.read(), request.headers.get("Content-Encoding", "identity").lower()
    if encoding == "identity":
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise web.HTTPUnsupportedMediaType
    try:
        unpacked = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise web.HTTPBadRequest from None
    if len(unpacked) > MAX_BODY_BYTES:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, len(unpacked))
    return unpacked


def _answer(body: bytes, kind: str) -> web.Response:
    return web.Response(
        body=body, content_type=f"application/x-{_SERVICE}-{kind}", headers={"Cache-Control": "no-cache"}
    )


def _line(text: str) -> bytes:
    """A line as git's protocol frames it: its length, itself included, in four hexadecimal digits."""
    return f"{len(text) + 4:04x}{text}".encode()
