"""The processes that the demo starts: each in a session of its own, so that Ctrl-C reaches the demo alone and it ends them in order."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio.streams.text import TextReceiveStream

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from pathlib import Path

    from anyio.abc import Process

    from managedd.demo.screen import Screen

GRACE_SECONDS = 5.0
KEPT_LINES = 400
TOLD_LINES = 15
_FOREIGN = ("PREFECT_", "MANAGEDD_", "PYTHON", "GIT_", "VIRTUAL_ENV", "UV_PROJECT", "NOTIFY_SOCKET", "WATCHDOG_")
_KEPT = ("GIT_EXEC_PATH", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH")


class StepFailed(ManagedError):
    """A step of the demo did not do what it shall; the message says what it said and what to do."""

    def __init__(self, what: str, said: Sequence[str], advice: str) -> None:
        told = "".join(f"\n    {line}" for line in list(said)[-TOLD_LINES:])
        super().__init__(ErrorCode.INTERNAL, f"{what}{':' if told else ''}{told}\nWhat to do: {advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A process that has ended, and the last lines that it said."""

    code: int
    lines: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A command: what is typed, what runs, how long it may take, and what to do when it fails."""

    shown: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    advice: str
    seconds: float = 180.0


def own_command(*arguments: str) -> list[str]:
    """This program with other arguments: in a frozen binary the executable is the program, elsewhere the interpreter that runs it."""
    program = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "managedd"]
    return [*program, *arguments]


def outside_environment(**more: str) -> dict[str, str]:
    """The environment for programs that are not ours: without what would point them into another Python, repository or API."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN) or name in _KEPT}
    return {**kept, **more}


def unproxied(*hosts: str) -> dict[str, str]:
    """The variables with which nobody asks a proxy for these hosts."""
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    value = ",".join(filter(None, (before, *hosts)))
    return {"NO_PROXY": value, "no_proxy": value}


def typed(*words: object) -> str:
    """The words as one types them in a shell."""
    return shlex.join(map(str, words))


async def perform(screen: Screen, step: Step) -> Ended:
    """The command was shown, its output as it came, and it has ended with 0. Raises StepFailed."""
    screen.command(step.shown)
    with screen.waiting(step.shown, is_command=True):
        ended = await run(step, screen.output)
    if ended.code != 0:
        # What it said stands above already.
        raise StepFailed(f"`{step.shown}` ended with exit code {ended.code}", (), step.advice)
    return ended


async def run(step: Step, said: Callable[[str], None] | None = None) -> Ended:
    """The command has ended; `said` was called with each line. Raises StepFailed when it can't start or takes too long."""
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        with anyio.fail_after(step.seconds):
            process = await start(step.command, step.environment, step.folder, subprocess.PIPE)
            async with ended_with_block(process):
                async for line in _lines(process):
                    lines.append(line)
                    if said is not None:
                        said(line)
                await process.wait()
    except TimeoutError:
        raise StepFailed(f"`{step.shown}` has not ended after {step.seconds:.0f} s", lines, step.advice) from None
    except OSError as error:
        raise StepFailed(f"`{step.shown}` can't be started: {error.strerror or error}", (), step.advice) from error
    assert process.returncode is not None
    return Ended(code=process.returncode, lines=list(lines))


async def start(command: Sequence[str], environment: Mapping[str, str], folder: Path, output: int) -> Process:
    """The command runs, both of its streams in `output`."""
    return await anyio.open_process(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )


@contextlib.asynccontextmanager
async def ended_with_block(process: Process) -> AsyncIterator[None]:
    """The process, and whatever it started in its session, has ended at the latest with the block."""
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await end(process)
            await process.aclose()


async def end(process: Process, grace_seconds: float = GRACE_SECONDS) -> None:
    """The process has ended: by itself, after SIGTERM within the grace, or killed with all of its group."""
    if process.returncode is None:
        _signal(process, signal.SIGTERM)
        with anyio.move_on_after(grace_seconds):
            await process.wait()
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _lines(process: Process) -> AsyncIterator[str]:
    """The lines of its output, as they come."""
    assert process.stdout is not None
    rest = ""
    async for text in TextReceiveStream(process.stdout, errors="replace"):
        *whole, rest = (rest + text).split("\n")
        for line in whole:
            yield _shown(line)
    if rest:
        yield _shown(rest)


def _shown(line: str) -> str:
    """Of a line that was drawn over, what stood there last."""
    return line.removesuffix("\r").rpartition("\r")[2]
