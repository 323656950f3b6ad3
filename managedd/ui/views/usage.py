"""Usage: the compute minutes of a month against the plan, by day, by deployment, and for who sees all of them, by workspace."""

from __future__ import annotations

import calendar
import re
from typing import TYPE_CHECKING, Any, Final

from managedd.errors import ErrorCode, ManagedError, invalid
from managedd.ui import charts
from managedd.ui.page import page
from managedd.ui.views.work_pools import plan_and_hours
from managedd.ui.words import hours, plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    from managedd.ui.asking import Ask

MONTHS_BACK: Final = 11
MOST_SHOWN: Final = 100
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


@page("/usage", template="usage.html", section="usage")
async def usage(ask: Ask) -> dict[str, Any]:
    """A month: this one, or that of `?month=2026-11`."""
    present = await plan_and_hours(ask)
    this_month = present["usage"]["month"]
    first = present["usage"]["first_month"]
    month = _asked(ask.query.get("month") or this_month, first)
    by_day = await ask.get("/managed/usage", month=month, by="day")
    by_deployment = await ask.get("/managed/usage", month=month)
    days = _days(by_day)
    return {
        "title": "Usage",
        **present,
        "month": month,
        "is_present": month == this_month,
        "months": _months(this_month, month, first),
        "shown": by_deployment,
        "deployments": _shares(by_deployment["by"], by_deployment["used_minutes"]),
        "count": len(by_deployment["by"]),
        "days": days,
        "chart": charts.amounts([(each["name"], each["minutes"], _said(each)) for each in days]),
        "busiest": max(days, key=lambda day: day["minutes"], default=None),
        "others": await _others(ask, month),
    }


def _asked(month: str, first: str) -> str:
    """The month, which is one, and one that the workspace has. Raises ManagedError."""
    if _MONTH.fullmatch(month) is None:
        raise invalid(f"A month is written {first}.")
    if month < first:
        raise ManagedError(ErrorCode.NOT_FOUND, f"There is no usage of {month}: this workspace begins with {first}.")
    return month


def _said(day: Mapping[str, Any]) -> str:
    return f"{hours(day['minutes'])}, {plural(day['executions'], 'execution')}"


def _days(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every day of the month, also those on which nothing ran."""
    used = {each["name"]: each for each in report["by"]}
    year, month = (int(part) for part in report["month"].split("-"))
    count = calendar.monthrange(year, month)[1]
    names = [f"{report['month']}-{day:02}" for day in range(1, count + 1)]
    return [used.get(name) or {"name": name, "minutes": 0, "executions": 0} for name in names]


def _shares(by: list[dict[str, Any]], total: int) -> list[dict[str, Any]]:
    return [{**each, "share": each["minutes"] / total if total else 0.0} for each in by[:MOST_SHOWN]]


def _months(present: str, chosen: str, first: str) -> list[str]:
    """This month, those before it that the workspace has, and the chosen one, newest first."""
    year, month = (int(part) for part in present.split("-"))
    found = []
    for back in range(MONTHS_BACK + 1):
        years, months = divmod(year * 12 + month - 1 - back, 12)
        found.append(f"{years:04}-{months + 1:02}")
    return sorted({*(each for each in found if each >= first), chosen}, reverse=True)


async def _others(ask: Ask, month: str) -> list[dict[str, Any]] | None:
    """All workspaces, those that used most of the month first; None for who sees but one."""
    if not ask.may("GET /managed/usage/workspaces"):
        return None
    found: list[dict[str, Any]] = (await ask.get("/managed/usage/workspaces", month=month))["workspaces"]
    return found
