"""The environments of runs on this host: made once, shared, never changed by who uses them, and gone when nobody does."""

from __future__ import annotations

import lzma
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from managedd.drivers import run_environment
from managedd.drivers.process_env import Environments, uv_program, wanted_by
from managedd.drivers.run_environment import set_key
from managedd.errors import ManagedError
from managedd.model.drivers import ImageError, PullPolicy
from managedd.model.logs import LogCursor, parse_record
from tests.drivers.conftest import Life, ProcessWorld
from tests.drivers.test_contract import begin, read
from tests.support.process_daemon import ensure_environments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from managedd.drivers.process import ProcessDriver
    from managedd.model.drivers import ExitStatus, RunSpec

pytestmark = pytest.mark.anyio


# --- pure --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "prefect", "python"),
    [
        ("prefecthq/prefect:3-latest", "prefect>=3,<4", None),
        ("prefecthq/prefect", "prefect>=3,<4", None),
        ("docker.io/prefecthq/prefect:latest", "prefect>=3,<4", None),
        ("prefecthq/prefect:3-python3.12", "prefect>=3,<4", "3.12"),
        ("prefecthq/prefect:3.8-python3.11", "prefect==3.8.*", "3.11"),
        ("prefecthq/prefect:3.8.8", "prefect==3.8.8", None),
        ("prefecthq/prefect:3.8.8-python3.13", "prefect==3.8.8", "3.13"),
    ],
)
def test_the_names_of_prefects_own_images_say_what_to_install(image: str, prefect: str, python: str | None) -> None:
    wanted = wanted_by(image)
    assert (wanted.prefect, wanted.python) == (prefect, python)


def test_a_frozen_executable_unpacks_its_uv_when_somebody_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path), raising=False)
    packed = tmp_path / "uv.xz"
    packed.write_bytes(lzma.compress(b"#!/bin/sh\necho uv 9.9.9\n"))
    for _ in range(2):
        assert subprocess.run([uv_program()], capture_output=True, check=True).stdout == b"uv 9.9.9\n"
    assert {path.name for path in tmp_path.iterdir()} == {"uv", "uv.xz"}
    (tmp_path / "uv").unlink()
    packed.write_bytes(b"damaged")
    with pytest.raises(ManagedError, match="uv could not be unpacked"):
        uv_program()


@pytest.mark.parametrize(
    "image",
    ["python:3.12", "prefecthq/prefect:2-latest", "prefecthq/prefect:3.8.8-python3.11-conda", "ghcr.io/prefecthq/prefect:3-latest",
     "prefecthq/prefect:3-latest@sha256:" + "0" * 64, "prefecthq/prefect:3-latest ; rm"],
)  # fmt: skip
def test_other_images_are_refused_with_what_is_allowed(image: str) -> None:
    with pytest.raises(ImageError, match=r"3-latest.*3\.8-python3\.12"):
        wanted_by(image)


def test_a_set_has_one_name_however_it_is_written_down() -> None:
    now = 1_000_000.0
    key = set_key("base", ["b==2", "a == 1"], {}, now)
    assert key == set_key("base", ["a ==  1", "b==2", "b==2"], {}, now + 10 * 86_400)
    others = [
        set_key("other", ["a == 1", "b==2"], {}, now),
        set_key("base", ["a == 1"], {}, now),
        set_key("base", ["a == 1", "b==2"], {"UV_INDEX": "x"}, now),
    ]
    assert len({key, *others}) == 4


@pytest.mark.parametrize("open_", ["a", "a>=1", "a==1.*", "a[b]", "a==1,!=2"])
def test_what_is_not_pinned_is_as_of_a_day(open_: str) -> None:
    now = 20 * 86_400.0
    assert set_key("base", [open_, "b==2"], {}, now) == set_key("base", [open_, "b==2"], {}, now + 86_399)
    assert set_key("base", [open_, "b==2"], {}, now) != set_key("base", [open_, "b==2"], {}, now + 86_400)


@pytest.mark.parametrize(
    "address", ["a @ https://x/a.whl", "git+https://u:p@x/a.git@main", "./local", "/abs/path", "."]
)
def test_what_is_behind_an_address_is_not_shared(address: str) -> None:
    assert set_key("base", [address, "b==2"], {}, 0.0) is None


@pytest.mark.parametrize(
    ("requirements", "pins"),
    [(["pandas>=2"], ["prefect==3.8.8"]), (["Prefect[aws]==3.8.1"], []), (["prefect_aws"], ["prefect==3.8.8"]), (["git+https://x/prefect"], ["prefect==3.8.8"])],
)  # fmt: skip
def test_the_prefect_of_the_base_stays_unless_another_is_wanted(requirements: list[str], pins: list[str]) -> None:
    assert run_environment.pins({"prefect": "3.8.8"}, requirements) == pins


