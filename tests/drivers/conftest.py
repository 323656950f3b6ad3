"""The worlds in which the driver contract is tested: planned containers, and real ones."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiodocker
import anyio
import pytest

from managedd.drivers import firewall
from managedd.drivers.docker import DockerDriver
from managedd.drivers.docker_leavings import remove_leavings
from managedd.drivers.docker_spec import DockerSettings, network_name
from managedd.drivers.fake import FakeDriver, FakeEngine, FakeRun
from managedd.drivers.nftables import NftablesError
from managedd.drivers.process import ProcessDriver, ProcessSettings
from managedd.model.drivers import Driver, Handle, RunSpec
from tests.drivers.stub_engine import INSTANCE, StubEngine
from tests.support.steps import STATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.provision import Provisioned

IMAGE = "prefecthq/prefect:3-latest"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def engine(tmp_path: Path, anyio_backend: str) -> AsyncIterator[StubEngine]:
    """A stand-in for an engine, which does what a test has it do."""
    async with StubEngine(tmp_path / "d.sock") as stub:
        yield stub


@pytest.fixture
async def driver(engine: StubEngine) -> AsyncIterator[DockerDriver]:
    """A driver over the stand-in that waits for nothing long; some files have one of their own instead."""
    made = DockerDriver(INSTANCE, DockerSettings(control_timeout_seconds=1.0, pull_stall_seconds=1.0), url=engine.url)
    await made.open()
    yield made
    await made.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What a run does, told to each world in its own way: a program for real containers, a plan for fake ones."""

    code: str = "pass"
    plan: FakeRun = field(default_factory=FakeRun)
    packages: tuple[str, ...] = ()
    memory_bytes: int | None = None


class World(Protocol):
    """Where containers live."""

    instance_id: str

    async def driver(self) -> Driver:
        """A driver as a freshly started daemon has it."""

    def spec(self, life: Life, **changes: Any) -> RunSpec:
        """What to run for `life`, as a new execution."""

    async def vanish(self, spec: RunSpec, handle: Handle) -> None:
        """Somebody else has removed the container."""

    async def close(self) -> None: ...


def new_spec(instance_id: str, life: Life, **changes: Any) -> RunSpec:
    fields: dict[str, Any] = {
        "execution_id": str(uuid.uuid4()),
        "flow_run_id": str(uuid.uuid4()),
        "instance_id": instance_id,
        "image": IMAGE,
        "command": ("python3", "-c", life.code),
        "packages": life.packages,
        "memory_bytes": life.memory_bytes,
        "pids": 256,
        **changes,
    }
    return RunSpec(**fields)


class FakeWorld:
    def __init__(self) -> None:
        self.instance_id = str(uuid.uuid4())
        self._plans: dict[str, FakeRun] = {}
        self.engine = FakeEngine(lambda spec: self._plans[spec.execution_id])

    async def driver(self) -> Driver:
        driver = FakeDriver(self.engine)
        await driver.open()
        return driver

    def spec(self, life: Life, **changes: Any) -> RunSpec:
        spec = new_spec(self.instance_id, life, **changes)
        self._plans[spec.execution_id] = life.plan
        return spec

    async def vanish(self, spec: RunSpec, handle: Handle) -> None:
        self.engine.vanish(spec.execution_id)

    async def close(self) -> None:
        pass


class DockerWorld:
    def __init__(self, docker_host: str, instance_id: str, settings: DockerSettings | None = None) -> None:
        self.instance_id = instance_id
        self._host = docker_host
        self._settings = settings
        self._closing = AsyncExitStack()

    async def driver(self, settings: DockerSettings | None = None) -> DockerDriver:
        driver = DockerDriver(self.instance_id, settings or self._settings, url=self._host)
        await driver.open()
        self._closing.push_async_callback(driver.close)
        return driver

    def spec(self, life: Life, **changes: Any) -> RunSpec:
        return new_spec(self.instance_id, life, **changes)

    async def vanish(self, spec: RunSpec, handle: Handle) -> None:
        async with aiodocker.Docker(url=self._host) as docker:
            await docker.containers.container(handle.data["id"]).delete(force=True)

    async def close(self) -> None:
        await self._closing.aclose()
        await sweep(self._host, self.instance_id)
        with contextlib.suppress(NftablesError):
            # The network is the next test's too.
            firewall.take_down(network_name(self.instance_id))


class ProcessWorld:
    """Runs as processes of this host; all worlds of a checkout share their environments, which cost seconds to make."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.instance_id = str(uuid.uuid4())
        self.runs_dir = folder / "runs"
        self._settings = {"env_dir": STATE / "environments", **settings}
        self.env_dir: Path = self._settings["env_dir"]

    async def driver(self, *, instance_id: str | None = None, **settings: Any) -> ProcessDriver:
        driver = ProcessDriver(
            instance_id or self.instance_id, ProcessSettings(runs_dir=self.runs_dir, **{**self._settings, **settings})
        )
        await driver.open()
        return driver

    def spec(self, life: Life, **changes: Any) -> RunSpec:
        return new_spec(self.instance_id, life, **changes)

    async def vanish(self, spec: RunSpec, handle: Handle) -> None:
        shutil.rmtree(self.runs_dir / spec.execution_id)

    async def close(self) -> None:
        driver = await self.driver()
        for found in await driver.list_owned(self.instance_id):
            await driver.remove(found.handle)
        await driver.close()


async def sweep(docker_host: str, instance_id: str) -> None:
    """No container of that daemon is left in the engine."""
    async with aiodocker.Docker(url=docker_host) as docker:
        for container in await docker.containers.list(
            all=True, filters=f'{{"label": ["managedd.instance={instance_id}"]}}'
        ):
            await container.delete(force=True, v=True)


@pytest.fixture(scope="module")
def docker_instance(docker_engine: Provisioned) -> Iterator[str]:
    """One daemon's identity, and with it one network, for a module's tests."""
    instance_id = str(uuid.uuid4())
    assert docker_engine.docker_host is not None
    yield instance_id
    anyio.run(lambda: remove_leavings(instance_id, url=docker_engine.docker_host))


@pytest.fixture
async def docker_world(
    docker_engine: Provisioned, docker_instance: str, anyio_backend: str
) -> AsyncIterator[DockerWorld]:
    world = DockerWorld(str(docker_engine.docker_host), docker_instance)
    try:
        yield world
    finally:
        await world.close()


@pytest.fixture
async def process_world(tmp_path: Path, anyio_backend: str) -> AsyncIterator[ProcessWorld]:
    world = ProcessWorld(tmp_path)
    try:
        yield world
    finally:
        await world.close()
