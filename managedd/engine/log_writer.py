"""The log writer: lines of all runs → batches → the log store, each with its cursor in the same commit.

Memory is bounded: whoever has too much waiting is held back, and holds the engine's streams back; a run is never slowed, because the
engine's log file is the buffer behind it. Each execution has a queue of its own, so one that prints without end keeps no other waiting.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio

from managedd import failpoints
from managedd.engine.log_intake import RAW_LEVEL, TOLD_LEVEL, Descendants, Intake, Line
from managedd.engine.log_lanes import Lanes
from managedd.engine.log_work import Floods, Turns, Work
from managedd.errors import ErrorCode, ManagedError, unavailable
from managedd.model.log_limits import NO_LIMITS, NOTHING, LogGate, told
from managedd.model.logs import OUR_NAME, LogCursor, LogRecord, parse_record
from managedd.observe import get_log
from managedd.store import log_sizes, logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from managedd.clock import Clock
    from managedd.engine.log_lanes import Waiting
    from managedd.model.executions import EndLine, Execution
    from managedd.model.log_limits import LogLimits
    from managedd.model.logs import ParsedRecord, RawLine
    from managedd.store.database import Database, Tx

    Hear = Callable[[ParsedRecord | None], Awaitable[None]]

log = get_log("log_writer")

BATCH_LINES = 500
BATCH_SECONDS = 0.03
"""Between two batches at least, unless one is full; the first line after a silence is written at once."""
BUFFER_CHARS = 8 * 1024 * 1024
"""A record may be as long as a megabyte: lines alone are no bound."""
LAST_SECONDS = 5.0
"""How long the last batch may take when the daemon stops: lines of containers are read again by the next one."""


class _Flush:
    """Somebody waits until everything before it is committed."""

    def __init__(self, number: int) -> None:
        self.number = number
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

    def __init__(self, db: Database, log_db: Database, clock: Clock, limits: LogLimits = NO_LIMITS) -> None:
        self._db = db
        self._log_db = log_db
        self._clock = clock
        self._limits = limits
        self._lanes: Lanes[Line] = Lanes(chars=BUFFER_CHARS)
        self._batch: list[Waiting[Line]] = []
        """What was taken from the queues and is not committed yet: it outlives a cancelled or failed turn of the loop."""
        self._flushes: list[_Flush] = []
        self._stirred = anyio.Event()
        self._begun = -BATCH_SECONDS
        self._gates: dict[str, LogGate] = {}
        self._floods = Floods()

    async def run(self) -> None:
        """Writes until cancelled; what had been handed in by then is written first. Whoever hands in more is refused."""
        try:
            while True:
                await self._fill()
                await self._write()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(LAST_SECONDS):
                self._batch += self._lanes.take()
                await self._write()
            self._close()
            raise

    def _close(self) -> None:
        self._lanes.close()
        for flush in self._flushes:
            flush.settle(written=False)
        self._flushes = []

    async def say(self, execution: Execution, message: str, *, level: int = RAW_LEVEL) -> None:
        """The run's log has a line of ours: behind what of it was handed in before, and whatever its limits are."""
        record = _ours(execution, level, message, self._clock.now_us())
        await self._hand_in(execution, Line(workspace_id=execution.workspace_id, records=(record,)), urgent=True)

    async def say_end(self, execution: Execution, line: EndLine) -> None:
        """The same of how the execution ended, once: not again when the log says so already."""
        record = _ours(execution, line.level, line.message, self._clock.now_us())
        said = Line(workspace_id=execution.workspace_id, records=(record,), execution_id=execution.id, tells_end=True)
        await self._hand_in(execution, said, urgent=True)

    async def flush(self) -> None:
        """Everything handed in before is committed. Raises ManagedError(UNAVAILABLE) when the writer has stopped before that."""
        if self._lanes.is_closed:
            raise _stopped()
        flush = _Flush(self._lanes.handed_in)
        self._flushes.append(flush)
        self._stir()
        await flush.wait()

    async def secure(self, execution: Execution) -> None:
        """What is stored of the execution's output outlives a power cut: nobody has to read it again. Raises ManagedError(UNAVAILABLE)."""
        # Any write will do: with it everything goes to the disk that was committed before.
        await self._log_db.write(
            lambda tx: logs.set_cursor(tx, execution.id, logs.cursor(tx, execution.id)), durable=True
        )

    async def complete(self, execution: Execution, end: EndLine | None = None) -> None:
        """The execution's log is whole: everything handed in is committed, what was dropped without being told is told, and so is `end`.

        Raises ManagedError(UNAVAILABLE) when the writer has stopped, or the store is busy.
        """
        await self.flush()

        def is_whole(tx: Tx) -> bool:
            return log_sizes.untold(tx, execution.id).lines <= 0 and (
                end is None or log_sizes.is_end_told(tx, execution.id)
            )

        if await self._log_db.read(is_whole):
            return
        gate = self._gates.get(execution.id)
        excess = None if gate is None else gate.excess

        def tell(tx: Tx) -> None:
            records, untold = [], log_sizes.untold(tx, execution.id)
            # In the same step as the lines: whoever comes here again after a crash tells nothing twice.
            if untold.lines > 0:
                records.append(_ours(execution, TOLD_LEVEL, told(untold, excess, self._limits), tx.now))
                log_sizes.drop(tx, execution.id, -untold)
            if end is not None and log_sizes.tell_end(tx, execution.id):
                # Whoever was to say it when it happened was killed before.
                records.append(_ours(execution, end.level, end.message, tx.now))
            logs.append(tx.scoped(execution.workspace_id), records)

        await self._log_db.write(tell)

    async def forget(self, execution: Execution) -> None:
        """Nothing is kept of how far the execution's output was read; what is missed here, the janitor finds."""
        self._gates.pop(execution.id, None)
        try:
            await self._log_db.write(lambda tx: logs.drop_cursor(tx, execution.id))
        except ManagedError as error:
            log.warning("cursor.left", execution_id=execution.id, reason=error.message)

    async def cursor(self, execution: Execution) -> LogCursor:
        """How far the execution's output is stored."""
        return await self._log_db.read(lambda tx: logs.cursor(tx, execution.id))

    async def follow(self, execution: Execution, lines: AsyncIterator[RawLine], hear: Hear) -> None:
        """Every line of `lines` was handed in as a record of the run it belongs to, or counted as dropped; `hear` was told of it before."""
        work = Work()
        intake = await self._intake(execution, Turns(self._floods, work))
        await work.of(_take_in(intake, lines, hear))

    async def _intake(self, execution: Execution, turns: Turns) -> Intake:
        untold, stored_bytes = await self._log_db.read(
            lambda tx: (log_sizes.untold(tx, execution.id), log_sizes.size(tx, execution.flow_run_id))
        )
        # Its rate goes on where it was when the engine's stream was cut; its size is what is stored.
        gate = self._gates.setdefault(execution.id, LogGate(self._limits))
        gate.begin(stored_bytes)

        async def hand_in(line: Line) -> None:
            began = time.monotonic()
            await self._hand_in(execution, line)
            turns.held_back(time.monotonic() - began)

        return Intake(
            execution,
            Descendants(self._db, execution),
            gate,
            self._limits,
            untold=untold,
            turns=turns,
            monotonic=self._clock.monotonic,
            hand_in=hand_in,
        )

    async def _hand_in(self, execution: Execution, line: Line, *, urgent: bool = False) -> None:
        if not await self._lanes.put(execution.id, line, line.chars, urgent=urgent):
            raise _stopped()
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()

    async def _fill(self) -> None:
        if self._batch:
            return
        while not (self._lanes.waiting or self._flushes):
            await self._wait_for_more()
        with anyio.move_on_after(self._begun + BATCH_SECONDS - anyio.current_time()):
            # Somebody waits behind a flush.
            while self._lanes.waiting < BATCH_LINES and not self._flushes:
                await self._wait_for_more()
        self._begun = anyio.current_time()
        self._batch = self._lanes.take(BATCH_LINES)

    async def _wait_for_more(self) -> None:
        await self._stirred.wait()
        self._stirred = anyio.Event()

    async def _write(self) -> None:
        """The batch is committed; a store that is busy or full is waited for, and only a line that nothing can store is dropped."""
        taken = list(self._batch)
        if not await self._commit([one.item for one in taken]):
            for one in taken:
                if not await self._commit([one.item]):
                    log.error("log_line.dropped", flow_run_id=one.item.flow_run_id, execution_id=one.item.execution_id)
                # At once: whoever is cancelled here must not write it again.
                self._batch.remove(one)
                self._lanes.give_back([one])
        failpoints.reach("logs.committed")
        self._lanes.give_back(self._batch)
        self._batch = []
        oldest = self._lanes.oldest()
        for flush in self._flushes:
            if oldest > flush.number:
                flush.settle(written=True)
        self._flushes = [flush for flush in self._flushes if oldest <= flush.number]

    def _settle(self, lines: list[Line], stored_bytes: dict[str, int]) -> None:
        """The gates know what is stored, also of what their runs have sent to the API meanwhile."""
        sizes: Counter[tuple[str, str]] = Counter()
        for line in lines:
            if line.execution_id is not None and line.flow_run_id in stored_bytes:
                sizes[line.execution_id, line.flow_run_id] += line.size_bytes
        for (execution_id, flow_run_id), size_bytes in sizes.items():
            if gate := self._gates.get(execution_id):
                gate.settle(size_bytes, stored_bytes[flow_run_id])

    async def _commit(self, lines: list[Line]) -> bool:
        while lines:
            try:
                with anyio.CancelScope(shield=True):
                    stored_bytes = await self._log_db.write(lambda tx: _append(tx, lines))
                self._settle(lines, stored_bytes)
                break
            except Exception as error:
                if not isinstance(error, ManagedError) or error.code is not ErrorCode.UNAVAILABLE:
                    log.warning("logs.refused", lines=len(lines), reason=str(error))
                    return False
                log.warning("logs.postponed", lines=len(lines), reason=error.message)
                await anyio.sleep(error.retry_after_seconds or 1.0)
        return True


