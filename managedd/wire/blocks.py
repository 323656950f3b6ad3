"""Block types, their schemas, and block documents."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from managedd.wire.base import MAX_NAME_CHARS, Body, Id, JsonObject, Name, Row, at_most


def _dashed(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]*", text):
        raise ValueError("only lowercase letters, numbers, and dashes are allowed")
    return text


Slug = Annotated[str, AfterValidator(_dashed), AfterValidator(at_most(MAX_NAME_CHARS, "characters"))]
BlockDocumentName = Annotated[Name, AfterValidator(_dashed)]


class BlockTypeCreate(Body):
    """A block type to create."""

    name: Name
    slug: Slug
    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None


class BlockTypeUpdate(Body):
    """What may change on a block type."""

    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None


class BlockType(Row):
    """A block type."""

    name: Name
    slug: str
    logo_url: str | None = None
    documentation_url: str | None = None
    description: str | None = None
    code_example: str | None = None
    is_protected: bool = False


class BlockSchemaCreate(Body):
    """A block schema to create."""

    fields: JsonObject = Field(default_factory=dict)
    block_type_id: Id
    capabilities: list[str] = Field(default_factory=list)
    version: str = "non-versioned"


class BlockSchema(Row):
    """A block schema: the fields of a block type in one version."""

    checksum: str
    fields: JsonObject = Field(default_factory=dict)
    block_type_id: Id | None
    block_type: BlockType | None = None
    capabilities: list[str] = Field(default_factory=list)
    version: str = "non-versioned"


class BlockDocumentCreate(Body):
    """A block document to create."""

    name: BlockDocumentName | None = None
    data: JsonObject = Field(default_factory=dict)
    block_schema_id: Id
    block_type_id: Id
    is_anonymous: bool = False

    @model_validator(mode="after")
    def _named_or_anonymous(self) -> Self:
        if not self.is_anonymous and not self.name:
            raise ValueError("Names must be provided for block documents.")
        return self


class BlockDocumentUpdate(Body):
    """What may change on a block document."""

    block_schema_id: Id | None = None
    data: JsonObject = Field(default_factory=dict)
    merge_existing_data: bool = True


class BlockDocument(Row):
    """A block document."""

    name: Name | None = None
    data: JsonObject = Field(default_factory=dict)
    block_schema_id: Id
    block_schema: BlockSchema | None = None
    block_type_id: Id
    block_type_name: str | None = None
    block_type: BlockType | None = None
    block_document_references: dict[str, JsonObject] = Field(default_factory=dict)
    is_anonymous: bool = False
