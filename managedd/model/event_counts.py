"""Counting events by time: how a stretch of time is cut into spans."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from managedd.clock import to_us

PIVOT_US = to_us(datetime(2024, 4, 1, tzinfo=UTC))
"""Spans are counted from here: a Monday, so that weeks begin with one."""
MAX_SPANS = 1000
_UNIT_US = {
    name: timedelta(**{f"{name}s": 1}) // timedelta(microseconds=1)
    for name in ("week", "day", "hour", "minute", "second")
}
_LAST_US = to_us(datetime(9999, 1, 1, tzinfo=UTC))
_FIRST_US = to_us(datetime(1, 1, 2, tzinfo=UTC))


class TooManySpans(ValueError):
    """The interval is too short for the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Equal, adjacent spans: the first begins at `start_us`."""

    start_us: int
    step_us: int
    count: int

    def index(self, moment_us: int) -> int:
        """Which span holds the moment."""
        return (moment_us - self.start_us) // self.step_us

    def bounds(self, index: int) -> tuple[int, int]:
        """The first and the last microsecond of a span, within what a datetime can say."""
        start_us = self.start_us + index * self.step_us
        return max(_FIRST_US, start_us), min(_LAST_US, start_us + self.step_us - 1)


def spans(since_us: int, until_us: int, now_us: int, unit: str, interval: float) -> Spans:
    """The spans of `interval` units that cover the time, without those that begin after the present unit. Raises TooManySpans."""
    unit_us = _UNIT_US[unit]
    step_us = max(1, round(min(unit_us * interval, float(_LAST_US))))
    wanted = _ceil_div(until_us - since_us, step_us)
    if wanted > MAX_SPANS:
        raise TooManySpans(
            f"The interval would make {wanted} spans, which is too many: lengthen it, or shorten the time, to make {MAX_SPANS} or fewer."
        )
    first = (since_us - PIVOT_US) // step_us
    start_us = PIVOT_US + first * step_us
    if until_us > now_us:
        until_us = _end_of_unit(now_us, unit_us)
    return Spans(start_us=start_us, step_us=step_us, count=max(0, _ceil_div(until_us - start_us, step_us)))


def _end_of_unit(moment_us: int, unit_us: int) -> int:
    return moment_us + unit_us - (moment_us - PIVOT_US) % unit_us


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)
