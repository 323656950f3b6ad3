"""Lists with pages: which part of a list an address asks for, and lists that the API gives only piece by piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from multidict import MultiMapping

PAGE_SIZE: Final = 50
MAX_TEXT_CHARS: Final = 200
MAX_OFFSET: Final = 1_000_000
PIECE: Final = 200
"""As much as the API gives at once."""
MOST: Final = 2_000
"""Of a list that is read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A page of a list, and what its rows' names must contain."""

    text: str = ""
    offset: int = 0

    @property
    def query(self) -> str:
        """What makes a page of this list, behind the `?`, without the offset; ends with `&` unless it is empty."""
        return urlencode({"q": self.text}) + "&" if self.text else ""

    @property
    def here(self) -> str:
        """This page of it."""
        return f"?{self.query}offset={self.offset}"

    @property
    def bounds(self) -> dict[str, int]:
        """As operations are asked for it."""
        return {"limit": PAGE_SIZE, "offset": self.offset}

    def of_name(self, kind: str) -> dict[str, Any]:
        """The filter of operations that find a part of a name."""
        return {kind: {"name": {"like_": self.text}}} if self.text else {}

    def admits(self, name: str) -> bool:
        """Whether a name contains the text, whatever its case."""
        return self.text.casefold() in name.casefold()

    def page(self, rows: Sequence[Any]) -> Sequence[Any]:
        """The rows of this page."""
        return rows[self.offset : self.offset + PAGE_SIZE]


def read(query: MultiMapping[str]) -> Listing:
    """What an address asks for; what makes no sense is as if it were not there."""
    offset = query.get("offset", "")
    is_offset = offset.isascii() and offset.isdigit() and len(offset) < 8 and int(offset) <= MAX_OFFSET
    return Listing(text=query.get("q", "").strip()[:MAX_TEXT_CHARS], offset=int(offset) if is_offset else 0)


async def whole(piece: Callable[[dict[str, int]], Awaitable[list[Any]]], *, most: int = MOST) -> list[Any]:
    """All that `piece` gives for one `limit` and `offset` after the other, or the first `most` of it."""
    found: list[Any] = []
    while len(found) < most:
        got = await piece({"limit": PIECE, "offset": len(found)})
        found += got
        if len(got) < PIECE:
            break
    return found[:most]
