"""The store's door: one writer with group commit, a few read-only readers, and no transaction that outlives its function.

Queues and states belong to the event loop and change only there, in callbacks that never wait; the threads run whole transactions and report
back. So a cancelled caller, however it was cancelled, can strand neither a transaction nor the callers behind it.
"""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
from collections import deque
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import anyio
import anyio.lowlevel

from managedd.clock import SystemClock
from managedd.errors import ErrorCode, ManagedError, conflict, unavailable
from managedd.store import migrate
from managedd.store.cipher import Vault
from managedd.store.connection import BUSY_TIMEOUT_MS, Connection, run_bare, set_up_reader, set_up_writer
from managedd.store.transaction import IntegrityFault, Job, Row, Tx, commit_group, read_snapshot, translated
from managedd.store.window import TooMuch, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.resources.abc import Traversable
    from pathlib import Path

    from managedd.bus import Bus
    from managedd.clock import Clock

__all__ = ["Database", "IntegrityFault", "Row", "Tx"]

T = TypeVar("T")

Lane = Literal["engine", "clients"]
"""For whom a read is: clients' reads and long work leave one reader to the engine and to authentication."""

OLDEST_SQLITE = (3, 37)
"""The first with STRICT tables."""
BATCH_BUDGET_SECONDS = 0.1
INTERRUPT_SECONDS = 0.05
"""How often a read that shall end is told so: it hears it only while a statement runs."""
_CHECKPOINT_WAIT_MS = 200
_VACUUM_PAGES = 2000
_SHRINK_PAGES = 500
"""Given back by one step: some ten milliseconds, for which others wait."""
_SPARE_SHARE = 0.1
"""Of a file that may be free: what is written next has it, and nothing has to be moved out of its way."""


