"""Parameters: placeholders, schemas as Prefect's clients write them, and schemas that mean harm."""

from __future__ import annotations

import http.server
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from managedd.errors import ErrorCode, ManagedError
from managedd.orchestration.parameters import HydrationContext, check_parameters, hydrate
from managedd.orchestration.schemas import Failure, check_schema, first_error

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA: dict[str, Any] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "count": {"title": "count", "position": 0, "type": "integer", "minimum": 1},
        "name": {"title": "name", "position": 1, "type": "string", "default": "a"},
        "note": {"title": "note", "position": 2, "type": "string"},
        "pair": {"title": "pair", "position": 3, "type": "array", "items": [{"type": "string"}, {"type": "integer"}]},
        "person": {"title": "person", "position": 4, "allOf": [{"$ref": "#/definitions/Person"}]},
        "secret": {"title": "secret", "position": 5, "allOf": [{"$ref": "#/definitions/Secret"}]},
    },
    "required": ["count"],
    "definitions": {
        "Person": {
            "title": "Person",
            "type": "object",
            "properties": {"first": {"type": "string"}, "age": {"type": "integer"}},
            "required": ["first"],
        },
        "Secret": {
            "title": "Secret",
            "type": "object",
            "properties": {"value": {"type": "string"}},
            "required": ["value"],
            "block_type_slug": "secret",
        },
    },
}


