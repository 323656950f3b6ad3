"""How pages say amounts, times and states. Pure: what stands in a template is text from here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_BYTES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_KINDS: Final = {
    "COMPLETED": "good", "FAILED": "bad", "CRASHED": "bad", "CANCELLED": "quiet", "CANCELLING": "busy", "RUNNING": "busy",
    "PENDING": "busy", "SCHEDULED": "waiting", "PAUSED": "waiting", "READY": "good", "NOT_READY": "waiting",
}  # fmt: skip
"""State types, and statuses of pools, queues and deployments; the colour is never the only thing that says so."""


def duration(seconds: float | None) -> str:
    """`1 h 5 min`, `12 s`, `0.4 s`: the two largest units; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(seconds, 0):.1f} s"
    left, parts = round(seconds), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def hours(minutes: float | None) -> str:
    """Compute time: `3 h 25 min` from minutes."""
    if minutes is None:
        return "–"
    whole, rest = divmod(round(minutes), 60)
    if not whole:
        return f"{rest} min"
    return f"{whole:,} h {rest} min" if rest else f"{whole:,} h"


def size(count: float | None) -> str:
    """`2 GiB`, `512 MiB`, `1.5 GiB` from bytes; a dash for None."""
    if count is None:
        return "–"
    for factor, unit in _BYTES:
        if count >= factor:
            return f"{count / factor:.1f}".removesuffix(".0") + f" {unit}"
    return f"{round(count):,} bytes"


def number(value: float | None) -> str:
    """With its thousands set apart; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def kind(state: str | None) -> str:
    """Which of the five kinds a state's or a status's type is: good, bad, busy, waiting, quiet."""
    return _KINDS.get((state or "").upper(), "quiet")


def segment(text: object) -> str:
    """As it stands between two slashes of a path."""
    quoted = quote(str(text), safe="")
    # Browsers take `..` out of an address, however it is written: what is called so must not lead to what is above it.
    return quoted + "%2F" if quoted in {".", ".."} else quoted


def moment(text: str | datetime | None) -> datetime | None:
    """The moment of a time as the API writes it."""
    if text is None or isinstance(text, datetime):
        return text
    return datetime.fromisoformat(text)


def took(run: Mapping[str, Any]) -> float | None:
    """The seconds from a run's start to its end; None: it has not ended, or never began."""
    start, end = moment(run["start_time"]), moment(run["end_time"])
    return None if start is None or end is None else max(0.0, (end - start).total_seconds())


def exact(text: str | datetime | None) -> str:
    """`2026-11-23 14:05:12 UTC`; a dash for None."""
    found = moment(text)
    return "–" if found is None else f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def local(text: str | datetime | None, zone: str) -> str:
    """`Mon 23 Nov 2026, 09:00 CET` in a zone of the IANA database, UTC where there is no such; seconds where they are not 0."""
    found = moment(text)
    if found is None:
        return "–"
    try:
        there = found.astimezone(ZoneInfo(zone))
    except (KeyError, ValueError, OSError, OverflowError):
        there = found.astimezone(UTC)
    clock = f"{there:%H:%M:%S}" if there.second else f"{there:%H:%M}"
    return f"{there:%a} {there.day} {there:%b %Y}, {clock} {there:%Z}"


def day_in(text: str | datetime | None, zone: str) -> str:
    """The day that it is then in a time zone."""
    found = moment(text)
    return "–" if found is None else day(found.astimezone(ZoneInfo(zone)))


def day(text: str | datetime | None) -> str:
    """`1 December 2026`; a dash for None."""
    found = moment(text)
    return "–" if found is None else f"{found.day} {found:%B %Y}"
