"""A command that believes that somebody sits before it, in a pseudo-terminal, and a program that is a browser to it."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import termios
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HEARS_SECONDS = 60.0
TYPES_SECONDS = 30.0


class Terminal:
    """One command; closed, it has ended."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.said = ""
        self._fd, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(environment), start_new_session=True
        )
        os.close(theirs)

    async def hears(self, text: str) -> None:
        """The command has said so."""
        with anyio.fail_after(HEARS_SECONDS):
            while text not in self.said:
                self.said += await to_thread.run_sync(self._read, abandon_on_cancel=True)

    async def type(self, keys: str) -> None:
        """The command was typed to once it reads single keys: what was typed before, it throws away."""
        with anyio.fail_after(TYPES_SECONDS):
            while termios.tcgetattr(self._fd)[3] & termios.ICANON:  # noqa: ASYNC110 (a terminal tells nobody of it)
                await anyio.sleep(0.02)
        os.write(self._fd, keys.encode())

    def _read(self) -> str:
        try:
            return os.read(self._fd, 4096).decode(errors="replace")
        except OSError:
            raise AssertionError(f"the command has ended: {self.said}") from None

    def close(self) -> None:
        """It is over."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._fd)


def opener(folder: Path) -> tuple[Path, Path]:
    """A program that is a browser to other programs, and the file in which it tells what it was to open."""
    told, program = folder / "address", folder / "browser"
    # At once and whole: whoever waits for the file finds the address in it.
    program.write_text(f'#!/bin/sh\necho "$1" > "{told}.new" && mv "{told}.new" "{told}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program, told