@pytest.mark.parametrize("home", ["hidden", "a" * 300, None])
def test_a_home_that_cannot_be_read_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """As under `ProtectHome=yes`, or where sudo has left another user's HOME."""
    made = Environments(tmp_path, uv="uv", python=None, settings={})
    (tmp_path / "hidden").mkdir(mode=0o000)
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", str(tmp_path / home))
    for name in ("UV_CONFIG_FILE", "NETRC", "UV_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    is_root = os.geteuid() == 0
    if is_root:
        # Whom no file describes, and who may read nothing of ours.
        os.setresuid(54_321, 54_321, 0)
    try:
        found = made.installer_environment()
    finally:
        if is_root:
            os.setresuid(0, 0, 0)
    assert found["UV_CACHE_DIR"] == str(tmp_path / "cache")
    assert not {"UV_CONFIG_FILE", "NETRC"} & set(found)


def test_who_uses_an_environment_is_known_also_beside_what_says_nothing(tmp_path: Path) -> None:
    """Else it would count as used by nobody, and go."""
    users = tmp_path / run_environment.USERS
    users.mkdir()
    (tmp_path / "run").mkdir()
    (users / "b-run").symlink_to(tmp_path / "run")
    (users / "c-gone").symlink_to(tmp_path / "gone")
    for name in ("a-file", "d-file"):
        (users / name).touch()
    assert run_environment.users_of(str(tmp_path)) == [str(tmp_path / "run")]
    assert run_environment.users_of(str(tmp_path / "nothing")) == []


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "the operator's"])
def test_what_is_kept_for_installing_again_is_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    made = Environments(tmp_path, uv=uv_program(), python=None, settings={})
    made.open()
    cache = tmp_path / ("cache" if is_ours else "elsewhere")
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    if not is_ours:
        monkeypatch.setenv("UV_CACHE_DIR", str(cache))
    # What an index has named once, and nothing leads to any more.
    dangling = cache / "archive-v0" / "dangling"
    dangling.mkdir(parents=True)
    assert made.remove_unused(86_400.0) == []
    assert dangling.exists() is not is_ours


# --- real --------------------------------------------------------------------------------------------------------------


class Wheels:
    """Packages of our own in a folder, each with one module that says its version."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def make(self, name: str, version: str) -> str:
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(self.folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}.py", f"version = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
        return f"{name}=={version}"


@pytest.fixture(scope="module")
def own_environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shared environments, to be spoiled."""
    folder = tmp_path_factory.mktemp("environments") / "all"
    subprocess.run(["cp", "-al", str(ensure_environments()), str(folder)], check=True)
    return folder


@pytest.fixture
async def world(tmp_path: Path, own_environments: Path, anyio_backend: str) -> Any:
    made = ProcessWorld(tmp_path, env_dir=own_environments)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def driver(world: ProcessWorld) -> ProcessDriver:
    return await world.driver()


@pytest.fixture
def wheels(tmp_path: Path) -> Wheels:
    return Wheels(tmp_path / "wheels")


def installing(world: ProcessWorld, wheels: Wheels, code: str, *packages: str, **changes: Any) -> RunSpec:
    env = {"UV_FIND_LINKS": str(wheels.folder)}
    return world.spec(Life(code=code, packages=packages), env=env, **changes)


async def run(driver: ProcessDriver, spec: RunSpec) -> tuple[ExitStatus, list[str], list[str]]:
    """How it ended, what it printed, and what the shim said."""
    handle = await begin(driver, spec)
    lines = [line.text for line in await read(driver, handle)]
    records = [(line, parse_record(line)) for line in lines]
    status = await driver.wait(handle)
    await driver.remove(handle)
    printed = [line for line, record in records if record is None]
    return status, printed, [record.message for _, record in records if record is not None]


@pytest.mark.client
async def test_a_set_is_installed_once(world: ProcessWorld, driver: ProcessDriver, wheels: Wheels) -> None:
    wanted = wheels.make("onceonly", "1.0")
    code = "import onceonly, prefect; print(onceonly.version, prefect.__name__)"
    status, printed, said = await run(driver, installing(world, wheels, code, wanted))
    assert (status.exit_code, printed) == (0, ["1.0 prefect"]), said
    assert f"+ {wanted}" in [line.strip() for line in said]
    shutil.rmtree(wheels.folder)  # nobody goes there again
    status, printed, said = await run(driver, installing(world, wheels, code, wanted))
    assert (status.exit_code, printed) == (0, ["1.0 prefect"]), said
    assert [line for line in said if "Cached" in line] and "+ onceonly" not in " ".join(said)


