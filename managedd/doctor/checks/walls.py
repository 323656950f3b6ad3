"""The rules around the runs' network: the daemon's own, or such as one would set, for as long as the doctor looks."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

from managedd.drivers import firewall
from managedd.drivers.docker_guard import Guard
from managedd.drivers.docker_spec import network_name
from managedd.drivers.nftables import NftablesError
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from managedd.doctor.patient import Listening, Patient
    from managedd.drivers.docker_probe import NetworkFacts


@contextlib.asynccontextmanager
async def wall_around(
    patient: Patient, network: NetworkFacts, listening: Listening, *, made: bool
) -> AsyncIterator[Mapping[str, Any] | None]:
    """What keeps runs from the host, as the fields of an Enclosure; None: nobody says.

    A daemon that runs tells it; around a network of the doctor's own the rules stand until the block ends.
    """
    if patient.status is not None:
        yield (patient.status.get("engine") or {}).get("enclosure")
        return
    if not made or network.gateway is None:
        yield None
        return
    token = uuid.uuid4().hex[:12]
    url = urlsplit(listening.url)
    way = (url.hostname or network.gateway, url.port or (443 if url.scheme == "https" else 80))
    described = {"IPAM": {"Config": [{"Gateway": network.gateway}]}}
    try:
        yield await _stood(Guard(token, patient.docker), described, way)
    finally:
        with anyio.CancelScope(shield=True), contextlib.suppress(NftablesError):
            await to_thread.run_sync(firewall.take_down, network_name(token))


async def _stood(guard: Guard, network: Mapping[str, Any], way: tuple[str, int]) -> dict[str, Any]:
    try:
        return asdict(await guard.stand(network, [way]))
    except ManagedError as error:
        # What the settings demand and nothing holds: a daemon would start no run.
        return {"holds": False, "reason": error.message, "mend": None, "refused": True}
