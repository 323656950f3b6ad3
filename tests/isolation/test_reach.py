"""What a run reaches, tried from inside real containers that a real daemon has started: one table of attempts and what becomes of each."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from managedd.drivers import nftables
from managedd.drivers.docker_spec import network_name
from tests.crash.place import Place, build_fast_image
from tests.support.daemon import LiveDaemon
from tests.support.http import Api
from tests.support.provision import in_ci

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.docker, pytest.mark.slow]

IMAGE = "managedd-test-isolation:latest"
PROBE = Path(__file__).with_name("probe.py")
AUTH = "user:password"
NEIGHBOUR_PORT = 8000
PROGRAM = (sys.executable, "-m", "managedd")
WITHOUT_THE_RIGHT = ("setpriv", "--bounding-set=-net_admin", *PROGRAM)
WORLD = ("pypi.org", 443)

DENIED = {
    "raw socket": "not permitted",
    "packet socket": "not permitted",
    "another address": "not permitted",
    "mount": "not permitted",
    "remount /proc/sys": "not permitted",
    "user namespace": "not permitted",
    "chroot": "not permitted",
    "device": "not permitted",
    "host name": "not permitted",
    "clock": "not permitted",
    "kernel key ring": "not permitted",
    "kernel module": "not permitted",
    "write /proc/sys": "read-only",
    "write /proc/sys/net": "read-only",
    "write /sys": "read-only",
    "write the shim": "read-only",
    "capabilities": "00000000000000cb",
    "capabilities of children": "00000000000000cb",
    "no new privileges": "1",
    "seccomp": "2",
    "processes it sees": "ITS OWN",
    "mounts": "/opt/managedd ro",
}
"""What a container may not, wherever it runs: CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, SETGID 6 and SETUID 7 are all that root has in it."""


NO = {"kept out": "no", "nothing came back": "no"}
"""The kernel tells so many a second that they were kept out, and leaves the others waiting."""


def lives(runs: Place, run_id: str) -> dict[str, str]:
    """What the run has told of its attempts, once it has told the last."""
    deadline = time.monotonic() + 120
    while True:
        told = dict(line["message"].split(": ", 1) for line in runs.api.logs(run_id) if ": " in line["message"])
        told = {name: NO.get(outcome, outcome) for name, outcome in told.items()}
        if "the end" in told or "listening" in told:
            return told
        assert time.monotonic() < deadline, (told, runs.daemon.log_tail())
        time.sleep(0.3)


def starts(there: Place, /, **parameters: Any) -> str:
    body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
    return str(there.api.post(f"/deployments/{there.deployment_id}/create_flow_run", body)["id"])


class Daemon(LiveDaemon):
    @property
    def api(self) -> Api:
        import base64

        return Api(self.url, headers={"Authorization": f"Basic {base64.b64encode(AUTH.encode()).decode()}"})


@contextlib.contextmanager
def a_place(there: Provisioned, folder: Path, *, program: tuple[str, ...] = PROGRAM, **docker: Any) -> Iterator[Place]:
    """A daemon that listens on every address, as careless as its operator may be, and hostile runs."""
    if os.geteuid() != 0 and not in_ci():
        pytest.skip("only root can set the rules of a firewall")
    assert there.docker_host is not None and there.image is not None
    folder.mkdir(exist_ok=True)
    build_fast_image(there.docker_host, there.image, folder, PROBE, IMAGE)
    settings = {"server": {"host": "0.0.0.0", "auth_string": AUTH}, "docker": docker}
    daemon = Daemon(folder / "daemon", docker_host=there.docker_host, settings=settings, program=program)
    try:
        daemon.start()
        made = Place(daemon=daemon)
        made.furnish(IMAGE)
        yield made
    finally:
        daemon.close()
    assert network_name(daemon.instance_id) not in nftables.tables()


@pytest.fixture(scope="module")
def place(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with a_place(docker_engine, tmp_path_factory.mktemp("isolation")) as made:
        yield made


@contextlib.contextmanager
def a_host_service() -> Iterator[tuple[int, int]]:
    """Ports of TCP and UDP on every address of this host, where something answers."""
    with socket.create_server(("", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("", 0))
        udp.settimeout(0.2)
        over = threading.Event()

        def answer() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    said, who = udp.recvfrom(99)
                    udp.sendto(said, who)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield tcp.getsockname()[1], udp.getsockname()[1]
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def another_container(daemon: LiveDaemon) -> Iterator[tuple[str, int]]:
    """The address of a container of somebody else's on the engine's usual network, and the host's port that leads to its own."""
    code = f"import http.server as h; h.HTTPServer(('', {NEIGHBOUR_PORT}), h.BaseHTTPRequestHandler).serve_forever()"
    options = ("--detach", "--rm", "--publish", str(NEIGHBOUR_PORT), "--entrypoint", "python3")
    name = daemon.docker("run", *options, IMAGE, "-c", code).strip()
    try:
        address = daemon.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", name).strip()
        published = daemon.docker("port", name, str(NEIGHBOUR_PORT)).split()[0].rpartition(":")[2]
        wait_reached(address, NEIGHBOUR_PORT)
        yield address, int(published)
    finally:
        daemon.docker("rm", "--force", name)


