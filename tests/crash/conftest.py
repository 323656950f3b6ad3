"""One daemon and one image for the crash tests, made when the first of them asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.place import STAND_IN, Place, build_fast_image
from tests.support.daemon import LiveDaemon
from tests.support.process_daemon import IMAGE, ProcessDaemon, ensure_environments, with_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned


SETTINGS = {"runs": {"cancel_grace_seconds": 2.0, "stop_grace_seconds": 2.0}}


@pytest.fixture(scope="session")
def fast_image(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image whose `prefect` is the stand-in."""
    assert docker_engine.docker_host is not None and docker_engine.image is not None
    return build_fast_image(docker_engine.docker_host, docker_engine.image, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def fast_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Environments whose `prefect` is the stand-in."""
    return with_command(ensure_environments(), tmp_path_factory.mktemp("fast"), "prefect", STAND_IN)


@pytest.fixture(
    scope="module",
    params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("process", marks=pytest.mark.client)],
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A live daemon that runs stand-ins, in containers and as processes."""
    folder = tmp_path_factory.mktemp("place")
    daemon: LiveDaemon
    if request.param == "docker":
        host, image = request.getfixturevalue("docker_engine").docker_host, request.getfixturevalue("fast_image")
        daemon = LiveDaemon(folder, docker_host=host, settings=SETTINGS)
    else:
        image = IMAGE
        daemon = ProcessDaemon(folder, environments=request.getfixturevalue("fast_environments"), settings=SETTINGS)
    try:
        daemon.start()
        made = Place(daemon=daemon)
        made.furnish(image)
        yield made
    finally:
        daemon.close()
