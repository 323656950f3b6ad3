"""Block schemas, found by the checksum that the client computes, and the capabilities that they declare."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from managedd.api.context import Context, Reply
from managedd.api.operation import operation
from managedd.errors import forbidden, not_found
from managedd.orchestration.block_schemas import checksum as checksum_of
from managedd.orchestration.block_schemas import nested_slugs
from managedd.store import blocks, rows
from managedd.store.resources import BLOCK_SCHEMA, BLOCK_TYPE
from managedd.wire.base import Limit, Offset
from managedd.wire.blocks import BlockSchema, BlockSchemaCreate
from managedd.wire.filters.blocks import BlockSchemaFilter

TAG = "Block schemas"


@operation("POST", "/block_schemas/", tag=TAG, returns=BlockSchema, status=201)
async def create_block_schema(ctx: Context, block_schema: BlockSchemaCreate) -> Reply:
    """The block schema exists (201); one with the same checksum and version is answered instead (200)."""
    values = {**block_schema.model_dump(), "checksum": checksum_of(block_schema.fields)}
    slugs = nested_slugs(block_schema.fields)
    made, created = await ctx.write(lambda tx: blocks.register_schema(tx, values, slugs))
    return Reply(body=made, status=201 if created else 200)


@operation("GET", "/block_schemas/{id}", tag=TAG, returns=BlockSchema)
async def read_block_schema_by_id(ctx: Context, id: UUID) -> rows.Wire:
    """Get a block schema by id."""
    return await ctx.look(lambda tx: blocks.with_types(tx, [rows.get(tx, BLOCK_SCHEMA, id)])[0])


@operation("GET", "/block_schemas/checksum/{checksum}", tag=TAG, returns=BlockSchema)
async def read_block_schema_by_checksum(ctx: Context, checksum: str, version: str | None = None) -> rows.Wire:
    """Get the newest block schema of a checksum, and of a version when one is named."""
    found = await ctx.look(lambda tx: blocks.schema_by_checksum(tx, checksum, version))
    if found is None:
        raise not_found(BLOCK_SCHEMA.label, checksum)
    return found


@operation("POST", "/block_schemas/filter", tag=TAG, returns=list[BlockSchema])
async def read_block_schemas(
    ctx: Context, *, block_schemas: BlockSchemaFilter | None = None, limit: Limit = None, offset: Offset = 0
) -> list[rows.Wire]:
    """Query for block schemas, newest first."""
    return await ctx.read(lambda tx: blocks.schemas(tx, [(BLOCK_SCHEMA, block_schemas)], limit, offset))


@operation("DELETE", "/block_schemas/{id}", tag=TAG, status=204)
async def delete_block_schema(ctx: Context, id: UUID) -> None:
    """The block schema and its documents are gone."""

    def body(tx: Any) -> None:
        schema = rows.need(tx, BLOCK_SCHEMA, id=id)
        if rows.need(tx, BLOCK_TYPE, id=schema["block_type_id"])["is_protected"]:
            raise forbidden("Block schemas for protected block types cannot be deleted.")
        rows.delete(tx, BLOCK_SCHEMA, id)

    await ctx.write(body)


@operation("GET", "/block_capabilities/", tag="Block capabilities", returns=list[str])
async def read_available_block_capabilities(ctx: Context) -> list[str]:
    """Every capability that a block schema declares."""
    return await ctx.read(blocks.capabilities)
