"""Work queues."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from managedd.model.states import StateType
from managedd.wire.base import (
    Body,
    Id,
    Int,
    Model,
    Name,
    NonNegative,
    Paginated,
    PathName,
    Positive,
    Row,
    Tags,
    Timestamp,
    addressable,
)


class WorkQueueStatus(StrEnum):
    """Whether anything takes a queue's runs."""

    READY = "READY"
    NOT_READY = "NOT_READY"
    PAUSED = "PAUSED"


class QueueFilter(Model):
    """What a queue of the first kind took; kept for old clients."""

    tags: Tags | None = None
    deployment_ids: list[Id] | None = None


class WorkQueueCreate(Body):
    """A work queue to create."""

    name: PathName
    description: str | None = ""
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    priority: Positive | None = None
    filter: QueueFilter | None = None


class WorkQueueUpdate(Body):
    """What may change on a work queue."""

    name: Annotated[str, AfterValidator(addressable)] | None = None
    description: str | None = None
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    priority: Positive | None = None
    last_polled: Timestamp | None = None
    filter: QueueFilter | None = None


class WorkQueue(Row):
    """A work queue without its pool's name."""

    name: Name
    description: str | None = ""
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    priority: Positive = 1
    work_pool_id: Id | None = None
    filter: QueueFilter | None = None
    last_polled: Timestamp | None = None


class WorkQueueResponse(Row):
    """A work queue."""

    name: Name
    description: str | None = ""
    is_paused: bool = False
    concurrency_limit: NonNegative | None = None
    priority: Positive = 1
    work_pool_id: Id | None = None
    filter: QueueFilter | None = None
    last_polled: Timestamp | None = None
    work_pool_name: str | None = None
    status: WorkQueueStatus | None = None
    active_slots: Int | None = None


class WorkQueueHealthPolicy(Model):
    """When a queue counts as healthy."""

    maximum_late_runs: Int | None = 0
    maximum_seconds_since_last_polled: Int | None = 60


class WorkQueueStatusDetail(Model):
    """How a queue is doing."""

    healthy: bool
    late_runs_count: Int = 0
    last_polled: Timestamp | None = None
    health_check_policy: WorkQueueHealthPolicy


class FlowRunSlotSummary(Model):
    """A flow run that holds a slot."""

    id: Id
    name: str
    state_type: StateType | None = None
    state_name: str | None = None
    start_time: Timestamp | None = None
    state_timestamp: Timestamp | None = None
    time_in_current_state: float | None = None


class WorkQueueConcurrencyStatusDetail(Model):
    """The slots of one queue of a pool."""

    queue_id: Id
    queue_name: str
    active_slots: Int
    concurrency_limit: Int | None = None
    flow_runs: list[FlowRunSlotSummary] = Field(default_factory=list)
    flow_run_count: Int | None = None


class WorkQueueConcurrencyStatus(Paginated):
    """The slots of a queue and who holds them."""

    active_slots: Int
    concurrency_limit: Int | None = None
    flow_runs: list[FlowRunSlotSummary] = Field(default_factory=list)
