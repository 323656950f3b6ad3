"""Log lines, in a database file of their own: written in batches, read by filter through `rows`, followed by id."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from managedd.bus import Topic
from managedd.clock import iso, to_us
from managedd.model.log_limits import LINE_OVERHEAD_BYTES, TASK_RUN_BYTES, Dropped, full, too_fast
from managedd.model.logs import OUR_NAME, LogCursor, LogRecord
from managedd.store import log_keys, log_sizes, positions, rows, tails
from managedd.store.filtering import compile_filter, names_any, where
from managedd.store.resources import LOG
from managedd.wire.filters.logs import LogFilterFlowRunId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from managedd.model.log_limits import Excess, LogLimits
    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire
    from managedd.store.tables import Clause
    from managedd.wire.filters.logs import LogFilter
    from managedd.wire.sorting import LogSort


MAX_BACKFILL_US = 3_600_000_000
"""How far back a tail of a whole workspace begins at most."""
SLACK_US = 60_000_000
"""How far a line's time may be ahead of our clock."""
MERGED_RUNS = 50
"""The lines of more runs than that are sorted where a page of them is asked for."""


def append(tx: Tx, records: Sequence[LogRecord]) -> None:
    """The lines are stored, in their order; null characters, which no reader wants, are left out."""
    workspace = log_keys.made(tx, "log_workspaces", (tx.workspace,))[tx.workspace]
    runs = log_keys.made(tx, "log_runs", (record.flow_run_id for record in records))
    tasks = log_keys.made(tx, "log_task_runs", (record.task_run_id for record in records))
    tx.executemany(
        "INSERT INTO logs (workspace, flow_run, task_run, name, level, timestamp, message) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (workspace, runs[run], tasks[task], name.replace("\0", ""), level, timestamp_us, message.replace("\0", ""))
            for name, level, message, timestamp_us, run, task in records
        ],
    )
    tx.publish(Topic.LOGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Lines that a run has sent by itself."""

    records: Sequence[LogRecord]
    texts_bytes: Sequence[int]
    """What the texts of each count."""
    admitted: int
    """For so many, from the first on, its rate has room."""
    excess: Excess | None
    """Why for no more."""


def append_within(tx: Tx, sent: Sent, *, flow_run_id: str, execution_id: str, limits: LogLimits) -> None:
    """The lines are stored as far as the run's rate and the size of its log allow; the rest counts as dropped."""
    room = math.inf if limits.max_bytes is None else limits.max_bytes - log_sizes.size(tx, flow_run_id)
    new = _new_task_runs(tx, sent.records)
    kept, used = 0, 0
    # What is missing is missing in one piece, also if shorter lines would still fit.
    for record, text_bytes in zip(sent.records[: sent.admitted], sent.texts_bytes, strict=False):
        size_bytes = text_bytes + LINE_OVERHEAD_BYTES + (TASK_RUN_BYTES if record.task_run_id in new else 0)
        if used + size_bytes > room:
            break
        kept += 1
        used += size_bytes
        new.discard(record.task_run_id)
    append(tx, sent.records[:kept])
    if kept < len(sent.records):
        is_first, is_full = not log_sizes.untold(tx, execution_id).lines, kept < sent.admitted
        if is_first or (is_full and room > 0):
            said = full(limits.max_bytes or 0) if is_full else too_fast(sent.excess, limits)
            append(tx, [LogRecord(OUR_NAME, 30, said, tx.now, flow_run_id)])
        if is_full:
            # Nothing more fits from here on, and nobody says so again.
            used = max(used, int(room))
        log_sizes.drop(tx, execution_id, Dropped(len(sent.records) - kept, sum(sent.texts_bytes[kept:])))
    log_sizes.grow(tx, flow_run_id, used)


def _new_task_runs(tx: Tx, records: Sequence[LogRecord]) -> set[str | None]:
    """The task runs of which the store has no line yet."""
    named = {record.task_run_id for record in records if record.task_run_id is not None}
    return set[str | None](named.difference(log_keys.known(tx, "log_task_runs", named)) if named else ())


def find(tx: Tx, filter_: LogFilter | None, sort: LogSort, limit: int | None, offset: int) -> list[Wire]:
    """A sorted page of the lines that `filter_` admits."""
    last = offset + (rows.DEFAULT_LIMIT if limit is None else limit)
    return rows.find(tx, LOG, [(LOG, filter_)], sort.value, limit, offset, extra=_among_first(tx, filter_, sort, last))


def _among_first(tx: Tx, filter_: LogFilter | None, sort: LogSort, last: int) -> Clause | None:
    """That a line is among the first so many of several runs: each run's come in order, and sorted would be all that they have printed."""
    runs = None if filter_ is None else _runs(filter_)
    if filter_ is None or runs is None or not 1 < len(runs) <= MERGED_RUNS:
        return None
    each: list[str] = []
    params: list[object] = []
    for run in dict.fromkeys(runs):
        of_run = {"flow_run_id": LogFilterFlowRunId(any_=[run])}
        sql, given = where(tx.workspace, LOG, [(LOG, filter_.model_copy(update=of_run))], {}, sort.value)
        each.append(f"SELECT logs.id AS id, logs.timestamp AS timestamp FROM logs WHERE {sql}")
        params += given
    order = LOG.sorts[sort.value].replace("logs.", "")
    merged = f"{' UNION ALL '.join(each)} ORDER BY {order} LIMIT ?"
    return f"logs.id IN (SELECT id FROM ({merged}))", [*params, last]


def lines_after(tx: Tx, flow_run_id: str, after: tuple[int, int], limit: int) -> list[Row]:
    """The run's lines in the order of their times behind `after` (timestamp, id), which begins with (-1, 0)."""
    return tx.all(
        f"SELECT timestamp, id, level, {log_keys.RUN_ID}, {log_keys.TASK_RUN_ID}, message FROM logs INDEXED BY logs_flow_run "
        f"WHERE {LOG.scope} AND flow_run = {log_keys.OF_RUN} AND (timestamp, id) > (?, ?) ORDER BY timestamp, id LIMIT ?",
        (tx.workspace, flow_run_id, *after, limit),
    )


# --- tails -------------------------------------------------------------------------------------------------------------

LISTED: Final = (
    "logs.id AS position, logs.name, logs.level, logs.message, logs.timestamp, "
    f"{log_keys.RUN_ID} AS flow_run_id, {log_keys.TASK_RUN_ID} AS task_run_id"
)

_GIVEN_RUNS: Final = "log_runs WHERE id IN (SELECT value FROM json_each(?))"
_OF_RUNS: Final = f"flow_run IN (SELECT key FROM {_GIVEN_RUNS})"
# Of each run its next one, and of these the first: what follows is neither counted nor sorted.
_NEXT_OF_RUN: Final = (
    f"SELECT logs.id FROM logs INDEXED BY logs_run_order WHERE flow_run = log_runs.key AND {LOG.scope} "
    "AND logs.id > ? AND logs.id <= ? ORDER BY logs.id LIMIT 1"
)
_NEXT_OF_RUNS: Final = f"SELECT min(({_NEXT_OF_RUN})) FROM {_GIVEN_RUNS}"


def head(tx: Tx) -> int:
    """The id of the newest line."""
    return tails.head(tx, "logs", "id")


def before(tx: Tx, filter_: LogFilter) -> int:
    """The id behind which the lines lie that `filter_` admits; without an `after_` that is the newest: only what comes.

    What is dated ahead of our clock does not count, and without a run no more than the last hour does: the way from there to the newest
    line is walked, for every reader.
    """
    if filter_.timestamp is None or filter_.timestamp.after_ is None:
        return head(tx)
    since_us, until_us = to_us(filter_.timestamp.after_), tx.now + SLACK_US
    if (runs := _runs(filter_)) is None:
        first = tx.scalar(
            f"SELECT min(id) FROM logs INDEXED BY logs_workspace WHERE {LOG.scope} AND timestamp BETWEEN ? AND ?",
            (tx.workspace, max(since_us, tx.now - MAX_BACKFILL_US), until_us),
        )
    else:
        first = tx.scalar(
            f"SELECT min(id) FROM logs INDEXED BY logs_flow_run WHERE {_OF_RUNS} AND {LOG.scope} AND timestamp BETWEEN ? AND ?",
            (orjson.dumps(runs).decode(), tx.workspace, since_us, until_us),
        )
    return head(tx) if first is None else first - 1


def page_after(tx: Tx, filter_: LogFilter, cursor: int, *, until: int | None = None) -> tails.Page:
    """What `filter_` admits of the lines after `cursor`, up to and with the id `until` if one is given, as frames of `/logs/out`."""
    newest = head(tx) if until is None else until
    admitted = compile_filter(filter_, LOG)
    given = positions.of(tx, "logs")

    def frame(row: Row) -> bytes:
        return orjson.dumps({"type": "log", "log": wire(row, given.id(row["position"]))})

    page = tails.page_after(
        tx, "logs", "id", LISTED, admitted, cursor, frame, time="timestamp", until=newest, scope=LOG.scope
    )
    if page.frames or not page.more or (runs := _runs(filter_)) is None:
        return page
    # Others' lines only: along the runs' own index it is not far to their next one.
    following: int | None = tx.scalar(_NEXT_OF_RUNS, (tx.workspace, page.cursor, newest, orjson.dumps(runs).decode()))
    on = newest if following is None else following - 1
    return tails.Page(frames=[], times=[], cursor=on, more=following is not None)


def _runs(filter_: LogFilter) -> list[str] | None:
    """The runs of which all lines are that the filter admits; None when it admits others'."""
    runs = filter_.flow_run_id
    return runs.any_ if runs is not None and names_any(filter_, "flow_run_id") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogGlimpse:
    """What can be told of some lines without reading them."""

    position: int
    """Of the first."""
    workspace_id: str
    key: str | None
    """The run's id."""


def glimpse(tx: Tx, cursor: int) -> tails.Glimpses[LogGlimpse]:
    """Of which runs of which workspaces there are lines after `cursor`."""
    newest = head(tx)
    end = min(newest, cursor + tails.SCAN_ROWS)
    found = tx.execute(
        f"SELECT min(logs.id), (SELECT id FROM log_workspaces WHERE key = logs.workspace), {log_keys.RUN_ID} "
        "FROM logs NOT INDEXED WHERE logs.id > ? AND logs.id <= ? GROUP BY logs.workspace, logs.flow_run ORDER BY 1",
        (cursor, end),
    )
    seen = [LogGlimpse(position=row[0], workspace_id=row[1], key=row[2]) for row in found]
    return tails.Glimpses(seen=seen, cursor=max(cursor, end), more=end < newest)


def wire(row: Row, id_: str) -> Wire:
    """The line as the API gives it, under that id, from a row with `LISTED`."""
    moment = iso(row["timestamp"])
    return {
        "id": id_,
        "created": moment,
        "updated": moment,
        "name": row["name"],
        "level": row["level"],
        "message": row["message"],
        "timestamp": moment,
        "flow_run_id": row["flow_run_id"],
        "task_run_id": row["task_run_id"],
    }


# --- cursors of executions ---------------------------------------------------------------------------------------------


def cursor(tx: Tx, execution_id: str) -> LogCursor:
    """How far the execution's output is stored."""
    row = tx.one("SELECT timestamp_ns, ordinal FROM log_cursors WHERE execution_id = ?", (execution_id,))
    return LogCursor() if row is None else LogCursor(row[0], row[1])


def set_cursor(tx: Tx, execution_id: str, cursor: LogCursor) -> None:
    """The execution's output is stored up to `cursor`: belongs into the transaction of its lines."""
    tx.execute(
        "INSERT INTO log_cursors (execution_id, timestamp_ns, ordinal) VALUES (?, ?, ?) "
        "ON CONFLICT (execution_id) DO UPDATE SET timestamp_ns = excluded.timestamp_ns, ordinal = excluded.ordinal",
        (execution_id, cursor.timestamp_ns, cursor.ordinal),
    )


def drop_cursor(tx: Tx, execution_id: str) -> None:
    """Nothing is remembered of the execution: its output will not be read again."""
    tx.execute("DELETE FROM log_cursors WHERE execution_id = ?", (execution_id,))


# --- retention ---------------------------------------------------------------------------------------------------------


def delete_of_run(tx: Tx, flow_run_id: str, limit: int) -> int:
    """At most `limit` of the run's lines are gone; returns how many, fewer than `limit` when none is left."""
    of_run = f"SELECT id FROM logs INDEXED BY logs_flow_run WHERE flow_run = {log_keys.OF_RUN} LIMIT ?"
    gone = _delete(tx, of_run, (flow_run_id, limit))
    if gone < limit:
        tx.execute("DELETE FROM log_runs WHERE id = ?", (flow_run_id,))
    return gone


def remove_of_run(tx: Tx, flow_run_id: str, limit: int, told: str) -> int:
    """At most `limit` of the run's lines are gone while the run stays; once all are, one line says `told`. Returns how many."""
    told_by: int | None = tx.scalar("SELECT removed FROM log_runs WHERE id = ?", (flow_run_id,))
    of_run = f"SELECT id FROM logs INDEXED BY logs_flow_run WHERE flow_run = {log_keys.OF_RUN} AND id IS NOT ? LIMIT ?"
    gone = _delete(tx, of_run, (flow_run_id, told_by, limit))
    if gone < limit and (gone or told_by is None):
        tx.execute("DELETE FROM logs WHERE id = ?", (told_by,))
        append(tx, [LogRecord(OUR_NAME, 20, told, tx.now, flow_run_id)])
        tx.execute("UPDATE log_runs SET bytes = 0, removed = ? WHERE id = ?", (head(tx), flow_run_id))
    return gone


def delete_of_workspace(tx: Tx, limit: int) -> int:
    """At most `limit` of the workspace's lines are gone; returns how many, fewer than `limit` when none is left."""
    of_workspace = f"SELECT id FROM logs INDEXED BY logs_workspace WHERE {LOG.scope} LIMIT ?"
    gone = _delete(tx, of_workspace, (tx.workspace, limit))
    if gone < limit:
        tx.execute("DELETE FROM log_workspaces WHERE id = ?", (tx.workspace,))
    return gone


def delete_unowned_before(tx: Tx, moment_us: int, limit: int) -> int:
    """At most `limit` lines that belong to no flow run and are older than the moment are gone; returns how many."""
    unowned = "SELECT id FROM logs INDEXED BY logs_flow_run WHERE flow_run IS NULL AND workspace IN (SELECT key FROM log_workspaces) AND timestamp < ? LIMIT ?"
    return _delete(tx, unowned, (moment_us, limit))


def _delete(tx: Tx, chosen: str, params: Sequence[object]) -> int:
    """The lines are gone, and the keys of task runs that only they have named; returns how many lines."""
    found = tx.all(f"DELETE FROM logs WHERE id IN ({chosen}) RETURNING task_run", params)
    log_keys.drop_unused_task_runs(tx, (row[0] for row in found))
    return len(found)
