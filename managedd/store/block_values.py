"""Block documents' values in clear, for rendering a run's job: never for an answer to a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from managedd.store import sealed

if TYPE_CHECKING:
    from managedd.store.database import Row, Tx

MAX_DEPTH = 10
"""How deep block documents may stand in one another."""


_SELECT = "SELECT d.id, d.data, e.envelope FROM block_documents AS d LEFT JOIN sealed AS e ON e.kind = 'block_documents' AND e.row_id = d.id "


def by_name(tx: Tx, slug: str, name: str) -> Any | None:
    """The data of the block of that type and name, nested blocks filled in; None when there is none. Raises CannotOpen."""
    row = tx.one(
        _SELECT
        + "JOIN block_types AS t ON t.id = d.block_type_id WHERE t.slug = ? AND d.name = ? AND d.workspace_id = ?",
        (slug, name, tx.workspace),
    )
    return None if row is None else _filled(tx, opened(tx, row), 0)


def by_id(tx: Tx, document_id: str, depth: int = 0) -> Any | None:
    """The data of the block document, nested blocks filled in; None when there is none. Raises CannotOpen."""
    row = tx.one(_SELECT + "WHERE d.id = ? AND d.workspace_id = ?", (document_id, tx.workspace))
    return None if row is None else _filled(tx, opened(tx, row), depth)


def opened(tx: Tx, row: Row) -> dict[str, Any]:
    """The data of a document with its `id`, its `data` and its `envelope`. Raises CannotOpen."""
    # One of an earlier version stands in the row until it is sealed.
    value: dict[str, Any] = (
        orjson.loads(row["data"])
        if row["envelope"] is None
        else sealed.opened(tx, "block_documents", row["id"], row["envelope"])
    )
    return value


def data(tx: Tx, document_id: str, in_row: dict[str, Any]) -> dict[str, Any]:
    """The data of the document whose row holds `in_row`. Raises CannotOpen."""
    found: dict[str, Any] | None = sealed.get(tx, "block_documents", document_id)
    return in_row if found is None else found


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
