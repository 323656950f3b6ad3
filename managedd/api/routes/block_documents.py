"""Block documents: configuration and credentials by name, masked unless asked for in clear."""

from __future__ import annotations

from uuid import UUID

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.rights import shown
from managedd.store import blocks, rows
from managedd.store.resources import BLOCK_DOCUMENT, BLOCK_SCHEMA, BLOCK_TYPE
from managedd.wire.base import Limit, Offset
from managedd.wire.blocks import BlockDocument, BlockDocumentCreate, BlockDocumentUpdate
from managedd.wire.filters.blocks import BlockDocumentFilter, BlockSchemaFilter, BlockTypeFilter
from managedd.wire.sorting import BlockDocumentSort

TAG = "Block documents"
NAMED = BlockDocumentFilter()
"""What no filter means: every document but the anonymous ones."""


@operation("POST", "/block_documents/", tag=TAG, returns=BlockDocument, status=201)
async def create_block_document(ctx: Context, block_document: BlockDocumentCreate) -> rows.Wire:
    """The document exists; the answer masks its secrets. 409 when the block type has one of that name."""
    values = block_document.model_dump()
    return await ctx.write(lambda tx: blocks.document(tx, blocks.create_document(tx, values), include_secrets=False))


@operation("GET", "/block_documents/{id}", tag=TAG, returns=BlockDocument)
async def read_block_document_by_id(ctx: Context, id: UUID, include_secrets: bool = False) -> rows.Wire:
    """Get a document by id; secrets are masked unless they are asked for."""
    show = shown(ctx.actor, include_secrets)
    return await ctx.read(lambda tx: blocks.document(tx, id, include_secrets=show))


@operation("POST", "/block_documents/filter", tag=TAG, returns=list[BlockDocument])
async def read_block_documents(
    ctx: Context,
    *,
    limit: Limit = None,
    block_documents: BlockDocumentFilter | None = None,
    block_types: BlockTypeFilter | None = None,
    block_schemas: BlockSchemaFilter | None = None,
    include_secrets: bool = False,
    sort: BlockDocumentSort | None = BlockDocumentSort.NAME_ASC,
    offset: Offset = 0,
) -> list[rows.Wire]:
    """Query for documents; secrets are masked unless they are asked for."""
    filters = [(BLOCK_DOCUMENT, block_documents or NAMED), (BLOCK_TYPE, block_types), (BLOCK_SCHEMA, block_schemas)]
    order = sort or BlockDocumentSort.NAME_ASC
    show = shown(ctx.actor, include_secrets)
    return await ctx.read(lambda tx: blocks.find_documents(tx, filters, order, limit, offset, include_secrets=show))


@operation("POST", "/block_documents/count", tag=TAG, returns=int)
async def count_block_documents(
    ctx: Context,
    *,
    block_documents: BlockDocumentFilter | None = None,
    block_types: BlockTypeFilter | None = None,
    block_schemas: BlockSchemaFilter | None = None,
) -> int:
    """How many documents the filters admit."""
    filters = [(BLOCK_DOCUMENT, block_documents or NAMED), (BLOCK_TYPE, block_types), (BLOCK_SCHEMA, block_schemas)]
    return await ctx.read(lambda tx: rows.count(tx, BLOCK_DOCUMENT, filters))


@operation("PATCH", "/block_documents/{id}", tag=TAG, status=204)
async def update_block_document_data(ctx: Context, id: UUID, block_document: BlockDocumentUpdate) -> None:
    """The document has the given data, merged into its own unless `merge_existing_data` is false; a mask leaves its secret as it is."""
    merge = block_document.merge_existing_data
    given = not merge or "data" in block_document.model_fields_set
    data = block_document.data if given else None
    await ctx.change(
        lambda tx: blocks.update_document(
            tx, str(id), data=data, block_schema_id=block_document.block_schema_id, merge=merge
        ),
        lambda tx: blocks.document(tx, id, include_secrets=False)["data"],
    )


@operation("DELETE", "/block_documents/{id}", tag=TAG, status=204)
async def delete_block_document(ctx: Context, id: UUID) -> None:
    """The document is gone; documents that referred to it read as if they did not."""
    await ctx.write(lambda tx: rows.delete(tx, BLOCK_DOCUMENT, id))
