"""Past states of flow runs and task runs, and a run's log as a file."""

from __future__ import annotations

import csv
import io
from typing import Final
from urllib.parse import quote

from aiohttp import web

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.clock import from_us
from managedd.store import logs, rows
from managedd.store.resources import FLOW_RUN, FLOW_RUN_STATE, TASK_RUN_STATE
from managedd.store.rows import Wire
from managedd.wire.base import Id
from managedd.wire.states import State

MAX_STATES: Final = 100_000
"""More states than any run has; the list has no pages."""
CSV_LINES: Final = 1_000
"""How many lines are read, and sent, at a time."""


@operation("GET", "/flow_run_states/{id}", tag="Flow Run States", returns=State)
async def read_flow_run_state(ctx: Context, id: Id) -> Wire:
    """Get a flow run state by id."""
    return await ctx.read(lambda tx: rows.get(tx, FLOW_RUN_STATE, id))


@operation("GET", "/flow_run_states/", tag="Flow Run States", returns=list[State])
async def read_flow_run_states(ctx: Context, *, flow_run_id: Id) -> list[Wire]:
    """Every state that a flow run had, the first first."""
    of_run = ("flow_run_states.flow_run_id = ?", [flow_run_id])
    return await ctx.read(lambda tx: rows.find(tx, FLOW_RUN_STATE, [], "TIMESTAMP_ASC", limit=MAX_STATES, extra=of_run))


@operation("GET", "/task_run_states/{id}", tag="Task Run States", returns=State)
async def read_task_run_state(ctx: Context, id: Id) -> Wire:
    """Get a task run state by id."""
    return await ctx.read(lambda tx: rows.get(tx, TASK_RUN_STATE, id))


@operation("GET", "/task_run_states/", tag="Task Run States", returns=list[State])
async def read_task_run_states(ctx: Context, *, task_run_id: Id) -> list[Wire]:
    """Every state that a task run had, the first first."""
    of_run = ("task_run_states.task_run_id = ?", [task_run_id])
    return await ctx.read(lambda tx: rows.find(tx, TASK_RUN_STATE, [], "TIMESTAMP_ASC", limit=MAX_STATES, extra=of_run))


@operation("GET", "/flow_runs/{id}/logs/download", tag="Flow Runs")
async def download_logs(ctx: Context, id: Id) -> web.StreamResponse:
    """A flow run's whole log as a CSV file."""
    run = await ctx.read(lambda tx: rows.get(tx, FLOW_RUN, id))
    name = quote(f"{run['name']}-logs.csv", safe="")
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f"attachment; filename=\"flow-run-logs.csv\"; filename*=UTF-8''{name}",
        }
    )
    await response.prepare(ctx.request)
    await response.write(b"timestamp,level,flow_run_id,task_run_id,message\r\n")
    after = (-1, 0)
    while page := await ctx.read_logs(lambda tx, after=after: logs.lines_after(tx, id, after, CSV_LINES)):  # type: ignore[misc]
        text = io.StringIO()
        csv.writer(text).writerows((from_us(line["timestamp"]), line["level"], *line[3:]) for line in page)
        await response.write(text.getvalue().encode())
        after = (page[-1]["timestamp"], page[-1]["id"])
    await response.write_eof()
    return response