def wait_reached(address: str, port: int) -> None:
    """Somebody listens there; this host reaches it."""
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, port), 2):
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def lan() -> str:
    """This host's address towards the world."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 9))
        return str(asking.getsockname()[0])


def address_of(daemon: LiveDaemon, run_id: str) -> str:
    [container] = daemon.containers(flow_run_id=run_id)
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return daemon.docker("inspect", "--format", form, container).strip()


def test_what_a_run_reaches(place: Place) -> None:
    daemon = place.daemon
    main_port = int(urlsplit(daemon.url).port or 0)
    neighbour = starts(place, listen=NEIGHBOUR_PORT)
    assert lives(place, neighbour)["listening"] == "yes"
    wait_reached(address_of(daemon, neighbour), NEIGHBOUR_PORT)
    hosts = {"gateway": daemon.gateway, "the host": lan(), "docker0": bridge(daemon)}
    with a_host_service() as (tcp, udp), another_container(daemon) as (container, published):
        for address in hosts.values():
            wait_reached(address, main_port)
        targets: dict[str, tuple[str, int]] = {"world": WORLD}
        targets |= {f"clients' listener at {name}": (address, main_port) for name, address in hosts.items()}
        targets |= {f"host service at {name}": (address, tcp) for name, address in hosts.items()}
        targets |= {f"published port at {name}": (address, published) for name, address in hosts.items()}
        targets["the host's loopback"] = ("127.0.0.1", tcp)
        targets["another run"] = (address_of(daemon, neighbour), NEIGHBOUR_PORT)
        targets["another container"] = (container, NEIGHBOUR_PORT)
        targets["metadata"] = ("169.254.169.254", 80)
        targets["metadata of IPv6"] = ("fd00:ec2::254", 80)
        run_id = starts(
            place,
            targets=targets,
            udp={f"host datagrams at {name}": (address, udp) for name, address in hosts.items()},
            pids={"the daemon": daemon.pid, "this test": os.getpid()},
            paths={
                "engine socket": "/var/run/docker.sock",
                "containerd's socket": "/run/containerd/containerd.sock",
                "store": str(daemon.data_dir / "state.db"),
                "operator's socket": str(daemon.data_dir / "managedd.sock"),
                "files of this test": __file__,
            },
        )
        told = lives(place, run_id)
    daemon.docker("rm", "--force", *daemon.containers(flow_run_id=neighbour))
    reached = {
        "API with its key": "200",
        "API without a key": "401",
        "world": "REACHED",
        **{f"clients' listener at {name}": "no" for name in hosts},
        **{f"host service at {name}": "no" for name in hosts},
        **{f"published port at {name}": "no" for name in hosts},
        **{f"host datagrams at {name}": "no" for name in hosts},
        "the host's loopback": "refused",
        "another run": "no",
        "another container": "no",
        "metadata": "no",
        "metadata of IPv6": told["metadata of IPv6"],
        "engine socket": "not there",
        "containerd's socket": "not there",
        "store": "not there",
        "operator's socket": "not there",
        "files of this test": "not there",
        "signal to the daemon": "not there",
        "ptrace of the daemon": "not there",
        "signal to this test": "not there",
        "ptrace of this test": "not there",
        **DENIED,
        "write a control group": told["write a control group"],
        "the end": "reached",
    }
    assert {name: told.get(name) for name in reached} == reached
    # No IPv6 there, or kept out of it; a group of version 2 has no such file.
    assert told["metadata of IPv6"] in {"no", "not permitted", "[Errno 99] Cannot assign requested address"}
    assert told["write a control group"] in {"read-only", "not there"}
    # Kernels without them have nothing to protect.
    assert told["write /proc/sysrq-trigger"] in {"read-only", "not there"}
    assert told["read /proc/kcore"] in {"empty", "not there"}


def test_an_open_host_is_open_and_metadata_is_not(docker_engine: Provisioned, tmp_path: Path) -> None:
    """The same attempts with the wall open: they reach, so the wall was what kept them out."""
    with a_place(docker_engine, tmp_path, host_allow=["*"]) as place, a_host_service() as (tcp, udp):
        address, main_port = lan(), int(urlsplit(place.daemon.url).port or 0)
        wanted = {
            "clients' listener": (address, main_port),
            "host service": (address, tcp),
            "metadata": ("169.254.169.254", 80),
        }
        datagrams = {"host datagrams": (place.daemon.gateway, udp)}
        told = lives(place, starts(place, targets=wanted, udp=datagrams))
    names = ("clients' listener", "host service", "host datagrams", "metadata")
    assert [told[name] for name in names] == ["REACHED", "REACHED", "REACHED", "no"]


def test_one_port_of_the_host_and_one_network_are_allowed(docker_engine: Provisioned, tmp_path: Path) -> None:
    with a_host_service() as (tcp, _), a_host_service() as (other, _):
        with a_place(docker_engine, tmp_path, host_allow=[str(tcp)], egress_allow=["192.0.2.0/24"]) as place:
            address = lan()
            wanted = {
                "allowed": (address, tcp),
                "another port": (address, other),
                "world": WORLD,
                "address": (resolved(), 443),
            }
            told = lives(place, starts(place, targets=wanted))
    assert [told[name] for name in ("API with its key", "allowed", "another port", "address", "world")] == [
        "200", "REACHED", "no", "no", "no",
    ]  # fmt: skip


def test_a_name_that_is_allowed_is_reached_and_nothing_else(docker_engine: Provisioned, tmp_path: Path) -> None:
    with a_host_service() as (tcp, _), a_place(docker_engine, tmp_path, egress_allow=[WORLD[0]]) as place:
        told = lives(place, starts(place, targets={"world": WORLD, "host": (lan(), tcp), "other": ("192.0.2.77", 443)}))
    assert (told["world"], told["host"], told["other"]) == ("REACHED", "no", "no")


def test_rules_that_somebody_flushed_come_back(place: Place) -> None:
    """Whoever reloads the host's firewall may take ours with it."""
    name = network_name(place.daemon.instance_id)
    before = nftables.comments(name)
    nftables.apply(nftables.deleting(name))
    deadline = time.monotonic() + 30
    while nftables.comments(name) != before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_unknown_runtime_is_told_before_the_first_run(docker_engine: Provisioned, tmp_path: Path) -> None:
    with a_place(docker_engine, tmp_path, runtime="runsc-that-is-not-there") as place:
        run_id = starts(place)
        problem = place.api.get("/managed/status")["engine"]["problem"]
        assert "docker.runtime is 'runsc-that-is-not-there', and the engine has" in problem
        assert place.api.run(run_id)["state_type"] == "SCHEDULED"
        assert place.daemon.containers() == []


