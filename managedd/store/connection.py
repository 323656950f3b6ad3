"""The only place that knows aiosqlite, and the only one that uses what it keeps private.

aiosqlite gives every connection a thread, but no public way to run a whole function there: its statements cost one hop each, and a
caller that is cancelled between two of them leaves a transaction open. So functions go straight into the thread's queue
(`_tx`), without a future, and report back through the event loop: no task owns them, so no kind of cancellation reaches them.
`tests/store/test_database.py` fails when aiosqlite changes what is used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import aiosqlite
import anyio

from managedd.errors import ErrorCode, ManagedError
from managedd.store.statements import KeptStatements
from managedd.store.transaction import Job, translated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000
_JOURNAL_SIZE_LIMIT_BYTES = 64 * 1024 * 1024


class Connection:
    """One SQLite connection with the thread that it lives on."""

    def __init__(self, raw: aiosqlite.Connection) -> None:
        self._raw = raw
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[Any] | None = None

    @classmethod
    async def open(cls, path: Path, setup: Callable[[sqlite3.Connection], None]) -> Self:
        """A connection on which `setup` ran, or nothing left over at all."""
        # The file holds credentials' digests and runs' parameters; -wal and -shm take over its mode. Never an existing file:
        # closing any descriptor of it would drop the locks that this process's other connections hold.
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise ManagedError(ErrorCode.CONFIG, f"{path} can't be created: {error.strerror}") from error
        raw = aiosqlite.connect(path, isolation_level=None, factory=KeptStatements)
        # An unclosed connection must not keep the process: SQLite survives a thread that ends anywhere.
        raw._thread.daemon = True
        with anyio.CancelScope(shield=True):
            try:
                connection = cls(await raw)
            except sqlite3.Error as error:
                raise ManagedError(ErrorCode.CONFIG, f"{path} can't be opened: {error}") from error
            try:
                await connection.call(setup)
            except BaseException:
                await connection.close()
                raise
        return connection

    def submit(self, work: Callable[[sqlite3.Connection], None], then: Callable[[], None]) -> None:
        """`work` runs on the thread after what was submitted before; `then` on the event loop after it. `work` must not raise."""
        sqlite, loop = self._raw._conn, self._loop

        def hop() -> None:
            try:
                work(sqlite)
            finally:
                # The loop may be gone: then nobody waits for the outcome either.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(then)

        self._raw._tx.put_nowait((None, hop))

    async def call(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """What `fn` returned, after one hop. Waits to its end also when the caller is cancelled."""
        job = Job(fn)
        self.submit(lambda sqlite: run_bare(sqlite, job), job.deliver)
        with anyio.CancelScope(shield=True):
            await job.delivered()
        return job.outcome()

    def interrupt(self) -> None:
        """The statement that runs now, if any, ends with an error."""
        self._raw._conn.interrupt()

    async def close(self) -> None:
        """The connection is closed and its thread ended, after what was submitted before."""
        if self._ended is None:
            # Asked twice, the thread would never answer the second time.
            self._ended = self._raw.stop()
        with anyio.CancelScope(shield=True):
            if self._ended is not None:
                await self._ended


def run_bare(connection: sqlite3.Connection, job: Job[Any]) -> None:
    """The job is settled with what its function returned or raised."""
    try:
        job.settle(result=job.fn(connection))
    except BaseException as error:
        job.settle(error=translated(error))


def set_up_writer(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> Callable[[sqlite3.Connection], None]:
    """A function that makes a connection the one that writes."""

    def setup(connection: sqlite3.Connection) -> None:
        try:
            _set_up(connection)
            # Only before the first page is written, so before the journal mode.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise ManagedError(
                    ErrorCode.CONFIG, f"{path} is not a SQLite database, or it is damaged: {error}"
                ) from error
            raise
        if mode != "wal":
            raise ManagedError(
                ErrorCode.CONFIG, f"{path}: this file system can't hold a write-ahead log (journal mode {mode})"
            )
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT_BYTES}")

    return setup


def set_up_reader(connection: sqlite3.Connection) -> None:
    """The connection can only read."""
    _set_up(connection)
    connection.execute("PRAGMA query_only = ON")


def _set_up(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA foreign_keys = ON")
