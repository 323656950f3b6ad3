"""Managed: our own surface, for the operator and the clients, never for a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field, StringConstraints

from managedd import __version__
from managedd.api import log_tail, log_view
from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.clock import iso
from managedd.model.limits import HostLimits, Needs, effective_slots
from managedd.store import executions, overview, rows, samples
from managedd.store.database import Tx
from managedd.store.resources import FLOW_RUN
from managedd.store.rows import Wire
from managedd.wire.base import Id, Int, NonNegative, Positive
from managedd.wire.logs import LogPart
from managedd.wire.managed import DaemonStatus, ExecutionReport, ExecutionResources, FoundRun

DAY_US = 86_400_000_000

Which = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
SoughtText = Annotated[str, StringConstraints(max_length=1_000)]


@operation("GET", "/managed/status", tag="Managed", returns=DaemonStatus, scoped=False)
async def read_status(ctx: Context) -> Wire:
    """Read what the daemon runs, what waits and why."""
    facts = ctx.services.facts
    engine: dict[str, Any] = facts["engine"]() if "engine" in facts else {}
    readings: dict[str, dict[str, Any]] = facts["readings"]() if "readings" in facts else {}
    host: HostLimits = facts.get("host", HostLimits())

    def look(tx: Tx) -> Wire:
        among = overview.workspaces(tx, ctx.services.zone)
        return {
            "now": iso(tx.now),
            "workspaces": [{**workspace, **_room(workspace["slots"], host, ctx)} for workspace in among],
            "pools": overview.pools(tx, among, engine.get("problem"), ctx.services.zone),
            "running": overview.running(tx, readings),
            "limited": overview.limited(tx, since_us=tx.now - DAY_US),
            "host": _reservations(tx, host),
        }

    store = {"state_bytes": await ctx.services.db.size_bytes(), "logs_bytes": await ctx.services.logs.size_bytes()}
    about = {"version": __version__, "instance_id": facts.get("instance_id"), "url": facts.get("url")}
    return {**about, "engine": engine, **await ctx.read(look), "store": store}


@operation("GET", "/managed/flow_runs", tag="Managed", returns=list[FoundRun], scoped=False)
async def find_flow_runs(ctx: Context, *, which: Which) -> list[Wire]:
    """Find flow runs of every workspace by id, the beginning of an id, or name."""
    return await ctx.read(lambda tx: overview.find_runs(tx, which))


@operation("GET", "/managed/flow_runs/{id}/executions", tag="Managed", returns=list[ExecutionReport])
async def read_flow_run_executions(ctx: Context, id: Id) -> list[Wire]:
    """Read the attempts to run a flow run: limits, moments, how each ended and what shows it."""

    def look(tx: Tx) -> list[Wire]:
        rows.get(tx, FLOW_RUN, id)
        return overview.executions_of(tx, id)

    return await ctx.read(look)


@operation("GET", "/managed/flow_runs/{id}/resources", tag="Managed", returns=list[ExecutionResources])
async def read_flow_run_resources(ctx: Context, id: Id) -> list[Wire]:
    """Read what the attempts to run a flow run used over time: memory and processor time, as was read every few seconds."""

    def look(tx: Tx) -> list[Wire]:
        rows.get(tx, FLOW_RUN, id)
        return samples.of_run(tx, id)

    return await ctx.read(look)


@operation("GET", "/managed/flow_runs/{id}/logs/download", tag="Managed")
async def download_flow_run_logs(
    ctx: Context, id: Id, *, format: Literal["text", "jsonl"] = "text"
) -> web.StreamResponse:
    """Download a run's log as it is now, in the order in which it was stored: lines of text, or a JSON object in each line."""
    return await log_tail.download(ctx, id, format)


@operation("GET", "/managed/flow_runs/{id}/logs/page", tag="Managed", returns=LogPart)
async def read_flow_run_log_page(
    ctx: Context,
    id: Id,
    *,
    level: NonNegative | None = None,
    line: Positive | None = None,
    after: Id | None = None,
    before: Id | None = None,
    text: SoughtText | None = None,
    find_level: NonNegative | None = None,
    limit: Annotated[Int, Field(ge=1, le=log_view.MAX_LINES)] = 200,
    chars: Annotated[Int, Field(ge=1, le=log_view.MAX_CHARS)] = 4_000,
) -> Wire:
    """Read a part of a run's log, in the order in which it was stored.

    It begins with the line of that number, 1 for the first, behind the cursor `after`, or ends before the cursor `before`; with none of
    them it is the log's end. With `level`, only lines of that level or above count. With `text`, `find_level` or both it is around the
    first line behind `after`, or the last one before `before`, whose message has the text, whatever its case, and whose level is at least
    that; when none is among those that one request looks at, `resume` is the cursor to ask with again. Messages are cut after `chars`
    characters.
    """
    asked = log_view.Asked(
        level=level,
        line=line,
        after=after,
        before=before,
        text=text,
        find_level=find_level,
        limit=limit,
        chars=chars,
    )
    return await log_view.part(ctx, id, asked)


def _room(slots: int | None, host: HostLimits, ctx: Context) -> Wire:
    runs = ctx.services.settings.runs
    each = Needs(memory_bytes=runs.memory_limit_bytes, cpus=runs.cpu_limit)
    effective, because = effective_slots(slots, host, each)
    return {"effective_slots": effective, "effective_because": because}


def _reservations(tx: Tx, host: HostLimits) -> Wire:
    reserved = executions.reserved(tx)
    return {
        "memory_bytes": host.memory_bytes,
        "memory_reserved_bytes": reserved.memory_bytes,
        "cpus": host.cpus,
        "cpus_reserved": reserved.cpus,
    }
