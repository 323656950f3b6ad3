"""Log records."""

from __future__ import annotations

from typing import Annotated

from pydantic import FailFast

from managedd.api.context import Context
from managedd.api.operation import BodyOf, operation
from managedd.errors import forbidden
from managedd.model.log_limits import line_bytes
from managedd.model.logs import LogRecord
from managedd.store import lineage
from managedd.store import logs as stored
from managedd.store.rows import Wire
from managedd.wire.base import Limit, Offset
from managedd.wire.filters.logs import LogFilter
from managedd.wire.logs import Log, LogCreate, plain_records, records_of
from managedd.wire.sorting import LogSort

Records = Annotated[
    list[LogRecord], BodyOf(type=Annotated[list[LogCreate], FailFast()], plain=plain_records, convert=records_of)
]


@operation("POST", "/logs/", tag="Logs", status=201)
async def create_logs(ctx: Context, *, logs: Records) -> None:
    """Keep log records."""
    if ctx.actor.flow_run_id is not None:
        await _check_owner(ctx, ctx.actor.flow_run_id, {log.flow_run_id for log in logs} - {None})
        logs = await _with_own_task_runs(ctx, ctx.actor.flow_run_id, logs)
    if not logs:
        return
    owner, execution, limits = ctx.actor.flow_run_id, ctx.actor.execution_id, ctx.services.log_gates.limits
    if owner is None or execution is None:
        await ctx.write_logs(lambda tx: stored.append(tx, logs))
    else:
        sent = _admitted(ctx, execution, logs)
        await ctx.write_logs(
            lambda tx: stored.append_within(tx, sent, flow_run_id=owner, execution_id=execution, limits=limits)
        )


def _admitted(ctx: Context, execution_id: str, logs: list[LogRecord]) -> stored.Sent:
    """The records of one execution, with how many of them its rate has room for."""
    gate = ctx.services.log_gates.of(execution_id)
    texts_bytes = [line_bytes(log.name, log.message) for log in logs]
    admitted = gate.admit(texts_bytes, int(ctx.services.clock.monotonic() * 1e9))
    return stored.Sent(records=logs, texts_bytes=texts_bytes, admitted=admitted, excess=gate.excess)


async def _check_owner(ctx: Context, owner: str, run_ids: set[str | None]) -> None:
    """Every run is the owner or below it. Raises ManagedError(FORBIDDEN)."""
    others = sorted(run_id for run_id in run_ids if run_id is not None and run_id != owner)
    if not others:
        return
    foreign = await ctx.read(lambda tx: lineage.first_foreign(tx, others, owner))
    if foreign is not None:
        raise forbidden(f"This run may not write to the log of flow run {foreign!r}")


async def _with_own_task_runs(ctx: Context, owner: str, logs: list[LogRecord]) -> list[LogRecord]:
    """The records, without the ids of task runs that belong to others."""
    named = {log.task_run_id for log in logs if log.task_run_id is not None}
    if not named:
        return logs
    foreign = await ctx.look(lambda tx: lineage.foreign_task_runs(tx, named, owner))
    return [log._replace(task_run_id=None) if log.task_run_id in foreign else log for log in logs] if foreign else logs


@operation("POST", "/logs/filter", tag="Logs", returns=list[Log])
async def read_logs(
    ctx: Context,
    *,
    limit: Limit = None,
    offset: Offset = 0,
    logs: LogFilter | None = None,
    sort: LogSort = LogSort.TIMESTAMP_ASC,
) -> list[Wire]:
    """Query for log records."""
    return await ctx.read_logs(lambda tx: stored.find(tx, logs, sort, limit, offset))
