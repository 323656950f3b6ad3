"""States of flow runs and task runs, and what an orchestration answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from managedd.model.states import StateType, default_name
from managedd.wire.base import Body, Id, Int, Json, Model, Timestamp, utc_now


class SetStateStatus(StrEnum):
    """What became of a proposed state."""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"
    ABORT = "ABORT"
    WAIT = "WAIT"


class StateDetails(Model):
    """What belongs to a state beside its type, name and message."""

    flow_run_id: Id | None = None
    task_run_id: Id | None = None
    child_flow_run_id: Id | None = None
    scheduled_time: Timestamp | None = None
    cache_key: str | None = None
    cache_expiration: Timestamp | None = None
    deferred: bool | None = False
    untrackable_result: bool = False
    pause_timeout: Timestamp | None = None
    pause_reschedule: bool = False
    pause_key: str | None = None
    run_input_keyset: dict[str, str] | None = None
    refresh_cache: bool | None = None
    retriable: bool | None = None
    transition_id: Id | None = None
    task_parameters_id: Id | None = None
    traceparent: str | None = None
    deployment_concurrency_lease_id: Id | None = None


class StateCreate(Body):
    """A proposed state."""

    type: StateType
    name: str | None = None
    message: str | None = None
    data: Json = None
    state_details: StateDetails = Field(default_factory=StateDetails)

    @model_validator(mode="after")
    def _name_from_type(self) -> Self:
        if self.name is None:
            self.name = default_name(self.type)
        return self


class State(Model):
    """A state that a run has or had."""

    id: Id
    type: StateType
    name: str | None = None
    timestamp: Timestamp = Field(default_factory=utc_now)
    message: str | None = None
    data: Json = None
    state_details: StateDetails = Field(default_factory=StateDetails)


class StateAcceptDetails(Model):
    """Why a state was accepted."""

    type: Literal["accept_details"] = "accept_details"


class StateWaitDetails(Model):
    """How long to wait before proposing again, and why."""

    type: Literal["wait_details"] = "wait_details"
    delay_seconds: Int
    reason: str | None = None


class StateRejectDetails(Model):
    """Why another state was given instead."""

    type: Literal["reject_details"] = "reject_details"
    reason: str | None = None


class StateAbortDetails(Model):
    """Why the run has to stop."""

    type: Literal["abort_details"] = "abort_details"
    reason: str | None = None


class OrchestrationResult(Model):
    """The answer to a proposed state."""

    state: State | None
    status: SetStateStatus
    details: StateAcceptDetails | StateWaitDetails | StateRejectDetails | StateAbortDetails


class HistoryResponseState(Model):
    """How many runs of an interval have one state."""

    state_type: StateType
    state_name: str
    count_runs: Int
    sum_estimated_run_time: float
    sum_estimated_lateness: float


class HistoryResponse(Model):
    """One interval of a history of runs."""

    interval_start: Timestamp
    interval_end: Timestamp
    states: list[HistoryResponseState]
