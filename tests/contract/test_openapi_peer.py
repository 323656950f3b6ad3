"""Our OpenAPI document against the one that Prefect's own server publishes: operations, parameters, required members of bodies, success codes.

Differences that are meant stand in waivers.toml with their reasons; a waiver that nothing needs any more fails too, so the file only
shrinks. What the models themselves say is compared in test_wire_peer.py.
"""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from managedd.api.openapi import document
from managedd.api.surface import all_operations
from tests.contract.peer_document import peer_document

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

WAIVERS = Path(__file__).with_name("waivers.toml")
METHODS = ("get", "post", "put", "patch", "delete")
EVERYWHERE = {("header", "x-prefect-api-version")}
"""Parameters of every operation upstream, which the dispatch reads here."""
Document = dict[str, Any]
Differences = dict[str, set[str]]
"""Operation → what is different, in words."""


def operations(of: Document) -> dict[str, Any]:
    """Each operation by method and path; a trailing slash and the names in braces don't count."""
    found: dict[str, Any] = {}
    for path, item in of["paths"].items():
        place = re.sub(r"{[\w:]+}", "{}", path).rstrip("/").removeprefix("/api")
        found |= {f"{method.upper()} {place}": item[method] for method in METHODS if method in item}
    return found


def parameters(operation: Any) -> set[str]:
    """Its query and header parameters with whether they are required; those of the path by number."""
    listed = [one for one in operation.get("parameters", ()) if (one["in"], one["name"]) not in EVERYWHERE]
    named = {
        f"{one['in']} parameter {one['name']}{' (required)' if one.get('required') else ''}"
        for one in listed
        if one["in"] != "path"
    }
    return named | {f"{sum(one['in'] == 'path' for one in listed)} path parameters"}


def required_members(operation: Any, of: Document) -> set[str]:
    """Whether there is a body, and what an object in it must have."""
    body = operation.get("requestBody")
    if body is None:
        return {"no body"}
    schema = next(iter(body["content"].values()))["schema"]
    while True:
        if "$ref" in schema:
            schema = of["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        elif len(schema.get("allOf", ())) == 1:
            schema = schema["allOf"][0]
        else:
            break
    return {f"required member {name}" for name in schema.get("required", ())} | (
        {"a required body"} if body.get("required") else set()
    )


def success_codes(operation: Any) -> set[str]:
    """The codes of its answers below 400."""
    return {f"answer {code}" for code in operation["responses"] if code < "4"}


def traits(operation: Any, of: Document) -> set[str]:
    return parameters(operation) | required_members(operation, of) | success_codes(operation)


def differences(ours: Document, theirs: Document) -> Differences:
    """What is here and not there, and the other way round."""
    here, there = operations(ours), operations(theirs)
    found: Differences = {}
    for name in here.keys() | there.keys():
        if name not in here:
            what = {"is missing here"}
        elif name not in there:
            # Under /managed/ is our own surface, which nobody else has.
            what = set() if " /managed/" in name else {"is unknown there"}
        else:
            mine, peers = traits(here[name], ours), traits(there[name], theirs)
            what = {f"here: {trait}" for trait in mine - peers} | {f"there: {trait}" for trait in peers - mine}
        if what:
            found[name] = what
    return found


@pytest.fixture(scope="module")
def peer(prefect_venv: Provisioned) -> Document:
    return peer_document(prefect_venv)


@pytest.fixture(scope="module")
def found(peer: Document) -> Differences:
    return differences(document(all_operations()), peer)


@pytest.fixture(scope="module")
def waivers() -> list[dict[str, Any]]:
    return list(tomllib.loads(WAIVERS.read_text())["waiver"])


def test_every_operation_is_as_prefect_publishes_it(found: Differences, waivers: list[dict[str, Any]]) -> None:
    waived = {(one["operation"], what) for one in waivers for what in one["differences"]}
    left = [f"{name}: {what}" for name, all_ in found.items() for what in all_ if (name, what) not in waived]
    assert not left, "\n".join(sorted(left))


def test_no_waiver_is_stale(found: Differences, waivers: list[dict[str, Any]]) -> None:
    stale = [
        f"{one['operation']}: {what}"
        for one in waivers
        for what in one["differences"]
        if what not in found.get(one["operation"], ())
    ]
    assert stale == []
    assert all(one["reason"] for one in waivers)
    names = [one["operation"] for one in waivers]
    assert len(names) == len(set(names))


def _without_operation(of: Document) -> None:
    del of["paths"]["/flows/count"]


def _with_operation(of: Document) -> None:
    of["paths"]["/flows/unheard/of"] = of["paths"]["/flows/count"]


def _with_parameter(of: Document) -> None:
    of["paths"]["/flows/count"]["post"]["parameters"] = [{"in": "query", "name": "unheard_of"}]


def _with_member(of: Document) -> None:
    of["components"]["schemas"]["FlowCreate"]["required"] = ["name", "unheard_of"]


def _with_code(of: Document) -> None:
    responses = of["paths"]["/flows/count"]["post"]["responses"]
    responses["204"] = responses.pop("200")


@pytest.mark.parametrize("change", [_without_operation, _with_operation, _with_parameter, _with_member, _with_code])
def test_the_comparison_sees_a_difference(peer: Document, change: Callable[[Document], None]) -> None:
    changed = copy.deepcopy(peer)
    change(changed)
    assert len(differences(changed, peer)) == 1
    assert differences(peer, peer) == {}
