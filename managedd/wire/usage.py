"""Compute hours, as the operator and the owners of runs are told them."""

from __future__ import annotations

from managedd.wire.base import Id, Int, Model, Timestamp


class UsageShare(Model):
    """What one deployment, or one day, has used."""

    name: str
    minutes: Int
    executions: Int


class UsageReport(Model):
    """The compute minutes of a workspace in a month."""

    workspace_id: Id
    plan: str
    month: str
    """`2026-11`, of `time_zone`."""
    time_zone: str
    used_minutes: Int
    running_minutes: Int
    """Those of `used_minutes` that belong to runs under way."""
    limit_minutes: float | None
    """None: no limit."""
    remaining_minutes: float | None
    """0 when more was used than there is: runs under way are let go on."""
    overrun_minutes: float
    resets: Timestamp
    """When the next month begins."""
    by: list[UsageShare]
    """Deployments that used most first, or days in their order."""


class WorkspacePlan(Model):
    """The plan that a workspace shall be on."""

    plan: str
