"""Which driver is chosen at the start, and what becomes of runs that an earlier start has left in the other one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.drivers.either import Either
from managedd.drivers.fake import FakeDriver, FakeEngine, FakeRun
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import DriverInfo, ExitStatus, Found, Handle, Liveness, RunSpec, Usage
from managedd.model.logs import LogCursor, RawLine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

SPEC = RunSpec(execution_id="one", flow_run_id="run", instance_id="me", image="image")


class Named(FakeDriver):
    """A fake with a name of its own in its handles."""

    def __init__(self, name: str, host: str) -> None:
        super().__init__(FakeEngine(FakeRun(run_for_seconds=None, lines=("hello",))))
        self.name = name
        self.host = host
        self.opened = self.closed = 0

    async def open(self) -> DriverInfo:
        info = await super().open()
        self.opened += 1
        detail = {"isolation": "none", "warning": "careful"} if self.name == "process" else {}
        return replace(info, name=self.name, detail=detail)

    async def close(self) -> None:
        self.closed += 1

    async def create(self, spec: RunSpec) -> Handle:
        return replace(await super().create(spec), driver=self.name)

    async def start(self, handle: Handle) -> None:
        await super().start(self._plain(handle))

    async def recover(self, handle: Handle) -> Liveness:
        return await super().recover(self._plain(handle))

    async def wait(self, handle: Handle) -> ExitStatus:
        return await super().wait(self._plain(handle))

    async def stop(self, handle: Handle, *, grace_seconds: float) -> None:
        await super().stop(self._plain(handle), grace_seconds=grace_seconds)

    async def remove(self, handle: Handle) -> None:
        await super().remove(self._plain(handle))

    @contextlib.asynccontextmanager
    async def logs(self, handle: Handle, after: LogCursor) -> AsyncIterator[AsyncIterator[RawLine]]:
        async with super().logs(self._plain(handle), after) as lines:
            yield lines

    async def stats(self, handle: Handle) -> Usage | None:
        return await super().stats(self._plain(handle))

    async def list_owned(self, instance_id: str) -> list[Found]:
        found = await super().list_owned(instance_id)
        return [replace(one, handle=replace(one.handle, driver=self.name)) for one in found]

    async def bind_host(self) -> str | None:
        return self.host

    def _plain(self, handle: Handle) -> Handle:
        assert handle.driver == self.name
        return replace(handle, driver="fake")


class Two:
    """An engine and processes, and a daemon's driver over them, as often as one is started."""

    def __init__(self) -> None:
        self.docker, self.process = Named("docker", "172.18.0.1"), Named("process", "127.0.0.1")

    def either(self, wanted: Any = "auto", **options: Any) -> Either:
        return Either(self.docker, self.process, wanted=wanted, **options)


@pytest.fixture
def two(anyio_backend: str) -> Two:
    return Two()


async def test_containers_where_an_engine_answers(two: Two) -> None:
    either = two.either()
    assert (await either.open()).name == either.name == "docker"
    assert two.process.opened == 0
    assert await either.bind_host() == "172.18.0.1" and await either.other_bind_host() is None
    # The choice holds for this daemon's life: an engine that goes away is waited for.
    two.docker.engine.down = True
    with pytest.raises(ManagedError):
        await either.open()
    assert either.name == "docker" and two.process.opened == 0


async def test_processes_where_none_answers(two: Two) -> None:
    two.docker.engine.down = True
    either = two.either()
    assert (await either.open()).detail["isolation"] == "none"
    assert either.name == "process"
    handle = await either.create(SPEC)
    assert handle.driver == "process" and await either.recover(handle) is Liveness.CREATED


async def test_processes_that_are_refused_are_waited_for_in_vain(two: Two) -> None:
    two.docker.engine.down = True
    either = two.either(refusal="there are 2 workspaces: set process.trusted = true")
    with pytest.raises(ManagedError, match=r"does not answer.*process\.trusted = true") as raised:
        await either.open()
    assert raised.value.code is ErrorCode.DRIVER and two.process.opened == 0
    two.docker.engine.down = False
    assert (await either.open()).name == "docker"


@pytest.mark.parametrize("wanted", ["docker", "process"])
async def test_what_is_wanted_is_not_replaced(two: Two, wanted: str) -> None:
    driver = getattr(two, wanted)
    driver.engine.down = True
    either = two.either(wanted)
    with pytest.raises(ManagedError):
        await either.open()
    driver.engine.down = False
    assert (await either.open()).name == either.name == wanted


@pytest.mark.parametrize(("first", "second"), [("docker", "process"), ("process", "docker")])
async def test_runs_of_an_earlier_start_are_still_ours(two: Two, first: str, second: str) -> None:
    earlier = two.either(first)
    await earlier.open()
    handle = await earlier.create(SPEC)
    await earlier.start(handle)
    await earlier.close()

    either = two.either(second)
    await either.open()
    part = either.part(first)
    assert part is not None and either.part("podman") is None
    assert await part.recover(handle) is await either.recover(handle) is Liveness.RUNNING
    assert await either.other_bind_host() == getattr(two, first).host
    new = await either.create(replace(SPEC, execution_id="two"))
    owned = {found.execution_id: found.handle.driver for found in await either.list_owned("me")}
    assert owned == {"one": first, "two": second}
    assert (await either.stats(handle)) is not None
    await either.stop(handle, grace_seconds=1)
    assert (await part.wait(handle)).exit_code == (await either.wait(handle)).exit_code == 143
    async with part.logs(handle, LogCursor()) as lines:
        assert [line.text async for line in lines] == ["hello"]
    for one in (handle, new):
        await either.remove(one)
    assert await either.list_owned("me") == []
    await either.close()
    assert two.docker.closed >= 1 and two.process.closed >= 1


async def test_an_engine_that_stays_away_loses_its_runs_and_nothing_else(two: Two) -> None:
    earlier = two.either("docker")
    await earlier.open()
    handle = await earlier.create(SPEC)
    await earlier.start(handle)

    two.docker.engine.down = True
    either = two.either("process", give_up_seconds=0.3)
    await either.open()
    part = either.part("docker")
    assert part is not None
    # For a while it may come back; new runs don't wait for that.
    with pytest.raises(ManagedError, match="does not answer"):
        await part.recover(handle)
    assert await either.list_owned("me") == []
    new = await either.create(replace(SPEC, execution_id="two"))
    assert new.driver == "process"
    await anyio.sleep(0.35)
    assert await part.recover(handle) is Liveness.GONE
    status = await part.wait(handle)
    assert status.gone and "docker" in str(status.error) and "has not answered" in str(status.error)
    async with part.logs(handle, LogCursor()) as lines:
        assert [line async for line in lines] == []
    await part.stop(handle, grace_seconds=1)
    await part.remove(handle)
    assert await part.list_owned("me") == [] and await part.stats(handle) is None
    with pytest.raises(ManagedError, match="does not answer"):
        await part.create(SPEC)
    # What it kept is found when it is back.
    two.docker.engine.down = False
    assert {found.execution_id for found in await either.list_owned("me")} == {"one", "two"}
