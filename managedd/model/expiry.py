"""When a key shall end, as people write it. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from managedd.clock import to_us

ALLOWED: Final = "a duration such as 90d, 12h or 2w, or a date or time such as 2027-01-01 or 2027-01-01T08:00:00Z"
MOST_DAYS: Final = 36_600
"""A hundred years."""
_DAY_US: Final = 86_400_000_000
_UNITS_US: Final = {"m": 60_000_000, "h": 3_600_000_000, "d": _DAY_US, "w": 7 * _DAY_US}
_DURATION: Final = re.compile(r"(\d{1,9})([mhdw])")


def expires_us(text: str, now_us: int) -> int:
    """The moment in microseconds; a date is its first moment, and what names no zone is UTC. Raises ValueError with what is allowed."""
    moment = _moment(text.strip(), now_us)
    if moment <= now_us:
        raise ValueError(f"{text!r} has passed; allowed: {ALLOWED}, in the future")
    if moment > now_us + MOST_DAYS * _DAY_US:
        raise ValueError(f"{text!r} is more than {MOST_DAYS:,} days away; leave it out for a key that does not end")
    return moment


def _moment(text: str, now_us: int) -> int:
    if duration := _DURATION.fullmatch(text):
        return now_us + int(duration[1]) * _UNITS_US[duration[2]]
    try:
        found = datetime.fromisoformat(text)
        return to_us(found if found.tzinfo is not None else found.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; allowed: {ALLOWED}") from None
