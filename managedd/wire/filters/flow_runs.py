"""Which flow runs to take."""

from __future__ import annotations

from managedd.model.states import StateType
from managedd.wire.filters.leaves import (
    Filter,
    IdAnyNotAny,
    IdAnyOrNull,
    Ids,
    OperatorFilter,
    TaggedAny,
    TextAny,
    TextAnyLike,
    TextAnyNotAny,
    TextAnyOrNull,
    Texts,
    TimeRange,
    TimeRangeOrNull,
)


class FlowRunFilterCreatedBy(OperatorFilter):
    """On the flow run's `created_by`."""

    id_: Ids | None = None
    type_: Texts | None = None
    is_null_: bool | None = None


class FlowRunFilterDeploymentId(IdAnyOrNull):
    """On the flow run's `deployment_id`."""


class FlowRunFilterEndTime(TimeRangeOrNull):
    """On the flow run's `end_time`."""


class FlowRunFilterExpectedStartTime(TimeRange):
    """On the flow run's `expected_start_time`."""


class FlowRunFilterFlowVersion(TextAny):
    """On the flow run's `flow_version`."""


class FlowRunFilterId(IdAnyNotAny):
    """On the flow run's `id`."""


class FlowRunFilterIdempotencyKey(TextAnyNotAny):
    """On the flow run's `idempotency_key`."""


class FlowRunFilterName(TextAnyLike):
    """On the flow run's `name`."""


class FlowRunFilterNextScheduledStartTime(TimeRange):
    """On the flow run's `next_scheduled_start_time`."""


class FlowRunFilterParentFlowRunId(OperatorFilter):
    """On the flow run's `parent_flow_run_id`."""

    any_: Ids | None = None


class FlowRunFilterParentTaskRunId(IdAnyOrNull):
    """On the flow run's `parent_task_run_id`."""


class FlowRunFilterStartTime(TimeRangeOrNull):
    """On the flow run's `start_time`."""


class FlowRunFilterStateName(TextAnyNotAny):
    """On the flow run's `state_name`."""


class FlowRunFilterStateType(Filter):
    """On the flow run's `state_type`."""

    any_: list[StateType] | None = None
    not_any_: list[StateType] | None = None


class FlowRunFilterTags(TaggedAny):
    """On the flow run's `tags`."""


class FlowRunFilterWorkQueueName(TextAnyOrNull):
    """On the flow run's `work_queue_name`."""


class FlowRunFilterState(OperatorFilter):
    """On the flow run's `state`."""

    type: FlowRunFilterStateType | None = None
    name: FlowRunFilterStateName | None = None


class FlowRunFilter(OperatorFilter):
    """Which flow runs to take."""

    id: FlowRunFilterId | None = None
    name: FlowRunFilterName | None = None
    tags: FlowRunFilterTags | None = None
    deployment_id: FlowRunFilterDeploymentId | None = None
    work_queue_name: FlowRunFilterWorkQueueName | None = None
    state: FlowRunFilterState | None = None
    flow_version: FlowRunFilterFlowVersion | None = None
    start_time: FlowRunFilterStartTime | None = None
    end_time: FlowRunFilterEndTime | None = None
    expected_start_time: FlowRunFilterExpectedStartTime | None = None
    next_scheduled_start_time: FlowRunFilterNextScheduledStartTime | None = None
    parent_flow_run_id: FlowRunFilterParentFlowRunId | None = None
    parent_task_run_id: FlowRunFilterParentTaskRunId | None = None
    idempotency_key: FlowRunFilterIdempotencyKey | None = None
    created_by: FlowRunFilterCreatedBy | None = None
