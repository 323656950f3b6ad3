"""Docker when an engine answers and has or can pull the image, else the process driver; and why."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import anyio

from managedd.drivers.docker import DockerDriver
from managedd.drivers.docker_leavings import remove_leavings
from managedd.drivers.docker_probe import Fault, fault_of
from managedd.engine_room import docker_settings
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import ImageError, PullPolicy, RunSpec

if TYPE_CHECKING:
    from managedd.config import Settings
    from managedd.demo.guest_image import GuestImage
    from managedd.demo.screen import Screen

Wish = Literal["auto", "docker", "process"]

GATEWAY: Final = "gateway"
_START: Final = "start Docker, or name its address with DOCKER_HOST"
_ENGINE: Final = {
    Fault.PERMISSION: (
        "a container engine is there, and this user may not speak to it",
        "join those who may (on most hosts: the group docker, then a new login)",
    ),
    Fault.NO_SOCKET: ("no container engine was found", _START),
    Fault.REFUSED: ("no container engine answers where one should be", _START),
    Fault.TIMEOUT: ("the container engine does not answer in time", "restart it, or name another with DOCKER_HOST"),
}
"""Why an engine can't be used, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the demo's runs run in."""

    driver: Literal["docker", "process"]
    why: str


async def choose(screen: Screen, wish: Wish, settings: Settings, image: GuestImage) -> Choice:
    """The choice. Raises ManagedError(DRIVER) with what to do when Docker was wished for and can't be had."""
    if wish == "process":
        return Choice(driver="process", why="as wished")
    try:
        version = await _try_docker(screen, settings, image)
    except ManagedError as error:
        why, advice = _told(error)
        if wish == "docker":
            raise ManagedError(error.code, f"{error.message}\nWhat to do: {advice}, or try --driver process") from error
        return Choice(driver="process", why=f"{why}; to use Docker, {advice}")
    has = "has pulled" if image.is_ours else "has"
    return Choice(driver="docker", why=f"an engine answers (version {version}) and {has} the image {image.name}")


async def _try_docker(screen: Screen, settings: Settings, image: GuestImage) -> str:
    """The version of an engine that can run what a daemon of these settings would start on it. Raises ManagedError(DRIVER)."""
    instance_id = f"demo-{secrets.token_hex(6)}"
    runs, url = settings.runs, settings.docker.host
    driver = DockerDriver(instance_id, docker_settings(settings), url=url)
    with screen.waiting("Looking for a container engine"):
        info = await driver.open()
    try:
        if runs.listen_host is None and await driver.bind_host() is None:
            raise ManagedError(
                ErrorCode.DRIVER,
                "the container engine's gateway is not an address of this host, so its runs could not reach the daemon",
                detail=GATEWAY,
            )
        spec = RunSpec(
            execution_id=instance_id,
            flow_run_id=instance_id,
            instance_id=instance_id,
            image=runs.image,
            pull_policy=PullPolicy(runs.pull_policy),
        )
        with screen.waiting(f"Looking for the image {runs.image}"):
            await image.look()
            await driver.prepare(spec, _Pulling(screen).tell)
            image.came()
    except ImageError as error:
        raise ManagedError(ErrorCode.DRIVER, f"the image {runs.image} can't be had: {error}") from error
    finally:
        with anyio.CancelScope(shield=True):
            await driver.close()
            # Opening it has made a network.
            await remove_leavings(instance_id, url=url)
    return info.version


class _Pulling:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    async def tell(self, line: str) -> None:
        """What the driver says is where the wait is shown."""
        self._screen.progress(line)


def _told(error: ManagedError) -> tuple[str, str]:
    """Why Docker can't be had, in a few words, and what to do about it."""
    if isinstance(error.__cause__, ImageError):
        return error.message, "make the registry reachable, or pull the image by hand"
    if error.detail == GATEWAY:
        return error.message, "set runs.listen_host and runs.api_url as config.example.toml says"
    return _ENGINE.get(fault_of(error), (error.message, "mend that, or name another engine with DOCKER_HOST"))
