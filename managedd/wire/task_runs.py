"""Task runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from managedd.model.states import StateType
from managedd.wire.base import (
    Body,
    Id,
    Int,
    KeyValueLabels,
    Model,
    Paginated,
    Row,
    RunName,
    Tags,
    Timestamp,
    at_most,
    new_run_name,
)
from managedd.wire.states import State, StateCreate

MAX_RETRY_DELAYS = 50
MAX_CACHE_KEY_CHARS = 2_000


def _not_negative(factor: float) -> float:
    if factor < 0:
        raise ValueError("`retry_jitter_factor` must be >= 0.")
    return factor


def with_newer_names(policy: Any) -> Any:
    """`policy` with `retries` and `retry_delay` taken from their old names where only those are given."""
    if not isinstance(policy, dict):
        return policy
    named = dict(policy)
    for new, old in (("retries", "max_retries"), ("retry_delay", "retry_delay_seconds")):
        if not named.get(new) and named.get(old):
            named[new] = named[old]
    return named


RetryDelays = AfterValidator(at_most(MAX_RETRY_DELAYS, "retry delays"))
CacheKey = Annotated[str, AfterValidator(at_most(MAX_CACHE_KEY_CHARS, "characters"))]


class TaskRunResult(Model):
    """The input is the result of a task run."""

    input_type: Literal["task_run"] = "task_run"
    id: Id


class FlowRunResult(Model):
    """The input is the result of a flow run."""

    input_type: Literal["flow_run"] = "flow_run"
    id: Id


class Parameter(Model):
    """The input is a parameter of the flow."""

    input_type: Literal["parameter"] = "parameter"
    name: str


class Constant(Model):
    """The input is a constant."""

    input_type: Literal["constant"] = "constant"
    type: str


class TaskRunPolicy(Model):
    """How a task run retries."""

    max_retries: Int = 0
    retry_delay_seconds: float = 0
    retries: Int | None = None
    retry_delay: Int | float | Annotated[list[Int], RetryDelays] | Annotated[list[float], RetryDelays] | None = None
    retry_jitter_factor: Annotated[float, AfterValidator(_not_negative)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _newer_names(cls, values: Any) -> Any:
        return with_newer_names(values)


class TaskRunCreate(Body):
    """A task run to create."""

    id: Id | None = None
    state: StateCreate | None = None
    name: RunName = Field(default_factory=new_run_name)
    flow_run_id: Id | None = None
    task_key: str
    dynamic_key: str
    cache_key: CacheKey | None = None
    cache_expiration: Timestamp | None = None
    task_version: str | None = None
    empirical_policy: TaskRunPolicy = Field(default_factory=TaskRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)
    task_inputs: dict[str, list[TaskRunResult | FlowRunResult | Parameter | Constant]] = Field(default_factory=dict)


class TaskRunUpdate(Body):
    """What may change on a task run."""

    name: RunName = Field(default_factory=new_run_name)


class TaskRun(Row):
    """A task run."""

    name: RunName = Field(default_factory=new_run_name)
    flow_run_id: Id | None = None
    task_key: str
    dynamic_key: str
    cache_key: str | None = None
    cache_expiration: Timestamp | None = None
    task_version: str | None = None
    empirical_policy: TaskRunPolicy = Field(default_factory=TaskRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)
    state_id: Id | None = None
    task_inputs: dict[str, list[TaskRunResult | FlowRunResult | Parameter | Constant]] = Field(default_factory=dict)
    state_type: StateType | None = None
    state_name: str | None = None
    run_count: Int = 0
    flow_run_run_count: Int = 0
    expected_start_time: Timestamp | None = None
    next_scheduled_start_time: Timestamp | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    total_run_time: float = 0.0
    estimated_run_time: float = 0.0
    estimated_start_time_delta: float = 0.0
    state: State | None = None


class TaskRunResponse(Row):
    """A task run in a page."""

    name: RunName = Field(default_factory=new_run_name)
    flow_run_id: Id | None = None
    task_key: str
    state_id: Id | None = None
    state: State | None = None
    task_version: str | None = None
    task_inputs: dict[str, list[TaskRunResult | FlowRunResult | Parameter | Constant]] = Field(default_factory=dict)
    empirical_policy: TaskRunPolicy = Field(default_factory=TaskRunPolicy)
    tags: Tags = Field(default_factory=list)
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    total_run_time: float = 0.0
    estimated_run_time: float = 0.0
    estimated_start_time_delta: float = 0.0


class TaskRunPaginationResponse(Paginated):
    """A page of task runs."""

    results: list[TaskRunResponse]


class DependencyResult(Model):
    """A task run and what it depends on."""

    id: Id
    name: str
    upstream_dependencies: list[TaskRunResult]
    state: State | None
    expected_start_time: Timestamp | None
    start_time: Timestamp | None
    end_time: Timestamp | None
    total_run_time: float | None
    estimated_run_time: float | None
    untrackable_result: bool
