"""Compute hours, as the operator and the owners of runs are told them."""

from __future__ import annotations

from managedd.model.limits import OnExhausted
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
    first_month: str
    """The first that the workspace has, `2026-05`."""
    by: list[UsageShare]
    """Deployments that used most first, or days in their order."""


class WorkspaceUsage(Model):
    """What one workspace has used of a month."""

    workspace_id: Id
    account: str
    handle: str
    plan: str
    used_minutes: Int
    running_minutes: Int
    """Those of `used_minutes` that belong to runs under way."""
    limit_minutes: float | None
    """None: no limit."""


class WorkspacesUsageReport(Model):
    """The compute minutes of every workspace in a month."""

    month: str
    """`2026-11`, of `time_zone`."""
    time_zone: str
    resets: Timestamp
    """When the next month begins."""
    workspaces: list[WorkspaceUsage]
    """Those that used most first."""


class PlanLimits(Model):
    """What a plan allows, None for no limit."""

    name: str
    concurrent_runs: Int | None
    managed_pools: Int | None
    compute_hours: float | None
    on_exhausted: OnExhausted
    memory_limit_bytes: Int | None
    time_limit_seconds: Int | None
    start_burst: Int | None
    starts_per_minute: float | None
    images: list[str] | None


class PlanReport(PlanLimits):
    """What the plan of a workspace allows, and how much of that is taken."""

    pools: Int
    """Managed pools that there are."""
    runs: Int
    """Their runs that hold a slot."""
    run_memory_bytes: Int | None
    """What a run gets that asks for nothing; None: no limit, or not known."""
    run_cpus: float | None
    run_seconds: Int | None
    """How long a run may take."""


class WorkspacePlan(Model):
    """The plan that a workspace shall be on."""

    plan: str
