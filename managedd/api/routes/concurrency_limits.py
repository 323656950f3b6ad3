"""Concurrency Limits: Prefect's first kind, by task tag. Each is the limit called `tag:<tag>` of the second kind."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from managedd.api.context import Context, Reply
from managedd.api.operation import EMBED, operation
from managedd.errors import not_found
from managedd.store import concurrency, rows
from managedd.store.concurrency import FOREVER_SECONDS
from managedd.store.resources import CONCURRENCY_LIMIT
from managedd.wire.base import Limit, Offset
from managedd.wire.concurrency import (
    ConcurrencyLimit,
    ConcurrencyLimitCreate,
    LimitNames,
    MinimalConcurrencyLimitResponse,
)

TAG = "Concurrency Limits"
PREFIX = "tag:"


def _wire(tx: Any, limit: rows.Wire) -> rows.Wire:
    holders = [holder["id"] for _, holder in concurrency.holders(tx, limit["id"]) if holder["type"] == "task_run"]
    return {
        "id": limit["id"],
        "created": limit["created"],
        "updated": limit["updated"],
        "tag": limit["name"].removeprefix(PREFIX),
        "concurrency_limit": limit["limit"],
        "active_slots": holders,
    }


def _by_id(tx: Any, id_: UUID) -> rows.Wire:
    limit = concurrency.wire(tx, str(id_))
    if not limit["name"].startswith(PREFIX):
        raise not_found(CONCURRENCY_LIMIT.label, id_)
    return limit


def _by_tag(tx: Any, tag: str) -> rows.Wire:
    return concurrency.wire(tx, concurrency.resolve(tx, PREFIX + tag))


@operation("POST", "/concurrency_limits/", tag=TAG, returns=ConcurrencyLimit)
async def create_concurrency_limit(ctx: Context, concurrency_limit: ConcurrencyLimitCreate) -> Reply:
    """The tag has that limit: a new one (201), or its own with the new number (200)."""
    name, number = PREFIX + concurrency_limit.tag, concurrency_limit.concurrency_limit

    def body(tx: Any) -> Reply:
        found = rows.record(tx, CONCURRENCY_LIMIT, name=name)
        if found is None:
            made = concurrency.create(tx, {"name": name, "limit": number})
            return Reply(body=_wire(tx, concurrency.wire(tx, made)), status=201)
        concurrency.update(tx, found["id"], {"limit": number})
        return Reply(body=_wire(tx, concurrency.wire(tx, found["id"])))

    return await ctx.write(body)


@operation("GET", "/concurrency_limits/{id}", tag=TAG, returns=ConcurrencyLimit)
async def read_concurrency_limit(ctx: Context, id: UUID) -> rows.Wire:
    """Get a tag's limit by id."""
    return await ctx.read(lambda tx: _wire(tx, _by_id(tx, id)))


@operation("GET", "/concurrency_limits/tag/{tag}", tag=TAG, returns=ConcurrencyLimit)
async def read_concurrency_limit_by_tag(ctx: Context, tag: str) -> rows.Wire:
    """Get a tag's limit."""
    return await ctx.read(lambda tx: _wire(tx, _by_tag(tx, tag)))


@operation("POST", "/concurrency_limits/filter", tag=TAG, returns=list[ConcurrencyLimit])
async def read_concurrency_limits(ctx: Context, *, limit: Limit = None, offset: Offset = 0) -> list[rows.Wire]:
    """Every tag's limit, by tag."""
    return await ctx.read(lambda tx: [_wire(tx, each) for each in concurrency.find(tx, limit, offset, prefix=PREFIX)])


@operation("POST", "/concurrency_limits/tag/{tag}/reset", tag=TAG)
async def reset_concurrency_limit_by_tag(
    ctx: Context, tag: str, *, slot_override: Annotated[list[UUID] | None, EMBED] = None
) -> None:
    """Nobody holds a slot of the tag, but the task runs of `slot_override`."""

    def body(tx: Any) -> None:
        limit = _by_tag(tx, tag)
        concurrency.update(tx, limit["id"], {"active_slots": 0})
        concurrency.hold(tx, limit["id"], [str(each) for each in slot_override or []], FOREVER_SECONDS)

    await ctx.write(body)


@operation("DELETE", "/concurrency_limits/{id}", tag=TAG)
async def delete_concurrency_limit(ctx: Context, id: UUID) -> None:
    """The tag has no limit."""
    await ctx.write(lambda tx: concurrency.delete(tx, _by_id(tx, id)["id"]))


@operation("DELETE", "/concurrency_limits/tag/{tag}", tag=TAG)
async def delete_concurrency_limit_by_tag(ctx: Context, tag: str) -> None:
    """The tag has no limit."""
    await ctx.write(lambda tx: concurrency.delete(tx, _by_tag(tx, tag)["id"]))


@operation("POST", "/concurrency_limits/increment", tag=TAG, returns=list[MinimalConcurrencyLimitResponse])
async def increment_concurrency_limits_v1(ctx: Context, *, names: LimitNames, task_run_id: UUID) -> list[rows.Wire]:
    """The task run holds one slot of each of the tags that has a limit, also when it asks twice. 423 when one is full."""
    limited = [PREFIX + tag for tag in names]
    holder = {"type": "task_run", "id": str(task_run_id)}

    def body(tx: Any) -> concurrency.Acquired | concurrency.Refused:
        wanted = [name for name in limited if not concurrency.is_held(tx, name, holder["id"])]
        return concurrency.acquire(
            tx,
            wanted,
            1,
            "concurrency",
            lease_seconds=FOREVER_SECONDS,
            holder=holder,
            execution_id=ctx.actor.execution_id,
            renewable=False,
        )

    got = await ctx.write(body)
    if isinstance(got, concurrency.Refused):
        raise got.error()
    return [{**limit, "name": limit["name"].removeprefix(PREFIX)} for limit in got.limits]


@operation("POST", "/concurrency_limits/decrement", tag=TAG, returns=list[MinimalConcurrencyLimitResponse])
async def decrement_concurrency_limits_v1(ctx: Context, *, names: LimitNames, task_run_id: UUID) -> list[rows.Wire]:
    """The task run holds no slot of the tags any more."""
    limited = [PREFIX + tag for tag in names]
    return await ctx.write(lambda tx: concurrency.let_go(tx, limited, str(task_run_id)))
