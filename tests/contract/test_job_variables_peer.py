"""Templates, rendering, hydration and parameter checks beside the real code, with the intended differences as data."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from managedd.errors import ManagedError
from managedd.orchestration.job_variables import check_template, merge, render, validate_job_variables
from managedd.orchestration.parameters import HydrationContext, check_parameters, hydrate
from managedd.orchestration.pool_types import worker_metadata

if TYPE_CHECKING:
    from tests.support.provision import Provisioned

pytestmark = pytest.mark.client

PEER = r"""
import asyncio, json, os, sys
from pathlib import Path
import prefect
from prefect.utilities.schema_tools import hydration, validation
from prefect.utilities.templating import apply_values
from prefect.workers.base import BaseJobConfiguration
from prefect.server.schemas.actions import validate_base_job_template

class Configuration(BaseJobConfiguration):
    model_config = {"extra": "allow"}

def merged(template, layers):
    deployment, run = layers
    values = dict(deployment)
    if isinstance(values.get("env"), dict):
        values["env"].update(run.pop("env", {}))
    values.update(run)
    made = asyncio.run(Configuration.from_template_and_values(template, values, client=object()))
    return made.model_dump(exclude_unset=True)

def validated(parameters, schema, options):
    validation.validate(parameters, schema, raise_on_error=True, **options)

def hydrated(parameters, variables):
    context = hydration.HydrationContext(
        workspace_variables=variables, render_workspace_variables=True, raise_on_error=True, render_jinja=True)
    return hydration.hydrate(parameters, context)

def view():
    data = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
    return json.loads(data.read_text())

def check_template(template):
    validate_base_job_template(template)

