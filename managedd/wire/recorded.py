"""What the engine tells of a task run in its events: the payload from which rows are made."""

from __future__ import annotations

from pydantic import Field

from managedd.model.states import StateType
from managedd.wire.base import Int, Json, Labels, Model, RunName, Tags, Timestamp
from managedd.wire.states import StateDetails
from managedd.wire.task_runs import CacheKey, Constant, FlowRunResult, Parameter, TaskRunPolicy, TaskRunResult


class RecordedState(Model):
    """The state that the task run entered; its id and time are the event's."""

    type: StateType
    name: str | None = None
    message: str | None = None
    data: Json = None
    state_details: StateDetails = Field(default_factory=StateDetails)


class RecordedTaskRun(Model):
    """What is known of the task run; what is not sent stays as it was."""

    name: RunName = ""
    task_key: str
    dynamic_key: str
    cache_key: CacheKey | None = None
    cache_expiration: Timestamp | None = None
    task_version: str | None = None
    empirical_policy: TaskRunPolicy = Field(default_factory=TaskRunPolicy)
    tags: Tags = Field(default_factory=list)
    labels: Labels = Field(default_factory=dict)
    task_inputs: dict[str, list[TaskRunResult | FlowRunResult | Parameter | Constant]] = Field(default_factory=dict)
    run_count: Int = 0
    flow_run_run_count: Int = 0
    expected_start_time: Timestamp | None = None
    next_scheduled_start_time: Timestamp | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    total_run_time: float = 0.0


class TaskRunPayload(Model):
    """The payload of an event `prefect.task-run.<State>`."""

    validated_state: RecordedState
    task_run: RecordedTaskRun
