"""Compute time: whole minutes, split at the month's end."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.clock import to_us
from managedd.model.metering import (
    UNSEEN_US,
    Noted,
    Watched,
    adopted_us,
    metered,
    minutes,
    month_named,
    month_of,
    ran_us,
    running_us,
)

SECOND_US = 1_000_000

BERLIN = ZoneInfo("Europe/Berlin")
DAY_US = 86_400_000_000


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


def parts(started: str, ended: str, zone: ZoneInfo | None = None) -> list[tuple[str, str, int]]:
    return [(part.month, part.day, part.minutes) for part in metered(us(started), us(ended), zone or UTC)]


def test_a_run_costs_whole_minutes_and_at_least_one() -> None:
    assert parts("2026-11-22T10:00:00Z", "2026-11-22T10:00:00Z") == [("2026-11", "2026-11-22", 1)]
    assert parts("2026-11-22T10:00:00Z", "2026-11-22T10:01:00Z") == [("2026-11", "2026-11-22", 1)]
    assert parts("2026-11-22T10:00:00Z", "2026-11-22T10:01:00.000001Z") == [("2026-11", "2026-11-22", 2)]


def test_a_clock_that_was_set_back_makes_no_run_free_or_negative() -> None:
    assert parts("2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z") == [("2026-11", "2026-11-22", 1)]
    assert parts("2026-12-01T00:00:10Z", "2026-11-30T23:00:00Z") == [("2026-12", "2026-12-01", 1)]


def test_a_run_across_the_end_of_the_month_is_split_there() -> None:
    assert parts("2026-11-30T23:58:30Z", "2026-12-01T00:03:00Z") == [
        ("2026-11", "2026-11-30", 2),
        ("2026-12", "2026-12-01", 3),
    ]
    assert parts("2026-11-30T23:59:30Z", "2026-12-01T00:00:10Z") == [("2026-11", "2026-11-30", 1)]


def test_a_run_over_midnight_counts_on_each_of_its_days() -> None:
    assert parts("2026-11-22T23:50:00Z", "2026-11-23T23:50:00Z") == [
        ("2026-11", "2026-11-22", 10),
        ("2026-11", "2026-11-23", 1430),
    ]
    assert parts("2026-12-31T23:59:00Z", "2027-02-01T00:01:00Z") == [
        ("2026-12", "2026-12-31", 1),
        *(("2027-01", f"2027-01-{day:02d}", 1440) for day in range(1, 32)),
        ("2027-02", "2027-02-01", 1),
    ]
    # A day on which the clock goes forward has an hour less.
    assert parts("2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z", BERLIN)[1] == ("2026-03", "2026-03-29", 23 * 60)


def test_the_month_is_one_of_the_operators_time_zone() -> None:
    assert parts("2026-11-30T22:59:00Z", "2026-11-30T23:01:00Z", BERLIN) == [
        ("2026-11", "2026-11-30", 1),
        ("2026-12", "2026-12-01", 1),
    ]


@pytest.mark.parametrize(("name", "days"), [("2027-02", 28), ("2028-02", 29), ("2026-12", 31)])
def test_months_have_their_days(name: str, days: int) -> None:
    month = month_named(name, UTC)
    assert month.ends_us - month.begins_us == days * DAY_US
    assert month_of(month.ends_us - 1, UTC) == month
    assert month_of(month.ends_us, UTC) != month
    assert month_of(month.begins_us, UTC) == month


def test_a_month_with_a_change_of_the_clock_is_an_hour_shorter() -> None:
    march = month_named("2026-03", BERLIN)
    assert march.ends_us - march.begins_us == 31 * DAY_US - 3_600_000_000


@given(
    st.integers(us("2026-01-01T00:00:00Z"), us("2030-01-01T00:00:00Z")),
    st.integers(-DAY_US, 100 * DAY_US),
    st.sampled_from(
        [UTC, BERLIN, *map(ZoneInfo, ("America/New_York", "America/Havana", "America/Asuncion", "Asia/Beirut"))]
    ),
)
def test_the_parts_add_up(started_us: int, length_us: int, zone: ZoneInfo) -> None:
    found = metered(started_us, started_us + length_us, zone)
    assert sum(part.minutes for part in found) == minutes(started_us, started_us + length_us)
    assert [part.day for part in found] == sorted({part.day for part in found})
    for part in found:
        assert 0 < part.minutes <= 25 * 60
        assert part.day.startswith(part.month)
    for name in {part.month for part in found}:
        # By its end, what was reached, rounded up: however many days it has.
        month = month_named(name, zone)
        reached = min(minutes(started_us, started_us + length_us), minutes(started_us, month.ends_us))
        before = minutes(started_us, month.begins_us) if month.begins_us > started_us else 0
        assert sum(part.minutes for part in found if part.month == name) == reached - before


@pytest.mark.parametrize(
    ("account", "seen", "noticed", "expected"),
    [
        (None, 60, 65, 60),
        (30, 20, 600, 30),
        (61, 60, 60, 61),
        (30, 60, 65, 60),
        (3600, 60, 65, 65),
        (3600, 60, None, 3600),
        (None, 0, None, 0),
    ],
    ids=["gone", "noticed late", "it agrees", "set back", "set forward", "nobody looked", "never seen"],
)
def test_how_long_it_ran_is_what_the_engine_says_as_far_as_that_can_be(
    account: int | None, seen: int, noticed: int | None, expected: int
) -> None:
    watched = Watched(seen_us=seen * SECOND_US, noticed_us=None if noticed is None else noticed * SECOND_US)
    assert ran_us(None if account is None else account * SECOND_US, watched) == expected * SECOND_US


def test_what_runs_is_reckoned_from_when_it_was_noted_last() -> None:
    start = 1_000 * SECOND_US
    assert running_us(start, start + 90 * SECOND_US, ran_us=None, noted_us=None) == 90 * SECOND_US
    noted = start + 50 * SECOND_US
    assert running_us(start, noted + 9, ran_us=40, noted_us=noted) == 49
    assert running_us(start, noted - 3600 * SECOND_US, ran_us=40, noted_us=noted) == 40, "set back"
    assert running_us(start, noted + 3600 * SECOND_US, ran_us=40, noted_us=noted) == 40 + UNSEEN_US, "set forward"


@pytest.mark.parametrize(
    ("ago", "ran", "since", "expected"),
    [
        (660, 600, 60, 660),
        (11_460, 600, 60, 660),
        (0, 600, 60, 660),
        (None, 600, 60, 660),
        (7200, 600, 6600, 7200),
        (660, 600, -3600, 660),
        (3600, None, 0, 3600),
        (None, None, 0, 0),
    ],
    ids=["it agrees", "set forward", "set back", "unknown", "downtime", "set back since", "no note", "nothing"],
)
def test_what_is_adopted_has_run_as_long_as_agrees_with_what_was_noted(
    ago: int | None, ran: int | None, since: int, expected: int
) -> None:
    now = 10_000_000 * SECOND_US
    noted = None if ran is None else Noted(ran_us=ran * SECOND_US, at_us=now - since * SECOND_US)
    assert adopted_us(None if ago is None else ago * SECOND_US, noted, now) == expected * SECOND_US
