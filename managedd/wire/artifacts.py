"""Artifacts."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from managedd.ids import new_id
from managedd.wire.base import MAX_NAME_CHARS, Body, Id, Int, Json, Model, Row, Timestamp, at_most

MAX_METADATA_CHARS = 500


def _dashed(key: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]*", key):
        raise ValueError("Artifact key must only contain lowercase letters, numbers, and dashes.")
    return key


def _shortened(metadata: dict[str, str]) -> dict[str, str]:
    return {
        key: value if len(value) <= MAX_METADATA_CHARS else value[:MAX_METADATA_CHARS] + "..."
        for key, value in metadata.items()
    }


ArtifactKey = Annotated[str, AfterValidator(_dashed), AfterValidator(at_most(MAX_NAME_CHARS, "characters"))]
ArtifactMetadata = Annotated[dict[str, str], AfterValidator(_shortened)]


class ArtifactCreate(Body):
    """An artifact to create."""

    key: ArtifactKey | None = None
    type: str | None = None
    description: str | None = None
    data: Json = None
    metadata_: ArtifactMetadata | None = None
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class ArtifactUpdate(Body):
    """What may change on an artifact."""

    data: Json = None
    description: str | None = None
    metadata_: ArtifactMetadata | None = None


class Artifact(Model):
    """An artifact."""

    id: Id = Field(default_factory=new_id)
    created: Timestamp | None = None
    updated: Timestamp | None = None
    key: str | None = None
    type: str | None = None
    description: str | None = None
    data: Json = None
    metadata_: dict[str, str] | None = None
    flow_run_id: Id | None = None
    task_run_id: Id | None = None


class ArtifactBeginning(Model):
    """An artifact, with as much of its data as there is room for."""

    id: Id
    created: Timestamp
    key: str | None
    type: str | None
    description: str | None
    """Its beginning."""
    data: Json
    """None: there is none, or it is too long."""
    beginning: str | None
    """Of data that is too long: of a text what it begins with, of anything else the first of its JSON."""
    chars: Int
    """Of the data as JSON."""
    flow_run_id: Id | None
    task_run_id: Id | None


class ArtifactCollection(Row):
    """The latest artifact of a key."""

    key: str
    latest_id: Id
    type: str | None = None
    description: str | None = None
    data: Json = None
    metadata_: dict[str, str] | None = None
    flow_run_id: Id | None = None
    task_run_id: Id | None = None
