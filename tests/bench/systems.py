"""The two systems: started, seen from outside, and gone at the end whatever happens."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.support.daemon import LiveDaemon
from tests.support.http import Api, HttpError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_SECONDS = 0.01
START_SECONDS = 120.0
STOP_SECONDS = 20.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
# Both have compiled modules on the disk, as every installation has, whatever is set for the bench itself.
UNWANTED = ("PREFECT_", "MANAGEDD_", "PYTHONDONTWRITEBYTECODE")


class NotStartedError(Exception):
    """A system did not come up; the end of its log is in the message."""


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would change either system."""
    return {name: value for name, value in os.environ.items() if not name.startswith(UNWANTED)} | more


def free_port() -> int:
    """A port of the loopback address that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def seconds_to_first_answer(url: str, headers: Mapping[str, str], since: float, gone: Any) -> float:
    """Seconds from `since` to the first good answer to a real query; `gone()` tells that there will be none."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    asked = {"Content-Type": "application/json", **headers}
    while time.monotonic() - since < START_SECONDS and not gone():
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=START_SECONDS)
        try:
            connection.request("POST", f"{parts.path}/flow_runs/filter", b'{"limit": 1}', asked)
            if connection.getresponse().status == 200:
                return time.monotonic() - since
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(PROBE_SECONDS)
    raise NotStartedError(f"nothing answers at {url}")


def resident_bytes(session: int) -> int:
    """The resident memory of every process of a session."""
    return sum(int(fields[21]) * PAGE_BYTES for fields in _processes(session))


def cpu_seconds(session: int) -> float:
    """The processor time that the living processes of a session have used."""
    return sum(int(fields[11]) + int(fields[12]) for fields in _processes(session)) / TICKS


def _processes(session: int) -> list[list[str]]:
    """The fields of `stat` after the command's name, of every process of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append(fields)
    return found


class ManagedDaemon(LiveDaemon):
    """managedd as it comes, but for its port and its data directory."""

    name = "managedd"

    def __init__(self, folder: Path, *, docker_host: str | None, settings: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(folder, docker_host=docker_host, settings={"log": {"level": "info"}, **settings})
        self.environment = {
            name: value for name, value in self.environment.items() if not name.startswith(UNWANTED)
        }  # fmt: skip
        server = self.settings["server"]
        server["port"] = free_port()
        self.address = f"http://{server.get('host', '127.0.0.1')}:{server['port']}/api"
        self.headers: dict[str, str] = {}
        self._exited = False

    def started(self, *, engine: bool) -> float:
        """It is ready; the seconds until it first answered."""
        with ThreadPoolExecutor(1) as pool:
            probe = pool.submit(
                seconds_to_first_answer, self.address, self.headers, time.monotonic(), lambda: self._exited
            )
            try:
                self.start(engine=engine)
            except BaseException:
                self._exited = True
                raise
            return probe.result()

    @property
    def session(self) -> int:
        """Its processes' session."""
        return self.pid

    def wait_no_containers(self, *, flow_run_id: str | None = None, seconds: float = 20) -> None:
        """No container is left, where there are any."""
        if self.docker_host is not None:
            super().wait_no_containers(flow_run_id=flow_run_id, seconds=seconds)

    def close(self) -> None:
        """Nothing of it is left."""
        if self.docker_host is not None:
            super().close()
        elif self.running:
            self.stop()


class Program:
    """One command of the peer, in a session of its own."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        """It runs."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it has ended, or never began."""
        return self._process is None or self._process.poll() is not None

    @property
    def session(self) -> int:
        """Its processes' session."""
        assert self._process is not None
        return self._process.pid

    def said(self) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])

    def close(self) -> None:
        """No process of it is left."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        for fields in _processes(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(fields[2]), signal.SIGKILL)
        self._process.wait()


class Peer:
    """Prefect's own server, and its worker, as they come, but for the port and the home."""

    name = "peer"

    def __init__(self, folder: Path, prefect_cli: str, *, docker_host: str | None) -> None:
        self._cli = prefect_cli
        self._folder = folder
        port = free_port()
        self.address = f"http://127.0.0.1:{port}/api"
        self.environment = clean_environment(
            PREFECT_HOME=str(folder / "home"),
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
            NO_PROXY="*",
            NO_COLOR="1",
            **({} if docker_host is None else {"DOCKER_HOST": docker_host}),
        )
        command = [prefect_cli, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self._server = Program("peer-server", command, folder, self.environment)
        self._worker: Program | None = None

    def started(self) -> float:
        """The server is ready; the seconds until it first answered."""
        began = time.monotonic()
        self._server.spawn()
        try:
            return seconds_to_first_answer(self.address, {}, began, lambda: self._server.ended)
        except NotStartedError as error:
            raise NotStartedError(f"{error}\n{self._server.said()}") from None

    @property
    def session(self) -> int:
        """The server's processes' session."""
        return self._server.session

    @property
    def worker_session(self) -> int:
        """The worker's processes' session."""
        assert self._worker is not None
        return self._worker.session

    def start_worker(self, pool: str, kind: str) -> None:
        """A worker of the type polls the pool, which exists."""
        environment = {**self.environment, "PREFECT_API_URL": self.address}
        command = [self._cli, "worker", "start", "--pool", pool, "--type", kind, "--install-policy", "never"]
        self._worker = Program("peer-worker", command, self._folder, environment)
        self._worker.spawn()
        deadline = time.monotonic() + START_SECONDS
        while not self._worker.ended and time.monotonic() < deadline:
            with contextlib.suppress(HttpError):
                if Api(self.address).get(f"/work_pools/{pool}")["status"] == "READY":
                    return
            time.sleep(0.5)
        raise NotStartedError(f"the worker does not come up\n{self._worker.said()}")

    def close(self) -> None:
        """No process of it is left."""
        try:
            if self._worker is not None:
                self._worker.close()
        finally:
            self._server.close()

    def versions(self) -> dict[str, str]:
        """What it runs."""
        program = (
            "import importlib.metadata as m, json\n"
            "names = 'prefect', 'fastapi', 'starlette', 'SQLAlchemy', 'prefect-docker'\n"
            "print(json.dumps({name: m.version(name) for name in names}))"
        )
        python = str(Path(self._cli).with_name("python"))
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))
