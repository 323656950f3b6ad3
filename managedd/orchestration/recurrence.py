"""When a schedule fires: pure functions from a schedule and an instant to the next instants.

The rules around a change of clocks, in a zone that has them:

- A wall-clock time that comes twice fires at its first coming; one that never comes fires when the gap ends. So a fixed
  hour fires exactly once each wall-clock day, and two times inside one gap are one firing.
- A schedule that treats every hour alike (`0 * * * *`, `*/15 * * * *`, `FREQ=MINUTELY;INTERVAL=20`) keeps real time: it
  fires in both comings of an hour, and has nothing to make up for in a gap.
- An interval shorter than a day is real time; from a day upwards it is a grid of wall-clock times through its anchor.

Times are computed on the naive local clock by croniter and dateutil, then given their place in time here. Work is bounded:
whatever a tenant writes, a call ends after a fixed number of steps.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from datetime import UTC, datetime, time, timedelta
from functools import cache
from itertools import count, product
from math import prod
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from dateutil.rrule import DAILY, HOURLY, MINUTELY, MONTHLY, SECONDLY, WEEKLY, YEARLY, rrule, rruleset, rrulestr

from managedd.clock import from_us, to_us
from managedd.errors import invalid
from managedd.model.schedules import CronSchedule, IntervalSchedule, RRuleSchedule, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_CRON_LENGTH = 500
MAX_RRULE_LENGTH = 6500
"""Prefect's bound: about a year of single RDATEs."""
MAX_OCCURRENCES = 10_000
_DAY_US = 86_400_000_000
_BASE_STEPS = 100_000
_STEPS_PER_OCCURRENCE = 400
"""A rule that fires once a year takes 366 steps to the next time."""
_STEPS_BETWEEN_RESTS = 200
"""Less than a millisecond."""
_MAX_TIMES_OF_DAY = 30_000
_RRULE_START = datetime(2020, 1, 1)
_PERIODS = {
    SECONDLY: timedelta(seconds=1),
    MINUTELY: timedelta(minutes=1),
    HOURLY: timedelta(hours=1),
    DAILY: timedelta(days=1),
    WEEKLY: timedelta(weeks=1),
}
_TIMES_OF_DAY = re.compile(r"BY(?:HOUR|MINUTE|SECOND)=([^;\s]*)", re.IGNORECASE)
_WITHIN_A_DAY = re.compile(r"FREQ=(?:HOURLY|MINUTELY|SECONDLY)", re.IGNORECASE)
_RANDOM_CRON = re.compile(r"(?:^|,)[hr](?![a-z])", re.IGNORECASE)
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class _OutOfStepsError(Exception):
    """The bound on a rule's work is reached."""


class Effort:
    """What reckoning may take: so many steps of some 3 to 7 µs, for one schedule or for several.

    `rest`, where it is given, is called every few of them: whoever reckons on a thread lets others have the processor meanwhile.
    """

    def __init__(self, steps: int, rest: Callable[[], None] | None = None) -> None:
        self._left = float(steps)
        self._rest = rest
        self._rests_at = self._left - _STEPS_BETWEEN_RESTS
        self.is_spent = False

    def spend(self, weight: float = 1.0) -> None:
        """So much of it is gone. Raises what ends the reckoning."""
        self._left -= weight
        if self._left < 0:
            self.is_spent = True
            raise _OutOfStepsError
        if self._rest is not None and self._left < self._rests_at:
            self._rests_at = self._left - _STEPS_BETWEEN_RESTS
            self._rest()


def occurrences(
    schedule: Schedule, after: datetime, limit: int, until: datetime | None = None, *, effort: Effort | None = None
) -> list[datetime]:
    """The first `limit` instants later than `after` and not later than `until`, aware in UTC, ascending, none twice.

    A schedule that is over, or whose next time is farther away than the bound on the work, gives fewer or none; `effort` is spent
    then. A schedule that `validate` refuses raises the same INVALID error.
    """
    if limit <= 0:
        return []
    limit = min(limit, MAX_OCCURRENCES)
    return _collect(schedule, _aware(after), limit, until and _aware(until), effort or _effort(limit))


def validate(schedule: Schedule, now: datetime | None = None, *, effort: Effort | None = None) -> None:
    """Returns when `schedule` can be evaluated; else an INVALID error names the field and what is allowed."""
    moment = _aware(now) if now is not None else datetime.now(UTC)
    effort = effort or _effort(1)
    if not _collect(schedule, moment, 1, None, effort) and effort.is_spent:
        raise invalid(
            "schedule.rrule: no next time within the allowed work: the rule never fires, or DTSTART lies so far back that "
            "counting from it takes too long; allowed: a rule that fires, with a nearer DTSTART or without COUNT",
        )


