"""A git server over HTTP or HTTPS on an address that containers reach; repositories may ask for a token."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.certificates import Certificate

# Author, dates and settings of the machine's own git must not matter.
GIT = {
    "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@example.com", "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
}  # fmt: skip


class GitServer:
    """Repositories in one folder. Those named in `tokens` want that token as the password of Basic authentication."""

    def __init__(self, folder: Path, host: str, *, certificate: Certificate | None = None) -> None:
        self.folder = folder
        self.tokens: dict[str, str] = {}
        self.clones: list[str] = []
        """The repositories of the fetches that were served, in their order."""
        server = self

        class Handler(_Handler):
            git = server

        self._http = ThreadingHTTPServer((host, 0), Handler)
        self._http.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.chain, certificate.key)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://{host}:{self._http.server_address[1]}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[GitServer]:
        """It serves until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, name="git server", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()

    def repository(self, name: str, files: Mapping[str, str | Path], *, token: str | None = None) -> str:
        """The URL of a repository whose default branch holds exactly these files: texts, or files and folders to copy."""
        bare = self.folder / f"{name}.git"
        work = self.folder / f"{name}.work"
        if not bare.exists():
            work.mkdir(parents=True)
            _git(self.folder, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
            _git(work, "init", "--quiet", "--initial-branch=main")
            _git(work, "remote", "add", "origin", str(bare))
        for old in work.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for path, content in files.items():
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                target.write_text(content)
            elif content.is_dir():
                shutil.copytree(content, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(content, target)
        _git(work, "add", "--all")
        _git(work, "commit", "--quiet", "--allow-empty", "--message", "State")
        _git(work, "push", "--quiet", "--force", "origin", "HEAD:main")
        if token is not None:
            self.tokens[f"{name}.git"] = token
        return f"{self.url}/{name}.git"


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env={**os.environ, **GIT})


class _Handler(BaseHTTPRequestHandler):
    """Smart HTTP: git's own CGI program does the work."""

    git: GitServer
    # Not 1.0: git's library sends what it was given only after a first 401, over the same connection.
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the tests' standard error."""

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _serve(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        repository = path.strip("/").partition("/")[0]
        if not self._allowed(repository):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if path.endswith("/git-upload-pack"):
            self.git.clones.append(repository)
        environment = {
            **os.environ,
            **GIT,
            "GIT_PROJECT_ROOT": str(self.git.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, capture_output=True, check=True, env=environment)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _allowed(self, repository: str) -> bool:
        token = self.git.tokens.get(repository)
        if token is None:
            return True
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        user, _, password = base64.b64decode(credentials).decode().partition(":")
        # As forges take it: the token as the password of any user, or as the user.
        return token in {user, password}
