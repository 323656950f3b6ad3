"""Masking what a schema calls secret, and taking masks back for the values that they stand for. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MASK = "********"
"""What Prefect's server shows in the place of any secret."""
_ANYTHING = "*"


def masked(data: Mapping[str, Any], secret_fields: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` in which nothing at or below one of the dotted `secret_fields` can be read; null stays null.

    A `*` in a path stands for everything there. Lists are looked through: a path goes on in each of their items.
    """
    result: Any = dict(data)
    for path in secret_fields:
        result = _mask(result, path.split("."))
    return dict(result)


def unmasked(data: Mapping[str, Any], current: Mapping[str, Any], secret_fields: Iterable[str]) -> dict[str, Any]:
    """A copy of `data` in which each mask in a secret place is the value of `current` there.

    Whoever writes back what was read must not replace a secret by its mask.
    """
    result: Any = dict(data)
    for path in secret_fields:
        result = _unmask(result, current, path.split("."))
    return dict(result)


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
