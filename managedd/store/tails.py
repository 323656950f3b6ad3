"""Reading on from a cursor: the one query behind every socket that follows a table.

A cursor is a key of an AUTOINCREMENT table: it is never used twice, and with one writer, keys are committed in their order. So what is
behind a cursor is complete, and a reader that holds one loses nothing and repeats nothing, however slow it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from managedd.store.database import Row, Tx
    from managedd.store.tables import Clause

T = TypeVar("T")

PAGE_ROWS = 500
PAGE_BYTES = 256 * 1024
"""A page ends with the row that reaches this: each socket whose client takes nothing holds one."""
SCAN_ROWS = 20_000
"""How many keys one read looks at: a reader whose filter admits little must not hold a connection for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came after a cursor: frames ready to be sent, and where to read on."""

    frames: Sequence[bytes]
    times: Sequence[int]
    """When each frame's row was, microseconds since the epoch."""
    cursor: int
    more: bool
    """Whether reading on at once would find unread keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpses(Generic[T]):
    """What can be told of the rows after a cursor without reading all of them, and where to look on."""

    seen: Sequence[T]
    cursor: int
    more: bool


def head(tx: Tx, table: str, key: str) -> int:
    """The newest key; 0 when there is none."""
    newest: int | None = tx.scalar(f"SELECT max({key}) FROM {table}")
    return newest or 0


def page_after(
    tx: Tx,
    table: str,
    key: str,
    listed: str,
    admitted: Clause | None,
    cursor: int,
    render: Callable[[Row], bytes],
    *,
    time: str,
    until: int | None = None,
    scope: str = "workspace_id = ?",
) -> Page:
    """The rows after `cursor`, up to and with the key `until` if one is given, that `admitted` admits, in the order of their keys.

    `time` is the column with their times, `scope` what is true of a workspace's.
    """
    newest = head(tx, table, key) if until is None else until
    if cursor >= newest:
        return Page(frames=[], times=[], cursor=cursor, more=False)
    end = min(newest, cursor + SCAN_ROWS)
    sql, params = admitted or ("1", [])
    # NOT INDEXED leaves only the walk along the key: any other plan would sort a whole history to find what is new.
    found = tx.execute(
        f"SELECT {key}, {listed} FROM {table} NOT INDEXED "
        f"WHERE {key} > ? AND {key} <= ? AND {scope} AND ({sql}) ORDER BY {key} LIMIT {PAGE_ROWS}",
        (cursor, end, tx.workspace, *params),
    )
    frames: list[bytes] = []
    times: list[int] = []
    size_bytes = 0
    for row in found:
        frames.append(render(row))
        times.append(row[time])
        size_bytes += len(frames[-1])
        if len(frames) == PAGE_ROWS or size_bytes >= PAGE_BYTES:
            return Page(frames=frames, times=times, cursor=row[0], more=True)
    return Page(frames=frames, times=times, cursor=end, more=end < newest)
