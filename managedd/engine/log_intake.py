"""One execution's output on its way to the log writer: whose each line is, and whether it is kept."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from managedd.model.log_limits import (
    LINE_OVERHEAD_BYTES,
    NOTHING,
    TASK_RUN_BYTES,
    Dropped,
    Excess,
    full,
    line_bytes,
    size_of,
    told,
)
from managedd.model.logs import OUR_NAME, LogRecord, claimed_name
from managedd.store import lineage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from managedd.engine.log_work import Turns
    from managedd.model.executions import Execution
    from managedd.model.log_limits import LogGate, LogLimits
    from managedd.model.logs import LogCursor, ParsedRecord, RawLine
    from managedd.store.database import Database

RAW_LEVEL: Final = 20
"""INFO: what a raw line of output counts as."""
TOLD_LEVEL: Final = 30
GAP: Final = (
    "Lines may be missing here: the run printed more than is kept while nobody read it (docker.log_max_size and docker.log_max_files; "
    "process.output_max_bytes)."
)
KNOWN_RUNS: Final = 4_096
"""How many runs, and how many task runs, are remembered as an execution's own, and how many as not."""
MARK_LINES: Final = 1_000
"""After so many dropped lines the cursor moves on."""
LAST_LINES: Final = 100
LAST_BYTES: Final = 64 * 1024
"""Of what is dropped, so much is kept in memory: at the end of the output it is what a reader wants most."""


@dataclass(slots=True, kw_only=True, eq=False)
class Line:
    """What is stored in one step: lines, how far the output is read, and what that counts."""

    workspace_id: str
    records: tuple[LogRecord, ...] = ()
    flow_run_id: str | None = None
    """Whose size it counts against."""
    execution_id: str | None = None
    cursor: LogCursor | None = None
    size_bytes: int = 0
    dropped: Dropped = NOTHING
    """What was dropped since the line before, less what is told here."""
    tells_end: bool = False
    """Whether `records` say how the execution ended: they are stored once."""

    @property
    def chars(self) -> int:
        """Characters of text."""
        return sum(len(record.message) for record in self.records)


