"""Time: aware UTC datetimes at the edges, integer microseconds since the epoch in the store.

The store keeps microseconds because SQLite 3.40 has no sub-second `unixepoch` and integers index and compare exactly.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000


class Clock(Protocol):
    """What tells the time; tests use one that they turn by hand."""

    def now_us(self) -> int:
        """Wall-clock microseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""


class SystemClock:
    """The host's clock."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()


def to_us(moment: datetime) -> int:
    """Microseconds since the epoch; a naive datetime is taken as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC datetime of `us` microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=us)


@lru_cache(maxsize=1024)
def _day(days: int) -> str:
    return (EPOCH + timedelta(days=days)).date().isoformat()


def iso(us: int) -> str:
    """ISO-8601 with microseconds and `Z`, as Prefect's server writes it."""
    # A page of runs has a thousand times, nearly all of a few days: seven times as fast as strftime.
    days, rest = divmod(us, _DAY_US)
    seconds, microseconds = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return "%sT%02d:%02d:%02d.%06dZ" % (_day(days), *divmod(minutes, 60), second, microseconds)  # noqa: UP031 - it is the fastest
