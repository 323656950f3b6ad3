"""What JSON may cost before it is validated, and what is told of its errors: each value that is wrong would cost a hundred times its size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import ValidationError

MAX_VALUES: Final = 300_000
"""The most values of one body or message: parameters of 512 KiB have no more."""
MAX_ERRORS: Final = 200
"""The most errors that are listed."""
TOO_MANY: Final = f"at most {MAX_VALUES:,} values are allowed in one message"
_QUOTES_PER_VALUE: Final = 4
"""Of a string and of its key."""


def holds_too_much(message: bytes | str) -> bool:
    """Whether the JSON has more than MAX_VALUES values; what stands in its strings does not count."""
    if len(message) <= 2 * MAX_VALUES:
        return False
    text = message.encode() if isinstance(message, str) else message
    if _values(text) <= MAX_VALUES:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > MAX_VALUES * _QUOTES_PER_VALUE:
        return True
    return _values(b"".join(text.split(b'"')[::2])) > MAX_VALUES


def _values(text: bytes) -> int:
    # What stands in a list or an object has a comma before it, or the bracket: those that hold one another have no commas at all.
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def told(error: ValidationError, prefix: list[Any]) -> list[dict[str, Any]]:
    """pydantic's errors as they are answered, without the input: it may hold a secret."""
    count = error.error_count()
    if count > MAX_ERRORS:
        return [{"type": "too_many_errors", "loc": prefix, "msg": f"{count:,} values are not as they should be"}]
    return [
        {"type": item["type"], "loc": [*prefix, *item["loc"]], "msg": item["msg"]}
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def first(error: ValidationError) -> dict[str, Any]:
    """One error, of those that are told."""
    return told(error, [])[0]
