"""`managedd status`."""

from __future__ import annotations

from typing import Any

import anyio

from managedd.cli.options import HERE, Json, Where
from managedd.cli.output import duration, harmless, moment, print_json, print_table, size, slots
from managedd.model.amounts import human_minutes


def status(*, where: Where = HERE, json: Json = False) -> None:
    """Show work pools, what waits in their queues and why, and the runs under way.

    Parameters
    ----------
    json
        Print JSON instead of tables.
    """
    found = anyio.run(_ask, where)
    if json:
        print_json(found)
        return
    _print_daemon(found)
    _print_pools(found)
    _print_running(found)
    _print_limited(found)


async def _ask(where: Where) -> dict[str, Any]:
    from managedd.cli.client import connected

    async with connected(where.settings()) as daemon:
        found: dict[str, Any] = await daemon.get("/managed/status")
        return found


def _print_daemon(found: dict[str, Any]) -> None:
    engine, store = found["engine"], found["store"]
    print(f"managedd {found['version']} at {found['url'] or '-'}")
    print(
        f"engine    {harmless(engine.get('problem') or ' '.join(filter(None, (engine.get('driver'), engine.get('version')))))}"
    )
    if engine.get("detail", {}).get("isolation") == "none":
        print(f"          {harmless(engine['detail']['warning'])}")
    enclosure = engine.get("enclosure")
    if enclosure is not None and not enclosure["holds"]:
        print(f"          runs reach this host: {harmless(enclosure['reason'])}")
    print(f"store     state {size(store['state_bytes'])}, logs {size(store['logs_bytes'])}")
    for workspace in found["workspaces"]:
        taken = slots(workspace["slots_taken"], workspace["slots"])
        if workspace["effective_because"] is not None:
            wanted = "unlimited" if workspace["slots"] is None else workspace["slots"]
            taken += f", effective {workspace['effective_slots']} of {wanted}: {workspace['effective_because']}"
        limit = workspace["compute_minutes"]
        used = f"{human_minutes(workspace['compute_minutes_used'])} of {'unlimited' if limit is None else human_minutes(limit)}"
        plan = harmless(workspace["plan"])
        print(f"workspace {harmless(_handle(workspace))}: plan {plan}, slots taken {taken}, compute time {used}")


def _handle(workspace: dict[str, Any]) -> str:
    return f"{workspace['account']}/{workspace['handle']}"


def _print_pools(found: dict[str, Any]) -> None:
    if not found["pools"]:
        print("\nNo work pools. Make one: prefect work-pool create NAME --type prefect:managed")
        return
    handles = {workspace["id"]: _handle(workspace) for workspace in found["workspaces"]}
    several = len(handles) > 1
    rows = []
    for pool in found["pools"]:
        name = f"{handles[pool['workspace_id']]} {pool['name']}" if several else pool["name"]
        for queue in pool["queues"]:
            head = queue["head"]
            rows.append(
                (
                    name,
                    pool["type"],
                    pool["status"],
                    slots(pool["slots_taken"], pool["slots"]),
                    queue["name"] + (" (paused)" if queue["is_paused"] else ""),
                    slots(queue["slots_taken"], queue["slots"]),
                    str(queue["due"]),
                    str(queue["later"]),
                    "-" if head is None else f"{head['name']} ({head['state_name']}): {head['reason']}",
                )
            )
    columns = ("pool", "type", "status", "slots", "queue", "slots", "due", "later", "next run, and why it waits")
    print_table("Work pools", columns, rows)


def is_installing(run: dict[str, Any]) -> bool:
    """Whether its container was started and its packages are not all there yet."""
    return bool(run["phase"] == "RUNNING" and run["state_name"] == "Pending" and not run["installed_at"])


def _print_running(found: dict[str, Any]) -> None:
    if not found["running"]:
        print("\nNothing is running.")
        return
    now = moment(found["now"])
    rows = []
    for run in found["running"]:
        began = moment(run["started_at"] or run["claimed_at"])
        phase = "installing" if is_installing(run) else run["phase"]
        stopping = f", stopping: {run['stop_reason']}" if run["stop_reason"] else ""
        rows.append(
            (
                run["flow_run_name"] or run["flow_run_id"],
                run["flow_run_id"],
                run["work_pool_name"] or "-",
                f"{phase}{stopping}",
                run["state_name"] or "-",
                duration((now - began).total_seconds()),
                f"{size(run['memory_bytes'])} of {size(run['memory_limit_bytes'])}",
                str(run["attempt"]),
                run["image"] or "-",
            )
        )
    columns = ("run", "id", "pool", "phase", "state", "age", "memory", "attempt", "image")
    print_table("Running", columns, rows)


def _print_limited(found: dict[str, Any]) -> None:
    if not found["limited"]:
        return
    now = moment(found["now"])
    rows = [
        (
            run["flow_run_name"] or run["flow_run_id"],
            run["flow_run_id"],
            run["end_cause"],
            f"{duration((now - moment(run['exited_at'])).total_seconds())} ago",
            run["end_message"] or "-",
        )
        for run in found["limited"]
    ]
    print_table("Ended by a limit in the last 24 hours", ("run", "id", "limit", "when", "message"), rows)
