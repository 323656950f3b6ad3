"""The Prefect client in a virtual environment of its own: made with uv where it is, else with venv and pip."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio

from managedd.demo.children import Step, StepFailed, outside_environment, run, typed
from managedd.drivers.process_env import uv_program
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from managedd.demo.screen import Screen

REQUIREMENT: Final = "prefect==3.8.8"
"""The release that the daemon is tested with."""
OLDEST: Final = "3.11"
INSTALL_SECONDS: Final = 1800.0
_INDEX_ADVICE: Final = "the package index must be reachable: behind a proxy set HTTPS_PROXY, for an index of your own PIP_INDEX_URL and UV_DEFAULT_INDEX"
_MARK: Final = ".complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Where the client is."""

    bin: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.bin / "python"

    @property
    def prefect(self) -> Path:
        """Its command line."""
        return self.bin / "prefect"


async def ensure_client(screen: Screen, folder: Path, caches: Path) -> Client:
    """The client is in `folder`, where an earlier one may be; what is downloaded for it stays below `caches`. Raises StepFailed."""
    client = Client(bin=folder / "bin")
    inputs = f"{REQUIREMENT}\n{sys.version}\n"
    mark = folder / _MARK
    async with _only_one(screen, folder.with_name(f"{folder.name}.lock")):
        with contextlib.suppress(OSError):
            if mark.read_text(encoding="utf-8") == inputs and client.prefect.exists():
                screen.comment(f"It is there from the last time: {folder}")
                return client
        # Built in place, since an environment can't be moved: the mark that makes it count is written last.
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        await _make(screen, folder, caches, client)
        mark.write_text(inputs, encoding="utf-8")
    return client


async def _make(screen: Screen, folder: Path, caches: Path, client: Client) -> None:
    environment = outside_environment(
        UV_CACHE_DIR=str(caches / "uv"),
        UV_PYTHON_INSTALL_DIR=str(caches / "python"),
        PIP_CACHE_DIR=str(caches / "pip"),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    place = folder.parent
    uv = find_uv()
    if uv is not None:
        base = f">={OLDEST}" if getattr(sys, "frozen", False) else sys.executable
        try:
            await _install(
                screen,
                Step(
                    shown=f"uv venv {typed(folder)} && uv pip install {REQUIREMENT}",
                    command=[uv, "venv", "--quiet", "--python", base, str(folder)],
                    environment=environment,
                    folder=place,
                    advice=_INDEX_ADVICE,
                    seconds=INSTALL_SECONDS,
                ),
                [uv, "pip", "install", "--quiet", "--python", str(client.python), REQUIREMENT],
            )
        except StepFailed as failure:
            # pip knows settings of the host's index that uv does not read.
            screen.comment(f"uv could not do it, pip tries: {failure.message.splitlines()[0]}")
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        else:
            return
    await _install(
        screen,
        Step(
            shown=f"python3 -m venv {typed(folder)} && {typed(folder / 'bin' / 'pip')} install {REQUIREMENT}",
            command=[_python(), "-m", "venv", str(folder)],
            environment=environment,
            folder=place,
            advice=f"this Python must be able to make virtual environments; {venv_advice()}",
            seconds=INSTALL_SECONDS,
        ),
        [str(client.python), "-m", "pip", "install", "--quiet", REQUIREMENT],
    )


async def _install(screen: Screen, making: Step, installing: list[str]) -> None:
    """Both commands have ended with 0; they say nothing unless they fail."""
    screen.command(making.shown)
    with screen.waiting(f"Installing {REQUIREMENT}"):
        for command in (making.command, installing):
            step = Step(
                shown=typed(*command[:4], "…"),
                command=command,
                environment=making.environment,
                folder=making.folder,
                advice=making.advice if command is making.command else _INDEX_ADVICE,
                seconds=making.seconds,
            )
            ended = await run(step)
            if ended.code != 0:
                raise StepFailed(f"`{step.shown}` ended with exit code {ended.code}", ended.lines, step.advice)


def find_uv() -> str | None:
    """The uv that makes the environments of runs, too; None where there is none."""
    try:
        return uv_program()
    except ManagedError:
        return None


def venv_advice() -> str:
    """What to install where Python has no `venv`."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"on Debian and Ubuntu: apt-get install python{version}-venv"


def _python() -> str:
    if not getattr(sys, "frozen", False):
        return sys.executable
    return shutil.which("python3") or "python3"


@contextlib.asynccontextmanager
async def _only_one(screen: Screen, path: Path) -> AsyncIterator[None]:
    """No other demo is inside a block on the same path; the lock ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with screen.waiting("Another demo is making the client"):
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await anyio.sleep(0.2)
        yield
    finally:
        os.close(handle)
