"""Block documents: data that may refer to other documents, read whole, with the secrets masked unless they are asked for.

All of the data is in the row's envelope; the row has none.

A reference `{"$ref": {"block_document_id": …}}` is kept in the data under its key, as Prefect's client sends it; one whose document is gone reads
as if the key were not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from managedd import ids
from managedd.errors import ErrorCode, ManagedError, conflict, not_found
from managedd.model.secrets import masked, unmasked
from managedd.store import block_values, rows, sealed
from managedd.store.resources import BLOCK_DOCUMENT, BLOCK_SCHEMA, BLOCK_TYPE
from managedd.store.transaction import IntegrityFault

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from managedd.store.database import Tx
    from managedd.store.rows import Wire
    from managedd.store.tables import Table

MAX_REFERENCE_DEPTH = 50
MAX_SHOWN_DOCUMENTS = 10_000
"""The most documents, with all that they refer to, in one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What is stored of one document; `references` are the keys of its data that are other documents."""

    id: str
    name: str | None
    is_anonymous: bool
    block_type_id: str
    data: dict[str, Any]
    secret_fields: list[str]
    references: dict[str, str] = field(default_factory=dict)


def create_document(tx: Tx, values: Mapping[str, Any]) -> str:
    """The document exists and its id is returned. Raises ManagedError(NOT_FOUND, CONFLICT, BAD_REQUEST)."""
    _check_schema(tx, values["block_schema_id"], values["block_type_id"])
    plain, references = _split(values["data"])
    document_id = ids.new_id()
    _check_references(tx, document_id, references)
    name = values.get("name") or f"anonymous-{document_id}"
    try:
        rows.insert(tx, BLOCK_DOCUMENT, {**values, "id": document_id, "name": name, "data": {}})
    except IntegrityFault:
        raise conflict("Block already exists") from None
    sealed.put(tx, BLOCK_DOCUMENT.name, document_id, _joined(plain, references))
    return document_id


def update_document(
    tx: Tx, document_id: str, *, data: Mapping[str, Any] | None, block_schema_id: str | None, merge: bool
) -> None:
    """The document has `data` (merged into its own, or in its place) and the schema. A secret that came back masked stays what it is.

    Raises ManagedError(NOT_FOUND, BAD_REQUEST).
    """
    current = rows.need(tx, BLOCK_DOCUMENT, id=document_id)
    changes: dict[str, Any] = {}
    if data is not None:
        schema = rows.need(tx, BLOCK_SCHEMA, id=current["block_schema_id"])
        known = block_values.data(tx, current["id"], current["data"])
        given = unmasked(data, known, _secret_fields(schema["fields"]))
        plain, references = _split({**known, **given} if merge else given)
        _check_references(tx, current["id"], references)
        sealed.put(tx, BLOCK_DOCUMENT.name, current["id"], _joined(plain, references))
        changes["data"] = {}
    if block_schema_id is not None and block_schema_id != current["block_schema_id"]:
        _check_schema(tx, block_schema_id, current["block_type_id"])
        changes["block_schema_id"] = block_schema_id
    rows.patch(tx, BLOCK_DOCUMENT, document_id, changes)


def find_documents(
    tx: Tx, filters: rows.Filters, sort: str, limit: int | None, offset: int, *, include_secrets: bool
) -> list[Wire]:
    """A sorted page of whole documents."""
    return _whole(tx, rows.find(tx, BLOCK_DOCUMENT, filters, sort, limit, offset), include_secrets=include_secrets)


def document(tx: Tx, document_id: object, *, include_secrets: bool) -> Wire:
    """The whole document. Raises ManagedError(NOT_FOUND)."""
    return _whole(tx, [rows.get(tx, BLOCK_DOCUMENT, document_id)], include_secrets=include_secrets)[0]


def named_document(tx: Tx, slug: str, name: str, *, include_secrets: bool) -> Wire:
    """The whole document called `name` of the block type `slug`. Raises ManagedError(NOT_FOUND)."""
    block_type = rows.record(tx, BLOCK_TYPE, slug=slug)
    found = None if block_type is None else rows.by(tx, BLOCK_DOCUMENT, block_type_id=block_type["id"], name=name)
    if found is None:
        raise not_found(BLOCK_DOCUMENT.label, f"{slug}/{name}")
    return _whole(tx, [found], include_secrets=include_secrets)[0]


def register_schema(tx: Tx, values: Mapping[str, Any], nested_slugs: Iterable[str]) -> tuple[Wire, bool]:
    """The schema of that checksum and version, and whether it is new. Raises ManagedError(NOT_FOUND, CONFLICT)."""
    rows.get(tx, BLOCK_TYPE, values["block_type_id"])
    found = schema_by_checksum(tx, values["checksum"], values["version"])
    if found is not None:
        return found, False
    for slug in sorted(nested_slugs):
        if rows.record(tx, BLOCK_TYPE, slug=slug) is None:
            raise conflict(f"Cannot create block schema because block type {slug!r} was not found.")
    schema_id = rows.insert(tx, BLOCK_SCHEMA, values)
    return with_types(tx, [rows.get(tx, BLOCK_SCHEMA, schema_id)])[0], True


def schemas(tx: Tx, filters: rows.Filters, limit: int | None, offset: int) -> list[Wire]:
    """A page of schemas with their types, newest first."""
    return with_types(tx, rows.find(tx, BLOCK_SCHEMA, filters, "CREATED_DESC", limit, offset))


def schema_by_checksum(tx: Tx, checksum: str, version: str | None) -> Wire | None:
    """The newest schema of that checksum, and of that version when one is named, with its type; or None."""
    clause = "block_schemas.checksum = ?" + ("" if version is None else " AND block_schemas.version = ?")
    params = [checksum] if version is None else [checksum, version]
    found = with_types(tx, rows.find(tx, BLOCK_SCHEMA, [], "CREATED_DESC", 1, extra=(clause, params)))
    return found[0] if found else None


def with_types(tx: Tx, page: list[Wire]) -> list[Wire]:
    """The schemas, each with its block type."""
    types = _by_id(tx, BLOCK_TYPE, {schema["block_type_id"] for schema in page})
    return [{**schema, "block_type": types[schema["block_type_id"]]} for schema in page]


def capabilities(tx: Tx) -> list[str]:
    """Every capability that a schema declares."""
    found = tx.all(
        "SELECT DISTINCT value FROM block_schemas, json_each(block_schemas.capabilities) WHERE workspace_id = ? ORDER BY value",
        (tx.workspace,),
    )
    return [row[0] for row in found]


def _secret_fields(fields: Mapping[str, Any]) -> list[str]:
    listed = fields.get("secret_fields")
    return [str(path) for path in listed] if isinstance(listed, list) else []


def _split(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The data without references, and the references. Raises ManagedError(BAD_REQUEST) for one that names no document."""
    plain, references = {}, {}
    for key, value in data.items():
        if not (isinstance(value, dict) and "$ref" in value):
            plain[key] = value
            continue
        target = value["$ref"]
        named = target.get("block_document_id") if isinstance(target, dict) else None
        if not (isinstance(named, str) and ids.is_uuid(named)):
            raise ManagedError(
                ErrorCode.BAD_REQUEST, f"Received block reference without a block_document_id in key {key}"
            )
        references[key] = ids.canonical(named)
    return plain, references


