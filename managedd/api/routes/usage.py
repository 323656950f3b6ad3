"""Usage: the compute hours of a workspace, and the plan that sizes them."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from datetime import tzinfo
from typing import Annotated, Final, Literal

from pydantic import Field

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.clock import iso
from managedd.errors import invalid
from managedd.model.metering import Month, month_named, month_of
from managedd.store import plans, usage, workspaces
from managedd.store.database import Tx
from managedd.store.rows import Wire
from managedd.wire.usage import PlanLimits, PlanReport, UsageReport, WorkspacePlan, WorkspacesUsageReport

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet reckons."""
MonthName = Annotated[str | None, Field(pattern=r"^\d{4}-(0[1-9]|1[0-2])$")]


@operation("GET", "/managed/usage", tag="Managed", returns=UsageReport)
async def read_usage(
    ctx: Context,
    *,
    month: MonthName = None,
    by: Literal["deployment", "day"] = "deployment",
    format: Literal["json", "csv"] = "json",
) -> Wire | Reply:
    """Read what the workspace has used of its compute hours, what is left, and who used it; as CSV only the last, for a spreadsheet."""

    report = await ctx.read(lambda tx: _report(tx, ctx.services.zone, month, by))
    return report if format == "json" else _download(report["month"], by, table(report, by))


def _report(tx: Tx, zone: tzinfo, month: str | None, by: Literal["deployment", "day"]) -> Wire:
    chosen = _chosen(tx, zone, month)
    plan, limit = usage.measure(tx, tx.workspace, chosen)
    used = usage.used(tx, tx.workspace, chosen, zone)
    shares = usage.broken_down(tx, tx.workspace, chosen, zone, by)
    return {
        "workspace_id": tx.workspace,
        "plan": plan,
        **_month(chosen, str(zone)),
        "used_minutes": used.minutes,
        "running_minutes": used.running,
        **_left(limit, used.minutes),
        "first_month": usage.first_month(tx, tx.workspace, zone),
        "by": [{"name": name, "minutes": minutes, "executions": count} for name, minutes, count in shares],
    }


@operation("GET", "/managed/usage/workspaces", tag="Managed", returns=WorkspacesUsageReport, scoped=False)
async def read_usage_of_workspaces(
    ctx: Context, *, month: MonthName = None, format: Literal["json", "csv"] = "json"
) -> Wire | Reply:
    """Read what every workspace has used of its compute hours; as CSV for a spreadsheet."""
    report = await ctx.read(lambda tx: _of_workspaces(tx, ctx.services.zone, month))
    return report if format == "json" else _download(report["month"], "workspace", _workspace_table(report))


def _of_workspaces(tx: Tx, zone: tzinfo, month: str | None) -> Wire:
    chosen = _chosen(tx, zone, month)
    used = usage.used_by_all(tx, chosen, zone)
    found = []
    for each in workspaces.every(tx):
        plan, limit = usage.measure(tx, each.id, chosen)
        found.append(
            {
                "workspace_id": each.id,
                "account": each.account,
                "handle": each.handle,
                "plan": plan,
                "used_minutes": used[each.id].minutes,
                "running_minutes": used[each.id].running,
                "limit_minutes": limit,
            }
        )
    return {**_month(chosen, str(zone)), "workspaces": sorted(found, key=lambda each: -each["used_minutes"])}


@operation("GET", "/managed/plan", tag="Managed", returns=PlanReport)
async def read_plan(ctx: Context) -> Wire:
    """Read what the workspace's plan allows, how much of that is taken now, and what a run gets that asks for nothing."""

    def look(tx: Tx) -> Wire:
        plan, host = plans.of_workspace(tx, tx.workspace), plans.host(tx)
        pools, runs = plans.in_use(tx, tx.workspace)
        return {
            **asdict(plan),
            "pools": pools,
            "runs": runs,
            "run_memory_bytes": _least(host.run_memory_bytes, plan.memory_limit_bytes),
            "run_cpus": host.run_cpus,
            "run_seconds": _least(host.run_seconds, plan.time_limit_seconds),
        }

    return await ctx.read(look)


@operation("GET", "/managed/plans", tag="Managed", returns=list[PlanLimits], scoped=False)
async def read_plans(ctx: Context) -> list[Wire]:
    """Read every plan that a workspace can be on, by name."""
    return await ctx.read(lambda tx: [asdict(plan) for plan in plans.every(tx).values()])


@operation("PATCH", "/managed/workspace", tag="Managed", status=204)
async def update_workspace_plan(ctx: Context, workspace: WorkspacePlan) -> None:
    """The workspace is on that plan; what waits is looked at again at once."""

    def body(tx: Tx) -> None:
        known = plans.every(tx)
        if workspace.plan not in known:
            raise invalid(f"plan: there is no plan {workspace.plan!r}; plans: {', '.join(known)}")
        workspaces.move(tx, tx.workspace, workspace.plan)

    await ctx.write(body)


def _download(month: str, by: str, text: str) -> Reply:
    said = {"Content-Disposition": f'attachment; filename="usage-{month}-by-{by}.csv"'}
    return Reply(body=text.encode(), headers=said, content_type="text/csv")


def table(report: Wire, by: str = "deployment") -> str:
    """Who used what, as CSV."""
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow([by, "minutes", "executions"])
    lines.writerows([_plain(each["name"]), each["minutes"], each["executions"]] for each in report["by"])
    return written.getvalue()


def _workspace_table(report: Wire) -> str:
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow(["workspace", "plan", "minutes", "limit"])
    for each in report["workspaces"]:
        name = _plain(f"{each['account']}/{each['handle']}")
        lines.writerow([name, _plain(each["plan"]), each["used_minutes"], each["limit_minutes"]])
    return written.getvalue()


def _plain(text: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def _chosen(tx: Tx, zone: tzinfo, month: str | None) -> Month:
    """The month of that name, or the present one. Raises ManagedError(INVALID) for one that has not begun."""
    present = month_of(tx.now, zone)
    chosen = present if month is None else _named(month, zone)
    if chosen.begins_us >= present.ends_us:
        raise invalid(f"month: {month} has not begun; allowed: months up to the present one, {present.name}")
    return chosen


def _named(month: str, zone: tzinfo) -> Month:
    try:
        return month_named(month, zone)
    except (ValueError, OverflowError):
        raise invalid(f"month: {month} is beyond what the calendar has; allowed: 0002-01 to 9998-12") from None


def _month(month: Month, zone: str) -> Wire:
    return {"month": month.name, "time_zone": zone, "resets": iso(month.ends_us)}


def _left(limit: float | None, used: int) -> Wire:
    if limit is None:
        return {"limit_minutes": None, "remaining_minutes": None, "overrun_minutes": 0.0}
    return {
        "limit_minutes": limit,
        "remaining_minutes": max(0.0, round(limit - used, 6)),
        "overrun_minutes": max(0.0, round(used - limit, 6)),
    }
