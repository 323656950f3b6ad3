"""The key with which the store encrypts what is secret: the host's own business."""

from __future__ import annotations

import anyio

from managedd.api.audit import recorded
from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.bus import Topic
from managedd.clock import iso
from managedd.errors import ManagedError, conflict, invalid
from managedd.store import key_files, sealing, unlocking
from managedd.store.key_files import Found
from managedd.store.rows import Wire
from managedd.wire.secrets import SecretsRotation, SecretsStatus

BUDGET_SECONDS = 10.0
"""So long one request goes on with a rotation; what is left is done by the daemon, or by the next request."""


@operation("GET", "/managed/secrets", tag="Managed", returns=SecretsStatus, scoped=False)
async def read_secrets(ctx: Context) -> Wire:
    """Read which key encrypts what is secret in the store, and whether a rotation is under way."""
    return await _status(ctx)


@operation("POST", "/managed/secrets/rotate", tag="Managed", returns=SecretsStatus, scoped=False)
async def rotate_secrets(ctx: Context, rotation: SecretsRotation) -> Wire:
    """Another key encrypts from now on, and what the old one has encrypted is encrypted anew. 409 when another rotation is under way."""
    db, data_dir = ctx.services.db, ctx.services.settings.store.data_dir
    new = _given(rotation) or await unlocking.unlock_closed(db, data_dir, ctx.services.settings.secrets)
    await unlocking.begin_rotation(db, data_dir, new, noted=lambda change: recorded(ctx, change))
    ctx.services.bus.publish([Topic.SECRETS])
    return await _go_on(ctx)


@operation("POST", "/managed/secrets/reseal", tag="Managed", returns=SecretsStatus, scoped=False)
async def reseal_secrets(ctx: Context) -> Wire:
    """A rotation that is under way goes on, for some seconds."""
    return await _go_on(ctx)


def _given(rotation: SecretsRotation) -> Found | None:
    if rotation.key is None:
        return None
    source = rotation.source or "the key's holder"
    try:
        return Found(key=key_files.parse(rotation.key.encode(), source), source=source)
    except ManagedError as error:
        raise invalid(error.message) from None


async def _go_on(ctx: Context) -> Wire:
    db, settings = ctx.services.db, ctx.services.settings
    await unlocking.unlock_closed(db, settings.store.data_dir, settings.secrets)
    with anyio.move_on_after(BUDGET_SECONDS):
        await unlocking.rotate(db, settings.store.data_dir)
    return await _status(ctx)


async def _status(ctx: Context) -> Wire:
    known = await unlocking.keys(ctx.services.db)
    if known is None:
        raise conflict("The store has no key yet: it gets one when the daemon first starts")
    total = sum(known.envelopes.values())
    return {
        "key_id": known.current.id,
        "source": known.current.source,
        "since": iso(known.current.made_us),
        "envelopes": total,
        "left": total - known.envelopes.get(known.current.id, 0),
        "rotating": bool(known.followed),
        "in_clear": await ctx.read(sealing.left),
    }
