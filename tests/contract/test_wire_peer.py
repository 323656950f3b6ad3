"""Our wire models against the schemas that Prefect's own server publishes: names, required keys, defaults, types.

What is compared, after this normalisation: titles, descriptions and examples don't count; a reference to an enumeration or to a plain type
stands for what it refers to, a reference to a model for the model's name (without `-Input` or `-Output`); unions are sets, and a union with
"anything" is anything; no default and the default null are one; a constant is an enumeration of one.
Differences that are meant stand in wire_waivers.toml with their reasons; a waiver that nothing needs any more fails too.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import managedd.wire
from managedd.wire.base import Model
from tests.contract.peer_document import peer_document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

WAIVERS = Path(__file__).with_name("wire_waivers.toml")
SILENT = {"title", "description", "examples", "default", "deprecated"}
ANYTHING: dict[str, Any] = {}
Difference = tuple[str, str, str]


def wire_models() -> dict[str, type[Model]]:
    """Every public model under managedd.wire, by its name."""
    for module in pkgutil.walk_packages(managedd.wire.__path__, "managedd.wire."):
        importlib.import_module(module.name)

    def below(model: type[Model]) -> Iterator[type[Model]]:
        for child in model.__subclasses__():
            yield child
            yield from below(child)

    return {model.__name__: model for model in below(Model) if not model.__name__.startswith("_")}


def plain(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema in the normal form that the module's docstring tells."""
    if schema is True or schema == {}:
        return ANYTHING
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        target = definitions[name]
        if "properties" in target:
            return {"model": name.removesuffix("-Input").removesuffix("-Output")}
        return plain(target, definitions)
    kept = {key: value for key, value in schema.items() if key not in SILENT}
    for word in ("anyOf", "oneOf"):
        if word in kept:
            return union([plain(one, definitions) for one in kept[word]])
    if not kept:
        return ANYTHING
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if "enum" in kept:
        return {"enum": sorted(kept["enum"])}
    if kept.get("type") == "object":
        values = kept.pop("additionalProperties", True)
        kept["values"] = ANYTHING if values is True else plain(values, definitions)
    if "items" in kept:
        kept["items"] = plain(kept["items"], definitions)
    if "prefixItems" in kept:
        kept["prefixItems"] = [plain(one, definitions) for one in kept["prefixItems"]]
    return kept


def union(members: list[Any]) -> Any:
    """The set of members; unions in it are taken apart."""
    flat: list[Any] = []
    for member in members:
        for one in member["any of"] if isinstance(member, dict) and "any of" in member else [member]:
            if one == ANYTHING:
                return ANYTHING
            if one not in flat:
                flat.append(one)
    return flat[0] if len(flat) == 1 else {"any of": sorted(flat, key=lambda one: json.dumps(one, sort_keys=True))}


def normal(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """What a model's schema says of its fields: each one's type, default, and whether it is required; and of other keys."""
    required = set(schema.get("required", []))
    fields: dict[str, Any] = {
        name: {"type": plain(field, definitions), "default": field.get("default"), "required": name in required}
        for name, field in schema.get("properties", {}).items()
    }
    fields["(other keys)"] = {True: "kept", False: "refused", None: "ignored"}[schema.get("additionalProperties")]
    return fields


def differences(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Difference]:
    """Each field that isn't the same: model, field, and what is different."""
    for field in sorted(ours.keys() | theirs.keys()):
        if field not in ours:
            yield name, field, f"is missing here: {theirs[field]}"
        elif field not in theirs:
            yield name, field, f"is unknown there: {ours[field]}"
        elif ours[field] != theirs[field]:
            yield name, field, f"\n      here  {ours[field]}\n      there {theirs[field]}"


def own_schema(model: type[Model], mode: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a model, and the definitions that it refers to."""
    schema = model.model_json_schema(mode=mode)
    definitions = schema.pop("$defs", {})
    if "$ref" in schema:  # a model that refers to itself
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    return schema, definitions


@pytest.fixture(scope="module")
def peer(prefect_venv: Provisioned) -> dict[str, Any]:
    return dict(peer_document(prefect_venv)["components"]["schemas"])


@pytest.fixture(scope="module")
def waivers() -> dict[str, Any]:
    return tomllib.loads(WAIVERS.read_text())


def all_differences(peer: dict[str, Any]) -> list[Difference]:
    """Every difference between a model of ours and the one of the same name upstream."""
    found: list[Difference] = []
    for name, model in wire_models().items():
        for variant, modes in (
            (name, ("validation", "serialization")),
            (f"{name}-Input", ("validation",)),
            (f"{name}-Output", ("serialization",)),
        ):
            if variant not in peer:
                continue
            theirs = normal(peer[variant], peer)
            # A schema without a suffix is one that upstream uses in one direction only, or that is the same in both.
            candidates = [list(differences(name, normal(*own_schema(model, mode)), theirs)) for mode in modes]
            found.extend(min(candidates, key=len))
    return found


def test_the_models_are_those_that_prefect_publishes(peer: dict[str, Any], waivers: dict[str, Any]) -> None:
    waived = {(one["model"], one["field"]) for one in waivers["difference"]}
    found = all_differences(peer)
    left = [f"{model}.{field} {what}" for model, field, what in found if (model, field) not in waived]
    assert not left, "\n".join(left)


def test_every_model_that_prefect_publishes_is_here_or_waived(peer: dict[str, Any], waivers: dict[str, Any]) -> None:
    ours = wire_models().keys()
    absent = {name for one in waivers["absent"] for name in one["models"]}
    published = {
        name.removesuffix("-Input").removesuffix("-Output")
        for name, schema in peer.items()
        if "properties" in schema and not name.startswith("Body_")
    }
    assert sorted(published - ours - absent) == []


def test_no_waiver_is_stale(peer: dict[str, Any], waivers: dict[str, Any]) -> None:
    found = {(model, field) for model, field, _ in all_differences(peer)}
    stale = [one for one in waivers["difference"] if (one["model"], one["field"]) not in found]
    ours = wire_models().keys()
    here = [name for one in waivers["absent"] for name in one["models"] if name in ours or name not in peer]
    assert (stale, here) == ([], [])
    assert all(one["reason"] for kind in ("difference", "absent") for one in waivers[kind])


def test_the_comparison_sees_a_difference(peer: dict[str, Any]) -> None:
    """The normal form doesn't wash everything out: each kind of change to a published schema is found."""
    schema = peer["FlowRunCreate"]
    theirs = normal(schema, peer)
    for change in (
        {"properties": {**schema["properties"], "tags": {"type": "array", "items": {"type": "integer"}}}},
        {"properties": {**schema["properties"], "unheard_of": {"type": "string"}}},
        {"properties": {key: value for key, value in schema["properties"].items() if key != "tags"}},
        {"properties": {**schema["properties"], "flow_version": {"type": "string"}}},
        {"required": []},
        {"additionalProperties": True},
    ):
        assert len(list(differences("FlowRunCreate", normal({**schema, **change}, peer), theirs))) == 1
