"""Automations: triggers and what they set off."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from managedd.ids import new_id
from managedd.wire.actions import Action, RunDeployment
from managedd.wire.base import Body, Id, Int, Model, Row, Tags, at_most
from managedd.wire.events import ResourceSpecification

MIN_PROACTIVE = timedelta(seconds=10)
MAX_TRIGGERS = 100
MAX_ACTIONS = 100
MAX_TERMS = 500
_EVERY_FLOW_RUN = frozenset(
    {"prefect.flow-run.Scheduled", "prefect.flow-run.Pending", "prefect.flow-run.Running", "prefect.flow-run.*"}
)


def _not_negative(within: timedelta) -> timedelta:
    if within < timedelta():
        raise ValueError("`within` must not be negative")
    return within


Terms = Annotated[set[str], AfterValidator(at_most(MAX_TERMS, "values"))]


class EventTrigger(Model):
    """Fires when events are seen, or are not seen, within a time."""

    type: Literal["event"] = "event"
    id: Id = Field(default_factory=new_id)
    match: ResourceSpecification = Field(default_factory=dict)
    match_related: (
        ResourceSpecification
        | Annotated[list[ResourceSpecification], AfterValidator(at_most(MAX_TERMS, "specifications"))]
    ) = Field(default_factory=dict)
    after: Terms = Field(default_factory=set)
    expect: Terms = Field(default_factory=set)
    for_each: Terms = Field(default_factory=set)
    posture: Literal["Reactive", "Proactive"]
    threshold: Int = 1
    within: Annotated[timedelta, AfterValidator(_not_negative)] = timedelta()

    @model_validator(mode="after")
    def _time_to_wait(self) -> Self:
        if self.posture == "Proactive":
            if not self.within:
                self.within = MIN_PROACTIVE
            elif self.within < MIN_PROACTIVE:
                raise ValueError("`within` of a Proactive trigger must be at least 10 seconds")
        return self


class CompoundTrigger(Model):
    """Fires when some of its triggers have fired within a time."""

    type: Literal["compound"] = "compound"
    id: Id = Field(default_factory=new_id)
    triggers: Triggers
    within: timedelta | None
    require: Int | Literal["any", "all"]

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if isinstance(self.require, int) and not 1 <= self.require <= len(self.triggers):
            raise ValueError("require must be at least 1 and at most the number of triggers")
        return self


class SequenceTrigger(Model):
    """Fires when its triggers have fired in their order."""

    type: Literal["sequence"] = "sequence"
    id: Id = Field(default_factory=new_id)
    triggers: Triggers
    within: timedelta | None


Trigger = EventTrigger | CompoundTrigger | SequenceTrigger
Triggers = Annotated[list[Trigger], AfterValidator(at_most(MAX_TRIGGERS, "triggers"))]
Actions = Annotated[list[Action], AfterValidator(at_most(MAX_ACTIONS, "actions"))]


def _of_every_flow_run(specification: dict[str, Any]) -> bool:
    if not specification:
        return True
    return specification.keys() == {"prefect.resource.id"} and specification["prefect.resource.id"] in (
        "prefect.flow-run.*",
        ["prefect.flow-run.*"],
    )


def _starts_itself(trigger: Trigger, actions: list[Action]) -> bool:
    """Whether a run that the actions start is sure, or likely, to fire the trigger again."""
    if not isinstance(trigger, EventTrigger) or trigger.posture != "Reactive" or not trigger.expect & _EVERY_FLOW_RUN:
        return False
    related = trigger.match_related if isinstance(trigger.match_related, list) else [trigger.match_related]
    unfiltered = _of_every_flow_run(trigger.match) and any(_of_every_flow_run(one) for one in related)
    return any(isinstance(each, RunDeployment) and (each.source == "inferred" or unfiltered) for each in actions)


class AutomationUpdate(Body):
    """An automation to put in the place of another."""

    name: str
    description: str = ""
    enabled: bool = True
    tags: Tags = Field(default_factory=list)
    trigger: Trigger
    actions: Actions
    actions_on_trigger: Actions = Field(default_factory=list)
    actions_on_resolve: Actions = Field(default_factory=list)

    @model_validator(mode="after")
    def _no_loop(self) -> Self:
        if self.enabled and _starts_itself(self.trigger, self.actions):
            raise ValueError(
                "The runs that this automation starts would fire it again, without end. Choose a deployment and narrow"
                " match or match_related to other runs."
            )
        return self


class AutomationCreate(AutomationUpdate):
    """An automation to create."""

    owner_resource: str | None = None


class AutomationPartialUpdate(Body):
    """What may change on an automation alone."""

    enabled: bool = True


class Automation(Row):
    """An automation."""

    name: str
    description: str = ""
    enabled: bool = True
    tags: Tags = Field(default_factory=list)
    trigger: Trigger
    actions: Actions
    actions_on_trigger: Actions = Field(default_factory=list)
    actions_on_resolve: Actions = Field(default_factory=list)
