"""What pages say of a deployment."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import MultiDict

from managedd.ui import deployed, words

SCHEMA: dict[str, Any] = {
    "properties": {
        "late": {"type": "integer", "position": 1, "default": 3, "description": "How late."},
        "first": {"anyOf": [{"type": "string"}, {"type": "null"}], "position": 0},
        "loose": {},
    },
    "required": ["first"],
}


def test_parameters_stand_in_the_order_of_the_flows_line_and_strangers_at_the_end() -> None:
    found = deployed.parameters(SCHEMA, {"late": 5, "stranger": [1]})
    assert [(each.name, each.type, each.is_required, each.value, each.default) for each in found] == [
        ("first", "string or null", True, None, None),
        ("late", "integer", False, "5", "3"),
        ("loose", "", False, None, None),
        ("stranger", "", False, "[1]", None),
    ]
    assert found[1].help == "How late."


@pytest.mark.parametrize(
    "schema", [None, [], "x", {"properties": 1, "required": 2}, {"properties": {"a": None, "b": 3}}]
)
def test_what_is_no_schema_breaks_nothing(schema: Any) -> None:
    assert {each.name for each in deployed.parameters(schema, {"given": 1})} >= {"given"}
    assert not deployed.is_missing(schema, {})
    assert "properties" in deployed.with_defaults(schema, {"a": 1})


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"enum": ["a", None]}, '"a" or null'),
        ({"type": ["integer", "null"]}, "integer or null"),
        ({"type": "array", "items": {"type": "string", "format": "date"}}, "list of date"),
        ({"type": "array"}, "array"),
        ({"allOf": [{"$ref": "#/definitions/Config"}]}, "Config"),
        ({"anyOf": [{"type": "string"}, {"type": "string", "format": "date"}, 7]}, "string or date"),
        ({"type": {"not": "a type"}}, "{'not': 'a type'}"),
    ],
)
def test_a_type_is_said_in_few_words(part: Any, said: str) -> None:
    assert deployed.type_of(part) == said


def test_a_run_needs_what_is_required_and_not_given() -> None:
    assert deployed.is_missing(SCHEMA, {})
    assert not deployed.is_missing(SCHEMA, {"first": None})


def test_values_that_count_are_the_defaults_of_a_form() -> None:
    made = deployed.with_defaults(SCHEMA, {"late": 9, "stranger": 1})
    assert made["properties"]["late"]["default"] == 9
    assert "stranger" not in made["properties"]
    assert SCHEMA["properties"]["late"]["default"] == 3


@pytest.mark.parametrize(
    ("schedule", "kind", "said"),
    [
        ({"cron": "0 9 * * *", "day_or": True}, "Cron", "0 9 * * *"),
        ({"interval": 5400.0, "anchor_date": "2026-01-01T00:00:00Z"}, "Interval", "every 1 h 30 min"),
        ({"rrule": "FREQ=DAILY"}, "Rule", "FREQ=DAILY"),
        ({}, "Rule", ""),
    ],
)
def test_a_schedule_says_when(schedule: dict[str, Any], kind: str, said: str) -> None:
    assert (deployed.schedule_kind(schedule), deployed.schedule_text(schedule)) == (kind, said)


def test_the_address_says_which_deployments_are_listed() -> None:
    given = MultiDict([("q", " etl "), ("tag", "a, b"), ("tag", "a,"), ("pool", "mine"), ("offset", "50")])
    found = deployed.chosen(given)
    assert (found.query, found.offset) == ("q=etl&tag=a&tag=b&pool=mine&", 50)
    assert found.body == {
        "deployments": {"flow_or_deployment_name": {"like_": "etl"}, "tags": {"all_": ["a", "b"]}},
        "work_pools": {"name": {"any_": ["mine"]}},
    }
    nothing = deployed.chosen(MultiDict([("offset", "-1")]))
    assert (nothing.query, nothing.body, nothing.offset) == ("", {}, 0)
    assert all(not deployed.chosen(MultiDict(offset=wild)).offset for wild in ("x", "9" * 40, "²", "99999999"))


def test_a_time_is_said_in_its_own_zone() -> None:
    assert words.local("2026-11-23T08:00:00.000000Z", "Europe/Berlin") == "Mon 23 Nov 2026, 09:00 CET"
    assert words.local("2026-07-01T08:00:30Z", "Europe/Berlin") == "Wed 1 Jul 2026, 10:00:30 CEST"
    assert words.local("2026-11-23T08:00:00Z", "Mars/Olympus") == "Mon 23 Nov 2026, 08:00 UTC"
    assert words.local("2026-11-23T08:00:00Z", "../../etc/passwd") == "Mon 23 Nov 2026, 08:00 UTC"
    assert words.local(None, "UTC") == "–"