@pytest.mark.client
async def test_half_an_environment_is_made_anew(world: ProcessWorld, driver: ProcessDriver, wheels: Wheels) -> None:
    wanted = wheels.make("halfmade", "1.0")
    spec = installing(world, wheels, "import halfmade; print(halfmade.version)", wanted)
    assert (await run(driver, spec))[0].exit_code == 0
    made = max(world.env_dir.glob("packages-*/"), key=lambda path: path.stat().st_mtime_ns)
    # As a crash in the middle leaves it.
    (made / run_environment.COMPLETE).unlink()
    os.unlink(os.path.join(run_environment.packages_of(str(made)), "halfmade.py"))
    again = installing(world, wheels, "import halfmade; print(halfmade.version)", wanted)
    status, printed, said = await run(driver, again)
    assert (status.exit_code, printed) == (0, ["1.0"]), said
    assert run_environment.facts_of(str(made)) is not None


@pytest.mark.client
async def test_two_at_once_install_once(world: ProcessWorld, driver: ProcessDriver, wheels: Wheels) -> None:
    wanted = wheels.make("attheonce", "1.0")
    ended: list[tuple[ExitStatus, list[str], list[str]]] = []

    async def one() -> None:
        ended.append(await run(driver, installing(world, wheels, "import attheonce; print(attheonce.version)", wanted)))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(one)
    assert [(status.exit_code, printed) for status, printed, _ in ended] == [(0, ["1.0"])] * 3
    assert len([said for _, _, said in ended if any("+ attheonce" in line for line in said)]) == 1
    assert len([said for _, _, said in ended if any("Cached" in line for line in said)]) == 2


@pytest.mark.client
async def test_what_cannot_be_installed_leaves_nothing(
    world: ProcessWorld, driver: ProcessDriver, wheels: Wheels
) -> None:
    before = set(world.env_dir.glob("packages-*/"))
    status, printed, _ = await run(
        driver, installing(world, wheels, "print('must not run')", "there-is-no-such-thing==1")
    )
    assert (status.install_failed, status.exit_code, printed) == (True, 210, [])
    assert "there-is-no-such-thing" in str(status.error)
    assert set(world.env_dir.glob("packages-*/")) == before


@pytest.mark.client
async def test_a_package_that_fights_with_prefect_is_told(
    world: ProcessWorld, driver: ProcessDriver, wheels: Wheels
) -> None:
    """Installed beside it, it would break the run in the middle."""
    status, _, _ = await run(driver, installing(world, wheels, "print('must not run')", "pydantic<2"))
    assert status.install_failed and "prefect==" in str(status.error)


@pytest.mark.client
async def test_what_a_run_installs_by_itself_is_its_own(
    world: ProcessWorld, driver: ProcessDriver, wheels: Wheels
) -> None:
    wheels.make("mineonly", "2.0")
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--find-links', sys.argv[1], 'mineonly'], check=True)\n"
        "import mineonly; print(mineonly.version, mineonly.__file__.startswith(sys.prefix))"
    )
    spec = world.spec(Life(), command=("python3", "-c", code, str(wheels.folder)))
    status, printed, _ = await run(driver, spec)
    assert (status.exit_code, printed[-1:]) == (0, ["2.0 True"]), printed
    status, printed, _ = await run(driver, world.spec(Life(code="import mineonly")))
    assert status.exit_code == 1 and any("ModuleNotFoundError" in line for line in printed)


@pytest.mark.client
async def test_the_commands_of_an_environment_use_it(world: ProcessWorld, driver: ProcessDriver) -> None:
    code = (
        "import shutil, subprocess; print(shutil.which('prefect')); print(open(shutil.which('prefect'), 'rb').read(9))"
    )
    spec = world.spec(Life(code=code))
    _, printed, _ = await run(driver, spec)
    assert printed[0] == f"{world.runs_dir}/{spec.execution_id}/env/bin/prefect"
    status, printed, _ = await run(driver, world.spec(Life(), command=("uv", "--version")))
    assert status.exit_code == 0 and printed[0].startswith("uv ")


@pytest.mark.client
async def test_secrets_of_requirements_stay_out_of_process_list_and_names(
    world: ProcessWorld, driver: ProcessDriver
) -> None:
    secret = "the-secret-of-the-index"
    with silent_server() as address:
        package = f"thing @ http://user:{secret}@{address}/thing-1.0-py3-none-any.whl"
        spec = world.spec(Life(packages=(package,)), install_timeout_seconds=60)
        handle = await begin(driver, spec)
        seen: set[bytes] = set()
        with anyio.fail_after(30):
            while not any(b"pip\0install" in line for line in seen):
                seen |= {line for line in command_lines() if b"uv" in line}
                await anyio.sleep(0.02)
        for _ in range(20):
            seen |= {line for line in command_lines() if b"uv" in line}
            await anyio.sleep(0.02)
    # Nobody is there any more.
    with anyio.fail_after(60):
        status = await driver.wait(handle)
    assert all(secret.encode() not in line for line in seen)
    assert status.install_failed and secret not in str(status.error)
    lines = [line.text for line in await read(driver, handle)]
    assert not [line for line in lines if secret in line]
    assert not [path for path in world.env_dir.glob("*") if secret in path.name]
    # Nor does it lie there any more, for the flow or for others.
    run = world.runs_dir / spec.execution_id
    left = [path for path in (*run.glob("*.txt"), *run.glob("*.json")) if secret in path.read_text()]
    assert left == []


