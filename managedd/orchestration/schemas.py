"""Checking values against a JSON Schema that a tenant wrote, in bounded work and without the network.

The rules are draft 2020-12 with the allowances that Prefect makes for the schemas its clients produce (`_allow_null`,
`_tuple_items`, block references). Four things keep a hostile schema harmless: `$ref` to anywhere outside the document
is an error and nothing is fetched; every visited schema costs steps of a budget; patterns run in a linear-time engine;
and uniqueness is a hash set, not a comparison of each with each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_specifications  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import create
from pydantic_core import SchemaError as PatternError
from pydantic_core import SchemaValidator, core_schema
from referencing import Registry
from referencing.exceptions import Unresolvable

from managedd.errors import invalid

MAX_STEPS = 200_000
_BASE_STEPS = 20_000
_STEPS_PER_VALUE = 20
MAX_REASON_LENGTH = 1_000
_STEP = "_step"


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
    try:
        prepared = _prepare(schema, allow_none_with_default=allow_none_with_default) if preprocess else dict(schema)
        if ignore_required:
            prepared = _without_required(prepared)
        if not schema_checked:
            check_schema(prepared)
        error = _best_error(prepared, values, Registry())
    except Unresolvable as unresolvable:
        return Failure(field=None, reason=_short(str(unresolvable)))
    except RecursionError:
        raise invalid("Invalid schema: it refers to itself in a circle, or the values are nested too deeply") from None
    if error is None:
        return None
    path = error.json_path
    return Failure(field=None if path == "$" else path.replace("$.", ""), reason=_short(error.message))


def check_schema(schema: Mapping[str, Any]) -> None:
    """Returns when `schema` is a JSON Schema; else an INVALID error says what is wrong with it."""
    try:
        error = _best_error(Draft202012Validator.META_SCHEMA, schema, jsonschema_specifications.REGISTRY)
    except RecursionError:
        raise invalid("Invalid schema: nested too deeply") from None
    if error is not None:
        raise invalid(f"Invalid schema: {_short(error.message)}")


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


# The validator


class _Budget(FormatChecker):
    """What one validation may still spend, and its compiled patterns.

    jsonschema hands its format checker to every validator it derives, so this is where state of one run can live;
    formats themselves are not checked, as in Prefect.
    """

    def __init__(self, steps: int, *, patterned: bool) -> None:
        super().__init__(formats=())
        self.left = float(steps)
        self.patterned = patterned
        self.patterns: dict[str, SchemaValidator | None] = {}

    def spend(self, cost: float) -> None:
        self.left -= cost
        if self.left < 0:
            raise invalid("Invalid schema: checking these values against it takes too many steps")

    def matches(self, pattern: str, text: str) -> bool:
        """Whether `pattern` is found in `text`; also true for a pattern with look-around or back-references.

        Those can't run in linear time; the flow's own model checks them inside the run.
        """
        if pattern not in self.patterns:
            try:
                compiled = SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
            except PatternError:
                compiled = None
            self.patterns[pattern] = compiled
        validator = self.patterns[pattern]
        return validator is None or validator.isinstance_python(text)


def _best_error(schema: Any, instance: Any, registry: Registry[Any]) -> ValidationError | None:
    steps = min(MAX_STEPS, _BASE_STEPS + _STEPS_PER_VALUE * _count(instance))
    budget = _Budget(steps, patterned=_mentions(schema, "patternProperties"))
    validator = _VALIDATOR(schema, registry=registry, format_checker=budget)
    error: ValidationError | None = best_match(validator.iter_errors(instance))
    return error


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + sum(_count(part) for part in value.values())
    if isinstance(value, list):
        return 1 + sum(_count(part) for part in value)
    return 1


def _mentions(schema: Any, keyword: str) -> bool:
    if isinstance(schema, Mapping):
        return keyword in schema or any(_mentions(part, keyword) for part in schema.values())
    return isinstance(schema, list) and any(_mentions(part, keyword) for part in schema)


Errors = Iterator[ValidationError]


def _step(validator: Any, _keyword: Any, instance: Any, schema: Any) -> Errors:
    """Pays for one visit: a step, and a tenth for each entry of the schema's own lists and of the value."""
    entries = sum(len(part) for part in schema.values() if isinstance(part, dict | list))
    if isinstance(instance, dict | list):
        entries += len(instance)
    elif isinstance(instance, str):
        entries += len(instance) // 100
    validator.format_checker.spend(1 + entries / 10)
    return iter(())


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Errors:
    if isinstance(instance, str) and not validator.format_checker.matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, _schema: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    for pattern, part in patterns.items():
        validator.format_checker.spend(len(instance) / 10)
        for key, value in instance.items():
            if validator.format_checker.matches(pattern, key):
                yield from validator.descend(value, part, path=key, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Errors:
    if not isinstance(instance, dict):
        return
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    validator.format_checker.spend(len(instance) * len(patterns) / 10)
    extras = [
        key
        for key in instance
        if key not in known and not any(validator.format_checker.matches(pattern, key) for pattern in patterns)
    ]
    if isinstance(allowed, Mapping):
        for key in extras:
            yield from validator.descend(instance[key], allowed, path=key)
    elif allowed is False and extras:
        names = ", ".join(map(repr, sorted(extras)))
        verb = "was" if len(extras) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({names} {verb} unexpected)")


def _unevaluated_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Errors:
    # Together with patternProperties the library would run tenants' patterns in the backtracking engine.
    if not validator.format_checker.patterned:
        yield from Draft202012Validator.VALIDATORS["unevaluatedProperties"](validator, allowed, instance, schema)


def _unique_items(_validator: Any, wanted: Any, instance: Any, _schema: Any) -> Errors:
    if wanted is True and isinstance(instance, list):
        seen = {json.dumps(_normal(item), sort_keys=True) for item in instance}
        if len(seen) < len(instance):
            yield ValidationError(f"{instance!r} has non-unique elements")


def _normal(item: Any) -> Any:
    """Equal JSON values become equal texts: 1 and 1.0 are one number, 1 and true are not."""
    if isinstance(item, float) and item.is_integer():
        return int(item)
    if isinstance(item, dict):
        return {key: _normal(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_normal(value) for value in item]
    return item


def _keywords(schema: Any) -> list[tuple[str, Any]]:
    return [(_STEP, None), *schema.items()]


_VALIDATOR = create(
    meta_schema=Draft202012Validator.META_SCHEMA,
    validators={
        **{name: check for name, check in Draft202012Validator.VALIDATORS.items() if name != "format"},
        _STEP: _step,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "unevaluatedProperties": _unevaluated_properties,
        "uniqueItems": _unique_items,
    },
    # No `version`: with one, the library would take this validator for everyone's draft 2020-12.
    type_checker=Draft202012Validator.TYPE_CHECKER,
    id_of=Draft202012Validator.ID_OF,  # type: ignore[arg-type]  # may be None, whatever the stub of create says
    applicable_validators=_keywords,
)
