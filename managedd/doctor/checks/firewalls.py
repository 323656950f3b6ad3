"""Looks at this host's firewalls; only when something has been kept out."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from managedd.doctor.checks.commands import said
from managedd.doctor.judgement.firewall import Culprit, Firewalls, Knock, culprit

if TYPE_CHECKING:
    from managedd.drivers.docker_probe import NetworkFacts

UFW_SETTINGS = anyio.Path("/etc/ufw/ufw.conf")
TABLES = ("iptables", "iptables-nft", "iptables-legacy")


async def culprit_for(url: str, network: NetworkFacts) -> Culprit:
    """Who keeps a container on `network` from `url`."""
    address = urlsplit(url)
    knock = Knock(
        bridge=network.bridge,
        subnet=network.subnet or "0.0.0.0/0",
        address=address.hostname or "",
        port=address.port or (443 if address.scheme == "https" else 80),
    )
    return culprit(await firewalls(network.bridge), knock)


async def firewalls(bridge: str) -> Firewalls:
    """What can be learned of them by this user."""
    state = await said("firewall-cmd", "--state")
    zone = await said("firewall-cmd", f"--get-zone-of-interface={bridge}")
    rules = [
        each.out for program in TABLES if (each := await said(program, "-w", "3", "-S")) is not None and each.code == 0
    ]
    return Firewalls(
        ufw=await _ufw(),
        firewalld=None if state is None else state.code == 0,
        zone=zone.out.strip() if zone is not None and zone.code == 0 else None,
        rules=tuple(dict.fromkeys(rules)),
        nft=await _nft(),
        may_look=os.geteuid() == 0,
    )


async def _ufw() -> bool | None:
    status = await said("ufw", "status")
    if status is not None and status.code == 0:
        return "Status: active" in status.out
    try:
        settings = await UFW_SETTINGS.read_text()
    except OSError:
        return None
    return "enabled=yes" in settings.lower().replace(" ", "")


async def _nft() -> dict[str, Any] | None:
    ruleset = await said("nft", "-j", "list", "ruleset")
    if ruleset is None or ruleset.code != 0:
        return None
    try:
        found: dict[str, Any] = json.loads(ruleset.out)
    except ValueError:
        return None
    return found
