"""One daemon and one image for the crash tests, made when the first of them asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.place import Place, build_fast_image
from tests.support.daemon import LiveDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned


@pytest.fixture(scope="session")
def fast_image(docker_engine: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image whose `prefect` is the stand-in."""
    assert docker_engine.docker_host is not None and docker_engine.image is not None
    return build_fast_image(docker_engine.docker_host, docker_engine.image, tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def place(docker_engine: Provisioned, fast_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A live daemon that runs stand-ins."""
    daemon = LiveDaemon(
        tmp_path_factory.mktemp("place"),
        docker_host=docker_engine.docker_host,
        settings={"runs": {"cancel_grace_seconds": 2.0, "stop_grace_seconds": 2.0}},
    )
    try:
        daemon.start()
        made = Place(daemon=daemon)
        made.furnish(fast_image)
        yield made
    finally:
        daemon.close()
