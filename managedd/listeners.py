"""Listeners: one aiohttp application per way in, bound and rebound by the daemon, with TLS where it has a certificate."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from managedd.api.connections import Connections
from managedd.api.entrance import Entrance
from managedd.errors import CannotListen, ErrorCode, ManagedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from managedd.config import ServerSection
    from managedd.config.certificates import Certificate

BACKLOG = 1024
"""Connections that the kernel keeps until they are accepted."""


class Door:
    """One application and where it listens now."""

    def __init__(
        self,
        application: web.Application,
        settings: ServerSection,
        *,
        certificate: Certificate | None = None,
        is_proxy: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=settings.stop_seconds
        )
        self.connections = Connections(settings, is_proxy=is_proxy)
        self.certificate = certificate
        """Shown to whoever comes from now on; may be replaced, and is None for plain HTTP."""
        self._entrance: Entrance | None = None
        self.address: tuple[str, int] | None = None

    async def open(self) -> None:
        """The application is set up; nothing listens yet."""
        await self._runner.setup()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """It listens on `host` and the returned port (`port`, or a free one for 0). Raises CannotListen, or ManagedError(CONFIG) when it may not."""
        try:
            bound = socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
        except OSError as error:
            message = f"can't listen on {host} port {port}: {error.strerror or error}"
            if error.errno in {errno.EACCES, errno.EPERM}:
                # It would be the same the next time.
                raise ManagedError(ErrorCode.CONFIG, message) from error
            raise CannotListen(message) from error
        self._replace(bound)
        self.address = (host, bound.getsockname()[1])
        return self.address

    async def listen_unix(self, path: Path) -> None:
        """It listens on a unix socket that only this user may open."""
        await anyio.Path(path).unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            bound.bind(str(path))
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            raise ManagedError(ErrorCode.CONFIG, f"can't listen on {path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        self._replace(bound)

    def _replace(self, bound: socket.socket) -> None:
        server = self._runner.server
        assert server is not None
        entrance = Entrance(bound, server, self.connections, certificate=self._context)
        entrance.open()
        before, self._entrance = self._entrance, entrance
        if before is not None:
            before.close()

    def _context(self) -> ssl.SSLContext | None:
        return None if self.certificate is None else self.certificate.context

    async def shut(self) -> None:
        """Nobody new comes in; those inside go on."""
        if self._entrance is not None:
            self._entrance.close()
            self._entrance = None
            self.address = None

    async def close(self) -> None:
        """Open requests had their time; everything is closed."""
        await self.shut()
        await self._runner.cleanup()


def url(host: str, port: int, *, scheme: str = "http") -> str:
    """The address for clients of this host: an IPv6 address stands in brackets, and "any address" is one of them."""
    reached = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"{scheme}://{bracketed(reached)}:{port}"


def bracketed(host: str) -> str:
    """`host` as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
