"""Events that come in over a websocket: stored in batches, and in Prefect's protocol a pong says that all before the ping are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from aiohttp import WSMsgType
from pydantic import TypeAdapter, ValidationError

from managedd.api import json_bounds
from managedd.api.sockets import Gone
from managedd.errors import ManagedError
from managedd.model.log_limits import told_enough
from managedd.model.logs import OUR_NAME, LogRecord
from managedd.observe import get_log
from managedd.orchestration import events
from managedd.store import logs
from managedd.wire.events import Event as WireEvent

if TYPE_CHECKING:
    from aiohttp import WSMessage

    from managedd.api.context import Actor, Context
    from managedd.api.sockets import Socket
    from managedd.model.events import Event

log = get_log("events")

BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 4 * 1024 * 1024
IDLE_SECONDS: Final = 0.05
"""A batch is stored when its sender pauses for so long."""
LINGER_SECONDS: Final = 0.25
"""And at the latest so long after its first event."""


async def receive(ctx: Context, actor: Actor, batch: list[Event]) -> events.Received | None:
    """The events are stored; of a run's, those that it may tell and has room for, and its log says once that it has no more. None: all of them."""
    run, execution = actor.flow_run_id, actor.execution_id
    if run is None or execution is None:
        await ctx.write(lambda tx: events.receive(tx, batch))
        return None
    limit = ctx.services.settings.runs.events_max_bytes
    received = await ctx.write(
        lambda tx: events.receive_from_run(tx, batch, flow_run_id=run, execution_id=execution, max_bytes=limit)
    )
    if received.is_first_excess:
        line = LogRecord(OUR_NAME, 30, told_enough(limit or 0), ctx.services.clock.now_us(), run)
        await ctx.write_logs(lambda tx: logs.append(tx, [line]))
    return received


class Intake:
    """What one socket sent and is not stored yet. Memory is bounded: nothing is received while a batch is being stored."""

    def __init__(self, ctx: Context, socket: Socket, actor: Actor) -> None:
        self._ctx = ctx
        self._socket = socket
        self._actor = actor
        self._adapter = TypeAdapter(WireEvent)
        self._batch: list[Event] = []
        self._bytes = 0
        self._refused = 0
        self._foreign = 0
        self._begun = 0.0

    async def run(self) -> None:
        """Receives until the client goes or the daemon stops; whatever was received is stored first."""
        try:
            while True:
                message = await self._next()
                if message is None or message.type is WSMsgType.PING:
                    await self.store()
                    if message is not None:
                        await self._socket.pong(message.data)
                else:
                    self._take(message)
                    if len(self._batch) >= BATCH_EVENTS or self._bytes >= BATCH_BYTES:
                        await self.store()
        except Gone:
            pass
        finally:
            with anyio.CancelScope(shield=True):
                await self._drain()
                await self.store()
            if self._refused > 1:
                log.warning("events.refused", count=self._refused)
            if self._foreign:
                log.warning("events.foreign", count=self._foreign, flow_run_id=self._actor.flow_run_id)

    async def _next(self) -> WSMessage | None:
        """The next frame, or None when it is time to store the batch. Raises Gone."""
        if not self._batch:
            return await self._socket.receive()
        left = self._begun + LINGER_SECONDS - self._ctx.services.clock.monotonic()
        if left <= 0:
            return None
        with anyio.move_on_after(min(IDLE_SECONDS, left)):
            return await self._socket.receive()
        return None

    async def _drain(self) -> None:
        """The frames that had arrived are taken: none of them is waited for."""
        with anyio.move_on_after(0):
            try:
                while True:
                    message = await self._socket.receive()
                    if message.type is not WSMsgType.PING:
                        self._take(message)
            except Gone:
                pass

    def _take(self, message: WSMessage) -> None:
        if json_bounds.holds_too_much(message.data):
            self._refuse([], json_bounds.TOO_MANY)
            return
        try:
            event = events.from_wire(self._adapter.validate_json(message.data))
        except ValidationError as error:
            problem = json_bounds.first(error)
            self._refuse(problem["loc"], problem["msg"])
            return
        except ManagedError as error:
            self._refuse([], error.message)
            return
        if not self._batch:
            self._begun = self._ctx.services.clock.monotonic()
        self._batch.append(event)
        self._bytes += len(message.data)

    def _refuse(self, where: list[int | str], reason: str) -> None:
        # Its sender can't mend it: closing the socket would only make it send the same event again, with all that follow.
        self._refused += 1
        if self._refused == 1:
            log.warning("event.refused", where=where, reason=reason)

    async def store(self) -> None:
        """The batch is stored, and empty."""
        if not self._batch:
            return
        received = await receive(self._ctx, self._actor, self._batch)
        if received is not None:
            # What is left out counts as received: its sender would only send it again.
            self._foreign += received.foreign
        self._batch, self._bytes = [], 0
