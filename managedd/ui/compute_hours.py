"""What a workspace's month of compute hours comes to, if it goes on as it has. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from managedd.ui import words

if TYPE_CHECKING:
    from collections.abc import Mapping

TOO_EARLY: Final = timedelta(days=1)
"""So much of a month has to be over before anything is said of the rest."""
_STEP: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A month's end, as it looks now."""

    minutes: float
    """What will have been used at its end."""
    used_up: datetime | None = None
    """When the last hour will be gone; None: not in this month."""


def outlook(usage: Mapping[str, Any], now: datetime) -> Outlook | None:
    """The rest of the month at the pace that it had so far; None when it is too early to say.

    `usage` is the answer of `GET /managed/usage`. The outlook is the same for an hour, so that a page changes no more often.
    """
    zone = ZoneInfo(usage["time_zone"])
    begins = datetime.strptime(usage["month"], "%Y-%m").replace(tzinfo=zone)
    ends = datetime.fromisoformat(usage["resets"])
    gone = (now - begins) // _STEP * _STEP
    if gone < TOO_EARLY or begins + gone >= ends:
        return None
    used: float = usage["used_minutes"]
    pace = used / (gone / timedelta(minutes=1))
    whole = pace * ((ends - begins) / timedelta(minutes=1))
    left = usage["remaining_minutes"]
    used_up = None
    if left is not None and 0 < left and whole > usage["limit_minutes"]:
        used_up = begins + gone + timedelta(minutes=left / pace)
    return Outlook(minutes=whole, used_up=used_up)


def sentence(found: Outlook | None, resets: str) -> str:
    """The outlook in words; nothing where nothing was used."""
    if found is None:
        return "Too early in the month to say how much it will be at its end."
    if found.minutes == 0:
        return ""
    if found.used_up is not None and found.used_up < datetime.fromisoformat(resets):
        return f"At this pace the hours are used up about {words.day(found.used_up)}."
    return f"At this pace about {words.hours(_rounded(found.minutes))} by the end of the month."


def _rounded(minutes: float) -> float:
    """To the hour, where there are several: nobody knows more."""
    return minutes if minutes < 120 else round(minutes / 60) * 60
