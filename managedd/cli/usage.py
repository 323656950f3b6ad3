"""`managedd usage`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import anyio
from cyclopts import Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json, print_table
from managedd.errors import ErrorCode, ManagedError
from managedd.model.amounts import human_minutes

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


def usage(
    *,
    workspace: Annotated[str | None, Parameter(metavar="HANDLE")] = None,
    month: Annotated[str | None, Parameter(metavar="YYYY-MM")] = None,
    by: Literal["deployment", "day", "workspace"] = "deployment",
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Show the compute hours that workspaces have used, what is left, and who used it.

    Parameters
    ----------
    workspace
        Only this one, by its handle, account/handle or id.
    month
        A month that has begun, 2026-11 for example; without it, this one.
    by
        Break it down by deployment or by day; or one table of all workspaces.
    json
        Print JSON instead of tables.
    """
    if month is not None and _MONTH.fullmatch(month) is None:
        raise ManagedError(
            ErrorCode.CONFIG, f"--month: {harmless(month)!r} is no month; allowed: YYYY-MM, for example 2026-11"
        )
    query = {} if month is None else {"month": month}
    if by == "workspace":
        report = anyio.run(_ask_of_all, where, workspace, query)
        print_json(report) if json else _print_all(report)
        return
    found = anyio.run(_ask, where, workspace, {"by": by, **query})
    if json:
        print_json([report for _, report in found])
        return
    for name, report in found:
        _print(name, report, by)


async def _ask(where: Where, which: str | None, query: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    from managedd.cli.client import connected

    async with connected(where.settings()) as daemon:
        chosen = _among((await daemon.get("/managed/status"))["workspaces"], which, "id")
        paths = {
            _name(each): f"/accounts/{each['account_id']}/workspaces/{each['id']}/managed/usage" for each in chosen
        }
        if "month" in query:
            _check_begun(query["month"], (await daemon.get(next(iter(paths.values()))))["month"])
        return [(name, await daemon.get(path, **query)) for name, path in paths.items()]


async def _ask_of_all(where: Where, which: str | None, query: dict[str, str]) -> dict[str, Any]:
    from managedd.cli.client import connected

    path = "/managed/usage/workspaces"
    async with connected(where.settings()) as daemon:
        if "month" in query:
            _check_begun(query["month"], (await daemon.get(path))["month"])
        report: dict[str, Any] = await daemon.get(path, **query)
        return {**report, "workspaces": _among(report["workspaces"], which, "workspace_id")}


def _among(known: list[dict[str, Any]], which: str | None, id_name: str) -> list[dict[str, Any]]:
    """Those that are meant by a handle, account/handle or id; all for None."""
    chosen = [each for each in known if which in {None, each[id_name], each["handle"], _name(each)}]
    if not chosen:
        names = ", ".join(harmless(_name(each)) for each in known)
        raise ManagedError(ErrorCode.NOT_FOUND, f"there is no workspace {which!r}; workspaces: {names}")
    return chosen


def _check_begun(month: str, present: str) -> None:
    if month > present:
        raise ManagedError(
            ErrorCode.CONFIG, f"--month: {month} has not begun; allowed: months up to the present one, {present}"
        )


def _name(workspace: dict[str, Any]) -> str:
    return f"{workspace['account']}/{workspace['handle']}"


def _print(name: str, report: dict[str, Any], by: str) -> None:
    limit = report["limit_minutes"]
    print(f"{harmless(name)}, {report['month']} ({report['time_zone']}): plan {harmless(report['plan'])}")
    print(
        f"used      {human_minutes(report['used_minutes'])} of {'unlimited' if limit is None else human_minutes(limit)}, "
        f"{human_minutes(report['running_minutes'])} of it by runs under way"
    )
    if limit is not None:
        over = f", {human_minutes(report['overrun_minutes'])} over" if report["overrun_minutes"] else ""
        print(
            f"remaining {human_minutes(report['remaining_minutes'])}{over}; renewed {report['resets'][:16].replace('T', ' ')} UTC"
        )
    if report["by"]:
        shares = [(share["name"], human_minutes(share["minutes"]), str(share["executions"])) for share in report["by"]]
        print_table("", (by, "compute time", "executions"), shares)


def _print_all(report: dict[str, Any]) -> None:
    print(f"{report['month']} ({report['time_zone']}); renewed {report['resets'][:16].replace('T', ' ')} UTC")
    rows = [
        (
            _name(each),
            each["plan"],
            human_minutes(each["used_minutes"]),
            "unlimited" if each["limit_minutes"] is None else human_minutes(each["limit_minutes"]),
        )
        for each in report["workspaces"]
    ]
    print_table("", ("workspace", "plan", "compute time", "of"), rows)
