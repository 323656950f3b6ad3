"""Block types, and their documents by name. Clients register the types that they use; none is built in."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Context
from managedd.api.operation import operation
from managedd.api.rights import shown
from managedd.errors import conflict, forbidden, not_found
from managedd.store import blocks, rows
from managedd.store.resources import BLOCK_DOCUMENT, BLOCK_SCHEMA, BLOCK_TYPE
from managedd.store.transaction import IntegrityFault
from managedd.wire.base import Limit, Offset
from managedd.wire.blocks import BlockDocument, BlockType, BlockTypeCreate, BlockTypeUpdate
from managedd.wire.filters.blocks import (
    BlockDocumentFilter,
    BlockDocumentFilterBlockTypeId,
    BlockSchemaFilter,
    BlockTypeFilter,
)
from managedd.wire.sorting import BlockDocumentSort

TAG = "Block types"


@operation("POST", "/block_types/", tag=TAG, returns=BlockType, status=201)
async def create_block_type(ctx: Context, block_type: BlockTypeCreate) -> rows.Wire:
    """The block type exists. 409 when there is one of that slug."""
    if block_type.name.lower().startswith("prefect"):
        raise forbidden("Block type names beginning with 'Prefect' are reserved.")

    def body(tx: Any) -> rows.Wire:
        try:
            return rows.get(tx, BLOCK_TYPE, rows.insert(tx, BLOCK_TYPE, block_type.model_dump()))
        except IntegrityFault:
            raise conflict(f'Block type with name "{block_type.name}" already exists') from None

    return await ctx.write(body)


@operation("GET", "/block_types/{id}", tag=TAG, returns=BlockType)
async def read_block_type_by_id(ctx: Context, id: UUID) -> rows.Wire:
    """Get a block type by id."""
    return await ctx.look(lambda tx: rows.get(tx, BLOCK_TYPE, id))


@operation("GET", "/block_types/slug/{slug}", tag=TAG, returns=BlockType)
async def read_block_type_by_slug(ctx: Context, slug: str) -> rows.Wire:
    """Get a block type by slug."""
    found = await ctx.look(lambda tx: rows.by(tx, BLOCK_TYPE, slug=slug))
    if found is None:
        raise not_found(BLOCK_TYPE.label, slug)
    return found


@operation("POST", "/block_types/filter", tag=TAG, returns=list[BlockType])
async def read_block_types(
    ctx: Context,
    *,
    block_types: BlockTypeFilter | None = None,
    block_schemas: BlockSchemaFilter | None = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> list[rows.Wire]:
    """Query for block types, by name."""
    filters = [(BLOCK_TYPE, block_types), (BLOCK_SCHEMA, block_schemas)]
    return await ctx.read(lambda tx: rows.find(tx, BLOCK_TYPE, filters, "NAME_ASC", limit, offset))


@operation("PATCH", "/block_types/{id}", tag=TAG, status=204)
async def update_block_type(ctx: Context, id: UUID, block_type: BlockTypeUpdate) -> None:
    """The block type has the given values."""
    changes = block_type.model_dump(exclude_unset=True)
    await ctx.write(lambda tx: rows.patch(tx, BLOCK_TYPE, id, changes))


@operation("DELETE", "/block_types/{id}", tag=TAG, status=204)
async def delete_block_type(ctx: Context, id: UUID) -> None:
    """The block type, its schemas and its documents are gone."""

    def body(tx: Any) -> None:
        if rows.need(tx, BLOCK_TYPE, id=id)["is_protected"]:
            raise forbidden("protected block types cannot be deleted.")
        rows.delete(tx, BLOCK_TYPE, id)

    await ctx.write(body)


@operation("GET", "/block_types/slug/{slug}/block_documents", tag=TAG, returns=list[BlockDocument])
async def read_block_documents_for_block_type(
    ctx: Context, slug: str, include_secrets: bool = False
) -> list[rows.Wire]:
    """The named documents of a block type; secrets are masked unless they are asked for."""
    show = shown(ctx.actor, include_secrets)

    def body(tx: Any) -> list[rows.Wire]:
        block_type = rows.need(tx, BLOCK_TYPE, slug=slug)
        wanted = BlockDocumentFilter(block_type_id=BlockDocumentFilterBlockTypeId(any_=[block_type["id"]]))
        return blocks.find_documents(
            tx, [(BLOCK_DOCUMENT, wanted)], BlockDocumentSort.NAME_ASC, None, 0, include_secrets=show
        )

    return await ctx.read(body)


@operation("GET", "/block_types/slug/{slug}/block_documents/name/{block_document_name}", tag=TAG, returns=BlockDocument)
async def read_block_document_by_name_for_block_type(
    ctx: Context, slug: str, block_document_name: str, include_secrets: bool = False
) -> rows.Wire:
    """Get a document of a block type by name; secrets are masked unless they are asked for."""
    show = shown(ctx.actor, include_secrets)
    return await ctx.read(lambda tx: blocks.named_document(tx, slug, block_document_name, include_secrets=show))


@operation("POST", "/block_types/install_system_block_types", tag=TAG)
async def install_system_block_types(ctx: Context) -> None:
    """Every block type that the server itself needs exists: it needs none."""
