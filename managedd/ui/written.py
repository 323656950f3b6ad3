"""How a value stands in a control of a form, where the control gives it back just as it was. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

_MAX_DIGITS: Final = 300
_PLACEHOLDER: Final = "__prefect_kind"
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_LOCAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,3})?)?")
_BLANK: Final = "\ufeff"
"""What a browser takes for blank, and Python does not."""


def text(value: Any) -> str | None:
    """A text, for a field that may have many lines."""
    return value if isinstance(value, str) and _is_typable(value) else None


def secret(value: Any) -> str | None:
    """A text in one line."""
    return value if isinstance(value, str) and _is_typable(value) and "\n" not in value else None


def integer(value: Any) -> str | None:
    """A whole number."""
    return repr(value) if _is_integer(value) and _is_sayable(value) else None


def decimal(value: Any) -> str | None:
    """A number."""
    return None if number(value) is None else repr(value)


def boolean(value: Any) -> str | None:
    """`true` or `false`."""
    return as_json(value) if isinstance(value, bool) else None


def lines(value: Any) -> str | None:
    """A list of texts, one in each line."""
    if not isinstance(value, list) or not all(isinstance(each, str) and _is_line(each) for each in value):
        return None
    return "\n".join(value)


def pairs(value: Any) -> str | None:
    """An object of texts: `NAME=VALUE` in each line."""
    if not isinstance(value, Mapping) or _PLACEHOLDER in value:
        return None
    for name, content in value.items():
        if not isinstance(content, str) or "\n" in content or not _is_plain(content):
            return None
        if not _is_line(name) or "=" in name:
            return None
    return "\n".join(f"{name}={content}" for name, content in value.items())


def scalar(value: Any, others: Sequence[str]) -> str | None:
    """A text, or a value of the types in `others`; a text that reads like one of them stands in quotation marks."""
    if isinstance(value, str):
        is_clear = _is_typable(value) and "\n" not in value and not _reads_otherwise(value, others)
        return value if is_clear else as_json(value)
    if isinstance(value, bool):
        return as_json(value) if "boolean" in others else None
    is_taken = "number" in others or ("integer" in others and _is_integer(value))
    return as_json(value) if is_taken and number(value) is not None else None


def anything(value: Any) -> str:
    """Any value; a text that could be read as JSON stands in quotation marks."""
    if not isinstance(value, str):
        return as_json(value, indent=2)
    return value if _is_typable(value) and not _is_json(value) else as_json(value)


def day(value: Any) -> str | None:
    """`2026-11-23`."""
    if not isinstance(value, str) or _DAY.fullmatch(value) is None:
        return None
    return value if _year(value) else None


def moment(value: Any) -> str | None:
    """A point in time that every browser reads as the same one."""
    if not isinstance(value, str) or not value.isascii() or _MOMENT.fullmatch(value) is None:
        return None
    return value if 1900 <= _year(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", value)) < 9999 else None


def local(value: Any) -> str | None:
    """A date and a time of no zone, as exact as a browser's field holds them."""
    if not isinstance(value, str) or not value.isascii() or _LOCAL.fullmatch(value) is None:
        return None
    return value if _year(value) else None


def as_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON that a page can hold; `indent` is for what has parts."""
    spaces = indent if isinstance(value, dict | list) and value else None
    written = json.dumps(value, ensure_ascii=False, indent=spaces, default=str)
    return written if _is_plain(written) else json.dumps(value, indent=spaces, default=str)


def number(value: Any) -> float | None:
    """The value where it is a number that a browser's field takes, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and _is_sayable(value) else None


def _is_sayable(value: float) -> bool:
    """Whether a browser's field for numbers takes it."""
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 10**_MAX_DIGITS


def _reads_otherwise(text: str, others: Sequence[str]) -> bool:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    if isinstance(found, bool):
        return "boolean" in others
    return isinstance(found, str | int | float)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):
        return True
    return True


def _is_typable(content: str) -> bool:
    """Whether a text field has it in it just so, and does not count as empty."""
    return content == "" or (_is_plain(content) and bool(content.strip().strip(_BLANK).strip()))


def _is_line(content: str) -> bool:
    """Whether it is one of several lines, none of which a browser trims."""
    is_trimmed = content == content.strip() == content.strip(_BLANK)
    return bool(content) and is_trimmed and "\n" not in content and _is_plain(content)


def _is_plain(content: str) -> bool:
    """Whether a page can hold it: no NUL, no carriage return, nothing that is no character."""
    return "\0" not in content and "\r" not in content and not any("\ud800" <= letter <= "\udfff" for letter in content)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _year(iso: str) -> int:
    """The year of a date or a time; 0: there is no such."""
    try:
        return datetime.fromisoformat(iso).year
    except ValueError:
        return 0
