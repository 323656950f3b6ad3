"""Which lines of a log a person asked for, and how they look."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from managedd.cli.output import harmless, in_one_line, indented, moment, print_json_line
from managedd.errors import ErrorCode, ManagedError
from managedd.model.logs import LEVELS, level_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_NAMES: Final = {name: level for level, name in LEVELS.items()} | {"WARN": 30}
_SGR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_COLOURS: Final = ((50, "1;31"), (40, "31"), (30, "33"), (20, "32"), (0, "2"))
"""From which level on which; the highest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which lines to show."""

    since: datetime | None = None
    level: int = 0
    grep: re.Pattern[str] | None = None

    @classmethod
    def of(cls, since: str | None, level: str | None, grep: str | None) -> Choice:
        """What the options say. Raises ManagedError(CONFIG)."""
        return cls(
            since=None if since is None else since_moment(since),
            level=0 if level is None else _level(level),
            grep=None if grep is None else _pattern(grep),
        )

    @property
    def is_all(self) -> bool:
        """Whether every line is shown."""
        return self.since is None and not self.level and self.grep is None

    def admits(self, line: Mapping[str, Any]) -> bool:
        """Whether the line is shown."""
        if line["level"] < self.level:
            return False
        if self.grep is not None and not self.grep.search(line["message"]):
            return False
        return self.since is None or moment(line["timestamp"]) >= self.since

    def query(self, flow_run_id: str) -> dict[str, Any]:
        """As much of it as `logs/filter` can do."""
        wanted: dict[str, Any] = {"flow_run_id": {"any_": [flow_run_id]}}
        if self.level:
            wanted["level"] = {"ge_": self.level}
        if self.since is not None:
            wanted["timestamp"] = {"after_": self.since.isoformat()}
        return wanted


def since_moment(text: str) -> datetime:
    """The moment that `--since` means. Raises ManagedError(CONFIG)."""
    if _SPAN.fullmatch(text):
        parts: dict[str, float] = {}
        for number, unit in _PART.findall(text):
            parts[_UNITS[unit]] = parts.get(_UNITS[unit], 0.0) + float(number)
        try:
            return datetime.now(UTC) - timedelta(**parts)
        except OverflowError:
            raise _wrong("--since", text, "no more than some thousand years") from None
    try:
        # Without a zone it is this host's time, as the lines are shown.
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong(
            "--since", text, "a time span such as 90s, 15m or 1h30m, or a time such as 2026-11-22T04:00"
        ) from None


def _level(text: str) -> int:
    level = _NAMES.get(text.upper())
    if level is None and text.isdecimal() and text.isascii():
        level = int(text[:6])
    if level is None:
        raise _wrong("--level", text, f"{', '.join(LEVELS.values())}, or a number")
    return level


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise _wrong("--grep", text, f"a regular expression of Python's ({error})") from None


def _wrong(option: str, value: str, allowed: str) -> ManagedError:
    return ManagedError(ErrorCode.CONFIG, f"{option} {harmless(value)}: allowed: {allowed}")


class Printer:
    """Prints lines on standard output."""

    def __init__(self, choice: Choice, *, as_json: bool) -> None:
        self._choice = choice
        self._as_json = as_json
        self._on_terminal = sys.stdout.isatty()
        self._coloured = self._on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def show(self, line: Mapping[str, Any]) -> None:
        """The line is printed if it was asked for."""
        if not self._choice.admits(line):
            return
        if self._as_json:
            print_json_line(line)
            return
        when = moment(line["timestamp"]).astimezone().isoformat(sep=" ", timespec="milliseconds")
        level = f"{level_name(line['level']):<8}"
        message = line["message"]
        if self._on_terminal:
            # What colours a line in a file would command a terminal here.
            message = harmless(_SGR.sub("", message))
        if self._coloured:
            code = next((code for least, code in _COLOURS if line["level"] >= least), "2")
            level = f"\x1b[{code}m{level}\x1b[0m"
        print(f"{when[:23]} {level} {in_one_line(line['name'])} | {indented(message)}")

    def end(self, state: Mapping[str, Any]) -> None:
        """How the run ended, on standard error: standard output has the run's lines and nothing else."""
        if not self._as_json:
            said = f": {state['message']}" if state.get("message") else ""
            print(f"managedd: the run has ended as {indented(harmless(state['name'] + said))}", file=sys.stderr)
