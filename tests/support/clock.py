"""A clock that tests turn by hand."""

from __future__ import annotations

from datetime import UTC, datetime

from managedd.clock import to_us

NOON = to_us(datetime(2026, 3, 2, 12, tzinfo=UTC))
"""A Monday."""


class ManualClock:
    """Stands still until it is told otherwise."""

    def __init__(self, now_us: int = NOON) -> None:
        self._now_us = now_us
        self._monotonic = 0.0

    def now_us(self) -> int:
        return self._now_us

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """`seconds` have passed."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic += seconds

    def set_wall(self, seconds: float) -> None:
        """Somebody has set the wall clock forward by `seconds`, or back; no time has passed."""
        self._now_us += round(seconds * 1_000_000)

    def turn_to(self, moment: datetime) -> None:
        """It is `moment` now; the monotonic clock moves along, and never back."""
        seconds = (to_us(moment) - self._now_us) / 1_000_000
        self._now_us = to_us(moment)
        self._monotonic += max(0.0, seconds)
