"""`If-Match: "name=mark,other=mark"`: a change is made only while those members are as whoever asks for it has seen them.

A mark stands for one member's value, so that what changes by itself (a status, a heartbeat, slots) or what somebody else has changed beside it
refuses nobody. Who sends no such header is not asked; `*` is enough for everything that is there.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

import orjson

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from managedd.store.database import Tx

T = TypeVar("T")

HEX_DIGITS: Final = 16
ABSENT: Final = ""
"""The mark of a member that is not there."""


def marks(shown: Mapping[str, Any], *names: str) -> dict[str, str]:
    """The marks of these members of an answer of the API, or of all."""
    return {name: _mark(shown, name) for name in names or shown}


def when_unchanged(
    if_match: str | None, seen: Callable[[Tx], Mapping[str, Any]], fn: Callable[[Tx], T]
) -> Callable[[Tx], T]:
    """`fn`, which raises ManagedError(CHANGED) where what the API shows, `seen`, is not what the header says; None: no header."""
    if if_match is None or if_match.strip() == "*":
        return fn
    expected = _expected(if_match)

    def body(tx: Tx) -> T:
        shown = seen(tx)
        changed = [name for name, mark in expected.items() if mark != _mark(shown, name)]
        if changed:
            raise ManagedError(
                ErrorCode.CHANGED,
                f"Changed since it was read: {', '.join(changed)}. Nothing was changed now: read it again, and decide anew.",
                detail={"changed": changed},
            )
        return fn(tx)

    return body


def _expected(if_match: str) -> dict[str, str]:
    parts = if_match.strip().strip('"').split(",")
    return {unquote(name): mark for name, _, mark in (part.strip().partition("=") for part in parts)}


def _mark(shown: Mapping[str, Any], name: str) -> str:
    # What is changed by this name is shown under another one, with the slots that are taken now.
    if name == "concurrency_limit" and "global_concurrency_limit" in shown:
        limit = _plain(shown["global_concurrency_limit"])
        shown = {name: None if limit is None else limit["limit"]}
    if name not in shown:
        return ABSENT
    written = orjson.dumps(_plain(shown[name]), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(written).hexdigest()[:HEX_DIGITS]


def _plain(value: Any) -> Any:
    """As a client reads it; rows may hold JSON that is written already."""
    return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
