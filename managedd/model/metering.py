"""Compute time: from when a run's container was started to when it ended, in whole minutes, day by day. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from managedd.clock import from_us, to_us
from managedd.model.amounts import human_minutes

if TYPE_CHECKING:
    from datetime import tzinfo

MINUTE_US: Final = 60_000_000
AGREES_US: Final = 10_000_000
"""Two accounts of one time differ by so much at most: a start and an end are told a little after they were."""
UNSEEN_US: Final = 60_000_000
"""Of what runs it is noted so often at least; beyond that nobody knows whether it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Month:
    """A calendar month of a time zone: from `begins_us`, up to but not including `ends_us`."""

    name: str
    """`2026-11`."""
    begins_us: int
    ends_us: int

    @property
    def renewal(self) -> str:
        """When the next one begins, in words: `2026-12-01 00:00 UTC`."""
        return f"{from_us(self.ends_us):%Y-%m-%d %H:%M} UTC"


def month_of(moment_us: int, zone: tzinfo) -> Month:
    """The month in which the moment lies."""
    local = from_us(moment_us).astimezone(zone)
    return _month(local.year, local.month, zone)


def month_named(name: str, zone: tzinfo) -> Month:
    """The month of a name such as `2026-11`. Raises ValueError."""
    parsed = datetime.strptime(name, "%Y-%m")
    return _month(parsed.year, parsed.month, zone)


def _month(year: int, month: int, zone: tzinfo) -> Month:
    begins = datetime(year, month, 1, tzinfo=zone)
    ends = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=zone)
    return Month(name=f"{year:04d}-{month:02d}", begins_us=to_us(begins), ends_us=to_us(ends))


def used_of(limit: float, used: float, *, kept: float = 0, plan: str, month: Month) -> str:
    """How a workspace stands in the month: its minutes, those that are kept for runs that start now, the plan's limit, and the reset."""
    starting = f" ({human_minutes(kept)} more kept for runs that start now)" if kept > 0 else ""
    return (
        f"the workspace has used {human_minutes(used)}{starting} of the {human_minutes(limit)} of compute time that plan {plan!r} "
        f"has for {month.name}; it is renewed on {month.renewal}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """Minutes of one execution that count on one day."""

    month: str
    """`2026-11`."""
    day: str
    """`2026-11-22`."""
    minutes: int


def metered(started_us: int, ended_us: int, zone: tzinfo) -> list[Metered]:
    """What an execution costs: its time rounded up to the minute, at least one, and split at each day's end in the time zone.

    The parts add up to the whole: each is what was reached by its end, rounded up, less what was counted before.
    """
    total = minutes(started_us, ended_us)
    found: list[Metered] = []
    counted, at_us = 0, started_us
    while counted < total:
        day = from_us(at_us).astimezone(zone).date()
        ends_us = to_us(datetime.combine(day + timedelta(days=1), time(), tzinfo=zone))
        reached = total if ended_us <= ends_us else minutes(started_us, ends_us)
        if reached > counted:
            found.append(Metered(month=f"{day:%Y-%m}", day=day.isoformat(), minutes=reached - counted))
        counted, at_us = reached, ends_us
    return found


def minutes(started_us: int, ended_us: int) -> int:
    """Whole minutes, rounded up; at least one, also where a clock was set back in between."""
    return max(1, -(-(ended_us - started_us) // MINUTE_US))


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What was seen of a container's time: microseconds since its start, by a clock that nobody sets."""

    seen_us: int
    """So long it did run."""
    noticed_us: int | None
    """After so long it had ended; None: nobody looked."""


def ran_us(account_us: int | None, watched: Watched) -> int:
    """How long it ran: by the engine's own account, between whose two readings a clock may have been set, as far as it agrees with what
    was seen; without one, as long as it was seen to."""
    if account_us is None or account_us < watched.seen_us - AGREES_US:
        return watched.seen_us
    if watched.noticed_us is not None and account_us > watched.noticed_us + AGREES_US:
        return watched.noticed_us
    return account_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What is on record of a container's time."""

    ran_us: int
    """So long it was seen to run, by a clock that nobody sets."""
    at_us: int
    """When, by the wall clock."""

    def watched(self, now_us: int) -> Watched:
        """What that says of an end that was noticed only now: between them lies what the wall clock says, in which a clock that was set before
        has no part. One that was set back since says nothing."""
        since_us = now_us - self.at_us
        return Watched(seen_us=self.ran_us, noticed_us=None if since_us < 0 else self.ran_us + since_us)


def adopted_us(ago_us: int | None, noted: Noted | None, now_us: int) -> int:
    """How long what runs has run when somebody watches it again: since its start `ago_us`, by a clock that may have been set since then, as
    far as that agrees with what is on record, else since the note. None: nobody knows."""
    if noted is None:
        return ago_us or 0
    most_us = noted.watched(now_us).noticed_us
    if most_us is None:
        return max(noted.ran_us, ago_us or 0)
    if ago_us is None or not noted.ran_us - AGREES_US <= ago_us <= most_us + AGREES_US:
        return most_us
    return max(noted.ran_us, ago_us)


def running_us(started_us: int, now_us: int, *, ran_us: int | None, noted_us: int | None) -> int:
    """How long what runs has run: by what was noted of it last, and the little that may have gone by since; by the wall clock before."""
    if ran_us is None or noted_us is None:
        return max(0, now_us - started_us)
    return ran_us + min(max(0, now_us - noted_us), UNSEEN_US)
