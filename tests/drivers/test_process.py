"""The process driver where it differs from containers: the family of processes, its supervisor, and a daemon that is away."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.drivers import process_cgroup, run_tree
from managedd.drivers.process_files import RunFolder
from managedd.model.drivers import ExitStatus, Liveness, RunSpec
from managedd.model.logs import LogCursor
from tests.drivers.conftest import Life, ProcessWorld
from tests.drivers.test_contract import begin, first_line, read, whole_life

if TYPE_CHECKING:
    from pathlib import Path

    from managedd.drivers.process import ProcessDriver

pytestmark = [pytest.mark.anyio, pytest.mark.client]

MEGABYTE = 1024 * 1024
# A child that leaves: its own session, its parent gone, its environment cleared.
LEAVES = """
import os, sys, time
def leave(then):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            then()
        os._exit(0)
    os.wait()
"""
FOREVER = "import time\nprint('here', flush=True)\nwhile True: time.sleep(0.1)"


@pytest.fixture
async def driver(process_world: ProcessWorld) -> ProcessDriver:
    return await process_world.driver()


def folder_of(world: ProcessWorld, spec: RunSpec) -> RunFolder:
    return RunFolder(world.runs_dir, spec.execution_id)


def family(world: ProcessWorld, spec: RunSpec) -> list[int]:
    return run_tree.marked(spec.execution_id, str(folder_of(world, spec).path))


async def until(condition: Any, seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (nobody tells)
            await anyio.sleep(0.02)


def held_here() -> frozenset[str]:
    """The controllers with which this host's runs can be held."""
    groups = process_cgroup.find("trial")
    groups.leave()
    return frozenset(groups.parents)


# --- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [False, True], ids=["watched", "group"])
async def test_memory_of_a_child_that_left_counts(process_world: ProcessWorld, groups: bool) -> None:
    if groups and "memory" not in held_here():
        pytest.skip("this host gives us no control groups")
    driver = await process_world.driver(control_groups=groups)
    code = (
        f"{LEAVES}\n"
        "def eat():\n kept = [bytearray(1 << 22) for _ in range(256)]\n time.sleep(60)\n"
        "reading, writing = os.pipe()\nleave(eat)\nos.close(writing)\n"
        "os.read(reading, 1)\nprint('gone', flush=True)\ntime.sleep(60)"
    )
    spec = process_world.spec(Life(code=code, memory_bytes=128 * MEGABYTE))
    handle = await begin(driver, spec)
    if groups:
        # The kernel ends whoever took it; the run goes on without it, and knows.
        assert await first_line(driver, handle) == "gone"
        await driver.stop(handle, grace_seconds=5)
    with anyio.fail_after(30):
        status = await driver.wait(handle)
    assert status.oom_killed
    assert status.exit_code == (143 if groups else 137)
    assert status.peak_memory_bytes is not None and status.peak_memory_bytes > 100 * MEGABYTE
    assert family(process_world, spec) == []


async def test_memory_is_watched_where_no_group_holds_it(process_world: ProcessWorld) -> None:
    driver = await process_world.driver(control_groups=False)
    hungry = "kept = [bytearray(1 << 24) for _ in range(128)]\nimport time\ntime.sleep(60)"
    status = await whole_life(driver, process_world.spec(Life(code=hungry, memory_bytes=128 * MEGABYTE), cpus=1.0))
    assert (status.exit_code, status.oom_killed, status.unsupported) == (137, True, ("cpu", "pids"))
    assert status.peak_memory_bytes is not None and status.peak_memory_bytes > 128 * MEGABYTE


