"""The figures as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figures import TARGETS, Change, Figure, Reading, Report, changes

if TYPE_CHECKING:
    from collections.abc import Sequence

NOISE = 1.1
"""A change by less than this factor is within what two runs of the same code differ by."""


def number(value: float) -> str:
    """Three digits that matter, thousands apart."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def report_table(report: Report) -> str:
    """Both systems, how many times better managedd is, and what it shall be."""
    rows: list[tuple[str, ...]] = [("", "unit", "managedd", "peer", "ratio", "target")]
    rows += [_row(figure) for figure in report.figures if figure.shown]
    return "\n".join([_aligned(rows), *(f"note: {note}" for note in report.notes)])


def change_table(before: Report, after: Report) -> str:
    """What both reports have; a change that is no noise is marked."""
    shown = {figure.key for figure in after.figures if figure.shown}
    rows: list[tuple[str, ...]] = [("", "unit", "system", "before", "after", "gain")]
    rows += [_change_row(change) for change in changes(before, after) if change.key in shown]
    return _aligned(rows)


def _row(figure: Figure) -> tuple[str, ...]:
    target = TARGETS.get(figure.key)
    said = ""
    if target is not None:
        held = target.held(figure)
        said = f"{target} {'-' if held is None else 'held' if held else 'MISSED'}"
    ratio = "" if figure.ratio is None else f"{number(figure.ratio)} ×"
    return (figure.title, figure.unit, _reading(figure.managedd), _reading(figure.peer), ratio, said)


def _reading(reading: Reading | None) -> str:
    return "-" if reading is None else number(reading.value)


def _change_row(change: Change) -> tuple[str, ...]:
    said = ""
    if change.gain is not None:
        mark = " better" if change.gain > NOISE else " WORSE" if change.gain < 1 / NOISE else ""
        said = f"{change.gain:.2f} ×{mark}"
    elif change.before != change.after:
        said = "better" if change.after < change.before else "WORSE"
    return (change.title, change.unit, change.system, number(change.before), number(change.after), said)


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns under their heads, the numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for at, row in enumerate(rows):
        cells = [
            cell.rjust(width) if rows[0][column] in {"managedd", "peer", "ratio", "before", "after"} else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]  # fmt: skip
        lines.append("  ".join(cells).rstrip())
        if at == 0:
            lines.append("  ".join("─" * width for width in widths))
    return "\n".join(lines)
