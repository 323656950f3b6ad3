"""What every driver promises: one suite, over planned and over real containers, and over processes."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import pytest

from managedd.drivers.fake import FakeRun
from managedd.errors import ErrorCode, ManagedError
from managedd.model.drivers import Driver, ExitStatus, Handle, ImageError, Liveness, PullPolicy, RunSpec
from managedd.model.logs import LogCursor, RawLine, Stream
from tests.drivers.conftest import DockerWorld, FakeWorld, Life, ProcessWorld, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

FOREVER = Life(code="import time\nwhile True: time.sleep(0.1)", plan=FakeRun(run_for_seconds=None))
DEAF = Life(
    code="import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: time.sleep(0.1)",
    plan=FakeRun(run_for_seconds=None, ignores_sigterm=True, lines=("deaf",)),
)
TALK = Life(
    code="import sys, time\n"
    "for n in range(20):\n print('line', n, file=(sys.stdout, sys.stderr)[n % 2], flush=True); time.sleep(0.02)\n"
    "print('the end', end='')",
    plan=FakeRun(
        lines=(*((list(Stream)[n % 2], f"line {n}") for n in range(20)), "the end"),
        line_interval_seconds=0.02,
        run_for_seconds=0.5,
    ),
)
TALK_LINES = [*((list(Stream)[n % 2], f"line {n}") for n in range(20)), (Stream.STDOUT, "the end")]


@pytest.fixture(
    params=[
        "fake",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("process", marks=pytest.mark.client),
    ]
)
async def world(request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    made: DockerWorld | ProcessWorld
    if request.param == "process":
        made = ProcessWorld(tmp_path)
    else:
        made = DockerWorld(
            str(request.getfixturevalue("docker_engine").docker_host), request.getfixturevalue("docker_instance")
        )
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def driver(world: World) -> Driver:
    return await world.driver()


async def quiet(_line: str) -> None: ...


async def begin(driver: Driver, spec: RunSpec) -> Handle:
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    await driver.start(handle)
    return handle


async def whole_life(driver: Driver, spec: RunSpec) -> ExitStatus:
    handle = await begin(driver, spec)
    with anyio.fail_after(60):
        status = await driver.wait(handle)
    await driver.remove(handle)
    return status


async def read(driver: Driver, handle: Handle, after: LogCursor | None = None) -> list[RawLine]:
    with anyio.fail_after(60):
        async with driver.logs(handle, after or LogCursor()) as lines:
            return [line async for line in lines]


async def first_line(driver: Driver, handle: Handle) -> str:
    with anyio.fail_after(30):
        async with driver.logs(handle, LogCursor()) as lines:
            return (await anext(aiter(lines))).text


@pytest.mark.parametrize("code", [0, 3, 255])
async def test_exit_code_is_data(world: World, driver: Driver, code: int) -> None:
    before = time.time_ns() // 1000
    status = await whole_life(driver, world.spec(Life(code=f"raise SystemExit({code})", plan=FakeRun(exit_code=code))))
    assert (status.exit_code, status.oom_killed, status.gone, status.install_failed) == (code, False, False, False)
    assert status.started_at_us is not None
    assert status.finished_at_us is not None
    assert before - 1_000_000 <= status.started_at_us <= status.finished_at_us <= time.time_ns() // 1000 + 1_000_000
    assert status.installed_at_us is not None


async def test_stop_asks_first(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(FOREVER))
    await anyio.sleep(0.5)
    began = time.monotonic()
    await driver.stop(handle, grace_seconds=20)
    assert time.monotonic() - began < 10
    assert await driver.recover(handle) is Liveness.EXITED
    status = await driver.wait(handle)
    assert (status.exit_code, status.oom_killed) == (143, False)


async def test_stop_kills_what_does_not_listen(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(DEAF))
    assert await first_line(driver, handle) == "deaf"
    began = time.monotonic()
    await driver.stop(handle, grace_seconds=1)
    assert 0.9 <= time.monotonic() - began < 10
    status = await driver.wait(handle)
    assert (status.exit_code, status.oom_killed) == (137, False)


async def test_stop_of_what_has_ended_is_no_error(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(Life()))
    await driver.wait(handle)
    await driver.stop(handle, grace_seconds=5)
    await driver.remove(handle)
    await driver.stop(handle, grace_seconds=5)


async def test_out_of_memory(world: World, driver: Driver) -> None:
    hungry = Life(
        code="kept = [bytearray(1 << 24) for _ in range(64)]",
        plan=FakeRun(exit_code=137, oom=True, peak_memory_bytes=128 << 20),
        memory_bytes=128 << 20,
    )
    status = await whole_life(driver, world.spec(hungry))
    assert (status.exit_code, status.oom_killed) == (137, True)
    assert status.peak_memory_bytes is not None
    assert status.peak_memory_bytes > 100 << 20


async def test_vanished(world: World, driver: Driver) -> None:
    spec = world.spec(FOREVER)
    handle = await begin(driver, spec)
    statuses: list[ExitStatus] = []
    lines: list[RawLine] = []

    async def wait() -> None:
        statuses.append(await driver.wait(handle))

    async def follow() -> None:
        lines.extend(await read(driver, handle))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(follow)
            await anyio.sleep(0.5)
            await world.vanish(spec, handle)
    assert [(status.exit_code, status.gone) for status in statuses] == [(None, True)]
    assert lines == []
    assert await driver.recover(handle) is Liveness.GONE
    assert (await driver.wait(handle)).gone


async def test_logs_are_whole_and_in_order(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(TALK))
    lines = await read(driver, handle)
    assert [(line.stream, line.text) for line in lines] == TALK_LINES
    assert [line.cursor for line in lines] == sorted({line.cursor for line in lines})
    assert await driver.recover(handle) is Liveness.EXITED


async def test_logs_resume_after_every_cursor(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(TALK))
    lines = await read(driver, handle)
    for number in (0, 7, 19, 20):
        assert await read(driver, handle, lines[number].cursor) == lines[number + 1 :]


async def test_logs_come_while_it_runs_and_again_for_the_next_daemon(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(TALK))
    seen: list[RawLine] = []
    async with driver.logs(handle, LogCursor()) as lines:
        async for line in lines:
            seen.append(line)
            if len(seen) == 5:
                break
    assert await driver.recover(handle) is Liveness.RUNNING
    successor = await world.driver()
    seen += await read(successor, handle, seen[-1].cursor)
    assert [(line.stream, line.text) for line in seen] == TALK_LINES


async def test_the_next_daemon_takes_over(world: World, driver: Driver) -> None:
    spec = world.spec(FOREVER)
    handle = await begin(driver, spec)
    await driver.close()
    successor = await world.driver()
    saved = json.loads(json.dumps({"driver": handle.driver, "version": handle.version, "data": dict(handle.data)}))
    again = Handle(**saved)
    assert await successor.recover(again) is Liveness.RUNNING
    assert await successor.create(spec) == again
    await successor.stop(again, grace_seconds=5)
    assert (await successor.wait(again)).exit_code == 143


async def test_recover_tells_the_stages_apart(world: World, driver: Driver) -> None:
    spec = world.spec(Life())
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    assert await driver.recover(handle) is Liveness.CREATED
    await driver.start(handle)
    await driver.wait(handle)
    assert await driver.recover(handle) is Liveness.EXITED
    await driver.remove(handle)
    assert await driver.recover(handle) is Liveness.GONE


async def test_when_it_was_started_is_told_to_whoever_adopts_it(world: World, driver: Driver) -> None:
    spec = world.spec(FOREVER)
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    assert await driver.started_ago(handle) is None
    before = time.monotonic()
    await driver.start(handle)
    after = time.monotonic()
    await anyio.sleep(0.6)
    successor = await world.driver()
    asked = time.monotonic()
    ago = await successor.started_ago(handle)
    assert ago is not None
    assert asked - after - 0.1 <= ago <= time.monotonic() - before + 0.1
    await successor.stop(handle, grace_seconds=5)
    await successor.wait(handle)
    ended = await successor.started_ago(handle)
    assert ended is not None and ended > ago, "also of one that has ended since"
    await successor.remove(handle)
    assert await successor.started_ago(handle) is None


async def test_twice_is_once(world: World, driver: Driver) -> None:
    spec = world.spec(Life(code="print('once')", plan=FakeRun(lines=("once",))))
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    assert await driver.create(spec) == handle
    await driver.start(handle)
    await driver.start(handle)
    await driver.wait(handle)
    assert await driver.create(spec) == handle
    await driver.start(handle)
    assert [line.text for line in await read(driver, handle)] == ["once"]
    await driver.remove(handle)
    await driver.remove(handle)
    assert spec.execution_id not in {found.execution_id for found in await driver.list_owned(world.instance_id)}


async def test_start_of_nothing_fails(world: World, driver: Driver) -> None:
    spec = world.spec(Life())
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    await driver.remove(handle)
    with pytest.raises(ManagedError) as raised:
        await driver.start(handle)
    assert raised.value.code is ErrorCode.DRIVER


async def test_list_owned_is_ours_alone(world: World, driver: Driver) -> None:
    ours = world.spec(FOREVER)
    handle = await begin(driver, ours)
    created = world.spec(Life())
    await driver.prepare(created, quiet)
    idle = await driver.create(created)
    found = {one.execution_id: one for one in await driver.list_owned(world.instance_id)}
    assert found.keys() == {ours.execution_id, created.execution_id}
    assert found[ours.execution_id].handle == handle
    assert found[ours.execution_id].flow_run_id == ours.flow_run_id
    assert found[ours.execution_id].liveness is Liveness.RUNNING
    assert found[created.execution_id].handle == idle
    assert found[created.execution_id].liveness is Liveness.CREATED
    assert abs(found[ours.execution_id].created_at_us - time.time_ns() // 1000) < 60_000_000
    assert await driver.list_owned("00000000-0000-4000-8000-000000000000") == []


async def test_many_prepare_at_once(world: World, driver: Driver) -> None:
    specs = [world.spec(Life()) for _ in range(8)]
    async with anyio.create_task_group() as tasks:
        for spec in specs:
            tasks.start_soon(driver.prepare, spec, quiet)
    handle = await driver.create(specs[0])
    assert await driver.recover(handle) is Liveness.CREATED


async def test_an_image_that_may_not_be_pulled(world: World, driver: Driver) -> None:
    spec = world.spec(Life(), image="managedd-tests/not-here:1", pull_policy=PullPolicy.NEVER)
    with pytest.raises(ImageError, match="not on this host"):
        await driver.prepare(spec, quiet)


async def test_stats(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(FOREVER))
    await anyio.sleep(0.3)
    usage = await driver.stats(handle)
    assert usage is not None
    assert 0 < usage.memory_bytes < 1 << 30
    assert usage.cpu_seconds >= 0
    assert usage.pids >= 1
    await driver.stop(handle, grace_seconds=5)
    assert await driver.stats(handle) is None
    await driver.remove(handle)
    assert await driver.stats(handle) is None


async def test_what_it_has_written(world: World, driver: Driver) -> None:
    megabytes = 8
    code = (
        f"import time; open('mine', 'wb').write(b'x' * {megabytes << 20}); print('written', flush=True); time.sleep(60)"
    )
    life = Life(code=code, plan=FakeRun(run_for_seconds=None, disk_bytes=megabytes << 20, lines=("written",)))
    handle = await begin(driver, world.spec(life))
    async with driver.logs(handle, LogCursor()) as lines:
        with anyio.fail_after(20):
            await anext(aiter(lines))
    written = await driver.disk(handle)
    assert written is not None
    assert megabytes << 20 <= written < 2 * megabytes << 20
    await driver.stop(handle, grace_seconds=1)
    assert await driver.disk(handle) is None
    await driver.remove(handle)
    assert await driver.disk(handle) is None


async def test_packages_that_cannot_be_installed(world: World, driver: Driver) -> None:
    life = Life(
        code="print('must not run')",
        packages=("./there/is/no/such/package",),
        plan=FakeRun(install_error="no such package", install_seconds=0.1),
    )
    status = await whole_life(driver, world.spec(life))
    assert status.install_failed
    assert status.exit_code == 210
    assert status.error is not None
    assert "such" in status.error


async def test_waiting_can_be_given_up_and_taken_up(world: World, driver: Driver) -> None:
    handle = await begin(driver, world.spec(Life(code="import time; time.sleep(2)", plan=FakeRun(run_for_seconds=2))))
    with anyio.move_on_after(0.3) as scope:
        await driver.wait(handle)
    assert scope.cancelled_caught
    with anyio.fail_after(20):
        assert (await driver.wait(handle)).exit_code == 0


async def test_many_side_by_side(world: World, driver: Driver) -> None:
    lines: dict[int, list[str]] = {}

    async def one(number: int) -> None:
        life = Life(code=f"print('run', {number})", plan=FakeRun(lines=(f"run {number}",)))
        handle = await begin(driver, world.spec(life))
        lines[number] = [line.text for line in await read(driver, handle)]
        assert (await driver.wait(handle)).exit_code == 0
        await driver.remove(handle)

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(one, number)
    assert lines == {number: [f"run {number}"] for number in range(6)}
    assert await driver.list_owned(world.instance_id) == []


async def test_foreign_handles_are_refused(driver: Driver, world: World) -> None:
    spec = world.spec(Life())
    await driver.prepare(spec, quiet)
    handle = await driver.create(spec)
    for foreign in (replace(handle, driver="other"), replace(handle, version=99)):
        with pytest.raises(ManagedError, match="no handle of"):
            await driver.recover(foreign)
