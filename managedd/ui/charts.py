"""Charts as numbers: where bars and lines stand in a drawing. Pure; the templates draw them, and say the same in a table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from managedd.ui import words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

KINDS: Final = ("good", "bad", "busy", "waiting", "quiet")
"""From the bottom of a stack to its top."""
KIND_WORDS: Final = {
    "good": "completed", "bad": "failed or crashed", "busy": "under way", "waiting": "waiting", "quiet": "cancelled",
}  # fmt: skip
WIDTH: Final = 600.0
HEIGHT: Final = 120.0
_GAP_SHARE: Final = 0.2
_LEAST: Final = 1.5
"""What is there at all is seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A place on the axis with what stands there."""

    label: str
    text: str
    """What stands there, in words."""
    bars: tuple[Bar, ...]
    counts: Mapping[str, int]
    """By kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacks:
    """Counts over time, stacked by kind."""

    columns: tuple[Column, ...]
    highest: int
    totals: Mapping[str, int]
    """By kind; kinds of which there is none are left out."""


def stacks(history: Sequence[Mapping[str, Any]]) -> Stacks:
    """A column for each interval of `POST /managed/flow_runs/count-by/time`."""
    counted = [_by_kind(each["counts"]) for each in history]
    highest = max((sum(each.values()) for each in counted), default=0)
    totals = {kind: total for kind in KINDS if (total := sum(each.get(kind, 0) for each in counted))}
    step = WIDTH / max(1, len(history))
    columns = []
    for place, (each, counts) in enumerate(zip(history, counted, strict=True)):
        label = _stretch(words.moment(each["start"]), words.moment(each["end"]))
        said = ", ".join(f"{words.number(count)} {KIND_WORDS[kind]}" for kind, count in counts.items())
        columns.append(
            Column(label=label, text=said or "none", bars=_stack(counts, highest, place * step, step), counts=counts)
        )
    return Stacks(columns=tuple(columns), highest=highest, totals=totals)


def _by_kind(counts: Mapping[str, int]) -> dict[str, int]:
    found = dict.fromkeys(KINDS, 0)
    for state, count in counts.items():
        found[words.kind(state)] += count
    return {kind: count for kind, count in found.items() if count}


def _stack(counts: Mapping[str, int], highest: int, left: float, step: float) -> tuple[Bar, ...]:
    bars, top = [], HEIGHT
    for kind, count in counts.items():
        height = max(_LEAST, HEIGHT * count / highest)
        top -= height
        gap = step * _GAP_SHARE
        bars.append(Bar(x=_r(left + gap / 2), y=_r(max(0.0, top)), width=_r(step - gap), height=_r(height), kind=kind))
    return tuple(bars)


def _stretch(start: datetime | None, end: datetime | None) -> str:
    if start is None or end is None:
        return ""
    is_whole_day = (end - start).total_seconds() >= 86_400
    return f"{start:%Y-%m-%d}" if is_whole_day else f"{start:%m-%d %H:%M}–{end:%H:%M}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How long runs took, one bar each, in the order in which they began."""

    columns: tuple[Column, ...]
    longest_seconds: float


def durations(runs: Sequence[Mapping[str, Any]]) -> Durations | None:
    """Of those runs that have ended and began before that; None: there is none."""
    ended = sorted(
        (each for each in runs if each["start_time"] and each["end_time"]), key=lambda run: run["start_time"]
    )
    taken = [(run, seconds_between(run["start_time"], run["end_time"])) for run in ended]
    if not taken:
        return None
    longest = max(seconds for _, seconds in taken)
    # Few bars are no wider than twenty.
    step = WIDTH / max(20, len(taken))
    columns = []
    for place, (run, seconds) in enumerate(taken):
        height = max(_LEAST, HEIGHT * seconds / longest if longest else 0)
        gap, kind = step * _GAP_SHARE, words.kind(run["state_type"])
        bar = Bar(
            x=_r(place * step + gap / 2), y=_r(HEIGHT - height), width=_r(step - gap), height=_r(height), kind=kind
        )
        text = f"{words.duration(seconds)}, {run['state_name']}"
        columns.append(Column(label=run["name"], text=text, bars=(bar,), counts={}))
    return Durations(columns=tuple(columns), longest_seconds=longest)


def seconds_between(start: str | datetime, end: str | datetime) -> float:
    """From one moment to another; never less than none."""
    first, last = words.moment(start), words.moment(end)
    assert first is not None and last is not None
    return max(0.0, (last - first).total_seconds())