class TestSchema:
    @pytest.mark.parametrize(
        "parameters",
        [
            {"count": 1},
            {"count": 1, "extra": True},
            {"count": 1, "note": None},
            {"count": 1, "pair": ["a", 1]},
            {"count": 1, "person": {"first": "Ada", "age": None}},
            {"count": 1, "secret": {"value": "x"}},
            {"count": 1, "secret": {"$ref": "7f2a7f5e-7f0e-4b1e-9d1e-0a5d1c1b2a3d"}},
            {"count": 1, "secret": {"$ref": {"block_document_id": "7f2a7f5e-7f0e-4b1e-9d1e-0a5d1c1b2a3d"}}},
        ],
    )
    def test_what_fits(self, parameters: dict[str, Any]) -> None:
        assert first_error(parameters, SCHEMA) is None
        check_parameters(parameters, SCHEMA)

    @pytest.mark.parametrize(
        ("parameters", "field", "reason"),
        [
            ({"count": "x"}, "count", "'x' is not of type 'integer'"),
            ({"count": 0}, "count", "0 is less than the minimum of 1"),
            ({}, None, "'count' is a required property"),
            ({"count": 1, "name": None}, "name", "None is not of type 'string'"),
            ({"count": 1, "pair": ["a", "b"]}, "pair[1]", "'b' is not of type 'integer'"),
            ({"count": 1, "person": {"age": 3}}, "person", "'first' is a required property"),
            ({"count": 1, "person": {"first": 3}}, "person.first", "3 is not of type 'string'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, parameters: dict[str, Any], field: str | None, reason: str) -> None:
        assert first_error(parameters, SCHEMA) == Failure(field=field, reason=reason)

    def test_the_clients_own_words(self) -> None:
        with pytest.raises(ManagedError) as caught:
            check_parameters({"count": "x"}, SCHEMA)
        assert caught.value.code is ErrorCode.CONFLICT
        assert caught.value.message == (
            "Error creating flow run: Validation failed for field 'count'. Failure reason: 'x' is not of type 'integer'"
        )
        with pytest.raises(ManagedError) as caught:
            check_parameters({}, SCHEMA, doing="Error updating deployment")
        assert caught.value.message == (
            "Error updating deployment: Validation failed. Failure reason: 'count' is a required property"
        )

    def test_layers_may_leave_out_what_is_required(self) -> None:
        assert first_error({"person": {}}, SCHEMA, ignore_required=True) is None
        named = {"properties": {"required": {"type": "integer"}}, "required": ["required"]}
        assert first_error({}, named, ignore_required=True) is None
        assert first_error({"required": "x"}, named, ignore_required=True) is not None

    def test_null_for_a_field_with_a_default_only_where_asked_for(self) -> None:
        values = {"count": 1, "name": None}
        assert first_error(values, SCHEMA, allow_none_with_default=True) is None
        plain = {"properties": {"note": {"type": "string"}}}
        assert first_error({"note": None}, plain) is None
        assert first_error({"note": None}, plain, preprocess=False) is not None

    def test_the_given_schema_is_not_changed(self) -> None:
        before = repr(SCHEMA)
        first_error({"count": 1}, SCHEMA)
        assert repr(SCHEMA) == before

    @pytest.mark.parametrize(
        ("schema", "good", "bad"),
        [
            ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1}, {"b": 1}),
            ({"additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "x"}),
            ({"patternProperties": {"^i_": {"type": "integer"}}}, {"i_a": 1, "x": "y"}, {"i_a": "x"}),
            ({"patternProperties": {"^i_": {}}, "additionalProperties": False}, {"i_a": 1}, {"x": 1}),
            (
                {"properties": {"a": {"uniqueItems": True}}},
                {"a": [1, True, "1", {"x": 1}]},
                {"a": [{"x": 1}, {"x": 1.0}]},
            ),
            ({"properties": {"a": {"pattern": "^[a-z]+(-[a-z]+)*$"}}}, {"a": "ab-cd"}, {"a": "ab-"}),
            ({"properties": {"a": {"pattern": "b"}}}, {"a": "abc"}, {"a": "xyz"}),
            ({"properties": {"a": {"enum": [1, "b"]}}}, {"a": "b"}, {"a": 2}),
            ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 2}, {"b": 2}),
            ({"$defs": {"I": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/I"}}}, {"a": 2}, {"a": "b"}),
        ],
    )
    def test_keywords(self, schema: dict[str, Any], good: dict[str, Any], bad: dict[str, Any]) -> None:
        assert first_error(good, schema) is None
        assert first_error(bad, schema) is not None

    def test_a_reason_is_of_bounded_length(self) -> None:
        failure = first_error({"count": "x" * 100_000}, SCHEMA)
        assert failure is not None
        assert len(failure.reason) == 1000

    @pytest.mark.parametrize("schema", [{"type": "objekt"}, {"properties": []}, {"required": "count"}])
    def test_a_schema_that_is_none_is_refused(self, schema: dict[str, Any]) -> None:
        with pytest.raises(ManagedError, match="Invalid schema: ") as caught:
            check_schema(schema)
        assert caught.value.code is ErrorCode.INVALID
        with pytest.raises(ManagedError, match="Invalid schema: "):
            check_parameters({"count": 1}, schema)

    @pytest.mark.parametrize("schema", [None, [], "x"])
    def test_no_schema_to_enforce_is_a_conflict(self, schema: Any) -> None:
        with pytest.raises(ManagedError, match="has none") as caught:
            check_parameters({}, schema)
        assert caught.value.code is ErrorCode.CONFLICT


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"properties": value}
    return value


def doubling(depth: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"a{level}": {"anyOf": [{"$ref": f"#/definitions/a{level + 1}"}] * 2} for level in range(depth)
    }
    definitions[f"a{depth}"] = {"type": "string"}
    return {"definitions": definitions, "properties": {"x": {"$ref": "#/definitions/a0"}}}


class TestHostileSchema:
    @pytest.mark.parametrize(
        ("values", "schema"),
        [
            ({"x": 1}, {"$ref": "#"}),
            ({"x": 1}, {"properties": {"x": {"anyOf": [{"$ref": "#/properties/x"}, {"$ref": "#/properties/x"}]}}}),
            ({"x": 1}, doubling(40)),
            ({"x": [0] * 100_000}, {"properties": {"x": {"items": {"enum": list(range(1, 5000))}}}}),
            ({"x": 1}, {"allOf": [{"required": ["x"] * 500}] * 500}),
            ({}, nested(900)),
            (nested(900), SCHEMA),
            ({}, {"required": [{"a": 1} for _ in range(20_000)]}),
        ],
    )
    def test_work_is_bounded(self, values: dict[str, Any], schema: dict[str, Any]) -> None:
        began = time.process_time()
        try:
            first_error(values, schema)
        except ManagedError as error:
            assert error.code is ErrorCode.INVALID
            assert error.message.startswith("Invalid schema")
            assert len(error.message) < 1100
        assert time.process_time() - began < 20

    @pytest.mark.parametrize(
        ("pattern", "text"),
        [
            ("^(a+)+$", "a" * 5000 + "!"),
            ("(x+x+)+y", "x" * 5000),
            ("^(a|a)*$", "a" * 5000 + "!"),
            ("a*" * 50 + "b", "a" * 5000),
        ],
    )
    def test_patterns_run_in_linear_time(self, pattern: str, text: str) -> None:
        began = time.process_time()
        assert first_error({"x": text}, {"properties": {"x": {"pattern": pattern}}}) is not None
        assert (
            first_error({text: 1}, {"patternProperties": {pattern: False}, "additionalProperties": False}) is not None
        )
        guarded = {"patternProperties": {pattern: False}, "unevaluatedProperties": False}
        assert first_error({text: 1}, guarded) is None
        assert time.process_time() - began < 3

    @pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(", "x{100000}{100000}"])
    def test_patterns_beyond_linear_time_are_left_to_the_flow(self, pattern: str) -> None:
        assert first_error({"x": "b"}, {"properties": {"x": {"pattern": pattern}}}) is None

    def test_many_equal_objects_are_compared_in_linear_time(self) -> None:
        began = time.process_time()
        values = {"x": [{"a": number} for number in range(20_000)]}
        assert first_error(values, {"properties": {"x": {"uniqueItems": True}}}) is None
        assert time.process_time() - began < 5

    def test_nothing_is_fetched(self, listener: tuple[str, list[str]]) -> None:
        address, asked = listener
        for schema in (
            {"$ref": f"{address}/schema.json"},
            {"properties": {"x": {"$ref": f"{address}/schema.json#/definitions/X"}}},
            {"$id": f"{address}/root.json", "properties": {"x": {"$ref": "other.json"}}},
            {"$schema": f"{address}/meta.json", "properties": {"x": {"$dynamicRef": f"{address}/d.json"}}},
        ):
            failure = first_error({"x": 1}, schema)
            assert failure is not None
            assert "Unresolvable" in failure.reason
        with pytest.raises(
            ManagedError, match=r"^Error creating flow run: Validation failed\. Failure reason: "
        ) as caught:
            check_parameters({"x": 1}, {"$ref": f"{address}/schema.json"})
        assert caught.value.code is ErrorCode.CONFLICT
        assert asked == []

    def test_a_reference_into_nowhere_is_a_failure(self) -> None:
        failure = first_error({"x": 1}, {"properties": {"x": {"$ref": "#/definitions/Missing"}}})
        assert failure is not None
        assert failure.field is None


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A server on loopback, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def kind(name: str, **rest: Any) -> dict[str, Any]:
    return {"__prefect_kind": name, **rest}


CONTEXT = HydrationContext(
    variables={"region": "eu", "sizes": {"small": 1}, "template": "{{ who }}", "long": "x" * 5000},
    values={"who": "Ada"},
)


class TestHydration:
    @pytest.mark.parametrize(
        ("value", "result"),
        [
            (5, 5),
            ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}),
            (kind("none", value=kind("json", value="[1]")), [1]),
            (kind("json", value='{"a": [1, 2]}'), {"a": [1, 2]}),
            (kind("json", value=["kept"]), ["kept"]),
            (kind("json", value=kind("workspace_variable", variable_name="sizes")), {"small": 1}),
            (kind("json", value=kind("jinja", template='{"n": "{{ who }}"}')), {"n": "Ada"}),
            (kind("jinja", template="hello {{ who }}"), "hello Ada"),
            (kind("jinja", template=kind("workspace_variable", variable_name="template")), "Ada"),
            (kind("workspace_variable", variable_name="region"), "eu"),
            (kind("workspace_variable", variable_name=kind("json", value='"region"')), "eu"),
            (kind("something_new", value=7), 7),
            (kind("something_new"), None),
            ([kind("json"), 1, kind("workspace_variable")], [1]),
            ({"gone": kind("json"), "kept": 1}, {"kept": 1}),
        ],
    )
    def test_placeholders(self, value: Any, result: Any) -> None:
        given = {"p": value}
        before = repr(given)
        assert hydrate(given, CONTEXT) == {"p": result}
        assert repr(given) == before

    def test_a_parameter_that_is_not_there_yet_is_left_out(self) -> None:
        assert hydrate({"a": kind("json"), "b": 1}, CONTEXT) == {"b": 1}
        assert hydrate(kind("json"), CONTEXT) == {}

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (kind("none"), "Missing 'value' key"),
            (kind("jinja"), "Missing 'template' key"),
            (kind("json", value="{"), "Invalid JSON: "),
            (kind("json", value="NaN"), "NaN is not a JSON value"),
            (kind("json", value="[" * 100_000), "Invalid JSON: "),
            (kind("jinja", template="{{ x"), "Invalid jinja: "),
            (kind("jinja", template="{{ 'x' * 10**9 }}"), "Invalid jinja: "),
            (kind("jinja", template=5), "Invalid jinja: "),
            (kind("workspace_variable", variable_name="nope"), "Variable 'nope' not found in workspace."),
            (kind("workspace_variable", variable_name=["nope"]), "not found in workspace."),
            (kind("workspace_variable", variable_name=kind("nope")), "not found in workspace."),
        ],
    )
    def test_what_cannot_be_replaced_is_a_bad_request(self, value: Any, says: str) -> None:
        with pytest.raises(ManagedError) as caught:
            hydrate({"p": value}, CONTEXT)
        assert caught.value.code is ErrorCode.BAD_REQUEST
        assert caught.value.message.startswith("Error hydrating flow run parameters: ")
        assert says in caught.value.message
        with pytest.raises(ManagedError, match="Error hydrating deployment parameters: "):
            hydrate({"p": value}, CONTEXT, what="deployment")

    def test_depth_and_growth_are_bounded(self) -> None:
        deep: Any = 1
        for _ in range(200):
            deep = kind("none", value=deep)
        with pytest.raises(ManagedError, match="nested deeper"):
            hydrate({"p": deep}, CONTEXT)
        many = [kind("workspace_variable", variable_name="long")] * 400
        with pytest.raises(ManagedError, match="bring in more than"):
            hydrate({"p": many}, CONTEXT)


def test_a_schema_checked_before_gives_the_same_verdict() -> None:
    check_parameters({"count": 1}, SCHEMA, schema_checked=True)
    with pytest.raises(ManagedError, match="'x' is not of type 'integer'"):
        check_parameters({"count": "x"}, SCHEMA, schema_checked=True)
