"""The host's own commands, asked in the plainest way: bounded in time, and never a reason to fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

import anyio

SECONDS = 5.0
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A command's end."""

    code: int
    out: str


async def said(*command: str) -> Said | None:
    """What the command has to say; None when it is not there, or not done in time."""
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        return None
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    with anyio.move_on_after(SECONDS):
        try:
            done = await anyio.run_process(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                check=False,
            )
        except OSError:
            return None
        return Said(code=done.returncode, out=done.stdout.decode(errors="replace"))
    return None
