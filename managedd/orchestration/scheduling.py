"""From a deployment's schedule to runs: which times, and the runs for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from managedd.clock import iso, to_us
from managedd.model.flow_runs import ProposedState
from managedd.model.schedules import Schedule, from_json
from managedd.model.states import StateType, scheduled_details
from managedd.orchestration.parameters import HydrationContext, hydrate
from managedd.orchestration.transition import create_run
from managedd.store import rows, schedules
from managedd.store.resources import DEPLOYMENT, DEPLOYMENT_SCHEDULE
from managedd.store.variable_values import VariableValues
from managedd.wire.base import new_run_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from managedd.store.database import Tx

AUTO_SCHEDULED_TAG = "auto-scheduled"
FORETELLING_STEPS = 10_000
"""Five leap days, or fifty Fridays that are a 13th."""
KEY_PREFIX = "scheduled "
"""How the idempotency keys of the runs of schedules begin: whose run has such a key is taken for the schedule's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """How far ahead to plan."""

    start: datetime
    """Times later than this."""
    end: datetime
    """And not later than this."""
    min_runs: int
    max_runs: int
    min_time: timedelta
    """At least until so long after the start."""


def shifted(moment: datetime, by: timedelta) -> datetime:
    """`moment` moved by `by`, or the last or first moment there is."""
    try:
        return moment + by
    except OverflowError:
        return (datetime.max if by > timedelta() else datetime.min).replace(tzinfo=UTC)


def times(schedule: Schedule, reach: Reach) -> list[datetime]:
    """The fewest next times that satisfy both minimums of `reach`, within its maximums."""
    if reach.max_runs <= 0:
        return []
    from managedd.orchestration.recurrence import occurrences  # noqa: PLC0415  # with the first schedule: it brings libraries

    wanted = max(1, min(reach.min_runs, reach.max_runs))
    found = occurrences(schedule, reach.start, wanted, reach.end)
    far_enough = min(shifted(reach.start, reach.min_time), reach.end)
    if len(found) < wanted or found[-1] >= far_enough:
        return found
    found += occurrences(schedule, found[-1], reach.max_runs - len(found), far_enough)
    if found[-1] < far_enough and len(found) < reach.max_runs:
        found += occurrences(schedule, found[-1], 1, reach.end)
    return found


def next_times(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """The first `count` times later than `after`, fewer when the schedule ends. Raises ManagedError(INVALID) for one that can't be evaluated.

    Pages ask for them again whenever anything has changed: within a minute a schedule is evaluated once.
    """
    minute = after.replace(second=0, microsecond=0)
    found = _times_from(schedule, minute, count + 1)
    ahead = [moment for moment in found if moment > after]
    if len(ahead) >= count or len(found) <= count:
        return ahead[:count]
    from managedd.orchestration.recurrence import occurrences  # noqa: PLC0415  # as above

    return occurrences(schedule, after, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Times to come."""

    times: tuple[datetime, ...]
    is_whole: bool
    """No: there may be more of them, and finding them would take too long."""


def foretold(schedule: Schedule, after: datetime, count: int, rest: Callable[[], None]) -> Ahead:
    """The first `count` times of a schedule that nobody has stored, within `FORETELLING_STEPS`. Raises ManagedError(INVALID).

    It is not kept, as those of stored ones are: whoever makes up schedules would drive these out.
    """
    from managedd.orchestration.recurrence import Effort, occurrences  # noqa: PLC0415  # as above

    effort = Effort(FORETELLING_STEPS, rest)
    found = occurrences(schedule, after, count, effort=effort)
    return Ahead(times=tuple(found), is_whole=not effort.is_spent)


@lru_cache(maxsize=1_000)
def _times_from(schedule: Schedule, after: datetime, count: int) -> tuple[datetime, ...]:
    from managedd.orchestration.recurrence import occurrences  # noqa: PLC0415  # as above

    return tuple(occurrences(schedule, after, count))


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Times that a schedule has runs at."""

    schedule_id: str
    schedule: Mapping[str, Any]
    """The schedule that gave these times, as it is stored."""
    moments: tuple[datetime, ...]

    def parts(self, size: int) -> list[Planned]:
        """The same in pieces of at most `size` times."""
        starts = range(0, len(self.moments), size)
        return [replace(self, moments=self.moments[start : start + size]) for start in starts]


def plan(schedule_id: str, stored: Mapping[str, Any], reach: Reach) -> Planned:
    """The times of the schedule within `reach`. Raises ManagedError(INVALID) for one that can't be evaluated."""
    return Planned(schedule_id=schedule_id, schedule=stored, moments=tuple(times(from_json(stored), reach)))


def plan_deployment(tx: Tx, deployment_id: str, reach: Reach) -> list[Planned]:
    """The times of the deployment's active schedules within `reach`. Raises ManagedError(NOT_FOUND)."""
    rows.need(tx, DEPLOYMENT, id=deployment_id)
    active = schedules.active(tx, deployment_id)
    return [plan(schedule_id, stored, reach) for schedule_id, stored in active.items()]


def schedule_runs(tx: Tx, planned: Planned, *, paused: bool = False) -> int:
    """There is a run of the schedule at each planned time; how many of them are new.

    None is made when the schedule is not what gave the times any more, is inactive, or, unless `paused` may be, its deployment is
    paused: somebody changed it in between, and the scheduler was woken for that.
    """
    schedule = rows.record(tx, DEPLOYMENT_SCHEDULE, id=planned.schedule_id)
    if schedule is None or schedule["schedule"] != planned.schedule or not schedule["active"]:
        return 0
    deployment = rows.need(tx, DEPLOYMENT, id=schedule["deployment_id"])
    if deployment["paused"] and not paused:
        return 0
    values = _run_values(tx, deployment, schedule)
    made = 0
    for moment in planned.moments:
        at_us = to_us(moment)
        state = ProposedState(type=StateType.SCHEDULED, message="Flow run scheduled", details=scheduled_details(at_us))
        key = f"{KEY_PREFIX}{deployment['id']} {schedule['id']} {iso(at_us)}"
        _, created = create_run(tx, {**values, "name": new_run_name(), "idempotency_key": key}, state)
        made += created
    return made


def _run_values(tx: Tx, deployment: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that all runs of the schedule share."""
    parameters = {**deployment["parameters"], **schedule["parameters"]}
    return {
        "flow_id": deployment["flow_id"],
        "deployment_id": deployment["id"],
        "deployment_version": deployment["version"],
        "schedule_id": schedule["id"],
        "work_queue_id": deployment["work_queue_id"],
        "work_queue_name": deployment["work_queue_name"],
        "infrastructure_document_id": deployment["infrastructure_document_id"],
        "parameters": hydrate(parameters, HydrationContext(variables=VariableValues(tx))),
        "tags": list(dict.fromkeys([AUTO_SCHEDULED_TAG, *deployment["tags"]])),
        "labels": run_labels(deployment),
        "auto_scheduled": True,
        "created_by": {
            "id": schedule["id"],
            "type": "SCHEDULE",
            "display_value": schedule["slug"] or _kind(schedule["schedule"]),
        },
    }


def run_labels(deployment: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The labels of a deployment's run: the deployment's, where it comes from, and its own."""
    source = {"prefect.flow.id": deployment["flow_id"], "prefect.deployment.id": deployment["id"]}
    return {**deployment["labels"], **source, **(own or {})}


def _kind(schedule: Mapping[str, Any]) -> str:
    return "CronSchedule" if "cron" in schedule else "IntervalSchedule" if "interval" in schedule else "RRuleSchedule"
