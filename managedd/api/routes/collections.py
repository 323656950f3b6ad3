"""Collections: the work pool types that clients may create, in the server's shape and in Cloud's."""

from __future__ import annotations

from typing import Any

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.errors import not_found
from managedd.orchestration.pool_types import worker_metadata

TAG = "Collections"
WORKER_METADATA = "aggregate-worker-metadata"


@operation("GET", "/collections/views/{view}", tag=TAG, returns=dict[str, Any])
async def read_view_content(ctx: Context, view: str) -> dict[str, Any]:
    """The content of a view; `aggregate-worker-metadata` is the only one."""
    if view != WORKER_METADATA:
        raise not_found("View", view)
    return worker_metadata()


@operation("GET", "/collections/work_pool_types", tag=TAG, returns=dict[str, Any])
async def read_work_pool_types(ctx: Context) -> dict[str, Any]:
    """The work pool types, as Cloud's clients ask for them."""
    return worker_metadata()
