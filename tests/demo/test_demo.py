"""`managedd demo` as one calls it: what it shows, how it ends, and that nothing of it is left."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

SECONDS = 600.0
TOKEN = "DEMO_TEST_TOKEN"
"""A variable that every process of a demo inherits."""
LABEL = re.compile(r"label (managedd\.instance=\S+)\.")


class Demo:
    """One demo in a temporary folder of its own, which it must leave empty."""

    def __init__(self, folder: Path, *arguments: str, docker_host: str | None, **environment: str) -> None:
        # Short: the path of a socket has few characters.
        self._scratch = Path(tempfile.mkdtemp(prefix="demo-test-"))
        self._docker_host = docker_host
        self._token = secrets.token_hex(8)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MANAGEDD_", "PREFECT_"))}
        engine = docker_host or f"unix://{folder}/no-engine.sock"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "managedd", "demo", *arguments],
            env={
                **kept,
                "MANAGEDD_DOCKER__HOST": engine,
                "TMPDIR": str(self._scratch),
                TOKEN: self._token,
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def read_until(self, wanted: str) -> None:
        """A line with that text was said."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if wanted in line:
                return
        pytest.fail(f"{wanted!r} was not said:\n{self.said}")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit code, once all that it said was read."""
        if self._process.poll() is None or not self._process.stdout.closed:  # type: ignore[union-attr]
            said, _ = self._process.communicate(timeout=SECONDS)
            self.lines += said.splitlines(keepends=True)
        return self._process.returncode

    def close(self) -> None:
        """Nothing of it is left, whatever it has left."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()
        shutil.rmtree(self._scratch)

    def processes(self) -> list[int]:
        """All that it has started and that lives."""
        # A run's own environment is not its daemon's: there it is the folder that tells.
        mine = (f"{TOKEN}={self._token}".encode(), os.fsencode(self._scratch))
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                known = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                if any(mark in known for mark in mine):
                    found.append(int(folder.name))
        return found

    def left(self) -> list[str]:
        """Processes, files, containers and networks of it."""
        found = [f"process {pid}" for pid in self.processes()]
        found += [str(path) for path in self._scratch.iterdir()]
        label = LABEL.search(self.said)
        if label is not None and self._docker_host is not None:
            for kind in (("ps", "-aq"), ("network", "ls", "-q")):
                command = ["docker", "-H", self._docker_host, *kind, "--filter", f"label={label[1]}"]
                found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return found


@contextmanager
def demo(folder: Path, *arguments: str, docker_host: str | None = None, **environment: str) -> Iterator[Demo]:
    # Whoever runs the tests may have a narrow window, in which tables are cut.
    running = Demo(folder, *arguments, docker_host=docker_host, **{"COLUMNS": "140", **environment})
    try:
        yield running
    finally:
        running.close()


