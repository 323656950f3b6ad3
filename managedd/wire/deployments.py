"""Deployments."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from managedd.model.states import StateType
from managedd.wire.base import (
    Body,
    CreatedBy,
    Id,
    Int,
    JsonObject,
    KeyValueLabels,
    Labels,
    Model,
    Paginated,
    Parameters,
    Positive,
    Row,
    RunName,
    Tags,
    Timestamp,
    UpdatedBy,
    new_run_name,
)
from managedd.wire.flow_runs import FlowRunPolicy
from managedd.wire.schedules import DeploymentSchedule, DeploymentScheduleCreate, DeploymentScheduleUpdate
from managedd.wire.states import StateCreate


class DeploymentStatus(StrEnum):
    """Whether anything takes a deployment's runs."""

    READY = "READY"
    NOT_READY = "NOT_READY"


class ConcurrencyLimitStrategy(StrEnum):
    """What happens to a run that finds no free slot."""

    ENQUEUE = "ENQUEUE"
    CANCEL_NEW = "CANCEL_NEW"


class ConcurrencyOptions(Model):
    """What the deployment's concurrency limit does with runs beyond it."""

    collision_strategy: ConcurrencyLimitStrategy
    grace_period_seconds: Annotated[int, Field(ge=60, le=86_400)] | None = None


class VersionInfo(Model):
    """Where a deployment's version comes from; keys of the client's own are kept."""

    model_config = ConfigDict(extra="allow")

    type: str
    version: str


class GlobalConcurrencyLimitResponse(Row):
    """The limit that a deployment has its slots from."""

    active: bool = True
    name: str
    limit: Int
    active_slots: Int
    slot_decay_per_second: float = 2.0


class DeploymentCreate(Body):
    """A deployment to create."""

    name: str
    flow_id: Id
    paused: bool = False
    schedules: list[DeploymentScheduleCreate] = Field(default_factory=list)
    concurrency_limit: Positive | None = None
    concurrency_options: ConcurrencyOptions | None = None
    global_concurrency_limit_id: Id | None = None
    enforce_parameter_schema: bool = True
    parameter_openapi_schema: JsonObject | None = None
    parameters: Parameters = Field(default_factory=dict)
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)
    pull_steps: list[JsonObject] | None = None
    work_queue_name: str | None = None
    work_pool_name: str | None = None
    storage_document_id: Id | None = None
    infrastructure_document_id: Id | None = None
    description: str | None = None
    path: str | None = None
    version: str | None = None
    entrypoint: str | None = None
    job_variables: JsonObject = Field(default_factory=dict)
    version_info: VersionInfo | None = None


class DeploymentUpdate(Body):
    """What may change on a deployment."""

    version: str | None = None
    description: str | None = None
    paused: bool = False
    schedules: list[DeploymentScheduleUpdate] = Field(default_factory=list)
    concurrency_limit: Positive | None = None
    concurrency_options: ConcurrencyOptions | None = None
    global_concurrency_limit_id: Id | None = None
    parameters: Parameters | None = None
    parameter_openapi_schema: JsonObject | None = None
    tags: Tags = Field(default_factory=list)
    work_queue_name: str | None = None
    work_pool_name: str | None = None
    path: str | None = None
    job_variables: JsonObject | None = None
    pull_steps: list[JsonObject] | None = None
    entrypoint: str | None = None
    storage_document_id: Id | None = None
    infrastructure_document_id: Id | None = None
    enforce_parameter_schema: bool | None = None
    version_info: VersionInfo | None = None


class DeploymentFlowRunCreate(Body):
    """A flow run to create from a deployment."""

    state: StateCreate | None = None
    name: RunName = Field(default_factory=new_run_name)
    parameters: JsonObject = Field(default_factory=dict)
    enforce_parameter_schema: bool | None = None
    context: JsonObject = Field(default_factory=dict)
    infrastructure_document_id: Id | None = None
    empirical_policy: FlowRunPolicy = Field(default_factory=FlowRunPolicy)
    tags: Tags = Field(default_factory=list)
    idempotency_key: str | None = None
    labels: KeyValueLabels = Field(default_factory=dict)
    parent_task_run_id: Id | None = None
    work_queue_name: str | None = None
    job_variables: JsonObject | None = None


class DeploymentResponse(Row):
    """A deployment."""

    name: str
    version: str | None = None
    description: str | None = None
    flow_id: Id
    paused: bool = False
    schedules: list[DeploymentSchedule] = Field(default_factory=list)
    concurrency_limit: Int | None = None
    global_concurrency_limit: GlobalConcurrencyLimitResponse | None = None
    concurrency_options: ConcurrencyOptions | None = None
    job_variables: JsonObject = Field(default_factory=dict)
    parameters: JsonObject = Field(default_factory=dict)
    tags: Tags = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)
    work_queue_name: str | None = None
    work_queue_id: Id | None = None
    last_polled: Timestamp | None = None
    parameter_openapi_schema: JsonObject | None = None
    path: str | None = None
    pull_steps: list[JsonObject] | None = None
    entrypoint: str | None = None
    storage_document_id: Id | None = None
    infrastructure_document_id: Id | None = None
    created_by: CreatedBy | None = None
    updated_by: UpdatedBy | None = None
    work_pool_name: str | None = None
    status: DeploymentStatus | None = DeploymentStatus.NOT_READY
    enforce_parameter_schema: bool = True


class DeploymentPaginationResponse(Paginated):
    """A page of deployments."""

    results: list[DeploymentResponse]


class DeploymentBulkDeleteResponse(Model):
    """The deployments that were deleted."""

    deleted: list[Id] = Field(default_factory=list)


class LatestRunsFilter(Body):
    """Of which deployments to tell what ran last."""

    deployment_ids: Annotated[list[Id], Field(max_length=200)]


class LatestRun(Model):
    """The run of a deployment that was due last."""

    deployment_id: Id
    id: Id
    name: str
    state_type: StateType | None
    state_name: str | None
    start_time: Timestamp | None
    expected_start_time: Timestamp
    end_time: Timestamp | None
