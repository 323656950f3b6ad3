"""The rules of JSON Schema: draft 2020-12, in bounded work and without the network.

Four things keep a hostile schema harmless: `$ref` to anywhere outside the document is an error and nothing is fetched; every visited
schema costs steps of a budget; patterns run in a linear-time engine; and uniqueness is a hash set, not a comparison of each with each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
_STEP = "_step"


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


def error_in(values: Any, schema: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where `values` break `schema` worst ("$": as a whole) and how, or None. Raises RecursionError, or an INVALID error."""
    try:
        error = _best_error(schema, values, Registry())
    except Unresolvable as unresolvable:
        return "$", str(unresolvable)
    return None if error is None else (error.json_path, error.message)


def error_in_schema(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with the schema itself, or None. Raises RecursionError, or an INVALID error."""
    error = _best_error(Draft202012Validator.META_SCHEMA, schema, jsonschema_specifications.REGISTRY)
    return None if error is None else str(error.message)


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
