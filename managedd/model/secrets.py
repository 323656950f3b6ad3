"""Masking what a schema calls secret, and taking masks back for the values that they stand for. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Paths = Iterable[str | Sequence[str]]
    """Dotted, or in steps where the names may have dots themselves."""

MASK = "********"
"""What Prefect's server shows in the place of any secret."""
_ANYTHING = "*"
_SHORT = 4
_BEGINNING = 6
"""So many characters of a secret's beginning are enough to recognise it where a message is cut."""


def masked(data: Mapping[str, Any], secret_fields: Paths) -> dict[str, Any]:
    """A copy of `data` in which nothing at or below one of `secret_fields` can be read; null stays null.

    A `*` in a path stands for everything there. Lists are looked through: a path goes on in each of their items.
    """
    result: Any = dict(data)
    for path in secret_fields:
        result = _mask(result, _steps(path))
    return dict(result)


def unmasked(data: Mapping[str, Any], current: Mapping[str, Any], secret_fields: Paths) -> dict[str, Any]:
    """A copy of `data` in which each mask in a secret place is the value of `current` there.

    Whoever writes back what was read must not replace a secret by its mask.
    """
    result: Any = dict(data)
    for path in secret_fields:
        result = _unmask(result, current, _steps(path))
    return dict(result)


def hidden(text: str, secrets: Iterable[Any]) -> str:
    """`text` without what is in `secrets`, for messages: also where only a secret's beginning is repeated, or with escapes."""
    texts = sorted({each for value in secrets for each in _texts(value)}, key=len, reverse=True)
    spelled = [way for each in texts for way in dict.fromkeys((each, repr(each)[1:-1], json.dumps(each)[1:-1]))]
    for secret in spelled:
        # One so short stands in other words too; where a message repeats a value, it is in quotes.
        for quote in ("'", '"') if len(secret) < _SHORT else ("",):
            text = text.replace(f"{quote}{secret}{quote}", f"{quote}{MASK}{quote}")
    for secret in spelled:
        text = _without_beginnings(text, secret)
    return text


def values_at(data: Any, secret_fields: Paths) -> list[Any]:
    """What stands in `data` at or below the `secret_fields`."""
    result: list[Any] = []
    for path in secret_fields:
        _find(data, _steps(path), result)
    return result


def _steps(path: str | Sequence[str]) -> list[str]:
    return path.split(".") if isinstance(path, str) else list(path)


def _find(value: Any, path: list[str], result: list[Any]) -> None:
    if not path or path[0] == _ANYTHING:
        result.append(value)
    elif isinstance(value, list):
        for item in value:
            _find(item, path, result)
    elif isinstance(value, dict) and path[0] in value:
        _find(value[path[0]], path[1:], result)


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list | tuple):
        return [text for part in value for text in _texts(part)]
    return [] if value is None or isinstance(value, bool) or value == "" else [str(value)]


def _without_beginnings(text: str, secret: str) -> str:
    if len(secret) <= _BEGINNING:
        return text
    pieces, at, beginning = [], 0, secret[:_BEGINNING]
    while (start := text.find(beginning, at)) >= 0:
        end = start + _BEGINNING
        while end < len(text) and end - start < len(secret) and text[end] == secret[end - start]:
            end += 1
        pieces += [text[at:start], MASK]
        at = end
    return "".join([*pieces, text[at:]])


def _mask(value: Any, path: list[str]) -> Any:
    if not path or path[0] == _ANYTHING:
        return _hidden(value)
    if isinstance(value, list):
        return [_mask(item, path) for item in value]
    if isinstance(value, dict) and path[0] in value:
        return {**value, path[0]: _mask(value[path[0]], path[1:])}
    return value


def _hidden(value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return {key: _hidden(inner) for key, inner in value.items()}
    return MASK


def _unmask(value: Any, current: Any, path: list[str]) -> Any:
    if not path or path[0] == _ANYTHING:
        return _restored(value, current)
    if isinstance(value, list):
        items = current if isinstance(current, list) else []
        return [_unmask(item, items[at] if at < len(items) else None, path) for at, item in enumerate(value)]
    if isinstance(value, dict) and path[0] in value:
        inner = current.get(path[0]) if isinstance(current, dict) else None
        return {**value, path[0]: _unmask(value[path[0]], inner, path[1:])}
    return value


def _restored(value: Any, current: Any) -> Any:
    if value == MASK:
        return value if current is None else current
    if isinstance(value, dict):
        known = current if isinstance(current, dict) else {}
        return {key: _restored(inner, known.get(key)) for key, inner in value.items()}
    return value
