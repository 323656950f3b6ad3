"""Amounts in words: sizes in KiB, MiB and GiB, times in hours, minutes and seconds. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def human_bytes(count: int | None) -> str:
    """`2.0 GiB`; `unknown` for None."""
    if count is None:
        return "unknown"
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def human_seconds(seconds: float | None) -> str:
    """`1 h 2 min`, `24 h`, `3 min 4 s`, `5.6 s`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return human_minutes(minutes) if minutes >= 60 or not rest else f"{minutes} min {rest} s"


def human_minutes(minutes: float) -> str:
    """`2 h 5 min`, `250 h`, `7 min`; of less than ten minutes also `1.2 min`."""
    if minutes < 10:
        return f"{round(minutes, 1):g} min"
    hours, rest = divmod(round(minutes), 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{rest} min"] * bool(rest or not hours))


def apart(words: Callable[[int], str], unit: str, *amounts: int) -> list[str]:
    """The amounts in words; in exact `unit` beside them where two that differ would read alike."""
    said = [words(amount) for amount in amounts]
    if len(set(said)) == len(set(amounts)):
        return said
    return [f"{text} ({amount} {unit})" for text, amount in zip(said, amounts, strict=True)]
