"""What runs may reach of the engine's host and beyond, as rules: pure, but for the few questions to the host at the end."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from managedd.drivers import nftables
from managedd.drivers.nftables import TCP, UDP, Chain, Network, Table, rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from managedd.drivers.nftables import Rule
    from managedd.model.addresses import Way

PREFIX: Final = "managedd-"
"""How the names of all tables of all daemons begin."""
PRIORITY: Final = -5
"""Before the usual filters: what they would log or count as strange is gone by then."""
DNS: Final = 53
METADATA: Final = (
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::/32",
    "fd00:42::42/128",
    "fd20:ce::254/128",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
)
"""Where clouds tell a machine its credentials: link-local addresses, and those that some use beside them."""
_RESOLV_CONF: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_ENGINE_SETTINGS: Final = Path("/etc/docker/daemon.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """What stands around the runs of one daemon."""

    bridge: str
    """The interface through which they reach everything."""
    ways: tuple[Way, ...]
    """What they may reach of the host."""
    is_host_open: bool = False
    """They may reach all of it."""
    name_servers: tuple[str, ...] = ()
    egress: tuple[Network, ...] | None = None
    """All that they may reach beyond the host; None: everything but METADATA."""


def table_of(name: str, wall: Wall) -> Table:
    """The rules; the first of the chain `input` says whose they are, see `mark`."""
    chains = (
        Chain("to_host", tuple(_to_host(wall))),
        Chain("to_world", tuple(_to_world(wall))),
        Chain("to_runs", tuple(_to_runs())),
    )
    comment = mark(wall.bridge, Table(name, chains).digest)
    into = (rule(comment, nftables.comes_from(wall.bridge), nftables.jump("to_host")),)
    through = (
        rule("what runs send", nftables.comes_from(wall.bridge), nftables.jump("to_world")),
        rule("what is sent to runs", nftables.leaves_by(wall.bridge), nftables.jump("to_runs")),
    )
    hooked = (Chain("input", into, "input", PRIORITY), Chain("forward", through, "forward", PRIORITY))
    return Table(name, (*chains, *hooked))


def mark(bridge: str, digest: str) -> str:
    """The comment by which a table is known again: the interface that it is for, and the digest of its rules."""
    return f"runs on {bridge} rules {digest}"


def bridge_of(comments: Iterable[str]) -> str | None:
    """The interface of a table with these comments; None when it is none of ours."""
    words = next((each.split() for each in comments if each.startswith("runs on ")), [])
    return words[2] if len(words) == 5 and words[3] == "rules" else None


def _to_host(wall: Wall) -> Iterator[Rule]:
    yield from _answers()
    if wall.is_host_open:
        yield rule("docker.host_allow", nftables.accept())
    for address, port in wall.ways:
        there = [] if address is None else nftables.goes_to(_single(address))
        yield rule("a way in", there, nftables.protocol(TCP), nftables.to_port(port), nftables.accept())
    yield from _names(wall)
    yield rule("IPv6 itself", nftables.neighbour_discovery(), nftables.accept())
    yield rule("nothing else of this host", nftables.reject())


def _to_world(wall: Wall) -> Iterator[Rule]:
    yield rule("no other run", nftables.leaves_by(wall.bridge), nftables.drop())
    yield from _answers()
    if not wall.is_host_open:
        yield rule("no port of this host that leads elsewhere", nftables.was_redirected(), nftables.reject())
    for address, port in wall.ways:
        if address is not None:
            # An index, a proxy or runs.api_url may lead to another host.
            there = nftables.goes_to(_single(address))
            yield rule("a way out", there, nftables.protocol(TCP), nftables.to_port(port), nftables.accept())
    yield from _names(wall)
    for each in METADATA:
        yield rule("no machine's credentials", nftables.goes_to(ipaddress.ip_network(each)), nftables.reject())
    if wall.egress is not None:
        for network in wall.egress:
            yield rule("docker.egress_allow", nftables.goes_to(network), nftables.accept())
        yield rule("nothing else", nftables.reject())


def _to_runs() -> Iterator[Rule]:
    yield from _answers()
    yield rule("nothing else", nftables.drop())


def _answers() -> Iterator[Rule]:
    # What somebody began who may. What a run has begun is looked at packet by packet: what it opened while no rules stood ends.
    yield rule("answers", nftables.is_answer(), nftables.accept())
    yield rule("errors", nftables.is_about_another(), nftables.accept())


def _names(wall: Wall) -> Iterator[Rule]:
    for address in wall.name_servers:
        for protocol in (UDP, TCP):
            there = nftables.goes_to(_single(address))
            yield rule("names", there, nftables.protocol(protocol), nftables.to_port(DNS), nftables.accept())


def _single(address: str) -> Network:
    return ipaddress.ip_network(ipaddress.ip_address(address.partition("%")[0]))


# --- the rules in the kernel -------------------------------------------------------------------------------------------


def put_up(name: str, wall: Wall) -> bool:
    """The wall stands; False when it did so already. Raises NftablesError."""
    wanted = table_of(name, wall)
    if nftables.comments(name) == [each.comment for chain in wanted.chains for each in chain.rules]:
        return False
    nftables.apply(nftables.replacing(wanted))
    return True


def take_down(name: str) -> bool:
    """No table has that name; whether one had. Raises NftablesError."""
    if name not in nftables.tables():
        return False
    nftables.apply(nftables.deleting(name))
    return True


def tidy() -> list[str]:
    """The names of tables, of any daemon, whose bridge is gone, and which are gone with it now. Raises NftablesError."""
    interfaces = {name for _, name in socket.if_nameindex()}
    gone = []
    for name in nftables.tables():
        if name.startswith(PREFIX):
            bridge = bridge_of(nftables.comments(name))
            if bridge is not None and bridge not in interfaces and take_down(name):
                gone.append(name)
    return gone


# --- what the host says ------------------------------------------------------------------------------------------------


def name_servers(configured: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses that an engine on this host gives containers to ask for names, without the host's loopback ones."""
    found = list(configured) or [*_of_the_engine(), *_of_the_host()]
    usable = []
    for text in found:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text.partition("%")[0])
            if not address.is_loopback:
                usable.append(str(address))
    return tuple(dict.fromkeys(usable))


def _of_the_engine() -> list[str]:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return [str(each) for each in json.loads(_ENGINE_SETTINGS.read_text()).get("dns") or []]
    return []


def _of_the_host() -> list[str]:
    found = []
    for file in _RESOLV_CONF:
        with contextlib.suppress(OSError):
            lines = (line.split() for line in file.read_text(errors="replace").splitlines())
            found += [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return found