class Database:
    """One SQLite file. Belongs to the event loop that opened it."""

    def __init__(
        self,
        path: Path,
        bus: Bus,
        clock: Clock,
        writer: Connection,
        *,
        synchronous: Literal["FULL", "NORMAL"],
        batch_limit: int,
        queue_limit: int,
        finish: Callable[[Tx], None] | None,
    ) -> None:
        self.path = path
        self.vault = Vault()
        """Filled by whoever opens the database, before anything secret is written or read."""
        self._bus = bus
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._synchronous = synchronous
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._finish = finish
        self._writer = writer
        self._writing = False
        self._writes: deque[Job[Any]] = deque()
        self._readers: list[Connection] = []
        self._idle: list[Connection] = []
        self._window: Window | None = None
        self._reads: dict[Lane, deque[Job[Any]]] = {"engine": deque(), "clients": deque()}
        self._busy_with_clients = 0
        self._closing = False
        self._quiet = anyio.Event()
        # Touched by the writer's thread alone.
        self._applied_synchronous: str = synchronous

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        bus: Bus,
        clock: Clock | None = None,
        migrations: str | Traversable,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        readers: int = 3,
        batch_limit: int = 256,
        queue_limit: int = 10_000,
        finish: Callable[[Tx], None] | None = None,
    ) -> Database:
        """The database is migrated and open. `migrations` is a package, or the folder, of numbered SQL files.

        `finish` is called at the end of every write transaction, in it.
        """
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise ManagedError(
                ErrorCode.CONFIG, f"SQLite {oldest} or newer is needed, this Python has {sqlite3.sqlite_version}"
            )
        clock = clock or SystemClock()
        known = migrate.load(migrations)
        writer = await Connection.open(path, set_up_writer(path, synchronous))
        database = cls(
            path,
            bus,
            clock,
            writer,
            synchronous=synchronous,
            batch_limit=batch_limit,
            queue_limit=queue_limit,
            finish=finish,
        )
        try:
            now_us = clock.now_us()
            await writer.call(lambda sqlite: migrate.apply(sqlite, known, now_us))
            for _ in range(readers):
                reader = await Connection.open(path, set_up_reader)
                database._readers.append(reader)
                database._idle.append(reader)
            database._window = Window(path, database.vault)
        except BaseException:
            await database.close()
            raise
        return database

    async def look(self, fn: Callable[[Tx], T], *, workspace: str | None = None, lane: Lane = "engine") -> T:
        """Like `read`, for what reads a few rows by their keys: at once, without a thread. What turns out to be more is read as by `read`.

        `fn` may run a second time.
        """
        if self._closing or self._window is None:
            raise unavailable("the store is closed")
        try:
            return self._window.look(fn, workspace, self._clock)
        except TooMuch:
            return await self.read(fn, workspace=workspace, lane=lane)

    async def read(
        self,
        fn: Callable[[Tx], T],
        *,
        workspace: str | None = None,
        lane: Lane = "engine",
        deadline_seconds: float = math.inf,
    ) -> T:
        """What `fn` returned, having seen one consistent, committed state.

        Raises ManagedError(UNAVAILABLE) when that takes longer than `deadline_seconds`, the wait for a reader included.
        """
        return await self._on_reader(
            lambda sqlite: read_snapshot(sqlite, fn, workspace, self._clock, self.vault), lane, deadline_seconds
        )

    async def write(self, fn: Callable[[Tx], T], *, workspace: str | None = None, durable: bool | None = None) -> T:
        """What `fn` returned; its changes are committed and its topics published.

        `durable` overrides the database's `synchronous`: True survives a power cut, False may not.
        A caller that is cancelled while it still queues has written nothing; later, the transaction ends first.
        `fn` may run a second time, so it has no effects but SQL and `tx.publish`.
        """
        must_sync = self._synchronous == "FULL" if durable is None else durable
        job = Job(self._finished(fn), workspace, durable=must_sync)
        await self._enter(self._writes, job)
        # Not at once: what became ready in the same turn of the loop shares the commit.
        self._loop.call_soon(self._start_batch)
        try:
            await job.delivered()
        except anyio.get_cancelled_exc_class():
            await self._withdraw(self._writes, job)
            raise
        return job.outcome()

    def _finished(self, fn: Callable[[Tx], T]) -> Callable[[Tx], T]:
        finish = self._finish
        if finish is None:
            return fn

        def whole(tx: Tx) -> T:
            result = fn(tx)
            finish(tx)
            return result

        return whole

    async def checkpoint(self) -> None:
        """Freed pages went back to the file system, and the write-ahead log is as short as the readers allow."""

        def truncate(sqlite: sqlite3.Connection) -> None:
            sqlite.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_WAIT_MS}")
            try:
                sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                sqlite.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")

        await self.write(lambda tx: _vacuum(tx, _VACUUM_PAGES))
        await self._on_reader(truncate, "clients")

    async def shrink(self) -> bool:
        """Some of the freed pages went back to the file system, if they were many; whether it is worth doing again."""

        def step(tx: Tx) -> bool:
            free, pages = tx.scalar("PRAGMA freelist_count"), tx.scalar("PRAGMA page_count")
            many = int((free - pages * _SPARE_SHARE) / (1 - _SPARE_SHARE))
            _vacuum(tx, min(many, _SHRINK_PAGES))
            # A file that somebody has made anew, as from a dump, may be one that can't give pages back.
            return many > _SHRINK_PAGES and bool(tx.scalar("PRAGMA freelist_count") < free)

        return await self.write(step)

    async def size_bytes(self) -> int:
        """What the database and its write-ahead log occupy."""

        def measure(_: sqlite3.Connection) -> int:
            files = (self.path, self.path.with_name(f"{self.path.name}-wal"))
            return sum(file.stat().st_size for file in files if file.exists())

        return await self._on_reader(measure, "engine")

    async def integrity(self) -> list[str]:
        """What is wrong with the file, in words; empty when nothing is."""

        def check(tx: Tx) -> list[str]:
            damaged = [str(row[0]) for row in tx.all("PRAGMA integrity_check") if row[0] != "ok"]
            dangling = [
                f"row {row['rowid']} of {row['table']} refers to a missing row of {row['parent']}"
                for row in tx.all("PRAGMA foreign_key_check")
            ]
            return damaged + dangling

        return await self.read(check, lane="clients")

    async def backup(self, to: Path) -> None:
        """`to` is a complete, consistent database in one file; writers were not held up. Never replaces a file."""

        def copy(sqlite: sqlite3.Connection) -> None:
            partial = to.with_name(f"{to.name}.partial")
            try:
                partial.unlink(missing_ok=True)
                os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
                target = sqlite3.connect(partial, isolation_level=None)
                try:
                    sqlite.backup(target)
                    # A copy in write-ahead mode would need its -wal beside it.
                    target.execute("PRAGMA journal_mode = DELETE").fetchall()
                finally:
                    target.close()
                _sync(partial)
                os.link(partial, to)
                _sync(to.parent)
            except FileExistsError:
                raise conflict(f"{to} exists already") from None
            except OSError as error:
                raise unavailable(f"{to} can't be written: {error.strerror}") from error
            finally:
                partial.unlink(missing_ok=True)

        await self._on_reader(copy, "clients")

    async def close(self) -> None:
        """Everything that was queued is done and every connection closed. Calls after it are refused; it may be repeated."""
        self._closing = True
        self._note_quiet()
        try:
            with anyio.CancelScope(shield=True):
                await self._quiet.wait()
        finally:
            # The writer last: the last connection folds the write-ahead log into the file.
            if self._window is not None:
                self._window.close()
            for reader in self._readers:
                await reader.close()
            await self._writer.close()

    async def _enter(self, queue: deque[Job[Any]], job: Job[Any]) -> None:
        # A caller that is cancelled already has not asked for anything.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._closing:
            raise unavailable("the store is closed")
        if len(queue) >= self._queue_limit:
            raise unavailable("the store has too much to do")
        queue.append(job)

    async def _withdraw(self, queue: deque[Job[Any]], job: Job[Any]) -> None:
        """Nothing runs for `job` any more."""
        if job.queued:
            queue.remove(job)
            job.queued = False
            self._note_quiet()
            return
        with anyio.CancelScope(shield=True):
            while not job.done:
                if job.interrupt is None:
                    await job.delivered()
                else:
                    job.interrupt()
                    with anyio.move_on_after(INTERRUPT_SECONDS):
                        await job.delivered()

    def _start_batch(self) -> None:
        if self._writing or not self._writes:
            return
        self._writing = True
        batch = [self._writes.popleft() for _ in range(min(self._batch_limit, len(self._writes)))]
        for job in batch:
            job.queued = False
        settled = 0

        def work(sqlite: sqlite3.Connection) -> None:
            nonlocal settled
            settled = self._run_batch(sqlite, batch)

        self._writer.submit(work, lambda: self._finish_batch(batch[:settled], batch[settled:]))

    def _run_batch(self, sqlite: sqlite3.Connection, batch: Sequence[Job[Any]]) -> int:
        """On the writer's thread: how many of `batch` are settled."""
        try:
            wanted = "FULL" if any(job.durable for job in batch) else "NORMAL"
            if wanted != self._applied_synchronous:
                sqlite.execute(f"PRAGMA synchronous = {wanted}")
                self._applied_synchronous = wanted
            return commit_group(sqlite, batch, self._clock, BATCH_BUDGET_SECONDS, self.vault)
        except BaseException as error:
            # Nothing below is expected to raise; if it does, callers must not wait for ever.
            for job in batch:
                job.settle(error=translated(error))
            return len(batch)

    def _finish_batch(self, settled: Sequence[Job[Any]], left: Sequence[Job[Any]]) -> None:
        self._writing = False
        for job in reversed(left):
            job.queued = True
            self._writes.appendleft(job)
        self._bus.publish({topic for job in settled for topic in job.topics})
        for job in settled:
            job.deliver()
        if self._writes:
            self._loop.call_soon(self._start_batch)
        self._note_quiet()

    async def _on_reader(
        self, fn: Callable[[sqlite3.Connection], T], lane: Lane, deadline_seconds: float = math.inf
    ) -> T:
        job, queue = Job(fn), self._reads[lane]
        await self._enter(queue, job)
        self._start_reads()
        try:
            with anyio.move_on_after(deadline_seconds):
                await job.delivered()
        except anyio.get_cancelled_exc_class():
            await self._withdraw(queue, job)
            raise
        if not job.done:
            began = not job.queued
            await self._withdraw(queue, job)
            raise unavailable(
                f"the query took longer than {deadline_seconds:g} seconds and was stopped: ask for less, with a narrower filter"
                if began
                else f"no reader of the store was free for {deadline_seconds:g} seconds"
            )
        return job.outcome()

    def _start_reads(self) -> None:
        while self._idle:
            if self._reads["engine"]:
                lane: Lane = "engine"
            elif self._reads["clients"] and self._busy_with_clients < max(1, len(self._readers) - 1):
                lane = "clients"
            else:
                return
            self._start_read(self._idle.pop(), self._reads[lane].popleft(), lane)

    def _start_read(self, reader: Connection, job: Job[Any], lane: Lane) -> None:
        job.queued = False
        job.interrupt = reader.interrupt
        self._busy_with_clients += lane == "clients"

        def finish() -> None:
            self._idle.append(reader)
            self._busy_with_clients -= lane == "clients"
            job.deliver()
            self._start_reads()
            self._note_quiet()

        reader.submit(lambda sqlite: run_bare(sqlite, job), finish)

    def _note_quiet(self) -> None:
        """Whoever closes goes on, once nothing is queued and nothing runs."""
        busy = self._writing or self._writes or any(self._reads.values()) or len(self._idle) < len(self._readers)
        if self._closing and not busy:
            self._quiet.set()


def _vacuum(tx: Tx, pages: int) -> None:
    """So many free pages, if there are, went back to the file system."""
    # The module `sqlite3` steps this statement once, and a step frees one page, whatever number is asked for.
    for _ in range(min(pages, tx.scalar("PRAGMA freelist_count"))):
        tx.execute("PRAGMA incremental_vacuum(1)")


def _sync(path: Path) -> None:
    """What was written to the file or folder survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
