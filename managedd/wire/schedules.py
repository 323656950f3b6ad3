"""Schedules of deployments.

Whether an expression, a rule or a zone means anything is `orchestration.recurrence.validate`'s to say, once a schedule has this shape.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from managedd.wire.base import Body, Id, JsonObject, Model, Positive, Row, Timestamp, utc_now

MAX_SCHEDULED_RUNS = 50


def _positive(interval: timedelta) -> timedelta:
    if interval <= timedelta():
        raise ValueError("interval must be positive")
    return interval


def _scheduled_runs(count: int) -> int:
    if count > MAX_SCHEDULED_RUNS:
        raise ValueError(f"`max_scheduled_runs` must be less than or equal to {MAX_SCHEDULED_RUNS}.")
    return count


ScheduledRuns = Annotated[Positive, AfterValidator(_scheduled_runs)]


class IntervalSchedule(Body):
    """A run every `interval`, counted from the anchor."""

    interval: Annotated[timedelta, AfterValidator(_positive)]
    anchor_date: Timestamp = Field(default_factory=utc_now)
    timezone: str | None = None

    @model_validator(mode="after")
    def _zone_of_anchor(self) -> Self:
        if self.timezone is None:
            self.timezone = "UTC"
        return self


class CronSchedule(Body):
    """Runs at the times of a cron expression."""

    cron: str
    timezone: str | None = None
    day_or: bool = True


class RRuleSchedule(Body):
    """Runs at the times of an RFC 5545 recurrence rule."""

    rrule: str
    timezone: str | None = "UTC"


Schedule = IntervalSchedule | CronSchedule | RRuleSchedule


class DeploymentScheduleCreate(Body):
    """A schedule to create."""

    active: bool = True
    schedule: Schedule
    max_scheduled_runs: ScheduledRuns | None = None
    parameters: JsonObject = Field(default_factory=dict)
    slug: str | None = None
    replaces: str | None = None


class DeploymentScheduleUpdate(Body):
    """What may change on a schedule."""

    active: bool | None = None
    schedule: Schedule | None = None
    max_scheduled_runs: ScheduledRuns | None = None
    parameters: JsonObject = Field(default_factory=dict)
    slug: str | None = None
    replaces: str | None = None


class DeploymentSchedule(Row):
    """A schedule of a deployment."""

    deployment_id: Id | None = None
    schedule: Schedule
    active: bool = True
    max_scheduled_runs: ScheduledRuns | None = None
    parameters: JsonObject = Field(default_factory=dict)
    slug: str | None = None


class ScheduleTimes(Model):
    """When a schedule comes next."""

    schedule_id: Id
    active: bool
    timezone: str
    """The schedule's own zone."""
    times: list[Timestamp]
    """Later than now, ascending; fewer than were asked for when the schedule ends."""
    problem: str | None
    """Why there are none, when the schedule can't be evaluated any more."""


class ScheduleToForetell(Body):
    """A schedule that nobody has stored yet."""

    schedule: Schedule
    count: Annotated[int, Field(ge=1, le=50)] = 5


class NextTimes(Model):
    """When such a schedule would come."""

    timezone: str
    """The schedule's own zone."""
    times: list[Timestamp]
    """Later than now, ascending; fewer than were asked for when the schedule ends, or with a `problem`."""
    problem: str | None
    """Why there are fewer, when to find them would take too long."""
