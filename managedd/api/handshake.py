"""Who is at the other end of a websocket: Prefect's auth message, or the credential that the upgrade request carried.

Prefect's clients say it in three ways: self-hosted ones in the first message, Cloud's `/events/in` in the header alone, Cloud's other
sockets in the message alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import anyio
import orjson

from managedd.api import json_bounds, rights
from managedd.api.audit import refusals_noted
from managedd.api.auth import authenticate, enter
from managedd.api.context import ANONYMOUS
from managedd.api.key_watch import holders
from managedd.api.sockets import POLICY_VIOLATION, PROTOCOL_ERROR, Closed
from managedd.errors import ManagedError

if TYPE_CHECKING:
    from managedd.api.context import Actor, Context
    from managedd.api.sockets import Socket

HANDSHAKE_SECONDS: Final = 30.0
"""How long a client may take for its first messages."""
_WELCOME: Final = b'{"type":"auth_success"}'


async def admit(ctx: Context, socket: Socket) -> Actor:
    """The actor, who may enter this workspace. Raises Closed with Prefect's code and reason, Gone."""
    known: Actor | None = ctx.actor
    if ctx.actor is ANONYMOUS:
        known = await authenticate(ctx.services, ctx.listener, None, ctx.request.remote)
    by_message = socket.speaks_prefect or known is None
    actor = await _by_message(ctx, socket, known) if by_message else known
    if actor is None:
        raise Closed(POLICY_VIOLATION, "Unauthorized")
    try:
        await enter(ctx.services, actor, ctx.account, ctx.workspace)
        with refusals_noted(replace(ctx, actor=actor)):
            await rights.check(ctx.services, ctx.operation, actor, ctx.path_values)
    except ManagedError as refusal:
        raise Closed(POLICY_VIOLATION, refusal.message) from None
    socket.holders = holders(actor.holder, ctx.workspace)
    socket.admitted.set()
    if by_message:
        await socket.send(_WELCOME)
    return actor


async def _by_message(ctx: Context, socket: Socket, known: Actor | None) -> Actor:
    message = await receive_object(socket)
    if message.get("type") != "auth":
        raise Closed(POLICY_VIOLATION, "Expected 'auth' message")
    token = message.get("token")
    actor = known
    if isinstance(token, str) and token:
        actor = await authenticate(ctx.services, ctx.listener, token, ctx.request.remote)
    if actor is None:
        raise Closed(POLICY_VIOLATION, "Invalid token" if token else "Auth required but no token provided")
    return actor


async def receive_object(socket: Socket) -> dict[str, Any]:
    """The next message, which is a JSON object. Raises Closed, Gone."""
    with anyio.move_on_after(HANDSHAKE_SECONDS) as scope:
        text = await socket.receive_text()
    if scope.cancelled_caught:
        raise Closed(POLICY_VIOLATION, "No message in time")
    if json_bounds.holds_too_much(text):
        raise Closed(POLICY_VIOLATION, json_bounds.TOO_MANY)
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Closed(PROTOCOL_ERROR, "Expected JSON") from None
    if not isinstance(message, dict):
        raise Closed(PROTOCOL_ERROR, "Expected a JSON object")
    return message


async def receive_filter(socket: Socket) -> dict[str, Any]:
    """The filter message of a socket that sends; an auth message that nobody asked for is answered first. Raises Closed, Gone."""
    message = await receive_object(socket)
    if message.get("type") == "auth" and not socket.speaks_prefect:
        await socket.send(_WELCOME)
        message = await receive_object(socket)
    if message.get("type") != "filter":
        raise Closed(PROTOCOL_ERROR, "Expected 'filter' message")
    return message
