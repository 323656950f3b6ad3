"""Which automations to take."""

from __future__ import annotations

from managedd.wire.base import Timestamp
from managedd.wire.filters.leaves import Filter, IdAny, OperatorFilter, TaggedAny, TextAny


class AutomationFilterCreated(Filter):
    """On the automation's `created`."""

    before_: Timestamp | None = None


class AutomationFilterId(IdAny):
    """On the automation's `id`."""


class AutomationFilterName(TextAny):
    """On the automation's `name`."""


class AutomationFilterTags(TaggedAny):
    """On the automation's `tags`."""


class AutomationFilter(OperatorFilter):
    """Which automations to take."""

    id: AutomationFilterId | None = None
    name: AutomationFilterName | None = None
    created: AutomationFilterCreated | None = None
    tags: AutomationFilterTags | None = None
