"""The doctor as a process, against a real engine: what it finds, what it is kept from, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import pytest

from managedd.drivers import docker_probe
from managedd.drivers.docker_probe import LABEL_PROBE, DockerProbe
from managedd.drivers.docker_spec import LABEL_INSTANCE, DockerSettings, network_name
from tests.support.daemon import LiveDaemon
from tests.support.provision import in_ci

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned

pytestmark = pytest.mark.docker
BASE_IMAGE = "managedd-test-base:latest"
"""It has Python, and no Prefect."""


@pytest.fixture(scope="module")
def daemon(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDaemon]:
    made = LiveDaemon(tmp_path_factory.mktemp("doctor"), docker_host=docker_engine.docker_host)
    try:
        made.start()
        yield made
    finally:
        made.close()


def environment(docker_engine: Provisioned, **variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANAGEDD_")}
    own = {
        "MANAGEDD_DOCKER__HOST": str(docker_engine.docker_host),
        "MANAGEDD_SERVER__PORT": "0",
        "MANAGEDD_RUNS__LISTEN_PORT": "0",
    }
    return {**kept, "PYTHONWARNINGS": "error", **own, **variables}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "managedd", "doctor", *arguments]


def examined(*arguments: str, env: dict[str, str], code: int) -> dict[str, dict[str, Any]]:
    """The findings by name, of a doctor that ended with `code`."""
    done = subprocess.run(
        command("--json", *arguments), env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (code, ""), done
    report = json.loads(done.stdout)
    assert report["healthy"] == (code == 0)
    found = {finding["name"]: finding for finding in report["findings"]}
    assert len(found) == len(report["findings"])
    return found


def of_daemon(daemon: LiveDaemon, docker_engine: Provisioned, *, code: int = 0) -> dict[str, dict[str, Any]]:
    return examined("--config", str(daemon.folder / "config.toml"), env=clean(docker_engine), code=code)


def clean(docker_engine: Provisioned) -> dict[str, str]:
    """The environment without settings: they are in the daemon's file."""
    return {name: value for name, value in environment(docker_engine).items() if not name.startswith("MANAGEDD_")}


