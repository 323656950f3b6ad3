"""How a month of compute hours will end, if it goes on as it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.ui.compute_hours import outlook, sentence


def usage(used: int, limit: float | None = 600.0, **more: Any) -> dict[str, Any]:
    left = None if limit is None else max(0.0, limit - used)
    return {
        "month": "2026-11",
        "time_zone": "UTC",
        "resets": "2026-12-01T00:00:00Z",
        "used_minutes": used,
        "limit_minutes": limit,
        "remaining_minutes": left,
        **more,
    }


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def test_the_rest_of_the_month_goes_on_at_the_pace_that_it_had() -> None:
    found = outlook(usage(100), at(11))

    assert found is not None
    assert found.minutes == pytest.approx(300)
    assert found.used_up is None
    assert sentence(found, "2026-12-01T00:00:00Z") == "At this pace about 5 h by the end of the month."


def test_hours_that_will_not_last_have_a_day() -> None:
    found = outlook(usage(400), at(11))

    assert found is not None
    assert found.used_up == at(16)
    assert sentence(found, "2026-12-01T00:00:00Z") == "At this pace the hours are used up about 16 November 2026."


def test_nothing_is_said_too_early_nor_of_a_month_that_is_over() -> None:
    assert outlook(usage(5), at(1, 23, 59)) is None
    assert outlook(usage(5), at(30) + timedelta(days=2)) is None
    assert outlook(usage(5), at(2)) is not None
    assert sentence(None, "2026-12-01T00:00:00Z").startswith("Too early")


def test_without_a_limit_and_when_all_is_gone_no_day_is_named() -> None:
    for report in (usage(400, None), usage(700)):
        found = outlook(report, at(11))
        assert found is not None
        assert found.used_up is None


def test_the_months_of_a_time_zone_begin_there() -> None:
    berlin = usage(100, time_zone="Europe/Berlin", resets="2026-11-30T23:00:00Z")
    found = outlook(berlin, at(10, 23))

    assert found is not None
    assert found.minutes == pytest.approx(300)


@given(minute=st.integers(min_value=0, max_value=59), used=st.integers(min_value=0, max_value=10_000))
def test_within_an_hour_the_outlook_is_the_same(minute: int, used: int) -> None:
    assert outlook(usage(used), at(11, 3, minute)) == outlook(usage(used), at(11, 3))


@given(used=st.integers(min_value=0, max_value=100_000), hours=st.integers(min_value=24, max_value=24 * 30 - 1))
def test_no_month_ends_with_less_than_is_used_and_no_day_lies_in_the_past(used: int, hours: int) -> None:
    now = at(1) + timedelta(hours=hours)
    found = outlook(usage(used), now)

    assert found is not None
    assert found.minutes >= used
    assert found.used_up is None or now < found.used_up
