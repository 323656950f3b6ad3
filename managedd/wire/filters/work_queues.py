"""Which work queues to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import Filter, IdAny, OperatorFilter, Prefixes, Texts


class WorkQueueFilterId(IdAny):
    """On the work queue's `id`."""


class WorkQueueFilterName(Filter):
    """On the work queue's `name`."""

    any_: Texts | None = None
    startswith_: Prefixes | None = None


class WorkQueueFilter(OperatorFilter):
    """Which work queues to take."""

    id: WorkQueueFilterId | None = None
    name: WorkQueueFilterName | None = None