def docker(docker_engine: Provisioned, *arguments: str) -> str:
    done = subprocess.run(
        ["docker", "-H", str(docker_engine.docker_host), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def left(docker_engine: Provisioned) -> list[str]:
    """What carries a doctor's label."""
    label = f"label={LABEL_PROBE}"
    return [
        *docker(docker_engine, "ps", "-aq", "--filter", label).split(),
        *docker(docker_engine, "network", "ls", "-q", "--filter", label).split(),
    ]


@pytest.fixture(autouse=True)
def nothing_is_left(docker_engine: Provisioned) -> Iterator[None]:
    yield
    deadline = time.monotonic() + 30
    # Another doctor may be at work on this engine; its things go as well.
    while found := left(docker_engine):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


RUNS = (
    "container", "runs' network", "inside the image", "API from a run", "between runs", "limits in a run", "clock in a run",
)  # fmt: skip


def test_a_host_where_no_daemon_was_yet(docker_engine: Provisioned, tmp_path: Path) -> None:
    missing = tmp_path / "data"
    found = examined("--data-dir", str(missing), env=environment(docker_engine), code=0)
    assert {name: found[name]["level"] for name in RUNS} == dict.fromkeys(RUNS, "ok")
    assert found["runs' network"]["facts"]["made"]
    assert not found["API from a run"]["facts"]["daemon_listens"]
    assert found["clients' listener from a run"]["seen"].startswith("not checked: ")
    assert found["container engine"]["facts"]["version"]
    assert found["image"]["facts"]["present"]
    assert found["inside the image"]["facts"]["prefect"].startswith("3.")
    assert not missing.exists()
    if os.geteuid() == 0:
        # What a daemon would set stood while it looked.
        assert (found["host from a run"]["level"], found["host from a run"]["facts"]["wall"]) == ("ok", True)
        assert found["metadata from a run"]["level"] == "ok"


def test_a_running_daemon_is_reached_and_left_alone(daemon: LiveDaemon, docker_engine: Provisioned) -> None:
    name = network_name(daemon.instance_id)
    before = docker(docker_engine, "network", "inspect", "--format", "{{.Id}}", name)
    found = of_daemon(daemon, docker_engine)
    assert {each: found[each]["level"] for each in RUNS} == dict.fromkeys(RUNS, "ok")
    assert found["daemon"]["facts"] == {
        "answers": True,
        "pid": daemon.pid,
        "version": found["daemon"]["facts"]["version"],
    }
    assert (found["runs' network"]["facts"]["network"], found["runs' network"]["facts"]["made"]) == (name, False)
    assert found["API from a run"]["facts"]["daemon_listens"]
    assert found["API from a run"]["facts"]["url"] == daemon.api.get("/managed/status")["engine"]["runs_api_url"]
    reached = found["clients' listener from a run"]
    assert (reached["level"], reached["facts"]["reached_at"]) == ("ok", [])
    kept = found["host from a run"]
    if kept["facts"]["wall"]:
        assert (kept["level"], kept["facts"]["addresses"][daemon.gateway]) == ("ok", "unreachable")
        assert network_name(daemon.instance_id) in kept["seen"]
    else:
        # The port is closed there, and that it says so shows that the host is reached.
        assert (kept["level"], kept["facts"]["addresses"][daemon.gateway]) == ("warning", "refused")
    assert docker(docker_engine, "network", "inspect", "--format", "{{.Id}}", name) == before
    assert daemon.running
    assert [event for event in daemon.events() if event.get("level") in {"warning", "error"}] == []


def test_clients_of_all_addresses_include_runs(docker_engine: Provisioned, tmp_path: Path) -> None:
    server = {"host": "0.0.0.0", "auth_string": "user:password"}
    settings = {"server": server, "docker": {"host_allow": ["*"]}}
    made = LiveDaemon(tmp_path, docker_host=docker_engine.docker_host, settings=settings)
    try:
        made.start()
        found = of_daemon(made, docker_engine)
        assert found["host from a run"]["level"] == "note"
        reached = found["clients' listener from a run"]
        assert reached["level"] == "note"
        assert made.gateway in reached["facts"]["reached_at"]
        assert reached["facts"]["needs_credential"]
    finally:
        made.close()


def test_the_table_is_for_people(daemon: LiveDaemon, docker_engine: Provisioned) -> None:
    done = subprocess.run(
        command("--config", str(daemon.folder / "config.toml")),
        env=clean(docker_engine),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(title in done.stdout for title in ("Data", "Host", "Container engine", "What a run meets"))
    assert "the daemon is reached at http://" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("0 problems, ")


@contextlib.contextmanager
def rule(*words: str) -> Iterator[None]:
    """The host's firewall has the rule, first in its chain, until the block ends."""
    path = {**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
    own = ("-m", "comment", "--comment", f"test {os.getpid()}")
    subprocess.run(["iptables", "-w", "-I", *words[:1], *own, *words[1:]], env=path, check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(["iptables", "-w", "-D", *words[:1], *own, *words[1:]], env=path, check=True, timeout=30)


@pytest.mark.parametrize("target", ["DROP", "REJECT"])
def test_a_firewall_that_keeps_runs_out_is_named(daemon: LiveDaemon, docker_engine: Provisioned, target: str) -> None:
    if os.geteuid() != 0 and not in_ci():
        pytest.skip("only root can make a firewall's rule")
    url = urlsplit(daemon.api.get("/managed/status")["engine"]["runs_api_url"])
    knock = ("-d", str(url.hostname), "-p", "tcp", "--dport", str(url.port))
    with rule("INPUT", *knock, "-j", target):
        found = of_daemon(daemon, docker_engine, code=1)
    api = found["API from a run"]
    assert (api["level"], api["facts"]["blocked_by"]) == ("problem", "iptables")
    assert f"-j {target}" in api["seen"]
    assert f"--dport {url.port} -j ACCEPT" in api["mend"]
    # The others are looked at all the same.
    others = [name for name in RUNS if name != "API from a run"]
    assert {name: found[name]["level"] for name in others} == dict.fromkeys(others, "ok")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(docker_engine: Provisioned, tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        command("--data-dir", str(tmp_path / "data")),
        env=environment(docker_engine),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not docker(docker_engine, "ps", "-aq", "--filter", f"label={LABEL_PROBE}").split():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (130, b"", b"")
    assert left(docker_engine) == []


def test_an_image_that_is_nowhere(docker_engine: Provisioned, tmp_path: Path) -> None:
    env = environment(
        docker_engine, MANAGEDD_RUNS__IMAGE="managedd-no-such-image:1", MANAGEDD_RUNS__PULL_POLICY="Never"
    )
    found = examined("--data-dir", str(tmp_path), env=env, code=1)
    assert (found["image"]["level"], found["image"]["facts"]["present"]) == ("problem", False)
    assert found["container"]["seen"].startswith("not checked: the image managedd-no-such-image:1")
    assert found["API from a run"]["seen"] == "not checked: see container"


def test_an_image_without_prefect(docker_engine: Provisioned, tmp_path: Path) -> None:
    env = environment(docker_engine, MANAGEDD_RUNS__IMAGE=BASE_IMAGE, MANAGEDD_RUNS__PULL_POLICY="Never")
    found = examined("--data-dir", str(tmp_path), env=env, code=1)
    assert found["inside the image"]["level"] == "problem"
    assert found["API from a run"]["level"] == "ok"


def test_without_an_engine_the_rest_is_looked_at(docker_engine: Provisioned, tmp_path: Path) -> None:
    env = environment(
        docker_engine, MANAGEDD_DOCKER__HOST=f"unix://{tmp_path}/none.sock", MANAGEDD_RUNS__DRIVER="docker"
    )
    found = examined("--data-dir", str(tmp_path), env=env, code=1)
    assert (found["container engine"]["level"], found["container engine"]["facts"]["fault"]) == ("problem", "no_socket")
    for name in ("control groups", "image", "container", "API from a run"):
        assert found[name]["seen"].startswith("not checked: "), name
    assert found["data directory"]["level"] in {"ok", "warning"}
    assert found["effective slots"]["facts"]["host_memory_bytes"] > 0


def test_a_network_that_lets_runs_meet(docker_engine: Provisioned, tmp_path: Path) -> None:
    made = LiveDaemon(tmp_path, docker_host=docker_engine.docker_host)
    try:
        made.start()
        made.stop()
        name, label = network_name(made.instance_id), f"{LABEL_INSTANCE}={made.instance_id}"
        docker(docker_engine, "network", "rm", name)
        docker(docker_engine, "network", "create", "--label", label, name)
        found = of_daemon(made, docker_engine, code=1)
        assert found["runs' network"]["facts"] | {"made": False, "network": name} == found["runs' network"]["facts"]
        assert found["runs' network"]["level"] == "problem"
        assert found["between runs"]["level"] == "problem"
        assert found["API from a run"]["level"] == "ok"
    finally:
        made.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_killed_doctor_left_is_removed_once_it_is_old(
    docker_engine: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"managedd-doctor-test-{os.getpid()}"
    label = f"{LABEL_PROBE}=left"
    create = ("--label", label, "--name", name, str(docker_engine.image), "true")
    await anyio.to_thread.run_sync(lambda: docker(docker_engine, "create", *create))
    await anyio.to_thread.run_sync(lambda: docker(docker_engine, "network", "create", "--label", label, name))
    probe = DockerProbe(DockerSettings(), url=docker_engine.docker_host)
    await probe.open()
    try:
        # Young, it may belong to one that is at work.
        await probe.sweep()
        assert len(await anyio.to_thread.run_sync(lambda: left(docker_engine))) >= 2
        monkeypatch.setattr(docker_probe, "STALE_SECONDS", 0.0)
        await anyio.sleep(1.1)  # the engine stamps containers with whole seconds
        assert await probe.sweep() >= 2
    finally:
        await probe.close()
