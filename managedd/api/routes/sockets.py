"""Websockets: events in, events and log lines out, and our own log tail."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field, ValidationError

from managedd.api import json_bounds, log_tail, tails
from managedd.api.context import Context
from managedd.api.event_intake import Intake
from managedd.api.handshake import admit, receive_filter
from managedd.api.operation import QUERY, operation
from managedd.api.sockets import PROTOCOL_ERROR, Closed, Socket, serve
from managedd.clock import to_us
from managedd.errors import invalid
from managedd.store import positions
from managedd.wire.base import Id, Int, Timestamp
from managedd.wire.filters.events import EventFilter
from managedd.wire.filters.logs import LogFilter


@operation("WS", "/events/in", tag="Events")
async def events_in(ctx: Context) -> web.WebSocketResponse:
    """Take in events."""

    async def body(socket: Socket) -> None:
        actor = await admit(ctx, socket)
        await Intake(ctx, socket, actor).run()

    return await serve(ctx, body)


@operation("WS", "/events/out", tag="Events")
async def events_out(ctx: Context) -> web.WebSocketResponse:
    """Send the events that a filter admits: recent ones, then those that come."""

    async def body(socket: Socket) -> None:
        await admit(ctx, socket)
        message = await receive_filter(socket)
        try:
            filter_ = EventFilter.model_validate(message.get("filter"))
        except ValidationError as error:
            raise _invalid(error) from None
        await tails.follow_events(ctx, socket, filter_, backfill=bool(message.get("backfill", True)))

    return await serve(ctx, body)


@operation("WS", "/logs/out", tag="Logs")
async def logs_out(ctx: Context) -> web.WebSocketResponse:
    """Send the log records that a filter admits: those since its `after_`, then those that come."""

    async def body(socket: Socket) -> None:
        await admit(ctx, socket)
        message = await receive_filter(socket)
        try:
            filter_ = LogFilter.model_validate(message.get("filter"))
        except ValidationError as error:
            raise _invalid(error) from None
        await tails.follow_logs(ctx, socket, filter_)

    return await serve(ctx, body)


@operation("WS", "/managed/flow_runs/{id}/logs/tail", tag="Managed")
async def tail_flow_run_logs(
    ctx: Context,
    id: Id,
    *,
    after: Annotated[Id | None, QUERY] = None,
    tail: Annotated[Annotated[Int, Field(ge=0)] | None, QUERY] = None,
    since: Annotated[Timestamp | None, QUERY] = None,
) -> web.WebSocketResponse:
    """Send a run's log until it has ended: messages of JSON lines, of which each has the cursor to resume behind it.

    The first message has the `type` `start` and says where it begins; those after it have a line of the log in each of their lines
    (`log`); the last one is the run's final state (`state`). `after` resumes behind a cursor; else it begins with the last `tail` lines,
    with what is dated `since` or later (of both, the later), or with the first line.
    """
    behind = None if after is None else await _position(ctx, after)

    async def body(socket: Socket) -> None:
        await admit(ctx, socket)
        since_us = None if since is None else to_us(since)
        await log_tail.run(ctx, socket, id, after=behind, lines=tail, since_us=since_us)

    return await serve(ctx, body)


async def _position(ctx: Context, cursor: str) -> int:
    """Where in the log store the cursor is. Raises ManagedError(INVALID)."""
    position = await ctx.services.logs.look(lambda tx: positions.of(tx, "logs").position(cursor))
    if position is None:
        raise invalid(f"after: {cursor} is no cursor that this daemon has given; without one, the log begins anew")
    return position


def _invalid(error: ValidationError) -> Closed:
    problem = json_bounds.first(error)
    return Closed(PROTOCOL_ERROR, f"Invalid filter: {'.'.join(map(str, problem['loc']))}: {problem['msg']}")
