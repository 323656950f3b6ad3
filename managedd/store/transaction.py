"""What happens on a database thread: one transaction, its bodies, and what goes wrong in them.

Nothing here awaits, so nothing here can be cancelled half-way.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from managedd.errors import ErrorCode, ManagedError, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from managedd.bus import Topic
    from managedd.clock import Clock
    from managedd.store.cipher import Place, Vault

    Parameters = Sequence[Any] | Mapping[str, Any]

T = TypeVar("T")

Row = sqlite3.Row

_TRANSACTION_WORDS = ("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE")
_PRIMARY_CODE_MASK = 0xFF


class IntegrityFault(ManagedError):
    """A constraint refused the statement; the rest of the transaction stands, so a body may catch it and go on.

    `constraint` is the rule as SQLite names it: `UNIQUE flow.workspace_id, flow.name`, `FOREIGN KEY`, `CHECK positive`.
    """

    def __init__(self, error: sqlite3.IntegrityError) -> None:
        kind, found, columns = str(error).partition(" constraint failed")
        self.constraint = f"{kind}{columns.replace(':', '', 1)}" if found else str(error)
        if kind == "UNIQUE":
            message = "such an object exists already"
        elif kind == "FOREIGN KEY":
            message = "an object that this one refers to does not exist, or this one is still referred to"
        else:
            message = "the values break a rule of the store"
        super().__init__(ErrorCode.CONFLICT, message)


def translated(error: BaseException) -> BaseException:
    """The error that a caller gets for `error`: what passes by itself is UNAVAILABLE, what is a fault stays what it is."""
    if isinstance(error, sqlite3.IntegrityError):
        fault: ManagedError = IntegrityFault(error)
    elif isinstance(error, sqlite3.Error):
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY_CODE_MASK:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_INTERRUPT:
                fault = unavailable("the store is busy")
            case sqlite3.SQLITE_FULL:
                fault = unavailable("the disk is full: the store can't grow until there is space", 5.0)
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
                fault = unavailable(f"the disk under the store failed: {error}", 5.0)
            case _:
                return error
    else:
        return error
    fault.__cause__ = error
    return fault


class _Frame:
    """What every scope of one body shares."""

    __slots__ = ("connection", "cursors", "ended_by", "now", "open", "readonly", "ring_before", "topics", "vault")

    def __init__(self, connection: sqlite3.Connection, now: int, vault: Vault, *, readonly: bool) -> None:
        self.connection = connection
        self.vault = vault
        # Taken before the first statement, with which the transaction begins to see the store as it is then.
        self.ring_before = vault.ring_if_any
        self.now = now
        self.readonly = readonly
        self.open = True
        self.topics: list[Topic] = []
        self.cursors: list[sqlite3.Cursor] = []
        self.ended_by: BaseException | None = None

    def execute(self, sql: str, call: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        if not self.open:
            raise ManagedError(ErrorCode.INTERNAL, "a transaction was used after its end")
        if self.ended_by is not None:
            # Without this, a body that swallowed the error would go on statement by statement outside any transaction.
            raise self.ended_by
        if sql[:32].lstrip().upper().startswith(_TRANSACTION_WORDS):
            raise ManagedError(ErrorCode.INTERNAL, "a body may not control its transaction")
        try:
            cursor = call()
        except sqlite3.Error as error:
            fault = translated(error)
            if self.readonly and getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY:
                fault = ManagedError(ErrorCode.INTERNAL, "a read transaction tried to write")
                fault.__cause__ = error
            if not self.connection.in_transaction:
                self.ended_by = fault
            raise fault from fault.__cause__
        if cursor.description is not None:
            self.cursors.append(cursor)
        return cursor

    def close(self) -> None:
        """Nothing of the body can touch the database afterwards.

        An unread cursor would keep its statement running: a RETURNING one makes RELEASE fail, a SELECT pins the snapshot.
        """
        self.open = False
        for cursor in self.cursors:
            cursor.close()
        self.cursors.clear()


class Tx:
    """The transaction as its body sees it. Lives on the database thread and ends with the body."""

    __slots__ = ("_frame", "_workspace", "now", "readonly")

    def __init__(self, frame: _Frame, workspace: str | None) -> None:
        self._frame = frame
        self._workspace = workspace
        self.now = frame.now
        """Microseconds since the epoch, the same for the whole transaction."""
        self.readonly = frame.readonly

    @property
    def workspace(self) -> str:
        """The workspace that this transaction was opened for."""
        if self._workspace is None:
            raise ManagedError(ErrorCode.INTERNAL, "this transaction was opened without a workspace")
        return self._workspace

    @property
    def vault(self) -> Vault:
        """The keys of what is secret."""
        return self._frame.vault

    def opened(self, place: Place, envelope: bytes) -> bytes:
        """The text of an envelope that this transaction has read, also when the keys have changed since it began. Raises CannotOpen."""
        return self._frame.vault.open(place, envelope, self._frame.ring_before)

    def scoped(self, workspace_id: str) -> Tx:
        """The same transaction, seen from another workspace."""
        return Tx(self._frame, workspace_id)

    def execute(self, sql: str, params: Parameters = ()) -> sqlite3.Cursor:
        """The statement ran; the cursor can be read until the body ends."""
        return self._frame.execute(sql, lambda: self._frame.connection.execute(sql, params))

    def executemany(self, sql: str, params: Iterable[Parameters]) -> sqlite3.Cursor:
        """The statement ran once for each of `params`."""
        return self._frame.execute(sql, lambda: self._frame.connection.executemany(sql, params))

    def one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None."""
        cursor = self.execute(sql, params)
        row: Row | None = cursor.fetchone()
        cursor.close()
        return row

    def all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row."""
        return self.execute(sql, params).fetchall()

    def scalar(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        row = self.one(sql, params)
        return None if row is None else row[0]

    def publish(self, *topics: Topic) -> None:
        """Subscribers of `topics` are woken once this transaction is committed; never if it is not."""
        if self.readonly:
            raise ManagedError(ErrorCode.INTERNAL, "a read transaction has nothing to publish")
        self._frame.topics.extend(topics)


class Job(Generic[T]):
    """One caller's work, from the queue to its outcome. Owned by the event loop, except while a thread runs it."""

    __slots__ = ("_done", "durable", "error", "fn", "interrupt", "queued", "result", "topics", "workspace")

    def __init__(self, fn: Callable[[Any], T], workspace: str | None = None, *, durable: bool = False) -> None:
        self.fn = fn
        self.workspace = workspace
        self.durable = durable
        self.queued = True
        self.interrupt: Callable[[], None] | None = None
        """Stops it while it runs; None when it must run to its end."""
        self.result: T | None = None
        self.error: BaseException | None = None
        self.topics: Sequence[Topic] = ()
        # Of the loop itself: one is made for each request.
        self._done = asyncio.Event()

    def settle(
        self, *, result: T | None = None, error: BaseException | None = None, topics: Sequence[Topic] = ()
    ) -> None:
        """The outcome is what is given here; an earlier one is forgotten."""
        self.result = result
        self.error = error
        self.topics = topics

    def deliver(self) -> None:
        """The caller has its outcome. Only from the event loop."""
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether the caller has its outcome."""
        return self._done.is_set()

    async def delivered(self) -> None:
        """The outcome is there."""
        await self._done.wait()

    def outcome(self) -> T:
        """What the work returned; raises what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.result)


