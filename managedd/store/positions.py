"""Positions in the tables that all workspaces share, as they are handed out: ids from which nobody can tell how much others have stored.

Log lines, events and audit entries are counted as they come, whoever's they are, and the count is where a reader resumes. What a client is
given of it is an id that only this store can read: a tag, which is a keyed hash of the position, and the position under a mask, which is a
keyed hash of the tag (the construction of SIV, RFC 5297). One position has one id, on every day; an id that was made up, comes from
another table or another store, or was changed, is not taken for any position.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal

from managedd.store import meta

if TYPE_CHECKING:
    from managedd.store.database import Tx

Shared = Literal["logs", "events", "audit"]
"""The tables whose positions go out; an id of one says nothing in another."""

KEY: Final = "positions_key"
"""The fact of the store that the ids are made with: 64 hexadecimal digits, drawn by the migration that brought them."""
_POSITION_BYTES: Final = 6
_TAG_BYTES: Final = 9


class Positions:
    """The ids of one table's positions."""

    def __init__(self, key: bytes, shared: Shared) -> None:
        # Copies of these cost half of what new ones would: there is one of each for every line that goes out.
        self._tag = blake2b(key=key, digest_size=_TAG_BYTES, person=f"{shared} tag".encode())
        self._mask = blake2b(key=key, digest_size=_POSITION_BYTES, person=f"{shared} mask".encode())

    def id(self, position: int) -> str:
        """The id of a position, 0 or more: in the form of a version 8 UUID (RFC 9562), so that it can be a log line's own."""
        tag = self._tag_of(position)
        text = tag.hex()
        return f"{text[:8]}-{text[8:12]}-8{text[12:15]}-8{text[15:]}-{position ^ self._mask_of(tag):012x}"

    def position(self, id_: str) -> int | None:
        """The position that has the id, a lower-case UUID; None when this store has given it to none."""
        first, second, third, fourth, last = id_.split("-")
        tag = bytes.fromhex(first + second + third[1:] + fourth[1:])
        position = int(last, 16) ^ self._mask_of(tag)
        return position if self.id(position) == id_ else None

    def _tag_of(self, position: int) -> bytes:
        made = self._tag.copy()
        made.update(position.to_bytes(_POSITION_BYTES))
        return made.digest()

    def _mask_of(self, tag: bytes) -> int:
        made = self._mask.copy()
        made.update(tag)
        return int.from_bytes(made.digest())


def of(tx: Tx, shared: Shared) -> Positions:
    """The ids of that table's positions, in the store of `tx`."""
    key = meta.get(tx, KEY)
    assert key is not None, "the migration that brings the ids makes their key"
    return _positions(key, shared)


@lru_cache(maxsize=16)
def _positions(key: str, shared: Shared) -> Positions:
    return Positions(bytes.fromhex(key), shared)
