"""Artifacts: what runs publish for people to read."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.api.rights import own
from managedd.store import artifacts as artifact_rows
from managedd.store import rows
from managedd.store.resources import ARTIFACT, ARTIFACT_COLLECTION, DEPLOYMENT, FLOW, FLOW_RUN, TASK_RUN
from managedd.wire.artifacts import Artifact, ArtifactCollection, ArtifactCreate, ArtifactUpdate
from managedd.wire.base import Limit, Offset
from managedd.wire.filters.artifacts import ArtifactCollectionFilter, ArtifactFilter
from managedd.wire.filters.deployments import DeploymentFilter
from managedd.wire.filters.flow_runs import FlowRunFilter
from managedd.wire.filters.flows import FlowFilter
from managedd.wire.filters.task_runs import TaskRunFilter
from managedd.wire.sorting import ArtifactCollectionSort, ArtifactSort

TAG = "Artifacts"
RELATED = (FLOW_RUN, TASK_RUN, FLOW, DEPLOYMENT)
"""The tables of a filter's members after the artifacts' own, in the order in which handlers list them."""


@operation("POST", "/artifacts/", tag=TAG, returns=Artifact)
async def create_artifact(ctx: Context, artifact: ArtifactCreate) -> Reply:
    """The artifact exists (201) and is the latest of its key."""
    values = artifact.model_dump()

    def body(tx: Any) -> rows.Wire:
        own(tx, ctx.actor, flow_runs=(artifact.flow_run_id,), task_runs=(artifact.task_run_id,))
        return rows.get(tx, ARTIFACT, artifact_rows.create(tx, values))

    return Reply(body=await ctx.write(body), status=201)


@operation("GET", "/artifacts/{id}", tag=TAG, returns=Artifact)
async def read_artifact(ctx: Context, id: UUID) -> rows.Wire:
    """Get an artifact by id."""
    return await ctx.read(lambda tx: rows.get(tx, ARTIFACT, id))


@operation("GET", "/artifacts/{key}/latest", tag=TAG, returns=Artifact)
async def read_latest_artifact(ctx: Context, key: str) -> rows.Wire:
    """Get the latest artifact of a key."""
    return await ctx.read(lambda tx: artifact_rows.latest(tx, key))


@operation("POST", "/artifacts/filter", tag=TAG, returns=list[Artifact])
async def read_artifacts(
    ctx: Context,
    *,
    sort: ArtifactSort = ArtifactSort.ID_DESC,
    limit: Limit = None,
    offset: Offset = 0,
    artifacts: ArtifactFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    flows: FlowFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> list[rows.Wire]:
    """Query for artifacts."""
    filters = list(zip((ARTIFACT, *RELATED), (artifacts, flow_runs, task_runs, flows, deployments), strict=True))
    return await ctx.read(lambda tx: rows.find(tx, ARTIFACT, filters, sort, limit, offset))


@operation("POST", "/artifacts/latest/filter", tag=TAG, returns=list[ArtifactCollection])
async def read_latest_artifacts(
    ctx: Context,
    *,
    sort: ArtifactCollectionSort = ArtifactCollectionSort.ID_DESC,
    limit: Limit = None,
    offset: Offset = 0,
    artifacts: ArtifactCollectionFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    flows: FlowFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> list[rows.Wire]:
    """Query for the latest artifacts of their keys."""
    given = (artifacts, flow_runs, task_runs, flows, deployments)
    filters = list(zip((ARTIFACT_COLLECTION, *RELATED), given, strict=True))
    return await ctx.read(lambda tx: rows.find(tx, ARTIFACT_COLLECTION, filters, sort, limit, offset))


@operation("POST", "/artifacts/count", tag=TAG, returns=int)
async def count_artifacts(
    ctx: Context,
    *,
    artifacts: ArtifactFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    flows: FlowFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> int:
    """How many artifacts the filters admit."""
    filters = list(zip((ARTIFACT, *RELATED), (artifacts, flow_runs, task_runs, flows, deployments), strict=True))
    return await ctx.read(lambda tx: rows.count(tx, ARTIFACT, filters))


@operation("POST", "/artifacts/latest/count", tag=TAG, returns=int)
async def count_latest_artifacts(
    ctx: Context,
    *,
    artifacts: ArtifactCollectionFilter | None = None,
    flow_runs: FlowRunFilter | None = None,
    task_runs: TaskRunFilter | None = None,
    flows: FlowFilter | None = None,
    deployments: DeploymentFilter | None = None,
) -> int:
    """How many keys' latest artifacts the filters admit."""
    given = (artifacts, flow_runs, task_runs, flows, deployments)
    filters = list(zip((ARTIFACT_COLLECTION, *RELATED), given, strict=True))
    return await ctx.read(lambda tx: rows.count(tx, ARTIFACT_COLLECTION, filters))


@operation("PATCH", "/artifacts/{id}", tag=TAG, status=204)
async def update_artifact(ctx: Context, id: UUID, artifact: ArtifactUpdate) -> None:
    """The artifact has the given values."""
    changes = artifact.model_dump(exclude_unset=True)

    def body(tx: Any) -> None:
        if ctx.actor.kind == "run":
            own(tx, ctx.actor, flow_runs=(artifact_rows.owner(tx, str(id)),))
        artifact_rows.update(tx, str(id), changes)

    await ctx.write(body)


@operation("DELETE", "/artifacts/{id}", tag=TAG, status=204)
async def delete_artifact(ctx: Context, id: UUID) -> None:
    """The artifact is gone; the one before it is the latest of its key again."""
    await ctx.write(lambda tx: artifact_rows.delete(tx, str(id)))
