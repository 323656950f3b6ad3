"""`managedd usage`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import anyio
from cyclopts import Parameter

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import harmless, print_json, print_table
from managedd.errors import ErrorCode, ManagedError


def usage(
    *,
    workspace: Annotated[str | None, Parameter(metavar="HANDLE")] = None,
    month: Annotated[str | None, Parameter(metavar="YYYY-MM")] = None,
    by: Literal["deployment", "day"] = "deployment",
    json: Json = False,
    where: Where = HERE,
) -> None:
    """Show the compute hours that workspaces have used, what is left, and who used it.

    Parameters
    ----------
    workspace
        Only this one, by its handle, account/handle or id.
    month
        A month that has passed; without it, this one.
    by
        Break it down by deployment or by day.
    json
        Print JSON instead of tables.
    """
    found = anyio.run(_ask, where, workspace, {"by": by} | ({} if month is None else {"month": month}))
    if json:
        print_json([report for _, report in found])
        return
    for name, report in found:
        _print(name, report, by)


async def _ask(where: Where, which: str | None, query: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    from managedd.cli.client import connected

    async with connected(where.settings()) as daemon:
        known = (await daemon.get("/managed/status"))["workspaces"]
        chosen = [each for each in known if which in {None, each["id"], each["handle"], _name(each)}]
        if not chosen:
            names = ", ".join(harmless(_name(each)) for each in known)
            raise ManagedError(ErrorCode.NOT_FOUND, f"there is no workspace {which!r}; workspaces: {names}")
        return [
            (
                _name(each),
                await daemon.get(f"/accounts/{each['account_id']}/workspaces/{each['id']}/managed/usage", **query),
            )
            for each in chosen
        ]


def _name(workspace: dict[str, Any]) -> str:
    return f"{workspace['account']}/{workspace['handle']}"


def _print(name: str, report: dict[str, Any], by: str) -> None:
    limit = report["limit_minutes"]
    print(f"{harmless(name)}, {report['month']} ({report['time_zone']}): plan {harmless(report['plan'])}")
    print(
        f"used      {hours(report['used_minutes'])} of {'unlimited' if limit is None else hours(limit)}, "
        f"{hours(report['running_minutes'])} of it by runs under way"
    )
    if limit is not None:
        over = f", {hours(report['overrun_minutes'])} over" if report["overrun_minutes"] else ""
        print(
            f"remaining {hours(report['remaining_minutes'])}{over}; renewed {report['resets'][:16].replace('T', ' ')} UTC"
        )
    if report["by"]:
        shares = [(share["name"], hours(share["minutes"]), str(share["executions"])) for share in report["by"]]
        print_table("", (by, "compute time", "executions"), shares)


def hours(minutes: float) -> str:
    """`2 h 05 min`, `7 min`."""
    whole, rest = divmod(round(minutes), 60)
    return f"{whole} h {rest:02d} min" if whole else f"{rest} min"
