"""Which deployments to take."""

from __future__ import annotations

from managedd.wire.base import Int
from managedd.wire.filters.leaves import (
    Filter,
    Flag,
    IdAnyNotAny,
    OperatorFilter,
    TaggedAny,
    TextAny,
    TextAnyLike,
    TextLike,
)


class DeploymentFilterConcurrencyLimit(Filter):
    """On the deployment's `concurrency_limit`."""

    ge_: Int | None = None
    le_: Int | None = None
    is_null_: bool | None = None


class DeploymentFilterId(IdAnyNotAny):
    """On the deployment's `id`."""


class DeploymentOrFlowNameFilter(TextLike):
    """On the deployment's name, or its flow's."""


class DeploymentFilterName(TextAnyLike):
    """On the deployment's `name`."""


class DeploymentFilterPaused(Flag):
    """On the deployment's `paused`."""


class DeploymentFilterTags(TaggedAny):
    """On the deployment's `tags`."""


class DeploymentFilterWorkQueueName(TextAny):
    """On the deployment's `work_queue_name`."""


class DeploymentFilter(OperatorFilter):
    """Which deployments to take."""

    id: DeploymentFilterId | None = None
    name: DeploymentFilterName | None = None
    flow_or_deployment_name: DeploymentOrFlowNameFilter | None = None
    paused: DeploymentFilterPaused | None = None
    tags: DeploymentFilterTags | None = None
    work_queue_name: DeploymentFilterWorkQueueName | None = None
    concurrency_limit: DeploymentFilterConcurrencyLimit | None = None
