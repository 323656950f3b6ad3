"""Which workers to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import Filter, OperatorFilter, TimeRange
from managedd.wire.workers import WorkerStatus


class WorkerFilterLastHeartbeatTime(TimeRange):
    """On the worker's `last_heartbeat_time`."""


class WorkerFilterStatus(Filter):
    """On the worker's `status`."""

    any_: list[WorkerStatus] | None = None
    not_any_: list[WorkerStatus] | None = None


class WorkerFilter(OperatorFilter):
    """Which workers to take."""

    last_heartbeat_time: WorkerFilterLastHeartbeatTime | None = None
    status: WorkerFilterStatus | None = None
