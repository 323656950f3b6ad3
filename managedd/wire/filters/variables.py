"""Which variables to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import IdAny, OperatorFilter, Tagged, TextAnyLike


class VariableFilterId(IdAny):
    """On the variable's `id`."""


class VariableFilterName(TextAnyLike):
    """On the variable's `name`."""


class VariableFilterTags(Tagged):
    """On the variable's `tags`."""


class VariableFilter(OperatorFilter):
    """Which variables to take."""

    id: VariableFilterId | None = None
    name: VariableFilterName | None = None
    tags: VariableFilterTags | None = None
