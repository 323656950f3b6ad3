"""A connection that keeps the programs of its statements, and not without bound what they hold.

SQLite keeps what was bound to a statement for as long as the statement is kept: a filter that lists a megabyte of names keeps it, in each of its
forms and on each connection. Python's module keeps so many statements, however large they are, and can't be told to let go.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CACHED_STATEMENTS: Final = 128
"""What an operation or a loop asks again and again are some sixty of them."""
LARGE_BYTES: Final = 2 * 1024
"""Less than that of a statement's text, or of all the values that it was given, is not counted."""
KEPT_BYTES: Final = 4 * 1024 * 1024
"""As much as one connection's statements may hold of what is large; then all of them are let go."""
BYTES_PER_CHAR: Final = 10
"""Of a statement's program, for each character of its text."""
BYTES_AT_MOST: Final = 4
"""Of a character in UTF-8, as it is bound; of text that is all ASCII it is one."""


class KeptStatements(sqlite3.Connection):
    """One connection. Belongs to one thread at a time, as `sqlite3` has it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "cached_statements": CACHED_STATEMENTS})
        self._held: dict[str, int] = {}
        """What is large, and how large it is, by the text of its statement."""
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """At most so much of what is large is kept."""
        return self._held_bytes

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """As of any connection."""
        self._weigh(sql, parameters)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """As of any connection. What it was given last is what the statement keeps."""
        last: Any = ()

        def noted() -> Iterator[Any]:
            nonlocal last
            for row in parameters:
                last = row
                yield row

        try:
            return super().executemany(sql, noted())
        finally:
            self._weigh(sql, last)

    def _weigh(self, sql: str, parameters: Any) -> None:
        length = 0
        for value in parameters.values() if parameters.__class__ is dict else parameters:
            if value.__class__ is str or value.__class__ is bytes:
                length += len(value)
        large = len(sql) * BYTES_PER_CHAR if len(sql) > LARGE_BYTES else 0
        if BYTES_AT_MOST * length > LARGE_BYTES and (bound := _bound_bytes(parameters)) > LARGE_BYTES:
            large += bound
        if large or sql in self._held:
            self._hold(sql, large)

    def _hold(self, sql: str, size_bytes: int) -> None:
        self._held_bytes -= self._held.pop(sql, 0)
        if self._held_bytes + size_bytes > KEPT_BYTES and self._held:
            self._let_go()
        if size_bytes:
            self._held[sql] = size_bytes
            self._held_bytes += size_bytes

    def _let_go(self) -> None:
        """Nothing is kept but statements that hold nothing: the cache forgets what was asked longest ago."""
        # Who reads may be told to stop in the middle of it: then the next large one tries again.
        with suppress(sqlite3.Error):
            for number in range(CACHED_STATEMENTS):
                super().execute(f"SELECT {number}").close()
            self._held.clear()
            self._held_bytes = 0


def _bound_bytes(parameters: Any) -> int:
    """At most so much is bound: text that is not all ASCII may be less in UTF-8."""
    return sum(
        len(value) if value.__class__ is bytes or value.isascii() else BYTES_AT_MOST * len(value)
        for value in (parameters.values() if parameters.__class__ is dict else parameters)
        if value.__class__ is str or value.__class__ is bytes
    )