def assert_whole_story(said: str) -> None:
    for line in (
        "$ prefect work-pool create my-managed-pool --type prefect:managed",
        "Created work pool 'my-managed-pool'!",
        "$ prefect work-pool ls",
        "$ python deploy.py",
        "Successfully created/updated all deployments!",
        "$ prefect deployment run sales/demo --watch",
        "12 apples at 3",
        "Retry 1/2 will start",
        "| 116 today! |",
        "Flow run finished successfully in 'Completed'.",
        "| all | 116 |",
        "$ managedd status",
        "$ managedd logs",
        "# Nothing is left behind",
    ):
        assert line in said, f"{line!r} is not in:\n{said}"
    commands = [line for line in said.splitlines() if line.startswith("$ ")]
    assert commands[0].startswith("$ managedd serve")
    for shown in ('pip_packages": ["cowsay"]', 'cron="', "flow.from_source(", "@task(retries=2"):
        assert shown in said
    summed_up = re.search(
        r"# Final state: Completed\. Compute time: (\S+) s, which counts as 1 minute .* memory: (\d+) MiB", said
    )
    assert summed_up is not None, said
    assert float(summed_up[1]) > 0
    assert int(summed_up[2]) > 0
    assert re.search(r"my-managed-pool +│ prefect:managed", said), "the table of work pools"


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_docker_the_whole_story_is_told(docker_engine: Provisioned, tmp_path: Path) -> None:
    with demo(tmp_path, docker_host=docker_engine.docker_host) as running:
        code = running.end()
        assert code == 0, running.said
        assert_whole_story(running.said)
        assert "# Docker: an engine answers" in running.said
        assert LABEL.search(running.said)
        assert running.left() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_without_an_engine_the_whole_story_is_told_with_processes(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        code = running.end()
        assert code == 0, running.said
        assert_whole_story(running.said)
        assert re.search(r"# The process driver: .*engine", running.said), "it says why"
        assert running.left() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kept_a_run_that_failed_can_be_looked_at_and_the_client_it_cached_is_used_again(tmp_path: Path) -> None:
    cache = ("--driver", "process", "--cache", str(tmp_path / "cache"))
    # The package can't be installed: the index of runs is not there.
    broken = {"MANAGEDD_RUNS__INDEX_URL": "http://127.0.0.1:9/simple"}
    with demo(tmp_path, *cache, "--keep", **broken) as running:
        running.read_until("# This failed:")
        running.read_until("Everything stays up until Ctrl-C")
        running.read_until("--watch")
        assert "`prefect deployment run sales/demo --watch` ended with exit code 1" in running.said
        assert "$ managedd status" in running.said
        exported = re.findall(r"^\$ (export .+)$", running.said, re.MULTILINE)
        client = running.lines[-1].removeprefix("$ ").split()[0]
        url = re.search(r"^\$ export PREFECT_API_URL=(\S+)$", running.said, re.MULTILINE)
        assert url is not None
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url[1]}/admin/version", timeout=30)
        listed = subprocess.run(
            ["bash", "-c", "\n".join([*exported, f"{client} deployment ls"])],
            env={"PATH": os.environ["PATH"], "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert "sales/demo" in listed.stdout
        running.signal(signal.SIGINT)
        assert running.end() == 130, running.said
        assert running.left() == []
    with demo(tmp_path, *cache) as running:
        running.read_until("It is there from the last time")
        running.signal(signal.SIGINT)
        assert running.end() == 130, running.said
        assert running.left() == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_a_process_ends_with_a_demo_that_is_stopped(tmp_path: Path) -> None:
    with demo(tmp_path, "--driver", "process") as running:
        running.read_until("Beginning flow run")
        assert len(running.processes()) > 3, "the demo, its daemon, the client, and the run's own"
        running.signal(signal.SIGINT)
        assert running.end() == 130, running.said
        assert "[warning" not in running.said
        assert running.left() == []


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [
        (signal.SIGINT, 130, "Installing cowsay"),
        (signal.SIGTERM, 143, "$ prefect work-pool create"),
    ],
)
def test_whoever_stops_it_finds_nothing_left(
    docker_engine: Provisioned, tmp_path: Path, number: signal.Signals, code: int, moment: str
) -> None:
    with demo(tmp_path, "--driver", "docker", docker_host=docker_engine.docker_host) as running:
        running.read_until(moment)
        running.signal(number)
        # Once more, as the impatient do.
        running.signal(number)
        assert running.end() == code, running.said
        assert "Told to stop" in running.said
        assert "Traceback" not in running.said
        assert running.left() == []


@pytest.mark.docker
def test_an_image_that_can_t_be_had_leaves_no_network(docker_engine: Provisioned, tmp_path: Path) -> None:
    before = networks_of_trials(docker_engine)
    nowhere = {"docker_host": docker_engine.docker_host, "MANAGEDD_RUNS__IMAGE": "127.0.0.1:9/prefect:3"}
    with demo(tmp_path, "--driver", "docker", **nowhere) as running:
        running.read_until("# Pulling image 127.0.0.1:9/prefect:3")
        assert networks_of_trials(docker_engine) - before
        running.signal(signal.SIGINT)
        assert running.end() == 130, running.said
        assert running.left() == []
    with demo(tmp_path, "--driver", "docker", **nowhere) as running:
        assert running.end() == 1
        assert "the image 127.0.0.1:9/prefect:3 can't be had" in running.said
        assert "What to do: make the registry reachable" in running.said
    deadline = time.monotonic() + 30
    while networks_of_trials(docker_engine) - before:
        assert time.monotonic() < deadline, "a network is left"
        time.sleep(0.2)


def networks_of_trials(docker_engine: Provisioned) -> set[str]:
    """Networks of demos that look for an engine and an image."""
    assert docker_engine.docker_host is not None
    shown = ("--filter", "label=managedd.instance", "--format", '{{.Label "managedd.instance"}}')
    command = ["docker", "-H", docker_engine.docker_host, "network", "ls", *shown]
    labels = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return {label for label in labels if label.startswith("demo-")}


def test_without_git_it_names_the_package(tmp_path: Path) -> None:
    with demo(tmp_path, PATH=str(tmp_path)) as running:
        assert running.end() == 1
        assert "apt-get install git" in running.said
        assert running.left() == []


def test_docker_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with demo(tmp_path, "--driver", "docker") as running:
        assert running.end() == 1
        assert "What to do: start Docker" in running.said
        assert "--driver process" in running.said
        assert "Traceback" not in running.said
        assert running.left() == []


def test_whoever_has_read_enough_is_no_failure(tmp_path: Path) -> None:
    deadline = time.monotonic() + 120
    command = f"{sys.executable} -m managedd demo --driver docker | head -1"
    environment = {
        **os.environ,
        "MANAGEDD_DOCKER__HOST": f"unix://{tmp_path}/no-engine.sock",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert "Traceback" not in done.stderr
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.1)
