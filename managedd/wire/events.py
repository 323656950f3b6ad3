"""Events and the resources that they are about."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from managedd.wire.base import Id, Int, JsonObject, Model, Timestamp, at_most, utc_now


class EventOrder(StrEnum):
    """Newest or oldest first."""

    ASC = "ASC"
    DESC = "DESC"


class TimeUnit(StrEnum):
    """Units of the intervals that events are counted by."""

    WEEK = "week"
    DAY = "day"
    HOUR = "hour"
    MINUTE = "minute"
    SECOND = "second"


class Countable(StrEnum):
    """What events are counted by."""

    DAY = "day"
    TIME = "time"
    EVENT = "event"
    RESOURCE = "resource"


MAX_EVENT_NAME_CHARS = 1_024
MAX_RELATED = 100
MAX_LABELS = 500
MAX_LABEL_PATTERN_CHARS = 5_000
"""The longest value, or pattern of values, of a label that is looked for: SQLite refuses patterns of more than 50,000 bytes."""


def _labels(resource: dict[str, str]) -> dict[str, str]:
    if len(resource) > MAX_LABELS:
        raise ValueError(f"The maximum number of labels per resource is {MAX_LABELS}")
    if not resource.get("prefect.resource.id"):
        raise ValueError("Resources must include a prefect.resource.id label that is not empty")
    return resource


def _role(resource: dict[str, str]) -> dict[str, str]:
    if not resource.get("prefect.resource.role"):
        raise ValueError("Related Resources must include a prefect.resource.role label that is not empty")
    return resource


Resource = Annotated[dict[str, str], AfterValidator(_labels)]
"""The labels of a thing that events are about; `prefect.resource.id` is among them."""
RelatedResource = Annotated[Resource, AfterValidator(_role)]
"""The labels of a thing that an event involves; `prefect.resource.role` is among them."""
RelatedResources = Annotated[list[RelatedResource], AfterValidator(at_most(MAX_RELATED, "related resources"))]
LabelPattern = Annotated[str, AfterValidator(at_most(MAX_LABEL_PATTERN_CHARS, "characters"))]
ResourceSpecification = Annotated[
    dict[str, LabelPattern | Annotated[list[LabelPattern], AfterValidator(at_most(MAX_LABELS, "values"))]],
    AfterValidator(at_most(MAX_LABELS, "labels")),
]
"""Labels with the values, or patterns of values, that a resource must have."""
EventName = Annotated[str, AfterValidator(at_most(MAX_EVENT_NAME_CHARS, "characters"))]


class Event(Model):
    """An event as its sender sees it."""

    occurred: Timestamp
    event: EventName
    resource: Resource
    related: RelatedResources = Field(default_factory=list)
    payload: JsonObject = Field(default_factory=dict)
    id: Id
    follows: Id | None = None


class ReceivedEvent(Event):
    """An event as it is kept."""

    received: Timestamp = Field(default_factory=utc_now)


class EventPage(Model):
    """A page of events."""

    events: list[ReceivedEvent]
    total: Int
    next_page: Annotated[str, WithJsonSchema({"type": "string", "minLength": 1, "format": "uri"})] | None


class EventCount(Model):
    """How many events share a value."""

    value: str
    label: str
    count: Int
    start_time: Timestamp
    end_time: Timestamp
