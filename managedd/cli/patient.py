"""Whom the doctor examines: this host, and the daemon that serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from managedd.cli.client import connected
from managedd.doctor.patient import Patient
from managedd.engine_room import docker_settings

if TYPE_CHECKING:
    from managedd.config import Settings


def patient_of(settings: Settings) -> Patient:
    """This host under these settings, and the daemon that serves it, if one does."""

    async def ask() -> dict[str, Any]:
        async with connected(settings) as daemon:
            found: dict[str, Any] = await daemon.get("/managed/status")
            return found

    return Patient(settings=settings, docker=docker_settings(settings), ask=ask)
