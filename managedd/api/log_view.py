"""A part of one run's log, wherever in it: what the web page's log viewer scrolls, filters and searches by."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import anyio

from managedd.errors import invalid
from managedd.store import log_lookup, rows
from managedd.store.log_lookup import Log, Slice
from managedd.store.resources import FLOW_RUN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from managedd.api.context import Context
    from managedd.store.database import Tx
    from managedd.store.log_lookup import Found, Survey
    from managedd.store.rows import Wire

MAX_LINES: Final = 500
MAX_CHARS: Final = 2_000_000
"""What a part may have of messages; each takes as much as its limit says."""
KEPT: Final = 64
"""Of so many logs the surveys are kept, the last used: two numbers for each 4,096 lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which part: from a line's number, behind or before a cursor, or, with none of them, the end; or around what a search finds from there."""

    level: int | None
    line: int | None
    after: str | None
    before: str | None
    text: str | None
    find_level: int | None
    limit: int
    chars: int

    @property
    def is_search(self) -> bool:
        """Whether it is for what fits, not for a place."""
        return bool(self.text) or self.find_level is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """How one log's lines lie: `lasts` are the keys with which its strides end, `sums` the lines until there, `total` all of them."""

    lasts: tuple[int, ...]
    sums: tuple[int, ...]
    total: int

    def slices(self, start: int) -> Iterator[Slice]:
        """Where the lines are from number `start` on, 0 for the first; what has none is left out."""
        at = bisect_right(self.sums, start)
        skip = start - self._before(at)
        for each in range(at, len(self.lasts)):
            if self.sums[each] > self._before(each):
                yield Slice(after=self.end(each), until=self.lasts[each], skip=skip)
                skip = 0
        yield Slice(after=self.end(len(self.lasts)), until=None, skip=skip)

    def stride_of(self, key: int) -> tuple[int, int]:
        """The key behind which the stride of `key` begins, and how many lines are before it."""
        at = bisect_left(self.lasts, key)
        return self.end(at), self._before(at)

    def end(self, strides: int) -> int:
        """The key with which so many strides end."""
        return self.lasts[strides - 1] if strides else 0

    def _before(self, stride: int) -> int:
        return self.sums[stride - 1] if stride else 0


@dataclass(slots=True)
class _Kept:
    """What is known of one log's whole strides, as long as its first line is there."""

    first: int | None = None
    lasts: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    lock: anyio.Lock = field(default_factory=anyio.Lock)

    def begin(self, first: int | None) -> None:
        self.first, self.lasts, self.sums = first, [], []

    def add(self, found: Survey) -> None:
        for stride in found.strides:
            self.lasts.append(stride.last)
            self.sums.append((self.sums[-1] if self.sums else 0) + stride.admitted)


class Surveys:
    """What is kept of logs that somebody looks into. Belongs to the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, Log], _Kept] = OrderedDict()

    async def of(self, ctx: Context, log: Log) -> Surveyed:
        """How the log's lines lie now: only what came since the last time is walked."""
        kept = self._of(ctx.workspace, log)
        async with kept.lock:
            while True:
                first, found = await ctx.read_logs(lambda tx: _look(tx, log, kept))
                if first != kept.first:
                    # Lines are removed from the first on: nothing is where it was.
                    kept.begin(first)
                    continue
                kept.add(found)
                if found.rest is not None:
                    total = (kept.sums[-1] if kept.sums else 0) + found.rest
                    return Surveyed(lasts=tuple(kept.lasts), sums=tuple(kept.sums), total=total)

    def _of(self, workspace: str, log: Log) -> _Kept:
        key = (workspace, log)
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept


def _look(tx: Tx, log: Log, kept: _Kept) -> tuple[int | None, Survey]:
    after = kept.lasts[-1] if kept.lasts else 0
    return log_lookup.first(tx, log.flow_run_id), log_lookup.survey(tx, log, after)


async def part(ctx: Context, flow_run_id: str, asked: Asked) -> Wire:
    """The part as the API gives it. Raises ManagedError(NOT_FOUND, INVALID)."""
    if asked.limit * asked.chars > MAX_CHARS:
        raise invalid(f"limit × chars may be {MAX_CHARS:,} at most: ask for fewer lines, or for less of each")
    await ctx.read(lambda tx: rows.get(tx, FLOW_RUN, flow_run_id))
    log = Log(flow_run_id=flow_run_id, level=asked.level)
    after, before = [await _key(ctx, flow_run_id, cursor) for cursor in (asked.after, asked.before)]
    found = await _found(ctx, log, asked, after, before) if asked.is_search else None
    surveyed = await ctx.services.log_surveys.of(ctx, log)
    if found is not None and found.key is None:
        start = count = 0
    else:
        key = None if found is None else found.key
        start, count = await _place(ctx, log, surveyed, asked, key, after, before)
    lines = await _lines(ctx, log, surveyed, start, count, asked.chars)
    keys = [None, None] if found is None else [found.key, found.resume]
    match, resume = await ctx.read_logs(lambda tx: log_lookup.cursors(tx, keys))
    return {
        "lines": lines,
        "first_line": start + 1,
        "total": surveyed.total,
        "more_before": start > 0,
        "more_after": start + len(lines) < surveyed.total,
        "match": match,
        "resume": resume,
        "searched": 0 if found is None else found.searched,
    }


async def _key(ctx: Context, flow_run_id: str, cursor: str | None) -> int | None:
    if cursor is None:
        return None
    key = await ctx.read_logs(lambda tx: log_lookup.key_of(tx, flow_run_id, cursor))
    if key is None:
        raise invalid(f"{cursor} is the cursor of no line of this run's log (any more)")
    return key


async def _found(ctx: Context, log: Log, asked: Asked, after: int | None, before: int | None) -> Found:
    levels = [level for level in (asked.level, asked.find_level) if level is not None]
    among = Log(flow_run_id=log.flow_run_id, level=max(levels, default=None))
    return await ctx.read_logs(lambda tx: log_lookup.find(tx, among, asked.text, after=after, before=before))


async def _place(
    ctx: Context, log: Log, surveyed: Surveyed, asked: Asked, key: int | None, after: int | None, before: int | None
) -> tuple[int, int]:
    """Number of the first line, 0 for the log's first, and how many from there."""
    total, limit = surveyed.total, asked.limit
    if key is not None:
        start = max(await _count(ctx, log, surveyed, key) - 1 - limit // 2, 0)
    elif asked.line is not None:
        start = min(asked.line - 1, total)
    elif after is not None:
        start = min(await _count(ctx, log, surveyed, after), total)
    elif before is not None:
        end = await _count(ctx, log, surveyed, before - 1)
        return max(end - limit, 0), min(limit, end)
    else:
        start = max(total - limit, 0)
    return start, min(limit, total - start)


async def _count(ctx: Context, log: Log, surveyed: Surveyed, key: int) -> int:
    """How many lines there are up to and with `key`."""
    after, counted = surveyed.stride_of(key)
    return counted + await ctx.read_logs(lambda tx: log_lookup.count_until(tx, log, after, key))


async def _lines(ctx: Context, log: Log, surveyed: Surveyed, start: int, count: int, chars: int) -> list[Wire]:
    found: list[Wire] = []
    slices = surveyed.slices(start)
    while len(found) < count and (among := list(islice(slices, log_lookup.STRIDES_AT_ONCE))):
        wanted = count - len(found)
        found += await ctx.read_logs(
            lambda tx, among=among, wanted=wanted: log_lookup.lines(tx, log, among, wanted, chars)  # type: ignore[misc]
        )
    return found
