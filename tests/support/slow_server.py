"""A server that is no help: paths with "slow" in them are answered after a long time, everything else with 404."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class SlowServer:
    """A registry from which an image never comes, an index from which a package never comes."""

    def __init__(self, host: str) -> None:
        released = self._released = threading.Event()
        self.asked: list[str] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on the tests' standard error."""

            def do_GET(self) -> None:
                asked.append(self.path)
                if "slow" in self.path:
                    released.wait()
                ping = self.path == "/v2/"
                with contextlib.suppress(ConnectionError):
                    self.send_response(200 if ping else 404)
                    self.end_headers()

            do_HEAD = do_GET

        self._http = ThreadingHTTPServer((host, 0), Handler)
        self._http.daemon_threads = True
        self.address = f"{host}:{self._http.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[SlowServer]:
        """It serves until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, name="slow server", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._released.set()
            self._http.shutdown()
            self._http.server_close()
            thread.join()
