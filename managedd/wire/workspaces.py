"""Accounts and workspaces, as the operator makes and sees them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from managedd.wire.base import Body, Id, Model, NonNegative, Timestamp

Handle = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Of an account or a workspace: what people and `prefect cloud login --workspace` call it."""
Title = Annotated[str, StringConstraints(min_length=1, max_length=200)]
PlanName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class WorkspaceCreate(Body):
    """A workspace to make, and its account when that is new."""

    account: Handle
    handle: Handle
    name: Title | None = None
    """None: the handle."""
    plan: PlanName | None = None
    """None: `default_plan` of the settings."""


class WorkspaceUpdate(Body):
    """What of a workspace shall change."""

    handle: Handle | None = None
    name: Title | None = None
    plan: PlanName | None = None


class WorkspaceView(Model):
    """A workspace and the way to it."""

    id: Id
    account_id: Id
    account: Handle
    handle: Handle
    name: str
    plan: str
    created: Timestamp
    keys: NonNegative
    """How many of its keys open something."""
    api_url: str
    """What PREFECT_API_URL shall be."""
