"""Flow runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from managedd.model.states import StateType
from managedd.wire.base import (
    Body,
    CreatedBy,
    Id,
    Int,
    Json,
    JsonObject,
    KeyValueLabels,
    Labels,
    Model,
    Paginated,
    Parameters,
    Row,
    RunName,
    Tags,
    Timestamp,
    named,
    new_run_name,
)
from managedd.wire.states import (
    SetStateStatus,
    State,
    StateAbortDetails,
    StateAcceptDetails,
    StateCreate,
    StateRejectDetails,
    StateWaitDetails,
)
from managedd.wire.task_runs import with_newer_names


class FlowRunPolicy(Model):
    """How a flow run retries and pauses."""

    max_retries: Int = 0
    retry_delay_seconds: float = 0
    retries: Int | None = None
    retry_delay: Int | None = None
    pause_keys: set[str] | None = None
    resuming: bool | None = False
    retry_type: Literal["in_process", "reschedule"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _newer_names(cls, values: Any) -> Any:
        return with_newer_names(values)


class FlowRunCreate(Body):
    """A flow run to create."""

    state: StateCreate | None = None
    name: RunName = Field(default_factory=new_run_name)
    flow_id: Id
    flow_version: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    context: JsonObject = Field(default_factory=dict)
    parent_task_run_id: Id | None = None
    infrastructure_document_id: Id | None = None
    empirical_policy: FlowRunPolicy = Field(default_factory=FlowRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)
    idempotency_key: str | None = None
    work_pool_name: str | None = None
    work_queue_name: str | None = None
    job_variables: JsonObject | None = None
    deployment_id: Id | None = None


class FlowRunUpdate(Body):
    """What may change on a flow run."""

    name: Annotated[str | None, BeforeValidator(named)] = None
    flow_version: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    empirical_policy: FlowRunPolicy = Field(default_factory=FlowRunPolicy)
    tags: Tags = Field(default_factory=list)
    infrastructure_pid: str | None = None
    job_variables: JsonObject | None = None


class FlowRun(Row):
    """A flow run, as it stands in answers to workers."""

    name: RunName = Field(default_factory=new_run_name)
    flow_id: Id
    state_id: Id | None = None
    deployment_id: Id | None = None
    deployment_version: str | None = None
    work_queue_name: str | None = None
    flow_version: str | None = None
    parameters: JsonObject = Field(default_factory=dict)
    idempotency_key: str | None = None
    context: JsonObject = Field(default_factory=dict)
    empirical_policy: FlowRunPolicy = Field(default_factory=FlowRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)
    parent_task_run_id: Id | None = None
    state_type: StateType | None = None
    state_name: str | None = None
    run_count: Int = 0
    expected_start_time: Timestamp | None = None
    next_scheduled_start_time: Timestamp | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    total_run_time: float = 0.0
    estimated_run_time: float = 0.0
    estimated_start_time_delta: float = 0.0
    auto_scheduled: bool = False
    infrastructure_document_id: Id | None = None
    infrastructure_pid: str | None = None
    created_by: CreatedBy | None = None
    work_queue_id: Id | None = None
    state: State | None = None
    job_variables: JsonObject | None = None


class FlowRunResponse(Row):
    """A flow run."""

    name: RunName = Field(default_factory=new_run_name)
    flow_id: Id
    state_id: Id | None = None
    deployment_id: Id | None = None
    deployment_version: str | None = None
    work_queue_id: Id | None = None
    work_queue_name: str | None = None
    flow_version: str | None = None
    parameters: JsonObject = Field(default_factory=dict)
    idempotency_key: str | None = None
    context: JsonObject = Field(default_factory=dict)
    empirical_policy: FlowRunPolicy = Field(default_factory=FlowRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)
    parent_task_run_id: Id | None = None
    state_type: StateType | None = None
    state_name: str | None = None
    run_count: Int = 0
    expected_start_time: Timestamp | None = None
    next_scheduled_start_time: Timestamp | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    total_run_time: float = 0.0
    estimated_run_time: float = 0.0
    estimated_start_time_delta: float = 0.0
    auto_scheduled: bool = False
    infrastructure_document_id: Id | None = None
    infrastructure_pid: str | None = None
    created_by: CreatedBy | None = None
    work_pool_id: Id | None = None
    work_pool_name: str | None = None
    state: State | None = None
    job_variables: JsonObject | None = None


class FlowRunInput(Row):
    """An input of a paused flow run."""

    flow_run_id: Id
    key: str
    value: str
    sender: str | None = None


class FlowRunPaginationResponse(Paginated):
    """A page of flow runs."""

    results: list[FlowRunResponse]


class FlowRunOrchestrationResult(Model):
    """What became of one run of a bulk change."""

    flow_run_id: Id
    status: SetStateStatus
    state: State | None = None
    details: StateAcceptDetails | StateWaitDetails | StateRejectDetails | StateAbortDetails


class FlowRunBulkSetStateResponse(Model):
    """What became of each run of a bulk change."""

    results: list[FlowRunOrchestrationResult] = Field(default_factory=list)


class FlowRunBulkDeleteResponse(Model):
    """The flow runs that were deleted."""

    deleted: list[Id] = Field(default_factory=list)


class FlowRunCreateResult(Model):
    """What became of one run of a bulk creation."""

    flow_run_id: Id | None = None
    status: Literal["CREATED", "FAILED"]
    error: str | None = None


class FlowRunBulkCreateResponse(Model):
    """What became of each run of a bulk creation."""

    results: list[FlowRunCreateResult] = Field(default_factory=list)


class Edge(Model):
    """A link between two nodes of a graph."""

    id: Id


class GraphArtifact(Model):
    """An artifact in a graph."""

    id: Id
    created: Timestamp
    key: str | None
    type: str | None
    is_latest: bool
    data: Json


class GraphState(Model):
    """A state of the flow run in a graph."""

    id: Id
    timestamp: Timestamp
    type: StateType
    name: str


class Node(Model):
    """A run in a graph."""

    kind: Literal["flow-run", "task-run"]
    id: Id
    label: str
    state_type: StateType
    start_time: Timestamp
    end_time: Timestamp | None
    parents: list[Edge]
    children: list[Edge]
    encapsulating: list[Edge]
    artifacts: list[GraphArtifact]


class Graph(Model):
    """The runs below a flow run and how they follow from each other."""

    start_time: Timestamp | None
    end_time: Timestamp | None
    root_node_ids: list[Id]
    nodes: list[tuple[Id, Node]]
    artifacts: list[GraphArtifact]
    states: list[GraphState]