async def test_a_group_that_nobody_may_enter_holds_nothing(
    process_world: ProcessWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be made, and took its limits; that the process was refused shows only then. Memory is watched, and the rest is told."""
    groups = process_cgroup.Groups(version=2, parents=dict.fromkeys(process_cgroup.CONTROLLERS, str(tmp_path)))
    monkeypatch.setattr(process_cgroup, "find", lambda _: groups)
    driver = await process_world.driver()
    hungry = "kept = [bytearray(1 << 24) for _ in range(128)]\nimport time\ntime.sleep(60)"
    spec = process_world.spec(Life(code=hungry, memory_bytes=128 * MEGABYTE), cpus=1.0, pids=100)
    # Where a process is written to, nothing can be written.
    (tmp_path / spec.execution_id / "cgroup.procs").mkdir(parents=True)
    handle = await begin(driver, spec)
    with anyio.fail_after(30):
        status = await driver.wait(handle)
    assert (status.exit_code, status.oom_killed, status.unsupported) == (137, True, ("cpu", "pids"))
    assert (folder_of(process_world, spec).state() or {})["groups"] == {}


async def test_processes_are_counted_where_no_group_holds_them(process_world: ProcessWorld) -> None:
    """So that a run that forks without end can be stopped all the same."""
    driver = await process_world.driver(control_groups=False)
    code = "import os, time\nfor _ in range(20):\n if os.fork() == 0:\n  time.sleep(60)\nprint('forked', flush=True)\ntime.sleep(60)"
    handle = await begin(driver, process_world.spec(Life(code=code), pids=100))
    assert await first_line(driver, handle) == "forked"
    with anyio.fail_after(20):
        while (usage := await driver.stats(handle)) is None or usage.pids < 21:  # noqa: ASYNC110 (nobody tells)
            await anyio.sleep(0.1)
    assert usage.pids < 30
    await driver.stop(handle, grace_seconds=5)


async def test_what_is_shared_counts_once(process_world: ProcessWorld) -> None:
    """Four processes over one piece of memory need it once, and live."""
    driver = await process_world.driver(control_groups=False)
    code = (
        "import mmap, os, time\nshared = mmap.mmap(-1, 64 << 20)\n"
        "for at in range(0, 64 << 20, 4096): shared[at] = 1\n"
        "for _ in range(4):\n"
        " if os.fork() == 0:\n  sum(shared[at] for at in range(0, 64 << 20, 4096)); time.sleep(1.5); os._exit(0)\n"
        "time.sleep(1.5)"
    )
    status = await whole_life(driver, process_world.spec(Life(code=code, memory_bytes=160 * MEGABYTE)))
    assert (status.exit_code, status.oom_killed) == (0, False)


async def test_time_is_over_while_no_daemon_is_there(process_world: ProcessWorld) -> None:
    driver = await process_world.driver(late_seconds=0.2)
    code = f"{LEAVES}\nleave(lambda: time.sleep(60))\nimport signal\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)"
    spec = process_world.spec(Life(code=code), time_limit_seconds=0.8, stop_grace_seconds=0.3)
    handle = await begin(driver, spec)
    await driver.close()
    del driver
    folder = folder_of(process_world, spec)
    await until(lambda: folder.liveness() is Liveness.EXITED)
    successor = await process_world.driver()
    assert await successor.recover(handle) is Liveness.EXITED
    status = await successor.wait(handle)
    assert (status.out_of_time, status.exit_code, status.oom_killed) == (True, 137, False)
    assert family(process_world, spec) == []


async def test_a_stop_at_any_moment_of_the_beginning_reaches_the_run(process_world: ProcessWorld) -> None:
    driver = await process_world.driver()
    for moment in range(10):
        handle = await begin(driver, process_world.spec(Life(code=FOREVER)))
        await anyio.sleep(moment * 0.02)
        await driver.stop(handle, grace_seconds=60)
        assert (await driver.wait(handle)).exit_code == 143
        await driver.remove(handle)


async def test_who_is_stopped_in_time_was_not_out_of_time(process_world: ProcessWorld) -> None:
    """The daemon acted first; that the grace goes beyond the limit changes nothing."""
    driver = await process_world.driver(late_seconds=0.0)
    deaf = f"import signal\nsignal.signal(15, signal.SIG_IGN)\n{FOREVER}"
    handle = await begin(driver, process_world.spec(Life(code=deaf), time_limit_seconds=4.0))
    await first_line(driver, handle)
    await driver.stop(handle, grace_seconds=4.5)
    status = await driver.wait(handle)
    assert (status.out_of_time, status.exit_code) == (False, 137)


# --- the end -----------------------------------------------------------------------------------------------------------


async def test_nobody_outlives_the_run(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    """The run has ended when its main process has: who left it is killed then, as in a container."""
    spec = process_world.spec(Life(code=f"{LEAVES}\nleave(lambda: os.execve('/bin/sleep', ['sleep', '60'], {{}}))"))
    handle = await begin(driver, spec)
    with anyio.fail_after(20):
        assert (await driver.wait(handle)).exit_code == 0
    assert family(process_world, spec) == []


async def test_the_supervisor_is_killed(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    """Nothing goes on without it: the driver ends what is left, also what left the family, and says what happened."""
    code = f"{LEAVES}\nleave(lambda: time.sleep(60))\nprint('left', flush=True)\ntime.sleep(60)"
    spec = process_world.spec(Life(code=code))
    handle = await begin(driver, spec)
    assert await first_line(driver, handle) == "left"
    folder = folder_of(process_world, spec)
    supervisor = (folder.state() or {})["pid"]
    assert len(family(process_world, spec)) == 4
    statuses: list[ExitStatus] = []

    async def wait() -> None:
        statuses.append(await driver.wait(handle))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.sleep(0.2)
            os.kill(supervisor, signal.SIGKILL)
    assert (statuses[0].exit_code, statuses[0].oom_killed, statuses[0].gone) == (137, False, False)
    assert "killed" in str(statuses[0].error)
    assert family(process_world, spec) == []
    # The same for whoever asks later, and the lines are there.
    assert await (await process_world.driver()).wait(handle) == statuses[0]
    assert [line.text for line in await read(driver, handle)] == ["left"]
    await driver.remove(handle)
    assert await driver.recover(handle) is Liveness.GONE


async def test_who_left_everything_but_its_group_is_found_in_it(
    process_world: ProcessWorld, driver: ProcessDriver
) -> None:
    """Its supervisor is killed, its environment cleared, and it stands elsewhere."""
    if not held_here():
        pytest.skip("this host gives us no control groups")
    hidden = "os.chdir('/'), os.execve('/bin/sleep', ['sleep', '61'], {})"
    code = f"{LEAVES}\nleave(lambda: (print(os.getpid(), flush=True), {hidden}))\ntime.sleep(60)"
    spec = process_world.spec(Life(code=code), cpus=1.0)
    handle = await begin(driver, spec)
    pid = int(await first_line(driver, handle))
    folder = folder_of(process_world, spec)
    assert pid in run_tree.members((folder.state() or {})["groups"].values())
    os.kill((folder.state() or {})["pid"], signal.SIGKILL)
    await until(lambda: pid not in family(process_world, spec))
    with anyio.fail_after(20):
        assert (await driver.wait(handle)).exit_code == 137
    found = run_tree.stat_of(pid)
    assert found is None or found.state in "ZX"


async def test_a_daemon_that_is_done_takes_no_other_daemons_groups_along(process_world: ProcessWorld) -> None:
    """Both stand in the same group of the host, as two daemons that one shell has started."""
    driver = await process_world.driver()
    await (await process_world.driver(instance_id="other")).close()
    handle = await begin(driver, process_world.spec(Life(code="print(1)", memory_bytes=128 * MEGABYTE)))
    with anyio.fail_after(20):
        assert (await driver.wait(handle)).exit_code == 0


async def test_the_supervisors_own_failure_is_told(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    """It must not look like somebody's kill: what it said last is in the error."""
    spec = process_world.spec(Life(code=FOREVER))
    await driver.prepare(spec, _quiet)
    handle = await driver.create(spec)
    made = folder_of(process_world, spec).path / "spec.json"
    # A value that it cannot reckon with, met in the middle of the run.
    made.write_text(json.dumps(json.loads(made.read_text()) | {"output_max_files": "many"}))
    await driver.start(handle)
    with anyio.fail_after(20):
        status = await driver.wait(handle)
    assert status.exit_code == 137
    assert "killed or failed: TypeError" in str(status.error)
    assert family(process_world, spec) == []


async def test_who_only_stands_in_the_folder_is_left_alone(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    """Somebody who was there before the run began, or another user, is none of it."""
    spec = process_world.spec(Life(code=FOREVER))
    await driver.prepare(spec, _quiet)
    handle = await driver.create(spec)
    folder = folder_of(process_world, spec)
    async with await anyio.open_process(["sleep", "60"], cwd=folder.path, start_new_session=True) as before:
        try:
            # The kernel's clock has ticks of a hundredth.
            await anyio.sleep(0.05)
            await driver.start(handle)
            await first_line(driver, handle)
            await driver.remove(handle)
            found = run_tree.stat_of(before.pid)
            assert found is not None and found.state == "S"
        finally:
            before.kill()
    assert not folder.path.exists()


async def test_a_supervisor_that_hangs_is_killed_with_its_run(
    process_world: ProcessWorld, driver: ProcessDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("managedd.drivers.process.KILL_SECONDS", 0.5)
    spec = process_world.spec(Life(code=FOREVER))
    handle = await begin(driver, spec)
    await first_line(driver, handle)
    os.kill((folder_of(process_world, spec).state() or {})["pid"], signal.SIGSTOP)
    with anyio.fail_after(20):
        await driver.stop(handle, grace_seconds=0.5)
    assert family(process_world, spec) == []
    assert (await driver.wait(handle)).exit_code == 137


async def test_removing_what_runs_leaves_nothing(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    """Also where the run took its own rights to a folder away."""
    code = f"{LEAVES}\nleave(lambda: time.sleep(60))\nos.makedirs('a/b')\nos.chmod('a', 0)\nprint('x', flush=True)\ntime.sleep(60)"
    spec = process_world.spec(Life(code=code))
    handle = await begin(driver, spec)
    await first_line(driver, handle)
    groups = (folder_of(process_world, spec).state() or {})["groups"]
    await driver.remove(handle)
    assert family(process_world, spec) == []
    assert not folder_of(process_world, spec).path.exists()
    assert [group for group in groups.values() if await anyio.Path(group).exists()] == []


async def test_the_hosts_restart_is_told(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    spec = process_world.spec(Life())
    handle = await begin(driver, spec)
    await driver.wait(handle)
    state = folder_of(process_world, spec).path / "state.json"
    fields = json.loads(state.read_text())
    # As a power cut leaves it: another boot, no end.
    state.write_text(
        json.dumps({name: fields[name] for name in ("version", "started_us", "pid")} | {"boot_id": "earlier"})
    )
    status = await driver.wait(handle)
    assert (status.host_restarted, status.gone) == (True, False)


@pytest.mark.parametrize(
    "forgery",
    [
        "open('state.json', 'w').write('[' * 60_000)",
        "open('state.json', 'w').write(json.dumps({'exit_code': 'x', 'groups': 7, 'started_us': -1, 'error': 7, 'pid': 1}))",
        "os.unlink('state.json'); os.mkdir('state.json')",
        "os.unlink('report.json'); os.mkfifo('report.json')",
        "os.unlink('spec.json'); os.mkfifo('spec.json')",
        "os.mkfifo('output/9')",
        "os.unlink('s'); os.unlink('lock')",
        "shutil.rmtree('.', ignore_errors=True)",
    ],
)
async def test_what_a_run_does_to_its_folder_is_its_own_affair(
    process_world: ProcessWorld, driver: ProcessDriver, forgery: str
) -> None:
    """It ends, one way or the other, nothing of it is left, and nobody waits for it in vain."""
    code = f"import json, os, shutil, sys, time\nos.chdir('..')\n{forgery}\nprint('done', flush=True)\ntime.sleep(0.3)"
    spec = process_world.spec(Life(code=code))
    handle = await begin(driver, spec)
    with anyio.fail_after(20):
        status = await driver.wait(handle)
        assert status.started_at_us is None or status.started_at_us > 0
        assert status.error is None or isinstance(status.error, str)
        await driver.list_owned(process_world.instance_id)
        async with driver.logs(handle, LogCursor()) as lines:
            assert {line.text async for line in lines} <= {"done"}
        await driver.stats(handle)
        await driver.remove(handle)
    assert family(process_world, spec) == []
    assert await driver.list_owned(process_world.instance_id) == []


# --- starting ----------------------------------------------------------------------------------------------------------


async def test_two_starts_at_once_are_one(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    spec = process_world.spec(Life(code="print('once')"))
    other = await process_world.driver()
    await driver.prepare(spec, _quiet)
    handle = await driver.create(spec)
    async with anyio.create_task_group() as tasks:
        for one in (driver, other, driver, other):
            tasks.start_soon(one.start, handle)
    with anyio.fail_after(20):
        assert (await driver.wait(handle)).exit_code == 0
    assert [line.text for line in await read(driver, handle)] == ["once"]


async def test_half_a_folder_is_made_anew(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    spec = process_world.spec(Life(code="print('whole')"))
    await driver.prepare(spec, _quiet)
    half = folder_of(process_world, spec).path
    (half / "env").mkdir(parents=True)
    assert [found.liveness for found in await driver.list_owned(process_world.instance_id)] == [Liveness.CREATED]
    handle = await driver.create(spec)
    await driver.start(handle)
    assert [line.text for line in await read(driver, handle)] == ["whole"]


async def test_a_folder_with_a_long_name(tmp_path: Path) -> None:
    """A socket's address has room for 107 characters; a data directory may have more."""
    world = ProcessWorld(tmp_path / ("long " * 20) / ("name" * 20))
    try:
        driver = await world.driver()
        handle = await begin(driver, world.spec(Life(code=FOREVER)))
        assert await first_line(driver, handle) == "here"
        assert await driver.stats(handle) is not None
        await driver.stop(handle, grace_seconds=5)
        assert (await driver.wait(handle)).exit_code == 143
    finally:
        await world.close()


async def test_the_environment_is_the_runs_own(
    process_world: ProcessWorld, driver: ProcessDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"MANAGEDD_LOG__LEVEL": "debug", "SECRET_OF_THE_DAEMON": "x", "PYTHONPATH": "/nowhere"}.items():
        monkeypatch.setenv(name, value)
    code = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd(), sys.prefix, os.umask(0), os.getsid(0)]))"
    spec = process_world.spec(Life(code=code), env={"GIVEN": "by the user", "PATH": "/usr/bin:/bin"})
    handle = await begin(driver, spec)
    told, cwd, prefix, umask, session = json.loads((await read(driver, handle))[0].text)
    run = folder_of(process_world, spec).path
    assert [name for name in told if name.startswith(("MANAGEDD_", "SECRET_"))] == []
    assert told["GIVEN"] == "by the user"
    assert told["PATH"].split(":")[-3:] == [f"{run}/env/bin", "/usr/bin", "/bin"]
    assert told["HOME"] == f"{run}/home"
    assert (cwd, prefix, umask) == (f"{run}/work", f"{run}/env", 0o022)
    assert session != os.getsid(0)


async def test_secrets_are_for_nobody_else(process_world: ProcessWorld, driver: ProcessDriver) -> None:
    key = "the-key-of-the-run"
    spec = process_world.spec(Life(code=FOREVER), env={"PREFECT_API_AUTH_STRING": key})
    handle = await begin(driver, spec)
    await first_line(driver, handle)
    lines = [await anyio.Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family(process_world, spec)]
    assert len(lines) == 3 and all(key.encode() not in line for line in lines)
    run = folder_of(process_world, spec).path
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    holding = [
        path
        for path in run.rglob("*")
        if path.is_file() and not path.is_symlink() and key.encode() in path.read_bytes()
    ]
    assert [path.name for path in holding] == ["spec.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    assert [path for path in run.rglob("*") if key in path.name] == []


# --- output ------------------------------------------------------------------------------------------------------------


async def test_a_flood_is_read_while_files_change(process_world: ProcessWorld) -> None:
    driver = await process_world.driver(output_max_bytes=200_000, output_max_files=50)
    count = 20_000
    spec = process_world.spec(Life(code=f"for n in range({count}): print('line', n)"))
    handle = await begin(driver, spec)
    lines = await read(driver, handle)
    assert [line.text for line in lines] == [f"line {number}" for number in range(count)]
    assert len(list((folder_of(process_world, spec).path / "output").iterdir())) > 3
    # And again from the middle, by the next daemon.
    assert await read(await process_world.driver(), handle, lines[count // 2].cursor) == lines[count // 2 + 1 :]


async def test_output_that_nobody_reads_is_bounded(process_world: ProcessWorld) -> None:
    driver = await process_world.driver(output_max_bytes=100_000, output_max_files=2)
    spec = process_world.spec(Life(code="for n in range(20_000): print('line', n)"))
    handle = await begin(driver, spec)
    await driver.wait(handle)
    kept = [path.stat().st_size for path in (folder_of(process_world, spec).path / "output").iterdir()]
    assert len(kept) == 2 and max(kept) <= 100_000 + 512 * 1024
    assert (await read(driver, handle))[-1].text == "line 19999"


async def test_lines_come_when_they_are_printed(
    process_world: ProcessWorld, driver: ProcessDriver, tmp_path: Path
) -> None:
    """Each is answered before the next is printed: none waits for the end or for more."""
    code = (
        "import os, sys, time\nfor n in range(20):\n print('line', n, flush=True)\n"
        " while not os.path.exists(sys.argv[1] + str(n)): time.sleep(0.01)"
    )
    spec = process_world.spec(Life(), command=("python3", "-c", code, str(tmp_path / "answer")))
    handle = await begin(driver, spec)
    count = 0
    with anyio.fail_after(30):
        async with driver.logs(handle, LogCursor()) as lines:
            async for line in lines:
                assert line.text == f"line {count}"
                (tmp_path / f"answer{count}").touch()
                count += 1
    assert count == 20


async def test_killing_below_reaches_every_depth() -> None:
    """Pure processes, no run: whoever is below is stopped first and killed then."""
    code = "import os, time\nfor _ in range(3):\n if os.fork(): break\ntime.sleep(60)"
    outer = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {code!r}])\nimport time; time.sleep(60)"
    async with await anyio.open_process([sys.executable, "-c", outer]) as process:
        await until(lambda: len(run_tree.descendants(process.pid)) == 4)
        below = run_tree.descendants(process.pid)
        assert run_tree.usage(below, None).memory_bytes > MEGABYTE
        run_tree.kill_below(process.pid)
        await until(lambda: all((found := run_tree.stat_of(pid)) is None or found.state == "Z" for pid in below))
        process.kill()


async def _quiet(_line: str) -> None: ...
