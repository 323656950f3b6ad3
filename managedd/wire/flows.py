"""Flows."""

from __future__ import annotations

from pydantic import Field

from managedd.wire.base import Body, Id, KeyValueLabels, Model, Name, Paginated, Row, Tags


class FlowCreate(Body):
    """A flow to create."""

    name: Name
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)


class FlowUpdate(Body):
    """What may change on a flow."""

    tags: Tags = Field(default_factory=list)


class Flow(Row):
    """A flow."""

    name: Name
    tags: Tags = Field(default_factory=list)
    labels: KeyValueLabels = Field(default_factory=dict)


class FlowPaginationResponse(Paginated):
    """A page of flows."""

    results: list[Flow]


class FlowBulkDeleteResponse(Model):
    """The flows that were deleted."""

    deleted: list[Id] = Field(default_factory=list)
