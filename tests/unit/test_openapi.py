"""The document: made from the declarations, valid, with FastAPI's names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from managedd.api.openapi import document
from managedd.api.surface import all_operations
from tests.unit.test_operation import FOUND

if TYPE_CHECKING:
    from managedd.api.operation import Operation


@pytest.fixture(scope="module")
def served() -> list[Operation]:
    return all_operations()


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(FOUND.values())


def test_it_is_valid(made: dict[str, Any], served: list[Operation]) -> None:
    OpenAPIV31SpecValidator(made).validate()
    OpenAPIV31SpecValidator(document(served)).validate()


def test_ids_are_made_by_fastapis_rule_and_are_one_each(served: list[Operation]) -> None:
    found = []
    for path, methods in document(served)["paths"].items():
        for method, operation in methods.items():
            name = operation["summary"].lower().replace(" ", "_")
            assert operation["operationId"] == re.sub(r"\W", "_", f"{name}{path}") + f"_{method}"
            found.append(operation["operationId"])
    assert len(set(found)) == len(found)


def test_websockets_have_no_place_in_it(served: list[Operation]) -> None:
    assert any(operation.method == "WS" for operation in served)
    assert not any("ws" in methods for methods in document(served)["paths"].values())


def test_parameters_are_where_they_are_with_bounds_and_defaults(made: dict[str, Any]) -> None:
    parameters = {each["name"]: each for each in made["paths"]["/things/{id}/parts/{part}"]["get"]["parameters"]}
    assert (parameters["id"]["in"], parameters["id"]["required"]) == ("path", True)
    assert parameters["id"]["schema"]["format"] == "uuid"
    assert parameters["size"] == {
        "name": "size",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 0, "maximum": 200, "default": 7},
    }
    assert "page-token" in parameters
    assert "default" not in parameters["kinds"]["schema"]


def test_one_body_is_its_model_and_several_members_are_one_of_their_own(made: dict[str, Any]) -> None:
    def body(path: str) -> Any:
        return made["paths"][path]["post"]["requestBody"]

    def reference(path: str) -> str:
        return str(body(path)["content"]["application/json"]["schema"]["$ref"])

    assert reference("/things/") == "#/components/schemas/Thing"
    assert body("/things/")["required"] is True
    assert reference("/things/filter") == "#/components/schemas/Body_read_things_things_filter_post"
    assert "required" not in body("/things/filter")
    members = made["components"]["schemas"]["Body_read_things_things_filter_post"]
    assert set(members["properties"]) == {"sort", "limit", "offset", "thing"}
    assert members["properties"]["sort"]["default"] == "ID_DESC"
    assert "default" not in members["properties"]["limit"]
    assert "default" not in members["properties"]["thing"]


def test_answers_have_their_status_and_what_can_be_invalid_has_422(made: dict[str, Any]) -> None:
    assert set(made["paths"]["/things/"]["post"]["responses"]) == {"201", "422"}


def test_nothing_in_it_points_nowhere(served: list[Operation]) -> None:
    whole = document(served)

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return here.union(*(references(each) for each in value.values()))
        return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()

    known = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
    assert references(whole) <= known