asked = {f.__name__: f for f in (merged, validated, hydrated, view, check_template)}
asked["rendered"] = lambda template, values: apply_values(template, values)
answers = []
for name, arguments in json.load(sys.stdin):
    try:
        answers.append({"value": asked[name](*arguments)})
    except Exception as error:
        answers.append({"error": str(error)})
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def peer(prefect_venv: Provisioned, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Calls functions of the real code, all in one process."""
    assert prefect_venv.prefect_python is not None
    home = tmp_path_factory.mktemp("peer")

    def ask(questions: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
        done = subprocess.run(
            [str(prefect_venv.prefect_python), "-W", "ignore", "-c", PEER],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
            cwd=home,
            env={"HOME": str(home), "PREFECT_HOME": str(home), "PATH": "/usr/bin:/bin", "DO_NOT_TRACK": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    return ask


# The words are ours, and so is what stands only in documentation.
WORDS = {"description", "example", "display_name", "logo_url", "documentation_url"}


def facts(value: Any) -> Any:
    """Without the words."""
    if isinstance(value, dict):
        return {key: facts(part) for key, part in value.items() if not (key in WORDS and isinstance(part, str | list))}
    return [facts(part) for part in value] if isinstance(value, list) else value


def test_the_hybrid_types_have_the_variables_that_their_workers_know(peer: Any) -> None:
    [answer] = peer([("view", [])])
    theirs = answer["value"]
    ours = worker_metadata()
    for collection, key in (("prefect", "process"), ("prefect-docker", "docker"), ("prefect-kubernetes", "kubernetes")):
        assert facts(ours[collection][key]) == facts(theirs[collection][key])
        assert set(ours[collection][key]) == set(theirs[collection][key])
        names = list(theirs[collection][key]["default_base_job_configuration"]["variables"]["properties"])
        assert list(ours[collection][key]["default_base_job_configuration"]["variables"]["properties"]) == names


VALUES = {
    "n": 5, "text": "x y", "flag": True, "none": None, "list": [1, {"a": 2}], "deep": {"er": "z", "0": "zero"}, "empty": "",
}  # fmt: skip
RENDERED: list[Any] = [
    "{{ n }}", "{{n}}", "a {{ n }}", "{{ n }}{{ text }}", "{{ none }}", "x{{ none }}", "{{ list }}", "{{ list[1].a }}", "{{ deep.er }}",
    "{{ deep.missing }}", "{{ missing }}", "a{{ missing }}b", "{{ not valid }}", "{ n }", "{{{ n }}}", "{{ flag }} {{ empty }}",
    {"a": "{{ n }}", "b": {"c": ["{{ list }}", "{{ missing }}"], "d": "{{ missing }}"}, "e": 1.5, "f": None, "g": False},
    ["{{ n }}", ["{{ missing }}"]], "{{ prefect.blocks.secret.x }}", "{{ prefect.variables.x }}", "v {{ prefect.variables.x }} {{ n }}",
]  # fmt: skip

TEMPLATE: dict[str, Any] = {
    "job_configuration": {"env": "{{ env }}", "image": "{{ image }}", "labels": "{{ labels }}", "manifest": {"i": "{{ image }}:{{ tag }}"}},
    "variables": {
        "type": "object",
        "properties": {
            "env": {"type": "object", "default": {"A": "pool", "B": "pool"}},
            "image": {"type": "string", "default": "base"},
            "labels": {"type": "object"},
            "tag": {"type": "string", "default": None},
        },
    },
}  # fmt: skip
SPELLED_OUT: dict[str, Any] = {
    **TEMPLATE,
    "job_configuration": {"env": {"A": "template", "T": "template"}, "x": "{{ image }}"},
}
MERGED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (template, deployment, run)
    for template in (TEMPLATE, SPELLED_OUT)
    for deployment, run in (
        ({}, {}),
        ({"env": {"B": "d", "C": "d"}}, {"env": {"C": "r"}}),
        ({"image": "d", "labels": {"a": "1"}}, {"labels": {"b": "2"}, "tag": "7"}),
        ({"env.B": "d"}, {"env.C": "r"}),
        ({"env.B": "dotted", "env": {"B": "nested"}}, {}),
        ({}, {"image": "r"}),
    )
]

SCHEMA: dict[str, Any] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "count": {"title": "count", "position": 0, "type": "integer", "minimum": 1},
        "name": {"title": "name", "position": 1, "type": "string", "default": "a"},
        "note": {"title": "note", "position": 2, "type": "string"},
        "pair": {"title": "pair", "position": 3, "type": "array", "items": [{"type": "string"}, {"type": "integer"}]},
        "person": {"title": "person", "position": 4, "allOf": [{"$ref": "#/definitions/Person"}]},
        "either": {"title": "either", "position": 5, "anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        "secret": {"title": "secret", "position": 6, "allOf": [{"$ref": "#/definitions/Secret"}]},
        "code": {"title": "code", "position": 7, "type": "string", "pattern": "^[a-z]+$"},
        "tags": {"title": "tags", "position": 8, "type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "kind": {"title": "kind", "position": 9, "enum": ["a", "b"], "type": "string"},
    },
    "required": ["count"],
    "definitions": {
        "Person": {
            "title": "Person", "type": "object", "required": ["first"], "additionalProperties": False,
            "properties": {"first": {"type": "string"}, "age": {"type": "integer"}},
        },
        "Secret": {
            "title": "Secret", "type": "object", "required": ["value"], "block_type_slug": "secret",
            "properties": {"value": {"type": "string"}},
        },
    },
}  # fmt: skip
PARAMETERS: list[dict[str, Any]] = [
    {"count": 1}, {"count": "x"}, {"count": 0}, {}, {"count": 1, "extra": 1}, {"count": 1, "name": None}, {"count": 1, "note": None},
    {"count": 1, "note": 5}, {"count": 1, "pair": ["a", 1]}, {"count": 1, "pair": ["a", "b"]}, {"count": 1, "person": {}},
    {"count": 1, "person": {"first": "A", "age": None}}, {"count": 1, "person": {"first": 3}}, {"count": 1, "either": None},
    {"count": 1, "person": {"first": "A", "last": "B", "more": 1}}, {"count": 1, "person": {"first": "A", "last": "B"}},
    {"count": 1, "either": "x"}, {"count": 1, "secret": {"value": "x"}}, {"count": 1, "secret": {"$ref": "not a uuid"}},
    {"count": 1, "secret": {"$ref": {"block_document_id": "x"}}}, {"count": 1, "secret": {}}, {"count": 1, "code": "abc"},
    {"count": 1, "code": "ABC"}, {"count": 1, "tags": ["a", "b"]}, {"count": 1, "tags": ["a", "a"]}, {"count": 1, "kind": "c"},
    {"count": None}, {"count": True}, {"count": 1.0}, {"count": 1, "pair": "ab"},
]  # fmt: skip
SCHEMAS: list[dict[str, Any]] = [
    {"$ref": "http://127.0.0.1:9/x.json"},
    {"properties": {"count": {"type": "string"}}, "additionalProperties": False},
    {"properties": {"a": {}}, "patternProperties": {"^c": {"type": "string"}}},
    {"type": "array"},
]

HYDRATED: list[Any] = [
    1, {"__prefect_kind": "none", "value": 1}, {"__prefect_kind": "none"}, {"__prefect_kind": "json", "value": "[1, {}]"},
    {"__prefect_kind": "json", "value": "{"}, {"__prefect_kind": "json", "value": [1]}, {"__prefect_kind": "json"},
    {"__prefect_kind": "jinja", "template": "a{{ 1 + 1 }}"}, {"__prefect_kind": "jinja", "template": "{{ x.y.z }}"},
    {"__prefect_kind": "jinja", "template": "{{ x"}, {"__prefect_kind": "jinja"}, {"__prefect_kind": "other", "value": 3},
    {"__prefect_kind": "workspace_variable", "variable_name": "v"}, {"__prefect_kind": "workspace_variable", "variable_name": "w"},
    {"__prefect_kind": "workspace_variable"}, [{"__prefect_kind": "json"}, 2], {"a": {"__prefect_kind": "json"}, "b": 2},
    {"__prefect_kind": "json", "value": {"__prefect_kind": "workspace_variable", "variable_name": "v"}}, {"__prefect_kind": None},
    {"__prefect_kind": "jinja", "template": "{% for i in range(101) %}{% endfor %}"},
]  # fmt: skip

TEMPLATES: list[tuple[dict[str, Any], bool]] = [
    ({}, True), (TEMPLATE, True), ({"job_configuration": {"a": 1}}, False), ({"variables": {"properties": {}}}, False),
    ({"job_configuration": {"a": "{{ x }}"}, "variables": {"properties": {"y": {}}}}, False),
    ({"job_configuration": {"a": ["{{ y }}"]}, "variables": {"properties": {"y": {}}}}, True),
]  # fmt: skip


def test_rendering_is_the_same(peer: Any) -> None:
    answers = peer([("rendered", [{"k": template}, VALUES]) for template in RENDERED])
    for template, answer in zip(RENDERED, answers, strict=True):
        assert {"value": render({"k": template}, VALUES)} == answer, template


def test_the_layers_come_to_the_same_configuration(peer: Any) -> None:
    answers = peer([("merged", [template, [deployment, run]]) for template, deployment, run in MERGED])
    for (template, deployment, run), answer in zip(MERGED, answers, strict=True):
        ours = render(template["job_configuration"], merge(template, deployment, run))
        assert {"value": ours} == answer, (template, deployment, run)


def test_a_dotted_key_of_the_run_wins_here_and_loses_there(peer: Any) -> None:
    """Intended: the run is the layer above the deployment, in either spelling."""
    layers: list[dict[str, Any]] = [{"env": {"B": "deployment"}}, {"env.B": "run"}]
    [answer] = peer([("merged", [TEMPLATE, layers])])
    assert answer["value"]["env"]["B"] == "deployment"
    assert merge(TEMPLATE, *layers)["env"]["B"] == "run"


def message(act: Any, *arguments: Any, **options: Any) -> str | None:
    try:
        act(*arguments, **options)
    except ManagedError as error:
        return error.message
    return None


def test_parameters_are_refused_with_the_same_words(peer: Any) -> None:
    options = [{}, {"ignore_required": True}]
    questions = [(parameters, SCHEMA, option) for parameters in PARAMETERS for option in options]
    questions += [({"count": 1}, schema, {}) for schema in SCHEMAS]
    answers = peer([("validated", [parameters, schema, option]) for parameters, schema, option in questions])
    for (parameters, schema, option), answer in zip(questions, answers, strict=True):
        ours = message(check_parameters, parameters, schema, doing="E", **option)
        theirs = None if "value" in answer else f"E: {answer['error']}"
        assert ours == theirs, (parameters, schema, option)


def test_job_variables_are_refused_with_the_same_words(peer: Any) -> None:
    template = {"job_configuration": {"a": 1}, "variables": {**SCHEMA, "definitions": {}, "properties": {
        name: part for name, part in SCHEMA["properties"].items() if name not in {"person", "secret", "pair"}
    }}}  # fmt: skip
    options = {"allow_none_with_default": True}
    given = [{"name": "a", **some} for some in PARAMETERS if not some.keys() & {"person", "secret", "pair"}]
    answers = peer([("validated", [some, template["variables"], options]) for some in given])
    for some, answer in zip(given, answers, strict=True):
        ours = message(validate_job_variables, template, some, doing="E")
        assert ours == (None if "value" in answer else f"E: {answer['error']}"), some


def test_hydration_is_the_same(peer: Any) -> None:
    answers = peer([("hydrated", [{"p": value}, {"v": "var"}]) for value in HYDRATED])
    for value, answer in zip(HYDRATED, answers, strict=True):
        try:
            ours = {"value": hydrate({"p": value}, HydrationContext(variables={"v": "var"}))}
        except ManagedError:
            ours = {}
        assert ("value" in ours) == ("value" in answer), value
        if ours:
            assert ours == answer, value


def test_the_same_templates_are_taken(peer: Any) -> None:
    answers = peer([("check_template", [template]) for template, _ in TEMPLATES])
    for (template, good), answer in zip(TEMPLATES, answers, strict=True):
        assert ("value" in answer) == good, template
        assert (message(check_template, template) is None) == good, template
