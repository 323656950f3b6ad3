"""Artifacts for whoever looks at them: no more of each than a page has room for, and the whole of one as a file."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import orjson
from anyio import to_thread
from pydantic import Field

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.store import artifacts as artifact_rows
from managedd.store import rows
from managedd.store.resources import ARTIFACT
from managedd.wire.artifacts import ArtifactBeginning
from managedd.wire.filters.artifacts import ArtifactFilter

TAG = "Managed"
Chars = Annotated[int, Field(ge=0, le=262_144)]
Few = Annotated[int, Field(ge=1, le=100)]


@operation("POST", "/managed/artifacts/filter", tag=TAG, returns=list[ArtifactBeginning])
async def read_beginnings(
    ctx: Context, *, artifacts: ArtifactFilter | None = None, most_chars: Chars = 65_536, limit: Few = 30
) -> list[rows.Wire]:
    """Query for artifacts, the last first; of one whose data is longer than `most_chars`, its beginning."""
    filters = [(ARTIFACT, artifacts)]
    return await ctx.read(lambda tx: artifact_rows.beginnings(tx, filters, most_chars=most_chars, limit=limit))


@operation("GET", "/managed/artifacts/{id}/data", tag=TAG)
async def download_artifact(ctx: Context, id: UUID) -> Reply:
    """An artifact's data as a file: a text as it is, anything else as JSON. No browser takes it for more than plain text."""
    name, data = await ctx.read(lambda tx: artifact_rows.data_of(tx, id))
    body = await to_thread.run_sync(_plain, data, limiter=ctx.services.threads)
    said = {
        "Content-Disposition": f'attachment; filename="{name}.txt"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "no-store",
    }
    return Reply(body=body, headers=said, content_type="text/plain")


def _plain(data: str | None) -> bytes:
    if data is None:
        return b""
    if data.startswith('"'):
        return str(orjson.loads(data)).encode("utf-8", "replace")
    return data.encode()