async def _take_in(intake: Intake, lines: AsyncIterator[RawLine], hear: Hear) -> None:
    async for line in lines:
        parsed = parse_record(line.text)
        await hear(parsed)
        await intake.take(line, parsed)
    await intake.end()


def _ours(execution: Execution, level: int, message: str, at_us: int) -> LogRecord:
    return LogRecord(name=OUR_NAME, level=level, message=message, timestamp_us=at_us, flow_run_id=execution.flow_run_id)


def _stopped() -> ManagedError:
    return unavailable("the log writer has stopped")


def _append(tx: Tx, lines: list[Line]) -> dict[str, int]:
    """The lines are stored; returns how large the logs of their runs are now."""
    by_workspace: dict[str, list[LogRecord]] = {}
    cursors: dict[str, LogCursor] = {}
    sizes: Counter[str] = Counter()
    for line in lines:
        if line.tells_end and line.execution_id is not None and not log_sizes.tell_end(tx, line.execution_id):
            continue
        if line.records:
            by_workspace.setdefault(line.workspace_id, []).extend(line.records)
        if line.execution_id is not None and line.cursor is not None:
            cursors[line.execution_id] = line.cursor
        if line.flow_run_id is not None and line.size_bytes:
            sizes[line.flow_run_id] += line.size_bytes
    for workspace, records in by_workspace.items():
        logs.append(tx.scoped(workspace), records)
    failpoints.reach("logs.uncommitted")
    for execution_id, cursor in cursors.items():
        logs.set_cursor(tx, execution_id, cursor)
    for line in lines:
        if line.execution_id is not None and line.dropped != NOTHING:
            log_sizes.drop(tx, line.execution_id, line.dropped)
    return {flow_run_id: log_sizes.grow(tx, flow_run_id, size_bytes) for flow_run_id, size_bytes in sizes.items()}
