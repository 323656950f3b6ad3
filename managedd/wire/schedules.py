"""Schedules of deployments."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from dateutil.rrule import rrulestr
from pydantic import AfterValidator, Field, model_validator

from managedd.wire.base import Body, Id, JsonObject, Positive, Row, Timestamp, at_most, utc_now

MAX_SCHEDULED_RUNS = 50
MAX_CRON_CHARS = 1_000
MAX_RRULE_CHARS = 6_500


def _time_zone(name: str) -> str:
    # An empty name stands for none; the database of zones raises OSError for a folder's name, ValueError for what is no name at all.
    try:
        if name:
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"Invalid timezone: {name[:100]!r} (an IANA name is wanted, such as America/New_York)"
        ) from None
    return name


def _interval(interval: timedelta) -> timedelta:
    if interval <= timedelta():
        raise ValueError("interval must be positive")
    return interval


def _cron(expression: str) -> str:
    if not croniter.is_valid(expression):
        raise ValueError(f"Invalid cron string: {expression[:100]!r}")
    if any(field.lower() in {"r", "h"} for field in expression.split()):
        raise ValueError(f"Random and hashed cron expressions are not supported: {expression[:100]!r}")
    return expression


def _rrule(rule: str) -> str:
    # dateutil raises whatever its parser stumbles over.
    try:
        rrulestr(rule)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"Invalid RRule string {rule[:100]!r}: {error}") from None
    return rule


def _scheduled_runs(count: int) -> int:
    if count > MAX_SCHEDULED_RUNS:
        raise ValueError(f"`max_scheduled_runs` must be less than or equal to {MAX_SCHEDULED_RUNS}.")
    return count


TimeZone = Annotated[str, AfterValidator(_time_zone)]
ScheduledRuns = Annotated[Positive, AfterValidator(_scheduled_runs)]


class IntervalSchedule(Body):
    """A run every `interval`, counted from the anchor."""

    interval: Annotated[timedelta, AfterValidator(_interval)]
    anchor_date: Timestamp = Field(default_factory=utc_now)
    timezone: TimeZone | None = None

    @model_validator(mode="after")
    def _zone_of_anchor(self) -> Self:
        if self.timezone is None:
            self.timezone = "UTC"
        return self


class CronSchedule(Body):
    """Runs at the times of a cron expression."""

    cron: Annotated[str, AfterValidator(at_most(MAX_CRON_CHARS, "characters")), AfterValidator(_cron)]
    timezone: TimeZone | None = None
    day_or: bool = True


class RRuleSchedule(Body):
    """Runs at the times of an RFC 5545 recurrence rule."""

    rrule: Annotated[str, AfterValidator(at_most(MAX_RRULE_CHARS, "characters")), AfterValidator(_rrule)]
    timezone: TimeZone | None = "UTC"


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
