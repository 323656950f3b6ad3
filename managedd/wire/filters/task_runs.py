"""Which task runs to take."""

from __future__ import annotations

from managedd.model.states import StateType
from managedd.wire.filters.leaves import (
    Filter,
    IdAny,
    Ids,
    OperatorFilter,
    Tagged,
    TextAny,
    TextAnyLike,
    TimeRange,
    TimeRangeOrNull,
)


class TaskRunFilterEndTime(TimeRangeOrNull):
    """On the task run's `end_time`."""


class TaskRunFilterExpectedStartTime(TimeRange):
    """On the task run's `expected_start_time`."""


class TaskRunFilterFlowRunId(OperatorFilter):
    """On the task run's `flow_run_id`."""

    any_: Ids | None = None
    is_null_: bool | None = False


class TaskRunFilterId(IdAny):
    """On the task run's `id`."""


class TaskRunFilterName(TextAnyLike):
    """On the task run's `name`."""


class TaskRunFilterStartTime(TimeRangeOrNull):
    """On the task run's `start_time`."""


class TaskRunFilterStateName(TextAny):
    """On the task run's `state_name`."""


class TaskRunFilterStateType(Filter):
    """On the task run's `state_type`."""

    any_: list[StateType] | None = None


class TaskRunFilterSubFlowRuns(Filter):
    """On the task run's `sub_flow_runs`."""

    exists_: bool | None = None


class TaskRunFilterTags(Tagged):
    """On the task run's `tags`."""


class TaskRunFilterState(OperatorFilter):
    """On the task run's `state`."""

    type: TaskRunFilterStateType | None = None
    name: TaskRunFilterStateName | None = None


class TaskRunFilter(OperatorFilter):
    """Which task runs to take."""

    id: TaskRunFilterId | None = None
    name: TaskRunFilterName | None = None
    tags: TaskRunFilterTags | None = None
    state: TaskRunFilterState | None = None
    start_time: TaskRunFilterStartTime | None = None
    end_time: TaskRunFilterEndTime | None = None
    expected_start_time: TaskRunFilterExpectedStartTime | None = None
    subflow_runs: TaskRunFilterSubFlowRuns | None = None
    flow_run_id: TaskRunFilterFlowRunId | None = None
