"""Fields of a form from JSON schemas: what control each value has, what an empty one means, and that nothing stops them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from managedd.orchestration.pool_types import worker_metadata
from managedd.ui.forms import MAX_DEPTH, MAX_FIELDS, Field, fields_of, template_fields, without_defaults
from managedd.ui.rendering import environment


def only(part: Any, values: dict[str, Any] | None = None, **more: Any) -> Field:
    """The field of a schema with one property, `x`."""
    (field,) = fields_of({"type": "object", "properties": {"x": part}, **more}, values)
    return field


def every(fields: tuple[Field, ...]) -> Iterator[Field]:
    for field in fields:
        yield field
        yield from every(field.fields)


def shown(fields: tuple[Field, ...]) -> str:
    """The fields as HTML."""
    return str(environment().get_template("fields.html").module.fields(fields))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "string"}, "text"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "text"),
        ({"type": ["string", "null"]}, "text"),
        ({"type": "string", "format": "password"}, "secret"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "writeOnly": True}, "secret"),
        ({"type": "string", "format": "date-time"}, "moment"),
        ({"type": "string", "format": "date"}, "day"),
        ({"type": "integer"}, "integer"),
        ({"type": "number"}, "number"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, "number"),
        ({"type": "boolean", "default": False}, "boolean"),
        ({"type": "boolean"}, "choice"),
        ({"enum": ["a", "b"], "type": "string"}, "choice"),
        ({"const": "a"}, "choice"),
        ({"type": "array", "items": {"type": "string"}}, "lines"),
        ({"type": "array", "items": {"type": "integer"}}, "json"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "json"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "pairs"),
        ({"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, {"type": "null"}]}}, "pairs"),
        ({"type": "object", "additionalProperties": {"type": "string", "writeOnly": True}}, "json"),
        ({"type": "object"}, "json"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "scalar"),
        ({"anyOf": [{"type": "string"}, {"type": "array"}]}, "json"),
        ({"$ref": "#/nowhere"}, "json"),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, "json"),
        ({"type": "object", "block_type_slug": "secret", "properties": {"value": {"type": "string"}}}, "json"),
        ({}, "json"),
        (True, "json"),
    ],
)
def test_each_schema_has_the_control_that_suits_it(part: Any, kind: str) -> None:
    assert only(part).kind == kind


def test_a_reference_is_followed_and_what_stands_beside_it_counts_more() -> None:
    definitions = {"Size": {"enum": ["S", "L"], "title": "Size", "description": "How large."}}
    for part in (
        {"$ref": "#/definitions/Size", "title": "Shirt"},
        {"allOf": [{"$ref": "#/definitions/Size"}], "title": "Shirt"},
    ):
        field = only(part, {"x": "L"}, definitions=definitions)

        assert (field.kind, field.label, field.help, field.value) == ("choice", "Shirt", "How large.", '"L"')
        assert [choice.label for choice in field.choices] == ["S", "L"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "integer"}, "{{ prefect.variables.n }}"),
        ({"type": "integer"}, 10**400),
        ({"type": "integer"}, True),
        ({"type": "string"}, {"__prefect_kind": "workspace_variable", "variable_name": "n"}),
        ({"type": "string"}, "a\rb"),
        ({"type": "string"}, "   "),
        ({"type": "string"}, "\0"),
        ({"type": "string", "format": "date-time"}, "2026-11-23T14:00:00.1234"),
        ({"type": "string", "format": "date-time"}, "2026-13-23T14:00:00"),
        ({"enum": ["a"]}, "b"),
        ({"type": "array", "items": {"type": "string"}}, ["a", ""]),
        ({"type": "array", "items": {"type": "string"}}, [" a"]),
        ({"type": "array", "items": {"type": "string"}}, ["a\nb"]),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"A": 1}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"A=B": "1"}),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"__prefect_kind": "jinja", "template": ""}),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "1", "b": "2"}),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, [1]),
    ],
)  # fmt: skip
def test_a_value_that_no_simple_control_gives_back_just_so_stands_as_json(part: Any, value: Any) -> None:
    field = only(part, {"x": value})

    assert field.kind == "json"
    assert json.loads(field.value) == value


@pytest.mark.parametrize(
    ("part", "more", "empty", "required"),
    [
        ({"type": "string"}, {}, "", False),
        ({"type": "string"}, {"required": ["x"]}, "", True),
        ({"type": "string", "default": "a"}, {}, "text", False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, {}, "null", False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": "a"}, {}, "null", False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"required": ["x"]}, "null", False),
        ({"type": "integer", "default": 3}, {}, "", False),
        ({"type": "integer"}, {"required": ["x"]}, "", True),
        ({"type": "array", "items": {"type": "string"}, "default": ["a"]}, {}, "list", False),
        ({"type": "array", "items": {"type": "string"}}, {"required": ["x"]}, "list", False),
        ({"type": "object", "additionalProperties": {"type": "string"}, "default": {"A": "1"}}, {}, "object", False),
        ({"type": "boolean"}, {"required": ["x"]}, "", True),
        ({}, {"required": ["x"]}, "", True),
    ],
)
def test_an_empty_control_means_what_the_schema_can_take(
    part: Any, more: dict[str, Any], empty: str, required: bool
) -> None:
    field = only(part, None, **more)

    assert (field.empty, field.required) == (empty, required)


def test_bounds_of_whole_numbers_are_the_numbers_that_are_allowed() -> None:
    strict = only({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10})
    loose = only({"type": "integer", "minimum": 0.5, "maximum": 9.5})
    wide = only({"type": "number", "minimum": 0, "exclusiveMaximum": 1})

    assert (strict.minimum, strict.maximum) == (1, 9)
    assert (loose.minimum, loose.maximum) == (1, 9)
    assert (wide.minimum, wide.maximum) == (0, None)


def test_members_of_an_object_are_fields_of_their_own_until_it_goes_too_deep() -> None:
    node: dict[str, Any] = {"type": "object", "properties": {"inner": {"$ref": "#/definitions/Node"}}, "required": ["inner"]}  # fmt: skip
    field = only({"$ref": "#/definitions/Node"}, None, definitions={"Node": node}, required=["x"])

    kinds = [each.kind for each in every((field,))]
    assert kinds == ["group"] * MAX_DEPTH + ["json"]
    assert list(every((field,)))[1].name == "x.inner"


def test_an_object_that_may_be_absent_is_given_when_somebody_says_so() -> None:
    part = {"type": "object", "properties": {"a": {"type": "string"}}}
    nullable = {"anyOf": [part, {"type": "null"}]}

    def said(field: Field) -> tuple[str, bool, bool, str]:
        return field.kind, field.is_optional, field.is_given, field.empty

    assert said(only(part)) == ("group", True, False, "")
    assert said(only(part, {"x": {}})) == ("group", False, True, "")
    assert said(only(part, required=["x"])) == ("group", False, True, "")
    assert said(only({**nullable, "default": None})) == ("group", True, False, "null")
    assert said(only(nullable, {"x": {"a": "1"}})) == ("group", True, True, "null")
    (over,) = fields_of({"properties": {"x": nullable}}, {}, is_override=True)
    assert (over.kind, over.help) == ("json", "An object, as JSON: a.")


def test_a_model_that_is_a_part_of_itself_ends_as_json() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/definitions/Node"}, {"type": "null"}], "default": None}},
    }
    (field,) = fields_of({"properties": {"x": {"$ref": "#/definitions/Node"}}, "definitions": {"Node": node}})
    kinds = [each.kind for each in every((field,))]
    assert kinds == ["group"] * MAX_DEPTH + ["json"]


def test_what_stands_for_a_secret_default_is_never_sent() -> None:
    secret = {"type": "string", "format": "password", "writeOnly": True, "default": "**********"}
    config = {"type": "object", "properties": {"token": secret}, "default": {"token": "**********"}}
    (token,) = only(config).fields
    for field in (only(secret), token):
        assert (field.kind, field.value, field.empty) == ("secret", "", "")


def test_parameters_stand_in_the_order_of_the_flow_and_values_without_a_property_come_last() -> None:
    schema = {"properties": {"b": {"position": 1}, "a": {"position": 0}, "c": {}}}

    fields = fields_of(schema, {"a": 1, "more": [1]}, at="/parameters")

    assert [field.pointer for field in fields] == ["/parameters/a", "/parameters/b", "/parameters/c", "/parameters"]
    assert json.loads(fields[-1].value) == {"more": [1]}


def test_over_defaults_nothing_is_required_and_they_stand_beside_the_fields() -> None:
    schema = {
        "required": ["cpu"],
        "properties": {
            "cpu": {"type": "number", "default": 1},
            "fast": {"type": "boolean", "default": True},
            "token": {"type": "string", "format": "password", "default": "tell nobody"},
        },
    }

    cpu, fast, token = fields_of(schema, {"fast": False}, at="/job_variables", is_override=True)

    assert (cpu.value, cpu.hint, cpu.required, cpu.empty) == ("", "1", False, "")
    assert (fast.kind, fast.value, fast.none, fast.hint) == ("choice", "false", "–", "true")
    assert "tell nobody" not in shown((token,))


@pytest.mark.parametrize("collection", [entry for each in worker_metadata().values() for entry in each.values()])
def test_a_template_is_what_it_was_when_the_values_of_its_fields_are_put_back(collection: dict[str, Any]) -> None:
    template = collection["default_base_job_configuration"]
    fields = template_fields(template)

    made = without_defaults(template)
    for name, part in template["variables"]["properties"].items():
        (field,) = [each for each in fields if each.pointer.endswith(f"/{name}/default")]
        if "default" in part:
            assert field.value or field.empty, name
            made["variables"]["properties"][name]["default"] = part["default"]
        else:
            assert (field.value, field.empty) == ("", "")
    assert made == template
    assert all(not field.required for field in fields)


def test_ids_differ_as_pointers_do() -> None:
    names = ["a b", "a-b", "a.b", "a/b", "a~b", "ä", "A", "a", ".20."]
    fields = fields_of({"properties": {name: {} for name in names}})

    assert len({field.id for field in fields}) == len(names)
    assert not any(" " in field.id for field in fields)


def test_a_schema_with_more_fields_than_anybody_would_fill_in_is_one() -> None:
    many = {"properties": {f"p{number}": {} for number in range(MAX_FIELDS + 1)}}

    (field,) = fields_of(many, {"p1": 1}, at="/parameters")

    assert (field.kind, field.pointer, json.loads(field.value)) == ("json", "/parameters", {"p1": 1})


# Anything may be a schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])


def _schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, max_size=3) | JSON,
            "title": JSON,
            "description": JSON,
            "default": JSON,
            "enum": st.lists(JSON, max_size=4) | JSON,
            "const": JSON,
            "format": st.sampled_from(["date-time", "date", "password", "duration", "multiline"]) | JSON,
            "writeOnly": JSON,
            "properties": st.dictionaries(st.text(max_size=5), inner, max_size=4) | JSON,
            "required": st.lists(st.text(max_size=5), max_size=3) | JSON,
            "additionalProperties": inner | JSON,
            "items": inner | JSON,
            "prefixItems": st.lists(inner, max_size=2) | JSON,
            "anyOf": st.lists(inner, max_size=4) | JSON,
            "oneOf": st.lists(inner, max_size=3) | JSON,
            "allOf": st.lists(inner, max_size=2) | JSON,
            "$ref": st.sampled_from(["#", "#/properties/a", "#/definitions/A", "http://elsewhere/", ""]) | JSON,
            "definitions": st.dictionaries(st.sampled_from(["A", "B"]), inner, max_size=2) | JSON,
            "minimum": JSON,
            "maximum": JSON,
            "exclusiveMinimum": JSON,
            "exclusiveMaximum": JSON,
            "position": JSON,
            "block_type_slug": JSON,
        },
    )


SCHEMAS = st.recursive(st.booleans() | JSON, _schemas, max_leaves=6)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)


@settings(max_examples=100, deadline=None)
@given(schema=SCHEMAS, values=OBJECTS, is_override=st.booleans())
def test_any_schema_and_any_values_give_fields(schema: Any, values: dict[str, Any], is_override: bool) -> None:
    fields = fields_of(schema, values, at="/at", is_override=is_override)

    html = shown(fields)
    listed = list(every(fields))
    assert len({field.id for field in listed}) == len(listed)
    assert html.count("data-at=") == len(listed)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    assert listed or properties == {}


@settings(max_examples=50, deadline=None)
@given(schema=SCHEMAS)
def test_any_template_gives_fields(schema: Any) -> None:
    template = {"job_configuration": {}, "variables": schema}

    shown(template_fields(template))
    without_defaults(template)
