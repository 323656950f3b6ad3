"""Keys of people and programs, as they are made and shown."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from managedd.model.access import Role
from managedd.wire.base import Body, Id, Model, Timestamp
from managedd.wire.workspaces import Handle

KeyName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/]+$")]


class KeyCreate(Body):
    """A key to make."""

    name: KeyName
    role: Role
    expires: Annotated[str, Field(max_length=64)] | None = None
    """A duration such as `90d`, or an ISO date or time; None: it does not end by itself."""


class KeyView(Model):
    """A key, without the key itself."""

    id: Id
    workspace_id: Id
    name: str
    role: Role
    hint: str
    """How it begins."""
    created: Timestamp
    expires: Timestamp | None
    last_used: Timestamp | None
    revoked: Timestamp | None


class KeyMade(KeyView):
    """A new key: shown this once, and kept by nobody else."""

    key: str
    account_id: Id
    account: Handle
    workspace: Handle
    cloud_api_url: str
    """What PREFECT_CLOUD_API_URL shall be."""
    api_url: str
    """What PREFECT_API_URL shall be."""