def effort_of(schedules: int, rest: Callable[[], None] | None = None) -> Effort:
    """What validating so many schedules together may take: one of them that never fires is told, a hundred such are not walked through."""
    return Effort(_BASE_STEPS + _STEPS_PER_OCCURRENCE * schedules, rest)


def _effort(limit: int) -> Effort:
    return Effort(_BASE_STEPS + _STEPS_PER_OCCURRENCE * limit)


@cache
def _known_zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str | None) -> ZoneInfo:
    if not name:
        return ZoneInfo("UTC")
    if name not in _known_zones():
        raise invalid(
            f"schedule.timezone: {name[:60]!r} is not a time zone of the IANA database; allowed: a name such as 'Europe/Berlin'",
        )
    return ZoneInfo(name)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _collect(schedule: Schedule, after: datetime, limit: int, until: datetime | None, effort: Effort) -> list[datetime]:
    """What was found until then, within the effort."""
    zone = _zone(schedule.timezone)
    found: list[datetime] = []
    try:
        match schedule:
            case CronSchedule():
                instants = _cron(schedule, zone, after)
            case IntervalSchedule():
                instants = _interval(schedule, zone, after)
            case RRuleSchedule():
                instants = _rrule(schedule, zone, after, effort)
        for instant in instants:
            if until is not None and instant > until:
                break
            found.append(instant)
            if len(found) >= limit:
                break
    except (_OutOfStepsError, OverflowError, OSError):  # of what Python reckons with: beyond year 9999
        pass
    return found


# From the local clock to instants


def _start(zone: ZoneInfo, after: datetime, *, every_hour: bool) -> datetime:
    """The local time from which on candidates may lie after `after`."""
    local = after.astimezone(zone)
    naive = local.replace(tzinfo=None, fold=0)
    if every_hour and local.fold == 0:
        # In the first coming of a doubled hour, its earlier minutes are still to come a second time.
        repeated = local.utcoffset() or timedelta(0)
        repeated -= local.replace(fold=1).utcoffset() or timedelta(0)
        if repeated > timedelta(0):
            return naive - repeated
    return naive


def _instants(naives: Iterable[datetime], zone: ZoneInfo, after: datetime, *, every_hour: bool) -> Iterator[datetime]:
    """The instants after `after` of ascending local times; see the module's rules for gaps and doubled hours."""
    last = after
    second_comings: deque[datetime] = deque()
    for naive in naives:
        local = naive.replace(tzinfo=zone)
        offset = local.utcoffset() or timedelta(0)
        other = local.replace(fold=1).utcoffset() or timedelta(0)
        instant = (naive - offset).replace(tzinfo=UTC)
        if other > offset:  # in a gap: `offset` ruled before it, `other` rules after it
            if every_hour:
                continue
            instant = _gap_end(zone, (naive - other).replace(tzinfo=UTC), instant)
        while second_comings and second_comings[0] <= instant:
            second = second_comings.popleft()
            if second > last:
                last = second
                yield second
        if instant > last:
            last = instant
            yield instant
        if every_hour and other < offset:
            second_comings.append((naive - other).replace(tzinfo=UTC))
    for second in second_comings:
        if second > last:
            last = second
            yield second


