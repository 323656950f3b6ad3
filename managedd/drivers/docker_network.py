"""The bridge network of one daemon: its runs reach the world and this host, never each other."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog
from aiodocker.exceptions import DockerError

from managedd.drivers.docker_engine import doing, is_status, words
from managedd.drivers.docker_spec import LABEL_INSTANCE, network_body, network_name
from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.drivers.docker_engine import Engine

_log = structlog.get_logger(__name__)
_NO_RANGE: Final = "non-overlapping IPv4 address pool"
_MEND: Final = (
    "the container engine has no range of addresses left for one more network; `docker network prune` removes those that nobody uses, and "
    "default-address-pools in the engine's daemon.json gives it more"
)


class Network:
    """The network of one instance on one engine."""

    def __init__(self, engine: Engine, instance_id: str) -> None:
        self._engine = engine
        self._instance_id = instance_id
        self._lock = anyio.Lock()
        self.id: str | None = None
        """Of the one that was last seen or made."""

    async def ensure(self) -> dict[str, Any]:
        """The network is there, made when it was missing; the engine's description of it."""
        return (await self._there())[0]

    async def mend(self) -> bool:
        """Whether it was missing and has been made: what failed for want of it may be tried again."""
        was_made = (await self._there())[1]
        if was_made:
            _log.warning("engine.network_lost", network=network_name(self._instance_id))
        return was_made

    async def _there(self) -> tuple[dict[str, Any], bool]:
        name = network_name(self._instance_id)
        networks = self._engine.docker.networks
        was_made = False
        async with self._lock:
            with doing(f"The network {name} could not be made"):
                for _ in range(2):
                    for network in await networks.list(filters={"label": f"{LABEL_INSTANCE}={self._instance_id}"}):
                        if network["Name"] == name:
                            self.id = network.get("Id")
                            return network, was_made
                    try:
                        await networks.create(network_body(self._instance_id))
                        was_made = True
                    except DockerError as error:
                        if _NO_RANGE in words(error):
                            raise ManagedError(
                                ErrorCode.DRIVER, f"The network {name} could not be made: {_MEND}"
                            ) from error
                        if not is_status(error, 409):
                            raise
                raise ManagedError(ErrorCode.DRIVER, f"The network {name} could not be made: another one has its name")


def gateway_of(network: Mapping[str, Any]) -> str | None:
    """The network's address on the engine's host."""
    configs = (network.get("IPAM") or {}).get("Config") or []
    return next((str(config["Gateway"]).partition("/")[0] for config in configs if config.get("Gateway")), None)


def is_address_of_this_host(address: str) -> bool:
    """Whether a listener could be bound to it here."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        return True
    return False
