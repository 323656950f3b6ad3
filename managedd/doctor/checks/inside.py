"""Looks from inside: a container of the runs' image, on the runs' network, with a run's limits."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import socket
import struct
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio

from managedd.doctor import inside as program
from managedd.doctor.checks.firewalls import culprit_for
from managedd.doctor.checks.listening import CONTAINER, NothingMore, listening_on, network_for
from managedd.doctor.checks.walls import wall_around
from managedd.doctor.examination import NotApplicable
from managedd.doctor.finding import problem
from managedd.doctor.judgement import engine as judge_engine
from managedd.doctor.judgement import runs as judge
from managedd.doctor.patient import Inside
from managedd.drivers.docker_network import is_address_of_this_host

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from managedd.doctor.finding import Finding
    from managedd.doctor.patient import Listening, Patient
    from managedd.drivers.docker_probe import NetworkFacts

NEIGHBOUR_PORT: Final = 47111
"""Inside the container, where nothing else is."""
METADATA: Final = "metadata"
METADATA_AT: Final = ("169.254.169.254", 80)
REACH_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 3.0
LISTEN_SECONDS: Final = 20.0
"""How long a container may take from its start to listening."""
LOOK_SECONDS: Final = 40.0
ADDRESSES_MAX: Final = 8
ENV_MAX_BYTES: Final = 100_000
"""A longer variable can't be handed to a process."""
_SIOCGIFADDR: Final = 0x8915
_IPV6_ADDRESSES: Final = Path("/proc/net/if_inet6")
_GLOBAL_SCOPE: Final = "00"
_OWN_BRIDGES: Final = ("br-", "docker", "veth", "virbr", "cni", "podman")
"""Other containers' bridges are this host too, and the runs' own one is known already."""


async def container(patient: Patient) -> list[Finding]:
    """Starts one (and another to be its neighbour), and keeps what it saw for those after."""
    if await patient.probe.image(patient.settings.runs.image) is None:
        raise NotApplicable(f"the image {patient.settings.runs.image} is not on this host; docker pull it first")
    try:
        async with contextlib.AsyncExitStack() as stack:
            network, made = await network_for(patient, stack)
            listening = await listening_on(patient, network, stack)
            wall = await stack.enter_async_context(wall_around(patient, network, listening, made=made))
            patient.inside = seen = await _look(patient, network, listening, wall)
    except NothingMore as stop:
        return [stop.finding]
    found = judge.contents(python=seen.python, prefect=seen.prefect, image=patient.settings.runs.image)
    started = judge.started(seconds=seen.after - seen.before)
    return [started, judge.network(network, made=made), found, *judge.port(listening.wanted_port, listening.port)]


async def api(patient: Patient) -> list[Finding]:
    """Whether it reached the API, and who was in the way."""
    seen = _seen(patient)
    if seen.listening.gave_way.is_set():
        raise NotApplicable("a daemon has started meanwhile: run managedd doctor again")
    answer = seen.answers.get("api")
    blocked_by = None
    if (answer or {}).get("outcome") in {"refused", "timeout", "unreachable"} and patient.probe.is_local:
        blocked_by = await culprit_for(seen.listening.url, seen.network)
    return [
        judge.api(
            answer, url=seen.listening.url, real=seen.listening.real, token=seen.listening.token, blocked_by=blocked_by
        )
    ]


async def addresses(patient: Patient) -> list[Finding]:
    """What else of this host it reached."""
    seen, server = _seen(patient), patient.settings.server
    return judge.addresses(
        seen.answers,
        seen.addresses,
        port=_clients_port(patient),
        guarded=not patient.settings.is_open,
        loopback=server.host == "localhost" or server.host.startswith("127.") or server.host == "::1",
        listens=patient.status is not None,
        wall=seen.wall,
        opened=patient.docker.is_host_open,
    )


async def metadata(patient: Patient) -> list[Finding]:
    """Whether it reached where a cloud tells a machine its credentials."""
    seen = _seen(patient)
    return [judge.metadata(seen.answers.get(METADATA), wall=seen.wall)]


async def neighbours(patient: Patient) -> list[Finding]:
    """Whether it reached the other container."""
    seen = _seen(patient)
    return [judge.neighbours(seen.answers.get("neighbour"), without=seen.neighbour)]


async def limits(patient: Patient) -> list[Finding]:
    """Whether it had the limits that it was given."""
    runs = patient.settings.runs
    return judge.limits(
        _seen(patient).limits, memory_bytes=runs.memory_limit_bytes, pids=runs.pids_limit, cpus=runs.cpu_limit
    )


async def clock(patient: Patient) -> list[Finding]:
    """Whether its clock was this host's."""
    seen = _seen(patient)
    skew = seen.now - seen.before if seen.now < seen.before else max(0.0, seen.now - seen.after)
    return [judge_engine.clock("clock in a run", skew, "the clock in a container")]


async def package_index(patient: Patient) -> list[Finding]:
    """Whether it reached the package index."""
    host, _ = _index(patient)
    return [judge.package_index(_seen(patient).answers.get("index"), host=host)]


def _seen(patient: Patient) -> Inside:
    if patient.inside is None:
        raise NotApplicable("no container has looked")
    return patient.inside