class Intake:
    """Takes in one execution's lines."""

    def __init__(
        self,
        execution: Execution,
        descendants: Descendants,
        gate: LogGate,
        limits: LogLimits,
        *,
        untold: Dropped,
        turns: Turns,
        monotonic: Callable[[], float],
        hand_in: Callable[[Line], Awaitable[None]],
    ) -> None:
        self._execution = execution
        self._descendants = descendants
        self._gate = gate
        self._limits = limits
        self._turns = turns
        self._monotonic = monotonic
        self._hand_in = hand_in
        self._untold = untold
        is_full = limits.max_bytes is not None and gate.stored_bytes >= limits.max_bytes
        self._announced = is_full and untold.lines > 0
        self._unmarked = NOTHING
        """Of `_untold`, what the store does not know yet."""
        self._previous: RawLine | None = None
        self._last: deque[tuple[RawLine, ParsedRecord | None, int]] = deque()
        self._last_bytes = 0

    async def take(self, line: RawLine, parsed: ParsedRecord | None) -> None:
        """The line was handed in, or it counts as dropped."""
        if line.follows_gap:
            said = self._said(GAP, line.cursor.timestamp_ns // 1000)
            await self._hand_in(self._line((said,), None, 0))
        text_bytes = self._text_bytes(line, parsed)
        before = self._gate.excess
        more_bytes = self._more_bytes(parsed)
        if self._gate.admit(line.cursor.timestamp_ns, text_bytes, self._monotonic(), more_bytes):
            if self._untold.lines:
                await self._tell(self._previous or line, before)
            record = await self._record(line, parsed)
            await self._hand_in(self._line((record,), line.cursor, text_bytes + more_bytes + LINE_OVERHEAD_BYTES))
        else:
            await self._drop(line, parsed, text_bytes, before)
        self._previous = line
        await self._turns.took_one(is_kept=self._gate.excess is None)

    def _text_bytes(self, line: RawLine, parsed: ParsedRecord | None) -> int:
        # A record of another run is stored as it was printed: its escapes may be longer than its message.
        if parsed is None or not (parsed.flow_run_id is None or self._descendants.knows(parsed.flow_run_id)):
            return size_of(line.text)
        return line_bytes(parsed.name, parsed.message)

    def _more_bytes(self, parsed: ParsedRecord | None) -> int:
        # A run may make up as many task runs as it likes, and each has a row of its own.
        is_new = parsed is not None and self._descendants.is_new_task_run(parsed.task_run_id)
        return TASK_RUN_BYTES if is_new else 0

    async def end(self) -> None:
        """The output has ended: what was dropped is told, and then come its last lines, which were kept."""
        if not self._untold.lines or self._previous is None:
            return
        kept = Dropped(len(self._last), self._last_bytes)
        missing = self._untold + -kept
        records = [await self._record(line, parsed) for line, parsed, _ in self._last]
        if missing.lines > 0:
            at_us = records[0].timestamp_us if records else self._previous.cursor.timestamp_ns // 1000
            records.insert(0, self._said(told(missing, self._gate.excess, self._limits), at_us))
        for _, _, text_bytes in self._last:
            self._gate.count(text_bytes + LINE_OVERHEAD_BYTES)
        await self._settle(tuple(records), kept.bytes + kept.lines * LINE_OVERHEAD_BYTES)

    async def _drop(self, line: RawLine, parsed: ParsedRecord | None, text_bytes: int, before: Excess | None) -> None:
        one = Dropped(1, text_bytes)
        self._untold += one
        self._unmarked += one
        self._keep_last(line, parsed, text_bytes)
        if self._gate.excess is Excess.SIZE and before is not Excess.SIZE and not self._announced:
            # At once: nothing else is said of it until the output ends.
            self._announced = True
            most = self._limits.max_bytes or 0
            said = self._said(full(most), line.cursor.timestamp_ns // 1000)
            # Nothing more fits from here on, and nobody says so again.
            rest_bytes = max(0, most - self._gate.stored_bytes)
            self._gate.count(rest_bytes)
            await self._mark(line.cursor, (said,), rest_bytes)
        elif self._unmarked.lines >= MARK_LINES:
            await self._mark(line.cursor)

    def _keep_last(self, line: RawLine, parsed: ParsedRecord | None, text_bytes: int) -> None:
        self._last.append((line, parsed, text_bytes))
        self._last_bytes += text_bytes
        while self._last and (len(self._last) > LAST_LINES or self._last_bytes > LAST_BYTES):
            self._last_bytes -= self._last.popleft()[2]

    async def _tell(self, line: RawLine, excess: Excess | None) -> None:
        """The place where lines are missing says so."""
        at_us = line.cursor.timestamp_ns // 1000
        await self._settle((self._said(told(self._untold, excess, self._limits), at_us),))

    async def _settle(self, records: tuple[LogRecord, ...], size_bytes: int = 0) -> None:
        """Nothing is untold any more, in the same step as `records`, which tell it."""
        dropped = self._unmarked + -self._untold
        self._untold = self._unmarked = NOTHING
        self._last.clear()
        self._last_bytes = 0
        cursor = None if self._previous is None else self._previous.cursor
        await self._hand_in(self._line(records, cursor, size_bytes, dropped))

    async def _mark(self, cursor: LogCursor, records: tuple[LogRecord, ...] = (), size_bytes: int = 0) -> None:
        """The store knows how far the output was read, and what of it was dropped."""
        dropped, self._unmarked = self._unmarked, NOTHING
        await self._hand_in(self._line(records, cursor, size_bytes, dropped))

    def _line(
        self, records: tuple[LogRecord, ...], cursor: LogCursor | None, size_bytes: int, dropped: Dropped = NOTHING
    ) -> Line:
        return Line(
            workspace_id=self._execution.workspace_id,
            records=records,
            flow_run_id=self._execution.flow_run_id,
            execution_id=self._execution.id,
            cursor=cursor,
            size_bytes=size_bytes,
            dropped=dropped,
        )

    def _said(self, message: str, at_us: int) -> LogRecord:
        return LogRecord(
            name=OUR_NAME,
            level=TOLD_LEVEL,
            message=message,
            timestamp_us=at_us,
            flow_run_id=self._execution.flow_run_id,
        )

    async def _record(self, line: RawLine, parsed: ParsedRecord | None) -> LogRecord:
        if parsed is not None:
            run_id = parsed.flow_run_id or self._execution.flow_run_id
            if await self._descendants.include(run_id):
                return LogRecord(
                    name=claimed_name(parsed.name),
                    level=parsed.level,
                    message=parsed.message,
                    timestamp_us=parsed.timestamp_us,
                    flow_run_id=run_id,
                    task_run_id=await self._task_run(parsed.task_run_id),
                )
        # A flow can print what it likes: whatever is no record of this run or its children is a line of this run.
        return LogRecord(
            name=line.stream.value,
            level=RAW_LEVEL,
            message=line.text,
            timestamp_us=line.cursor.timestamp_ns // 1000,
            flow_run_id=self._execution.flow_run_id,
        )

    async def _task_run(self, task_run_id: str | None) -> str | None:
        """The task run that the line is of, unless it is somebody else's."""
        return task_run_id if task_run_id is None or await self._descendants.admit_task_run(task_run_id) else None


class _Answers:
    """What was found out of ids: the last `KNOWN_RUNS` of either answer, so that those that a run makes up push out none of its own."""

    def __init__(self) -> None:
        self._yes: dict[str, None] = {}
        self._no: dict[str, None] = {}

    def get(self, id_: str) -> bool | None:
        return True if id_ in self._yes else False if id_ in self._no else None

    def put(self, id_: str, answer: bool) -> None:
        known = self._yes if answer else self._no
        if len(known) >= KNOWN_RUNS:
            del known[next(iter(known))]
        known[id_] = None


class Descendants:
    """Which runs an execution may write log lines of: its own and those below it, in its workspace, and their task runs."""

    def __init__(self, db: Database, execution: Execution) -> None:
        self._db = db
        self._execution = execution
        self._runs = _Answers()
        self._task_runs = _Answers()

    def knows(self, run_id: str) -> bool:
        """Whether it is known that it may write lines of that run."""
        return run_id == self._execution.flow_run_id or self._runs.get(run_id) is True

    async def include(self, run_id: str) -> bool:
        """Whether it may write lines of that run."""
        own = self._execution.flow_run_id
        if run_id == own:
            return True
        known = self._runs.get(run_id)
        if known is None:
            known = await self._db.read(
                lambda tx: lineage.is_descendant(tx, run_id, own), workspace=self._execution.workspace_id
            )
            self._runs.put(run_id, known)
        return known

    def is_new_task_run(self, task_run_id: str | None) -> bool:
        """Whether no line has named that task run yet, as far as is remembered."""
        return task_run_id is not None and self._task_runs.get(task_run_id) is None

    async def admit_task_run(self, task_run_id: str) -> bool:
        """Whether it may write lines of that task run: it is not known to be another run's."""
        known = self._task_runs.get(task_run_id)
        if known is None:
            known = not await self._db.look(
                lambda tx: lineage.foreign_task_runs(tx, (task_run_id,), self._execution.flow_run_id),
                workspace=self._execution.workspace_id,
            )
            self._task_runs.put(task_run_id, known)
        return known
