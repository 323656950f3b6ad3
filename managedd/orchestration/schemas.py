"""Checking values against a JSON Schema that a tenant wrote, in bounded work and without the network.

Here are the allowances that Prefect makes for the schemas its clients produce (`_property`, block references); the rules themselves are in
`schema_rules.py`, which is loaded with the first check: not every start has one, and it brings a library of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from managedd.errors import invalid

MAX_REASON_LENGTH = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first thing that is wrong with some values; `field` is None when it is the values as a whole."""

    field: str | None
    reason: str

    def __str__(self) -> str:
        where = "" if self.field is None else f" for field {self.field!r}"
        return f"Validation failed{where}. Failure reason: {self.reason}"


def first_error(
    values: Mapping[str, Any],
    schema: Mapping[str, Any],
    *,
    ignore_required: bool = False,
    allow_none_with_default: bool = False,
    preprocess: bool = True,
    schema_checked: bool = False,
) -> Failure | None:
    """What is wrong with `values`, or None. A schema that can't be evaluated is an INVALID error.

    `ignore_required` is for values that are one layer of several; `allow_none_with_default` lets an optional field be
    null although it has a default, as job variables need it; `schema_checked` says that `check_schema` took this schema.
    """
    from managedd.orchestration import schema_rules  # noqa: PLC0415  # see above

    try:
        prepared = _prepare(schema, allow_none_with_default=allow_none_with_default) if preprocess else dict(schema)
        if ignore_required:
            prepared = _without_required(prepared)
        if not schema_checked:
            check_schema(prepared)
        found = schema_rules.error_in(values, prepared)
    except RecursionError:
        raise invalid("Invalid schema: it refers to itself in a circle, or the values are nested too deeply") from None
    if found is None:
        return None
    path, message = found
    return Failure(field=None if path == "$" else path.replace("$.", ""), reason=_short(message))


def check_schema(schema: Mapping[str, Any]) -> None:
    """Returns when `schema` is a JSON Schema; else an INVALID error says what is wrong with it."""
    from managedd.orchestration import schema_rules  # noqa: PLC0415  # see above

    try:
        message = schema_rules.error_in_schema(schema)
    except RecursionError:
        raise invalid("Invalid schema: nested too deeply") from None
    if message is not None:
        raise invalid(f"Invalid schema: {_short(message)}")


def _short(text: str) -> str:
    return text if len(text) <= MAX_REASON_LENGTH else text[: MAX_REASON_LENGTH - 1] + "…"


# What Prefect's clients write and draft 2020-12 does not mean


def _prepare(schema: Mapping[str, Any], *, allow_none_with_default: bool) -> dict[str, Any]:
    prepared = _with_properties(schema, allow_none_with_default)
    for place in ("definitions", "$defs"):
        definitions = prepared.get(place)
        if isinstance(definitions, Mapping):
            prepared[place] = {
                name: _or_block_reference(_with_properties(definition, allow_none_with_default))
                if isinstance(definition, Mapping)
                else definition
                for name, definition in definitions.items()
            }
    return prepared


def _with_properties(schema: Mapping[str, Any], allow_none_with_default: bool) -> dict[str, Any]:
    changed = dict(schema)
    properties = changed.get("properties")
    if isinstance(properties, Mapping):
        required = changed.get("required")
        names = required if isinstance(required, list) else []
        changed["properties"] = {
            name: _property(part, required=name in names, allow_none_with_default=allow_none_with_default)
            for name, part in properties.items()
        }
    return changed


def _property(part: Any, *, required: bool, allow_none_with_default: bool) -> Any:
    if not isinstance(part, Mapping):
        return part
    changed = _with_properties(part, allow_none_with_default)
    # Optional fields of older models do not say that they take null.
    optional = not required and ("default" not in changed or allow_none_with_default)
    if optional and changed.get("type", "null") != "null" and "anyOf" not in changed:
        changed["anyOf"] = [{"type": changed.pop("type")}, {"type": "null"}]
    # Older drafts describe a tuple by a list under `items`.
    if isinstance(changed.get("items"), list) and changed["items"] and not changed.get("prefixItems"):
        changed["prefixItems"] = changed.pop("items")
    return changed


def _or_block_reference(definition: dict[str, Any]) -> dict[str, Any]:
    """A definition of a block also takes a reference to one."""
    if "block_type_slug" not in definition:
        return definition
    target = {
        "oneOf": [
            {"type": "string", "format": "uuid"},
            {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1},
        ],
    }
    return {"oneOf": [definition, {"type": "object", "properties": {"$ref": target}, "required": ["$ref"]}]}


def _without_required(schema: Any) -> Any:
    """The same without lists of required names, except inside alternatives, which are told apart by them.

    A property that is called `required` stays.
    """
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _without_required(value)
        for key, value in schema.items()
        if not (key == "required" and isinstance(value, list))
    }
