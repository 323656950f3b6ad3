"""Inputs of paused flow runs: what a flow asks for and what it is given."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.errors import not_found
from managedd.store import rows
from managedd.store.resources import FLOW_RUN, FLOW_RUN_INPUT
from managedd.wire.flow_runs import FlowRunInput

TAG = "Flow Runs"
MAX_INPUTS = 200


@operation("POST", "/flow_runs/{id}/input", tag=TAG, status=201)
async def create_flow_run_input(ctx: Context, id: UUID, *, key: str, value: bytes, sender: str | None = None) -> None:
    """The input exists. 409 when the run has one of that key."""

    def body(tx: Any) -> None:
        rows.get(tx, FLOW_RUN, id)
        rows.insert(tx, FLOW_RUN_INPUT, {"flow_run_id": id, "key": key, "value": value.decode(), "sender": sender})

    await ctx.write(body)


@operation("POST", "/flow_runs/{id}/input/filter", tag=TAG, returns=list[FlowRunInput])
async def filter_flow_run_input(
    ctx: Context, id: UUID, *, prefix: str, limit: int = 1, exclude_keys: list[str] | None = None
) -> list[rows.Wire]:
    """The run's inputs whose key starts with `prefix`, oldest first, without `exclude_keys`."""
    excluded = exclude_keys or []
    marks = ", ".join("?" for _ in excluded)
    clause = (
        "flow_run_inputs.flow_run_id = ? AND substr(flow_run_inputs.key, 1, length(?)) = ?"
        + (f" AND flow_run_inputs.key NOT IN ({marks})" if excluded else ""),
        [str(id), prefix, prefix, *excluded],
    )
    bounded = max(1, min(limit, MAX_INPUTS))
    return await ctx.read(lambda tx: rows.find(tx, FLOW_RUN_INPUT, [], "CREATED_ASC", bounded, extra=clause))


@operation("GET", "/flow_runs/{id}/input/{key}", tag=TAG)
async def read_flow_run_input(ctx: Context, id: UUID, key: str) -> Reply:
    """The value of the run's input called `key`, as it was given."""
    found = await ctx.read(lambda tx: rows.record(tx, FLOW_RUN_INPUT, flow_run_id=id, key=key))
    if found is None:
        raise not_found(FLOW_RUN_INPUT.label, key)
    return Reply(body=found["value"].encode(), content_type="application/json")


@operation("DELETE", "/flow_runs/{id}/input/{key}", tag=TAG, status=204)
async def delete_flow_run_input(ctx: Context, id: UUID, key: str) -> None:
    """The run has no input called `key` any more."""

    def body(tx: Any) -> None:
        found = rows.record(tx, FLOW_RUN_INPUT, flow_run_id=id, key=key)
        if found is None:
            raise not_found(FLOW_RUN_INPUT.label, key)
        rows.delete(tx, FLOW_RUN_INPUT, found["id"])

    await ctx.write(body)
