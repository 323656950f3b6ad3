"""All wire models alike: what they take comes out again unchanged, and what nothing behind them could keep is refused."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import managedd.wire
from managedd.wire import base
from managedd.wire.base import Body, Model
from managedd.wire.deployments import VersionInfo
from managedd.wire.states import OrchestrationResult, StateWaitDetails

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESOURCE = {"prefect.resource.id": "prefect.flow-run.1"}


def models() -> list[type[Model]]:
    """Every public model under managedd.wire."""
    for module in pkgutil.walk_packages(managedd.wire.__path__, "managedd.wire."):
        importlib.import_module(module.name)

    def below(model: type[Model]) -> Iterator[type[Model]]:
        for child in model.__subclasses__():
            yield child
            yield from below(child)

    return sorted({model for model in below(Model) if not model.__name__.startswith("_")}, key=lambda one: one.__name__)


MODELS = models()
BODIES = [model for model in MODELS if issubclass(model, Body)]

# ---- values from a JSON schema: plain functions of a Random, since strategies for schemas of this size take seconds to build


def text(random: Random) -> str:
    """Any text that UTF-8 has, most of it plain."""
    pool = "abc xyz-_./%&><09'\"\\\n\x00é✓𝄞"
    return "".join(random.choice(pool) for _ in range(random.randrange(8)))


def number(random: Random) -> float:
    return random.choice([0.0, -0.0, 1.5, 1e300, 5e-324, random.uniform(-1e6, 1e6)])


def integer(random: Random) -> int:
    return random.choice([0, 1, -1, 2**63 - 1, -(2**63), random.randrange(-1000, 1000)])


def anything(random: Random, levels: int = 3) -> Any:
    """Any JSON value."""
    kind = random.randrange(7 if levels else 5)
    if kind == 5:
        return [anything(random, levels - 1) for _ in range(random.randrange(3))]
    if kind == 6:
        return {text(random): anything(random, levels - 1) for _ in range(random.randrange(3))}
    return [None, random.random() < 0.5, integer(random), number(random), text(random)][kind]


def moment(random: Random) -> str:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=random.randrange(-(2**50), 2**50))
    zone = random.choice([UTC, None, timezone(timedelta(hours=5, minutes=45))])
    return (at.astimezone(zone) if zone else at.replace(tzinfo=None)).isoformat()


FORMATS: dict[str, Callable[[Random], Any]] = {
    "uuid": lambda random: str(UUID(int=random.getrandbits(128))),
    "uri": lambda random: "http://localhost/events",
    "duration": lambda random: random.choice([10, 90.25, "P1DT2H", 3 * 10**8]),
    "date-time": moment,
}


def word(random: Random) -> str:
    return random.choice(["a", "b-1", "long-enough"])


def job_template(random: Random) -> Any:
    declared = {"type": "object", "properties": {"b": anything(random)}}
    return random.choice([{}, {"job_configuration": {"a": "{{ b }}"}, "variables": declared}])


def labels(random: Random) -> dict[str, str]:
    return {**{text(random): text(random) for _ in range(3)}, **RESOURCE, "prefect.resource.role": "flow"}


# Fields whose rule the schema doesn't tell.
RULES: dict[str, dict[str, Callable[[Random], Any]]] = {
    "VariableCreate": {"name": word},
    "VariableUpdate": {"name": word},
    "BlockTypeCreate": {"slug": word},
    "BlockDocumentCreate": {"name": word},
    "FlowRunPolicy": {"retry_delay_seconds": lambda random: random.randrange(100)},
    "ArtifactCreate": {"key": word},
    "WorkPoolCreate": {"name": word, "base_job_template": job_template},
    "WorkPoolUpdate": {"base_job_template": job_template},
    "CompoundTrigger": {"require": lambda random: random.choice(["any", "all"])},
    "TaskRunPolicy": {"retry_jitter_factor": lambda random: random.uniform(0, 10)},
    **{
        name: {"resource": labels, "related": lambda random: [labels(random) for _ in range(random.randrange(3))]}
        for name in ("Event", "ReceivedEvent")
    },
    # An action's object is inferred where it isn't named.
    **{
        f"{verb}{what}": {"source": lambda random: "inferred", f"{field}_id": lambda random: None}
        for verb in ("Run", "Pause", "Resume")
        for what, field in (
            ("Deployment", "deployment"),
            ("WorkQueue", "work_queue"),
            ("WorkPool", "work_pool"),
            ("Automation", "automation"),
        )
    },
    **{
        name: {"max_scheduled_runs": lambda random: random.choice([None, 1, 50])}
        for name in ("DeploymentSchedule", "DeploymentScheduleCreate", "DeploymentScheduleUpdate")
    },
}
ALWAYS = {"source", "type"}


def sample(schema: Any, definitions: dict[str, Any], random: Random) -> Any:
    """A JSON value that the schema allows."""
    if schema is True or not (schema.keys() - {"title", "description", "default", "examples"}):
        return anything(random)
    if "$ref" in schema:
        return sample(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, random)
    if "anyOf" in schema:
        return sample(random.choice(schema["anyOf"]), definitions, random)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return random.choice(schema["enum"])
    match schema["type"]:
        case "string":
            if "format" in schema:
                return FORMATS[schema["format"]](random)
            if "pattern" in schema:
                return word(random)
            return text(random) or ("x" if "minLength" in schema else "")
        case "integer" if low := schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1):
            return random.choice([low, schema.get("maximum", 2**63 - 1)])
        case "integer":
            return min(abs(integer(random)) // 2, schema.get("maximum", 2**63 - 1))
        case "number":
            return max(number(random), schema.get("minimum", -1e300))
        case "boolean":
            return random.random() < 0.5
        case "null":
            return None
        case "array" if "prefixItems" in schema:
            return [sample(one, definitions, random) for one in schema["prefixItems"]]
        case "array":
            return [sample(schema.get("items", True), definitions, random) for _ in range(random.randrange(3))]
        case _ if "properties" not in schema:
            inner = schema.get("additionalProperties", True)
            return {text(random): sample(inner, definitions, random) for _ in range(random.randrange(3))}
    rules, required = RULES.get(schema["title"], {}), {*schema.get("required", ()), *ALWAYS}
    return {
        name: rules[name](random) if name in rules else sample(field, definitions, random)
        for name, field in schema["properties"].items()
        if name in required or name in rules or random.random() < 0.5
    }


def own_schema(model: type[Model]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a model, and the definitions that it refers to."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    return (definitions[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema), definitions


# ---- every model


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_what_is_taken_comes_out_unchanged(model: type[Model]) -> None:
    schema, definitions = own_schema(model)

    @settings(max_examples=15, deadline=None, database=None)
    @given(st.integers(0, 2**64))
    def round_trip(seed: int) -> None:
        document = sample(schema, definitions, Random(seed))
        first = model.model_validate(document)
        sent = first.model_dump_json(exclude_unset=True)
        assert model.model_validate_json(sent).model_dump(exclude_unset=True) == first.model_dump(exclude_unset=True)
        assert orjson.dumps(first.model_dump(mode="json"))

    round_trip()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_no_integer_is_beyond_64_bits_and_no_number_beyond_all(model: type[Model]) -> None:
    def kinds(schema: dict[str, Any]) -> set[str]:
        return (
            {one.get("type", "") for one in [schema, *schema.get("anyOf", ())]}
            if schema.get("format") is None
            else set()
        )

    for name, field in own_schema(model)[0]["properties"].items():
        wrong: list[Any] = [10**40] if "integer" in kinds(field) and "number" not in kinds(field) else []
        if "string" not in kinds(field):  # else it is free JSON
            wrong += ["nan", "inf", "-inf"] if "number" in kinds(field) else []
            wrong += [2**63, -(2**63) - 1] if "integer" in kinds(field) and "number" not in kinds(field) else []
        for value in wrong:
            with pytest.raises(ValidationError) as refused:
                model.model_validate({name: value})
            assert name in {error["loc"][0] for error in refused.value.errors()}, f"{name} takes {value}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_json_that_nests_too_deep_is_refused(model: type[Model]) -> None:
    def is_free(schema: dict[str, Any]) -> bool:
        alternatives = schema.get("anyOf", [schema])
        return any(
            not (one.keys() - {"title", "default"})
            or (one.get("type") == "object" and one.get("additionalProperties") is True)
            for one in alternatives
        )

    deep: Any = {"end": 1}
    for _ in range(base.MAX_NESTING + 1):
        deep = {"next": deep}
    for name, field in own_schema(model)[0]["properties"].items():
        if is_free(field):
            with pytest.raises(ValidationError) as refused:
                model.model_validate({name: deep})
            assert name in {error["loc"][0] for error in refused.value.errors()}, name


@pytest.mark.parametrize("model", BODIES, ids=lambda model: model.__name__)
def test_a_body_refuses_keys_that_it_does_not_know(model: type[Model]) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"unheard_of": 1})
    assert ("extra_forbidden", ("unheard_of",)) in {(error["type"], error["loc"]) for error in refused.value.errors()}


def test_an_answer_ignores_keys_that_it_does_not_know() -> None:
    found = OrchestrationResult.model_validate(
        {"state": None, "status": "WAIT", "details": {"type": "wait_details", "delay_seconds": 3}, "new_in_4": True}
    )
    assert isinstance(found.details, StateWaitDetails)
    assert VersionInfo.model_validate({"type": "git", "version": "1", "commit": "abc"}).model_dump()["commit"] == "abc"


def test_the_vocabulary_costs_little_to_import() -> None:
    """No heavy package comes with it, and no validator is built before its first use."""
    program = (
        "import sys, pkgutil, importlib, managedd.wire\n"
        "for found in pkgutil.walk_packages(managedd.wire.__path__, 'managedd.wire.'): importlib.import_module(found.name)\n"
        "from managedd.wire.flow_runs import FlowRunCreate\n"
        "assert FlowRunCreate.__pydantic_complete__ is False\n"
        "heavy = {'aiohttp', 'croniter', 'dateutil', 'jinja2', 'jsonschema', 'structlog', 'sqlite3', 'aiodocker'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@given(st.integers(0, 2**64))
@settings(max_examples=200, deadline=None, database=None)
def test_the_size_of_json_is_that_of_its_compact_text(seed: int) -> None:
    value = anything(Random(seed))
    assert base.json_size_bytes(value) == len(orjson.dumps(value))