def test_a_daemon_that_may_set_no_rules_says_what_runs_reach_and_how_to_mend_it(
    docker_engine: Provisioned, tmp_path: Path
) -> None:
    with a_place(docker_engine, tmp_path, program=WITHOUT_THE_RIGHT) as place, a_host_service() as (tcp, _):
        daemon = place.daemon
        told = lives(place, starts(place, targets={"host service": (lan(), tcp)}))
        assert told["host service"] == "REACHED"
        [warned] = daemon.events(event="runs.reach_host")
        assert (warned["level"], "CAP_NET_ADMIN" in warned["reason"]) == ("warning", True)
        assert "AmbientCapabilities=CAP_NET_ADMIN" in warned["mend"]
        shown = subprocess.run(
            [*PROGRAM, "status", "--data-dir", daemon.data_dir], capture_output=True, text=True, check=True, timeout=60
        )
        assert "runs reach this host: the daemon may not set the rules of a firewall" in shown.stdout
        asked = [*PROGRAM, "doctor", "--json", "--config", daemon.folder / "config.toml"]
        report = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=120)
        found = {finding["name"]: finding for finding in json.loads(report.stdout)["findings"]}["host from a run"]
        assert (found["level"], found["facts"]["wall"]) == ("warning", False)
        assert lan() in found["seen"] and daemon.gateway in found["seen"]
        assert "AmbientCapabilities=CAP_NET_ADMIN" in found["mend"]


@pytest.mark.parametrize("demand", [{"egress_allow": ["10.0.0.0/8"]}, {"firewall": "require"}])
def test_what_is_demanded_and_can_not_be_held_starts_nothing(
    docker_engine: Provisioned, tmp_path: Path, demand: dict[str, Any]
) -> None:
    with a_place(docker_engine, tmp_path, program=WITHOUT_THE_RIGHT, **demand) as place:
        run_id = starts(place)
        problem = place.api.get("/managed/status")["engine"]["problem"]
        assert f"docker.{next(iter(demand))}" in problem and "nothing is started" in problem
        assert "CAP_NET_ADMIN" in problem
        assert place.api.run(run_id)["state_type"] == "SCHEDULED"
        assert place.daemon.containers() == []


def resolved() -> str:
    """An address beyond this host, as names are answered here."""
    return str(socket.getaddrinfo(WORLD[0], 443, socket.AF_INET)[0][4][0])


def bridge(daemon: LiveDaemon) -> str:
    form = "{{ (index .IPAM.Config 0).Gateway }}"
    return daemon.docker("network", "inspect", "bridge", "--format", form).strip()
