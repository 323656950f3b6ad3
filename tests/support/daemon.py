"""A live daemon: the real process with a store, ports and a container network of its own, which can be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from managedd.drivers import firewall
from managedd.drivers.docker_spec import network_name
from managedd.drivers.nftables import NftablesError
from tests.support.http import Api

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LABEL_INSTANCE = "managedd.instance"
LABEL_EXECUTION = "managedd.execution"
LABEL_FLOW_RUN = "managedd.flow-run"
START_SECONDS = 60.0
STOP_SECONDS = 40.0


class DaemonError(AssertionError):
    """The daemon did not do what a test needs of it; the end of its log is in the message."""


class LiveDaemon:
    """One data directory and the process over it. Ports are free ones and stay the same over restarts."""

    def __init__(
        self,
        folder: Path,
        *,
        docker_host: str | None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        program: Sequence[str] = (sys.executable, "-m", "managedd"),
    ) -> None:
        self.folder = folder
        self._program = program
        self.data_dir = folder / "data"
        self.log_path = folder / "daemon.log"
        self.docker_host = docker_host
        self.settings: dict[str, dict[str, Any]] = {
            "server": {"port": 0},
            "store": {"data_dir": str(self.data_dir)},
            "log": {"level": "debug", "format": "json"},
            "runs": {"listen_port": 0},
            # Tests are about the limits that they set, not about this host's memory.
            "host": {"memory_bytes": 1 << 40, "cpu_overcommit": 1000.0},
            # Stand-ins for Prefect's images have names of their own, and tests of one daemon pools of their own.
            "plans.pro": {"images": "none", "managed_pools": "none"},
        }
        if docker_host is not None:
            self.settings["docker"] = {"host": docker_host}
        for section, values in (settings or {}).items():
            self.settings.setdefault(section, {}).update(values)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MANAGEDD_", "PREFECT_"))
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None

    # --- its life ------------------------------------------------------------------------------------------------------

    def start(self, *, engine: bool = True) -> None:
        """The daemon is ready; with `engine` it has opened the container engine and runs can be started."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.toml"
        config.write_text(_toml(self.settings))
        before = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(
                [*self._program, "serve", "--config", str(config)],
                cwd=Path(__file__).parents[2],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        wanted = {"daemon.ready", "runs_listener.listening"} if engine else {"daemon.ready"}
        while True:
            seen = {event["event"]: event for event in self.events(after=before)}
            if wanted <= seen.keys():
                break
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DaemonError(f"the daemon did not start\n{self.log_tail()}")
            time.sleep(0.05)
        self._url = str(seen["daemon.ready"]["url"])
        # The next start takes the same address: clients hold it.
        self.settings["server"]["port"] = urlsplit(self._url).port

    def reload(self) -> None:
        """Its settings were written anew, and it was told so."""
        (self.folder / "config.toml").write_text(_toml(self.settings))
        os.kill(self.pid, signal.SIGHUP)

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def stop(self) -> int:
        """It was told to stop with SIGTERM and has ended with the returned code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """It was killed with SIGKILL."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        """It was ended, by SIGKILL if so wished, and is ready again."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def _end(self, number: int) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise DaemonError(f"the daemon did not stop within {STOP_SECONDS:.0f} s\n{self.log_tail()}") from None

    def close(self) -> None:
        """Nothing of it is left: no process, no container, no network, no volume."""
        try:
            if self._process is not None:
                self._end(signal.SIGTERM)
        finally:
            self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Nothing that its runs were in is left."""
        if self.docker_host is not None:
            with contextlib.suppress(sqlite3.OperationalError):
                label = f"label={LABEL_INSTANCE}={self.instance_id}"
                if containers := self.docker("ps", "-aq", "--filter", label).split():
                    self.docker("rm", "-fv", *containers)
                if networks := self.docker("network", "ls", "-q", "--filter", label).split():
                    self.docker("network", "rm", *networks)
                if volumes := self.docker("volume", "ls", "-q", "--filter", label).split():
                    self.docker("volume", "rm", *volumes)
                with contextlib.suppress(NftablesError):
                    firewall.take_down(network_name(self.instance_id))

    # --- what is seen of it -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """PREFECT_API_URL."""
        assert self._url is not None
        return self._url

    @property
    def api(self) -> Api:
        """Its API."""
        return Api(self.url)

    def operator(self, *arguments: str) -> Any:
        """What a command of the operator on this host says."""
        config = str(self.folder / "config.toml")
        done = subprocess.run(
            [*self._program, *arguments, "--json", "--config", config],
            capture_output=True,
            check=False,
            env=self.environment,
            cwd=Path(__file__).parents[2],
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    @property
    def gateway(self) -> str:
        """This host's address as runs reach it; the network exists once the engine was opened."""
        label = f"label={LABEL_INSTANCE}={self.instance_id}"
        network = self.docker("network", "ls", "-q", "--filter", label).split()[0]
        return self.docker("network", "inspect", "--format", "{{ (index .IPAM.Config 0).Gateway }}", network).strip()

    @property
    def instance_id(self) -> str:
        """The identity in the labels of its containers."""
        return str(self.query("SELECT value FROM meta WHERE key = 'instance_id'")[0]["value"])

    def query(self, sql: str, *values: object, database: str = "state") -> list[dict[str, Any]]:
        """Rows of the store, read beside the daemon; for evidence that the API does not give."""
        path = self.data_dir / f"{database}.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def executions(self, flow_run_id: str) -> list[dict[str, Any]]:
        """The executions of a run, the first first."""
        return self.query("SELECT * FROM executions WHERE flow_run_id = ? ORDER BY attempt", flow_run_id)

    def ended(self, flow_run_id: str, *, seconds: float = 20) -> list[dict[str, Any]]:
        """The executions of a run once all of them have ended and no container is left."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.executions(flow_run_id)
            if found and all(one["phase"] in {"FINALIZED", "LOST"} for one in found):
                break
            assert time.monotonic() < deadline, f"not ended: {found}\n{self.log_tail()}"
            time.sleep(0.1)
        self.wait_no_containers(flow_run_id=flow_run_id, seconds=seconds)
        return found

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> str:
        """What the docker command line says."""
        assert self.docker_host is not None
        done = subprocess.run(
            ["docker", "-H", self.docker_host, *arguments], capture_output=True, text=True, check=False, timeout=timeout
        )
        if check and done.returncode != 0:
            raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def containers(self, *, flow_run_id: str | None = None, all_: bool = True) -> list[str]:
        """The ids of its containers, ended ones too unless told otherwise."""
        label = f"{LABEL_INSTANCE}={self.instance_id}" if flow_run_id is None else f"{LABEL_FLOW_RUN}={flow_run_id}"
        return self.docker("ps", "-q", *(("-a",) if all_ else ()), "--no-trunc", "--filter", f"label={label}").split()

    def live_runs(self) -> Counter[str]:
        """How many containers each flow run has that are not over."""
        label = f"label={LABEL_INSTANCE}={self.instance_id}"
        form = '{{.Label "' + LABEL_FLOW_RUN + '"}}'
        told = self.docker("ps", "--filter", label, "--filter", f"label={LABEL_EXECUTION}", "--format", form)
        return Counter(told.split())

    def wait_no_containers(self, *, flow_run_id: str | None = None, seconds: float = 20) -> None:
        """No container is left, or the test fails."""
        deadline = time.monotonic() + seconds
        while left := self.containers(flow_run_id=flow_run_id):
            assert time.monotonic() < deadline, f"containers are left: {left}\n{self.log_tail()}"
            time.sleep(0.2)

    def events(self, *, after: int = 0, event: str | None = None) -> list[dict[str, Any]]:
        """What the daemon has logged since byte `after`."""
        found = []
        with contextlib.suppress(FileNotFoundError), self.log_path.open("rb") as file:
            file.seek(after)
            for line in file:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and event in {None, entry.get("event")}:
                        found.append(entry)
        return found

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def complaints(self) -> list[dict[str, Any]]:
        """Everything in its log that is an error, or no log line at all (a stray traceback, an interpreter's warning)."""
        found = []
        for line in self.log_path.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                found.append({"event": line})
                continue
            if entry.get("level") in {"error", "critical"}:
                found.append(entry)
        return found


def _toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of plain values; a JSON string, number, boolean or list is TOML as well."""
    lines: list[str] = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        for name, value in values.items():
            if isinstance(value, dict):
                inner = ", ".join(f"{json.dumps(key)} = {json.dumps(one)}" for key, one in value.items())
                lines.append(f"{name} = {{ {inner} }}")
            else:
                lines.append(f"{name} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"
