"""What the demo shows: comments, commands as one types them, their output as it comes, and how long what is silent has taken."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_SECONDS = 0.1
QUIET_SECONDS = 1.0
"""What takes longer without a word is told to go on."""
PLAIN_SECONDS = 10.0
"""How often, where there is no terminal to draw on."""
MAX_COLUMNS = 150
_COMMENT, _COMMAND, _DIM, _END = "\x1b[36m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


@dataclass(slots=True)
class _Wait:
    what: str
    began: float
    quiet_since: float
    is_command: bool
    was_told: bool = False


class Screen:
    """Standard output: on a terminal with a line that moves, elsewhere line by line."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self._has_colours = self.is_terminal and not os.environ.get("NO_COLOR")
        self._wait: _Wait | None = None
        self._frame = 0
        self._is_drawn = False
        self._is_broken = False

    @property
    def columns(self) -> int:
        """How wide a table may be."""
        return min(MAX_COLUMNS, shutil.get_terminal_size((MAX_COLUMNS, 24)).columns)

    def comment(self, text: str) -> None:
        """Our own words."""
        for line in text.splitlines():
            self._line(f"# {line}".rstrip(), _COMMENT)

    def title(self, text: str) -> None:
        """What begins now."""
        self._line("", "")
        self._line(f"# {text}", _COMMENT)

    def command(self, shown: str) -> None:
        """A command as one types it."""
        self._line(f"$ {shown}", _COMMAND)

    def output(self, line: str) -> None:
        """What a command has said."""
        self._line(line.rstrip(), "")

    @contextlib.contextmanager
    def waiting(self, what: str, *, is_command: bool = False) -> Iterator[None]:
        """Whoever watches sees that it goes on; how long it took is told, but of a command, whose output tells enough."""
        now = time.monotonic()
        self._wait = wait = _Wait(what, now, now, is_command)
        failed = True
        try:
            yield
            failed = False
        finally:
            self._wait = None
            self._wipe()
            seconds = time.monotonic() - wait.began
            if not is_command and seconds >= QUIET_SECONDS:
                self.comment(f"{what}: {'stopped after' if failed else 'done in'} {seconds:.1f} s")

    def progress(self, text: str) -> None:
        """What is waited for has come so far."""
        if self._wait is not None:
            self._wait.what = text

    async def run(self) -> None:
        """Keeps the line moving until cancelled, or until nobody reads any more: that is for whoever says something next to find."""
        while True:
            await anyio.sleep(FRAME_SECONDS)
            try:
                self._tick()
            except OSError:
                self._is_broken = False
                return

    def _tick(self) -> None:
        wait = self._wait
        if wait is None:
            return
        now = time.monotonic()
        quiet = now - wait.quiet_since
        if self.is_terminal:
            if quiet >= QUIET_SECONDS:
                self._draw(wait, now)
        elif quiet >= (PLAIN_SECONDS if wait.was_told or wait.is_command else QUIET_SECONDS):
            so_far = now - wait.began
            self.comment(f"{wait.what} …{f' {so_far:.0f} s' if so_far >= PLAIN_SECONDS else ''}")
            wait.was_told = True
            wait.quiet_since = now

    def _draw(self, wait: _Wait, now: float) -> None:
        self._frame = (self._frame + 1) % len(FRAMES)
        text = f"{FRAMES[self._frame]} {wait.what} … {now - wait.began:.0f} s"[: self.columns - 1]
        self._write(f"\r\x1b[2K{_DIM if self._has_colours else ''}{text}{_END if self._has_colours else ''}")
        self._is_drawn = True

    def _wipe(self) -> None:
        if self._is_drawn:
            self._write("\r\x1b[2K")
            self._is_drawn = False

    def _line(self, text: str, colour: str) -> None:
        self._wipe()
        if self._wait is not None:
            self._wait.quiet_since = time.monotonic()
        self._write(f"{colour}{text}{_END}\n" if colour and self._has_colours else f"{text}\n")

    def _write(self, text: str) -> None:
        if self._is_broken:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            # Raised once: what ends because of it cleans up in silence.
            self._is_broken = True
            raise