def read_snapshot(
    connection: sqlite3.Connection, body: Callable[[Tx], Any], workspace: str | None, clock: Clock, vault: Vault
) -> Any:
    """What `body` returned, having seen one consistent state of the database and left nothing open."""
    frame = _Frame(connection, clock.now_us(), vault, readonly=True)
    connection.execute("BEGIN")
    try:
        return _plain(body(Tx(frame, workspace)))
    finally:
        frame.close()
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def commit_group(
    connection: sqlite3.Connection, jobs: Sequence[Job[Any]], clock: Clock, budget_seconds: float, vault: Vault
) -> int:
    """The first n of `jobs` are settled, all in one durable commit; returns n, the others were not begun.

    When something ends the transaction, or COMMIT fails, what the bodies saw never came to be: all but the culprit run again
    once, alone, those that had failed too, because they may have failed over a row that is gone.
    """
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        for job in jobs:
            job.settle(error=translated(error))
        return len(jobs)
    if len(jobs) == 1:
        _commit_alone(connection, jobs[0], clock, vault)
        return 1
    ran: list[Job[Any]] = []
    culprit: Job[Any] | None = None
    end = clock.monotonic() + budget_seconds
    for job in jobs:
        if ran and clock.monotonic() >= end:
            break
        ran.append(job)
        if not _run_in_savepoint(connection, job, clock, vault):
            culprit = job
            break
    if culprit is None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _abandon(connection)
            if len(ran) == 1:
                culprit = ran[0]
                culprit.settle(error=translated(error))
        else:
            return len(ran)
    for job in ran:
        if job is not culprit:
            commit_group(connection, [job], clock, budget_seconds, vault)
    return len(ran)


def _commit_alone(connection: sqlite3.Connection, job: Job[Any], clock: Clock, vault: Vault) -> None:
    """The job is settled, and committed when it succeeded; the transaction is its own, so it needs no savepoint."""
    frame = _Frame(connection, clock.now_us(), vault, readonly=False)
    try:
        result = _run_body(frame, job)
        connection.execute("COMMIT")
    except BaseException as error:
        frame.close()
        job.settle(error=translated(error))
        _abandon(connection)
        return
    job.settle(result=result, topics=frame.topics)


def _run_in_savepoint(connection: sqlite3.Connection, job: Job[Any], clock: Clock, vault: Vault) -> bool:
    """The job is settled as if the COMMIT had succeeded; False when the transaction ended under it."""
    frame = _Frame(connection, clock.now_us(), vault, readonly=False)
    try:
        connection.execute("SAVEPOINT body")
        result = _run_body(frame, job)
        connection.execute("RELEASE body")
    except BaseException as error:
        frame.close()
        job.settle(error=translated(error))
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK TO body")
                connection.execute("RELEASE body")
            except sqlite3.Error:
                _abandon(connection)
        return connection.in_transaction
    job.settle(result=result, topics=frame.topics)
    return True


def _run_body(frame: _Frame, job: Job[Any]) -> Any:
    """What the body returned; it can touch the database no more. Raises what ended its transaction, also when the body swallowed it."""
    result = _plain(job.fn(Tx(frame, job.workspace)))
    frame.close()
    if frame.ended_by is not None:
        raise frame.ended_by
    return result


def _abandon(connection: sqlite3.Connection) -> None:
    """No transaction is open. SQLite ends it by itself after some errors, and ROLLBACK would then be one more."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _plain(result: Any) -> Any:
    if isinstance(result, Coroutine):
        result.close()
        raise ManagedError(
            ErrorCode.INTERNAL, "a body must be a plain function: a coroutine can't run on the database thread"
        )
    return result
