"""Cron and RRULE against a clock that is walked minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from dateutil.rrule import rrulestr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from managedd.errors import ManagedError
from managedd.model.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from managedd.orchestration.recurrence import occurrences, validate

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = [
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/St_Johns", datetime(2011, 3, 13, 3, 31, tzinfo=UTC)),  # changed at 00:01 in those years
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 6, 1, 12, tzinfo=UTC)),
]
MINUTE = timedelta(minutes=1)


def walk(
    zone: ZoneInfo, after: datetime, until: datetime, matches: Callable[[datetime], bool], *, every_hour: bool
) -> list[datetime]:
    """What somebody would do who looks at a wall clock each minute and never does a time twice or leaves one out."""
    fired = []
    moment = after - timedelta(days=3)
    reached = moment.astimezone(zone).replace(tzinfo=None, fold=0)
    while moment <= until:
        wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
        if every_hour:
            due = matches(wall)
        else:
            due = False
            while reached < wall:
                reached += MINUTE
                due = due or matches(reached)
        if due and moment > after:
            fired.append(moment)
        moment += MINUTE
    return fired


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(1, 7).map(lambda step: f"*/{step}"),
        st.lists(number, min_size=1, max_size=4, unique=True).map(lambda some: ",".join(map(str, some))),
        st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    )


HOURS = st.one_of(field(0, 5), field(0, 23), st.just("*"), st.just("0-23"))
DAYS = st.sampled_from(["* * *", "* * *", "* * 0,6", "1-8 * *", "30,31 * *", "L * *", "* 3,10,12 *"])


@settings(max_examples=60, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    minute=field(0, 59),
    hour=HOURS,
    days=DAYS,
    lead=st.integers(0, 1500),
)
def test_cron_is_what_a_person_with_a_wall_clock_would_do(
    change: tuple[str, datetime], minute: str, hour: str, days: str, lead: int
) -> None:
    name, at = change
    zone = ZoneInfo(name)
    expression = f"{minute} {hour} {days}"
    after = at - lead * MINUTE
    until = after + timedelta(days=2)
    expanded = croniter.expand(expression)[0]
    every_hour = expanded[1] == ["*"] or len(set(expanded[1])) == 24
    days_there = {
        day.date()
        for day in (datetime(at.year, at.month, at.day) + timedelta(days=offset) for offset in range(-8, 9))
        if croniter.match(f"0 0 {days}", day)
    }
    minutes = set(range(60)) if expanded[0] == ["*"] else set(expanded[0])
    hours = set(range(24)) if expanded[1] == ["*"] else set(expanded[1])

    def matches(wall: datetime) -> bool:
        return wall.minute in minutes and wall.hour in hours and wall.date() in days_there

    expected = walk(zone, after, until, matches, every_hour=every_hour)
    assert occurrences(CronSchedule(cron=expression, timezone=name), after, 10_000, until) == expected


@settings(max_examples=60, deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    interval_minutes=st.integers(24 * 60, 24 * 60 * 3),
    anchor_minutes=st.integers(-3000, 3000),
    lead=st.integers(0, 1500),
)
def test_long_intervals_are_a_grid_of_wall_clock_times(
    change: tuple[str, datetime], interval_minutes: int, anchor_minutes: int, lead: int
) -> None:
    name, at = change
    zone = ZoneInfo(name)
    anchor = at - timedelta(days=5) + anchor_minutes * MINUTE
    wall_anchor = anchor.astimezone(zone).replace(tzinfo=None, fold=0)
    schedule = IntervalSchedule(
        interval_us=interval_minutes * 60_000_000,
        anchor_us=int(anchor.timestamp()) * 1_000_000,
        timezone=name,
    )
    after = at - lead * MINUTE
    until = after + timedelta(days=3)

    def matches(wall: datetime) -> bool:
        return (wall - wall_anchor) % timedelta(minutes=interval_minutes) == timedelta(0)

    assert occurrences(schedule, after, 1000, until) == walk(zone, after, until, matches, every_hour=False)


EXTRAS = [
    "",
    "",
    ";BYDAY=MO,WE,FR",
    ";BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
    ";BYMONTHDAY=1,15,-1",
    ";BYMONTH=2,7",
    ";WKST=SU;BYDAY=SU,MO",
    ";UNTIL=20260801T000000",
    ";COUNT=3000",
    ";COUNT=50;BYDAY=TU",
    ";BYHOUR=1,13;BYMINUTE=0,30",
    ";BYYEARDAY=1,100,366",
]
# The reference walks every step from DTSTART on: as far back as makes a few thousand of them.
LONGEST_AGO = {"MINUTELY": timedelta(days=5), "HOURLY": timedelta(days=300)}


@st.composite
def questions(draw: st.DrawFn) -> tuple[str, datetime]:
    """A rule, and an instant to ask it about: mostly one that lies behind DTSTART."""
    freq = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"]))
    after = draw(st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)))
    longest = LONGEST_AGO.get(freq, timedelta(days=4000))
    start = after - draw(st.timedeltas(-longest / 10, longest))
    interval, extra = draw(st.integers(1, 40)), draw(st.sampled_from(EXTRAS))
    return f"DTSTART:{start:%Y%m%dT%H%M%S}\nRRULE:FREQ={freq};INTERVAL={interval}{extra}", after


NEVER = "DTSTART:20150101T000000\nRRULE:FREQ=HOURLY;INTERVAL=2;BYHOUR=1,13;BYMINUTE=0,30"


@settings(max_examples=80, deadline=None)
@given(question=questions())
@example(question=(NEVER, datetime(2025, 1, 1)))
def test_starting_close_to_the_question_changes_no_rule(question: tuple[str, datetime]) -> None:
    text, after = question
    schedule = RRuleSchedule(rrule=text, timezone="UTC")
    try:
        walked = rrulestr(text)
    except ValueError:
        # By-values that the interval never meets: a rule that never fires is refused, not silently idle.
        for ask in (lambda: validate(schedule), lambda: occurrences(schedule, after, 20)):
            with pytest.raises(ManagedError, match=r"schedule\.rrule.*empty set"):
                ask()
        return
    expected = []
    try:
        for moment in walked.xafter(after):
            expected.append(moment.replace(tzinfo=UTC))
            if len(expected) == 20:
                break
    except ValueError:
        # An empty combination of by-values that dateutil notices only while it walks.
        assert occurrences(schedule, after, 20) == []
        return
    found = occurrences(schedule, after, 20)
    assert found == expected[: len(found)]
    if len(found) < len(expected):
        # The bound on work may end a search that dateutil would go on with for centuries, never a near one.
        assert expected[len(found)].year > 2060


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=60),
        st.text(alphabet="FREQ=DAILYSECONTBM;HUR0123456789,-:\nXDT", max_size=80),
        st.from_regex(
            r"FREQ=(SECONDLY|MINUTELY|HOURLY)(;(BYHOUR|BYMINUTE|BYSECOND|INTERVAL|BYMONTHDAY|BYSETPOS)=-?\d{1,5}){0,3}",
            fullmatch=True,
        ),
    )
)
def test_no_text_of_a_rule_is_more_than_refused(text: str) -> None:
    try:
        found = occurrences(RRuleSchedule(rrule=text), datetime(2026, 1, 1), 3)
    except ManagedError as error:
        assert error.message.startswith("schedule.rrule")
    else:
        assert found == sorted(set(found))


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=40), st.text(alphabet="0123456789*/,-?LW# RHMONJA@dily", max_size=40)))
def test_no_text_of_a_cron_is_more_than_refused(text: str) -> None:
    try:
        found = occurrences(CronSchedule(cron=text), datetime(2026, 1, 1), 3)
    except ManagedError as error:
        assert error.message.startswith("schedule.cron")
    else:
        assert found == sorted(set(found))
