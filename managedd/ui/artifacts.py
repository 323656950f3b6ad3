"""What is shown of an artifact: whatever its run has put into it. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from managedd.ui import markdown

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_ROWS: Final = 200
MAX_COLUMNS: Final = 40
MAX_TEXT: Final = 20_000
MAX_CHARS: Final = 65_536
"""Of one artifact's data, to be shown in its form; of what is longer there is the beginning and a file."""
MAX_PAGE_CHARS: Final = 262_144
"""Of the data of all artifacts on one page; what comes then is shown by its beginning."""
MAX_BEGINNING: Final = 2_000
MAX_MARKED: Final = 60_000
"""Characters of Markdown on one page; what goes beyond is shown as it was written."""
_CELL: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An artifact, as a template shows it: by the first of its members that is there."""

    id: str
    title: str
    type: str
    description: Markup | None
    html: Markup | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())
    more_rows: int = 0
    link: str | None = None
    progress: float | None = None
    """Of 100."""
    text: str = ""
    is_cut: bool = False
    """The text is the beginning of it alone."""
    chars: int = 0
    """Of all its data."""


class _Room:
    """What one page still has: for data, and for Markdown, as to read that takes far longer than all the rest of the page."""

    def __init__(self) -> None:
        self._left = MAX_MARKED
        self._chars_left = MAX_PAGE_CHARS

    def takes(self, chars: int) -> bool:
        """Whether there is room for so much data; if so, it is taken."""
        if chars > self._chars_left:
            return False
        self._chars_left -= chars
        return True

    def html(self, text: str, most_chars: int = MAX_TEXT) -> Markup:
        """The text as HTML; where there is no room any more, so much of it as it was written."""
        count = min(len(text), markdown.MAX_CHARS)
        if count > self._left:
            return Markup("<pre>{}</pre>").format(_text(text)[:most_chars])
        self._left -= count
        return markdown.html(text)


def all_shown(artifacts: Iterable[Mapping[str, Any]]) -> list[Shown]:
    """What a page shows of these. It takes up to some seconds, and so belongs on a thread."""
    room = _Room()
    return [_shown(each, room) for each in artifacts]


def _shown(artifact: Mapping[str, Any], room: _Room) -> Shown:
    """The artifact in the form of its type; what does not have that form is text."""
    kind, data = str(artifact["type"] or "unknown"), artifact["data"]
    description = artifact["description"]
    base: dict[str, Any] = {
        "id": artifact["id"],
        "title": artifact["key"] or kind,
        "type": kind,
        "chars": artifact["chars"],
        "description": room.html(description, MAX_BEGINNING)
        if isinstance(description, str) and description.strip()
        else None,
    }
    if artifact["beginning"] is not None or not room.takes(artifact["chars"]):
        text = _text(data if artifact["beginning"] is None else artifact["beginning"])
        return Shown(**base, text=text[:MAX_BEGINNING], is_cut=True)
    found: dict[str, Any] | None = None
    if kind in {"markdown", "link"} and isinstance(data, str):
        found = {"html": room.html(data)}
    elif kind == "table":
        found = _table(data)
    elif kind == "progress":
        found = _progress(data)
    elif kind == "image" and isinstance(data, str):
        found = {"link": data} if markdown.is_safe(data) else None
    if found is None:
        text = _text(data)
        return Shown(**base, text=text, is_cut=len(text) > MAX_TEXT)
    return Shown(**base, **found)


def _table(data: Any) -> dict[str, Any] | None:
    """Prefect's three forms: a list of objects, a list of lists, an object of lists; as JSON text or as it is."""
    if isinstance(data, str):
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            return None
    if isinstance(data, Mapping):
        columns = [name for name, values in data.items() if isinstance(values, list)][:MAX_COLUMNS]
        height = max((len(data[name]) for name in columns), default=0)
        rows = [
            [data[name][at] if at < len(data[name]) else "" for name in columns] for at in range(min(height, MAX_ROWS))
        ]
        return _cut([str(name) for name in columns], rows, height) if columns else None
    if not isinstance(data, list) or not data:
        return None
    if all(isinstance(row, Mapping) for row in data):
        names = list(dict.fromkeys(name for row in data[:MAX_ROWS] for name in row))[:MAX_COLUMNS]
        return _cut(
            [str(name) for name in names], [[row.get(name, "") for name in names] for row in data[:MAX_ROWS]], len(data)
        )
    if all(isinstance(row, list) for row in data):
        width = min(MAX_COLUMNS, max(len(row) for row in data[:MAX_ROWS]))
        names = [str(at + 1) for at in range(width)]
        return _cut(names, [[*row, *[""] * (width - len(row))] for row in data[:MAX_ROWS]], len(data))
    return None


def _cut(columns: Sequence[str], rows: Sequence[Sequence[Any]], height: int) -> dict[str, Any]:
    return {
        "columns": tuple(_short(name) for name in columns),
        "rows": tuple(tuple(_short(_text(cell)) for cell in row[:MAX_COLUMNS]) for row in rows),
        "more_rows": max(0, height - len(rows)),
    }


def _progress(data: Any) -> dict[str, Any] | None:
    if isinstance(data, bool) or not isinstance(data, int | float | str):
        return None
    try:
        value = float(data)
    except (ValueError, OverflowError):
        return None
    return {"progress": min(100.0, max(0.0, value))} if math.isfinite(value) else None


def _text(data: Any) -> str:
    try:
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=2)
    except RecursionError:
        text = "…"
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"


def _short(text: str) -> str:
    return text if len(text) <= _CELL else text[:_CELL] + "…"