def _joined(plain: Mapping[str, Any], references: Mapping[str, str]) -> dict[str, Any]:
    return {**plain, **{key: {"$ref": {"block_document_id": target}} for key, target in references.items()}}


def _check_schema(tx: Tx, schema_id: object, type_id: object) -> None:
    block_type = rows.need(tx, BLOCK_TYPE, id=type_id)
    if rows.need(tx, BLOCK_SCHEMA, id=schema_id)["block_type_id"] != block_type["id"]:
        raise ManagedError(ErrorCode.BAD_REQUEST, "The block schema must be one of the document's block type.")


def _check_references(tx: Tx, document_id: str, references: Mapping[str, str]) -> None:
    """Every referenced document exists, and none leads back here or too deep. Raises ManagedError(BAD_REQUEST)."""
    known: dict[str, _Document] = {}
    level = set(references.values())
    for _ in range(MAX_REFERENCE_DEPTH):
        if not level:
            return
        if document_id in level:
            raise ManagedError(ErrorCode.BAD_REQUEST, "Cannot create block document reference: it would form a cycle.")
        found = _load(tx, level)
        if not known and len(found) < len(level):
            missing = ", ".join(sorted(level - found.keys()))
            raise ManagedError(ErrorCode.BAD_REQUEST, f"Referenced block document not found: {missing}")
        known |= found
        level = {target for each in found.values() for target in each.references.values()} - known.keys()
    raise ManagedError(
        ErrorCode.BAD_REQUEST, f"Block documents may refer to each other {MAX_REFERENCE_DEPTH} levels deep."
    )


