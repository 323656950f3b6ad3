"""Which events to take."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from managedd.wire.base import Timestamp, at_most, utc_now
from managedd.wire.events import EventOrder, ResourceSpecification
from managedd.wire.filters.leaves import MAX_ALTERNATIVES, Filter, Ids, Prefixes, Texts, TextSearch


def _half_a_year_ago() -> datetime:
    return utc_now().replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=180)


class EventOccurredFilter(Filter):
    """When events happened, both moments included."""

    since: Timestamp = Field(default_factory=_half_a_year_ago)
    until: Timestamp = Field(default_factory=utc_now)


class EventNameFilter(Filter):
    """What events are called."""

    prefix: Prefixes | None = None
    exclude_prefix: Prefixes | None = None
    name: Texts | None = None
    exclude_name: Texts | None = None


class EventResourceFilter(Filter):
    """What resource events are about."""

    id: Texts | None = None
    id_prefix: Prefixes | None = None
    labels: ResourceSpecification | None = None
    distinct: bool = False


class EventRelatedFilter(Filter):
    """What else events involve."""

    id: Texts | None = None
    role: Texts | None = None
    resources_in_roles: (
        Annotated[list[tuple[str, str]], AfterValidator(at_most(MAX_ALTERNATIVES, "resources"))] | None
    ) = None
    labels: ResourceSpecification | None = None


class EventAnyResourceFilter(Filter):
    """Resources that events are about or involve."""

    id: Texts | None = None
    id_prefix: Prefixes | None = None
    labels: ResourceSpecification | None = None


class EventIDFilter(Filter):
    """Which events, by id."""

    id: Ids | None = None


class EventTextFilter(TextSearch):
    """On any text of the event."""


class EventFilter(Filter):
    """Which events to take."""

    occurred: EventOccurredFilter = Field(default_factory=EventOccurredFilter)
    event: EventNameFilter | None = None
    resource: EventResourceFilter | None = None
    related: (
        EventRelatedFilter
        | Annotated[list[EventRelatedFilter], AfterValidator(at_most(MAX_ALTERNATIVES, "filters"))]
        | None
    ) = None
    any_resource: (
        EventAnyResourceFilter
        | Annotated[list[EventAnyResourceFilter], AfterValidator(at_most(MAX_ALTERNATIVES, "filters"))]
        | None
    ) = None
    id: EventIDFilter = Field(default_factory=EventIDFilter)
    text: EventTextFilter | None = None
    order: EventOrder = EventOrder.DESC
