"""Listeners: one aiohttp application per way in, bound and rebound by the daemon."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from managedd.api.limits import bound_connections
from managedd.errors import CannotListen, ErrorCode, ManagedError

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.config import ServerSection


class Door:
    """One application and where it listens now."""

    def __init__(self, application: web.Application, settings: ServerSection) -> None:
        self._runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=settings.stop_seconds,
            # Also how long a connection's first request, and the head of each, may take to come.
            keepalive_timeout=75.0,
            max_line_size=16 * 1024,
            max_field_size=16 * 1024,
        )
        self._max_connections = settings.max_connections
        self._site: web.BaseSite | None = None
        self.address: tuple[str, int] | None = None

    async def open(self) -> None:
        """The application is set up; nothing listens yet."""
        await self._runner.setup()
        assert self._runner.server is not None
        bound_connections(self._runner.server, self._max_connections)

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """It listens on `host` and the returned port (`port`, or a free one for 0). Raises CannotListen, or ManagedError(CONFIG) when it may not."""
        try:
            bound = socket.create_server((host, port), family=_family(host), backlog=1024)
        except OSError as error:
            message = f"can't listen on {host} port {port}: {error.strerror or error}"
            if error.errno in {errno.EACCES, errno.EPERM}:
                # It would be the same the next time.
                raise ManagedError(ErrorCode.CONFIG, message) from error
            raise CannotListen(message) from error
        bound.setblocking(False)
        await self._replace(web.SockSite(self._runner, bound))
        self.address = (host, bound.getsockname()[1])
        return self.address

    async def listen_unix(self, path: Path) -> None:
        """It listens on a unix socket that only this user may open."""
        await anyio.Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            await self._replace(web.UnixSite(self._runner, str(path)))
        except OSError as error:
            raise ManagedError(ErrorCode.CONFIG, f"can't listen on {path}: {error.strerror or error}") from error
        finally:
            os.umask(before)

    async def _replace(self, site: web.BaseSite) -> None:
        await site.start()
        before, self._site = self._site, site
        if before is not None:
            await before.stop()

    async def shut(self) -> None:
        """Nobody new comes in; those inside go on."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
            self.address = None

    async def close(self) -> None:
        """Open requests had their time; everything is closed."""
        await self._runner.cleanup()


def url(host: str, port: int) -> str:
    """The address for clients of this host: an IPv6 address stands in brackets, and "any address" is one of them."""
    reached = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{bracketed(reached)}:{port}"


def bracketed(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
