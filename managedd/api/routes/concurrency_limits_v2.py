"""Concurrency Limits V2: limits by name, and taking their slots with or without a lease."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from pydantic import Field

from managedd.api.context import Context, Reply
from managedd.api.operation import EMBED, operation
from managedd.store import concurrency, rows
from managedd.wire.base import Limit, Offset
from managedd.wire.concurrency import (
    ConcurrencyLeaseHolder,
    ConcurrencyLimitV2,
    ConcurrencyLimitV2Create,
    ConcurrencyLimitV2Update,
    ConcurrencyLimitWithLeaseResponse,
    LeaseSeconds,
    LimitNames,
    MinimalConcurrencyLimitResponse,
    SlotMode,
    Slots,
)
from managedd.wire.deployments import GlobalConcurrencyLimitResponse

TAG = "Concurrency Limits V2"
DEFAULT_LEASE_SECONDS = 300.0
Occupancy = Annotated[float, Field(gt=0)]


@operation("POST", "/v2/concurrency_limits/", tag=TAG, returns=ConcurrencyLimitV2, status=201)
async def create_concurrency_limit_v2(ctx: Context, concurrency_limit: ConcurrencyLimitV2Create) -> rows.Wire:
    """The limit exists. 409 when there is one of that name."""
    values = concurrency_limit.model_dump()
    return await ctx.write(lambda tx: concurrency.wire(tx, concurrency.create(tx, values)))


@operation("GET", "/v2/concurrency_limits/{id_or_name}", tag=TAG, returns=GlobalConcurrencyLimitResponse)
async def read_concurrency_limit_v2(ctx: Context, id_or_name: UUID | str) -> rows.Wire:
    """Get a limit by id or name, with its slots as they are now."""
    return await ctx.look(lambda tx: concurrency.wire(tx, concurrency.resolve(tx, str(id_or_name))))


@operation("POST", "/v2/concurrency_limits/filter", tag=TAG, returns=list[GlobalConcurrencyLimitResponse])
async def read_all_concurrency_limits_v2(ctx: Context, *, limit: Limit = None, offset: Offset = 0) -> list[rows.Wire]:
    """Every limit, by name."""
    return await ctx.read(lambda tx: concurrency.find(tx, limit, offset))


@operation("PATCH", "/v2/concurrency_limits/{id_or_name}", tag=TAG, status=204)
async def update_concurrency_limit_v2(
    ctx: Context, id_or_name: UUID | str, concurrency_limit: ConcurrencyLimitV2Update
) -> None:
    """The limit has the given values; setting the active slots ends what leases hold beyond them."""
    changes = concurrency_limit.model_dump(exclude_unset=True)
    await ctx.change(
        lambda tx: concurrency.update(tx, concurrency.resolve(tx, str(id_or_name)), changes),
        lambda tx: concurrency.wire(tx, concurrency.resolve(tx, str(id_or_name))),
    )


@operation("DELETE", "/v2/concurrency_limits/{id_or_name}", tag=TAG, status=204)
async def delete_concurrency_limit_v2(ctx: Context, id_or_name: UUID | str) -> None:
    """The limit is gone."""
    await ctx.write(lambda tx: concurrency.delete(tx, concurrency.resolve(tx, str(id_or_name))))


@operation("POST", "/v2/concurrency_limits/increment", tag=TAG, returns=list[MinimalConcurrencyLimitResponse])
async def bulk_increment_active_slots(
    ctx: Context,
    *,
    slots: Slots,
    names: LimitNames,
    mode: SlotMode = "concurrency",
    create_if_missing: bool | None = None,
) -> list[rows.Wire]:
    """The slots are taken of every limit among the names, until they are given back or decay. 423 when they are not free."""
    got = await ctx.write(lambda tx: concurrency.acquire(tx, names, slots, mode))
    if isinstance(got, concurrency.Refused):
        raise got.error()
    return got.limits


@operation("POST", "/v2/concurrency_limits/increment-with-lease", tag=TAG, returns=ConcurrencyLimitWithLeaseResponse)
async def bulk_increment_active_slots_with_lease(
    ctx: Context,
    *,
    slots: Slots,
    names: LimitNames,
    mode: SlotMode = "concurrency",
    lease_duration: LeaseSeconds = DEFAULT_LEASE_SECONDS,
    holder: ConcurrencyLeaseHolder | None = None,
) -> rows.Wire:
    """The slots are taken for as long as the lease is renewed. 423 when they are not free."""
    who = None if holder is None else holder.model_dump(mode="json")
    got = await ctx.write(
        lambda tx: concurrency.acquire(
            tx, names, slots, mode, lease_seconds=lease_duration, holder=who, execution_id=ctx.actor.execution_id
        )
    )
    if isinstance(got, concurrency.Refused):
        raise got.error()
    return {"lease_id": got.lease_id, "limits": got.limits}


@operation("POST", "/v2/concurrency_limits/decrement", tag=TAG, returns=list[MinimalConcurrencyLimitResponse])
async def bulk_decrement_active_slots(
    ctx: Context,
    *,
    slots: Slots,
    names: LimitNames,
    occupancy_seconds: Occupancy | None = None,
    create_if_missing: bool | None = None,
) -> list[rows.Wire]:
    """The slots that were taken without a lease are free again."""
    return await ctx.write(lambda tx: concurrency.give_back(tx, names, slots, occupancy_seconds))


@operation("POST", "/v2/concurrency_limits/decrement-with-lease", tag=TAG, status=204)
async def bulk_decrement_active_slots_with_lease(ctx: Context, *, lease_id: Annotated[UUID, EMBED]) -> None:
    """The lease's slots are free again; an unknown lease changes nothing."""
    await ctx.write(lambda tx: concurrency.release(tx, str(lease_id)))


@operation("POST", "/v2/concurrency_limits/leases/{lease_id}/renew", tag=TAG, status=204)
async def renew_concurrency_lease(
    ctx: Context, lease_id: UUID, *, lease_duration: Annotated[LeaseSeconds, EMBED] = DEFAULT_LEASE_SECONDS
) -> Reply:
    """The lease lasts that long from now. 410 when it has ended: its slots may be somebody else's."""
    if await ctx.write(lambda tx: concurrency.renew(tx, str(lease_id), lease_duration)):
        return Reply(status=204)
    message = "Lease not found - it may have expired or been revoked"
    return Reply(body={"exception_message": message, "detail": message}, status=410)
