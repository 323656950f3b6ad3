"""Which job variables a pool's template calls secret."""

from __future__ import annotations

from typing import Any

import pytest

from managedd.model.secret_schemas import MAX_PATHS, concrete, default_paths, secret_paths
from managedd.model.secrets import MASK, hidden, masked, values_at
from managedd.orchestration.pool_types import worker_metadata

PASSWORD = {"type": "string", "format": "password", "writeOnly": True}


def template(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"job_configuration": {}, "variables": {"type": "object", "properties": properties, **more}}


@pytest.mark.parametrize(
    ("properties", "more", "paths"),
    [
        ({"a": {"type": "string"}}, {}, []),
        ({"a": PASSWORD, "b": {"type": "string"}}, {}, [("a",)]),
        ({"a": {"type": "string", "format": "password"}}, {}, [("a",)]),
        ({"a": {"type": "object", "writeOnly": True}}, {}, [("a",)]),
        ({"a": {"anyOf": [PASSWORD, {"type": "null"}], "default": None}}, {}, [("a",)]),
        ({"a": {"type": "array", "items": PASSWORD}}, {}, [("a",)]),
        ({"env": {"type": "object", "properties": {"TOKEN": PASSWORD, "LEVEL": {"type": "string"}}}}, {}, [("env", "TOKEN")]),
        ({"env": {"type": "object", "additionalProperties": PASSWORD}}, {}, [("env", "*")]),
        ({"env": {"type": "object", "patternProperties": {"^SECRET_": PASSWORD}}}, {}, [("env", "*")]),
        ({"a": {"$ref": "#/definitions/A"}}, {"definitions": {"A": {"properties": {"p": PASSWORD}}}}, [("a", "p")]),
        ({"a": {"allOf": [{"$ref": "#/$defs/A"}]}}, {"$defs": {"A": PASSWORD}}, [("a",)]),
        ({"a": {"type": "object"}}, {"secret_fields": ["a.*"]}, [("a", "*")]),
        ({"writeOnly": {"type": "boolean"}, "format": {"type": "string"}}, {}, []),
        ({"a.b": PASSWORD}, {}, [("a.b",)]),
    ],
)  # fmt: skip
def test_a_mark_is_found_wherever_it_stands(
    properties: dict[str, Any], more: dict[str, Any], paths: list[tuple[str, ...]]
) -> None:
    assert secret_paths(template(properties, **more)) == paths


def test_a_definition_that_holds_itself_hides_all_that_is_below() -> None:
    node = {"properties": {"password": PASSWORD, "next": {"$ref": "#/definitions/Node"}}}
    paths = secret_paths(template({"a": {"$ref": "#/definitions/Node"}}, definitions={"Node": node}))
    shown = masked({"a": {"password": "s1", "next": {"password": "s2", "next": {"password": "s3"}}}}, paths)
    assert not any(secret in str(shown) for secret in ("s1", "s2", "s3"))


def test_a_schema_that_nobody_can_follow_is_secret_as_a_whole() -> None:
    many = {f"p{number}": PASSWORD for number in range(MAX_PATHS + 1)}
    assert secret_paths(template({"a": {"properties": many}, "b": {"type": "string"}})) == [("a",), ("b",)]
    doubling = {f"d{number}": {"allOf": [{"$ref": f"#/definitions/d{number + 1}"}] * 2} for number in range(40)}
    assert secret_paths(template({"a": PASSWORD, "b": {"$ref": "#/definitions/d0"}}, definitions=doubling)) == [
        ("a",), ("b",),
    ]  # fmt: skip


def test_defaults_of_what_is_secret_are_found() -> None:
    made = template(
        {
            "token": {**PASSWORD, "default": "s1"},
            "env": {"properties": {"A": {**PASSWORD, "default": "s2"}}, "default": {"A": "s3", "B": "clear"}},
            "level": {"type": "string", "default": "clear"},
            "of": {"anyOf": [{**PASSWORD, "default": "s4"}, {"type": "null"}]},
        },
        definitions={"D": {**PASSWORD, "default": "s5"}},
    )
    shown = masked(made, default_paths(made))
    assert [text for text in ("s1", "s2", "s3", "s4", "s5") if text in str(shown)] == []
    assert str(shown).count("clear") == 2
    assert masked(shown, default_paths(shown)) == shown


def test_dotted_names_are_the_same_variables() -> None:
    variables = {
        "env.TOKEN": "s1",
        "env.LEVEL": "clear",
        "a.b.c": "s2",
        "x": {"y": "s3"},
        "x.z": {"p": "s4", "q": "clear"},
    }
    paths = concrete([("env", "TOKEN"), ("a",), ("x", "y"), ("x", "z", "p")], variables)
    assert masked(variables, paths) == {
        "env.TOKEN": MASK, "env.LEVEL": "clear", "a.b.c": MASK, "x": {"y": MASK}, "x.z": {"p": MASK, "q": "clear"},
    }  # fmt: skip


def test_of_our_own_types_of_pools_only_a_workers_registry_has_a_secret() -> None:
    """A secret in the managed template would cost every run an envelope."""
    found_in = {
        entry["type"]: secret_paths(entry["default_base_job_configuration"])
        for entries in worker_metadata().values()
        for entry in entries.values()
    }
    assert found_in.pop("docker") == [("registry_credentials", "password")]
    assert set(found_in) == {"process", "kubernetes", "prefect:managed"} and not any(found_in.values())


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("the value 'hunter22' is wrong", ["hunter22"], f"the value '{MASK}' is wrong"),
        ("'a-long-secr… is cut", ["a-long-secret-of-mine"], f"'{MASK}… is cut"),
        ("it's 'a\\nb-c-d-e'", ["a\nb-c-d-e"], f"it's '{MASK}'"),
        ('{"a": "say \\"hi\\" you"}', ['say "hi" you'], f'{{"a": "{MASK}"}}'),
        ("timeout: 'abc' is no abcissa", ["abc"], f"timeout: '{MASK}' is no abcissa"),
        ("password1 and password2", [{"a": ["password1"], "b": {"c": "password2"}}], f"{MASK} and {MASK}"),
        ("12345678 is too much", [12345678], f"{MASK} is too much"),
        ("nothing of it", ["hunter22", None, True, ""], "nothing of it"),
    ],
)
def test_messages_do_not_repeat_what_is_secret(text: str, secrets: list[Any], shown: str) -> None:
    assert hidden(text, secrets) == shown


def test_what_stands_at_a_path_is_found() -> None:
    data = {"a": "1", "l": [{"t": "2"}, {"t": "3"}, {}], "e": {"x": "4"}}
    assert values_at(data, ["a", ("l", "t"), "e.*", "no.such"]) == ["1", "2", "3", {"x": "4"}]