def _load(tx: Tx, document_ids: Iterable[str]) -> dict[str, _Document]:
    found = tx.all(
        """
        SELECT d.id, d.name, d.is_anonymous, d.block_type_id, d.data, e.envelope, json_extract(s.fields, '$.secret_fields') AS secret_fields
        FROM block_documents AS d JOIN block_schemas AS s ON s.id = d.block_schema_id
        LEFT JOIN sealed AS e ON e.kind = 'block_documents' AND e.row_id = d.id
        WHERE d.workspace_id = ? AND d.id IN (SELECT value FROM json_each(?))
        """,
        (tx.workspace, orjson.dumps(list(document_ids)).decode()),
    )
    documents = {}
    for row in found:
        plain, references = _split(block_values.opened(tx, row))
        secrets = None if row["secret_fields"] is None else orjson.loads(row["secret_fields"])
        documents[row["id"]] = _Document(
            id=row["id"],
            name=row["name"],
            is_anonymous=bool(row["is_anonymous"]),
            block_type_id=row["block_type_id"],
            data=plain,
            secret_fields=_secret_fields({"secret_fields": secrets}),
            references=references,
        )
    return documents


def _whole(tx: Tx, page: list[Wire], *, include_secrets: bool) -> list[Wire]:
    known: dict[str, _Document] = {}
    level = {document["id"] for document in page}
    while level:
        found = _load(tx, level)
        known |= found
        level = {target for each in found.values() for target in each.references.values()} - known.keys()
    types = _by_id(tx, BLOCK_TYPE, {each.block_type_id for each in known.values()})
    schema_ids = {document["block_schema_id"] for document in page}
    block_schemas = {
        schema["id"]: schema for schema in with_types(tx, list(_by_id(tx, BLOCK_SCHEMA, schema_ids).values()))
    }
    expansion = _Expansion(known, types, include_secrets=include_secrets)
    made = []
    for document in page:
        data, references = expansion.of(document["id"])
        made.append(
            {
                **document,
                "data": data,
                "block_document_references": references,
                "block_type": types[document["block_type_id"]],
                "block_schema": block_schemas[document["block_schema_id"]],
            }
        )
    return made


class _Expansion:
    """The data of documents with the data of those they refer to in their places, and who these are.

    Writing refuses cycles and deep chains, but each document may be changed after those that refer to it, and a document that is referred to
    twice is shown twice: so reading is bounded too.
    """

    def __init__(self, known: Mapping[str, _Document], types: Mapping[str, Wire], *, include_secrets: bool) -> None:
        self._known = known
        self._types = types
        self._include_secrets = include_secrets
        self._left = MAX_SHOWN_DOCUMENTS

    def of(self, document_id: str, depth: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
        """The data and the references of one document. Raises ManagedError(BAD_REQUEST) when it is too much."""
        self._left -= 1
        if depth > MAX_REFERENCE_DEPTH or self._left < 0:
            raise ManagedError(
                ErrorCode.BAD_REQUEST,
                f"The block document's references go deeper than {MAX_REFERENCE_DEPTH} levels, or there are too many of them.",
            )
        own = self._known[document_id]
        data = dict(own.data) if self._include_secrets else masked(own.data, own.secret_fields)
        references = {}
        for key, target in own.references.items():
            child = self._known.get(target)
            if child is None:
                continue
            data[key], inner = self.of(target, depth + 1)
            references[key] = {
                "block_document": {
                    "id": child.id,
                    "name": child.name,
                    "block_type": self._types[child.block_type_id],
                    "is_anonymous": child.is_anonymous,
                    "block_document_references": inner,
                }
            }
        return data, references


def _by_id(tx: Tx, table: Table, wanted: Iterable[str]) -> dict[str, Wire]:
    listed = list(wanted)
    mine = (f"{table.name}.id IN (SELECT value FROM json_each(?))", [orjson.dumps(listed).decode()])
    return {row["id"]: row for row in rows.find(tx, table, [], "CREATED_DESC", len(listed), extra=mine)}
