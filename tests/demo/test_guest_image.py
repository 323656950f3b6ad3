"""An image that the demo has pulled goes with it; one that was there, or that somebody uses, stays."""

from __future__ import annotations

import secrets
import subprocess
from typing import TYPE_CHECKING

import pytest

from managedd.config import Settings, load
from managedd.demo.choice import choose
from managedd.demo.guest_image import GuestImage
from tests.demo.test_demo import demo
from tests.support import registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from managedd.demo.screen import Screen
    from tests.support.provision import Provisioned

pytestmark = [pytest.mark.docker, pytest.mark.anyio]


class Engine:
    """What the docker command line says of one image."""

    def __init__(self, host: str, image: str) -> None:
        self.host = host
        self.image = image

    def docker(self, *arguments: str) -> str:
        command = ["docker", "-H", self.host, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    @property
    def has_it(self) -> bool:
        return bool(self.docker("images", "-q", self.image).strip())

    @property
    def settings(self) -> Settings:
        return load(None, {"docker.host": self.host, "runs.image": self.image})


@pytest.fixture
def engine(docker_engine: Provisioned) -> Iterator[Engine]:
    assert docker_engine.docker_host is not None
    with registry.serving(f"guest-{secrets.token_hex(4)}") as image:
        made = Engine(docker_engine.docker_host, image)
        try:
            yield made
        finally:
            subprocess.run(
                ["docker", "-H", made.host, "rmi", "-f", image], capture_output=True, check=False, timeout=60
            )


async def test_pulled_for_the_demo_it_is_gone_with_it(engine: Engine, screen: Screen) -> None:
    guest = GuestImage(engine.settings)
    choice = await choose(screen, "docker", engine.settings, guest)
    assert f"has pulled the image {engine.image}" in choice.why
    assert engine.has_it
    assert await guest.leave(screen, keep=False) == []
    assert not engine.has_it


async def test_as_wished_it_stays_and_how_it_goes_is_told(
    engine: Engine, screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = GuestImage(engine.settings)
    await choose(screen, "docker", engine.settings, guest)
    assert await guest.leave(screen, keep=True) == []
    assert engine.has_it
    assert f"docker image rm {engine.image} removes it" in capsys.readouterr().out


async def test_one_that_was_there_stays(engine: Engine, screen: Screen) -> None:
    engine.docker("pull", "-q", engine.image)
    guest = GuestImage(engine.settings)
    assert "has the image" in (await choose(screen, "docker", engine.settings, guest)).why
    assert await guest.leave(screen, keep=False) == []
    assert engine.has_it


async def test_one_that_somebody_uses_by_now_stays(
    engine: Engine, screen: Screen, capsys: pytest.CaptureFixture[str]
) -> None:
    guest = GuestImage(engine.settings)
    await choose(screen, "docker", engine.settings, guest)
    container = engine.docker("create", engine.image).strip()
    try:
        assert await guest.leave(screen, keep=False) == []
        assert engine.has_it
        assert "stays: somebody else's container uses it" in capsys.readouterr().out
    finally:
        engine.docker("rm", container)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_demo_that_fails_removes_what_it_has_pulled(engine: Engine, tmp_path: Path) -> None:
    wishes = {"docker_host": engine.host, "MANAGEDD_RUNS__IMAGE": engine.image}
    with demo(tmp_path, "--driver", "docker", **wishes) as running:
        # There is no Prefect in it.
        assert running.end() == 1, running.said
        assert "--keep-image keeps it for the next time" in running.said
        assert running.left() == []
    assert not engine.has_it
