"""A look through the window: reads so small that they are made on the event loop itself.

A hop to a reader's thread and back costs several times what a row by its key costs. Nothing here may wait: a store that is busy, and a
statement that turns out long, are left to the readers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final, TypeVar

from managedd.errors import ErrorCode, ManagedError
from managedd.store.connection import set_up_reader
from managedd.store.statements import KeptStatements
from managedd.store.transaction import read_snapshot, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from managedd.clock import Clock
    from managedd.store.cipher import Vault
    from managedd.store.transaction import Tx

T = TypeVar("T")

STEPS: Final = 1_000
"""After so many instructions of its machine SQLite asks whether to go on. It counts them over all uses of a statement, so most of the
questions come to statements that are short."""
QUESTIONS: Final = 8
"""So many are answered yes in one look: it takes some tenths of a millisecond then, a row by its key about a hundred instructions."""


class TooMuch(Exception):
    """Not to be had at once: a reader must do it."""


class Window:
    """One read-only connection that lives on the event loop's thread."""

    def __init__(self, path: Path, vault: Vault) -> None:
        self._asked = 0
        self._vault = vault
        self._sqlite = sqlite3.connect(path, isolation_level=None, factory=KeptStatements)
        try:
            set_up_reader(self._sqlite)
            self._sqlite.execute("PRAGMA busy_timeout = 0")
            self._sqlite.set_progress_handler(self._is_too_much, STEPS)
        except BaseException:
            self._sqlite.close()
            raise

    def look(self, fn: Callable[[Tx], T], workspace: str | None, clock: Clock) -> T:
        """What `fn` returned, having seen one consistent, committed state. Raises TooMuch."""
        self._asked = 0
        try:
            seen: T = read_snapshot(self._sqlite, fn, workspace, clock, self._vault)
        except (sqlite3.Error, ManagedError) as error:
            self._leave()
            if _passes(error):
                raise TooMuch from error
            raise
        return seen

    def _is_too_much(self) -> bool:
        self._asked += 1
        return self._asked > QUESTIONS

    def _leave(self) -> None:
        """No transaction is open, also when the question came in the middle of its end."""
        self._asked = 0
        if self._sqlite.in_transaction:
            self._sqlite.execute("ROLLBACK")

    def close(self) -> None:
        """The connection is closed; it may be repeated."""
        with contextlib.suppress(sqlite3.Error):
            self._sqlite.close()


def _passes(error: Exception) -> bool:
    """Whether it is the store that was busy, or the look that took too long."""
    if isinstance(error, sqlite3.Error):
        error = translated(error)  # type: ignore[assignment]  # of an exception it makes one
    return isinstance(error, ManagedError) and error.code is ErrorCode.UNAVAILABLE
