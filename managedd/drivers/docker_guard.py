"""Keeps the runs of one daemon from the host of the engine, as long as that is this one and we may; says so where it can't be."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import anyio
import structlog
from anyio import to_thread

from managedd.drivers import firewall
from managedd.drivers.docker_network import gateway_of
from managedd.drivers.docker_spec import network_name
from managedd.drivers.firewall import Wall
from managedd.drivers.nftables import NftablesError
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Enclosure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from managedd.drivers.docker_spec import DockerSettings
    from managedd.drivers.nftables import Network
    from managedd.model.addresses import Way

ASK_AGAIN_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 3600.0
"""So long an address stays let through that a name no longer has: who asked before us may still use it."""
_SIOCGIFADDR: Final = 0x8915
_PORTS: Final = {"http": 80, "https": 443}
_RIGHT: Final = "run the daemon as root, or give it the right: AmbientCapabilities=CAP_NET_ADMIN in its unit (systemd/managedd.service has it)"
_ELSEWHERE: Final = "set rules of the same meaning on the engine's own host: docs/isolation.md has them"
_log = structlog.get_logger(__name__)


class Guard:
    """The wall around one daemon's network."""

    def __init__(self, instance_id: str, settings: DockerSettings) -> None:
        self._name = network_name(instance_id)
        self._settings = settings
        self._names = Names()
        self._is_tidy = False

    async def stand(self, network: Mapping[str, Any], ways: Sequence[Way]) -> Enclosure:
        """The wall stands around that network, or the returned words say why not. Raises ManagedError(DRIVER) when it must."""
        settings = self._settings
        if settings.firewall == "off":
            with contextlib.suppress(NftablesError):
                await to_thread.run_sync(firewall.take_down, self._name)
            return Enclosure(holds=False, reason="docker.firewall is off", mend='set docker.firewall = "auto"')
        bridge = bridge_of(network)
        if bridge is None:
            found = Enclosure(
                holds=False,
                reason="the network of runs has no interface on this host: the engine is elsewhere",
                mend=_ELSEWHERE,
            )
        else:
            found = await self._put_up(bridge, ways)
        if not found.holds and (settings.firewall == "require" or settings.egress_allow is not None):
            key = "docker.egress_allow" if settings.egress_allow is not None else 'docker.firewall = "require"'
            raise ManagedError(
                ErrorCode.DRIVER, f"{key} can't be held, so nothing is started: {found.reason}. {found.mend}"
            )
        return found

    async def _put_up(self, bridge: str, ways: Sequence[Way]) -> Enclosure:
        settings = self._settings
        # What the operator has told runs to use is no less to be reached than the API.
        urls = [
            settings.api_url,
            settings.http_proxy,
            settings.https_proxy,
            settings.package_index_url,
            *settings.package_extra_index_urls,
        ]
        named = [_host_and_port(url) for url in urls if url is not None]
        egress = settings.egress_allow
        names = {*(host for host, _ in named), *(each for each in egress or () if _network(each) is None)}
        known = await self._names.look_up(names)
        wall = Wall(
            bridge=bridge,
            ways=tuple(
                dict.fromkeys(
                    [*ways, *settings.host_allow, *((address, port) for host, port in named for address in known[host])]
                )
            ),
            is_host_open=settings.is_host_open,
            name_servers=await to_thread.run_sync(firewall.name_servers, settings.dns),
            egress=None if egress is None else tuple(_networks(egress, known)),
        )
        try:
            if await to_thread.run_sync(firewall.put_up, self._name, wall):
                _log.info("runs.enclosed", table=f"inet {self._name}", interface=bridge)
            if not self._is_tidy:
                for table in await to_thread.run_sync(firewall.tidy):
                    _log.info("firewall.tidied", table=f"inet {table}")
                self._is_tidy = True
        except NftablesError as error:
            return Enclosure(holds=False, reason=str(error), mend=_RIGHT)
        return Enclosure(holds=True, reason=f"nftables, table inet {self._name}")


class Names:
    """The addresses of names, as this host is told them now and was a while ago."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, float]] = {}
        self._asked_at: dict[str, float] = {}

    async def look_up(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """All their addresses; none for a name that is not known."""
        wanted = list(names)
        async with anyio.create_task_group() as tasks:
            for name in wanted:
                if time.monotonic() - self._asked_at.get(name, -ASK_AGAIN_SECONDS) >= ASK_AGAIN_SECONDS:
                    tasks.start_soon(self._ask, name, name=f"address of {name}")
        return {name: tuple(sorted(self._seen.get(name, ()))) for name in wanted}

    async def _ask(self, name: str) -> None:
        found: list[str] | None = None
        with anyio.move_on_after(ANSWER_SECONDS):
            found = await to_thread.run_sync(addresses_of, name, abandon_on_cancel=True)
        now = time.monotonic()
        self._asked_at[name] = now
        seen = self._seen.setdefault(name, {})
        if not found and not seen:
            _log.warning("firewall.name_unknown", name=name)
        for address in found or ():
            seen[address] = now
        if found:
            for address in [each for each, at in seen.items() if now - at > FORGET_SECONDS]:
                del seen[address]


def addresses_of(name: str) -> list[str]:
    """What this host's resolver says; nothing when it knows no such name."""
    with contextlib.suppress(OSError, UnicodeError):
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)})
    return []


def bridge_of(network: Mapping[str, Any]) -> str | None:
    """The interface on this host that bears the network's gateway; None when that is another host's."""
    gateway = gateway_of(network)
    if gateway is None or ipaddress.ip_address(gateway).is_loopback:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, interface in socket.if_nameindex():
            with contextlib.suppress(OSError):
                packed = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
                if socket.inet_ntoa(packed[20:24]) == gateway:
                    return interface
    return None


def _host_and_port(url: str) -> tuple[str, int]:
    found = urlsplit(url)
    return found.hostname or "", found.port or _PORTS.get(found.scheme, 1080)


def _network(text: str) -> Network | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text)
    return None


def _networks(wanted: Iterable[str], known: Mapping[str, tuple[str, ...]]) -> list[Network]:
    found: dict[Network, None] = {}
    for text in wanted:
        network = _network(text)
        for each in [network] if network is not None else map(ipaddress.ip_network, known[text]):
            found[each] = None
    return list(found)
