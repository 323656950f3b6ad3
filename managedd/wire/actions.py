"""What an automation does when it fires."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from managedd.model.states import StateType
from managedd.wire.base import Id, JsonObject, Model

Source = Literal["selected", "inferred"]
"""Whether the action's object is named by its id or taken from the event that fired."""


def _as_text(payload: Any) -> Any:
    # Old pages send an object whose only key is the message.
    if payload is None:
        return ""
    if isinstance(payload, dict):
        return payload["message"] if payload.keys() == {"message"} else orjson.dumps(payload).decode()
    return payload


def _not_negative(delay: timedelta) -> timedelta:
    if delay < timedelta():
        raise ValueError("schedule_after must not be negative")
    return delay


def _check(source: str, field: str, chosen: str | None) -> None:
    if (source == "selected") != (chosen is not None):
        raise ValueError(f"{field} is {'required' if chosen is None else 'not allowed'} when the source is {source!r}")


class _OnDeployment(Model):
    source: Source = "selected"
    deployment_id: Id | None = None

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        _check(self.source, "deployment_id", self.deployment_id)
        return self


class _OnWorkPool(Model):
    source: Source = "selected"
    work_pool_id: Id | None = None

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        _check(self.source, "work_pool_id", self.work_pool_id)
        return self


class _OnWorkQueue(Model):
    source: Source = "selected"
    work_queue_id: Id | None = None

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        _check(self.source, "work_queue_id", self.work_queue_id)
        return self


class _OnAutomation(Model):
    source: Source = "selected"
    automation_id: Id | None = None

    @model_validator(mode="after")
    def _chosen(self) -> Self:
        _check(self.source, "automation_id", self.automation_id)
        return self


class DoNothing(Model):
    """Nothing is done; the firing is told as an event alone."""

    type: Literal["do-nothing"] = "do-nothing"


class RunDeployment(_OnDeployment):
    """A flow run is created from the deployment."""

    type: Literal["run-deployment"] = "run-deployment"
    parameters: JsonObject | None = None
    job_variables: JsonObject | None = None
    schedule_after: Annotated[timedelta, AfterValidator(_not_negative)] = Field(default_factory=timedelta)


class PauseDeployment(_OnDeployment):
    """The deployment's schedules rest."""

    type: Literal["pause-deployment"] = "pause-deployment"


class ResumeDeployment(_OnDeployment):
    """The deployment's schedules go on."""

    type: Literal["resume-deployment"] = "resume-deployment"


class CancelFlowRun(Model):
    """The flow run of the event is cancelled."""

    type: Literal["cancel-flow-run"] = "cancel-flow-run"


class DeleteFlowRun(Model):
    """The flow run of the event is deleted."""

    type: Literal["delete-flow-run"] = "delete-flow-run"


class ChangeFlowRunState(Model):
    """A state is proposed for the flow run of the event."""

    type: Literal["change-flow-run-state"] = "change-flow-run-state"
    name: str | None = None
    state: StateType
    message: str | None = None
    force: bool = False


class PauseWorkQueue(_OnWorkQueue):
    """The work queue gives out no more runs."""

    type: Literal["pause-work-queue"] = "pause-work-queue"


class ResumeWorkQueue(_OnWorkQueue):
    """The work queue gives out runs again."""

    type: Literal["resume-work-queue"] = "resume-work-queue"


class SendNotification(Model):
    """A notification goes out through a block."""

    type: Literal["send-notification"] = "send-notification"
    block_document_id: Id
    subject: str = "Prefect automated notification"
    body: str


class CallWebhook(Model):
    """A webhook block is called."""

    type: Literal["call-webhook"] = "call-webhook"
    block_document_id: Id
    payload: Annotated[str, BeforeValidator(_as_text)] = ""


class PauseAutomation(_OnAutomation):
    """The automation rests."""

    type: Literal["pause-automation"] = "pause-automation"


class ResumeAutomation(_OnAutomation):
    """The automation goes on."""

    type: Literal["resume-automation"] = "resume-automation"


class SuspendFlowRun(Model):
    """The flow run of the event is suspended."""

    type: Literal["suspend-flow-run"] = "suspend-flow-run"


class ResumeFlowRun(Model):
    """The suspended flow run of the event goes on."""

    type: Literal["resume-flow-run"] = "resume-flow-run"


class PauseWorkPool(_OnWorkPool):
    """The work pool gives out no more runs."""

    type: Literal["pause-work-pool"] = "pause-work-pool"


class ResumeWorkPool(_OnWorkPool):
    """The work pool gives out runs again."""

    type: Literal["resume-work-pool"] = "resume-work-pool"


Action = (
    DoNothing
    | RunDeployment
    | PauseDeployment
    | ResumeDeployment
    | CancelFlowRun
    | DeleteFlowRun
    | ChangeFlowRunState
    | PauseWorkQueue
    | ResumeWorkQueue
    | SendNotification
    | CallWebhook
    | PauseAutomation
    | ResumeAutomation
    | SuspendFlowRun
    | ResumeFlowRun
    | PauseWorkPool
    | ResumeWorkPool
)
