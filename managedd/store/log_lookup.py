"""Looking into one run's log at any place: by a line's number, around a cursor, for a text. However long the log is, one statement walks a stride.

A line's number is its place among the run's lines, or among those of a level, in the order in which they were stored. No table counts them: a
log is surveyed a stride at a time, and what was learned of whole strides stays true as long as the log only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from managedd.store import log_keys, positions
from managedd.store.logs import wire
from managedd.store.resources import LOG
from managedd.store.text_search import contains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from managedd.store.database import Row, Tx
    from managedd.store.rows import Wire

STRIDE_LINES: Final = 4_096
STRIDES_AT_ONCE: Final = 8
"""So many one reading surveys, or takes lines from: a reader is others' too."""
FIND_LINES: Final = 10_000
FIND_CHARS: Final = 4_000_000
"""One search looks at so many lines, or ends when it has come over so much text."""
FIND_STEP: Final = 250
_OF_RUN: Final = f"flow_run = {log_keys.OF_RUN}"
_IN_ORDER: Final = f"logs INDEXED BY logs_run_order WHERE {_OF_RUN} AND {LOG.scope}"
_LISTED: Final = (
    "logs.id AS position, logs.name, logs.level, substr(logs.message, 1, ?) AS message, length(logs.message) AS chars, logs.timestamp, "
    f"{log_keys.RUN_ID} AS flow_run_id, {log_keys.TASK_RUN_ID} AS task_run_id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One run's log, or what in it is of a level or above."""

    flow_run_id: str
    level: int | None = None

    @property
    def _of_level(self) -> str:
        return "1" if self.level is None else f"level >= {int(self.level)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stride:
    """Successive lines of a run."""

    last: int
    """The key of its last line."""
    admitted: int
    """How many of its lines are of the level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What follows a key in a log."""

    strides: list[Stride]
    """Whole ones, which stay as they are."""
    rest: int | None
    """How many lines of the level follow those; None: more than a stride does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Where lines of a log are: behind the key `after`, up to and with `until`, without the first `skip` of them."""

    after: int
    until: int | None
    skip: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search has come to."""

    key: int | None
    """Of the line that fits."""
    resume: int | None
    """Where to search on, when none did so far; None: there is nothing more."""
    searched: int
    """How many lines it has looked at."""


def survey(tx: Tx, log: Log, after: int) -> Survey:
    """The strides of the log behind the key `after`."""
    strides: list[Stride] = []
    while len(strides) < STRIDES_AT_ONCE:
        # Without a level it never leaves the index.
        row = tx.one(
            f"SELECT max(id), count(*), sum({log._of_level}) FROM "
            f"(SELECT id, {'1' if log.level is None else 'level'} AS level FROM {_IN_ORDER} AND id > ? ORDER BY id LIMIT {STRIDE_LINES})",
            (log.flow_run_id, tx.workspace, after),
        )
        assert row is not None, "an aggregate has a row"
        if row[1] < STRIDE_LINES:
            return Survey(strides=strides, rest=row[2] or 0)
        after = row[0]
        strides.append(Stride(last=after, admitted=row[2]))
    return Survey(strides=strides, rest=None)


def first(tx: Tx, flow_run_id: str) -> int | None:
    """The key of the run's first line."""
    found: int | None = tx.scalar(f"SELECT id FROM {_IN_ORDER} ORDER BY id LIMIT 1", (flow_run_id, tx.workspace))
    return found


def key_of(tx: Tx, flow_run_id: str, cursor: str) -> int | None:
    """The key of the run's line that has the cursor; None when it has no such line."""
    key = positions.of(tx, "logs").position(cursor)
    found: int | None = tx.scalar(f"SELECT id FROM {_IN_ORDER} AND id = ?", (flow_run_id, tx.workspace, key))
    return found


def cursors(tx: Tx, keys: Sequence[int | None]) -> list[str | None]:
    """The cursors of keys."""
    given = positions.of(tx, "logs")
    return [None if key is None else given.id(key) for key in keys]


def lines(tx: Tx, log: Log, slices: Sequence[Slice], limit: int, chars: int) -> list[Wire]:
    """The first `limit` lines that are in `slices`, of each message at most `chars` characters; of one that is longer, `chars` tells its length."""
    given = positions.of(tx, "logs")
    found: list[Wire] = []
    for each in slices:
        if len(found) >= limit:
            break
        until = "" if each.until is None else "AND id <= ?"
        keys = (each.after,) if each.until is None else (each.after, each.until)
        rows = tx.execute(
            f"SELECT {_LISTED} FROM {_IN_ORDER} AND id > ? {until} AND {log._of_level} ORDER BY id LIMIT ? OFFSET ?",
            (chars, log.flow_run_id, tx.workspace, *keys, limit - len(found), each.skip),
        )
        found += [_line(row, given.id(row["position"]), chars) for row in rows]
    return found


def _line(row: Row, id_: str, chars: int) -> Wire:
    return {**wire(row, id_), "chars": row["chars"] if row["chars"] > chars else None}


def count_until(tx: Tx, log: Log, after: int, key: int) -> int:
    """How many of the log's lines are behind `after`, up to and with `key`, which is less than two strides further on."""
    counted: int = tx.scalar(
        f"SELECT count(*) FROM (SELECT {'1' if log.level is None else 'level'} AS level FROM {_IN_ORDER} AND id > ? AND id <= ? "
        f"ORDER BY id LIMIT {2 * STRIDE_LINES}) WHERE {log._of_level}",
        (log.flow_run_id, tx.workspace, after, key),
    )
    return counted


def find(tx: Tx, log: Log, text: str | None, *, after: int | None = None, before: int | None = None) -> Found:
    """The first line of the log behind `after`, or the last one before `before`, that has the text in its message, whatever its case (of
    ASCII letters).

    It is found by walking: at most `FIND_LINES` at a time.
    """
    side, order, best = ("<", "DESC", "max") if before is not None else (">", "ASC", "min")
    key = before if before is not None else after or 0
    fits, params = contains("message", text) if text else ("1", [])
    listed = "id, level, message" if text else "id, level, '' AS message"
    searched = chars = 0
    while searched < FIND_LINES and chars < FIND_CHARS:
        row = tx.one(
            f"SELECT {best}(CASE WHEN {log._of_level} AND {fits} THEN id END), min(id), max(id), count(*), sum(length(message)) FROM "
            f"(SELECT {listed} FROM {_IN_ORDER} AND id {side} ? ORDER BY id {order} LIMIT {FIND_STEP})",
            (*params, log.flow_run_id, tx.workspace, key),
        )
        assert row is not None, "an aggregate has a row"
        found, lowest, highest, count, size = row
        searched += count
        if found is not None or count < FIND_STEP:
            return Found(key=found, resume=None, searched=searched)
        key = lowest if before is not None else highest
        chars += size
    return Found(key=None, resume=key, searched=searched)
