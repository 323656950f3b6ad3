"""Printing: tables for people, JSON for programs, and nothing of a run's that could command a terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

PIPE_COLUMNS = 400
"""Wide enough that nothing is cut where there is no window."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNESCAPED = re.compile(r"[\x7f-\x9f]")
"""Control characters that JSON may hold as they are."""
INDENT = "    "


def print_json(value: Any) -> None:
    """`value` is on standard output, indented."""
    print(_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """`value` is on standard output, in one line."""
    print(_json(value), flush=True)


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=str)
    return _UNESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def harmless(text: str) -> str:
    """`text` without the control characters with which a name or a log line could command a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def indented(text: str) -> str:
    """`text` whose lines after the first are indented: none of them looks like one of ours."""
    return text.replace("\n", f"\n{INDENT}")


def in_one_line(text: str) -> str:
    """`text` without control characters, and without those that end a line."""
    return harmless(text).replace("\n", "\N{REPLACEMENT CHARACTER}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """The table is on standard output; colours only where a terminal shows them and NO_COLOR does not forbid it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not terminal)
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    Console(width=None if terminal else PIPE_COLUMNS, highlight=False).print(table)


def size(number_bytes: int | None) -> str:
    """`number_bytes` for people."""
    if number_bytes is None:
        return "-"
    amount, unit = float(number_bytes), "B"
    for greater in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, greater
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def duration(seconds: float) -> str:
    """`seconds` for people, in its two greatest units."""
    whole = max(0, int(seconds))
    days, hours, minutes = whole // 86_400, whole // 3_600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def moment(text: str) -> datetime:
    """The aware datetime of the API's `text`."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def slots(taken: int, limit: int | None) -> str:
    """Slots for people: `2 of 10`, or `2` without a limit."""
    return str(taken) if limit is None else f"{taken} of {limit}"
