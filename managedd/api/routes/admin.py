"""Admin: what clients ask before anything else."""

from __future__ import annotations

from typing import Any

from managedd import __version__
from managedd.api.context import Context, Reply
from managedd.api.operation import operation

SPOKEN_VERSION = "3.8.8"
"""The Prefect version whose API this is: clients demand the same major and warn when it is lower than theirs."""


@operation("GET", "/health", tag="Root", returns=bool, public=True, early=True, scoped=False)
async def health_check(ctx: Context) -> bool:
    """The process answers."""
    return True


@operation("GET", "/ready", tag="Root", returns=dict[str, str], public=True, scoped=False)
async def perform_readiness_check(ctx: Context) -> dict[str, str]:
    """The store is open and the loops run."""
    return {"message": "OK"}


@operation("GET", "/hello", tag="Root", returns=str, scoped=False)
async def hello(ctx: Context) -> str:
    """Greets, as Prefect's server does."""
    return "👋"


@operation("GET", "/openapi.json", tag="Root", returns=dict[str, Any], scoped=False)
async def read_openapi_document(ctx: Context) -> Reply:
    """The OpenAPI document of this API."""
    return Reply(body=await ctx.document.read())


@operation("GET", "/admin/version", tag="Admin", returns=str)
async def read_version(ctx: Context) -> str:
    """The Prefect version that the API speaks."""
    return SPOKEN_VERSION


@operation("GET", "/version", tag="Root", returns=str, scoped=False)
async def server_version(ctx: Context) -> str:
    """managedd's own version."""
    return __version__


@operation("GET", "/admin/storage", tag="Admin", returns=dict[str, Any])
async def read_server_default_result_storage(ctx: Context) -> dict[str, Any]:
    """The default result storage block: none, results stay where the flow puts them."""
    return {"default_result_storage_block_id": None}
