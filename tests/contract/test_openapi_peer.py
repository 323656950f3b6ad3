"""Our OpenAPI document against the one that Prefect's own server generates: operations, parameters, members of bodies, codes of success.

Models are compared in test_wire_peer.py. Differences that are meant stand in waivers.toml with their reasons; a waiver that nothing needs
any more fails too. Operations that only we have are no difference; headers, tags and descriptions don't count.
"""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from managedd.api.openapi import document
from managedd.api.surface import all_operations
from tests.contract.peer_document import peer_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

WAIVERS = Path(__file__).with_name("waivers.toml")
METHODS = ("get", "post", "put", "patch", "delete")
Difference = tuple[str, str]
"""Where (`POST /flows/`), and what."""


@pytest.fixture(scope="module")
def theirs(prefect_venv: Provisioned) -> dict[str, Any]:
    return peer_document(prefect_venv)


@pytest.fixture(scope="module")
def ours() -> dict[str, Any]:
    return document(all_operations())


@pytest.fixture(scope="module")
def waivers() -> dict[str, Any]:
    return tomllib.loads(WAIVERS.read_text())


def operations(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation of a document under its method and path."""
    return {
        f"{method.upper()} {path.removeprefix('/api')}": item[method]
        for path, item in found["paths"].items()
        for method in METHODS
        if method in item
    }


def parameters(operation: dict[str, Any]) -> set[tuple[str, str, bool]]:
    """Place, name, and whether it has to be there; headers aside."""
    return {
        (one["in"], one["name"], one.get("required", False))
        for one in operation.get("parameters", [])
        if one["in"] != "header"
    }


def members(found: dict[str, Any], operation: dict[str, Any]) -> tuple[bool, set[str], set[str]] | None:
    """Whether there has to be a body, what it may have and what it has to have; None: there is no body."""
    body = operation.get("requestBody")
    if body is None:
        return None
    schema = body["content"].get("application/json", {}).get("schema", {})
    while True:
        if "$ref" in schema:
            schema = found["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        elif one := [option for option in schema.get("anyOf", schema.get("allOf", ())) if option.get("type") != "null"]:
            if len(one) > 1:
                return body.get("required", False), {str(option) for option in one}, set()
            [schema] = one
        else:
            return body.get("required", False), set(schema.get("properties", {})), set(schema.get("required", ()))


def successes(operation: dict[str, Any]) -> set[str]:
    return {code for code in operation["responses"] if code.startswith("2")}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Difference]:
    here = operations(ours)
    for where, their in operations(theirs).items():
        our = here.get(where)
        if our is None:
            yield where, "absent"
            continue
        if parameters(our) != parameters(their):
            yield where, "parameters"
        if members(ours, our) != members(theirs, their):
            yield where, "body"
        if successes(our) != successes(their):
            yield where, "success"
        if our["operationId"] != their["operationId"]:
            yield where, "id"


def waived(waivers: dict[str, Any]) -> set[Difference]:
    return {(where, one["what"]) for one in waivers["difference"] for where in one["operations"]}


def test_the_documents_agree(ours: dict[str, Any], theirs: dict[str, Any], waivers: dict[str, Any]) -> None:
    assert sorted(set(differences(ours, theirs)) - waived(waivers)) == []


def test_no_waiver_is_stale(ours: dict[str, Any], theirs: dict[str, Any], waivers: dict[str, Any]) -> None:
    assert sorted(waived(waivers) - set(differences(ours, theirs))) == []
    assert all(one["reason"] for one in waivers["difference"])


def test_every_operation_of_ours_has_an_id_of_its_own(ours: dict[str, Any]) -> None:
    ids = [one["operationId"] for one in operations(ours).values()]
    assert len(ids) == len(set(ids))


def test_the_comparison_sees_a_difference(theirs: dict[str, Any]) -> None:
    assert list(differences(theirs, theirs)) == []
    changed = copy.deepcopy(theirs)
    del changed["paths"]["/flows/"]["post"]
    changed["paths"]["/flow_runs/filter"]["post"]["parameters"] = [{"in": "query", "name": "more"}]
    changed["paths"]["/flows/filter"]["post"]["responses"]["299"] = {}
    del changed["components"]["schemas"]["WorkPoolCreate"]["properties"]["name"]
    assert set(differences(changed, theirs)) == {
        ("POST /flows/", "absent"),
        ("POST /flow_runs/filter", "parameters"),
        ("POST /flows/filter", "success"),
        ("POST /work_pools/", "body"),
    }