# --- what goes on beside each other --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where something stands in a time line of `WIDTH`."""

    x: float
    width: float
    is_open: bool
    """It goes on: it reaches to the right edge."""
    seconds: float | None
    """None: it goes on, or never began."""


def timeline(rows: Sequence[Mapping[str, Any]]) -> list[Span | None]:
    """For each row, with its `start_time` and `end_time`, its place between the first start and the last end; None: it has not begun."""
    starts = [words.moment(row["start_time"]) for row in rows]
    ends = [words.moment(row["end_time"]) for row in rows]
    known = [each for each in (*starts, *ends) if each is not None]
    if not known:
        return [None for _ in rows]
    begin = min(known)
    whole = (max(known) - begin).total_seconds()
    if any(start is not None and end is None for start, end in zip(starts, ends, strict=True)):
        # Room for what goes on, also where that is what began last.
        whole = whole * 1.15 or 1.0
    scale = WIDTH / (whole or 1.0)
    found: list[Span | None] = []
    for start, end in zip(starts, ends, strict=True):
        if start is None:
            found.append(None)
            continue
        x = min(WIDTH - _LEAST, (start - begin).total_seconds() * scale)
        seconds = None if end is None else max(0.0, (end - start).total_seconds())
        width = WIDTH - x if seconds is None else min(WIDTH - x, max(_LEAST, seconds * scale))
        found.append(Span(x=_r(x), width=_r(width), is_open=end is None, seconds=seconds))
    return found


# --- lines ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A measure over time, against its limit."""

    points: str
    """As SVG writes them."""
    area: str
    """The same, closed along the bottom."""
    limit_y: float | None
    """None: there is no limit, or it is far above all that was read."""
    top: float
    """The value at the upper edge."""
    highest: float
    limit: float | None
    rows: tuple[tuple[str, float], ...]
    """Seconds since the first reading, in words, and the value."""


def memory(used: Mapping[str, Any]) -> Line | None:
    """Bytes of memory over time, of one attempt of `GET /managed/flow_runs/{id}/resources`; None: too little was read."""
    values = [(each["at"], float(each["memory_bytes"])) for each in used["samples"]]
    return _line(values, used["memory_limit_bytes"])


def processors(used: Mapping[str, Any]) -> Line | None:
    """Processors in use between each two readings."""
    read = used["samples"]
    values = []
    for before, after in itertools.pairwise(read):
        seconds = seconds_between(before["at"], after["at"])
        if seconds > 0:
            values.append((after["at"], max(0.0, after["cpu_seconds"] - before["cpu_seconds"]) / seconds))
    return _line(values, used["cpu_limit"])


def _line(values: Sequence[tuple[str, float]], limit: float | None) -> Line | None:
    if len(values) < 2:
        return None
    begin, highest = values[0][0], max(value for _, value in values)
    whole = seconds_between(begin, values[-1][0]) or 1.0
    top = (max(highest, limit) if limit else highest) * 1.05 or 1.0
    placed = [(seconds_between(begin, at), value) for at, value in values]
    points = [f"{_r(WIDTH * at / whole)},{_r(HEIGHT * (1 - value / top))}" for at, value in placed]
    return Line(
        points=" ".join(points),
        area=" ".join([f"0,{HEIGHT:g}", *points, f"{WIDTH:g},{HEIGHT:g}"]),
        limit_y=_r(HEIGHT * (1 - limit / top)) if limit else None,
        top=top,
        highest=highest,
        limit=limit,
        rows=tuple((words.duration(at), value) for at, value in placed),
    )


def _r(value: float) -> float:
    return round(value, 2)


# --- amounts -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """One amount a column."""

    columns: tuple[Column, ...]
    highest: float


def amounts(rows: Sequence[tuple[str, float, str]]) -> Amounts:
    """A column for each label, amount and what is said of it; nothing stands where the amount is 0."""
    highest = max((amount for _, amount, _ in rows), default=0.0)
    step = WIDTH / max(1, len(rows))
    gap = step * _GAP_SHARE
    columns = []
    for place, (label, amount, text) in enumerate(rows):
        height = max(_LEAST, HEIGHT * amount / highest) if amount else 0.0
        bar = Bar(
            x=_r(place * step + gap / 2), y=_r(HEIGHT - height), width=_r(step - gap), height=_r(height), kind="busy"
        )
        columns.append(Column(label=label, text=text, bars=(bar,) if amount else (), counts={}))
    return Amounts(columns=tuple(columns), highest=highest)
