"""What pages say of a task run: where its arguments came from, and what it has logged. Pure."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

from managedd.ui import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_LINE_CHARS: Final = 2_000
MAX_INPUTS: Final = 100
MAX_SOURCES: Final = 20
_COLOURS: Final = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]")
_VALUES: Final = {"task_run": "id", "flow_run": "id", "parameter": "name", "constant": "type"}

Inputs = list[tuple[str, list[tuple[str, str]]]]


def inputs(told: Mapping[str, Sequence[Mapping[str, Any]]]) -> Inputs:
    """Of each argument what it was made of: results, parameters, constants, each with its id, name or type."""
    return [
        (name, [(each["input_type"], str(each[_VALUES[each["input_type"]]])) for each in sources[:MAX_SOURCES]])
        for name, sources in list(told.items())[:MAX_INPUTS]
    ]


def callers(found: Inputs) -> list[str]:
    """The task runs whose results are among them."""
    return sorted({value for _, sources in found for kind, value in sources if kind == "task_run"})


def log_line(line: Mapping[str, Any]) -> str:
    """`2026-11-23 14:05:12 UTC  INFO  message`, without colours; what is longer is cut."""
    message = _COLOURS.sub("", line["message"])
    cut = message if len(message) <= MAX_LINE_CHARS else message[: MAX_LINE_CHARS - 1] + "…"
    return f"{words.exact(line['timestamp'])}  {logging.getLevelName(line['level']):<8}  {cut}"
