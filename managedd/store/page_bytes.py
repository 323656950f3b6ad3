"""What a page may weigh: two hundred rows are few, unless each is as large as a request may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from managedd.errors import ErrorCode, ManagedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from managedd.store.database import Row

MAX_PAGE_BYTES: Final = 64 * 1024 * 1024


def weighed(rows: Iterable[Row], texts: Iterable[int]) -> list[Row]:
    """The rows, read one by one; `texts` are the places of their columns that can be large. Raises ManagedError(TOO_LARGE)."""
    places = tuple(texts)
    page: list[Row] = []
    left = MAX_PAGE_BYTES
    for row in rows:
        for place in places:
            text = row[place]
            if isinstance(text, str | bytes):
                left -= len(text)
        if left < 0 and page:
            raise ManagedError(
                ErrorCode.TOO_LARGE,
                f"This page has more than {MAX_PAGE_BYTES:,} bytes: {len(page):,} rows have room. Ask for fewer with `limit`",
            )
        page.append(row)
    return page