def _gap_end(zone: ZoneInfo, before: datetime, later: datetime) -> datetime:
    """The instant of the change of clocks in (before, later]."""
    offset = before.astimezone(zone).utcoffset()
    low, high = 0, int((later - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return before + timedelta(seconds=high)


# Interval


def _interval(schedule: IntervalSchedule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    interval_us, anchor = schedule.interval_us, from_us(schedule.anchor_us)
    if interval_us < _DAY_US or zone.key == "UTC":
        first = (to_us(after) - schedule.anchor_us) // interval_us + 1
        for step in count(first):
            yield anchor + timedelta(microseconds=step * interval_us)
        return
    local_anchor = anchor.astimezone(zone).replace(tzinfo=None, fold=0)
    start = _start(zone, after, every_hour=False)
    first = (to_us(start) - to_us(local_anchor)) // interval_us
    naives = (local_anchor + timedelta(microseconds=step * interval_us) for step in count(first))
    yield from _instants(naives, zone, after, every_hour=False)


# Cron


def _cron(schedule: CronSchedule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    days, hours, minutes, seconds = _cron_parts(schedule.cron)
    every_hour = len(hours) == 24
    start = _start(zone, after, every_hour=every_hour)
    naives = _cron_naives(days, [time(*parts) for parts in product(hours, minutes)], seconds, start, schedule.day_or)
    return _instants(naives, zone, after, every_hour=every_hour)


def _cron_parts(text: str) -> tuple[str, list[int], list[int], list[int]]:
    """The expression for the days alone, and the sets of hours, minutes and seconds."""
    allowed = (
        "allowed: five fields 'minute hour day month weekday', or six with the second at the end, or one of "
        + ", ".join(_ALIASES)
    )
    shown = text[:80]
    if len(text) > MAX_CRON_LENGTH:
        raise invalid(f"schedule.cron: {shown!r}… is longer than {MAX_CRON_LENGTH} characters")
    fields = _ALIASES.get(text.strip().lower(), text).split()
    if any(_RANDOM_CRON.search(field) for field in fields):
        raise invalid(
            f"schedule.cron: {shown!r} asks for random (R) or hashed (H) times, which are not offered; {allowed}"
        )
    try:
        expanded = croniter.expand(" ".join(fields))[0]
        days = " ".join(["0", "0", *fields[2:5]] + (["0", fields[6]] if len(fields) == 7 else []))
        croniter(days, _RRULE_START)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise invalid(f"schedule.cron: {shown!r} is not a cron expression ({error}); {allowed}") from None
    return (
        days,
        _numbers(expanded[1], 24),
        _numbers(expanded[0], 60),
        _numbers(expanded[5], 60) if len(expanded) > 5 else [0],
    )


def _numbers(field: list[Any], size: int) -> list[int]:
    return list(range(size)) if "*" in field else sorted({int(value) for value in field})


def _cron_naives(days: str, times: list[time], seconds: list[int], start: datetime, day_or: bool) -> Iterator[datetime]:
    """Local times not earlier than `start`'s second, ascending: croniter says the days, the sets say the times."""
    first_day = datetime.combine(start.date(), time())
    calendar = croniter(days, first_day - timedelta(seconds=1), day_or=day_or)
    while True:
        try:
            day = calendar.get_next(datetime)
        except ValueError:  # no such day within croniter's horizon of 50 years
            return
        begin = bisect_left(times, start.time().replace(second=0, microsecond=0)) if day == first_day else 0
        for moment in times[begin:]:
            for second in seconds:
                yield datetime.combine(day, moment.replace(second=second))


# RRULE


class _Counted(frozenset[int]):
    """A set of by-values that counts how often it is asked and walked through, and ends the search at the bound.

    dateutil's generator looks into its by-sets at least once for every step it takes, and walks through them where it makes the
    times of an hour or a minute; it offers no other way to stop a rule that never fires short of the year 9999.
    """

    __slots__ = ("spend",)
    spend: Any

    def __contains__(self, item: object) -> bool:
        self.spend()
        return super().__contains__(item)

    def __iter__(self) -> Iterator[int]:
        self.spend(len(self) / 4)
        return super().__iter__()


def _rrule(schedule: RRuleSchedule, zone: ZoneInfo, after: datetime, budget: Effort) -> Iterator[datetime]:
    rule = _parse_rrule(schedule.rrule)
    every_hour = isinstance(rule, rrule) and _covers_every_hour(rule)
    start = _start(zone, after, every_hour=every_hour).replace(microsecond=0)
    if isinstance(rule, rruleset):
        narrowed = rruleset()
        # The lists of a parsed set are not public; Prefect's server reads the same ones.
        parts: Any = rule
        for part in parts._rrule:
            narrowed.rrule(_bounded(part, start, budget))
        for part in parts._exrule:
            narrowed.exrule(_bounded(part, start, budget))
        for moment in parts._rdate:
            narrowed.rdate(_naive(moment))
        for moment in parts._exdate:
            narrowed.exdate(_naive(moment))
        naives = _from(narrowed, start, budget)
    else:
        naives = _from(_bounded(rule, start, budget), start, budget)
    return _instants(naives, zone, after, every_hour=every_hour)


def _from(rule: Iterable[datetime], start: datetime, budget: Effort) -> Iterator[datetime]:
    try:
        for naive in rule:
            budget.spend()
            if naive >= start:
                yield naive
    except (ValueError, TypeError):  # dateutil notices an empty combination of by-values only while it walks
        return


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


def _parse_rrule(text: str) -> rrule | rruleset:
    shown = text[:60]
    if len(text) > MAX_RRULE_LENGTH:
        raise invalid(f"schedule.rrule: {shown!r}… is {len(text)} characters long; allowed: {MAX_RRULE_LENGTH}")
    times = sum(map(_times_of_day, text.splitlines()))
    if times > _MAX_TIMES_OF_DAY:
        raise invalid(
            f"schedule.rrule: BYHOUR, BYMINUTE and BYSECOND name {times:,} times of a day; allowed: {_MAX_TIMES_OF_DAY:,}, or "
            "FREQ=MINUTELY or SECONDLY instead"
        )
    try:
        # Offsets, Z and TZID are dropped: the digits are local times of the schedule's own zone, as in Prefect.
        parsed = rrulestr(text, dtstart=_RRULE_START, ignoretz=True, tzids={})
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise invalid(f"schedule.rrule: {shown!r} is not an RFC 5545 rule ({error})") from None
    rules: list[Any] = [parsed] if isinstance(parsed, rrule) else [*parsed._rrule, *parsed._exrule]  # type: ignore[attr-defined]
    for rule in rules:
        if rule._interval < 1:
            raise invalid(f"schedule.rrule: INTERVAL={rule._interval} is not allowed; allowed: 1 and more")
    return parsed


def _times_of_day(line: str) -> int:
    """How many times dateutil makes of the rule on that line before it takes any step."""
    return 0 if _WITHIN_A_DAY.search(line) else prod(part.count(",") + 1 for part in _TIMES_OF_DAY.findall(line))


def _by_values(rule: rrule) -> dict[str, Any]:
    """The BY… parts as they were written, without what dateutil derives from DTSTART."""
    written: dict[str, Any] = rule._original_rule  # type: ignore[attr-defined]
    return {name: value for name, value in written.items() if name.startswith("by") and value is not None}


def _covers_every_hour(rule: rrule) -> bool:
    anyone: Any = rule
    period = _PERIODS.get(anyone._freq)
    if period is None or period > timedelta(hours=1) or "byhour" in _by_values(rule):
        return False
    return bool(timedelta(hours=1) % (period * min(anyone._interval, 3601)) == timedelta(0))


def _bounded(rule: rrule, start: datetime, budget: Effort) -> rrule:
    """The same rule for times from `start` on: it begins close to `start`, and counts its steps."""
    inner: Any = rule
    changes = _closer_start(inner, start)
    moved: Any = rule.replace(**changes) if changes else rule.replace()
    weight = 1.0 + len(moved._bysetpos or ()) / 4
    # A month set is asked for every day the rule looks at, the sets of hours to seconds for every step inside a day.
    months = _Counted(moved._bymonth or range(1, 13))
    months.spend = lambda times=1.0: budget.spend(weight * times)
    moved._bymonth = months
    if moved._freq >= HOURLY:
        for name in ("_byhour", "_byminute", "_bysecond"):
            values = getattr(moved, name)
            if values is not None:
                counted = _Counted(values)
                counted.spend = budget.spend
                setattr(moved, name, counted)
    return moved  # type: ignore[no-any-return]


def _closer_start(rule: Any, start: datetime) -> dict[str, Any]:
    """What to replace so that the walk begins two periods before `start` with the same phase."""
    begin: datetime = _naive(rule._dtstart)
    period = _PERIODS.get(rule._freq)
    plain = not _by_values(rule)
    if period is not None:
        skipped = ((start - begin) // period) // rule._interval - 2
        if skipped <= 0 or (rule._count is not None and not plain):
            return {}
        changes: dict[str, Any] = {"dtstart": begin + period * (skipped * rule._interval)}
        if rule._count is not None:
            # Without BY… parts every period is one occurrence.
            changes["count"] = max(0, rule._count - skipped)
        return changes
    if begin.day > 28 or rule._count is not None:
        return {}
    months = rule._interval * (12 if rule._freq == YEARLY else 1)
    assert rule._freq in {YEARLY, MONTHLY}
    distance = (start.year - begin.year) * 12 + start.month - begin.month
    skipped = distance // months - 2
    if skipped <= 0:
        return {}
    years, month = divmod(begin.month - 1 + skipped * months, 12)
    return {"dtstart": begin.replace(year=begin.year + years, month=month + 1)}
