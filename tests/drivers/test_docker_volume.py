"""The volume with the runs' files, over an engine whose volumes come and go."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.drivers.docker import DockerDriver
from managedd.drivers.docker_leavings import remove_leavings
from managedd.drivers.docker_spec import DockerSettings
from managedd.errors import ManagedError
from tests.drivers.stub_engine import INSTANCE, StubEngine, answer, refuse, running, spec

if TYPE_CHECKING:
    from aiohttp import web

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]


def volumes(engine: StubEngine) -> list[str]:
    """Of each volume how it is labelled, as far as it is."""
    return [str((volume["Labels"] or {}).get("managedd.instance")) for volume in engine.volumes.values()]


async def test_files_are_placed_once_for_all_runs(engine: StubEngine, driver: DockerDriver) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(running, driver)
    assert (engine.count(r"PUT .*/archive"), volumes(engine)) == (1, [INSTANCE])
    mounts = [mount for container in engine.containers.values() for mount in container["Mounts"]]
    assert len(mounts) == 5
    assert mounts[0]["Name"] in engine.volumes
    assert all(mount == {"Name": mounts[0]["Name"], "RW": False} for mount in mounts)
    assert engine.volumes[mounts[0]["Name"]]["tar"]


async def test_the_next_start_finds_the_volume(engine: StubEngine, driver: DockerDriver) -> None:
    await driver.create(spec())
    before = list(engine.volumes)
    again = DockerDriver(INSTANCE, url=engine.url)
    await again.open()
    await again.create(spec())
    await again.close()
    assert (engine.count(r"PUT .*/archive"), list(engine.volumes)) == (1, before)
    assert len(engine.containers) == 2


async def test_a_volume_that_was_never_filled_is_not_taken(engine: StubEngine, driver: DockerDriver) -> None:
    """As a daemon leaves it that was killed while it made one, or a host without power."""
    await driver.create(spec())
    (first,) = engine.volumes.values()
    first["tar"] = first["tar"].replace(b"import", b"\0\0\0\0\0\0")
    again = DockerDriver(INSTANCE, url=engine.url)
    await again.open()
    handle = await again.create(spec())
    assert engine.count(r"PUT .*/archive") == 2
    name = engine.find(handle.data["id"])
    assert name is not None
    assert engine.containers[name]["Mounts"][0]["Name"] != first["Name"]
    await again.close()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "volumes/create"), ("POST", "containers/create"), ("PUT", "containers/.*/archive")]
)
async def test_a_volume_that_could_not_be_filled_is_not_left(
    engine: StubEngine, driver: DockerDriver, method: str, path: str
) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        # Of what the engine was asked for it has done its part.
        await engine.usual(request, request.path.lstrip("/").split("/", 1)[1])
        return await refuse(500, "no space left on device")(request)

    engine.on(method, path, cut)
    for _ in range(3):
        with pytest.raises(ManagedError, match="no space left"):
            await driver.create(spec())
        assert (engine.volumes, engine.containers) == ({}, {})
    engine.script.clear()
    await running(driver)
    assert volumes(engine) == [INSTANCE]


async def test_a_volume_that_was_pruned_is_replaced_before_a_run_starts(
    engine: StubEngine, driver: DockerDriver
) -> None:
    await driver.remove(await driver.create(spec()))
    engine.volumes.clear()
    handle, name = await running(driver)
    (mount,) = engine.containers[name]["Mounts"]
    assert engine.volumes[mount["Name"]]["tar"]
    assert volumes(engine) == [INSTANCE]
    await driver.remove(handle)


async def test_a_volume_that_is_removed_every_time_is_given_up(engine: StubEngine, driver: DockerDriver) -> None:
    async def pruned(request: web.Request) -> web.StreamResponse:
        if not request.query["name"].startswith("managedd-e"):
            return await engine.usual(request, "containers/create")
        engine.volumes.clear()
        return await engine.usual(request, "containers/create")

    engine.on("POST", "containers/create", pruned)
    with pytest.raises(ManagedError, match="removed again and again"):
        await driver.create(spec(execution_id=f"e{uuid.uuid4()}"))
    assert engine.containers == {}


async def test_a_container_of_another_version_is_made_anew(engine: StubEngine, driver: DockerDriver) -> None:
    one = spec()
    labels = {"managedd.instance": INSTANCE, "managedd.execution": one.execution_id}
    old = engine.put_container(f"managedd-{one.execution_id}", labels)
    handle = await driver.create(one)
    assert handle.data["id"] != old["Id"]
    assert engine.containers[f"managedd-{one.execution_id}"]["Mounts"]


async def test_a_volume_in_use_goes_with_its_last_run(engine: StubEngine, driver: DockerDriver) -> None:
    old, _ = await running(driver)
    other = DockerDriver(INSTANCE, DockerSettings(ca_bundle=b"PEM"), url=engine.url)
    await other.open()
    new, _ = await running(other)
    assert volumes(engine) == [INSTANCE] * 2
    await other.remove(old)
    assert volumes(engine) == [INSTANCE]
    await other.remove(new)
    assert volumes(engine) == [INSTANCE]
    await other.close()


async def test_nothing_is_left_of_a_daemon_that_will_not_come_back(engine: StubEngine, driver: DockerDriver) -> None:
    await running(driver)
    engine.volumes |= {f"{name}2": {"Name": f"{name}2", "Labels": None} for name in engine.volumes}
    engine.volumes["another"] = {"Name": "another", "Labels": {"managedd.instance": "another"}}
    engine.networks[0]["Id"] = "n1"
    engine.on("DELETE", "networks/n1", answer(status=204))
    assert await remove_leavings(INSTANCE, url=engine.url) == 4
    assert (engine.containers, list(engine.volumes)) == ({}, ["another"])
