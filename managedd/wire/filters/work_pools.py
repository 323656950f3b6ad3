"""Which work pools to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import IdAny, OperatorFilter, TextAny


class WorkPoolFilterId(IdAny):
    """On the work pool's `id`."""


class WorkPoolFilterName(TextAny):
    """On the work pool's `name`."""


class WorkPoolFilterType(TextAny):
    """On the work pool's `type`."""


class WorkPoolFilter(OperatorFilter):
    """Which work pools to take."""

    id: WorkPoolFilterId | None = None
    name: WorkPoolFilterName | None = None
    type: WorkPoolFilterType | None = None
