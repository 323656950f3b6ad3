"""Workers of hybrid pools.

The worker's websocket (`/work_pools/{name}/workers/connect`) is not served: it gets a 404 and the worker sends heartbeats instead, which
carry the same news.
"""

from __future__ import annotations

from typing import Any

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.errors import ErrorCode, ManagedError
from managedd.store import rows
from managedd.store import work_pools as pool_rows
from managedd.store import workers as worker_rows
from managedd.wire.base import JsonObject, Limit, Offset, Positive
from managedd.wire.filters.workers import WorkerFilter
from managedd.wire.workers import WorkerResponse

TAG = "Work Pools"


@operation("POST", "/work_pools/{work_pool_name}/workers/heartbeat", tag=TAG, status=204)
async def worker_heartbeat(
    ctx: Context,
    work_pool_name: str,
    *,
    name: str,
    heartbeat_interval_seconds: Positive | None = None,
    metadata: JsonObject | None = None,
    return_id: bool = False,
) -> Reply:
    """The pool has heard of the worker just now. With `return_id`, as Cloud's clients ask, the worker's id is answered (200)."""

    def body(tx: Any) -> str:
        pool = pool_rows.named(tx, work_pool_name)
        return worker_rows.heartbeat(
            tx, pool["id"], name, interval_seconds=heartbeat_interval_seconds, metadata=metadata
        )

    worker_id = await ctx.write(body)
    return Reply(body=worker_id.encode(), content_type="text/plain") if return_id else Reply(status=204)


@operation("POST", "/work_pools/{work_pool_name}/workers/filter", tag=TAG, returns=list[WorkerResponse])
async def read_workers(
    ctx: Context,
    work_pool_name: str,
    *,
    workers: WorkerFilter | None = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> list[rows.Wire]:
    """The pool's workers, last heard of first."""
    return await ctx.read(
        lambda tx: worker_rows.find(tx, pool_rows.named(tx, work_pool_name)["id"], workers, limit, offset)
    )


@operation("DELETE", "/work_pools/{work_pool_name}/workers/{name}", tag=TAG, status=204)
async def delete_worker(ctx: Context, work_pool_name: str, name: str) -> None:
    """The pool knows no such worker any more."""
    await ctx.write(lambda tx: worker_rows.delete(tx, pool_rows.named(tx, work_pool_name)["id"], name))


@operation("WS", "/work_pools/{work_pool_name}/workers/connect", tag=TAG)
async def worker_channel_connect(ctx: Context, work_pool_name: str) -> None:
    """404: the worker falls back to heartbeats."""
    raise ManagedError(ErrorCode.NOT_FOUND, "Not Found")
