"""Which block types, schemas and documents to take."""

from __future__ import annotations

from managedd.wire.filters.leaves import Filter, IdAny, OperatorFilter, TextAny, TextAnyLike, TextLike, Texts


class BlockTypeFilterName(TextLike):
    """On the block type's `name`."""


class BlockTypeFilterSlug(TextAny):
    """On the block type's `slug`."""


class BlockTypeFilter(Filter):
    """Which block types to take."""

    name: BlockTypeFilterName | None = None
    slug: BlockTypeFilterSlug | None = None


class BlockSchemaFilterBlockTypeId(IdAny):
    """On the block schema's `block_type_id`."""


class BlockSchemaFilterCapabilities(Filter):
    """On the block schema's `capabilities`."""

    all_: Texts | None = None


class BlockSchemaFilterId(IdAny):
    """On the block schema's `id`."""


class BlockSchemaFilterVersion(TextAny):
    """On the block schema's `version`."""


class BlockSchemaFilter(OperatorFilter):
    """Which block schemas to take."""

    block_type_id: BlockSchemaFilterBlockTypeId | None = None
    block_capabilities: BlockSchemaFilterCapabilities | None = None
    id: BlockSchemaFilterId | None = None
    version: BlockSchemaFilterVersion | None = None


class BlockDocumentFilterBlockTypeId(IdAny):
    """On the block document's `block_type_id`."""


class BlockDocumentFilterId(IdAny):
    """On the block document's `id`."""


class BlockDocumentFilterIsAnonymous(Filter):
    """On the block document's `is_anonymous`."""

    eq_: bool | None = None


class BlockDocumentFilterName(TextAnyLike):
    """On the block document's `name`."""


class BlockDocumentFilter(OperatorFilter):
    """Which block documents to take."""

    id: BlockDocumentFilterId | None = None
    is_anonymous: BlockDocumentFilterIsAnonymous | None = BlockDocumentFilterIsAnonymous(eq_=False)
    block_type_id: BlockDocumentFilterBlockTypeId | None = None
    name: BlockDocumentFilterName | None = None
