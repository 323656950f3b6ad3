"""The log writer: lines of all runs → batches → the log store, each with its cursor in the same commit.

Memory is bounded: a full buffer holds the followers back, and they hold the engine's streams back; a run is never slowed, because the
engine's log file is the buffer behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from managedd import failpoints
from managedd.errors import ErrorCode, ManagedError, unavailable
from managedd.model.logs import LogCursor, LogRecord, RawLine, parse_record
from managedd.observe import get_log
from managedd.store import lineage, logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from managedd.clock import Clock
    from managedd.model.executions import Execution
    from managedd.model.logs import ParsedRecord
    from managedd.store.database import Database, Tx

    Hear = Callable[[ParsedRecord | None], Awaitable[None]]

log = get_log("log_writer")

BATCH_LINES = 500
BATCH_SECONDS = 0.1
BUFFER_LINES = 2_000
BUFFER_CHARS = 8 * 1024 * 1024
"""A record may be as long as a megabyte: lines alone are no bound."""
LAST_SECONDS = 5.0
"""How long the last batch may take when the daemon stops: lines of containers are read again by the next one."""
RAW_LEVEL = 20
"""INFO: what a raw line of output counts as."""
OUR_NAME = "managedd"
"""The logger name of what the daemon itself says in a run's log."""
KNOWN_RUNS = 4_096
"""How many other runs of one execution are remembered as its descendants."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    workspace_id: str
    record: LogRecord
    execution_id: str | None = None
    cursor: LogCursor | None = None


class _Flush:
    """Somebody waits until everything before it is committed."""

    def __init__(self) -> None:
        self._done = anyio.Event()
        self._written = False

    def settle(self, *, written: bool) -> None:
        self._written = written
        self._done.set()

    async def wait(self) -> None:
        await self._done.wait()
        if not self._written:
            raise _stopped()


class LogWriter:
    """Writes what runs print and what the daemon says of them."""

    def __init__(self, db: Database, log_db: Database, clock: Clock) -> None:
        self._db = db
        self._log_db = log_db
        self._clock = clock
        self._send, self._receive = anyio.create_memory_object_stream[_Line | _Flush](BUFFER_LINES)
        self._batch: list[_Line | _Flush] = []
        """What was taken from the stream and is not committed yet: it outlives a cancelled or failed turn of the loop."""
        self._room = _Room(BUFFER_CHARS)

    async def run(self) -> None:
        """Writes until cancelled; what had been handed in by then is written first. Whoever hands in more is refused."""
        try:
            while True:
                await self._fill()
                await self._write()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_SECONDS):
                self._take_rest()
                await self._write()
            self._close()
            raise

    def _close(self) -> None:
        self._take_rest()
        for item in self._batch:
            if isinstance(item, _Flush):
                item.settle(written=False)
        self._receive.close()
        self._send.close()

    async def say(self, execution: Execution, message: str, *, level: int = RAW_LEVEL) -> None:
        """The run's log has a line of ours."""
        record = LogRecord(
            name=OUR_NAME,
            level=level,
            message=message,
            timestamp_us=self._clock.now_us(),
            flow_run_id=execution.flow_run_id,
        )
        await self._hand_in(_Line(workspace_id=execution.workspace_id, record=record))

    async def flush(self) -> None:
        """Everything handed in before is committed. Raises ManagedError(UNAVAILABLE) when the writer has stopped before that."""
        flush = _Flush()
        try:
            await self._send.send(flush)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise _stopped() from None
        await flush.wait()

    async def forget(self, execution: Execution) -> None:
        """Nothing is kept of how far the execution's output was read; what is missed here, the janitor finds."""
        await self.flush()
        try:
            await self._log_db.write(lambda tx: logs.drop_cursor(tx, execution.id))
        except ManagedError as error:
            log.warning("cursor.left", execution_id=execution.id, reason=error.message)

    async def cursor(self, execution: Execution) -> LogCursor:
        """How far the execution's output is stored."""
        return await self._log_db.read(lambda tx: logs.cursor(tx, execution.id))

    async def follow(self, execution: Execution, lines: AsyncIterator[RawLine], hear: Hear) -> None:
        """Every line of `lines` was handed in, as a record of the run it belongs to; `hear` was told of it before."""
        own = _Descendants(self._db, execution)
        async for line in lines:
            parsed = parse_record(line.text)
            await hear(parsed)
            record = await self._record(execution, line, parsed, own)
            await self._hand_in(
                _Line(
                    workspace_id=execution.workspace_id,
                    record=record,
                    execution_id=execution.id,
                    cursor=line.cursor,
                )
            )

    async def _record(
        self, execution: Execution, line: RawLine, parsed: ParsedRecord | None, own: _Descendants
    ) -> LogRecord:
        if parsed is not None:
            run_id = parsed.flow_run_id or execution.flow_run_id
            if await own.include(run_id):
                return LogRecord(
                    name=parsed.name,
                    level=parsed.level,
                    message=parsed.message,
                    timestamp_us=parsed.timestamp_us,
                    flow_run_id=run_id,
                    task_run_id=parsed.task_run_id,
                )
        # A flow can print what it likes: whatever is no record of this run or its children is a line of this run.
        return LogRecord(
            name=line.stream.value,
            level=RAW_LEVEL,
            message=line.text,
            timestamp_us=line.cursor.timestamp_ns // 1000,
            flow_run_id=execution.flow_run_id,
        )

    async def _hand_in(self, line: _Line) -> None:
        await self._room.take(len(line.record.message))
        try:
            await self._send.send(line)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            raise _stopped() from None
        except BaseException:
            self._room.give_back(len(line.record.message))
            raise

    async def _fill(self) -> None:
        if not self._batch:
            self._batch.append(await self._receive.receive())
        with anyio.move_on_after(BATCH_SECONDS):
            # Somebody waits behind a flush.
            while len(self._batch) < BATCH_LINES and not isinstance(self._batch[-1], _Flush):
                self._batch.append(await self._receive.receive())

    def _take_rest(self) -> None:
        while True:
            try:
                self._batch.append(self._receive.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
                return

    async def _write(self) -> None:
        """The batch is committed; a store that is busy or full is waited for, and only a line that nothing can store is dropped."""
        lines = [item for item in self._batch if isinstance(item, _Line)]
        if not await self._commit(lines):
            for line in lines:
                if not await self._commit([line]):
                    log.error("log_line.dropped", flow_run_id=line.record.flow_run_id, execution_id=line.execution_id)
                # At once: whoever is cancelled here must not write it again.
                self._batch.remove(line)
        failpoints.reach("logs.committed")
        for item in self._batch:
            if isinstance(item, _Flush):
                item.settle(written=True)
        self._room.give_back(sum(len(line.record.message) for line in lines))
        self._batch = []

    async def _commit(self, lines: list[_Line]) -> bool:
        while lines:
            try:
                with anyio.CancelScope(shield=True):
                    await self._log_db.write(lambda tx: _append(tx, lines))
                break
            except Exception as error:
                if not isinstance(error, ManagedError) or error.code is not ErrorCode.UNAVAILABLE:
                    log.warning("logs.refused", lines=len(lines), reason=str(error))
                    return False
                log.warning("logs.postponed", lines=len(lines), reason=error.message)
                await anyio.sleep(error.retry_after_seconds or 1.0)
        return True


def _stopped() -> ManagedError:
    return unavailable("the log writer has stopped")


class _Room:
    """So many characters may be on their way; one line always may."""

    def __init__(self, chars: int) -> None:
        self._limit = chars
        self._taken = 0
        self._freed = anyio.Event()

    async def take(self, chars: int) -> None:
        while self._taken and self._taken + chars > self._limit:
            await self._freed.wait()
        self._taken += chars

    def give_back(self, chars: int) -> None:
        self._taken -= chars
        self._freed.set()
        self._freed = anyio.Event()


def _append(tx: Tx, lines: list[_Line]) -> None:
    by_workspace: dict[str, list[LogRecord]] = {}
    cursors: dict[str, LogCursor] = {}
    for line in lines:
        by_workspace.setdefault(line.workspace_id, []).append(line.record)
        if line.execution_id is not None and line.cursor is not None:
            cursors[line.execution_id] = line.cursor
    for workspace, records in by_workspace.items():
        logs.append(tx.scoped(workspace), records)
    failpoints.reach("logs.uncommitted")
    for execution_id, cursor in cursors.items():
        logs.set_cursor(tx, execution_id, cursor)


class _Descendants:
    """Which runs an execution may write log lines of: its own and those below it, in its workspace."""

    def __init__(self, db: Database, execution: Execution) -> None:
        self._db = db
        self._execution = execution
        self._known: dict[str, bool] = {execution.flow_run_id: True}

    async def include(self, run_id: str) -> bool:
        known = self._known.get(run_id)
        if known is None:
            known = await self._db.read(
                lambda tx: lineage.is_descendant(tx, run_id, self._execution.flow_run_id),
                workspace=self._execution.workspace_id,
            )
            if len(self._known) < KNOWN_RUNS:
                self._known[run_id] = known
        return known
