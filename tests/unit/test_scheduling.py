"""Which times a schedule has runs at, and what a request makes of a deployment's schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from managedd.errors import ManagedError
from managedd.model.schedules import CronSchedule, IntervalSchedule, RRuleSchedule, Schedule
from managedd.orchestration.deployment_rules import plan_schedules, sent_columns
from managedd.orchestration.recurrence import occurrences
from managedd.orchestration.scheduling import Planned, Reach, _times_from, foretold, shifted, times
from managedd.wire.deployments import DeploymentUpdate
from managedd.wire.schedules import DeploymentScheduleUpdate

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCHEDULES: list[Schedule] = [
    CronSchedule(cron="*/5 * * * *", timezone="Europe/Berlin"),
    CronSchedule(cron="0 9 * * 1", timezone="America/New_York"),
    IntervalSchedule(interval_us=37_000_000),
    IntervalSchedule(interval_us=3_600_000_000),
    RRuleSchedule(rrule="DTSTART:20260302T000000\nRRULE:FREQ=HOURLY;COUNT=20"),
]


@given(
    schedule=st.sampled_from(SCHEDULES),
    min_runs=st.integers(0, 30),
    max_runs=st.integers(0, 30),
    min_hours=st.floats(0, 50),
    max_hours=st.floats(0, 500),
)
def test_the_fewest_times_that_satisfy_both_minimums_within_the_maximums(
    schedule: Schedule, min_runs: int, max_runs: int, min_hours: float, max_hours: float
) -> None:
    end, min_time = NOW + timedelta(hours=max_hours), timedelta(hours=min_hours)
    reach = Reach(start=NOW, end=end, min_runs=min_runs, max_runs=max_runs, min_time=min_time)
    expected: list[datetime] = []
    for moment in occurrences(schedule, NOW, max_runs, end):
        expected.append(moment)
        if len(expected) >= min_runs and moment >= NOW + min_time:
            break
    assert times(schedule, reach) == expected


def test_what_is_foretold_takes_little_rests_meanwhile_and_drives_no_stored_schedule_out() -> None:
    rests: list[None] = []
    kept = _times_from.cache_info().currsize
    never = RRuleSchedule(rrule="DTSTART:20200101T000000\nRRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30")
    found = foretold(never, NOW, 50, lambda: rests.append(None))
    assert (found.times, found.is_whole) == ((), False)
    assert 20 < len(rests) < 100
    for schedule in SCHEDULES:
        assert foretold(schedule, NOW, 5, rests.clear).times == tuple(occurrences(schedule, NOW, 5))
    assert _times_from.cache_info().currsize == kept


def test_the_ends_of_time_are_no_error() -> None:
    last = datetime(9999, 12, 31, 23, tzinfo=UTC)
    assert shifted(last, timedelta(days=1)).year == 9999
    assert shifted(datetime(1, 1, 1, tzinfo=UTC), timedelta(days=-1)).year == 1
    reach = Reach(start=last, end=last, min_runs=3, max_runs=9, min_time=timedelta(days=1))
    assert times(SCHEDULES[0], reach) == []


def test_planned_times_come_in_parts() -> None:
    planned = Planned(schedule_id="s", schedule={}, moments=tuple(NOW + timedelta(hours=n) for n in range(5)))
    assert [len(part.moments) for part in planned.parts(2)] == [2, 2, 1]
    assert sum((part.moments for part in planned.parts(2)), ()) == planned.moments
    assert Planned(schedule_id="s", schedule={}, moments=()).parts(2) == []


def update(**sent: object) -> DeploymentScheduleUpdate:
    return DeploymentScheduleUpdate.model_validate(sent)


CRON = {"cron": "0 0 * * *"}


def test_schedules_with_slugs_are_changed_added_and_renamed() -> None:
    existing = {"1": "a", "2": "b"}
    plan = plan_schedules(existing, [update(slug="a", active=False), update(slug="c", schedule=CRON)])
    assert (plan.replaces_all, plan.changes, plan.freed) == (False, (("1", {"slug": "a", "active": False}),), ())
    assert [addition["slug"] for addition in plan.additions] == ["c"]
    plan = plan_schedules(existing, [update(slug="z", replaces="a")])
    assert (plan.freed, plan.changes) == (("1",), (("1", {"slug": "z"}),))
    # What it replaces may be gone already: then it is a new one.
    plan = plan_schedules(existing, [update(slug="z", replaces="gone", schedule=CRON)])
    assert (plan.freed, plan.changes, len(plan.additions)) == ((), (), 1)


@pytest.mark.parametrize("existing", [{}, {"1": None}, {"1": "a", "2": None}])
def test_without_slugs_the_sent_ones_take_their_place(existing: dict[str, str | None]) -> None:
    plan = plan_schedules(existing, [update(schedule=CRON)])
    assert (plan.replaces_all, len(plan.additions), plan.changes) == (True, 1, ())
    with pytest.raises(ManagedError, match="without a schedule configuration"):
        plan_schedules(existing, [update(active=True)])


def test_nulls_clear_only_what_can_be_null() -> None:
    body = DeploymentUpdate.model_validate(
        {"description": None, "parameters": None, "job_variables": None, "tags": ["a"]}
    )
    assert sent_columns(body) == {"description": None, "tags": ["a"]}
