"""Block documents' values in clear, for rendering a run's job: never for an answer to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from managedd.store.database import Tx

MAX_DEPTH = 10
"""How deep block documents may stand in one another."""


def by_name(tx: Tx, slug: str, name: str) -> Any | None:
    """The data of the block of that type and name, nested blocks filled in; None when there is none."""
    row = tx.one(
        "SELECT d.data FROM block_documents AS d JOIN block_types AS t ON t.id = d.block_type_id "
        "WHERE t.slug = ? AND d.name = ? AND d.workspace_id = ?",
        (slug, name, tx.workspace),
    )
    return None if row is None else _filled(tx, orjson.loads(row[0]), 0)


def by_id(tx: Tx, document_id: str, depth: int = 0) -> Any | None:
    """The data of the block document, nested blocks filled in; None when there is none."""
    row = tx.one("SELECT data FROM block_documents WHERE id = ? AND workspace_id = ?", (document_id, tx.workspace))
    return None if row is None else _filled(tx, orjson.loads(row[0]), depth)


def _filled(tx: Tx, value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, dict) and "block_document_id" in reference:
            return by_id(tx, str(reference["block_document_id"]), depth + 1)
        return {key: _filled(tx, item, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(tx, item, depth) for item in value]
    return value
