"""Log lines: what a container printed, and what it means."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

RECORD_MARK: Final = "\x1e"
"""Begins a line that is a record: `run_log.py` inside the run writes it, `parse_record` reads it."""
RECORD_MAX_CHARS: Final = 1_048_576
"""A longer line is no record."""
NAME_MAX_CHARS: Final = 1_000
"""The longest name of a logger: modules have far shorter ones."""
OUR_NAME: Final = "managedd"
"""The logger name of what the daemon itself says in a run's log, and of nothing else."""
RUNS_NAME: Final = "managedd (run)"
"""What stands instead where a run, or what the daemon has put inside it, says the same."""
_CREATED_MAX_US: Final = 253_402_300_799_999_999  # the last microsecond of the year 9999
_FIELDS: Final = frozenset({"name", "level", "message", "created_us", "flow_run_id", "task_run_id"})
_PHASES: Final = frozenset({"installing", "installed"})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
"""The names of levels that have one."""


def level_name(level: int) -> str:
    """The level for people: its name, or the number."""
    return LEVELS.get(level, str(level))


class Stream(StrEnum):
    """Where a raw line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, order=True)
class LogCursor:
    """How far an execution's output was stored: the engine's nanosecond timestamp, and which line of that timestamp.

    Engines repeat from a timestamp on, inclusively; the ordinal tells the lines of one timestamp apart. Cursors only grow: where the
    engine's timestamps step back, the highest so far stays and the ordinal counts on.
    """

    timestamp_ns: int = 0
    ordinal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """One complete line of output, without its newline; one longer than the driver's bound comes in several."""

    stream: Stream
    cursor: LogCursor
    text: str
    follows_gap: bool = False
    """What was printed before it may not be kept any more, and was read by nobody."""


class LogRecord(NamedTuple):
    """One line of a run's log, ready to be stored (Prefect's `Log`). A tuple: one is made for every line."""

    name: str
    level: int
    message: str
    timestamp_us: int
    flow_run_id: str | None
    """None: a line that a client wrote outside any run."""
    task_run_id: str | None = None


class ParsedRecord(NamedTuple):
    """A record as a run wrote it: well-formed, but any process of the run can write what it likes, so its ids are claims."""

    name: str
    level: int
    message: str
    timestamp_us: int
    flow_run_id: str | None
    """None: of the run whose output it is."""
    task_run_id: str | None
    phase: str | None = None
    """What the run says to have reached: `installing` or `installed` its packages."""


def claimed_name(name: str) -> str:
    """The logger name under which a line stands whose writer calls itself `name`: cut, and not the daemon's nor one that looks like it."""
    name = name[:NAME_MAX_CHARS]
    return RUNS_NAME if _looks_like_ours(name) else name


@lru_cache(maxsize=256)
def _looks_like_ours(name: str) -> bool:
    if name.isascii() and name.isprintable():
        return name.replace(" ", "").casefold() == OUR_NAME
    # What nobody sees, or sees as a letter that it is not, makes no other name.
    letters = (char for char in unicodedata.normalize("NFKC", name) if char.isprintable() and char != " ")
    return "".join(letters).casefold() == OUR_NAME


def parse_record(text: str) -> ParsedRecord | None:
    """The record that the line is; None when it is a line like any other."""
    if not text.startswith(RECORD_MARK) or len(text) > RECORD_MAX_CHARS:
        return None
    try:
        fields = json.loads(text[1:])
    except (ValueError, RecursionError):
        return None
    if type(fields) is not dict or (fields.keys() != _FIELDS and fields.keys() - {"phase"} != _FIELDS):
        return None
    phase = fields.get("phase")
    if "phase" in fields and (type(phase) is not str or phase not in _PHASES):
        return None
    name, level, message, created = fields["name"], fields["level"], fields["message"], fields["created_us"]
    if type(name) is not str or not 0 < len(name) <= NAME_MAX_CHARS or type(message) is not str:
        return None
    if (
        type(level) is not int
        or not 0 <= level <= 1000
        or type(created) is not int
        or not 0 <= created <= _CREATED_MAX_US
    ):
        return None
    flow_run_id, task_run_id = fields["flow_run_id"], fields["task_run_id"]
    for id_ in (flow_run_id, task_run_id):
        if id_ is not None and (type(id_) is not str or not _UUID.fullmatch(id_)):
            return None
    return ParsedRecord(
        _writable(name),
        level,
        _writable(message),
        created,
        None if flow_run_id is None else flow_run_id.lower(),
        None if task_run_id is None else task_run_id.lower(),
        phase,
    )


def _writable(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
