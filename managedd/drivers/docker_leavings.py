"""What a daemon that will not come back leaves in the engine: its containers, its network, its volumes, the rules around its network, and an image that was pulled for it alone."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import anyio

from managedd.drivers import firewall
from managedd.drivers.docker_engine import BACKOFF_SECONDS, FAULTS, Engine, doing, failed, is_status
from managedd.drivers.docker_spec import LABEL_INSTANCE, network_name
from managedd.drivers.docker_volume import volumes_of
from managedd.drivers.nftables import NftablesError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTROL_SECONDS: Final = 30.0
ATTEMPTS: Final = 10


async def remove_leavings(instance_id: str, *, url: str | None) -> int:
    """Nothing with that daemon's label is in the engine; how many containers, networks and volumes were there. Raises ManagedError(DRIVER).

    The daemon must have ended for good: one that runs would make its network anew.
    """
    engine = Engine(url, control_timeout_seconds=CONTROL_SECONDS)
    try:
        await engine.open()
        label = f"{LABEL_INSTANCE}={instance_id}"
        with doing("What is left in the container engine could not be listed"):
            every = {"all": "true", "filters": json.dumps({"label": [label]})}
            containers: list[dict[str, Any]] = await engine.docker._query_json("containers/json", params=every)
            networks = await engine.docker.networks.list(filters={"label": label})
            volumes = await volumes_of(engine, instance_id)
        for container in containers:
            await _remove(engine, f"containers/{container['Id']}", {"force": "true", "v": "true"})
        for network in networks:
            await _remove(engine, f"networks/{network['Id']}", {})
        for volume in volumes:
            await _remove(engine, f"volumes/{volume}", {})
        with contextlib.suppress(NftablesError):
            # Who may not take rules down here has put none up.
            await anyio.to_thread.run_sync(firewall.take_down, network_name(instance_id))
        return len(containers) + len(networks) + len(volumes)
    finally:
        await engine.close()


async def remove_image(name: str, *, url: str | None) -> bool:
    """The engine has no image of that name; False when it still has it because a container uses it. Raises ManagedError(DRIVER)."""
    engine = Engine(url, control_timeout_seconds=CONTROL_SECONDS)
    try:
        await engine.open()
        for pause_seconds in (*BACKOFF_SECONDS, None):
            try:
                await engine.call("DELETE", f"images/{name}")
            except FAULTS as error:
                if is_status(error, 404):
                    return True
                if not is_status(error, 409):
                    raise failed(f"Image {name} could not be removed", error) from error
            else:
                return True
            # It may be in use by what is being removed.
            if pause_seconds is not None:
                await anyio.sleep(pause_seconds)
        return False
    finally:
        await engine.close()


async def _remove(engine: Engine, path: str, params: Mapping[str, str]) -> None:
    failure: BaseException | None = None
    for attempt in range(ATTEMPTS):
        try:
            await engine.call("DELETE", path, params)
        except FAULTS as error:
            if is_status(error, 404):
                return
            # 403 and 409: it is in use by what is being removed; 500: its file system is still busy.
            failure = error
        else:
            # The network, unlike a container under removal, is gone with the answer; one more request would tell the same.
            return
        await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
    raise failed(f"/{path[: path.index('/') + 13]} could not be removed", failure or TimeoutError())
