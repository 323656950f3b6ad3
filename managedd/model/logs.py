"""Log lines: what a container printed, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stream(StrEnum):
    """Where a raw line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, order=True)
class LogCursor:
    """How far an execution's output was stored: the engine's nanosecond timestamp, and which line of that timestamp.

    Engines repeat from a timestamp on, inclusively; the ordinal tells the lines of one timestamp apart.
    """

    timestamp_ns: int = 0
    ordinal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """One complete line of output, without its newline."""

    stream: Stream
    cursor: LogCursor
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line of a run's log, ready to be stored (Prefect's `Log`)."""

    name: str
    level: int
    message: str
    timestamp_us: int
    flow_run_id: str
    task_run_id: str | None = None
