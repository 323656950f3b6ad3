"""Following one run's log to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from managedd.api.sockets import while_listening
from managedd.api.tails import IDLE_SECONDS, Tail
from managedd.bus import Topic
from managedd.model.states import TERMINAL, StateType
from managedd.store import executions, rows
from managedd.store import logs as log_store
from managedd.store.resources import FLOW_RUN

if TYPE_CHECKING:
    from managedd.api.context import Context
    from managedd.api.sockets import Socket
    from managedd.store.database import Tx
    from managedd.store.rows import Wire

SETTLE_US: Final = 5_000_000
"""Runs that we don't execute send their last lines after their final state: so long after it they are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Whether a run's log can still grow."""

    state: Wire | None
    done: bool
    wait_seconds: float = IDLE_SECONDS
    """When to look again."""


def ending(tx: Tx, flow_run_id: str) -> Ending:
    """A run has ended when its state is final and its execution, if it had one, is over. Raises ManagedError(NOT_FOUND)."""
    run = rows.get(tx, FLOW_RUN, flow_run_id)
    state: Wire | None = run["state"]
    if state is None or StateType(state["type"]) not in TERMINAL:
        return Ending(state=state, done=False)
    attempts = executions.of_run(tx, flow_run_id)
    if attempts:
        return Ending(state=state, done=executions.live_of_run(tx, flow_run_id) is None)
    settled_us = rows.need(tx, FLOW_RUN, id=flow_run_id)["state_timestamp"] + SETTLE_US
    left_us = max(0, settled_us - tx.now)
    return Ending(state=state, done=left_us == 0, wait_seconds=left_us / 1_000_000)


async def run(ctx: Context, socket: Socket, flow_run_id: str, *, after: int | None, lines: int | None) -> None:
    """The run's lines were sent until it ended, and then its final state. Raises ManagedError(NOT_FOUND)."""
    with ctx.services.bus.subscribe(Topic.LOGS, Topic.RUNS, Topic.EXECUTIONS) as woken:
        await ctx.read(lambda tx: rows.get(tx, FLOW_RUN, flow_run_id))
        cursor = after
        if cursor is None:
            cursor = await ctx.read_logs(lambda tx: log_store.before_last(tx, flow_run_id, lines))
        tail = Tail(
            socket,
            woken,
            lambda at: ctx.read_logs(lambda tx: log_store.run_page_after(tx, flow_run_id, at)),
            cursor,
        )

        async def work() -> None:
            while True:
                # The state first: lines are stored before the state that follows them, so what is read after it is complete.
                now = await ctx.read(lambda tx: ending(tx, flow_run_id))
                await tail.catch_up()
                if now.done:
                    await socket.send(orjson.dumps({"type": "state", "cursor": tail.cursor, "state": now.state}))
                    return
                await tail.news(now.wait_seconds)

        await while_listening(socket, work)