def command_lines() -> list[bytes]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    found.append(file.read())
            except OSError:
                continue
    return found


@contextmanager
def silent_server() -> Iterator[str]:
    """An address where somebody takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


# --- making and removing -----------------------------------------------------------------------------------------------


@pytest.mark.client
async def test_a_broken_base_is_made_anew(world: ProcessWorld, driver: ProcessDriver) -> None:
    """Without its mark it counts as half made; who asks at the same time waits for the one that makes it."""
    (base,) = world.env_dir.glob("prefect-*/")
    (base / run_environment.COMPLETE).unlink()
    shutil.rmtree(base / "bin")
    said: list[str] = []

    async def say(line: str) -> None:
        said.append(line)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(driver.prepare, world.spec(Life()), say)
    assert len([line for line in said if line.startswith("Making")]) == 1, said
    assert len([line for line in said if "is ready after" in line]) == 1
    status, printed, _ = await run(driver, world.spec(Life(code="import prefect; print(prefect.__version__)")))
    assert status.exit_code == 0 and printed[0].startswith("3.")


@pytest.mark.client
async def test_the_registry_is_asked_when_always_is_wanted(world: ProcessWorld, driver: ProcessDriver) -> None:
    said: list[str] = []

    async def say(line: str) -> None:
        said.append(line)

    await driver.prepare(world.spec(Life(), pull_policy=PullPolicy.ALWAYS), say)
    # Where not every limit can be held, that is told as well.
    said = [line for line in said if "can't hold these limits" not in line]
    # The newest is what is there already: nothing was installed.
    assert said[0].startswith("Making") and "is ready after" in said[-1] and len(said) == 2, said


async def test_an_installer_that_reads_nothing_is_heard(tmp_path: Path) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\necho uv 1.2.3\n")
    uv.chmod(0o755)
    made = Environments(tmp_path / "envs", uv=str(uv), python=None, settings={})
    assert made.open() == "1.2.3"
    with (tmp_path / "lock").open("w") as lock:
        made._lock = lock.fileno()
        # More than a pipe holds, so that it ends while there is some of it left to send.
        assert await made._run("python", "find", input_text="x" * 1_000_000) == ["uv 1.2.3"]


@pytest.mark.client
async def test_a_python_that_is_not_there_is_named(tmp_path: Path, own_environments: Path) -> None:
    world = ProcessWorld(tmp_path, env_dir=tmp_path / "envs", python="/no/such/python")
    driver = await world.driver()
    with pytest.raises(ImageError, match=r"process\.python = '/no/such/python'"):
        await driver.prepare(world.spec(Life()), _quiet)


@pytest.mark.client
async def test_only_what_nobody_uses_is_removed(
    world: ProcessWorld, wheels: Wheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_CACHE_DIR", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    driver = await world.driver(env_retention_days=1.0)
    code = "print('here', flush=True)\nimport time\ntime.sleep(60)"
    used, unused = wheels.make("usedone", "1.0"), wheels.make("unusedone", "1.0")
    assert (await run(driver, installing(world, wheels, "pass", unused)))[0].exit_code == 0
    running = await begin(driver, installing(world, wheels, code, used))
    async with driver.logs(running, LogCursor()) as lines:
        async for line in lines:
            if line.text == "here":
                break
    made = list(world.env_dir.glob("p*-*/"))
    for environment in made:
        marker = environment / run_environment.COMPLETE
        if marker.exists():
            os.utime(marker, (time.time() - 2 * 86_400,) * 2)
    await driver.remove_unused()
    left = [path for path in world.env_dir.glob("packages-*/") if path in made]
    assert len(left) == 1 and (left[0] / run_environment.COMPLETE).exists()
    # What made them goes with them: it can be downloaded again, and environments have files of their own.
    assert list(world.env_dir.glob("cache/archive-v0/*/prefect")) == []
    assert os.listdir(run_environment.packages_of(str(left[0])))
    await driver.stop(running, grace_seconds=5)
    await driver.remove(running)
    await driver.remove_unused()
    assert [path for path in world.env_dir.glob("p*-*/") if path in made] == []


async def _quiet(_line: str) -> None: ...
