"""Which flows to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import IdAnyNotAny, OperatorFilter, Tagged, TextAnyLike


class FlowFilterDeployment(OperatorFilter):
    """On the flow's `deployment`."""

    is_null_: bool | None = None


class FlowFilterId(IdAnyNotAny):
    """On the flow's `id`."""


class FlowFilterName(TextAnyLike):
    """On the flow's `name`."""


class FlowFilterTags(Tagged):
    """On the flow's `tags`."""


class FlowFilter(OperatorFilter):
    """Which flows to take."""

    id: FlowFilterId | None = None
    deployment: FlowFilterDeployment | None = None
    name: FlowFilterName | None = None
    tags: FlowFilterTags | None = None
