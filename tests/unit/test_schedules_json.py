"""Schedules on the wire: the three shapes, both ways, and what each wrong field is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from managedd.clock import to_us
from managedd.errors import ErrorCode, ManagedError
from managedd.model.schedules import (
    DEFAULT_ANCHOR_US,
    CronSchedule,
    IntervalSchedule,
    RRuleSchedule,
    Schedule,
    from_json,
    to_json,
)

ANCHOR = "2020-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("wire", "schedule"),
    [
        ({"cron": "0 0 * * *"}, CronSchedule(cron="0 0 * * *")),
        (
            {"cron": "@daily", "timezone": "Europe/Berlin", "day_or": False},
            CronSchedule(cron="@daily", timezone="Europe/Berlin", day_or=False),
        ),
        ({"cron": "@daily", "timezone": "", "interval": None}, CronSchedule(cron="@daily")),
        ({"interval": 3600.0}, IntervalSchedule(interval_us=3_600_000_000)),
        ({"interval": 90}, IntervalSchedule(interval_us=90_000_000)),
        ({"interval": 0.000001}, IntervalSchedule(interval_us=1)),
        ({"interval": "PT1H30M"}, IntervalSchedule(interval_us=5_400_000_000)),
        ({"interval": "P1DT0.5S"}, IntervalSchedule(interval_us=86_400_500_000)),
        ({"interval": "P2W"}, IntervalSchedule(interval_us=14 * 86_400_000_000)),
        ({"interval": "60.5"}, IntervalSchedule(interval_us=60_500_000)),
        (
            {"interval": 60, "anchor_date": "2024-05-01T09:00:00+02:00", "timezone": "Europe/Berlin"},
            IntervalSchedule(
                interval_us=60_000_000,
                anchor_us=to_us(datetime(2024, 5, 1, 7, tzinfo=UTC)),
                timezone="Europe/Berlin",
            ),
        ),
        ({"rrule": "FREQ=DAILY"}, RRuleSchedule(rrule="FREQ=DAILY")),
        ({"rrule": "FREQ=DAILY", "timezone": "Asia/Tokyo"}, RRuleSchedule(rrule="FREQ=DAILY", timezone="Asia/Tokyo")),
    ],
)
def test_a_wire_object_becomes_the_schedule_and_stays_it(wire: dict[str, Any], schedule: Schedule) -> None:
    assert from_json(wire) == schedule
    assert from_json(to_json(schedule)) == schedule


def test_the_wire_carries_seconds_and_iso() -> None:
    assert to_json(IntervalSchedule(interval_us=90_500_000)) == {
        "interval": 90.5,
        "anchor_date": ANCHOR,
        "timezone": "UTC",
    }
    assert to_json(CronSchedule(cron="@daily")) == {"cron": "@daily", "timezone": None, "day_or": True}
    assert to_json(RRuleSchedule(rrule="FREQ=DAILY")) == {"rrule": "FREQ=DAILY", "timezone": "UTC"}


def test_an_anchor_without_zone_is_a_local_time_of_the_schedule() -> None:
    local = from_json({"interval": 60, "anchor_date": "2024-05-01T09:00:00", "timezone": "Europe/Berlin"})
    assert isinstance(local, IntervalSchedule)
    assert local.anchor_us == to_us(datetime(2024, 5, 1, 9, tzinfo=timezone(timedelta(hours=2))))
    plain = from_json({"interval": 60, "anchor_date": "2024-05-01T09:00:00"})
    assert isinstance(plain, IntervalSchedule)
    assert plain.anchor_us == to_us(datetime(2024, 5, 1, 9, tzinfo=UTC))


def test_the_callers_anchor_stands_in_for_a_missing_one() -> None:
    mine = from_json({"interval": 60}, default_anchor_us=12_345)
    assert isinstance(mine, IntervalSchedule)
    assert mine.anchor_us == 12_345
    other = from_json({"interval": 60, "anchor_date": ANCHOR}, default_anchor_us=12_345)
    assert isinstance(other, IntervalSchedule)
    assert other.anchor_us == DEFAULT_ANCHOR_US


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        ({}, "exactly one of 'cron', 'interval' or 'rrule'"),
        ({"timezone": "UTC"}, "exactly one of"),
        ({"cron": "@daily", "interval": 60}, "'cron' and 'interval'"),
        ({"cron": "@daily", "anchor_date": ANCHOR}, "schedule.anchor_date: no such field"),
        ({"rrule": "FREQ=DAILY", "day_or": True}, "schedule.day_or: no such field"),
        ({"cron": 5}, "schedule.cron"),
        ({"cron": "@daily", "day_or": "yes"}, "schedule.day_or"),
        ({"cron": "@daily", "timezone": 5}, "schedule.timezone"),
        ({"rrule": ["FREQ=DAILY"]}, "schedule.rrule"),
        ({"interval": 0}, "schedule.interval"),
        ({"interval": -5}, "greater than 0"),
        ({"interval": 1e-9}, "greater than 0"),
        ({"interval": "-PT1H"}, "greater than 0"),
        ({"interval": "P"}, "ISO-8601"),
        ({"interval": "soon"}, "schedule.interval"),
        ({"interval": True}, "schedule.interval"),
        ({"interval": [60]}, "schedule.interval"),
        ({"interval": float("nan")}, "schedule.interval"),
        ({"interval": float("inf")}, "1000 years"),
        ({"interval": 10**400}, "1000 years"),
        ({"interval": 60, "anchor_date": "yesterday"}, "schedule.anchor_date"),
        ({"interval": 60, "anchor_date": 5}, "schedule.anchor_date"),
        ({"interval": 60, "anchor_date": "2024-05-01T09:00:00", "timezone": "Mars/Base"}, "schedule.timezone"),
        ({"interval": 60, "anchor_date": "2024-05-01T09:00:00", "timezone": "../../etc/passwd"}, "schedule.timezone"),
    ],
)
def test_a_wrong_field_is_named(wire: dict[str, Any], says: str) -> None:
    with pytest.raises(ManagedError) as caught:
        from_json(wire)
    assert caught.value.code is ErrorCode.INVALID
    assert says in caught.value.message


def test_no_object_at_all_is_refused() -> None:
    with pytest.raises(ManagedError, match="must be an object"):
        from_json("0 0 * * *")  # type: ignore[arg-type]