# --- the containers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    """How containers are started here."""

    patient: Patient
    network: NetworkFacts

    @contextlib.asynccontextmanager
    async def with_(self, asked: Mapping[str, Any]) -> AsyncIterator[str]:
        """A container that does what is asked of the program inside."""
        runs, docker = self.patient.settings.runs, self.patient.docker
        env = {}
        if docker.ca_bundle is not None and len(docker.ca_bundle) < ENV_MAX_BYTES:
            env["MANAGEDD_DOCTOR_CA"] = docker.ca_bundle.decode(errors="replace")
        text = resources.files("managedd.doctor").joinpath("inside.py").read_text()
        async with self.patient.probe.container(
            self.network.name,
            image=runs.image,
            command=["-c", text, json.dumps(asked)],
            env=env,
            limits={"memory_bytes": runs.memory_limit_bytes, "cpus": runs.cpu_limit, "pids": runs.pids_limit},
        ) as name:
            yield name

    async def printed(self, name: str, *, seconds: float) -> dict[str, Any]:
        """What the program has said. Raises NothingMore when it ends or `seconds` pass without."""
        probe, ended = self.patient.probe, None
        lines: list[str] = []
        with anyio.move_on_after(seconds):
            while True:
                # In this order: what it printed before it ended is there when it has ended.
                ended = await probe.exit_code(name)
                lines = await probe.output(name)
                said = next((line for line in lines if line.startswith(program.MARK)), None)
                if said is not None:
                    found: dict[str, Any] = json.loads(said.removeprefix(program.MARK))
                    return found
                if ended is not None:
                    break
                await anyio.sleep(0.1)
        last = " | ".join(lines[-3:]) or "nothing"
        how = f"said nothing for {seconds:.0f} s" if ended is None else f"ended with exit code {ended}"
        raise NothingMore(
            problem(
                CONTAINER,
                f"a container of {self.patient.settings.runs.image} {how}; its last output: {last}",
                "the image needs python3 and an entry point that runs its arguments, as prefecthq/prefect has",
            )
        )


async def _look(
    patient: Patient, network: NetworkFacts, listening: Listening, wall: Mapping[str, Any] | None
) -> Inside:
    started = _Started(patient=patient, network=network)
    gateway = network.gateway
    interfaces = {gateway: "gateway"} if gateway is not None and is_address_of_this_host(gateway) else {}
    interfaces |= _addresses()
    async with contextlib.AsyncExitStack() as stack:
        neighbour, without = None, None
        try:
            asked = {"listen": {"port": NEIGHBOUR_PORT, "seconds": LISTEN_SECONDS + LOOK_SECONDS}}
            name = await stack.enter_async_context(started.with_(asked))
            await started.printed(name, seconds=LISTEN_SECONDS)
            neighbour = await patient.probe.address_of(name, network.name)
            without = None if neighbour else "the engine does not tell a container's address"
        except NothingMore as stop:
            without = stop.finding.seen
        before = time.time()
        targets = _targets(patient, listening, interfaces, neighbour)
        name = await stack.enter_async_context(started.with_({"targets": targets, "timeout_seconds": REACH_SECONDS}))
        said = await started.printed(name, seconds=LOOK_SECONDS)
        after = time.time()
    return Inside(
        network=network,
        listening=listening,
        answers=said["answers"],
        addresses=interfaces,
        limits=said["limits"],
        now=float(said["now"]),
        before=before,
        after=after,
        python=str(said["python"]),
        prefect=said["prefect"],
        neighbour=without,
        wall=wall,
    )


def _targets(
    patient: Patient, listening: Listening, interfaces: Mapping[str, str], neighbour: str | None
) -> list[dict[str, Any]]:
    url = urlsplit(listening.url)
    secure = url.scheme == "https"
    path = f"{url.path.rstrip('/')}/ready"
    port = url.port or (443 if secure else 80)
    found: list[dict[str, Any]] = [
        {"name": "api", "kind": url.scheme, "host": url.hostname, "port": port, "path": path}
    ]
    found += [_tcp(address, address, _clients_port(patient)) for address in interfaces]
    found.append(_tcp(METADATA, *METADATA_AT))
    if neighbour is not None:
        found.append(_tcp("neighbour", neighbour, NEIGHBOUR_PORT))
    with contextlib.suppress(NotApplicable):
        found.append(_tcp("index", *_index(patient)))
    return found


def _tcp(name: str, host: str, port: int) -> dict[str, Any]:
    return {"name": name, "kind": "tcp", "host": host, "port": port, "path": "", "timeout_seconds": CONNECT_SECONDS}


def _clients_port(patient: Patient) -> int:
    """Where clients are listened to; any other port of the host says as well whether the host is reached."""
    url = urlsplit(str((patient.status or {}).get("url") or ""))
    return url.port or patient.settings.server.port or 9


def _index(patient: Patient) -> tuple[str, int]:
    """Host and port of the package index. Raises NotApplicable when the way there leads through a proxy."""
    docker = patient.docker
    if docker.http_proxy or docker.https_proxy:
        raise NotApplicable("runs reach it through a proxy")
    url = urlsplit(docker.package_index_url or "https://pypi.org/simple")
    return url.hostname or "pypi.org", url.port or (80 if url.scheme == "http" else 443)


def _addresses() -> dict[str, str]:
    """This host's own addresses, as far as other networks could know them: address → interface."""
    return _ipv4_addresses() | ipv6_addresses()


def _ipv4_addresses() -> dict[str, str]:
    found: dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, interface in socket.if_nameindex():
            if interface == "lo" or interface.startswith(_OWN_BRIDGES):
                continue
            with contextlib.suppress(OSError):
                packed = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
                found.setdefault(socket.inet_ntoa(packed[20:24]), interface)
    return dict(list(found.items())[:ADDRESSES_MAX])


def ipv6_addresses(table: Path = _IPV6_ADDRESSES) -> dict[str, str]:
    """The same of IPv6, from the kernel's table; none where it has none."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines():
            packed, _, _, scope, _, interface = line.split()
            if scope == _GLOBAL_SCOPE and interface != "lo" and not interface.startswith(_OWN_BRIDGES):
                found.setdefault(str(ipaddress.IPv6Address(bytes.fromhex(packed))), interface)
    return dict(list(found.items())[:ADDRESSES_MAX])
