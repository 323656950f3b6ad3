"""Which artifacts, and which keys' latest artifacts, to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import IdAny, KeyAnyLikeExists, OperatorFilter, TextAnyNotAny


class ArtifactFilterFlowRunId(IdAny):
    """On the artifact's `flow_run_id`."""


class ArtifactFilterId(IdAny):
    """On the artifact's `id`."""


class ArtifactFilterKey(KeyAnyLikeExists):
    """On the artifact's `key`."""


class ArtifactFilterTaskRunId(IdAny):
    """On the artifact's `task_run_id`."""


class ArtifactFilterType(TextAnyNotAny):
    """On the artifact's `type`."""


class ArtifactFilter(OperatorFilter):
    """Which artifacts to take."""

    id: ArtifactFilterId | None = None
    key: ArtifactFilterKey | None = None
    flow_run_id: ArtifactFilterFlowRunId | None = None
    task_run_id: ArtifactFilterTaskRunId | None = None
    type: ArtifactFilterType | None = None


class ArtifactCollectionFilterFlowRunId(IdAny):
    """On the artifact collection's `flow_run_id`."""


class ArtifactCollectionFilterKey(KeyAnyLikeExists):
    """On the artifact collection's `key`."""


class ArtifactCollectionFilterLatestId(IdAny):
    """On the artifact collection's `latest_id`."""


class ArtifactCollectionFilterTaskRunId(IdAny):
    """On the artifact collection's `task_run_id`."""


class ArtifactCollectionFilterType(TextAnyNotAny):
    """On the artifact collection's `type`."""


class ArtifactCollectionFilter(OperatorFilter):
    """Which keys' latest artifacts to take."""

    latest_id: ArtifactCollectionFilterLatestId | None = None
    key: ArtifactCollectionFilterKey | None = None
    flow_run_id: ArtifactCollectionFilterFlowRunId | None = None
    task_run_id: ArtifactCollectionFilterTaskRunId | None = None
    type: ArtifactCollectionFilterType | None = None
