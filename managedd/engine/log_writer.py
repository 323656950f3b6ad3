"""The log writer: lines of all runs → batches → the log store, each with its cursor in the same commit.

Memory is bounded: a full buffer holds the followers back, and they hold the engine's streams back; a run is never slowed, because the
engine's log file is the buffer behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from managedd.errors import ManagedError
from managedd.model.logs import LogCursor, LogRecord, RawLine, parse_record
from managedd.observe import get_log
from managedd.store import lineage, logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from managedd.clock import Clock
    from managedd.model.executions import Execution
    from managedd.store.database import Database, Tx

log = get_log("log_writer")

BATCH_LINES = 500
BATCH_SECONDS = 0.1
BUFFER_LINES = 2_000
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


class LogWriter:
    """Writes what runs print and what the daemon says of them."""

    def __init__(self, db: Database, log_db: Database, clock: Clock) -> None:
        self._db = db
        self._log_db = log_db
        self._clock = clock
        self._send, self._receive = anyio.create_memory_object_stream[_Line | anyio.Event](BUFFER_LINES)

    async def run(self) -> None:
        """Writes until cancelled; what had been handed in by then is written first."""
        try:
            while True:
                await self._write(await self._batch())
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await self._write(self._rest())

    async def say(self, execution: Execution, message: str, *, level: int = RAW_LEVEL) -> None:
        """The run's log has a line of ours."""
        record = LogRecord(
            name=OUR_NAME,
            level=level,
            message=message,
            timestamp_us=self._clock.now_us(),
            flow_run_id=execution.flow_run_id,
        )
        await self._send.send(_Line(workspace_id=execution.workspace_id, record=record))

    async def flush(self) -> None:
        """Everything handed in before is committed."""
        done = anyio.Event()
        await self._send.send(done)
        await done.wait()

    async def cursor(self, execution: Execution) -> LogCursor:
        """How far the execution's output is stored."""
        return await self._log_db.read(lambda tx: logs.cursor(tx, execution.id))

    async def follow(self, execution: Execution, lines: AsyncIterator[RawLine]) -> None:
        """Every line of `lines` was handed in, as a record of the run it belongs to."""
        own = _Descendants(self._db, execution)
        async for line in lines:
            record = await self._record(execution, line, own)
            await self._send.send(
                _Line(
                    workspace_id=execution.workspace_id,
                    record=record,
                    execution_id=execution.id,
                    cursor=line.cursor,
                )
            )

    async def _record(self, execution: Execution, line: RawLine, own: _Descendants) -> LogRecord:
        parsed = parse_record(line.text)
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

    async def _batch(self) -> list[_Line | anyio.Event]:
        batch: list[_Line | anyio.Event] = [await self._receive.receive()]
        with anyio.move_on_after(BATCH_SECONDS):
            while len(batch) < BATCH_LINES and not isinstance(batch[-1], anyio.Event):
                batch.append(await self._receive.receive())
        return batch

    def _rest(self) -> list[_Line | anyio.Event]:
        rest: list[_Line | anyio.Event] = []
        while True:
            try:
                rest.append(self._receive.receive_nowait())
            except (anyio.WouldBlock, anyio.EndOfStream):
                return rest

    async def _write(self, batch: list[_Line | anyio.Event]) -> None:
        lines = [item for item in batch if isinstance(item, _Line)]
        while lines:
            try:
                with anyio.CancelScope(shield=True):
                    await self._log_db.write(lambda tx: _append(tx, lines))
                break
            except ManagedError as error:
                log.warning("logs.postponed", lines=len(lines), reason=error.message)
                await anyio.sleep(error.retry_after_seconds or 1.0)
        for item in batch:
            if isinstance(item, anyio.Event):
                item.set()


def _append(tx: Tx, lines: list[_Line]) -> None:
    by_workspace: dict[str, list[LogRecord]] = {}
    cursors: dict[str, LogCursor] = {}
    for line in lines:
        by_workspace.setdefault(line.workspace_id, []).append(line.record)
        if line.execution_id is not None and line.cursor is not None:
            cursors[line.execution_id] = line.cursor
    for workspace, records in by_workspace.items():
        logs.append(tx.scoped(workspace), records)
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
