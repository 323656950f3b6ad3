"""Looking at a container: what the engine says of it, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import anyio
from aiodocker.exceptions import DockerError

from managedd.drivers import docker_end
from managedd.drivers.docker_engine import BACKOFF_SECONDS, FAULTS, failed, is_status
from managedd.model.drivers import Liveness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.drivers.docker_engine import Engine

LIVENESS: Final = {
    "created": Liveness.CREATED,
    "initialized": Liveness.CREATED,
    "configured": Liveness.CREATED,
    "running": Liveness.RUNNING,
    "paused": Liveness.RUNNING,
    "restarting": Liveness.RUNNING,
    "stopping": Liveness.RUNNING,
    "removing": Liveness.EXITED,
    "exited": Liveness.EXITED,
    "stopped": Liveness.EXITED,
    "dead": Liveness.EXITED,
}


async def inspect(engine: Engine, container_id: str) -> dict[str, Any] | None:
    """The container of that id or name as the engine describes it; None when there is none."""
    try:
        return await engine.docker.containers.container(container_id).show()
    except DockerError as error:
        if is_status(error, 404):
            return None
        raise


async def inspect_patiently(engine: Engine, container_id: str) -> dict[str, Any] | None:
    """The same, asked until the engine answers."""
    attempt = 0
    while True:
        try:
            return await inspect(engine, container_id)
        except FAULTS as error:
            if is_status(error, 400, 401, 403):
                raise failed("The container could not be looked at", error) from error
        await anyio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
        await engine.until_it_answers()
        attempt += 1


def liveness_of(container: Mapping[str, Any]) -> Liveness:
    """Where an inspected container stands."""
    status = str(container["State"].get("Status")).lower()
    # A state that we do not know is not an end.
    return LIVENESS.get(status, Liveness.RUNNING if container["State"].get("Running", True) else Liveness.EXITED)


def was_started(container: Mapping[str, Any]) -> bool:
    """Whether an inspected container runs, or ever did."""
    return (
        liveness_of(container) is not Liveness.CREATED
        and docker_end.timestamp_us(container["State"].get("StartedAt")) is not None
    )
