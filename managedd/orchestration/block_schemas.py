"""Checksums of block schemas: the client computes the same and looks its schemas up by them. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DEFINITIONS = "#/definitions/"
_NOT_COUNTED = "secret_fields"


def checksum(fields: Mapping[str, Any]) -> str:
    """`sha256:…` of a schema's fields, as Prefect has it: without lists of secrets and without definitions of other blocks."""
    counted = _without_secrets(fields)
    definitions = counted.pop("definitions", None)
    if isinstance(definitions, dict):
        referenced = set(_references(fields))
        kept = {
            name: definition
            for name, definition in definitions.items()
            if name in referenced
            and isinstance(definition, dict)
            and definition
            and not definition.get("block_type_slug")
        }
        if kept:
            counted["definitions"] = kept
    # Prefect hashes the arguments of a call: positional ones and named ones.
    text = json.dumps([[counted], {}], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def nested_slugs(fields: Mapping[str, Any]) -> set[str]:
    """The slugs of the block types that the schema's fields refer to."""
    references = fields.get("block_schema_references")
    if not isinstance(references, dict):
        return set()
    listed = [each for value in references.values() for each in (value if isinstance(value, list) else [value])]
    return {str(each["block_type_slug"]) for each in listed if isinstance(each, dict) and "block_type_slug" in each}


def _without_secrets(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_secrets(inner) for key, inner in value.items() if key != _NOT_COUNTED}


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference.replace(_DEFINITIONS, "")
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
