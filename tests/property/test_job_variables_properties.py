"""Whatever a tenant writes: a result of the promised form, or a ManagedError, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from managedd.errors import ManagedError
from managedd.orchestration.job_variables import (
    BlockByName,
    VariableByName,
    check_template,
    find_references,
    merge,
    render,
    substitute,
    validate_job_variables,
)
from managedd.orchestration.managed_job import check_image, check_package, managed_job, parse_memory, strip_reserved
from managedd.orchestration.parameters import HydrationContext, check_parameters, hydrate
from managedd.orchestration.schemas import first_error
from managedd.orchestration.templates import render as render_jinja

TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "{{ a }}",
            "x {{ b.c }}",
            "{{ prefect.blocks.s.n }}",
            "{{ prefect.variables.v }}!",
            "{{ $HOME }}",
            "512Mi",
            "env",
        ]
    ),
)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT)
JSON = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
OBJECT = st.dictionaries(
    st.one_of(TEXT, st.sampled_from(["env", "env.A", "image", "a", "b", "a.b.c"])), JSON, max_size=5
)
VARIABLES = ["env", "image", "pip_packages", "timeout", "memory_limit", "cpu_limit", "federated_identity"]


@settings(max_examples=200, deadline=None)
@given(defaults=OBJECT, deployment=OBJECT, run=OBJECT, configuration=OBJECT)
def test_layers_and_rendering(
    defaults: dict[str, Any], deployment: dict[str, Any], run: dict[str, Any], configuration: dict[str, Any]
) -> None:
    template = {"variables": {"properties": {name: {"default": value} for name, value in defaults.items()}}}
    before = json.dumps([template, deployment, run, configuration])
    try:
        values = merge(template, deployment, run)
        rendered = render(configuration, values)
        references = find_references(rendered)
        resolved = {
            reference: {"value": "inside"} if isinstance(reference, BlockByName) else "variable"
            for reference in references
        }
        result = substitute(rendered, resolved)
    except ManagedError as error:
        assert error.message.startswith("job_variables")
        return
    finally:
        assert json.dumps([template, deployment, run, configuration]) == before
    for name, value in run.items():
        if "." not in name and not isinstance(value, dict) and not any(key.startswith(f"{name}.") for key in run):
            assert values[name] == value
    assert VariableByName(name="v") not in find_references(result)
    json.dumps(result)


@settings(max_examples=200, deadline=None)
@given(configuration=st.dictionaries(st.sampled_from(VARIABLES), JSON, max_size=7))
def test_a_managed_job_is_of_its_types_or_refused(configuration: dict[str, Any]) -> None:
    try:
        job = managed_job(configuration)
    except ManagedError as error:
        assert re.match(r"job_variables\.\w+", error.message)
        return
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in job.env.items())
    assert job.timeout_seconds is None or job.timeout_seconds > 0
    assert job.memory_bytes is None or job.memory_bytes > 0
    assert job.cpus is None or job.cpus > 0
    kept, dropped = strip_reserved(job.env)
    assert set(kept) | set(dropped) == set(job.env)


@settings(max_examples=300, deadline=None)
@given(
    text=st.one_of(
        st.text(max_size=30),
        st.text(alphabet="pip-r /\n\\;=<>[]@:.,'\"${}()#~!gthps+ \t", max_size=30),
        st.tuples(st.sampled_from(["pandas", "git+https://h/r", "a @ https://h/x"]), st.text(max_size=8)).map("".join),
    )
)
def test_a_package_that_is_taken_is_one_line_without_options(text: str) -> None:
    try:
        taken = check_package(text)
    except ManagedError:
        return
    assert taken == text.strip(" ")
    assert taken
    assert taken.splitlines() == [taken]
    assert not any(word.startswith("-") for word in taken.split())
    assert "\\" not in taken
    assert taken[0] not in "./~"


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="abzAZ09/:.@_- []\n", max_size=40))
def test_an_image_that_is_taken_is_one_word_and_no_option(text: str) -> None:
    try:
        taken = check_image(text)
    except ManagedError:
        return
    assert taken == text
    assert taken.split() == [taken]
    assert not taken.startswith("-")


@settings(max_examples=200, deadline=None)
@given(number=st.integers(1, 10**6), unit=st.sampled_from([("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)]))
def test_memory_is_what_its_unit_says(number: int, unit: tuple[str, int]) -> None:
    expected = number << unit[1]
    try:
        assert parse_memory(f"{number}{unit[0]}") == expected
    except ManagedError:
        assert not 32 * 1024**2 <= expected <= 1024**5
    else:
        assert parse_memory(expected) == expected


NAME = st.sampled_from(["a", "b", "c"])
SCHEMA = st.recursive(
    st.one_of(
        st.just({}),
        st.booleans(),
        st.sampled_from(["string", "integer", "number", "object", "array", "null", "boolean"]).map(
            lambda name: {"type": name}
        ),
        st.lists(SCALAR, min_size=1, max_size=3).map(lambda some: {"enum": some}),
        st.integers(-3, 3).map(lambda number: {"minimum": number}),
        st.just({"uniqueItems": True}),
        st.sampled_from(["^[a-z]*$", "a", "^x+y?$"]).map(lambda text: {"pattern": text}),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(NAME, inner, max_size=3),
                "required": st.lists(NAME, max_size=2, unique=True),
                "additionalProperties": inner,
                "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2),
            },
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"oneOf": some}),
        inner.map(lambda part: {"items": part}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=8,
).filter(lambda schema: isinstance(schema, dict))
INSTANCE = st.dictionaries(
    NAME,
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-4, 4), st.sampled_from([0.5, 1.0, "a", "xy", "B"])),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAME, inner, max_size=3)),
        max_leaves=6,
    ),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(schema=SCHEMA, instance=INSTANCE)
def test_our_keywords_agree_with_the_library(schema: dict[str, Any], instance: dict[str, Any]) -> None:
    expected = Draft202012Validator(schema).is_valid(instance)
    assert (first_error(instance, schema, preprocess=False) is None) == expected


@settings(max_examples=150, deadline=None)
@given(values=OBJECT, schema=OBJECT)
def test_no_schema_breaks_the_check(values: dict[str, Any], schema: dict[str, Any]) -> None:
    for act in (
        lambda: check_parameters(values, schema),
        lambda: validate_job_variables({"variables": schema}, values),
        lambda: check_template({"job_configuration": values, "variables": schema}),
    ):
        try:
            act()
        except ManagedError as error:
            assert len(error.message) < 2000


KINDS = st.sampled_from(["json", "jinja", "workspace_variable", "none"])
PLACEHOLDER = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.fixed_dictionaries(
            {"__prefect_kind": KINDS}, optional={"value": inner, "template": inner, "variable_name": inner}
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(values=st.dictionaries(st.text(max_size=5), PLACEHOLDER, max_size=3))
def test_hydration_replaces_placeholders_and_nothing_else(values: dict[str, Any]) -> None:
    try:
        hydrated = hydrate(values, HydrationContext(variables={"v": 1}))
    except ManagedError as error:
        assert error.message.startswith("Error hydrating flow run parameters: ")
        return
    assert json.loads(json.dumps(hydrated)) == hydrated
    # What a "json" placeholder holds as a list is taken as it is, as in Prefect; everything else is replaced.
    plain = {name: value for name, value in values.items() if "__prefect_kind" not in json.dumps(value)}
    assert {name: hydrated[name] for name in plain} == plain
    for name in values.keys() - plain.keys():
        assert not isinstance(hydrated.get(name), dict) or "__prefect_kind" not in hydrated[name]


@settings(max_examples=300, deadline=None)
@given(
    template=st.one_of(
        st.text(max_size=40),
        st.text(alphabet="{}%# axy'|()[].*+-~,0123456789 iforendset", max_size=60),
        st.text(alphabet="axy'|()[].*+-~,0123456789 ", max_size=30).map(lambda inside: f"{{{{ {inside} }}}}"),
    )
)
def test_no_template_breaks_the_renderer(template: str) -> None:
    try:
        text = render_jinja(template, {"a": "text", "x": [1, 2], "y": {"k": 3}})
    except ManagedError as error:
        assert error.message.startswith("Invalid jinja: ")
    else:
        assert isinstance(text, str)
