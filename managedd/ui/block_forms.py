"""From a block schema, and a block document whose secrets are masked, to the fields of a form. Pure.

No stored secret ever stands in a form: its field is empty, and left empty it is not sent, or sent as the mask that the API takes for it.
A block that is a part of another one is a choice among the documents of its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from managedd.model.secrets import MASK
from managedd.ui import written
from managedd.ui.controls import Choice, Controls, Kind
from managedd.ui.forms import Field, fields_of

if TYPE_CHECKING:
    from collections.abc import Sequence

AT: Final = "/data"
"""Where the values are in what a form sends."""
ONE_LINE: Final = "One line. A text of several lines, or any other value, goes in as JSON."
STORED: Final = "Stored. It is not shown; left empty, it stays as it is."
_ANNOTATIONS: Final = ("title", "description", "position")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A property whose value is another block document, of one of these types."""

    name: str
    slugs: tuple[str, ...]
    is_nullable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """What the form of a block document is made of."""

    fields: tuple[Field, ...]
    kept: Mapping[str, Any]
    """Masks of the secrets that stand deeper in the data, where a whole object is sent; the fields' values are put into this."""


def references(schema: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The properties that are other documents; those that may be something else besides are no such."""
    reader = Controls(schema)
    found = []
    for name, part in _mapping(schema.get("properties")).items():
        resolved = reader.resolved(part)
        among = resolved.get("anyOf") or resolved.get("oneOf")
        each = [reader.resolved(one) for one in among] if isinstance(among, list) else [resolved]
        kinds = [one.get("block_type_slug") for one in each if one.get("type") != "null"]
        slugs = tuple(dict.fromkeys(kind for kind in kinds if isinstance(kind, str)))
        if kinds and all(isinstance(kind, str) for kind in kinds):
            found.append(Reference(name=str(name), slugs=slugs, is_nullable=len(kinds) < len(each)))
    return tuple(found)


def values_of(document: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The document's own data: its secrets are masks, and what is another document is the reference to it."""
    data = dict(document["data"])
    for name, found in document["block_document_references"].items():
        data[name] = _reference_to(found["block_document"]["id"])
    for name in _secrets(schema):
        if data.get(name) is not None:
            data[name] = MASK
    return data


def form(
    schema: Mapping[str, Any],
    choices: Mapping[str, Sequence[tuple[str, str]]],
    values: Mapping[str, Any] | None = None,
) -> BlockForm:
    """The fields for the data of a document: of a new one, or of one with these `values` (of `values_of`).

    `choices` has the documents that each reference may be, by the property's name, as (id, name).
    """
    is_new = values is None
    given = {} if values is None else dict(values)
    refer = {each.name: each for each in references(schema)}
    fields = []
    for field in fields_of(_prepared(schema, refer), given, at=AT):
        if field.name in refer:
            needed = field.name in _required(schema)
            present = given.get(field.name)
            fields.append(_choice(field, refer[field.name], choices.get(field.name, ()), present, needed=needed))
            continue
        shown = _without_secrets(field, given.get(field.name))
        fields.append(shown if is_new else _sayable(shown))
    return BlockForm(fields=tuple(fields), kept=_kept(fields, given))


def as_json(values: Mapping[str, Any], schema: Mapping[str, Any]) -> Field:
    """All of the data in one field."""
    # What the schema does not list among its secrets would not be taken for a mask.
    listed = {str(path).partition(".")[0] for path in _listed(schema.get("secret_fields"))}
    shown = {name: value for name, value in values.items() if name not in _secrets(schema) or name in listed}
    return Field(
        kind=Kind.JSON, pointer=AT, name="data", label="Data", required=True, value=written.as_json(shown, indent=2) if shown else "{}"
    )  # fmt: skip


def _reference_to(document_id: str) -> dict[str, Any]:
    return {"$ref": {"block_document_id": document_id}}


def _secrets(schema: Mapping[str, Any]) -> set[str]:
    """The properties that are a secret text, or any secret value."""
    reader = Controls(schema)
    listed = set(map(str, _listed(schema.get("secret_fields"))))
    found = set()
    for name, part in _mapping(schema.get("properties")).items():
        resolved = reader.resolved(part)
        among = resolved.get("anyOf") or resolved.get("oneOf")
        each = [reader.resolved(one) for one in among] if isinstance(among, list) else [resolved]
        is_text = any(one.get("type") == "string" for one in each)
        if is_text and (name in listed or any(_is_secret(one) for one in (resolved, *each))):
            found.add(str(name))
    return found


def _prepared(schema: Mapping[str, Any], refer: Mapping[str, Reference]) -> dict[str, Any]:
    """The schema in which a secret is a text in one line, and another document any value."""
    reader, secrets = Controls(schema), _secrets(schema)
    properties = {}
    for name, part in _mapping(schema.get("properties")).items():
        resolved = reader.resolved(part)
        said = {word: resolved[word] for word in _ANNOTATIONS if word in resolved}
        if name in refer:
            properties[name] = said
        elif name in secrets:
            text = {"type": "string", "format": "password"}
            among = resolved.get("anyOf") or resolved.get("oneOf")
            is_nullable = isinstance(among, list) and any(_mapping(one).get("type") == "null" for one in among)
            properties[name] = {**said, "anyOf": [text, {"type": "null"}]} if is_nullable else {**said, **text}
        else:
            properties[name] = part
    return {**schema, "properties": properties}


def _choice(
    field: Field, reference: Reference, among: Sequence[tuple[str, str]], present: Any, *, needed: bool
) -> Field:
    choices = [Choice(value=written.as_json(_reference_to(each)), label=name) for each, name in among]
    value = "" if present is None else written.as_json(present)
    if value and all(each.value != value for each in choices):
        choices.append(Choice(value=value, label=value))
    kinds = " or ".join(reference.slugs)
    there = f"A block of the type {kinds}." if choices else f"There is no block of the type {kinds} yet."
    return replace(
        field,
        kind=Kind.CHOICE,
        choices=tuple(choices),
        value=value,
        help="\n".join(filter(None, (field.help, there))),
        empty="null" if reference.is_nullable else "",
        required=needed and not reference.is_nullable,
        none="None" if reference.is_nullable else "Choose",
    )


def _without_secrets(field: Field, value: Any) -> Field:
    """The field, and those in it, without what is secret; one that is stored says so."""
    if field.kind is Kind.GROUP:
        inner = _mapping(value)
        # The last part of its name is the member's.
        prefix = len(field.name) + 1
        members = tuple(_without_secrets(each, inner.get(each.name[prefix:])) for each in field.fields)
        return replace(field, fields=members)
    if field.kind is not Kind.SECRET:
        return field
    help_ = "\n".join(filter(None, (field.help, ONE_LINE)))
    if value is None:
        return replace(field, value="", empty="null" if field.empty == "null" else "", help=help_)
    return replace(
        field,
        value="",
        empty="",
        required=False,
        hint="stored",
        is_removable=field.empty == "null",
        help="\n".join(filter(None, (field.help, STORED, ONE_LINE))),
    )


def _sayable(field: Field) -> Field:
    """What is left out stays as it is: a field that can't say that it is empty must not be."""
    is_silent = field.value != "" and field.empty == "" and field.kind not in {Kind.BOOLEAN, Kind.GROUP, Kind.SECRET}
    return replace(field, required=True) if is_silent else field


def _kept(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the groups among the fields, the masks of their secrets."""
    found = {}
    for field in fields:
        if field.kind is Kind.GROUP:
            masks = _masks(field, _mapping(given.get(field.name)))
            if masks:
                found[field.name] = masks
    return found


def _masks(group: Field, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in group.fields:
        name = field.name[len(group.name) + 1 :]
        value = values.get(name)
        if field.kind is Kind.GROUP:
            inner = _masks(field, _mapping(value))
            if inner:
                found[name] = inner
        elif field.kind is Kind.SECRET and value == MASK:
            found[name] = MASK
    return found


def _is_secret(part: Mapping[str, Any]) -> bool:
    return part.get("format") == "password" or part.get("writeOnly") is True


def _required(schema: Mapping[str, Any]) -> list[Any]:
    return _listed(schema.get("required"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
