"""One run's log in the order in which it was stored: pages of it as JSON lines or text, each line with its cursor to read on behind.

The order is that of the rows' keys, not of the lines' own times: a late line never comes to lie before one that a reader had already.
What clients get as a line's cursor is its id.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import orjson

from managedd.clock import iso
from managedd.model.logs import level_name
from managedd.store import log_keys, positions, tails
from managedd.store.logs import LISTED, wire
from managedd.store.resources import LOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from managedd.store.database import Row, Tx
    from managedd.store.positions import Positions

Form = Literal["tail", "jsonl", "text"]
"""How a line is rendered: with its cursor, as the API gives it, or for people."""
Key = tuple[str, str]
"""A run's workspace and id."""

BATCH_BYTES: Final = 64 * 1024
"""A message of lines ends before it grows over this: large ones hold up the others of a connection. A longer line is one of its own."""
PAGE_BYTES: Final = 256 * 1024
"""What one reader of one run's history holds at a time."""
PAGE_LINES: Final = 500
NEWS_BYTES: Final = 1024 * 1024
NEWS_LINES: Final = 2_000
SCAN_KEYS: Final = 20_000
"""How many keys one reading of news looks at."""
_LINE_END: Final = re.compile("\r\n|[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
_INDENTED: Final = r"\g<0>    "
_OF_RUN: Final = f"flow_run = {log_keys.OF_RUN}"
_IN_ORDER: Final = f"logs INDEXED BY logs_run_order WHERE {_OF_RUN} AND {LOG.scope}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Successive lines of one run, rendered once for all who read them; between two stands a newline."""

    keys: Sequence[int]
    ends: Sequence[int]
    """Where in `text` each line ends."""
    text: bytes

    @property
    def last(self) -> int:
        """The key of the last line."""
        return self.keys[-1]

    def after(self, cursor: int) -> bytes:
        """The lines behind `cursor`."""
        at = bisect_right(self.keys, cursor)
        return self.text if at == 0 else self.text[self.ends[at - 1] + 1 :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What came after a cursor in one run's log, and where to read on."""

    batches: list[Batch]
    cursor: int
    more: bool
    """Whether reading on at once would find unread keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What came after a cursor in several runs' logs."""

    batches: dict[Key, list[Batch]]
    cursor: int
    more: bool


def head(tx: Tx) -> int:
    """The newest key; 0 when there is none."""
    return tails.head(tx, "logs", "id")


def last_until(tx: Tx, flow_run_id: str, cursor: int) -> int:
    """The key of the run's last line up to and with `cursor`, 0 when there is none: as good to read on behind, and none of others' doing."""
    found: int | None = tx.scalar(
        f"SELECT id FROM {_IN_ORDER} AND id <= ? ORDER BY id DESC LIMIT 1", (flow_run_id, tx.workspace, cursor)
    )
    return found or 0


def before_last(tx: Tx, flow_run_id: str, lines: int | None) -> int:
    """The key behind which the run's last `lines` lines lie, or all of them when None."""
    order, most = ("ASC", 1) if lines is None else ("DESC", max(lines, 0))
    sql = f"SELECT min(id) FROM (SELECT id FROM {_IN_ORDER} ORDER BY id {order} LIMIT ?)"
    first: int | None = tx.scalar(sql, (flow_run_id, tx.workspace, most))
    return head(tx) if first is None else first - 1


def before_time(tx: Tx, flow_run_id: str, since_us: int) -> int:
    """The key behind which all of the run's lines lie that are dated `since_us` or later."""
    first = tx.one(f"SELECT id, timestamp FROM {_IN_ORDER} ORDER BY id LIMIT 1", (flow_run_id, tx.workspace))
    if first is not None and first["timestamp"] >= since_us:
        return int(first["id"]) - 1
    own: int | None = tx.scalar(
        f"SELECT min(id) FROM logs INDEXED BY logs_flow_run WHERE {_OF_RUN} AND {LOG.scope} AND timestamp >= ?",
        (flow_run_id, tx.workspace, since_us),
    )
    return head(tx) if own is None else own - 1


def page_after(tx: Tx, flow_run_id: str, cursor: int, *, until: int | None = None, form: Form = "tail") -> Page:
    """The run's lines after `cursor`, up to and with the key `until` if one is given."""
    newest = head(tx) if until is None else until
    if cursor >= newest:
        return Page(batches=[], cursor=cursor, more=False)
    render, given = _RENDER[form], positions.of(tx, "logs")
    # However many lines of others lie between: with any other index a whole history would be sorted to find what is new.
    found = tx.execute(
        f"SELECT {LISTED} FROM {_IN_ORDER} AND logs.id > ? AND logs.id <= ? ORDER BY logs.id LIMIT {PAGE_LINES}",
        (flow_run_id, tx.workspace, cursor, newest),
    )
    packer = _Packer()
    for row in found:
        packer.add(row["position"], render(row, given))
        if packer.is_full:
            return Page(batches=packer.batches(), cursor=row["position"], more=row["position"] < newest)
    return Page(batches=packer.batches(), cursor=newest, more=False)


def news_after(tx: Tx, runs: Iterable[Key], cursor: int) -> News:
    """The lines of `runs` after `cursor`: one walk for all of them."""
    newest = head(tx)
    if cursor >= newest:
        return News(batches={}, cursor=cursor, more=False)
    end = min(newest, cursor + SCAN_KEYS)
    wanted = set(runs)
    workspaces = log_keys.known(tx, "log_workspaces", {workspace for workspace, _ in wanted})
    flow_runs = log_keys.known(tx, "log_runs", {run for _, run in wanted})
    by_key = {(workspaces.get(workspace), flow_runs.get(run)): (workspace, run) for workspace, run in wanted}
    found = tx.execute(
        f"SELECT {LISTED}, logs.workspace, logs.flow_run FROM logs NOT INDEXED WHERE id > ? AND id <= ? "
        f"AND flow_run IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT {NEWS_LINES}",
        (cursor, end, orjson.dumps(list(flow_runs.values())).decode()),
    )
    given = positions.of(tx, "logs")
    packers: defaultdict[Key, _Packer] = defaultdict(_Packer)
    lines = size_bytes = 0
    for row in found:
        key = by_key.get((row["workspace"], row["flow_run"]))
        lines += 1
        if key is not None:
            rendered = _json_line(row, given)
            packers[key].add(row["position"], rendered)
            size_bytes += len(rendered)
        if lines == NEWS_LINES or size_bytes >= NEWS_BYTES:
            end = row["position"]
            break
    return News(batches={key: packer.batches() for key, packer in packers.items()}, cursor=end, more=end < newest)


class _Packer:
    """Lines → batches."""

    def __init__(self) -> None:
        self.lines = 0
        self.size_bytes = 0
        self._done: list[Batch] = []
        self._begin()

    def _begin(self) -> None:
        self._keys: list[int] = []
        self._ends: list[int] = []
        self._texts: list[bytes] = []

    @property
    def is_full(self) -> bool:
        """Whether it holds a page of one run."""
        return self.lines >= PAGE_LINES or self.size_bytes >= PAGE_BYTES

    def add(self, key: int, text: bytes) -> None:
        if self._ends and self._ends[-1] + 1 + len(text) > BATCH_BYTES:
            self._end()
        self._keys.append(key)
        self._ends.append((self._ends[-1] + 1 if self._ends else 0) + len(text))
        self._texts.append(text)
        self.lines += 1
        self.size_bytes += len(text)

    def _end(self) -> None:
        self._done.append(Batch(keys=self._keys, ends=self._ends, text=b"\n".join(self._texts)))
        self._begin()

    def batches(self) -> list[Batch]:
        if self._keys:
            self._end()
        return self._done


def _json_line(row: Row, given: Positions) -> bytes:
    id_ = given.id(row["position"])
    return orjson.dumps({"type": "log", "cursor": id_, "log": wire(row, id_)})


def _bare_json_line(row: Row, given: Positions) -> bytes:
    return orjson.dumps(wire(row, given.id(row["position"])))


def _text_line(row: Row, _: Positions) -> bytes:
    # No part of a line looks like a line of its own, for whatever a reader of the file takes for the end of one.
    name, message = _LINE_END.sub("\N{REPLACEMENT CHARACTER}", row["name"]), _LINE_END.sub(_INDENTED, row["message"])
    text = f"{iso(row['timestamp'])} {level_name(row['level']):<8} {name} | {message}"
    return text.encode(errors="replace")


_RENDER: Final[dict[Form, Callable[[Row, Positions], bytes]]] = {
    "tail": _json_line,
    "jsonl": _bare_json_line,
    "text": _text_line,
}
