"""The image that the demo's runs take: when the demo had to pull it, it goes with the demo."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import anyio

from managedd.drivers.docker_leavings import remove_image
from managedd.drivers.docker_probe import DockerProbe
from managedd.engine_room import docker_settings
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from managedd.config import Settings
    from managedd.demo.screen import Screen

KEEP: Final = "--keep-image"


class GuestImage:
    """One image in one engine, as it was found and as it is left."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.runs.image
        self._settings = settings
        self._was_missing = False
        self.is_ours = False
        """It was pulled for us."""

    async def look(self) -> None:
        """It is known whether the image is there already. Raises ManagedError(DRIVER)."""
        probe = DockerProbe(docker_settings(self._settings), url=self._settings.docker.host)
        await probe.open()
        try:
            self._was_missing = await probe.image(self.name) is None
        finally:
            with anyio.CancelScope(shield=True):
                await probe.close()

    def came(self) -> None:
        """It is there now."""
        self.is_ours = self._was_missing

    async def leave(self, screen: Screen, *, keep: bool) -> list[str]:
        """It is gone where it was not there before, unless it shall stay or somebody uses it; what could not be removed. Nothing is raised."""
        if not self._was_missing:
            return []
        if keep:
            if self.is_ours:
                screen.comment(f"The image {self.name} stays, as wished; docker image rm {self.name} removes it.")
            return []
        try:
            # Also when we were told to stop while it was being pulled: it may have come all the same.
            with screen.waiting(f"Removing the image {self.name}") if self.is_ours else contextlib.nullcontext():
                is_gone = await remove_image(self.name, url=self._settings.docker.host)
        except ManagedError as error:
            if not self.is_ours:
                return []
            by_hand = f"docker image rm {self.name}"
            screen.comment(f"The image could not be removed: {error.message}. By hand: {by_hand}")
            return [by_hand]
        if not is_gone:
            screen.comment(f"The image {self.name} stays: somebody else's container uses it by now.")
        return []
