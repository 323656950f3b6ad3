"""Which events to take."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from managedd.wire.base import Timestamp, at_most, utc_now
from managedd.wire.events import EventOrder, ResourceSpecification
from managedd.wire.filters.leaves import MAX_ALTERNATIVES, MAX_CONDITIONS, Filter, Ids, Prefixes, Texts, TextSearch


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

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        found = sum(map(len, _conditions(self)))
        if found > MAX_CONDITIONS:
            raise ValueError(
                f"at most {MAX_CONDITIONS:,} prefixes, label values and resources in roles are allowed in one filter, not {found:,}"
            )
        return self


def _conditions(filter_: EventFilter) -> Iterator[Sized]:
    """What becomes a condition each."""
    if filter_.event is not None:
        yield filter_.event.prefix or ()
        yield filter_.event.exclude_prefix or ()
    for part in (filter_.resource, filter_.related, filter_.any_resource):
        for each in part if isinstance(part, list) else [part]:
            if isinstance(each, EventRelatedFilter):
                yield each.resources_in_roles or ()
            elif each is not None:
                yield each.id_prefix or ()
            if each is not None:
                yield from (value if isinstance(value, list) else (value,) for value in (each.labels or {}).values())
