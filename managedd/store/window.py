"""A look through the window: reads so small that they are made on the event loop itself.

A hop to a reader's thread and back costs several times what a row by its key costs. Nothing here may wait: a store that is busy, and a
statement that turns out long, are left to the readers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final, TypeVar

from managedd.errors import ErrorCode, ManagedError
from managedd.store.connection import CACHED_STATEMENTS, set_up_reader
from managedd.store.transaction import read_snapshot, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from managedd.clock import Clock
    from managedd.store.transaction import Tx

T = TypeVar("T")

STEPS: Final = 5_000
"""How many instructions of SQLite's machine a statement may take: some tenths of a millisecond, a row by its key takes about a hundred."""


class TooMuch(Exception):
    """Not to be had at once: a reader must do it."""


class Window:
    """One read-only connection that lives on the event loop's thread."""

    def __init__(self, path: Path) -> None:
        self._sqlite = sqlite3.connect(path, isolation_level=None, cached_statements=CACHED_STATEMENTS)
        try:
            set_up_reader(self._sqlite)
            self._sqlite.execute("PRAGMA busy_timeout = 0")
            self._sqlite.set_progress_handler(lambda: 1, STEPS)
        except BaseException:
            self._sqlite.close()
            raise

    def look(self, fn: Callable[[Tx], T], workspace: str | None, clock: Clock) -> T:
        """What `fn` returned, having seen one consistent, committed state. Raises TooMuch."""
        try:
            seen: T = read_snapshot(self._sqlite, fn, workspace, clock)
        except sqlite3.Error as error:
            fault = translated(error)
            if not isinstance(fault, ManagedError):
                raise
            raise TooMuch from fault
        except ManagedError as error:
            if error.code is ErrorCode.UNAVAILABLE and isinstance(error.__cause__, sqlite3.Error):
                raise TooMuch from error
            raise
        return seen

    def close(self) -> None:
        """The connection is closed; it may be repeated."""
        with contextlib.suppress(sqlite3.Error):
            self._sqlite.close()
